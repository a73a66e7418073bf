"""A device's side of its link, without sockets, tasks or clocks.

`Core` takes datagrams and the time, and gives datagrams, events and the next deadline. Whatever must be on the disk
before something leaves or takes effect is handed to `keep` before the call that caused it returns: drain `datagrams`
and `events` after each call, and nothing is sent with a number that a later process may use, and nothing that was
received is believed twice.

A session is given up for a new one only when that one is established: a cloud that is away for a day is found again
without a handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from msgspec import Struct, structs

from wirechamber.device.about import About, Identity, checksum, hello_checksum, hello_of, system_of
from wirechamber.device.errors import DeviceError, NotAcknowledged, Refused
from wirechamber.device.events import (
    Connected,
    Disconnected,
    Event,
    EventCame,
    FunctionCalled,
    Left,
    Published,
    Signalled,
    Subscribed,
    TimeTold,
    VariableWanted,
)
from wirechamber.device.session_file import StoredSession, Told, Wanted
from wirechamber.protocols.coap.blockwise import SZX_1024, Block, Sending, block_of, read_block
from wirechamber.protocols.coap.exchange import (
    DEVICE_OS,
    RFC_7252,
    Acknowledged,
    Answered,
    Busy,
    Endpoint,
    Rejected,
    Request,
)
from wirechamber.protocols.coap.message import Code, Malformed, Message, Option, Type, uint
from wirechamber.protocols.deviceos import messages, requests
from wirechamber.protocols.deviceos.describe import Application, write_application
from wirechamber.protocols.deviceos.messages import ContentFormat, Goodbye, Kind
from wirechamber.protocols.deviceos.metrics import Metric, write_metrics
from wirechamber.protocols.dtls import (
    ALERT,
    APPLICATION_DATA,
    Alert,
    AlertLevel,
    Arrived,
    ClientHandshake,
    Established,
    Failed,
    Over,
    PreSharedKey,
    Received,
    Refusal,
    Session,
    split_records,
)

# How many record numbers are reserved at a time: one write to the disk for as many messages.
RESERVED = 64
# device-protocol.md, section 12: an unanswered ping tells that the cloud is gone.
PING_S = 30.0
# What is registered within this time after connecting is told in one description.
DESCRIBE_AFTER_S = 0.25
# device-protocol.md, section 3.4: how long a device waits before it tries again.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 128.0
FAILURES_PER_STEP = 5
# CONs that may be without acknowledgement at a time; Device OS has no limit (device-protocol.md, Q28).
OUTSTANDING = 64
# A plain CoAP question is answered within this time, or not at all.
ANSWER_S = 60.0
# A message got no answer, but others did so recently: the link is alive.
ALIVE_S = 20.0
# The one metric that every machine has (device-protocol.md, 7.2).
UPTIME = 6
_USER = 2


class Phase(Enum):
    """Where the link stands."""

    OFFLINE = "offline"
    HANDSHAKE = "handshake"
    GREETING = "greeting"
    ONLINE = "online"


class _Purpose(Enum):
    """What a message was sent for, where nothing more must be known of it."""

    HELLO = "hello"
    PING = "ping"
    SYSTEM = "system"
    TIME = "time"
    GOODBYE = "goodbye"
    ANSWER = "answer"


class _Publishing(Struct, frozen=True):
    tag: Any


class _Subscribing(Struct, frozen=True):
    wanted: Wanted


class _Describing(Struct, frozen=True):
    checksum: int
    rest: Sending | None


class Core:
    """One device.

    Args:
        keep: Puts the session on the disk, or removes it (None). What it raises comes out of the call that needed it,
            and nothing is sent.
        stored: The session that there was, if it is of this identity.
        dice: Random numbers from 0 to 1.
        keepalive: After so many seconds of silence a ping is sent; 0: never.
        ping_first: A resumed session is tried by a ping. Otherwise the first message does that.
        started: When the device started, seconds on the clock of `now`.
    """

    def __init__(
        self,
        identity: Identity,
        about: About,
        keep: Callable[[StoredSession | None], None],
        *,
        dice: Callable[[], float],
        stored: StoredSession | None = None,
        keepalive: float = 25.0,
        ping_first: bool = True,
        started: float = 0.0,
    ) -> None:
        self.identity = identity
        self.about = about
        self.phase = Phase.OFFLINE
        self.handshakes = 0
        self._keep = keep
        self._dice = dice
        self._keepalive = keepalive
        self._ping_first = ping_first
        self._started = started
        self._deviceos = not isinstance(identity.credentials, PreSharedKey)
        self._session: Session | None = None
        self._endpoint = self._new_endpoint()
        self._told = Told()
        self._reserved = 0
        if stored is not None and stored.fingerprint == identity.fingerprint:
            # Nothing is reserved yet: the first record makes that up.
            self._reserved = stored.next_sequence
            self._session = Session(stored.state, stored.next_sequence, stored.next_sequence, stored.top)
            # Plain CoAP observes by tokens, which are of this process.
            self._told = stored.told if self._deviceos else structs.replace(stored.told, wanted=())
        self._handshake: ClientHandshake | None = None
        self._out: list[bytes] = []
        self._events: list[Event] = []
        self._dirty = False
        self._heard = 0.0
        self._pinged: float | None = None
        self._pong_by: float | None = None
        self._failures = 0
        self._wanted: dict[Wanted, None] = {}
        self._application: Application | None = None
        self._described: bytes | None = None
        self._describe_at: float | None = None
        self._describing = False

    # --- what goes in ---

    def connect(self, now: float) -> None:
        """Begins: by the session there is, or by a handshake."""
        self._out.clear()
        if self._session is not None:
            self._resume(self._session, now)
        else:
            self._shake_hands(now)
        self._settle(now)

    def receive(self, datagram: bytes, now: float) -> None:
        """Takes a datagram from the cloud."""
        session = self._session
        if self._handshake is not None:
            # A session that was given up too early may answer while a new one is being made.
            late = None if session is None else session.unprotect(datagram)
            if late is not None:
                self._handshake = None
                self.phase = Phase.GREETING
                self._take(late, now)
            else:
                self._handshake.receive(datagram, now)
                self._drain_handshake(now)
        elif session is not None:
            received = session.unprotect(datagram)
            if received is not None:
                self._take(received, now)
            elif session.refused is Refusal.LENGTH:
                self._take_several(session, datagram, now)
        self._settle(now)

    def tick(self, now: float) -> None:
        """Does what is due."""
        if self._handshake is not None:
            self._handshake.tick(now)
            self._drain_handshake(now)
        for over in self._endpoint.tick(now):
            self._unanswered(over.tag, now, acknowledged=over.acknowledged)
        if self._pong_by is not None and self._pong_by <= now:
            self._pong_by = None
            self._no_pong(now)
        if self.phase is Phase.ONLINE:
            if self._ping_due() <= now:
                self._ping(now)
            if self._describe_at is not None and self._describe_at <= now:
                self._describe(now)
        self._settle(now)

    def publish(
        self, tag: Any, name: str, payload: bytes, content_format: int | None, ttl: int, confirm: bool, now: float
    ) -> None:
        """Publishes an event; with `confirm`, `Published` tells what became of it.

        Raises:
            Busy: Too many are under way.
        """
        answered = confirm and not self._deviceos
        token = self._endpoint.next_token() if answered else b""
        event = messages.Publish(name, payload, content_format, ttl, confirm, self._id(), token)
        self._endpoint.send(
            messages.write_publish(event), _Publishing(tag) if confirm else None, now, ANSWER_S if answered else None
        )
        self._settle(now)

    def subscribe(self, wanted: Wanted, now: float) -> None:
        """Asks for events; the cloud remembers, so what it was told in this session is not sent again."""
        self._wanted[wanted] = None
        if wanted in self._told.wanted:
            self._events.append(Subscribed(wanted, None))
        elif self.phase is Phase.ONLINE:
            self._tell_wanted(wanted, now)
        self._settle(now)

    def offer(self, application: Application, now: float) -> None:
        """Which functions and variables there are."""
        self._application = application
        self._described = write_application(application)
        if self._describe_at is None:
            self._describe_at = now + DESCRIBE_AFTER_S

    def ask_time(self, now: float) -> None:
        """Asks for the time: `TimeTold`."""
        message = messages.write_time_request(self._id(), self._endpoint.next_token())
        self._endpoint.send(message, _Purpose.TIME, now, PING_S)
        self._settle(now)

    def answer_function(self, token: bytes, result: int, now: float) -> None:
        """Tells what a function returned, a signed number of 32 bits."""
        self._answer(requests.function_result(result, self._id(), token), now)

    def answer_variable(self, name: str, token: bytes, value: requests.Value | None, now: float) -> None:
        """Tells a variable's value; None: there is no such variable."""
        type_ = None if self._application is None else self._application.variables.get(name)
        if value is None or type_ is None:
            self._answer(requests.no_such_variable(self._id(), token), now)
        else:
            self._answer(requests.variable_value(value, type_, self._id(), token), now)

    def leave(self, now: float) -> None:
        """Says goodbye: `Left`."""
        self._endpoint.send(messages.write_goodbye(Goodbye(cloud=_USER), self._id()), _Purpose.GOODBYE, now)
        self._settle(now)

    def close(self) -> None:
        """Gives unused record numbers back: nothing is sent after this."""
        if self._session is not None:
            self._reserved = self._session.send_limit = self._session.next_sequence
            self._keep(self._stored())

    # --- what comes out ---

    def datagrams(self) -> list[bytes]:
        """What is to be sent now, in order."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When `tick` must be called, if nothing happens before; None: never."""
        due = [self._endpoint.deadline(), self._pong_by]
        if self._handshake is not None:
            due.append(self._handshake.deadline())
        if self.phase is Phase.ONLINE:
            due.append(self._describe_at)
            due.append(self._ping_due())
        known = [at for at in due if at is not None and at != float("inf")]
        return min(known) if known else None

    @property
    def settled(self) -> bool:
        """The cloud is there, was told everything, and nothing is under way."""
        if self.phase is not Phase.ONLINE or self._describe_at is not None:
            return False
        return self._endpoint.deadline() is None

    # --- beginning ---

    def _new_endpoint(self) -> Endpoint:
        timing = DEVICE_OS if self._deviceos else RFC_7252
        return Endpoint(timing, self._dice, OUTSTANDING, forgiving=self._deviceos)

    def _resume(self, session: Session, now: float) -> None:
        self.phase = Phase.GREETING
        # device-protocol.md, section 4.3: so that the cloud looks for the device at its new address.
        session.moving = self._deviceos
        if self._deviceos and self._told.hello != hello_checksum(self.about, self.identity.id):
            self._hello(now)
        elif self._ping_first or self._failures or self._heard:
            self._ping(now)
        else:
            self._online(resumed=True, now=now)

    def _shake_hands(self, now: float) -> None:
        self.phase = Phase.HANDSHAKE
        self._pong_by = None
        profile = "deviceos" if self._deviceos else "rfc"
        self._handshake = ClientHandshake(self.identity.credentials, now, profile, b"")  # type: ignore[arg-type]
        self._drain_handshake(now)

    def _drain_handshake(self, now: float) -> None:
        handshake = self._handshake
        assert handshake is not None
        self._out += handshake.datagrams(now)
        for event in handshake.events():
            match event:
                case Established(session):
                    self._established(session, now)
                case Arrived(received):
                    self._take(received, now)
                case Failed(why, alert, _):
                    self._handshake = None
                    self._down(why, now, refused=alert is not None)
                case Over():
                    self._handshake = None

    def _established(self, session: Session, now: float) -> None:
        self._abandon()
        self.handshakes += 1
        self._session = session
        self._endpoint = self._new_endpoint()
        self._told = Told()
        self._reserved = 0
        session.send_limit = session.next_sequence
        self._heard = now
        self._dirty = True
        self.phase = Phase.GREETING
        if self._deviceos:
            self._hello(now)
        else:
            self._online(resumed=False, now=now)

    def _hello(self, now: float) -> None:
        # device-protocol.md, section 11: what the cloud was told before does not count any more.
        self._told = Told()
        self._send(messages.write_hello(hello_of(self.about, self.identity.id), self._id()), _Purpose.HELLO, now)

    def _greeted(self, now: float) -> None:
        """The cloud has our Hello: it is told the rest."""
        self._told = structs.replace(self._told, hello=hello_checksum(self.about, self.identity.id))
        self._dirty = True
        self._online(resumed=False, now=now)
        system = messages.Describe(Kind.SYSTEM, system_of(self.about), ContentFormat.OCTET_STREAM)
        self._send(messages.write_describe(system, self._id(), self._endpoint.next_token()), _Purpose.SYSTEM, now)
        self.ask_time(now)

    def _online(self, *, resumed: bool, now: float) -> None:
        self.phase = Phase.ONLINE
        self._failures = 0
        self._heard = now
        self._events.append(Connected(resumed))
        for wanted in self._wanted:
            if wanted not in self._told.wanted:
                self._tell_wanted(wanted, now)
        if self._deviceos and self._describe_at is None:
            self._describe_at = now + DESCRIBE_AFTER_S

    # --- what the cloud sends ---

    def _take_several(self, session: Session, datagram: bytes, now: float) -> None:
        for record in split_records(datagram, len(session.state.local_cid)):
            received = session.unprotect(record)
            if received is not None and self._session is session:
                self._take(received, now)

    def _take(self, received: Received, now: float) -> None:
        self._heard = now
        self._pong_by = None
        if received.content_type == ALERT:
            data = received.data
            if len(data) == 2 and (data[0] == AlertLevel.FATAL or data[1] == Alert.CLOSE_NOTIFY):
                self._lost("the cloud ended the session", now, refused=data[1] == Alert.ACCESS_DENIED)
            return
        if received.content_type != APPLICATION_DATA:
            return
        try:
            arrival = self._endpoint.receive(received.data, now)
        except Malformed as problem:
            self._endpoint.refuse(problem)
            return
        if isinstance(arrival, Rejected):
            self._rejected(arrival.tag, now)
        elif isinstance(arrival, Acknowledged):
            self._answered(arrival.tag, None, now)
        elif isinstance(arrival, Answered):
            self._answered(arrival.tag, arrival.message, now)
        elif isinstance(arrival, Request):
            self._asked(arrival, now)
        if self.phase is Phase.GREETING and self._told.hello is not None:
            # Whatever it was: the cloud knows the session.
            self._online(resumed=True, now=now)

    def _answered(self, tag: Any, message: Message | None, now: float) -> None:
        refused = _refusal(message)
        match tag:
            case _Purpose.HELLO:
                # device-protocol.md, 7.1: any code counts as success.
                self._greeted(now)
            case _Purpose.PING:
                if self.phase is Phase.GREETING:
                    self._online(resumed=True, now=now)
            case _Purpose.SYSTEM:
                if refused is None:
                    self._told = structs.replace(self._told, system=checksum(system_of(self.about)))
                    self._dirty = True
            case _Purpose.TIME:
                told = message is not None and message.code == Code.CONTENT and len(message.payload) == 4
                seconds = requests.read_time(message) if told and message is not None else None
                self._events.append(TimeTold(seconds))
            case _Purpose.GOODBYE:
                self._events.append(Left())
            case _Publishing(mine):
                self._events.append(Published(mine, refused))
            case _Describing(value, rest):
                self._describing = False
                if refused is None:
                    self._described_one(value, rest, now)
            case _Subscribing(wanted):
                self._subscribed(wanted, message, refused)

    def _subscribed(self, wanted: Wanted, message: Message | None, refused: Refused | None) -> None:
        if message is not None and not self._deviceos and message.option(Option.LOCATION_PATH) is not None:
            # RFC 7641: what follows the first answer are the events, their names in Location-Path.
            name = "/".join(each.decode("utf-8", "replace") for each in message.all(Option.LOCATION_PATH))
            self._events.append(EventCame(name.partition("/")[2], message.payload, _format(message)))
            self._dirty = True
            return
        if refused is None and wanted not in self._told.wanted:
            self._told = structs.replace(self._told, wanted=(*self._told.wanted, wanted))
            self._dirty = True
        self._events.append(Subscribed(wanted, refused))

    def _rejected(self, tag: Any, now: float) -> None:
        if self._deviceos:
            # device-protocol.md, Q20.
            self._lost("the cloud rejected a message", now)
        elif tag is _Purpose.PING:
            # RFC 7252, section 4.3: that is how a ping is answered.
            self._answered(tag, None, now)
        else:
            self._fail(tag, Refused(Code.BAD_REQUEST))

    def _asked(self, request: Request, now: float) -> None:
        message = request.message
        asked = requests.read_from_cloud(message)
        if isinstance(asked, requests.NotForDevices):
            self._endpoint.reply(request, Code.NOT_FOUND, now=now)
            return
        if isinstance(asked, requests.Signal):
            self._endpoint.reply(request, Code.CHANGED, now=now)
        else:
            self._endpoint.reply(request, now=now)
        match asked:
            case requests.Event(name, payload, content_format):
                self._events.append(EventCame(name, payload, content_format))
                self._dirty = True
            case requests.FunctionCall(name, argument):
                # device-protocol.md, Q16: of a function that there is not, nothing more is said.
                if self._application is not None and name in self._application.functions:
                    called = FunctionCalled(name, argument.decode("utf-8", "replace"), message.token)
                    self._events.append(called)
                    self._dirty = True
            case requests.VariableRequest(name):
                self._events.append(VariableWanted(name, message.token))
            case requests.DescribeRequest(kind, block2):
                self._tell_description(kind, block2, message.token, now)
            case requests.Signal(on):
                self._events.append(Signalled(on))
            case requests.DiscardSession():
                self._lost("the cloud wants a new session", now)
            case _:
                pass

    # --- what the cloud is told ---

    def _tell_wanted(self, wanted: Wanted, now: float) -> None:
        if self._deviceos:
            asked = messages.Subscribe(wanted.prefix, wanted.binary, wanted.structured)
            self._send(messages.write_subscribe(asked, self._id()), _Subscribing(wanted), now)
            return
        options = ((Option.OBSERVE.value, uint(0)), *messages.path("e", wanted.prefix))
        token = self._endpoint.next_token()
        message = Message(Type.CON, Code.GET.value, self._id(), token, options)
        self._endpoint.send(message, _Subscribing(wanted), now, ANSWER_S, keep=True)

    def _describe(self, now: float) -> None:
        """Tells of functions and variables, unless the cloud knows them already."""
        self._describe_at = None
        if self._described is None and self._told.application is not None:
            # A program may resume a session long before it offers anything.
            return
        payload = self._described or write_application(Application())
        value = checksum(payload)
        if not self._deviceos or self._describing or value == self._told.application:
            return
        sending = Sending(payload) if len(payload) > Block(0, False, SZX_1024).size else None
        self._send_description(value, payload, sending, now)

    def _send_description(self, value: int, payload: bytes, sending: Sending | None, now: float) -> None:
        block1 = None
        if sending is not None:
            found = sending.next()
            assert found is not None
            block1, payload = found
        description = messages.Describe(Kind.APPLICATION, payload, None, block1)
        message = messages.write_describe(description, self._id(), self._endpoint.next_token())
        self._describing = True
        self._send(message, _Describing(value, sending), now)

    def _described_one(self, value: int, rest: Sending | None, now: float) -> None:
        if rest is not None and (found := rest.next()) is not None:
            block1, payload = found
            description = messages.Describe(Kind.APPLICATION, payload, None, block1)
            message = messages.write_describe(description, self._id(), self._endpoint.next_token())
            self._describing = True
            self._send(message, _Describing(value, rest), now)
            return
        self._told = structs.replace(self._told, application=value)
        self._dirty = True
        # It may have changed meanwhile.
        if self._described is not None and checksum(self._described) != value:
            self._describe_at = now

    def _tell_description(self, kind: Kind, block2: bytes | None, token: bytes, now: float) -> None:
        if kind is Kind.SYSTEM:
            body = system_of(self.about)
        elif kind is Kind.APPLICATION:
            body = self._described or write_application(Application())
        else:
            body = write_metrics((Metric(UPTIME, int(now - self._started)),))
        wanted = Block(0, False, SZX_1024) if block2 is None else read_block(block2)
        found = None if wanted is None else block_of(body, wanted)
        if found is None:
            return
        option, payload = found
        whole = block2 is None and len(payload) == len(body)
        etag = None if whole else (checksum(body) & 0xFF).to_bytes(1, "big")
        answer = requests.describe_answer(kind, payload, self._id(), token, etag, None if whole else option)
        self._answer(answer, now)

    def _answer(self, message: Message, now: float) -> None:
        self._send(message, _Purpose.ANSWER, now)
        self._settle(now)

    def _send(self, message: Message, tag: Any, now: float) -> None:
        """What Device OS sends as a CON; there is always room for what the link itself needs."""
        try:
            self._endpoint.send(message, tag, now)
        except Busy:
            self._fail(tag, NotAcknowledged("too many messages are under way"))

    # --- silence ---

    def _ping_due(self) -> float:
        if not self._keepalive or self._pong_by is not None:
            return float("inf")
        return max(self._heard, self._pinged or 0.0) + self._keepalive

    def _ping(self, now: float) -> None:
        self._pinged = now
        self._pong_by = now + PING_S
        self._send(Message(Type.CON, Code.EMPTY.value, self._id()), _Purpose.PING, now)

    def _no_pong(self, now: float) -> None:
        if self.phase is Phase.GREETING:
            self._shake_hands(now)
        elif self.phase is Phase.ONLINE:
            self._down("the cloud does not answer", now)

    def _unanswered(self, tag: Any, now: float, *, acknowledged: bool) -> None:
        """A message was given up."""
        self._fail(tag, NotAcknowledged("the cloud did not answer"))
        if acknowledged:
            return
        if tag is _Purpose.HELLO:
            self._drop_session()
            self._down("the cloud does not answer the Hello", now)
        elif self.phase is Phase.ONLINE and now - self._heard > ALIVE_S:
            self._down("the cloud does not answer", now)

    def _fail(self, tag: Any, problem: DeviceError) -> None:
        match tag:
            case _Publishing(mine):
                self._events.append(Published(mine, problem))
            case _Subscribing(wanted):
                self._events.append(Subscribed(wanted, problem))
            case _Describing():
                self._describing = False
            case _Purpose.TIME:
                self._events.append(TimeTold(None))
            case _Purpose.GOODBYE:
                self._events.append(Left())
            case _:
                pass

    # --- ends ---

    def _lost(self, why: str, now: float, *, refused: bool = False) -> None:
        """The session is over; the next one begins with a handshake."""
        self._drop_session()
        self._down(why, now, refused=refused)

    def _drop_session(self) -> None:
        self._session = None
        self._told = Told()
        self._dirty = True
        self._abandon()
        self._endpoint = self._new_endpoint()

    def _abandon(self) -> None:
        for tag in self._endpoint.abandon():
            self._fail(tag, NotAcknowledged("the session ended before the cloud answered"))

    def _down(self, why: str, now: float, *, refused: bool = False) -> None:
        was = self.phase
        self.phase = Phase.OFFLINE
        self._pong_by = None
        self._handshake = None
        wait = 0.0
        if was is not Phase.ONLINE or refused:
            self._failures += 1
            wait = FIRST_WAIT_S * 2.0 ** ((self._failures - 1) // FAILURES_PER_STEP)
            # A fleet that lost its cloud together must not come back in one moment.
            wait = min(LONGEST_WAIT_S, wait) * (1.0 + self._dice())
        self._events.append(Disconnected(why, wait, refused))

    # --- what is kept ---

    def _id(self) -> int:
        """A message id: from the record's number, so that it does not repeat in the next process either."""
        return 0 if self._session is None else self._session.next_sequence & 0xFFFF

    def _settle(self, now: float) -> None:
        """Protects what is to be sent and keeps what must be kept, before either can be seen outside."""
        session = self._session
        outgoing = self._endpoint.outgoing()
        if session is not None and self.phase is not Phase.HANDSHAKE:
            for message in outgoing:
                if session.next_sequence >= session.send_limit:
                    self._reserved = session.send_limit = session.next_sequence + RESERVED
                    self._dirty = True
                self._out.append(session.protect(APPLICATION_DATA, message))
        if self._dirty:
            try:
                self._keep(self._stored())
            except BaseException:
                self._out.clear()
                raise
            self._dirty = False

    def _stored(self) -> StoredSession | None:
        session = self._session
        if session is None:
            return None
        # Numbers beyond the reserved ones come from the handshake alone: its Finished message.
        following = max(self._reserved, session.next_sequence)
        return StoredSession(self.identity.fingerprint, session.state, following, session.top, self._told)


def _refusal(message: Message | None) -> Refused | None:
    if message is None or message.code < Code.BAD_REQUEST:
        return None
    return Refused(message.code, message.uint(Option.MAX_AGE))


def _format(message: Message) -> int | None:
    return message.uint(Option.CONTENT_FORMAT)
