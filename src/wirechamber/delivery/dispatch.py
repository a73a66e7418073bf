"""Dispatch: the durable reader that turns events into deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from wirechamber.delivery.courier import Courier
from wirechamber.delivery.index import Index
from wirechamber.delivery.job import delivery_id
from wirechamber.delivery.runner import Runner
from wirechamber.delivery.settler import Settler
from wirechamber.delivery.underway import UnderWay
from wirechamber.delivery.watermark import Watermark
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor, Entry, EventLog, Scope
from wirechamber.model.events import MAX_DEPTH
from wirechamber.observe.metrics import Metrics
from wirechamber.store.base import Store

_log = structlog.get_logger("wirechamber.delivery")

READER = "dispatch"
BATCH = 500
# Events whose deliveries are outstanding; beyond it dispatch waits for the oldest.
MAX_OUTSTANDING = 20_000
RETRY_S = 0.5
# Deliveries made in one turn of the loop; matching and lining up cost each some 50 µs.
SLICE = 100


class Integrations:
    """Keeps the index in step with the store, whichever process changed it."""

    def __init__(self, store: Store, index: Index, runner: Runner, under_way: UnderWay) -> None:
        self._under_way = under_way
        self._store = store
        self._index = index
        self._runner = runner
        self._seen = -1
        self._revision = 0
        self._taking_in = asyncio.Lock()

    async def refresh(self) -> None:
        """Takes in what has changed since the last time."""
        if self._store.revision() == self._seen:
            return
        # One at a time: of two, the one that read earlier could be applied later.
        async with self._taking_in:
            await self._take_in(self._store.revision())

    async def _take_in(self, seen: int) -> None:
        if seen == self._seen:
            return
        changes = await self._store.integrations.changes(self._revision)
        # What is new has left nothing behind that must be forgotten.
        known = [each.id for each in changes.changed if self._index.get(each.id) is not None] + list(changes.removed)
        if changes.whole:
            there = {record.id for record in changes.changed}
            known += [each.record.id for each in self._index.all() if each.record.id not in there]
        self._index.apply(changes.changed, [*changes.removed, *known] if changes.whole else changes.removed)
        self._revision = changes.revision
        self._seen = seen
        if known:
            self._runner.forget(known)
            self._under_way.forget(known)


class Dispatch:
    """Reads the log from a stored cursor and offers deliveries to the courier.

    Args:
        settled_before: Newest cursor when this process started: events up to it may have been delivered before.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        store: Store,
        index: Index,
        integrations: Integrations,
        courier: Courier,
        settler: Settler,
        watermark: Watermark,
        settled_before: Cursor,
        metrics: Metrics,
    ) -> None:
        self._log = log
        self._store = store
        self._index = index
        self._integrations = integrations
        self._courier = courier
        self._settler = settler
        self._watermark = watermark
        self._settled_before = log.order(settled_before)
        self._metrics = metrics
        self.position = watermark.cursor

    async def run(self) -> None:
        """Reads for ever."""
        while True:
            try:
                await self._step()
            except CloudError as problem:
                _log.warning("dispatch_retry", why=problem.description)
                await asyncio.sleep(RETRY_S)

    async def _step(self) -> None:
        entries = self._log.tail.since(self.position, BATCH)
        after: Cursor | None = None
        if entries is None:
            page = await self._log.read(Scope(), self.position, BATCH)
            entries, after = page.entries, page.after
            if page.gap is not None:
                _log.error("dispatch_gap", first=page.gap.first, last=page.gap.last)
        if entries or after not in (None, self.position):
            await self._integrations.refresh()
            await self._offer(entries)
            if after is not None:
                self._watermark.passed(after, 0)
                self.position = after
            await self._settler.room()
            while self._watermark.outstanding > MAX_OUTSTANDING:
                await self._courier.progress(RETRY_S)
            return
        await self._log.tail.wait_beyond(self.position)

    async def _offer(self, entries: Sequence[Entry]) -> None:
        """Lines up what events trigger, in slices: one event may match thousands of integrations."""
        order, match = self._log.order, self._index.match
        known = await self._known(entries)
        made = 0
        for entry in entries:
            event, cursor = entry.event, entry.cursor
            if event.depth > MAX_DEPTH:
                self._metrics.depth_exceeded()
            triggers = match(event, order(cursor))
            jobs = [self._courier.new_job(trigger, event, cursor) for trigger in triggers]
            if known:
                jobs = [job for job in jobs if job.delivery not in known]
            mark = self._watermark.passed(cursor, len(jobs))
            self.position = cursor
            for job in jobs:
                job.mark = mark
                self._courier.offer(job)
                made += 1
                if made % SLICE == 0:
                    await asyncio.sleep(0)

    async def _known(self, entries: Sequence[Entry]) -> set[str]:
        """Which deliveries were made before the last restart; after it, none."""
        order = self._log.order
        if not entries or order(entries[0].cursor) > self._settled_before:
            return set()
        known: set[str] = set()
        ids: list[tuple[str, str]] = []
        since = min(entry.event.received_at for entry in entries)
        for entry in entries:
            triggers = self._index.match(entry.event, order(entry.cursor))
            ids += [(delivery_id(entry.event, each.record.id), each.record.id) for each in triggers]
            if len(ids) >= BATCH or (ids and entry is entries[-1]):
                known |= await self._store.deliveries.known(ids, since)
                ids = []
        return known
