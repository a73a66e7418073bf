"""Events as messages to devices: what Device OS takes, and what an observer of plain CoAP takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wirechamber.clock import SteadyClock
from wirechamber.gateway.link import Link
from wirechamber.gateway.outbox import Sent
from wirechamber.model.events import Event
from wirechamber.model.links import Subscription
from wirechamber.protocols.coap.exchange import Busy, Endpoint
from wirechamber.protocols.coap.message import Code, Message, Option, Type, uint
from wirechamber.protocols.deviceos.content import Form, to_device
from wirechamber.protocols.deviceos.requests import event_to_device

# device-protocol.md, section 12: the largest event data that Device OS takes.
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

    def send(self, link: Link, event: Event, wanted: Sequence[Subscription], sent: Sent) -> bool:
        """Lines an event up for a device; False if no message to it can hold the event, or none of its handlers."""
        forms = self._forms(event, frozenset((each.binary, each.cbor) for each in wanted), link.formats)
        if not forms:
            return False
        if link.deviceos:
            messages = [_event(link, event.name, form) for form in forms]
        else:
            messages = [_notification(event.name, forms[0], wanted[0], link.next_id(), self._order())]
        endpoint = self._endpoint(link)
        now = self._clock.monotonic()
        try:
            if link.reliable:
                # Over TCP, Device OS acknowledges no events (6.2.0, on the wire). It does acknowledge a ping, and by
                # then it has read what came before.
                for message in messages:
                    endpoint.send(message, None, now)
                messages = [Message(Type.CON, Code.EMPTY.value, link.next_id(), b"")]
            until = now + (event.received_at + event.ttl * 1000 - self._clock.steady()) / 1000
            for message in messages:
                endpoint.send(message, sent, now, until=None if link.reliable else until)
        except (Busy, ValueError):
            return False
        return True

    def tell(self, link: Link, name: str, data: bytes) -> None:
        """Sends an event to one device that asked for it, without the log."""
        message = _event(link, name, Form(data))
        try:
            self._endpoint(link).send(message, None, self._clock.monotonic())
        except Busy:
            # It asks again.
            return

    def _forms(self, event: Event, kinds: frozenset[tuple[bool, bool]], accepts_types: bool) -> tuple[Form, ...]:
        if event is not self._made_of:
            self._made_of = event
            self._made.clear()
        forms = self._made.get((kinds, accepts_types))
        if forms is None:
            made = to_device(event.data, event.content_type, kinds, accepts_types=accepts_types)
            forms = tuple(form for form in made if len(form.payload) <= MAX_DATA)
            self._made[kinds, accepts_types] = forms
        return forms

    def _order(self) -> int:
        # RFC 7641, section 4.4, allows a clock: 16 ms wrap around in 12 days, and never goes back over a restart.
        return (self._clock.steady() >> 4) & _OBSERVE_MASK


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
