"""Deliveries that wait as rows: fetched when their time has come, and told to their device when that takes too long."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from msgspec import structs

from wirechamber.clock import SteadyClock
from wirechamber.delivery import results
from wirechamber.delivery.courier import Courier
from wirechamber.delivery.dispatch import Integrations
from wirechamber.delivery.index import Index
from wirechamber.delivery.job import Job
from wirechamber.delivery.settler import Settled, Settler
from wirechamber.errors import CloudError
from wirechamber.store.base import Deliveries

_log = structlog.get_logger("wirechamber.delivery")

FETCH = 256
# The most rows in memory at a time.
MAX_CLAIMS = 4_000
# Looked at this often even if nothing seems due: another clock may have been set.
LONGEST_NAP_S = 30.0
# Due rows whose lanes are full are asked for again after this, or as soon as a batch was settled.
SHORTEST_NAP_S = 0.02
AGING_TICK_S = 1.0
# What a device is told while no attempt has failed yet, in the words of integrations.md, section 9.
OVERDUE = "ETIMEDOUT"


class Backlog:
    """Follows the rows of waiting deliveries."""

    def __init__(
        self,
        *,
        courier: Courier,
        index: Index,
        integrations: Integrations,
        settler: Settler,
        deliveries: Deliveries,
        clock: SteadyClock,
    ) -> None:
        self._courier = courier
        self._index = index
        self._integrations = integrations
        self._settler = settler
        self._deliveries = deliveries
        self._clock = clock

    async def run(self) -> None:
        """Fetches due rows for ever."""
        while True:
            self._courier.begin_fetch()
            try:
                nap = await self._fetch()
            except CloudError as problem:
                _log.warning("backlog_unreadable", why=problem.description)
                nap = 1.0
            if nap <= 0:
                await asyncio.sleep(0)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(nap):
                    await self._courier.rows_due.wait()
            # Where rows come and go, every batch wakes us; a little pause gathers them.
            await asyncio.sleep(SHORTEST_NAP_S)

    async def watch_deadlines(self) -> None:
        """Tells devices whose answer is overdue, and ages jobs that wait in memory, for ever."""
        while True:
            self._courier.age()
            try:
                await self._tell_overdue()
            except CloudError as problem:
                _log.warning("deadlines_unreadable", why=problem.description)
            await asyncio.sleep(await self._until_deadline())

    async def _fetch(self) -> float:
        """Lines up what is due; returns seconds until there may be more."""
        now = self._clock.steady()
        courier = self._courier
        courier.hungry = courier.claims >= MAX_CLAIMS
        if courier.hungry:
            return LONGEST_NAP_S
        await self._integrations.refresh()
        for integration in tuple(courier.revived):
            await self._deliveries.release(integration, now)
            courier.revived.discard(integration)
        rows = await self._deliveries.due(now, courier.claims + FETCH, courier.full())
        fresh = [row for row in rows if courier.may_resume(row.id)]
        for row in fresh:
            trigger = self._index.get(row.integration)
            if trigger is not None:
                courier.resume(Job.of_row(row, trigger))
            else:
                self._settler.add(Settled(remove=row.id))
        if fresh:
            return 0
        due = await self._deliveries.next_due()
        if due is None:
            return LONGEST_NAP_S
        if due <= now:
            # Only rows that are in memory already, or whose lanes are full: settling wakes us.
            courier.hungry = True
            return AGING_TICK_S
        return min(LONGEST_NAP_S, (due - now) / 1000)

    async def _tell_overdue(self) -> None:
        now = self._clock.steady()
        for hanging in self._courier.overdue(now):
            # It has no row yet; should this be lost, the same event is made again with the same id.
            hanging.error_told = True
            topics = self._courier.topics(hanging)
            error = results.of_failure(hanging.event, hanging.integration, hanging.delivery, topics, OVERDUE, now)
            self._settler.add(Settled(events=[error]))
        for row in await self._deliveries.overdue_answers(now, FETCH):
            job = self._courier.claimed(row.id)
            if job is not None and job.error_told:
                continue
            trigger = self._index.get(row.integration)
            if trigger is None:
                continue
            topics = self._courier.topics(job or Job.of_row(row, trigger))
            why = row.why or OVERDUE
            error = results.of_failure(row.event, row.integration, row.id, topics, why, now)
            if job is None:
                self._settler.add(Settled(events=[error], upsert=structs.replace(row, error_told=True)))
            else:
                # The attempt in progress writes the row; two writers would undo each other.
                job.error_told = True
                self._settler.add(Settled(events=[error]))

    async def _until_deadline(self) -> float:
        try:
            deadline = await self._deliveries.next_deadline()
        except CloudError:
            return AGING_TICK_S
        if deadline is None:
            return AGING_TICK_S
        return min(AGING_TICK_S, max(SHORTEST_NAP_S, (deadline - self._clock.steady()) / 1000))
