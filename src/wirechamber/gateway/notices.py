"""Events as messages to devices: what Device OS takes, and what an observer of plain CoAP takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import structs

from wirechamber.clock import SteadyClock
from wirechamber.gateway.link import Link
from wirechamber.gateway.outbox import Sent
from wirechamber.gateway.undelivered import Unsent, Why
from wirechamber.model.events import Event
from wirechamber.model.generations import ROOM_FOR_ACK
from wirechamber.model.links import Subscription
from wirechamber.protocols.coap.exchange import Busy, Endpoint, TooLong
from wirechamber.protocols.coap.message import Code, Message, Option, Type, uint
from wirechamber.protocols.deviceos.content import Form, to_device
from wirechamber.protocols.deviceos.messages import ContentFormat
from wirechamber.protocols.deviceos.requests import event_to_device

# device-protocol.md, section 12: the largest event data that Device OS promises to take. CBOR that stands for it may be
# a little longer.
MAX_DATA = 1024
# RFC 7641, section 3.4: notifications are put in order by 24 bits.
_OBSERVE_MASK = 0xFFFFFF


class Notices:
    """Writes events to devices.

    Args:
        endpoint: Gives a link's exchanges.
    """

    def __init__(self, clock: SteadyClock, endpoint: Callable[[Link], Endpoint]) -> None:
        self._clock = clock
        self._endpoint = endpoint
        # What was made of the last event, for others who want it in the same way.
        self._made_of: Event | None = None
        self._made: dict[tuple[frozenset[tuple[bool, bool]], bool], tuple[Form, ...]] = {}

    def send(self, link: Link, event: Event, wanted: Sequence[Subscription], sent: Sent) -> Unsent | None:
        """Lines an event up for a device; None if it has it, all of its handlers, unless it is lost on the way."""
        forms = self._forms(event, frozenset((each.binary, each.cbor) for each in wanted), link.takes.types)
        if not forms:
            return Unsent(Why.FORMAT)
        if link.deviceos:
            messages = [_event(link, event.name, form) for form in forms]
        else:
            messages = [_notification(event.name, forms[0], wanted[0], link.next_id(), self._order())]
        endpoint, room = self._endpoint(link), link.room(ROOM_FOR_ACK)
        now = self._clock.monotonic()
        until = None
        if not link.reliable:
            until = now + (event.received_at + event.ttl * 1000 - self._clock.steady()) / 1000
        unsent: Unsent | None = None
        count = 0
        for message in messages:
            try:
                if _is_long(message):
                    raise TooLong(len(message.payload), MAX_DATA)
                # Over TCP, Device OS acknowledges no events (6.2.0, on the wire).
                endpoint.send(message, None if link.reliable else sent, now, until=until, room=room)
                count += 1
            except TooLong as problem:
                unsent = Unsent(Why.TOO_LARGE, problem.size, problem.room)
            except (Busy, ValueError):
                unsent = Unsent(Why.BUSY)
        if count and link.reliable:
            # It does acknowledge a ping, and by then it has read what came before.
            try:
                endpoint.send(Message(Type.CON, Code.EMPTY.value, link.next_id(), b""), sent, now)
            except Busy:
                count, unsent = 0, Unsent(Why.BUSY)
        sent.messages = 1 if link.reliable else count
        return None if unsent is None else structs.replace(unsent, partly=count > 0)

    def tell(self, link: Link, name: str, data: bytes) -> None:
        """Sends an event to one device that asked for it, without the log."""
        message = _event(link, name, Form(data))
        try:
            self._endpoint(link).send(message, None, self._clock.monotonic(), room=link.room(ROOM_FOR_ACK))
        except (Busy, TooLong):
            # It asks again, or could not read the answer.
            return

    def _forms(self, event: Event, kinds: frozenset[tuple[bool, bool]], accepts_types: bool) -> tuple[Form, ...]:
        if event is not self._made_of:
            self._made_of = event
            self._made.clear()
        forms = self._made.get((kinds, accepts_types))
        if forms is None:
            forms = to_device(event.data, event.content_type, kinds, accepts_types=accepts_types)
            self._made[kinds, accepts_types] = forms
        return forms

    def _order(self) -> int:
        # RFC 7641, section 4.4, allows a clock: 16 ms wrap around in 12 days, and never goes back over a restart.
        return (self._clock.steady() >> 4) & _OBSERVE_MASK


def _is_long(message: Message) -> bool:
    if len(message.payload) <= MAX_DATA:
        return False
    return message.uint(Option.CONTENT_FORMAT) != ContentFormat.CBOR


def _event(link: Link, name: str, form: Form) -> Message:
    return event_to_device(name, form.payload, form.content_format, link.next_id(), confirmable=not link.reliable)


def _notification(name: str, form: Form, wanted: Subscription, id: int, order: int) -> Message:
    # The observed path is a prefix, so the name of each event is told in Location-Path, which is elective: whoever does
    # not know it there ignores it (RFC 7252, section 5.4.1).
    options: list[tuple[int, bytes]] = [(Option.OBSERVE.value, uint(order))]
    options += [(Option.LOCATION_PATH.value, segment.encode()) for segment in ("e", *name.split("/"))]
    if form.content_format is not None:
        options.append((Option.CONTENT_FORMAT.value, uint(form.content_format)))
    return Message(Type.CON, Code.CONTENT.value, id, wanted.token, tuple(options), form.payload)
