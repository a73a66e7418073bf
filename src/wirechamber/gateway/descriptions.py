"""What devices tell of themselves: modules, functions and variables, metrics (device-protocol.md, section 7.2)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import msgspec

from wirechamber.clock import SteadyClock
from wirechamber.gateway.allowance import SYSTEM_BURST, SYSTEM_RATE, Allowance
from wirechamber.gateway.intake import Arrival
from wirechamber.gateway.keeper import Keeper
from wirechamber.gateway.link import Link
from wirechamber.gateway.measured import Measured
from wirechamber.gateway.meter import Purpose
from wirechamber.model.devices import Device
from wirechamber.model.links import Described, MetricsTold, SystemDescribed
from wirechamber.observe.tasks import Tasks
from wirechamber.protocols.coap.blockwise import Fetch, Next, Whole
from wirechamber.protocols.coap.exchange import Busy, Endpoint
from wirechamber.protocols.coap.message import Code, Message
from wirechamber.protocols.deviceos.describe import read_application, read_system
from wirechamber.protocols.deviceos.messages import Kind
from wirechamber.protocols.deviceos.metrics import metrics_by_name
from wirechamber.protocols.deviceos.requests import describe_request

# How long a device may take to describe itself when it is asked.
DESCRIBE_S = 30.0
# When it is asked once more, if it said that it has no functions and no variables. Without a thread of its own for the
# system, which was the default before 2.0, firmware connects first and runs setup(), which registers them, afterwards.
AGAIN_S = (2.0, 8.0, 20.0)

Description = Described | SystemDescribed | MetricsTold


class Asked:
    """A description that this cloud asked for, because the device does not tell it by itself.

    Args:
        times: How often it was asked for before.
        stored: Whoever waits for it: done once it is stored, or can't be had.
    """

    __slots__ = ("fetch", "kind", "stored", "times")

    def __init__(self, kind: Kind, times: int = 0, stored: asyncio.Future[bool] | None = None) -> None:
        self.kind = kind
        self.times = times
        self.fetch = Fetch()
        self.stored = stored

    def ends(self, ok: bool) -> None:
        """Tells whoever waits."""
        if self.stored is not None and not self.stored.done():
            self.stored.set_result(ok)


class Descriptions:
    """Asks for them, reads them, and keeps them.

    Args:
        endpoint: A link's exchanges.
        flush: Sends what a link's exchanges have to send.
        tell: Takes an event on its way to the log.
        refused: Counts what is not taken, by reason.
    """

    def __init__(
        self,
        *,
        clock: SteadyClock,
        tasks: Tasks,
        keeper: Keeper,
        endpoint: Callable[[Link], Endpoint],
        flush: Callable[[Link, Purpose], None],
        tell: Callable[[Arrival], object],
        refused: Counter[str],
    ) -> None:
        self._clock = clock
        self._tasks = tasks
        self._keeper = keeper
        self._endpoint = endpoint
        self._flush = flush
        self._tell = tell
        self._refused = refused
        # Those that will be asked again.
        self._again: set[Link] = set()

    # --- asking ---

    def ask(self, link: Link) -> None:
        """Asks a device that does not describe itself."""
        # One at a time: firmware drops the connection when it is asked for both at once (device-protocol.md, Q17).
        for kind in (Kind.SYSTEM, Kind.APPLICATION):
            self._ask(link, Asked(kind))
        self._flush(link, Purpose.OTHER)

    async def _ask_again(self, link: Link, asked: Asked) -> None:
        await asyncio.sleep(AGAIN_S[asked.times])
        self._again.discard(link)
        if not link.closed:
            self._ask(link, Asked(asked.kind, asked.times + 1))
            self._flush(link, Purpose.OTHER)

    def _ask(self, link: Link, asked: Asked, block: bytes | None = None) -> None:
        endpoint = self._endpoint(link)
        try:
            message = describe_request(asked.kind, link.next_id(), endpoint.next_token(), block)
            endpoint.send(message, asked, self._clock.monotonic(), DESCRIBE_S)
        except Busy:
            self._refused["description"] += 1
            asked.ends(False)

    def answered(self, link: Link, asked: Asked, message: Message) -> None:
        """A device sent a description that it was asked for, or a part of it."""
        device = link.device
        if device is None or message.code != Code.CONTENT:
            asked.ends(False)
            return
        match asked.fetch.take(message):
            case Next(option):
                self._ask(link, asked, option)
            case Whole(body):
                change = self.read(device, asked.kind, body)
                if _says_nothing(change) and asked.times < len(AGAIN_S):
                    # What it told before holds until then. However often it says Hello, it is asked once at a time.
                    if link not in self._again:
                        self._again.add(link)
                        self._tasks.spawn(self._ask_again(link, asked), "device-describing")
                elif change is not None:
                    self.keep(link, change, asked.ends)
                else:
                    self._refused["description"] += 1
                    asked.ends(False)
            case _:
                self._refused["description"] += 1
                asked.ends(False)

    async def measure(self, link: Link, within: float) -> bool:
        """Asks a device for its metrics; whether they were stored.

        Raises:
            TimeoutError: It did not answer in time.
        """
        asked = Asked(Kind.METRICS, stored=asyncio.get_running_loop().create_future())
        self._ask(link, asked)
        self._flush(link, Purpose.OTHER)
        assert asked.stored is not None
        async with asyncio.timeout(within):
            return await asked.stored

    # --- what was told ---

    def read(self, device: Device, kind: Kind, payload: bytes) -> Description | None:
        """What a device has told; None if it can't be read."""
        now = self._clock.now()
        try:
            match kind:
                case Kind.APPLICATION:
                    application = read_application(payload)
                    return Described(device.id, application.functions, application.variables)
                case Kind.METRICS:
                    return MetricsTold(device.id, now, metrics_by_name(payload))
                case _:
                    return SystemDescribed(device.id, now, msgspec.to_builtins(read_system(payload)))
        except ValueError:
            return None

    def keep(self, link: Link, change: Description, done: Callable[[bool], None]) -> None:
        """Stores a description, and then calls `done` with whether that went well."""

        def stored(ok: bool) -> None:
            describing = link.describing
            if isinstance(change, Described) and describing is not None:
                link.describing = None
                if not describing.done():
                    describing.set_result(None)
            if isinstance(change, MetricsTold) and ok and not link.closed:
                self._tell_metrics(link, change)
            done(ok)

        self._keeper.keep(change, stored)

    def _tell_metrics(self, link: Link, told: MetricsTold) -> None:
        """Tells the owner, as often as firmware may speak under names of its own."""
        bucket = link.system_allowance
        if bucket is None:
            bucket = link.system_allowance = Allowance(SYSTEM_BURST)
        if bucket.take(self._clock.monotonic(), SYSTEM_RATE, SYSTEM_BURST):
            self._refused["vitals"] += 1
        else:
            self._tell(Measured(link, told.metrics, self._clock))


def _says_nothing(change: object) -> bool:
    return isinstance(change, Described) and not change.functions and not change.variables
