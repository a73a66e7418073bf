"""What a cloud is told of a device once in a session, and has to be told again when it has changed: its Hello, its
descriptions, and what it wants (device-protocol.md, sections 7 and 11).

Nothing is sent here: what is to be sent is returned.
"""

from __future__ import annotations

from msgspec import structs

from wirechamber.device.about import About, checksum, hello_checksum, hello_of, system_of
from wirechamber.device.errors import Refused
from wirechamber.device.session_file import Told, Wanted
from wirechamber.device.tags import Describing, Out, Purpose, Subscribing
from wirechamber.protocols.coap.blockwise import SZX_1024, Block, Sending, block_of, read_block
from wirechamber.protocols.coap.message import Code, Message, Option, Type, uint
from wirechamber.protocols.deviceos import messages, requests
from wirechamber.protocols.deviceos.describe import Application, write_application
from wirechamber.protocols.deviceos.messages import ContentFormat, Kind
from wirechamber.protocols.deviceos.metrics import Metric, write_metrics

# What is registered within this time after connecting is told in one description.
DESCRIBE_AFTER_S = 0.25
# A plain CoAP question is answered within this time, or not at all.
ANSWER_S = 60.0
# The one metric that every machine has (device-protocol.md, 7.2).
UPTIME = 6


class Telling:
    """Knows what the cloud has acknowledged.

    Args:
        deviceos: The cloud is told as by Device OS; otherwise by plain CoAP, which has no descriptions.

    Attributes:
        told: What the cloud knows. Another object each time that it changes.
        wanted: The subscriptions of this process, in order.
        application: Functions and variables; None while none were offered.
        due: When a description is due; None: none is.
    """

    def __init__(self, about: About, device_id: str, told: Told, *, deviceos: bool, started: float) -> None:
        self._about = about
        self._id = device_id
        self._deviceos = deviceos
        self._started = started
        # An observation whose token is not known any more is no use.
        whole = deviceos or len(told.tokens) == len(told.wanted)
        self.told = told if whole else structs.replace(told, wanted=(), tokens=())
        self.wanted: dict[Wanted, None] = {}
        self.application: Application | None = None
        self.due: float | None = None
        self._described: bytes | None = None
        self._describing = False

    @property
    def listens(self) -> bool:
        """Whether the device has something that the cloud may want of it."""
        application = self.application
        return bool(self.wanted) or (application is not None and bool(application.functions or application.variables))

    # --- Hello ---

    def begin_anew(self) -> None:
        """What the cloud was told before does not count any more."""
        self.told = Told()

    @property
    def greeted(self) -> bool:
        """Whether the cloud has a Hello that still says what is true."""
        return self.told.hello == hello_checksum(self._about, self._id)

    def hello(self) -> Out:
        """The Hello, after which everything else is told anew (device-protocol.md, section 11)."""
        self.begin_anew()
        return Out(messages.write_hello(hello_of(self._about, self._id), 0), Purpose.HELLO)

    def hello_taken(self) -> Out:
        """The cloud has the Hello; returns the description of the system, which follows."""
        self.told = structs.replace(self.told, hello=hello_checksum(self._about, self._id))
        system = messages.Describe(Kind.SYSTEM, system_of(self._about), ContentFormat.OCTET_STREAM)
        return Out(messages.write_describe(system, 0, b""), Purpose.SYSTEM, token=True)

    def system_taken(self) -> None:
        """The cloud has the description of the system."""
        self.told = structs.replace(self.told, system=checksum(system_of(self._about)))

    # --- subscriptions ---

    def subscribe(self, wanted: Wanted) -> Out:
        """Asks for events."""
        if self._deviceos:
            asked = messages.Subscribe(wanted.prefix, wanted.binary, wanted.structured)
            return Out(messages.write_subscribe(asked, 0), Subscribing(wanted))
        options = ((Option.OBSERVE.value, uint(0)), *messages.path("e", wanted.prefix))
        message = Message(Type.CON, Code.GET.value, 0, b"", options)
        return Out(message, Subscribing(wanted), token=True, within=ANSWER_S, keep=True)

    def subscriptions(self) -> list[Out]:
        """Asks for all that the cloud does not know to be wanted."""
        return [self.subscribe(wanted) for wanted in self.wanted if wanted not in self.told.wanted]

    @property
    def observed(self) -> list[tuple[Wanted, bytes]]:
        """By which tokens events come, in plain CoAP."""
        return list(zip(self.told.wanted, self.told.tokens, strict=not self._deviceos))

    def subscribed(self, wanted: Wanted, token: bytes) -> bool:
        """The cloud has taken a subscription; returns whether that is news."""
        told = self.told
        if wanted in told.wanted:
            return False
        tokens = () if self._deviceos else (*told.tokens, token)
        self.told = structs.replace(told, wanted=(*told.wanted, wanted), tokens=tokens)
        return True

    # --- functions and variables ---

    def offer(self, application: Application, now: float) -> None:
        """Which there are."""
        self.application = application
        self._described = write_application(application)
        if self.due is None:
            self.due = now + DESCRIBE_AFTER_S

    def connected(self, now: float) -> None:
        """A program has a moment to say what it offers."""
        if self._deviceos and self.due is None:
            self.due = now + DESCRIBE_AFTER_S

    def describe(self) -> Out | None:
        """Tells of functions and variables, unless the cloud knows them already."""
        self.due = None
        if self._described is None and self.told.application is not None:
            # A program may resume a session long before it offers anything.
            return None
        payload = self._described or write_application(Application())
        value = checksum(payload)
        if not self._deviceos or self._describing or value == self.told.application:
            return None
        sending = Sending(payload) if len(payload) > Block(0, False, SZX_1024).size else None
        return self._next_part(value, payload, sending)

    def _next_part(self, value: int, payload: bytes, sending: Sending | None) -> Out | None:
        block1 = None
        if sending is not None:
            found = sending.next()
            if found is None:
                return None
            block1, payload = found
        description = messages.Describe(Kind.APPLICATION, payload, None, block1)
        self._describing = True
        return Out(messages.write_describe(description, 0, b""), Describing(value, sending), token=True)

    def described(self, tag: Describing, refused: Refused | None, now: float) -> Out | None:
        """The cloud has a description, or a part of one; returns the next part."""
        self._describing = False
        if refused is not None:
            return None
        if tag.rest is not None:
            part = self._next_part(tag.checksum, b"", tag.rest)
            if part is not None:
                return part
        self.told = structs.replace(self.told, application=tag.checksum)
        # It may have changed meanwhile.
        if self._described is not None and checksum(self._described) != tag.checksum:
            self.due = now
        return None

    def not_described(self) -> None:
        """A description did not arrive."""
        self._describing = False

    def description(self, kind: Kind, block2: bytes | None, token: bytes, now: float) -> Message | None:
        """A description that the cloud asks for, or a part of it; None when there is no such part."""
        if kind is Kind.SYSTEM:
            body = system_of(self._about)
        elif kind is Kind.APPLICATION:
            body = self._described or write_application(Application())
        else:
            body = write_metrics((Metric(UPTIME, int(now - self._started)),))
        wanted = Block(0, False, SZX_1024) if block2 is None else read_block(block2)
        found = None if wanted is None else block_of(body, wanted)
        if found is None:
            return None
        option, payload = found
        whole = block2 is None and len(payload) == len(body)
        etag = None if whole else (checksum(body) & 0xFF).to_bytes(1, "big")
        return requests.describe_answer(kind, payload, 0, token, etag, None if whole else option)
