"""Background tasks: each has an owner and a name, and how it ends is seen.

Nothing else in the package starts a task (a test walks the source), so none can die unnoticed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

_log = structlog.get_logger("wirechamber")

# A loop that failed is started again after this, twice as long each time it fails again …
FIRST_RESTART_S = 0.1
LONGEST_RESTART_S = 30.0
# … until it has run for so long.
HEALTHY_AFTER_S = 60.0

Result = TypeVar("Result")


class Tasks:
    """The background tasks of one cloud.

    Attributes:
        failed: Done with the name of an essential task that ended by an error; the cloud must stop then.
        restarts: How often loops were started again, by name.
        errors: Short tasks that ended by an error, by name.
    """

    def __init__(self) -> None:
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.restarts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._short: set[asyncio.Task[Any]] = set()

    def essential(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Starts what the cloud can't do without: an error of its ends up in `failed`."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                _log.critical("part_failed", part=name, exc_info=task.exception())
                if not self.failed.done():
                    self.failed.set_result(name)

        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(ended)
        return task

    def restarting(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """Starts a loop that is started again, after a growing while, whenever it ends by an error.

        Args:
            work: Makes the loop's coroutine; one that returns is done for good.
        """
        return asyncio.get_running_loop().create_task(self._restarting(work, name), name=name)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Starts a short task that nobody awaits; it is kept from being collected, and its error is logged."""

        def ended(task: asyncio.Task[Any]) -> None:
            self._short.discard(task)
            if not task.cancelled() and task.exception() is not None:
                self.errors[name] += 1
                _log.error("task_failed", task=name, exc_info=task.exception())

        task = asyncio.get_running_loop().create_task(work, name=name)
        self._short.add(task)
        task.add_done_callback(ended)
        return task

    async def _restarting(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        loop = asyncio.get_running_loop()
        wait = FIRST_RESTART_S
        while True:
            began = loop.time()
            try:
                return await work()
            except Exception:
                self.restarts[name] += 1
                if loop.time() - began >= HEALTHY_AFTER_S:
                    wait = FIRST_RESTART_S
                _log.exception("part_restarted", part=name, after_s=wait)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_RESTART_S)


def awaited(work: Coroutine[Any, Any, Result], name: str) -> asyncio.Task[Result]:
    """Starts a task whose result or error its starter awaits, such as one that outlives who asked for it first."""
    return asyncio.get_running_loop().create_task(work, name=name)


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and returns when all have ended, however they did."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def within(task: asyncio.Task[Any]) -> AsyncIterator[None]:
    """Ends a task with the block."""
    try:
        yield
    finally:
        await ended(task)
