"""Streams that come back at once: each resumes, and waits for so many events.

One that is turned away comes again when it was told to, or after a second, as an EventSource does.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time

# Not by its id: the greeting has one, too.
EVENT = re.compile(rb"(?m)^event: ")
RETRY_AFTER = re.compile(rb"(?im)^retry-after: *(\d+)")
AGAIN_S = 1.0


class Streams:
    """Streams by descriptor: which request each sends, and what came."""

    def __init__(self, port: int, gets: list[bytes], wanted: int) -> None:
        self._started = time.monotonic()
        self._port = port
        self._gets = gets
        self._wanted = wanted
        self._poll = select.epoll()
        self._sockets: dict[int, tuple[int, socket.socket]] = {}
        self._got = [0] * len(gets)
        self._data: dict[int, bytes] = {}
        self._later: list[tuple[float, int]] = []
        self.turned_away = 0
        for number in range(len(gets)):
            self._open(number)

    @property
    def complete(self) -> int:
        return sum(got >= self._wanted for got in self._got)

    def run(self, deadline_s: float) -> float:
        """Seconds, from the first that was opened, until every stream has what it wants, or the deadline."""
        until = time.monotonic() + deadline_s
        left = len(self._gets)
        while left and time.monotonic() < until:
            now = time.monotonic()
            due = [number for at, number in self._later if at <= now]
            self._later = [each for each in self._later if each[0] > now]
            for number in due:
                self._open(number)
            for descriptor, _ in self._poll.poll(0.05):
                number, sock = self._sockets[descriptor]
                try:
                    data = sock.recv(262144)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError:
                    data = b""
                seen = self._data[descriptor] + data
                if not data or (b"\r\n\r\n" in seen[:4096] and seen.startswith(b"HTTP/1.1 ") and seen[9:12] != b"200"):
                    self._again(descriptor, number, sock, seen)
                    continue
                before = self._got[number]
                self._got[number] += len(EVENT.findall(seen))
                # An event's beginning may be cut by the packet's edge.
                cut = seen.rfind(b"\n")
                self._data[descriptor] = seen[cut:] if not EVENT.search(seen[cut:]) and cut >= 0 else b""
                left -= before < self._wanted <= self._got[number]
        return time.monotonic() - self._started

    def _open(self, number: int) -> None:
        sock = socket.create_connection(("127.0.0.1", self._port))
        sock.sendall(self._gets[number])
        sock.setblocking(False)
        self._sockets[sock.fileno()] = (number, sock)
        self._data[sock.fileno()] = b""
        self._poll.register(sock, select.EPOLLIN)

    def _again(self, descriptor: int, number: int, sock: socket.socket, seen: bytes) -> None:
        self._poll.unregister(descriptor)
        del self._sockets[descriptor], self._data[descriptor]
        sock.close()
        self.turned_away += 1
        told = RETRY_AFTER.search(seen)
        self._later.append((time.monotonic() + (float(told[1]) if told else AGAIN_S), number))


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    streams = Streams(setup["port"], [get.encode() for get in setup["gets"]], setup["wanted"])
    seconds = streams.run(setup["deadline_s"])
    print(
        json.dumps({"seconds": seconds, "complete": streams.complete, "turned_away": streams.turned_away}), flush=True
    )
    # Open until we are ended.
    sys.stdin.readline()


main()
