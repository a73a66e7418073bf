"""Pages of the log behind the tail, read for devices that missed what is in them: each once for all of an owner's."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

import structlog

from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor
from wirechamber.gateway.backlog import Backlog
from wirechamber.gateway.faults import Faults
from wirechamber.observe.logs import Seldom
from wirechamber.observe.tasks import Tasks

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))

RETRY_S = 0.5


class Pages:
    """Reads pages for whoever waits for one, the oldest first."""

    def __init__(self, backlog: Backlog, tasks: Tasks, faults: Faults) -> None:
        self._backlog = backlog
        self._tasks = tasks
        self._faults = faults
        # By owner: who waits, by where they are.
        self._unread: dict[str, list[tuple[int, int, Cursor, Callable[[], None]]]] = {}
        self._number = itertools.count()
        self._readers: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Reads no more."""
        for task in self._readers:
            task.cancel()

    def want(self, owner: str, after: int, cursor: Cursor, came: Callable[[], None]) -> None:
        """Calls `came` once the backlog has the owner's events after this position, or nothing is read any more.

        Args:
            after: The order of the cursor.
        """
        unread = self._unread.get(owner)
        if unread is None:
            unread = self._unread[owner] = []
            task = self._tasks.spawn(self._read(owner, unread), "device-catch-up")
            self._readers.add(task)
            task.add_done_callback(self._readers.discard)
        heapq.heappush(unread, (after, next(self._number), cursor, came))

    async def _read(self, owner: str, unread: list[tuple[int, int, Cursor, Callable[[], None]]]) -> None:
        """Reads until nobody waits; whom a page helps goes on."""
        try:
            while unread:
                if self._backlog.shelf(owner, unread[0][0]) is None:
                    try:
                        await self._backlog.read(owner, unread[0][2])
                    except CloudError as problem:
                        _seldom.warning("device_catch_up", why=problem.description)
                        await asyncio.sleep(RETRY_S)
                        continue
                    except Exception as problem:
                        self._faults.of(None, "catch-up", problem)
                        await asyncio.sleep(RETRY_S)
                        continue
                helped = False
                while unread and self._backlog.shelf(owner, unread[0][0]) is not None:
                    helped = True
                    heapq.heappop(unread)[3]()
                if not helped:
                    # A page that does not even help the one that it was read for.
                    await asyncio.sleep(RETRY_S)
        finally:
            del self._unread[owner]
            for *_, came in unread:
                came()
