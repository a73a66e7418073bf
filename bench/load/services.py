"""As `webhooks.py`, but the target is a service: `pubsub` or `iothub`. Answers as they do, and checks nothing.

usage: python -m bench.load.services pubsub|iothub
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import time
from typing import Any

import uvloop

from bench.load.webhooks import STAMP, Measured, main

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
MESSAGE = re.compile(rb'"data":"([^"]*)"')


class Service(asyncio.Protocol):
    """Reads whole requests and answers each."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._pending = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            head = self._pending[:end]
            length = LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._pending) < whole:
                return
            body, self._pending = self._pending[end + 4 : whole], self._pending[whole:]
            self._transport.write(self.answer(head, body))

    def answer(self, head: bytes, body: bytes) -> bytes:
        raise NotImplementedError

    def count(self, stamps: list[bytes]) -> None:
        if stamps:
            self._measured.arrived(time.perf_counter_ns(), stamps)


class PubSub(Service):
    """Takes every message."""

    def answer(self, head: bytes, body: bytes) -> bytes:
        messages = [base64.b64decode(each) for each in MESSAGE.findall(body)]
        self.count([stamp for each in messages for stamp in STAMP.findall(each)])
        said = json.dumps({"messageIds": ["12345678901234567"] * len(messages)}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said)


class IotHub(Service):
    """Takes every identity and every message."""

    def answer(self, head: bytes, body: bytes) -> bytes:
        self.count(STAMP.findall(body))
        if head.startswith(b"POST"):
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


if __name__ == "__main__":
    uvloop.run(main({"pubsub": PubSub, "iothub": IotHub}[sys.argv[1]]))
