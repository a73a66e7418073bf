"""Loads an event stream server: many subscribers, one publisher with a window of undelivered events.

Runs in a process of its own; speaks JSON lines with its parent: one line per measurement asked for, one per answer.
It does as little as it can per message: receive and count.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

# Ends every event, and occurs nowhere else in a stream.
END = b"\n\n"
DEADLINE_S = 60.0


class Streams:
    """Subscribers of one path on one port."""

    def __init__(self, port: int, gets: list[bytes], post: bytes) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._port = port
        self._post = post
        self.received = 0
        self._tails: dict[int, bytes] = {}
        self._open: set[int] = set()
        subscribers = len(gets)
        for get in gets:
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(get)
            connection.setblocking(False)
            self._sockets[connection.fileno()] = connection
            self._tails[connection.fileno()] = b""
            self._poll.register(connection, select.EPOLLIN)
            if len(self._sockets) % 100 == 0:
                self._settle(0.02)
        deadline = time.monotonic() + DEADLINE_S
        while len(self._open) < subscribers:
            self._settle(0.5)
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(self._open)} of {subscribers} streams were answered")

    def _settle(self, quiet: float) -> None:
        """Reads what the server greets with, until it is quiet."""
        while ready := self._poll.poll(quiet):
            for number, _ in ready:
                if not (data := self._sockets[number].recv(65536)) or not self._greeted(number, data):
                    raise SystemExit(f"a stream was answered {data[:300]!r}")

    def _greeted(self, number: int, data: bytes) -> bool:
        if number in self._open:
            return True
        self._open.add(number)
        return data.startswith(b"HTTP/1.1 200 ")

    def measure(self, messages: int, window: int) -> float:
        """Publishes, never more than `window` undelivered; returns wall seconds until all were received by all."""
        publishers = [socket.create_connection(("127.0.0.1", self._port)) for _ in range(window)]
        for each in publishers:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.setblocking(False)
            self._poll.register(each, select.EPOLLIN)
        by_number = {each.fileno(): each for each in publishers}
        subscribers = len(self._sockets)
        self.received = 0
        published = 0
        idle = list(by_number)
        started = time.monotonic()
        while self.received < messages * subscribers:
            while idle and published < messages and published - self.received // subscribers < window:
                by_number[idle.pop()].sendall(self._post)
                published += 1
            for number, _ in self._poll.poll(5):
                if number in by_number:
                    by_number[number].recv(4096)
                    idle.append(number)
                    continue
                data = self._sockets[number].recv(262144)
                if not data:
                    raise SystemExit(f"a stream was ended after {self.received} messages")
                # An end may be cut in two by the packet's edge.
                self.received += (self._tails[number] + data).count(END)
                self._tails[number] = data[-1:] if data[-1:] == b"\n" and data[-2:] != END else b""
            if time.monotonic() - started > DEADLINE_S:
                raise SystemExit(
                    f"{self.received} of {messages * subscribers} messages came, {published} were published"
                )
        taken = time.monotonic() - started
        for each in publishers:
            self._poll.unregister(each)
            each.close()
        return taken


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    gets = [get.encode() for get in setup["gets"]]
    streams = Streams(setup["port"], gets, setup["post"].encode())
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(streams.measure(asked["messages"], asked["window"])), flush=True)


main()
