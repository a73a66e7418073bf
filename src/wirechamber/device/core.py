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

from msgspec import structs

from wirechamber.device.about import About, Identity
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
from wirechamber.device.keepalive import Bounds, Contact, Learned
from wirechamber.device.records import Records
from wirechamber.device.session_file import StoredSession, Told, Wanted
from wirechamber.device.tags import Describing, KeepingAlive, Out, Publishing, Purpose, Subscribing
from wirechamber.device.telling import ANSWER_S, Telling
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
from wirechamber.protocols.coap.message import NO_RESPONSE_AT_ALL, Code, Malformed, Message, Option, Type
from wirechamber.protocols.deviceos import messages, requests
from wirechamber.protocols.deviceos.describe import Application
from wirechamber.protocols.deviceos.keepalive import KeepAlive, write_keep_alive
from wirechamber.protocols.deviceos.messages import Goodbye
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

# device-protocol.md, section 12: an unanswered ping tells that the cloud is gone.
PING_S = 30.0
# device-protocol.md, section 3.4: how long a device waits before it tries again.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 128.0
FAILURES_PER_STEP = 5
# CONs that may be without acknowledgement at a time; Device OS has no limit (device-protocol.md, Q28).
OUTSTANDING = 64
# A message got no answer, but others did so recently: the link is alive.
ALIVE_S = 20.0
_USER = 2


class Phase(Enum):
    """Where the link stands."""

    OFFLINE = "offline"
    HANDSHAKE = "handshake"
    GREETING = "greeting"
    ONLINE = "online"


