"""Whose page of the past is read next: owners take turns, few pages at a time, and with rests in between.

Thousands of streams come back in one moment after a restart, and one replay may read the whole log. Neither may take
the readers' threads, or the processor, from those who publish.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Pages that are read at a time; the log keeps a reader beside them for everybody else.
AT_ONCE = 2
# Pages that are read in a second, all together: so many streams come back in a second at most.
PAGES_PER_S = 1_000
# A page rests its place for as long as it took, within this.
LONGEST_REST_S = 0.05


class Turns:
    """Places for reading, given to waiting owners in turn.

    Attributes:
        waiting: How many wait for their turn.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = AT_ONCE
        self._lines: dict[str | None, deque[asyncio.Future[None]]] = {}
        self.waiting = 0

    @asynccontextmanager
    async def turn(self, owner: str | None) -> AsyncIterator[None]:
        """A place, as soon as it is this owner's turn."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(owner)
        began = self._loop.time()
        try:
            yield
        finally:
            took = self._loop.time() - began
            self._loop.call_later(min(max(took, AT_ONCE / PAGES_PER_S - took), LONGEST_REST_S), self._next)

    async def _wait(self, owner: str | None) -> None:
        place = self._loop.create_future()
        self._lines.setdefault(owner, deque()).append(place)
        self.waiting += 1
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                # It was given a place in the very turn in which it went away.
                self._next()
            raise
        finally:
            self.waiting -= 1

    def _next(self) -> None:
        while self._lines:
            owner = next(iter(self._lines))
            line = self._lines.pop(owner)
            place = line.popleft()
            if line:
                # Behind the other owners.
                self._lines[owner] = line
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
