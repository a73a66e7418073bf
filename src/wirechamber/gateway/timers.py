"""One timer for all links: the exchanges of thousands are looked at when they want to be."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from wirechamber.clock import Clock
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.link import Link

# Links that are looked at in one turn of the loop; each may send a few messages.
SLICE = 256


class Timers:
    """Calls `due` with a link and the time when the time has come.

    A link whose time changes is put in again; what is out of date is passed over when it comes up, which is cheaper
    than taking it out.
    """

    def __init__(self, clock: Clock, faults: Faults, due: Callable[[Link, float], None]) -> None:
        self._clock = clock
        self._faults = faults
        self._due = due
        self._heap: list[tuple[float, int, Link]] = []
        self._number = itertools.count()
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, link: Link, due: float | None) -> None:
        """The link wants to be looked at at this time, seconds, monotonic; None: not at all.

        A time that is later than the one before it counts from when that one has come.
        """
        if due is None or (link.timer is not None and due >= link.timer):
            return
        link.timer = due
        heapq.heappush(self._heap, (due, next(self._number), link))
        if self._heap[0][2] is link:
            self._set()

    def close(self) -> None:
        """Calls nobody any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._heap.clear()

    def _set(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            delay = max(0.0, self._heap[0][0] - self._clock.monotonic())
            self._handle = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        now = self._clock.monotonic()
        heap = self._heap
        room = SLICE
        while heap and heap[0][0] <= now and room:
            due, _, link = heapq.heappop(heap)
            if not link.closed and link.timer == due:
                link.timer = None
                room -= 1
                try:
                    self._due(link, now)
                except Exception as problem:
                    self._faults.of(link, "timer", problem)
        self._set()
