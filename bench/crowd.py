"""Everybody who uses a cloud at the same time, in one event loop: publishers, devices, readers that churn, targets.

Each publisher numbers its events, so that whoever receives them can be compared with what was acknowledged. All of
them go on when the server goes away for a while, as real ones do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

from bench import ground
from bench.harness import Wirechamber
from bench.load.devices import device_id
from wirechamber.device import Device, DeviceError
from wirechamber.device.keys import new_key
from wirechamber.protocols.sse import GAP_EVENT
from wirechamber.services.serverkeys import ServerKeys

SETTINGS = {
    "provisioning": "true",
    "publish_rate": "100000",
    "publish_burst": "100000",
    "retry_schedule": "0,0.2,0.5,1,2,2,2,2",
    "streams_per_address": "100000",
}
# What is published, and who wants it.
PREFIX = "crowd/"
# Longer than any of this takes: what a device missed it still wants.
TTL_S = 86_400
AGAIN_S = 0.02
ANSWER_S = 20.0
LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
# Closing sends RST at once (socket(7), SO_LINGER with no time).
BY_RESET = struct.pack("ii", 1, 0)


@dataclass
class Told:
    """What happened, by all of them.

    Attributes:
        acknowledged: What the cloud said that it has, by number.
        refused: Answers that were neither good nor "try again": by status.
    """

    acknowledged: set[int] = field(default_factory=set)
    refused: Counter[int] = field(default_factory=Counter)
    published: int = 0

    def next(self) -> int:
        """The number of the next event."""
        self.published += 1
        return self.published


async def publisher(server: Wirechamber, told: Told, pause_s: float) -> None:
    """Publishes one event after the other over a connection that is kept; each until it is acknowledged."""
    while True:
        number = told.next()
        body = json.dumps({"name": f"{PREFIX}rest", "data": str(number), "ttl": TTL_S, "private": True})
        request = (
            f"POST /v1/devices/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {server.token}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        while (status := await _asked(server.port, request)) != 200:
            if status is not None and status != 503:
                told.refused[status] += 1
            await asyncio.sleep(AGAIN_S)
        told.acknowledged.add(number)
        await asyncio.sleep(pause_s)


async def _asked(port: int, request: bytes) -> int | None:
    """The status of the answer; None when there was none."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                return int(head[9:12])
            finally:
                writer.close()
    except (OSError, EOFError, ValueError, TimeoutError, asyncio.IncompleteReadError):
        return None


class Things:
    """Devices that publish and subscribe."""

    def __init__(self, server: Wirechamber, count: int) -> None:
        self._server = server
        key = ServerKeys(server.folder).public(tcp=False)
        self.devices = [
            Device(device_id(number), key=new_key(), server_key=key, host="127.0.0.1", port=server.udp_port)
            for number in range(count)
        ]
        self.came: list[Counter[int]] = [Counter() for _ in self.devices]

    async def open(self) -> None:
        """Registers and connects them, and subscribes to what REST publishes."""
        await asyncio.to_thread(ground.devices, self._server.folder, self._server.owner, range(len(self.devices)))
        for device, came in zip(self.devices, self.came, strict=True):
            await device.subscribe(f"{PREFIX}rest", partial(_count, came))
            await device.open()
            await device.settle()

    async def close(self) -> None:
        await asyncio.gather(*(device.close() for device in self.devices), return_exceptions=True)

    async def publish(self, number: int, told: Told, pause_s: float) -> None:
        """One of them publishes. What was not acknowledged is published again, as another event."""
        device = self.devices[number]
        while True:
            event = told.next()
            while True:
                try:
                    await device.publish(f"{PREFIX}device", str(event))
                    break
                except DeviceError:
                    await asyncio.sleep(AGAIN_S)
            told.acknowledged.add(event)
            await asyncio.sleep(pause_s)


def _count(came: Counter[int], name: str, data: str) -> None:
    came[int(data)] += 1


class Target:
    """Takes webhooks: counts the numbers, and answers as it is told to.

    Attributes:
        status: Of the answer; None: it never comes.
    """

    def __init__(self, status: int | None = 200) -> None:
        self.status = status
        self.came: Counter[int] = Counter()
        self.url = ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Target]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled when everything is over.
        with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if self.status is None:
                    # Until the other side gives up.
                    await reader.read()
                    break
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.status)
                if self.status == 200:
                    self.came[int(body)] += 1
        writer.close()


class Reader:
    """A stream that is read for a moment, cut, and resumed where it was, again and again.

    Attributes:
        seen: The numbers that came.
        back: Ids that were not greater than the one before.
        gaps: What the stream said is gone.
    """

    def __init__(self, server: Wirechamber, dice: random.Random) -> None:
        self._server = server
        self._dice = dice
        self._last: str | None = None
        self.seen: set[int] = set()
        self.back = 0
        self.gaps = 0
        self.resumes = 0
        self.opened = asyncio.Event()

    async def run(self, longest_s: float) -> None:
        """For ever."""
        while True:
            with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError, asyncio.IncompleteReadError):
                await self._once(self._dice.random() * longest_s)
            await asyncio.sleep(AGAIN_S)

    async def _once(self, seconds: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        try:
            resume = "" if self._last is None else f"Last-Event-ID: {self._last}\r\n"
            writer.write(
                f"GET /v1/devices/events/{PREFIX} HTTP/1.1\r\nHost: 127.0.0.1\r\n{resume}"
                f"Authorization: Bearer {self._server.token}\r\nAccept: text/event-stream\r\n\r\n".encode()
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER_S)
            if head[9:12] != b"200":
                return
            if self._last is None:
                # From here on it must get everything, whenever it is cut.
                found = re.search(rb"(?i)wirechamber-stream-start: *(\d+)", head)
                assert found is not None, head
                self._last = str(int(found[1]) - 1)
            else:
                self.resumes += 1
            self.opened.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._read(reader)
            if self._dice.random() < 0.5:
                made = writer.get_extra_info("socket")
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, BY_RESET)
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        cursor = name = ""
        while line := (await reader.readline()).decode():
            if line.startswith("id: "):
                cursor = line[4:].strip()
            elif line.startswith("event: "):
                name = line[7:].strip()
            elif line.startswith("data: "):
                # Only what came whole counts: the line before was the id.
                if not line.endswith("\n"):
                    return
                if self._last is not None and int(cursor) <= int(self._last):
                    self.back += 1
                self._last = cursor
                if name == GAP_EVENT:
                    self.gaps += 1
                else:
                    self.seen.add(int(json.loads(line[6:])["data"]))
