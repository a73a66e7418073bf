"""Events on their way to the devices that subscribed to them.

Each event is matched once against the prefixes of its owner's devices. A device gets them in order, a few at a time, and
what it has not acknowledged is not forgotten: if it goes away, it gets the rest when it comes back, for as long as the
event's time to live lasts (at least once).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog

from wirechamber.clock import Clock
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor, Entry, EventLog, Scope
from wirechamber.gateway.link import Link
from wirechamber.model.events import Event
from wirechamber.model.links import Subscription
from wirechamber.model.prefixes import Prefixes

_log = structlog.get_logger("wirechamber.gateway")

# So many wait for one device in memory; the rest is read from the log when there is room again.
MAX_WAITING = 64
# A device that was away looks back so far at most: beyond it, the time to live of all but a few events is over.
MAX_LOOK_BACK = 50_000
PAGE = 500
RETRY_S = 0.5

Wanted = tuple[Link, Subscription]


class Outbox:
    """What one device still has to get.

    Attributes:
        waiting: Events that were not sent yet, with the subscriptions that want them.
        sent: Events that were sent and not acknowledged, oldest first.
        resume: Everything up to here was handed over or is in `waiting` or `sent`; set while the log must be read on.
    """

    __slots__ = ("reading", "resume", "sent", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[Entry, tuple[Subscription, ...]]] = deque()
        self.sent: dict[Cursor, None] = {}
        self.resume: Cursor | None = None
        self.reading = False

    def pending(self) -> Cursor | None:
        """The oldest event that was not acknowledged yet; None when there is none."""
        if self.sent:
            return next(iter(self.sent))
        return self.waiting[0][0].cursor if self.waiting else None
