"""What is on its way to the disk: gathered, written in batches, and answered once it is stored.

One batch is under way at a time; what arrives meanwhile is the next one. So the price of a wake-up, of a hand-over to
a writer's thread and of a sync is shared by as many items as the moment brings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from wirechamber.clock import Clock
from wirechamber.errors import CloudError
from wirechamber.gateway.slices import slices
from wirechamber.observe.logs import Seldom

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))

# While a backend is away, an acknowledgement is held this long: the device repeats by itself and loses nothing.
HOLD_S = 15.0
RETRY_S = 0.5
# Items that wait; more are dropped unanswered, so their devices send them again.
MAX_WAITING = 20_000
MAX_BATCH = 2_000
# Items whose consequences are drawn in one turn of the loop.
SLICE = 250

Item = TypeVar("Item")
Given = TypeVar("Given", contravariant=True)
Result = TypeVar("Result")


class Work(Protocol[Given, Result]):
    """What is done with a batch."""

    async def write(self, items: Sequence[Given]) -> Result:
        """Stores the items; called again with the same ones after a CloudError."""

    def written(self, items: Sequence[Given], result: Result) -> None:
        """They are stored; called with a part of them at a time. Nothing that goes wrong with one harms the others."""

    def refused(self, items: Sequence[Given]) -> None:
        """They could not be stored in time; likewise."""


class Batches(Generic[Item, Result]):
    """Items that wait to be written.

    Attributes:
        dropped: How many found no room.
    """

    def __init__(self, work: Work[Item, Result], clock: Clock, what: str) -> None:
        self._work = work
        self._clock = clock
        self._what = what
        self._waiting: list[Item] = []
        # When the first of those that wait came: nobody is held longer because another batch was.
        self._oldest = 0.0
        self._wake = asyncio.Event()
        self._busy = False
        self._done = asyncio.Event()
        self.dropped = 0

    def add(self, item: Item) -> bool:
        """Lines an item up; False when too many wait, and it is dropped."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return False
        if not self._waiting:
            self._oldest = self._clock.monotonic()
        self._waiting.append(item)
        self._wake.set()
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._busy and not self._waiting

    async def done(self) -> None:
        """Returns when nothing waits and nothing is under way."""
        while not self.idle:
            self._done.clear()
            await self._done.wait()

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            await self._wake.wait()
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if not self._waiting:
                self._wake.clear()
            self._busy = bool(batch)
            try:
                if batch:
                    await self._write(batch, self._oldest + HOLD_S)
            finally:
                self._busy = False
            if not self._waiting:
                self._done.set()

    async def _write(self, batch: list[Item], until: float) -> None:
        while True:
            try:
                result = await self._work.write(batch)
            except CloudError as problem:
                _seldom.warning(f"{self._what}_held", why=problem.description, waiting=len(batch))
                if self._clock.monotonic() >= until:
                    async for items in slices(batch, SLICE):
                        self._work.refused(items)
                    return
                await asyncio.sleep(RETRY_S)
                continue
            async for items in slices(batch, SLICE):
                self._work.written(items, result)
            return
