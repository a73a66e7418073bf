"""Publishes events over keep-alive connections, and is the webhook's target too: so it sees when each arrives.

Runs in a process of its own. First line on standard input: the set-up; then one line per measurement. The body of each
event holds the moment at which it was sent.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop

STAMP = re.compile(rb"t=(\d+)")
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
DEADLINE_S = 120.0


class Sink(asyncio.Protocol):
    """Answers every POST with 204; knows when each event arrived."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._pending = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter_ns()
        stamps = STAMP.findall(self._pending + data)
        self._pending = data[-24:] if not STAMP.search(data[-24:]) else b""
        if stamps:
            self._measured.arrived(now, stamps)
            self._transport.write(ANSWER * len(stamps))


class Measured:
    """What arrived since the measurement began."""

    def __init__(self) -> None:
        self.count = 0
        self.latencies: list[int] = []
        self.wanted = 0
        self.done: asyncio.Future[None] | None = None

    def begin(self, wanted: int) -> asyncio.Future[None]:
        self.count, self.latencies, self.wanted = 0, [], wanted
        self.done = asyncio.get_running_loop().create_future()
        return self.done

    def arrived(self, now: int, stamps: list[bytes]) -> None:
        self.count += len(stamps)
        self.latencies += [now - int(stamp) for stamp in stamps]
        if self.done is not None and self.count >= self.wanted and not self.done.done():
            self.done.set_result(None)


class Publisher(asyncio.Protocol):
    """One keep-alive connection; a request at a time."""

    def __init__(self, port: int, head: str, body: str) -> None:
        self._port = port
        self._head = head
        self._body = body
        self._answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"a publish was answered {data[:300]!r}")
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    async def publish(self) -> None:
        body = self._body.replace("STAMP", f"t={time.perf_counter_ns()}")
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        await self._answered


async def closed_loop(publishers: list[Publisher], events: int) -> None:
    """As fast as the server answers."""
    left = events

    async def work(publisher: Publisher) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await publisher.publish()

    await asyncio.gather(*(work(publisher) for publisher in publishers))


async def open_loop(publishers: list[Publisher], events: int, rate: float) -> None:
    """At a rate, whatever the server does, as long as a connection is free."""
    idle: asyncio.Queue[Publisher] = asyncio.Queue()
    for publisher in publishers:
        idle.put_nowait(publisher)
    started = time.perf_counter()
    tasks: set[asyncio.Task[None]] = set()

    async def one(publisher: Publisher) -> None:
        await publisher.publish()
        idle.put_nowait(publisher)

    for number in range(events):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(await idle.get()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


async def main(target: Callable[[Measured], asyncio.Protocol] = Sink) -> None:
    loop = asyncio.get_running_loop()
    measured = Measured()
    server = await loop.create_server(lambda: target(measured), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    setup = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    publishers = []
    for _ in range(setup["connections"]):
        _, publisher = await loop.create_connection(
            lambda: Publisher(setup["port"], setup["head"], setup["body"]), "127.0.0.1", setup["port"]
        )
        publishers.append(publisher)
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        done = measured.begin(asked["events"])
        started = time.perf_counter()
        if asked.get("rate"):
            await open_loop(publishers, asked["events"], asked["rate"])
        else:
            await closed_loop(publishers, asked["events"])
        if asked.get("delivered", True):
            try:
                await asyncio.wait_for(done, DEADLINE_S)
            except TimeoutError:
                raise SystemExit(f"{measured.count} of {asked['events']} events came to the target") from None
        taken = time.perf_counter() - started
        latencies = sorted(measured.latencies) or [0]
        print(
            json.dumps(
                {
                    "seconds": taken,
                    "p50_ms": latencies[len(latencies) // 2] / 1e6,
                    "p99_ms": latencies[int(len(latencies) * 0.99)] / 1e6,
                    "arrived": measured.count,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    uvloop.run(main())
