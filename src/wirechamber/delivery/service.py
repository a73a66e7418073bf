"""Puts the parts of delivery together, starts them in order and stops them so that nothing is lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
from msgspec import structs

from wirechamber import proxy
from wirechamber.clock import Clock, SteadyClock
from wirechamber.delivery.backlog import Backlog
from wirechamber.delivery.courier import Courier, Pace
from wirechamber.delivery.dispatch import READER, Dispatch, Integrations
from wirechamber.delivery.guard import Guard, is_metadata
from wirechamber.delivery.index import Index, Trigger
from wirechamber.delivery.lanes import Lanes
from wirechamber.delivery.outbound import Outbound
from wirechamber.delivery.proxied import goes_direct
from wirechamber.delivery.runner import Runner
from wirechamber.delivery.settler import Settler
from wirechamber.delivery.underway import UnderWay
from wirechamber.delivery.watermark import Watermark
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor, EventLog
from wirechamber.integrations.registry import Registry
from wirechamber.model.deliveries import Attempt
from wirechamber.model.events import Event
from wirechamber.model.integrations import IntegrationRecord
from wirechamber.observe.metrics import Metrics
from wirechamber.observe.tasks import Tasks, ended
from wirechamber.settings import Settings
from wirechamber.store.base import Deliveries, Store

_log = structlog.get_logger("wirechamber.delivery")


HOPELESS = "paused: several of its deliveries ended the cloud; change it or report it, then save it again"
KIND_MISSING = re.compile("there is no kind of integration named |[A-Za-z0-9_-]+ is not installed here")


class Delivering:
    """What the rest of the cloud may ask of the delivery side.

    Attributes:
        outbound: How often something befell an outgoing request, by what it was.
    """

    def __init__(
        self, index: Index, integrations: Integrations, courier: Courier, dispatch: Dispatch, lanes: Lanes,
        watermark: Watermark, log: EventLog, deliveries: Deliveries, clock: SteadyClock, outbound: Mapping[str, int],
        guard: Guard, *, proxied: bool,
    ) -> None:  # fmt: skip
        self.outbound = outbound
        self._guard = guard
        self._proxied = proxied
        self._index = index
        self._integrations = integrations
        self._courier = courier
        self._dispatch = dispatch
        self._lanes = lanes
        self._watermark = watermark
        self._log = log
        self._deliveries = deliveries
        self._clock = clock

    @property
    def settled_to(self) -> Cursor:
        """Every delivery of the events up to here is settled or has a row: the log may be trimmed so far."""
        return self._watermark.cursor

    @property
    def lag(self) -> int:
        """How many positions dispatch is behind the newest event."""
        return self._log.order(self._log.tail.newest) - self._log.order(self._dispatch.position)

    @property
    def waiting(self) -> int:
        """Deliveries that wait in memory."""
        return self._lanes.waiting

    @property
    def running(self) -> int:
        """Deliveries that are being attempted."""
        return self._lanes.running

    @property
    def crowded_out(self) -> int:
        """Attempts, and requests and answers of attempts, that were removed because there were too many."""
        return self._deliveries.crowded_out

    async def saved(self, record: IntegrationRecord) -> None:
        """An integration's new configuration is stored: it counts from now on. What was held for it is due at once."""
        # In this order: what is written down as held after the index knows better is noticed by the courier.
        await self._integrations.refresh()
        if record.active:
            await self._deliveries.release(record.id, self._clock.steady())
            self._courier.wake()
        else:
            await self._deliveries.hold(record.id)

    def unreachable(self, url: str) -> str | None:
        """Why nothing can be sent to a URL, as far as its text tells; None where nothing speaks against it."""
        if self._proxied and not goes_direct(url):
            # What may be reached is for the proxy to decide.
            return None
        address = self._guard.refuses(url)
        if address is None:
            return None
        if is_metadata(address):
            return f"the address {address} is a metadata service's, which is never reached: every delivery will fail"
        size = 128 if ":" in address else 32
        return (
            f"the address {address} is not allowed here, so every delivery will fail (EFORBIDDEN); the operator can "
            f"allow it: WIRECHAMBER_OUTBOUND_ALLOW={address}/{size}"
        )

    async def test(self, record: IntegrationRecord, event: Event) -> Attempt:
        """Sends one sample event through an integration, enabled or not, and tells what came of it."""
        await self._integrations.refresh()
        trigger = self._index.get(record.id)
        assert trigger is not None
        return await self._courier.try_out(trigger, event)


