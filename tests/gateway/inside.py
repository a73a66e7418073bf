"""A whole cloud inside the test's process, with a clock that the test moves: for what takes minutes or days."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from wirechamber.app import Cloud, running
from wirechamber.settings import Settings

Result = TypeVar("Result")
SOON_S = 30.0


class HandClock:
    """Stands still until it is moved. Its wall clock may be set apart from that."""

    def __init__(self) -> None:
        self.at = 1_000.0
        self.set_by_s = 0.0

    def now(self) -> int:
        return 1_700_000_000_000 + int((self.at + self.set_by_s) * 1000)

    def monotonic(self) -> float:
        return self.at


class Inside:
    """The cloud, on a thread of its own.

    Attributes:
        folder: Its data.
        udp_port: Where devices reach it.
    """

    def __init__(self, cloud: Cloud, clock: HandClock, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self.cloud = cloud
        self.clock = clock
        self.folder = folder
        self.udp_port = cloud.gateway.port
        self._loop = loop

    def do(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Runs something on the cloud's own loop."""

        async def run() -> Result:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(SOON_S)

    def end(self, over: asyncio.Event) -> None:
        """Ends the cloud."""
        self._loop.call_soon_threadsafe(over.set)

    def look(self, work: Callable[[Cloud], Result]) -> Result:
        """Looks at something on the cloud's own loop."""

        async def run() -> Result:
            return work(self.cloud)

        return self.do(run)


@contextmanager
def inside(folder: Path, clock: HandClock | None = None, **settings: Any) -> Iterator[Inside]:
    """A running cloud in provisioning mode."""
    clock = clock or HandClock()
    defaults: dict[str, Any] = {
        "data": str(folder), "http_port": 0, "udp_port": 0, "udp_host": "127.0.0.1", "disk_floor_mb": 0,
        "provisioning": True,
    }  # fmt: skip
    made: list[Inside] = []
    ready, over = threading.Event(), asyncio.Event()
    problems: list[BaseException] = []

    async def live() -> None:
        async with running(Settings(**(defaults | settings)), clock) as cloud:
            made.append(Inside(cloud, clock, asyncio.get_running_loop(), folder))
            ready.set()
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as problem:
            problems.append(problem)
        finally:
            ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(SOON_S)
    if problems:
        raise problems[0]
    try:
        yield made[0]
    finally:
        made[0].end(over)
        thread.join(SOON_S)
        assert not thread.is_alive()
    if problems:
        raise problems[0]
