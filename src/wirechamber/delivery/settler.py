"""Writes down what happened, in batches: append results, then settle, then move the cursor.

In this order a crash repeats and never loses: results appended twice have the same ids, and a delivery whose
settlement was lost is made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog
from msgspec import Struct

from wirechamber.delivery.watermark import Mark, Watermark
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor, EventLog
from wirechamber.model.deliveries import Attempt, Delivery, Settlement
from wirechamber.model.events import Event
from wirechamber.store.base import Deliveries

_log = structlog.get_logger("wirechamber.delivery")

MAX_BATCH = 500
# Dispatch waits while more than this is to be written: memory stays bounded when storage is slow or away.
MAX_WAITING = 4_000
RETRY_S = 0.5
# Events that trigger nothing move the cursor too; it is written down now and then, so a restart does not read them all.
IDLE_S = 1.0


class Settled(Struct, gc=False):
    """What one finished attempt, or one delivery put aside, changes."""

    events: list[Event] = []
    attempt: Attempt | None = None
    upsert: Delivery | None = None
    remove: str | None = None
    remember: list[tuple[str, str, object]] = []
    mark: Mark | None = None


class Settler:
    """The one writer of deliveries, attempts and the dispatch cursor.

    Args:
        watermark: Moved as marks are settled.
    """

    def __init__(self, log: EventLog, deliveries: Deliveries, watermark: Watermark) -> None:
        self._log = log
        self._deliveries = deliveries
        self._watermark = watermark
        self._written = watermark.cursor
        self._waiting: list[Settled] = []
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False

    @property
    def waiting(self) -> int:
        """How much is still to be written."""
        return len(self._waiting)

    def add(self, settled: Settled) -> None:
        """Takes something to write down; it is written with the next batch."""
        self._waiting.append(settled)
        self._wake.set()
        if len(self._waiting) >= MAX_WAITING:
            self._room.clear()

    async def room(self) -> None:
        """Returns when there is room for more."""
        await self._room.wait()

    def close(self) -> None:
        """Lets `run` end after everything has been written."""
        self._closing = True
        self._wake.set()

    async def run(self, after: Callable[[list[Settled]], None]) -> None:
        """Writes batch after batch until closed and empty; calls `after` with each batch that was written."""
        while True:
            with suppress(TimeoutError):
                # Not `wait_for`, which makes a task each time.
                async with asyncio.timeout(IDLE_S):
                    await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                await self._write(batch)
                if len(self._waiting) < MAX_WAITING // 2:
                    self._room.set()
                after(batch)
            if self._watermark.cursor != self._written:
                await self._write([])
            if self._closing and not self._waiting:
                return

    async def _write(self, batch: list[Settled]) -> None:
        for settled in batch:
            if settled.mark is not None:
                self._watermark.settled(settled.mark)
        cursor = self._watermark.cursor
        if await self._store(batch, cursor if cursor != self._written else None):
            self._written = cursor

    async def _store(self, batch: list[Settled], cursor: Cursor | None) -> bool:
        """Writes a batch down; false when the process stops and storage stays away."""
        events = [event for settled in batch for event in settled.events]
        tried = 0
        while True:
            try:
                if events:
                    await self._log.append(events)
                    events = []
                await self._deliveries.settle(_settlement(batch, cursor))
                return True
            except CloudError as problem:
                tried += 1
                if self._closing and tried > 1:
                    # The cursor stays where it is stored, so all of this is done again after the restart.
                    _log.error("settle_abandoned", why=problem.description, deliveries=len(batch))
                    return False
                _log.warning("settle_retry", why=problem.description, deliveries=len(batch))
                await asyncio.sleep(RETRY_S)
            except Exception:
                if not batch:
                    raise
                # Something in it can't be written down: that is one delivery's trouble.
                _log.exception("settlement_refused", deliveries=len(batch))
                return await self._one_by_one(batch, cursor)

    async def _one_by_one(self, batch: list[Settled], cursor: Cursor | None) -> bool:
        for settled in batch:
            alone = [settled] if len(batch) > 1 else _barer(settled)
            if alone and not await self._store(alone, None):
                return False
        return await self._store([], cursor)


def _settlement(batch: list[Settled], cursor: Cursor | None) -> Settlement:
    return Settlement(
        attempts=tuple(settled.attempt for settled in batch if settled.attempt is not None),
        upsert=tuple(settled.upsert for settled in batch if settled.upsert is not None),
        remove=tuple(settled.remove for settled in batch if settled.remove is not None),
        remember=tuple(item for settled in batch for item in settled.remember),
        cursor=cursor,
    )


def _barer(settled: Settled) -> list[Settled]:
    """What is written of a settlement that could not be: first without what a kind contributed, then nothing."""
    if settled.events or settled.remember or settled.attempt is not None:
        return [Settled(upsert=settled.upsert, remove=settled.remove)]
    _log.error("settlement_left_out", delivery=settled.remove or (settled.upsert and settled.upsert.id))
    return []
