"""The core of a device that speaks plain CoAP, with time that is driven by hand and a cloud whose words are chosen."""

from __future__ import annotations

from msgspec import structs

from wirechamber.device.about import About, identity
from wirechamber.device.core import Core, Phase
from wirechamber.device.events import Connected, Event, EventCame, Subscribed
from wirechamber.device.session_file import StoredSession, Told, Wanted
from wirechamber.protocols.coap.message import Code, Message, Option, Type, read_message, reset, uint, write_message
from wirechamber.protocols.dtls import APPLICATION_DATA, Session, SessionState

ID = "0123456789abcdef01234567"
WHO = identity(ID, None, None, b"sixteen bytes ok")
PSK_CCM_8 = 0xC0A8
DEVICE = SessionState(
    "rfc", "client", PSK_CCM_8, "rfc9146", b"", b"cloud", b"d" * 16, b"c" * 16, b"dddd", b"cccc", ID.encode()
)
CLOUD = structs.replace(
    DEVICE, role="server", local_cid=b"cloud", remote_cid=b"", read_key=b"c" * 16, write_key=b"d" * 16,
    read_iv=b"cccc", write_iv=b"dddd",
)  # fmt: skip
ALARMS = Wanted("alarm/")


class Wire:
    """A device whose session is there already, and the cloud's end of it. Processes follow each other."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stored: StoredSession | None = StoredSession(WHO.fingerprint, DEVICE, 1, 0, Told())
        self.cloud = Session(CLOUD, 1, 1000)
        self._id = 1000
        self.start()

    def start(self) -> None:
        """A process begins."""
        self.core = Core(
            WHO, About(), self._keep, dice=lambda: 0.0, stored=self.stored, manner=25.0, lifetime=None,
            started=self.now,
        )  # fmt: skip
        self.core.connect(self.now)

    def _keep(self, stored: StoredSession | None) -> None:
        self.stored = stored

    def said(self) -> list[Message]:
        """What the device has said since the last call."""
        records = [self.cloud.unprotect(datagram) for datagram in self.core.datagrams()]
        return [read_message(record.data) for record in records if record is not None]

    def tell(self, data: bytes) -> list[Event]:
        """The cloud says something; returns what happens."""
        self.core.receive(self.cloud.protect(APPLICATION_DATA, data), self.now)
        return self.core.events()

    def notify(self, token: bytes, name: str, data: bytes = b"x") -> list[Event]:
        """The cloud sends an event."""
        self._id += 1
        options = [(Option.OBSERVE.value, uint(self._id))]
        options += [(Option.LOCATION_PATH.value, part.encode()) for part in ("e", *name.split("/"))]
        return self.tell(write_message(Message(Type.CON, Code.CONTENT, self._id, token, tuple(options), data)))

    def online(self) -> None:
        """The device's ping is answered."""
        (ping,) = self.said()
        assert Connected(resumed=True) in self.tell(reset(ping.id))

    def subscribe(self) -> Message:
        """Returns what the device asks for."""
        self.core.subscribe(ALARMS, self.now)
        (asked,) = [message for message in self.said() if message.code == Code.GET]
        return asked


def taken(asked: Message) -> bytes:
    return write_message(Message(Type.ACK, Code.CONTENT, asked.id, asked.token, ((Option.OBSERVE.value, b""),)))


def test_an_event_that_comes_before_the_answer_says_that_the_cloud_has_the_subscription() -> None:
    wire = Wire()
    wire.online()
    asked = wire.subscribe()
    happened = wire.notify(asked.token, "alarm/1")
    assert happened == [Subscribed(ALARMS, None), EventCame("alarm/1", b"x", None)]
    assert wire.tell(taken(asked)) == []
    assert wire.notify(asked.token, "alarm/2") == [EventCame("alarm/2", b"x", None)]


def test_the_next_process_goes_on_with_what_was_subscribed_to() -> None:
    wire = Wire()
    wire.online()
    asked = wire.subscribe()
    assert wire.tell(taken(asked)) == [Subscribed(ALARMS, None)]
    wire.start()
    # What waited for the device comes before its answer to the ping, and is not rejected.
    happened = wire.notify(asked.token, "alarm/1")
    assert happened == [EventCame("alarm/1", b"x", None), Connected(resumed=True)]
    assert [message.type for message in wire.said()] == [Type.CON, Type.ACK]
    wire.core.subscribe(ALARMS, wire.now)
    assert wire.core.events() == [Subscribed(ALARMS, None)]
    assert not [message for message in wire.said() if message.code == Code.GET]
    assert wire.notify(asked.token, "alarm/2") == [EventCame("alarm/2", b"x", None)]


def test_what_answers_the_last_process_does_not_answer_this_one() -> None:
    wire = Wire()
    wire.online()
    asked = wire.subscribe()
    # It ends before it hears that the cloud has taken this.
    wire.start()
    wire.online()
    again = wire.subscribe()
    assert again.token != asked.token
    assert wire.notify(asked.token, "alarm/1") == []
    assert [message.type for message in wire.said()] == [Type.RST]
    assert wire.tell(taken(again)) == [Subscribed(ALARMS, None)]

    wire.core.publish("mine", "n", b"", None, 60, True, wire.now)
    (published,) = wire.said()
    wire.start()
    wire.online()
    wire.core.publish("next", "n", b"", None, 60, True, wire.now)
    late = Message(Type.CON, Code.CHANGED, 77, published.token)
    assert wire.tell(write_message(late)) == []


def test_a_refused_subscription_holds_no_token_and_is_asked_for_again() -> None:
    wire = Wire()
    wire.online()
    asked = wire.subscribe()
    (told,) = wire.tell(write_message(Message(Type.ACK, Code.FORBIDDEN, asked.id, asked.token)))
    assert isinstance(told, Subscribed)
    assert told.problem is not None
    assert wire.notify(asked.token, "alarm/1") == []
    assert wire.tell(taken(wire.subscribe())) == [Subscribed(ALARMS, None)]


def test_whatever_comes_says_that_the_cloud_knows_the_session() -> None:
    wire = Wire()
    wire.notify(b"old", "alarm/1")
    assert wire.core.phase is Phase.ONLINE
    # And if nothing ever comes again, it is noticed.
    wire.core.publish("x", "n", b"", None, 60, True, wire.now)
    while wire.core.phase is Phase.ONLINE:
        due = wire.core.deadline()
        assert due is not None
        wire.now = due
        wire.core.tick(wire.now)
        assert wire.now < 400


def test_a_session_without_tokens_subscribes_again() -> None:
    """As versions before this one stored it."""
    wire = Wire()
    assert wire.stored is not None
    wire.stored = structs.replace(wire.stored, told=Told(wanted=(ALARMS,)))
    wire.start()
    (first, *_) = wire.said()
    wire.tell(reset(first.id))
    assert wire.subscribe().code == Code.GET
