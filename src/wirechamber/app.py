"""The composition root: builds the cloud, starts its parts in order and stops them in reverse.

The only place that knows every part. Nothing is global, so two whole clouds can run in one process.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
import uvloop

from wirechamber import __version__
from wirechamber.api.application import application
from wirechamber.api.parts import Parts
from wirechamber.api.server import Server, serving
from wirechamber.api.streams import OPEN, Counts, check_tokens, keep_alive
from wirechamber.api.tls import check_files
from wirechamber.clock import Clock, SystemClock, Timekeeper, boot_id
from wirechamber.datafolder import listening as where
from wirechamber.datafolder.check import check, note_closed, note_keys, note_known, note_open, prepare, written
from wirechamber.delivery.service import Delivering, delivering
from wirechamber.descriptors import raise_limit
from wirechamber.errors import CloudError
from wirechamber.eventlog.base import EventLog, Trimmable
from wirechamber.eventlog.lock import hold_folder
from wirechamber.eventlog.sqlite import open_sqlite_log
from wirechamber.gateway.ports import Ports, listening
from wirechamber.gateway.service import Gateway
from wirechamber.kinds import registry
from wirechamber.model.times import DAY_MS, day
from wirechamber.model.usage import hour
from wirechamber.observe.logs import Seldom, configure
from wirechamber.observe.metrics import Metrics
from wirechamber.observe.tasks import Tasks, within
from wirechamber.observe.watchdog import Watchdog
from wirechamber.secrets import Vault
from wirechamber.services.access import Access
from wirechamber.services.devices import Devices
from wirechamber.services.functions import Functions
from wirechamber.services.grants import Grants
from wirechamber.services.identity import Identity
from wirechamber.services.integrations import Integrations
from wirechamber.services.publishing import Publishing
from wirechamber.services.serverkeys import ServerKeys
from wirechamber.services.usage import Usages
from wirechamber.services.vitals import VitalSigns
from wirechamber.settings import Settings
from wirechamber.store.base import AttemptBounds, Retention, Store
from wirechamber.store.sqlite import open_sqlite_store
from wirechamber.streams.hub import Hub
from wirechamber.streams.past import Past
from wirechamber.switchboard.memory import MemorySwitchboard

_log = structlog.get_logger("wirechamber")
_seldom = Seldom(_log)

USER_AGENT = f"Wirechamber/{__version__} (webhooks)"
TIDY_EVERY_S = 60.0
SWEEP_EVERY_S = 1.0
SWEEP_PAUSE_S = 0.005
# The clocks are compared, and an operator's word about them looked for, this often.
CLOCK_EVERY_S = 1.0
# So long a client is told that its token has expired, and not that there is none.
EXPIRED_KEPT_MS = 30 * DAY_MS
# Beside writer and HTTP threads, the loop must get the GIL back soon (the default is 5 ms).
SWITCH_INTERVAL_S = 0.0005
# Events are many small objects without cycles; looking for cycles at every 700 of them is lost time.
GC_THRESHOLDS = (50_000, 20, 100)


class PartFailed(CloudError):
    """A part of the cloud ended by an error of ours; the process ends, and whoever looks after it starts it again."""


class Cloud:
    """A running cloud.

    Attributes:
        base_url: How clients reach it.
        failed: Done with the name of a part without which it must not go on.
    """

    def __init__(
        self, settings: Settings, store: Store, log: EventLog, access: Access, server: Server, gateway: Gateway,
        failed: asyncio.Future[str],
    ) -> None:  # fmt: skip
        self.settings = settings
        self.store = store
        self.log = log
        self.access = access
        self.server = server
        self.gateway = gateway
        self.failed = failed
        self.base_url = settings.base_url or server.base_url


@asynccontextmanager
async def running(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Cloud]:
    """A whole cloud, from its data folder to its open port; everything is stopped and written down on exit.

    Args:
        clock: Instead of this machine's.
    """
    timekeeper = _timekeeper(settings, clock)
    folder = settings.data_folder
    if settings.tls_cert:
        # Before anything is made.
        check_files(settings.tls_cert, settings.tls_key)
    prepare(folder)
    metrics = Metrics()
    kinds = registry(settings)
    tasks = Tasks()
    watchdog = Watchdog()
    metrics.watch_loop(watchdog, tasks)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(watchdog.watching())
        with written(folder):
            stack.enter_context(hold_folder(folder))
            where.forget(folder)
            known = check(folder, may_lose_the_newest=settings.durability == "normal")
            stack.callback(note_closed, folder)
            timekeeper.keep_in(folder)
            metrics.watch_clock(timekeeper)
            store = await stack.enter_async_context(open_sqlite_store(folder, Vault.open(folder), clock=timekeeper))
            keys = ServerKeys(folder)
            server_key, tcp_key = keys.ec(), keys.rsa() if settings.tcp_port else None
            note_keys(folder, tcp=tcp_key is not None)
            log = await stack.enter_async_context(
                open_sqlite_log(folder, durability=settings.durability, clock=timekeeper, known=known)
            )
            note_open(folder)
        delivery = await stack.enter_async_context(
            delivering(
                settings, log=log, store=store, registry=kinds, clock=timekeeper, metrics=metrics, agent=USER_AGENT,
                tasks=tasks,
            )
        )  # fmt: skip
        hub = Hub(log.tail, settings.stream_buffer_kb * 1024)
        publishing = Publishing(log, timekeeper, settings, metrics)
        access = Access(store, timekeeper, settings)
        switchboard = MemorySwitchboard()
        identity = Identity(store, timekeeper, settings, switchboard)
        gateway = Gateway(
            store=store,
            log=log,
            identity=identity,
            server_key=server_key,
            tcp_key=tcp_key,
            clock=timekeeper,
            settings=settings,
            ready=publishing.check_disk,
            tasks=tasks,
        )
        switchboard.connect(gateway.questions)
        devices = Devices(store, timekeeper)
        parts = Parts(
            settings=settings,
            clock=timekeeper,
            metrics=metrics,
            access=access,
            grants=Grants(store, access, timekeeper),
            devices=devices,
            functions=Functions(devices, switchboard),
            identity=identity,
            usage=Usages(store, devices, timekeeper),
            vitals=VitalSigns(store, devices, timekeeper, switchboard),
            integrations=Integrations(store, log, kinds, timekeeper, settings, delivery),
            publishing=publishing,
            log=log,
            hub=hub,
            past=Past(log),
            ready=lambda: _ready(store, log, publishing, ports),
            trusted_proxies=tuple(ipaddress.ip_network(each, strict=False) for each in settings.trusted_proxies),
        )
        metrics.watch_delivery(delivery)
        metrics.watch_links(gateway)
        ports = await stack.enter_async_context(listening(gateway, settings, tasks))
        # A port that is somebody else's is opened as soon as it is free.
        to_devices = where.Listening(
            gateway.port or settings.udp_port, gateway.tcp_port or settings.tcp_port, settings.device_host
        )
        stack.enter_context(where.noted(folder, to_devices))
        keeping_time = tasks.restarting(partial(_keep_time, folder, timekeeper, store, log), "clock")
        await stack.enter_async_context(within(keeping_time))
        janitor = tasks.restarting(partial(_tidy, settings, store, log, delivery, timekeeper), "janitor")
        await stack.enter_async_context(within(janitor))
        sweeper = tasks.restarting(partial(_sweep, settings, store), "sweeper")
        await stack.enter_async_context(within(sweeper))
        app = application(parts)
        metrics.watch_streams(Counts(app[OPEN], hub))
        keeping_alive = tasks.restarting(partial(keep_alive, app[OPEN], log.tail, settings.keep_alive), "keep-alive")
        await stack.enter_async_context(within(keeping_alive))
        checking = tasks.restarting(partial(check_tokens, app[OPEN], access, settings.keep_alive), "token-check")
        await stack.enter_async_context(within(checking))
        server = await stack.enter_async_context(
            serving(
                app, settings, tasks, before_stop=hub.close, refused=metrics.refused,
                trusted_proxies=parts.trusted_proxies,
            )
        )  # fmt: skip
        yield Cloud(settings, store, log, access, server, gateway, tasks.failed)


async def serve(settings: Settings, announce: Callable[[Cloud], None] | None = None) -> None:
    """Runs a cloud until SIGINT or SIGTERM."""
    async with running(settings) as cloud:
        gc.collect()
        gc.freeze()
        _log.info(
            "serving",
            url=cloud.base_url,
            udp=cloud.gateway.port,
            tcp=cloud.gateway.tcp_port,
            data=str(settings.data_folder.resolve()),
            version=__version__,
        )
        if announce is not None:
            announce(cloud)
        await until_stopped(cloud)
        _log.info("stopping")


async def until_stopped(cloud: Cloud) -> None:
    """Returns when the process is told to stop, by SIGINT or SIGTERM.

    Raises:
        PartFailed: A part of the cloud ended by an error of ours.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    cloud.failed.add_done_callback(lambda _: stop.set())
    await stop.wait()
    if cloud.failed.done():
        raise PartFailed(f"{cloud.failed.result()} ended by an error that the log tells; start the cloud again")


