"""Events of devices on their way into the log, and what follows once they are there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from wirechamber.clock import Clock
from wirechamber.eventlog.base import Cursor, EventLog
from wirechamber.gateway.batches import Batches
from wirechamber.gateway.faults import Faults
from wirechamber.model.events import Event


class Arrival:
    """An event that came in and is not stored yet."""

    __slots__ = ("event",)

    def __init__(self, event: Event | None = None) -> None:
        self.event = event

    def make(self) -> Event:
        """The event, from what is known of the device at the moment of storing."""
        raise NotImplementedError

    def stored(self) -> None:
        """It is in the log."""

    def refused(self) -> None:
        """It could not be stored in time."""


class Intake:
    """Appends what comes in.

    Args:
        ready: Raises when nothing may be stored at present, such as when the disk is nearly full.
        refresh: Brings what is known of the devices up to date.
    """

    def __init__(
        self,
        log: EventLog,
        clock: Clock,
        faults: Faults,
        ready: Callable[[], Any],
        refresh: Callable[[], Awaitable[None]],
    ) -> None:
        self._log = log
        self._faults = faults
        self._ready = ready
        self._refresh = refresh
        self._settled = log.tail.newest
        self.batches: Batches[Arrival, Sequence[Cursor]] = Batches(self, clock, "device_events")
        self.add = self.batches.add

    @property
    def settled(self) -> Cursor:
        """A cursor up to which every event that came through here was reported as stored."""
        return self._log.tail.newest if self.batches.idle else self._settled

    async def write(self, items: Sequence[Arrival]) -> Sequence[Cursor]:
        """As `Work.write`. Events are made once: trying again with the same ids stores nothing twice."""
        if items[0].event is None:
            self._settled = self._log.tail.newest
        self._ready()
        await self._refresh()
        for item in items:
            if item.event is None:
                try:
                    item.event = item.make()
                except Exception as problem:
                    self._faults.of(None, "event", problem)
        return await self._log.append([item.event for item in items if item.event is not None])

    def written(self, items: Sequence[Arrival], result: Sequence[Cursor]) -> None:
        """As `Work.written`."""
        for item in items:
            try:
                if item.event is not None:
                    item.stored()
                else:
                    item.refused()
            except Exception as problem:
                self._faults.of(None, "event", problem)

    def refused(self, items: Sequence[Arrival]) -> None:
        """As `Work.refused`."""
        for item in items:
            try:
                item.refused()
            except Exception as problem:
                self._faults.of(None, "event", problem)
