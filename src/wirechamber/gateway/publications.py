"""Events that devices publish: checked, stored, and only then acknowledged.

This is the hot path. A device's event touches the exchanges (`coap.exchange`) not at all: whether its message id was
seen before is told by the ids of events that are stored (`Mids`) or about to be, and its answer is made from itself.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

from wirechamber.clock import SteadyClock
from wirechamber.gateway.accounting import HOLD_S
from wirechamber.gateway.allowance import SYSTEM_BURST, SYSTEM_RATE, Allowance
from wirechamber.gateway.intake import Arrival, Intake
from wirechamber.gateway.link import Link
from wirechamber.gateway.meter import DATA_BYTES, PUBLISHES, UP_BYTES, UP_DATAGRAMS, Meter, Purpose
from wirechamber.model.events import Event
from wirechamber.model.ids import TIME_DIGITS
from wirechamber.model.names import MAX_TTL, RESERVED, is_name
from wirechamber.observe.logs import Seldom
from wirechamber.protocols.coap.message import Code, Message, Option, Type, ack, response_wanted, uint, write_message
from wirechamber.protocols.deviceos.content import to_content
from wirechamber.protocols.deviceos.messages import Publish
from wirechamber.protocols.deviceos.system_events import CLAIM_CODE, PREFIXES

_log = structlog.get_logger("wirechamber.gateway")

# What firmware publishes under names of its own (device-protocol.md, section 10). Other names that begin like these
# would pretend to be this cloud.
SYSTEM = ("spark/device/", "particle/device/", "spark/hardware/", "spark/cc3000-patch-version", "spark/flash/status")
# Firmware since 6.3 goes by bytes that are not acknowledged (`Generation.in_flight`) and no more by events a second;
# so many times as many as of others are a flood all the same.
FLOOD = 64
# Devices that are told apart in the log when their events are refused, and how often each is told about, seconds.
MAX_TOLD = 10_000
TOLD_EVERY_S = 60.0
# Devices whose refused events are counted until that is written down.
MAX_COUNTED = 10_000
# Questions that an application asks by publishing; the answer is an event of the same name, to this device alone.
RANDOM_BYTES = 40
# Names that are looked at more closely.
_SPECIAL = (*PREFIXES, *RESERVED)


class Publication(Arrival):
    """An event of a device that waits to be stored."""

    __slots__ = ("_desk", "address", "at", "link", "publish", "received_at", "sequence")

    def __init__(
        self,
        desk: Publications,
        link: Link,
        publish: Publish,
        sequence: int,
        address: tuple[Any, ...],
        clock: SteadyClock,
    ) -> None:
        self.event = None
        self._desk = desk
        self.link = link
        self.publish = publish
        self.sequence = sequence
        self.address = address
        self.at = clock.now()
        self.received_at = clock.steady()

    def make(self) -> Event:
        """As `Arrival.make`."""
        publish, link, at, sequence = self.publish, self.link, self.at, self.sequence
        device = link.device
        assert device is not None
        content = to_content(publish.payload, publish.content_format)
        id = device.id
        return Event(
            # The session's part of it is its own number: the rest is the same for all that this process began.
            id=f"{at:012x}{sequence & 0xFFFFFFFF:08x}{link.id[TIME_DIGITS : TIME_DIGITS + 12]}",
            name=publish.name,
            data=content.data,
            published_at=at,
            received_at=self.received_at,
            owner=device.owner or "",
            coreid=id,
            partition=id,
            origin="device",
            product=device.product_id,
            device=id,
            content_type=content.mime,
            ttl=min(publish.max_age, MAX_TTL),
            session=None if link.reliable else link.id,
            record=sequence,
            message=publish.message_id,
        )

    def stored(self) -> None:
        """As `Arrival.stored`."""
        self._desk.stored(self)

    def refused(self) -> None:
        """As `Arrival.refused`."""
        self._desk.unavailable(self)


class Publications:
    """Takes what devices publish.

    Args:
        rate: Events per second that a device may publish on average.
        burst: How many at once.
        claim: Called with a device's link and the claim code that it published.
        tell: Sends an event to one device, without the log: link, name, data.
        heard: Called with a link that something was taken in from, and whether its device is elsewhere now.

    Attributes:
        accepted: Events that were stored and acknowledged.
        refused: Those that were not, by reason.
        refused_of: The same by device, until somebody takes it to write it down.
    """

    def __init__(
        self,
        *,
        intake: Intake,
        meter: Meter,
        clock: SteadyClock,
        rate: float,
        burst: float,
        max_bytes: int,
        claim: Callable[[Link, str], None],
        tell: Callable[[Link, str, bytes], None],
        heard: Callable[[Link, bool], None],
    ) -> None:
        self._intake = intake
        self._meter = meter
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._max_bytes = max_bytes
        self._claim = claim
        self._tell = tell
        self._heard = heard
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.refused_of: Counter[str] = Counter()
        self._log = Seldom(_log, TOLD_EVERY_S, MAX_TOLD)

    def take(self, link: Link, publish: Publish, sequence: int, size: int, address: tuple[Any, ...]) -> None:
        """Takes an event; nothing of it has an effect before it is stored.

        Args:
            sequence: Number of the record that carried it.
            size: Bytes on the wire.
        """
        counts = link.published
        if counts is None:
            assert link.device is not None
            counts = link.published = self._meter.of(link.device.id, Purpose.PUBLISH)
        counts[UP_BYTES] += size
        counts[UP_DATAGRAMS] += 1
        message_id = publish.message_id
        if message_id in link.mids:
            # Stored before: the answer was lost.
            link.after_accounting(lambda: self._answer(link, publish, sequence, address, Code.CHANGED))
            return
        if message_id in link.storing:
            # It is answered as soon as it is stored.
            return
        why = self._objection(link, publish)
        if why is not None:
            code, reason, wait = why
            self._count(link, publish, reason)
            link.after_accounting(lambda: self._answer(link, publish, sequence, address, code, wait))
            return
        if publish.name == CLAIM_CODE:
            # A secret between the device and this cloud: it goes into no log.
            code_text = publish.payload.decode("ascii", "replace")
            link.after_accounting(lambda: self._claimed(link, publish, sequence, address, code_text))
            return
        link.storing.add(message_id)
        link.in_flight += len(publish.payload)
        if not self._intake.add(Publication(self, link, publish, sequence, address, self._clock)):
            self._landed(link, publish)
            self._count(link, publish, "waiting")

    @staticmethod
    def _landed(link: Link, publish: Publish) -> None:
        link.storing.discard(publish.message_id)
        link.in_flight -= len(publish.payload)

    def _count(self, link: Link, publish: Publish, reason: str) -> None:
        """An event is not taken: its device's application may not learn of it, so the owner does."""
        self.refused[reason] += 1
        device = link.device
        assert device is not None
        if len(self.refused_of) < MAX_COUNTED or device.id in self.refused_of:
            self.refused_of[device.id] += 1
        self._log.warning(
            "publish_refused", why=_WHY[reason], about=device.id, device=device.id, name=publish.name, reason=reason,
            bytes=len(publish.payload), owner=device.owner,
        )  # fmt: skip

    def _objection(self, link: Link, publish: Publish) -> tuple[int, str, float] | None:
        """Why the event is not taken: the answer's code, the reason, and after how many seconds it would be."""
        name = publish.name
        if not is_name(name):
            return Code.BAD_REQUEST, "name", 0.0
        if len(publish.payload) > self._max_bytes:
            return Code.REQUEST_ENTITY_TOO_LARGE, "size", 0.0
        now = self._clock.monotonic()
        if name.startswith(_SPECIAL):
            if link.deviceos and name.startswith(SYSTEM):
                bucket = link.system_allowance
                if bucket is None:
                    bucket = link.system_allowance = Allowance(SYSTEM_BURST)
                wait = bucket.take(now, SYSTEM_RATE, SYSTEM_BURST)
                return (Code.TOO_MANY_REQUESTS, "rate", wait) if wait else None
            if name.startswith(RESERVED):
                return Code.FORBIDDEN, "reserved", 0.0
        rate, burst = self._rate, self._burst
        in_flight = link.takes.generation.in_flight
        if in_flight is not None:
            if link.in_flight and link.in_flight + len(publish.payload) > in_flight:
                return Code.TOO_MANY_REQUESTS, "in_flight", 1.0
            rate, burst = rate * FLOOD, burst * FLOOD
        bucket = link.allowance
        if bucket is None:
            bucket = link.allowance = Allowance(burst)
        wait = bucket.take(now, rate, burst)
        return (Code.TOO_MANY_REQUESTS, "rate", wait) if wait else None

    # --- what follows ---

    def stored(self, publication: Publication) -> None:
        """The event is in the log."""
        link, publish = publication.link, publication.publish
        link.mids.add(publish.message_id)
        self._landed(link, publish)
        self.accepted += 1
        counts = link.published
        if link.closed or counts is None:
            return
        counts[PUBLISHES] += 1
        counts[DATA_BYTES] += len(publish.payload)
        self._answer(link, publish, publication.sequence, publication.address, Code.CHANGED)
        name = publish.name
        if name.startswith(SYSTEM):
            self._reply_to_question(link, name)

    def unavailable(self, publication: Publication) -> None:
        """The log was away for too long."""
        link, publish = publication.link, publication.publish
        self._landed(link, publish)
        self._count(link, publish, "unavailable")
        link.after_accounting(
            lambda: self._answer(
                link, publish, publication.sequence, publication.address, Code.SERVICE_UNAVAILABLE, HOLD_S
            )
        )

    def _claimed(self, link: Link, publish: Publish, sequence: int, address: tuple[Any, ...], code: str) -> None:
        link.mids.add(publish.message_id)
        self._answer(link, publish, sequence, address, Code.CHANGED)
        self._claim(link, code)

    def _answer(
        self, link: Link, publish: Publish, sequence: int, address: tuple[Any, ...], code: int, wait: float = 0.0
    ) -> None:
        """Answers an event that is taken in, or can't be played again."""
        moved = link.moved(sequence, address)
        self._send(link, publish, code, wait)
        endpoint = link.endpoint
        if endpoint is not None and endpoint.waits:
            self._heard(link, moved)

    def _send(self, link: Link, publish: Publish, code: int, wait: float) -> None:
        """Acknowledges it, or says why not (RFC 8516: 4.29 with the seconds to wait in Max-Age)."""
        id = publish.message_id
        if code == Code.CHANGED and link.deviceos:
            if publish.confirmable:
                link.send(ack(id), Purpose.PUBLISH)
            return
        if not response_wanted(publish.no_response, code):
            # RFC 7967, section 2.1: a CON is acknowledged all the same.
            if publish.confirmable:
                link.send(ack(id), Purpose.PUBLISH)
            return
        options: tuple[tuple[int, bytes], ...] = ()
        if wait > 0.0:
            options = ((Option.MAX_AGE, uint(int(wait) + 1)),)
        if publish.confirmable:
            link.send(write_message(Message(Type.ACK, code, id, publish.token, options)), Purpose.PUBLISH)
        elif not link.deviceos:
            link.send(write_message(Message(Type.NON, code, link.next_id(), publish.token, options)), Purpose.PUBLISH)

    def _reply_to_question(self, link: Link, name: str) -> None:
        """Answers what an application asks by publishing (device-protocol.md, section 10.3)."""
        device = link.device
        assert device is not None
        match name.partition("/device/")[2]:
            case "name":
                self._tell(link, name, (device.name or "").encode())
            case "ip":
                self._tell(link, name, link.host.encode())
            case "random":
                self._tell(link, name, os.urandom(RANDOM_BYTES // 2).hex().encode())


_WHY = {
    "name": "an event's name is 1 to 64 printable ASCII characters",
    "size": "the data is longer than max_event_bytes",
    "reserved": "names of this cloud's own are not for devices",
    "rate": "the device publishes more than publish_rate and publish_burst allow; its application may believe it did",
    "in_flight": "the device sends more than its firmware may before the first is acknowledged",
    "waiting": "too many events wait to be stored",
    "unavailable": "the log was away for too long; the device repeats it",
}
