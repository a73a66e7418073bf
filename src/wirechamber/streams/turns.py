"""Whose turn it is: owners take turns at what is bounded, few at a time, and with rests in between.

Thousands of streams come back in one moment after a restart, and one replay may read the whole log. Neither may take
the event loop, the log's readers, or the processor from those who publish, nor from another owner's streams.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# A place rests for as long as its last turn took, within this.
LONGEST_REST_S = 0.05


class Turns:
    """Places that are given to waiting owners in turn.

    Args:
        at_once: How many places there are.
        per_s: How many turns there are in a second, all places together.

    Attributes:
        waiting: How many wait for their turn.
    """

    def __init__(self, at_once: int, per_s: int) -> None:
        self._free = at_once
        self._each_s = at_once / per_s
        self._lines: dict[str | None, deque[asyncio.Future[None]]] = {}
        self.waiting = 0

    def line(self, owner: str | None) -> int:
        """How many of an owner's wait, those who went away meanwhile among them."""
        return len(self._lines.get(owner, ()))

    @asynccontextmanager
    async def turn(self, owner: str | None) -> AsyncIterator[None]:
        """A place, as soon as it is this owner's turn."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(owner)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            yield
        finally:
            took = loop.time() - began
            loop.call_later(min(max(took, self._each_s - took), LONGEST_REST_S), self._next)

    async def _wait(self, owner: str | None) -> None:
        place = asyncio.get_running_loop().create_future()
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