@asynccontextmanager
async def delivering(
    settings: Settings,
    *,
    log: EventLog,
    store: Store,
    registry: Registry,
    clock: SteadyClock,
    metrics: Metrics,
    agent: str,
    tasks: Tasks,
) -> AsyncIterator[Delivering]:
    """Delivers events from the stored cursor on, until the block ends.

    Stopping: no new attempts, running ones get the grace period, what ended is written down, the rest is made again
    after the next start.
    """
    stored = await store.deliveries.cursor(READER)
    watermark = Watermark(log.origin if stored is None else Cursor(stored))
    settled_before = await log.newest()
    index = Index(registry, log.order)
    under_way = UnderWay(settings.data_folder, settings.outbound_concurrency, clock.steady())
    lanes = Lanes(settings.lane_concurrency, settings.outbound_concurrency, under_way.cautious)
    guard = Guard(settings.outbound_allow)
    outbound = Outbound(
        guard,
        clock=clock,
        timeout_s=settings.request_timeout,
        proxy=proxy.read(settings.outbound_proxy) if settings.outbound_proxy else None,
    )
    runner = Runner(outbound, store, clock, tasks, under_way)
    settler = Settler(log, store.deliveries, watermark)
    pauses = Pauses(store, clock)
    courier = Courier(
        index=index,
        lanes=lanes,
        runner=runner,
        settler=settler,
        pace=Pace(tuple(settings.retry_schedule), int(settings.answer_deadline * 1000)),
        clock=clock,
        metrics=metrics,
        paused=pauses.add,
        under_way=under_way,
        user_agent=agent,
    )
    integrations = Integrations(store, index, runner, under_way)
    dispatch = Dispatch(
        log=log,
        store=store,
        index=index,
        integrations=integrations,
        courier=courier,
        settler=settler,
        watermark=watermark,
        settled_before=settled_before,
        metrics=metrics,
    )
    backlog = Backlog(
        courier=courier,
        index=index,
        integrations=integrations,
        settler=settler,
        deliveries=store.deliveries,
        clock=clock,
    )
    await integrations.refresh()
    await mend_pauses(store, index, under_way, clock.now())
    await integrations.refresh()
    # Saving an integration and releasing what it held are two steps; a crash may have come between.
    await store.deliveries.release_active(clock.steady())
    settling = tasks.essential(settler.run(courier.settled), "settler")
    followers = [
        tasks.essential(dispatch.run(), "dispatch"),
        tasks.essential(backlog.run(), "backlog"),
        tasks.essential(backlog.watch_deadlines(), "deadlines"),
        tasks.essential(pauses.run(), "pauses"),
    ]
    try:
        yield Delivering(
            index, integrations, courier, dispatch, lanes, watermark, log, store.deliveries, clock, outbound.counted,
            guard, proxied=bool(settings.outbound_proxy),
        )  # fmt: skip
    finally:
        await ended(*followers)
        courier.stop()
        await outbound.close(settings.shutdown_grace)
        settler.close()
        await asyncio.gather(settling, return_exceptions=True)
        under_way.close()


async def mend_pauses(store: Store, index: Index, under_way: UnderWay, now: int) -> None:
    """Pauses integrations that end the process again and again, and ends pauses whose reason is gone."""
    for trigger in index.all():
        record, paused = trigger.record, trigger.record.paused
        if record.id in under_way.hopeless and paused is None:
            paused = HOPELESS
        elif paused is not None and KIND_MISSING.match(paused) and trigger.missing() is None:
            # Earlier versions paused an integration for good when its kind was not there.
            paused = None
        if paused != record.paused:
            _log.warning("integration_paused" if paused else "integration_resumed", integration=record.id, why=paused)
            await store.integrations.update(structs.replace(record, paused=paused, updated_at=now))


class Pauses:
    """Writes down which integrations the courier paused, one after the other."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._queue: asyncio.Queue[tuple[IntegrationRecord, str]] = asyncio.Queue()

    def add(self, trigger: Trigger, why: str) -> None:
        """An integration turned out to be misconfigured."""
        self._queue.put_nowait((trigger.record, why))

    async def run(self) -> None:
        """Pauses integrations for ever."""
        while True:
            record, why = await self._queue.get()
            try:
                await self._pause(record, why)
            except CloudError as problem:
                _log.warning("pause_failed", integration=record.id, why=problem.description)

    async def _pause(self, record: IntegrationRecord, why: str) -> None:
        current = await self._store.integrations.get(record.id)
        # Edited meanwhile: the reason may be gone.
        if current is None or current.revision != record.revision or current.paused is not None:
            return
        await self._store.integrations.update(structs.replace(current, paused=why, updated_at=self._clock.now()))
        await self._store.deliveries.hold(record.id)
        _log.warning("integration_paused", integration=record.id, owner=record.owner, why=why)
