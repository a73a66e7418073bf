"""Device events on their way into the log: gathered, appended in batches, and answered once they are stored.

One batch is under way at a time; what arrives meanwhile is the next one. So the price of a wake-up, of a hand-over to
the log's thread and of a sync is shared by as many events as the moment brings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import structlog

from wirechamber.clock import Clock
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor, EventLog
from wirechamber.model.events import Event
from wirechamber.observe.logs import Seldom

_log = structlog.get_logger("wirechamber.gateway")
_seldom = Seldom(_log)

# While the log is away, an acknowledgement is held this long: the device repeats by itself and loses nothing.
HOLD_S = 15.0
RETRY_S = 0.5
# Events that wait; more are dropped unanswered, so their devices send them again.
MAX_WAITING = 20_000
MAX_BATCH = 2_000

Item = TypeVar("Item")


class Sender(Protocol[Item]):
    """What becomes of the items, told by whoever sent them."""

    async def events(self, items: Sequence[Item]) -> Sequence[Event]:
        """The events as of now, one for each item."""

    def stored(self, items: Sequence[Item], cursors: Sequence[Cursor]) -> None:
        """They are in the log."""

    def refused(self, items: Sequence[Item]) -> None:
        """They could not be stored in time."""


class Intake(Generic[Item]):
    """Appends what comes in.

    Args:
        ready: Raises when nothing may be stored at present, such as when the disk is nearly full.
    """

    def __init__(self, log: EventLog, clock: Clock, sender: Sender[Item], ready: Callable[[], Any]) -> None:
        self._log = log
        self._clock = clock
        self._sender = sender
        self._ready = ready
        self._waiting: list[Item] = []
        self._wake = asyncio.Event()
        self._busy = False
        # Every event of a device up to here has been answered: where its sessions' state is complete.
        self._settled = log.tail.newest
        self.dropped = 0

    def add(self, item: Item) -> None:
        """Lines an item up; it is dropped when too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(item)
        self._wake.set()

    @property
    def settled(self) -> Cursor:
        """A cursor up to which every event that came through here was reported as stored."""
        if not self._busy and not self._waiting:
            return self._log.tail.newest
        return self._settled

    async def run(self) -> None:
        """Appends for ever."""
        while True:
            await self._wake.wait()
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if not self._waiting:
                self._wake.clear()
            self._settled = self._log.tail.newest
            self._busy = True
            try:
                await self._append(batch)
            finally:
                self._busy = False

    async def _append(self, batch: list[Item]) -> None:
        until = self._clock.monotonic() + HOLD_S
        events: Sequence[Event] | None = None
        while True:
            try:
                self._ready()
                # Made once: trying again with the same ids stores nothing twice.
                events = events or await self._sender.events(batch)
                cursors = await self._log.append(events)
            except CloudError as problem:
                _seldom.warning("device_events_held", why=problem.description, events=len(batch))
                if self._clock.monotonic() >= until:
                    self._sender.refused(batch)
                    return
                await asyncio.sleep(RETRY_S)
                continue
            self._sender.stored(batch, cursors)
            return
