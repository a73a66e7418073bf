"""A wire between two endpoints that loses, repeats, delays and reorders, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush

from msgspec import Struct

from wirechamber.protocols.coap.exchange import Arrival, Endpoint, TimedOut

Told = Arrival | TimedOut


class Wire(Struct, frozen=True):
    """How bad it is.

    Attributes:
        drop, duplicate: How likely, for each datagram.
        delay: The longest, seconds; so datagrams overtake each other.
        heals_at: From then on nothing is lost.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.01
    heals_at: float = float("inf")


class Conversation:
    """Two endpoints, and what each was told."""

    def __init__(self, left: Endpoint, right: Endpoint, wire: Wire, seed: int) -> None:
        self.ends = (left, right)
        self.handlers: list[Callable[[Told, float], None]] = [lambda told, now: None, lambda told, now: None]
        self.told: tuple[list[Told], list[Told]] = ([], [])
        self.now = 0.0
        self._wire = wire
        self._random = random.Random(seed)
        self._flying: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def run(self, until: float) -> None:
        """Goes on until nothing is left to do, or this time."""
        while True:
            self._drain()
            times = [deadline for end in self.ends if (deadline := end.deadline()) is not None]
            if self._flying:
                times.append(self._flying[0][0])
            if not times or min(times) > until:
                self.now = until
                return
            self.now = max(self.now, min(times))
            while self._flying and self._flying[0][0] <= self.now:
                _, _, to, data = heappop(self._flying)
                self._tell(to, self.ends[to].receive(data, self.now))
            for side, end in enumerate(self.ends):
                deadline = end.deadline()
                if deadline is not None and deadline <= self.now:
                    for over in end.tick(self.now):
                        self._tell(side, over)

    def _tell(self, side: int, told: Told) -> None:
        if told is not None:
            self.told[side].append(told)
            self.handlers[side](told, self.now)

    def _drain(self) -> None:
        for side, end in enumerate(self.ends):
            for data in end.outgoing():
                copies = 1
                if self.now < self._wire.heals_at:
                    copies = 0 if self._random.random() < self._wire.drop else 1
                    copies += copies and self._random.random() < self._wire.duplicate
                for _ in range(copies):
                    self._count += 1
                    at = self.now + self._random.uniform(0.001, self._wire.delay)
                    heappush(self._flying, (at, self._count, 1 - side, data))
