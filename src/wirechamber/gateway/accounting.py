"""Makes durable what a crash must not undo: which records were received, and which sequence numbers may be sent.

*Received.* A record has an effect (an answer, a new address, a finished question) only after its sequence number is on
disk: with the event that it carried, or here. After a restart everything up to there is refused, so nothing that had an
effect can be played again.

*Sent.* A session sends only inside a block of sequence numbers that was reserved beforehand. After a restart it goes on
with the next block, so no nonce is used twice (RFC 6655, section 3).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

import structlog

from wirechamber.clock import Clock
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.slices import slices
from wirechamber.model.links import Checkpoint, Reservation
from wirechamber.observe.logs import Seldom
from wirechamber.store.base import Sessions

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))

# How many sequence numbers are reserved at a time, and at how many left the next block is asked for.
BLOCK = 1024
LOW = 256
# Sessions whose only news are stored events are written down this often: so much of the log is read after a crash.
EVERY_S = 1.0
RETRY_S = 0.5
# Sessions that are written in one transaction.
MAX_BATCH = 4_000
# What follows from messages that are accounted for, in one turn of the loop.
SLICE = 128
# As long as for events: after it the device gets no answer and repeats.
HOLD_S = 15.0


class Accountable(Protocol):
    """A session whose state is kept."""

    def checkpoint(self) -> Checkpoint:
        """Its state as of now."""

    def reserved(self, send_limit: int) -> None:
        """Sequence numbers below this may be sent."""

    @property
    def alive(self) -> bool:
        """False once it is closed: then there is nothing to write."""


class Accounting:
    """Writes session state in groups.

    Args:
        settled: The cursor up to which events of devices have been answered.
    """

    def __init__(self, sessions: Sessions, clock: Clock, faults: Faults, settled: Callable[[], Cursor]) -> None:
        self._sessions = sessions
        self._faults = faults
        self._clock = clock
        self._settled = settled
        self._dirty: dict[Accountable, None] = {}
        self._low: dict[Accountable, int] = {}
        self._then: list[tuple[float, Accountable, Callable[[], None]]] = []
        self._wake = asyncio.Event()
        # Up to here the log's events are in the sessions' state; what is after it is read at the next start.
        self.cursor = settled()

    def received(self, link: Accountable) -> None:
        """The session has received a record whose sequence number is on disk already, or soon enough."""
        self._dirty[link] = None

    def after(self, link: Accountable, then: Callable[[], None]) -> None:
        """Calls `then` once everything that the session has received so far is on disk."""
        self._dirty[link] = None
        self._then.append((self._clock.monotonic(), link, then))
        self._wake.set()

    def reserve(self, link: Accountable, send_limit: int) -> None:
        """Asks for sequence numbers below `send_limit`."""
        if self._low.get(link, 0) < send_limit:
            self._low[link] = send_limit
            self._wake.set()

    def soon(self) -> None:
        """The cursor has moved, which is worth writing down at once."""
        self._wake.set()

    async def run(self) -> None:
        """Writes for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            await self.write()

    async def write(self) -> None:
        """Writes what there is, in one transaction."""
        cursor = self._settled()
        dirty, self._dirty = self._dirty, {}
        low, self._low = self._low, {}
        then, self._then = self._then, []
        if not dirty and not low and cursor == self.cursor:
            return
        checkpoints: list[Checkpoint] = []
        async for links in slices(dirty):
            checkpoints += [link.checkpoint() for link in links if link.alive]
        reservations = [Reservation(link.checkpoint().session, limit) for link, limit in low.items() if link.alive]
        try:
            while len(checkpoints) > MAX_BATCH:
                await self._sessions.account(checkpoints[:MAX_BATCH], [], None)
                del checkpoints[:MAX_BATCH]
            await self._sessions.account(checkpoints, reservations, cursor)
        except CloudError as problem:
            _seldom.warning("session_state_held", why=problem.description, sessions=len(dirty))
            self._dirty = dirty | self._dirty
            self._low = low | self._low
            oldest = self._clock.monotonic() - HOLD_S
            self._then = [item for item in then if item[0] >= oldest] + self._then
            await asyncio.sleep(RETRY_S)
            self._wake.set()
            return
        self.cursor = cursor
        for link, limit in low.items():
            link.reserved(limit)
        async for calls in slices(then, SLICE):
            for _, link, call in calls:
                if link.alive:
                    self._faults.guard(None, "message", call)