def run(settings: Settings, announce: Callable[[Cloud], None] | None = None) -> None:
    """Runs a cloud in an event loop of its own until SIGINT or SIGTERM."""
    configure(settings.log_level, settings.log_format)
    raise_limit()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, announce))


async def _ready(store: Store, log: EventLog, publishing: Publishing, ports: Ports) -> None:
    """Raises Unavailable when events can't be stored or read, configuration can't be read, or devices can't connect."""
    publishing.check_disk()
    await log.oldest()
    await store.deliveries.next_due()
    ports.check()


def _timekeeper(settings: Settings, clock: Clock | None) -> Timekeeper:
    shortest = min(settings.retention_days, settings.attempt_days, settings.usage_days, settings.vitals_days)
    return Timekeeper(
        clock or SystemClock(),
        settle_s=settings.clock_settle_hours * 3600,
        catch_up=settings.retention_share / 100 * shortest,
        boot=boot_id() if clock is None else "",
    )


async def _keep_time(folder: Path, clock: Timekeeper, store: Store, log: EventLog) -> None:
    seen = None
    while True:
        try:
            clock.tend()
        except OSError as problem:
            _seldom.warning("clock_not_kept", why=str(problem))
        if clock.went_back:
            try:
                await store.deliveries.bring_forward(clock.went_back)
                clock.went_back = 0
            except CloudError as problem:
                _seldom.warning("clock_not_kept", why=problem.description)
        stands = (log.tail.newest, store.revision())
        if stands != seen:
            try:
                await store.seen(stands[0])
                note_known(folder, int(stands[0]), stands[1])
                seen = stands
            except CloudError as problem:
                _seldom.warning("log_position_not_noted", why=problem.description)
            except OSError as problem:
                _seldom.warning("log_position_not_noted", why=str(problem))
        await asyncio.sleep(CLOCK_EVERY_S)