class Core:
    """One device.

    Args:
        keep: Puts the session on the disk, or removes it (None). What it raises comes out of the call that needed it,
            and nothing is sent.
        stored: The session that there was, if it is of this identity.
        dice: Random numbers from 0 to 1.
        manner: How it keeps in touch: bounds to learn between, or seconds of silence after which it pings; 0: never.
        lifetime: As `Contact` takes it.
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
        manner: Bounds | float,
        lifetime: float | None = None,
        ping_first: bool = True,
        started: float = 0.0,
    ) -> None:
        self.identity = identity
        self.phase = Phase.OFFLINE
        self.handshakes = 0
        self._keep = keep
        self._dice = dice
        self._ping_first = ping_first
        self._deviceos = not isinstance(identity.credentials, PreSharedKey)
        if stored is not None and stored.fingerprint != identity.fingerprint:
            stored = None
        self._records = Records(stored)
        self._endpoint = self._new_endpoint()
        told, learned = (Told(), None) if stored is None else (stored.told, stored.learned)
        self._telling = Telling(about, identity.id, told, deviceos=self._deviceos, started=started)
        self._contact = Contact(manner, lifetime, learned, told.keep_alive)
        # What was kept last of these two.
        self._kept: tuple[Told, Learned] = (self._told(), self._contact.learned)
        self._telling_contact = False
        for wanted, token in self._telling.observed:
            self._endpoint.expect(token, Subscribing(wanted))
        self._handshake: ClientHandshake | None = None
        self._out: list[bytes] = []
        self._events: list[Event] = []
        self._heard = 0.0
        self._pong_by: float | None = None
        self._failures = 0

    # --- what goes in ---

    def connect(self, now: float, where: str = "") -> None:
        """Begins: by the session there is, or by a handshake.

        Args:
            where: The device's own address.
        """
        self._out.clear()
        self._contact.begin(where, now)
        if self._records.session is not None:
            self._resume(self._records.session, now)
        else:
            self._shake_hands(now)
        self._settle(now)

    def receive(self, datagram: bytes, now: float) -> None:
        """Takes a datagram from the cloud."""
        session = self._records.session
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
            if self._contact_due() <= now:
                self._keep_in_touch(now)
            if self._telling.due is not None and self._telling.due <= now:
                self._emit(self._telling.describe(), now)
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
        # Device OS's way has no answer to an event that is not to be confirmed; plain CoAP must be told (RFC 7967).
        unwanted = 0 if confirm or self._deviceos else NO_RESPONSE_AT_ALL
        event = messages.Publish(
            name, payload, content_format, ttl, confirm, self._records.message_id, token, no_response=unwanted
        )
        self._endpoint.send(
            messages.write_publish(event), Publishing(tag) if confirm else None, now, ANSWER_S if answered else None
        )
        self._settle(now)

    def subscribe(self, wanted: Wanted, now: float) -> None:
        """Asks for events; the cloud remembers, so what it was told in this session is not sent again."""
        self._telling.wanted[wanted] = None
        if wanted in self._telling.told.wanted:
            self._events.append(Subscribed(wanted, None))
        elif self.phase is Phase.ONLINE:
            self._emit(self._telling.subscribe(wanted), now)
        self.listen(now)

    def offer(self, application: Application, now: float) -> None:
        """Which functions and variables there are."""
        self._telling.offer(application, now)
        if self._telling.listens:
            self.listen(now)

    def listen(self, now: float) -> None:
        """The cloud may want something of the device from now on."""
        self._contact.listens = True
        self._tell_contact(now)
        self._settle(now)

    def ask_time(self, now: float) -> None:
        """Asks for the time: `TimeTold`."""
        message = messages.write_time_request(self._records.message_id, self._endpoint.next_token())
        self._endpoint.send(message, Purpose.TIME, now, PING_S)
        self._settle(now)

    def answer_function(self, token: bytes, result: int, now: float) -> None:
        """Tells what a function returned, a signed number of 32 bits."""
        self._answer(requests.function_result(result, self._records.message_id, token), now)

    def answer_variable(self, name: str, token: bytes, value: requests.Value | None, now: float) -> None:
        """Tells a variable's value; None: there is no such variable."""
        application = self._telling.application
        type_ = None if application is None else application.variables.get(name)
        if value is None or type_ is None:
            self._answer(requests.no_such_variable(self._records.message_id, token), now)
        else:
            self._answer(requests.variable_value(value, type_, self._records.message_id, token), now)

    def leave(self, now: float) -> None:
        """Says goodbye: `Left`."""
        self._endpoint.send(
            messages.write_goodbye(Goodbye(cloud=_USER), self._records.message_id), Purpose.GOODBYE, now
        )
        self._settle(now)

    def close(self) -> None:
        """Gives unused record numbers back: nothing is sent after this."""
        if self._records.session is not None:
            self._records.give_back()
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
            due.append(self._telling.due)
            due.append(self._contact_due())
        known = [at for at in due if at is not None and at != float("inf")]
        return min(known) if known else None

    @property
    def settled(self) -> bool:
        """The cloud is there, was told everything, and nothing is under way."""
        if self.phase is not Phase.ONLINE or self._telling.due is not None:
            return False
        return self._endpoint.deadline() is None

    # --- beginning ---

    def _new_endpoint(self) -> Endpoint:
        timing = DEVICE_OS if self._deviceos else RFC_7252
        # What answers the last process is not taken for an answer to this one.
        first = self._records.message_id
        return Endpoint(timing, self._dice, OUTSTANDING, forgiving=self._deviceos, first_token=first)

    def _resume(self, session: Session, now: float) -> None:
        self.phase = Phase.GREETING
        # device-protocol.md, section 4.3: so that the cloud looks for the device at its new address.
        session.moving = self._deviceos
        if self._deviceos and not self._telling.greeted:
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
        self._records.adopt(session)
        self._endpoint = self._new_endpoint()
        self._telling.begin_anew()
        self._contact.forgotten()
        self._heard = now
        self.phase = Phase.GREETING
        if self._deviceos:
            self._hello(now)
        else:
            self._online(resumed=False, now=now)

    def _hello(self, now: float) -> None:
        self._contact.forgotten()
        self._emit(self._telling.hello(), now)

    def _greeted(self, now: float) -> None:
        """The cloud has our Hello: it is told the rest."""
        system = self._telling.hello_taken()
        self._online(resumed=False, now=now)
        self._emit(system, now)
        self.ask_time(now)

    def _online(self, *, resumed: bool, now: float) -> None:
        self.phase = Phase.ONLINE
        self._failures = 0
        self._heard = now
        self._events.append(Connected(resumed))
        for out in self._telling.subscriptions():
            self._emit(out, now)
        self._telling.connected(now)
        self._tell_contact(now)

    # --- what the cloud sends ---

    def _take_several(self, session: Session, datagram: bytes, now: float) -> None:
        for record in split_records(datagram, len(session.state.local_cid)):
            received = session.unprotect(record)
            if received is not None and self._records.session is session:
                self._take(received, now)

    def _take(self, received: Received, now: float) -> None:
        self._heard = now
        self._contact.heard(now)
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
        if self.phase is Phase.GREETING and (self._telling.told.hello is not None or not self._deviceos):
            # Whatever it was: the cloud knows the session, and needs no Hello.
            self._online(resumed=True, now=now)
        if self.phase is Phase.ONLINE:
            self._tell_contact(now)

    def _answered(self, tag: Any, message: Message | None, now: float) -> None:
        refused = _refusal(message)
        match tag:
            case Purpose.HELLO:
                # device-protocol.md, 7.1: any code counts as success.
                self._greeted(now)
            case Purpose.PING:
                if self.phase is Phase.GREETING:
                    self._online(resumed=True, now=now)
            case Purpose.SYSTEM:
                if refused is None:
                    self._telling.system_taken()
            case Purpose.TIME:
                told = message is not None and message.code == Code.CONTENT and len(message.payload) == 4
                seconds = requests.read_time(message) if told and message is not None else None
                self._events.append(TimeTold(seconds))
            case Purpose.GOODBYE:
                self._events.append(Left())
            case Publishing(mine):
                self._events.append(Published(mine, refused))
            case Describing():
                self._emit(self._telling.described(tag, refused, now), now)
            case KeepingAlive(told):
                self._telling_contact = False
                self._contact.answered(told, taken=refused is None)
            case Subscribing(wanted):
                self._subscribed(wanted, message, refused, now)

    def _subscribed(self, wanted: Wanted, message: Message | None, refused: Refused | None, now: float) -> None:
        token = b"" if message is None else message.token
        if refused is not None:
            self._endpoint.release(token, now)
            self._events.append(Subscribed(wanted, refused))
            return
        event = message is not None and not self._deviceos and message.option(Option.LOCATION_PATH) is not None
        # An event may overtake the answer that says so (RFC 7641, section 4.5: whatever comes is of an observation).
        if self._telling.subscribed(wanted, token) or not event:
            self._events.append(Subscribed(wanted, None))
        if message is not None and event:
            # Events are told by name in Location-Path.
            name = "/".join(each.decode("utf-8", "replace") for each in message.all(Option.LOCATION_PATH))
            self._events.append(EventCame(name.partition("/")[2], message.payload, _format(message)))
            self._records.unkept = True

    def _rejected(self, tag: Any, now: float) -> None:
        if self._deviceos:
            # device-protocol.md, Q20.
            self._lost("the cloud rejected a message", now)
        elif tag is Purpose.PING:
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
                self._records.unkept = True
            case requests.FunctionCall(name, argument):
                # device-protocol.md, Q16: of a function that there is not, nothing more is said.
                application = self._telling.application
                if application is not None and name in application.functions:
                    called = FunctionCalled(name, argument.decode("utf-8", "replace"), message.token)
                    self._events.append(called)
                    self._records.unkept = True
            case requests.VariableRequest(name):
                self._events.append(VariableWanted(name, message.token))
            case requests.DescribeRequest(kind, block2):
                description = self._telling.description(kind, block2, message.token, now)
                if description is not None:
                    self._answer(description, now)
            case requests.Signal(on):
                self._events.append(Signalled(on))
            case requests.DiscardSession():
                self._lost("the cloud wants a new session", now)
            case _:
                pass

    # --- what the cloud is told ---

    def _answer(self, message: Message, now: float) -> None:
        self._emit(Out(message, Purpose.ANSWER), now)
        self._settle(now)

    def _emit(self, out: Out | None, now: float) -> None:
        """Sends what Device OS sends as a CON; there is always room for what the link itself needs."""
        if out is None:
            return
        token = self._endpoint.next_token() if out.token else out.message.token
        message = structs.replace(out.message, id=self._records.message_id, token=token)
        try:
            self._endpoint.send(message, out.tag, now, out.within, keep=out.keep)
        except Busy:
            self._fail(out.tag, NotAcknowledged("too many messages are under way"))

    # --- silence ---

    def _contact_due(self) -> float:
        if self._pong_by is not None or self._telling_contact:
            return float("inf")
        return self._contact.due()

    def _keep_in_touch(self, now: float) -> None:
        told = self._contact.act(now)
        if told is None:
            self._ping(now)
        else:
            self._tell(told, now)

    def _tell_contact(self, now: float) -> None:
        """Tells the cloud what it must know at once of how it keeps in touch with the device."""
        told = self._contact.tells
        if told is not None and self.phase is Phase.ONLINE and not self._telling_contact:
            self._tell(told, now)

    def _tell(self, told: KeepAlive, now: float) -> None:
        self._telling_contact = True
        self._emit(Out(write_keep_alive(told, 0), KeepingAlive(told)), now)

    def _ping(self, now: float) -> None:
        self._pong_by = now + PING_S
        self._emit(Out(Message(Type.CON, Code.EMPTY.value, 0), Purpose.PING), now)

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
        if tag is Purpose.HELLO:
            self._drop_session()
            self._down("the cloud does not answer the Hello", now)
        elif self.phase is Phase.ONLINE and now - self._heard > ALIVE_S:
            self._down("the cloud does not answer", now)

    def _fail(self, tag: Any, problem: DeviceError) -> None:
        match tag:
            case Publishing(mine):
                self._events.append(Published(mine, problem))
            case Subscribing(wanted):
                self._events.append(Subscribed(wanted, problem))
            case Describing():
                self._telling.not_described()
            case KeepingAlive(told):
                self._telling_contact = False
                if isinstance(problem, Refused):
                    self._contact.answered(told, taken=False)
            case Purpose.TIME:
                self._events.append(TimeTold(None))
            case Purpose.GOODBYE:
                self._events.append(Left())
            case _:
                pass

    # --- ends ---

    def _lost(self, why: str, now: float, *, refused: bool = False) -> None:
        """The session is over; the next one begins with a handshake."""
        self._drop_session()
        self._down(why, now, refused=refused)

    def _drop_session(self) -> None:
        self._records.drop()
        self._telling.begin_anew()
        self._contact.forgotten()
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

    def _settle(self, now: float) -> None:
        """Protects what is to be sent and keeps what must be kept, before either can be seen outside."""
        session = self._records.session
        outgoing = self._endpoint.outgoing()
        if session is not None and self.phase is not Phase.HANDSHAKE:
            for message in outgoing:
                self._out.append(self._records.protect(message))
            if outgoing:
                self._contact.spoke(now)
        told, learned = self._told(), self._contact.learned
        if self._records.unkept or told != self._kept[0] or learned.differs(self._kept[1]):
            try:
                self._keep(self._stored())
            except BaseException:
                self._out.clear()
                raise
            self._records.unkept = False
            self._kept = told, learned

    def _told(self) -> Told:
        told, keep_alive = self._telling.told, self._contact.told
        return told if told.keep_alive == keep_alive else structs.replace(told, keep_alive=keep_alive)

    def _stored(self) -> StoredSession | None:
        session = self._records.session
        if session is None:
            return None
        return StoredSession(
            self.identity.fingerprint, session.state, self._records.following, session.top, self._told(),
            self._contact.learned,
        )  # fmt: skip


def _refusal(message: Message | None) -> Refused | None:
    if message is None or message.code < Code.BAD_REQUEST:
        return None
    return Refused(message.code, message.uint(Option.MAX_AGE))


def _format(message: Message) -> int | None:
    return message.uint(Option.CONTENT_FORMAT)
