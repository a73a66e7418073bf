"""What devices told about themselves, on its way to the store.

A device never repeats a Hello, Describe or Subscribe that was acknowledged (device-protocol.md, section 11), so each is
answered only once it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wirechamber.clock import Clock
from wirechamber.gateway.batches import Batches
from wirechamber.gateway.faults import Faults
from wirechamber.model.links import Change
from wirechamber.store.base import Links

Done = Callable[[bool], None]


class Keeper:
    """Stores changes in order, in batches."""

    def __init__(self, links: Links, clock: Clock, faults: Faults) -> None:
        self._links = links
        self._faults = faults
        self.batches: Batches[tuple[Change | None, Done | None], None] = Batches(self, clock, "device_news")

    def keep(self, change: Change, done: Done | None = None) -> None:
        """Stores a change; `done` is called with True once it is durable, with False when it can't be stored."""
        if not self.batches.add((change, done)) and done is not None:
            done(False)

    def when_stored(self, done: Done) -> None:
        """Calls `done` once everything that was to be kept before is stored: at once if nothing waits."""
        if self.batches.idle:
            done(True)
        else:
            self.batches.add((None, done))

    async def write(self, items: Sequence[tuple[Change | None, Done | None]]) -> None:
        """As `Work.write`."""
        await self._links.apply([change for change, _ in items if change is not None])

    def written(self, items: Sequence[tuple[Change | None, Done | None]], result: None) -> None:
        """As `Work.written`."""
        self._tell(items, True)

    def refused(self, items: Sequence[tuple[Change | None, Done | None]]) -> None:
        """As `Work.refused`."""
        self._tell(items, False)

    def _tell(self, items: Sequence[tuple[Change | None, Done | None]], ok: bool) -> None:
        for _, done in items:
            if done is not None:
                try:
                    done(ok)
                except Exception as problem:
                    self._faults.of(None, "news", problem)