async def _sweep(settings: Settings, store: Store) -> None:
    """Clears away what was removed and what is too much, in steps between which others have their turn."""
    bounds = AttemptBounds(settings.owner_attempts_mb << 20, settings.attempt_bodies_mb << 20)
    while True:
        began = time.monotonic()
        try:
            more = await store.deliveries.sweep(bounds)
        except CloudError as problem:
            _seldom.warning("sweep_failed", why=problem.description)
            more = False
        # Never more than half of the writer's time.
        await asyncio.sleep(max(SWEEP_PAUSE_S, time.monotonic() - began) if more else SWEEP_EVERY_S)


async def _tidy(settings: Settings, store: Store, log: EventLog, delivery: Delivering, clock: Timekeeper) -> None:
    while True:
        # What is deleted is gone, so it is judged by a time that nobody can have set by mistake.
        now = clock.deletes_by()
        try:
            if isinstance(log, Trimmable):
                await log.trim(
                    before_time=now - settings.retention_days * DAY_MS,
                    not_after=delivery.settled_to,
                    owner_bytes=settings.owner_quota_mb * 1024 * 1024 or None,
                )
            await store.deliveries.tidy(
                Retention(
                    bodies_of_newest=settings.attempt_bodies,
                    bodies_after=now - settings.attempt_body_hours * 3_600_000,
                    attempts_after=now - settings.attempt_days * DAY_MS,
                    counters_after=day(now) - settings.attempt_days,
                )
            )
            await store.links.forget_vitals(now - settings.vitals_days * DAY_MS)
            await store.usage.tidy(hour(now) - settings.usage_days * 24)
            await store.tokens.remove_expired(now - EXPIRED_KEPT_MS)
            await store.claims.remove_expired(now)
        except CloudError as problem:
            _log.warning("tidy_failed", why=problem.description)
        await asyncio.sleep(TIDY_EVERY_S)
