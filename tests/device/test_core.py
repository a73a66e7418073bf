"""The core with time that is driven by hand, against a cloud made of the DTLS core in the server's role."""

from __future__ import annotations

from collections.abc import Callable

from wirechamber.device.about import About, identity
from wirechamber.device.core import Core, Phase
from wirechamber.device.events import Connected, Disconnected, Event, Published
from wirechamber.device.keys import new_key
from wirechamber.device.session_file import StoredSession
from wirechamber.protocols.coap.exchange import DEVICE_OS, Endpoint, Request
from wirechamber.protocols.coap.message import Code, reset
from wirechamber.protocols.dtls import (
    ALERT,
    APPLICATION_DATA,
    MOVED,
    Alert,
    AlertLevel,
    Answer,
    Established,
    Listener,
    ServerHandshake,
    Session,
)

ID = "0123456789abcdef01234567"
CLOUD_KEY, DEVICE_KEY = new_key(), new_key()


class World:
    """One device, one cloud, and a wire between them that can be cut."""

    def __init__(self, *, keepalive: float = 25.0) -> None:
        self.now = 100.0
        self.kept: list[StoredSession | None] = []
        self.events: list[Event] = []
        self.sent: list[bytes] = []
        self.cut = False
        self.deaf_to_sessions = False
        self.listener = Listener(CLOUD_KEY, lambda: b"\0\0cidcid", psk=False)
        self.handshake: ServerHandshake | None = None
        self.session: Session | None = None
        self.endpoint = self._endpoint()
        self.requests: list[Request] = []
        self.keepalive = keepalive
        self.core = self.device()

    @staticmethod
    def _endpoint() -> Endpoint:
        return Endpoint(DEVICE_OS, lambda: 0.0, forgiving=True)

    def device(self, stored: StoredSession | None = None) -> Core:
        who = identity(ID, DEVICE_KEY, CLOUD_KEY.public_key(), None)
        return Core(
            who, About(), self.kept.append, dice=lambda: 0.0, stored=stored, manner=self.keepalive,
            started=self.now,
        )  # fmt: skip

    def do(self, work: Callable[[float], None]) -> None:
        work(self.now)
        self.carry()

    def carry(self) -> None:
        """Lets the two talk until neither has anything to say."""
        while True:
            self.events += self.core.events()
            datagrams = self.core.datagrams()
            if not datagrams:
                return
            self.sent += datagrams
            for datagram in datagrams:
                if not self.cut:
                    self._cloud_receives(datagram)

    def until(self, done: Callable[[], bool], patience: float = 1000.0) -> float:
        """Lets the time go on until it is so; returns how long that took. Reconnects as the shell does."""
        began = self.now
        while not done():
            waits = [event for event in self.events if isinstance(event, Disconnected)]
            due = self.core.deadline()
            if self.core.phase is Phase.OFFLINE:
                self.now += waits[-1].wait
                self.do(self.core.connect)
            else:
                assert due is not None
                self.now = max(self.now, due)
                self.do(self.core.tick)
            assert self.now - began < patience
        return self.now - began

    def cloud_sends(self, content_type: int, data: bytes) -> None:
        assert self.session is not None
        record = self.session.protect(content_type, data)
        self.do(lambda now: self.core.receive(record, now))

    def _cloud_receives(self, datagram: bytes) -> None:
        session = self.session
        received = None if session is None or self.deaf_to_sessions else session.unprotect(datagram)
        if received is not None:
            arrival = self.endpoint.receive(received.data, self.now)
            if isinstance(arrival, Request):
                self.requests.append(arrival)
                self.endpoint.reply(arrival, now=self.now)
            for message in self.endpoint.outgoing():
                assert session is not None
                self.core.receive(session.protect(APPLICATION_DATA, message), self.now)
        elif self.handshake is not None and self.handshake.continues(datagram):
            self.handshake.receive(datagram, self.now)
            self._drain(self.handshake)
        else:
            greeted = self.listener.greet(datagram, b"peer", self.now)
            if isinstance(greeted, Answer):
                self.core.receive(greeted.datagram, self.now)
            elif greeted is not None:
                self.handshake = greeted
                self._drain(greeted)

    def _drain(self, handshake: ServerHandshake) -> None:
        answers = handshake.datagrams(self.now)
        for event in handshake.events():
            if isinstance(event, Established):
                self.session, self.endpoint, self.deaf_to_sessions = event.session, self._endpoint(), False
        for answer in answers:
            self.core.receive(answer, self.now)

    @property
    def online(self) -> bool:
        return self.core.phase is Phase.ONLINE


def connected() -> World:
    world = World()
    world.do(world.core.connect)
    world.until(lambda: world.core.settled)
    world.events.clear()
    world.sent.clear()
    return world


def test_what_is_sent_was_reserved_before() -> None:
    world = connected()
    for _ in range(200):
        world.do(lambda now: world.core.publish("x", "n", b"", None, 60, True, now))
        stored, session = world.kept[-1], world.core._records.session
        assert stored is not None
        assert session is not None
        assert stored.next_sequence >= session.next_sequence
    # A write for every 64 records.
    assert len(world.kept) < 20


def test_a_silent_device_pings_and_one_that_hears_something_does_not() -> None:
    world = connected()
    world.until(lambda: bool(world.sent))
    world.sent.clear()
    assert world.until(lambda: bool(world.sent)) == 25.0
    assert world.requests[-1].message.code == Code.EMPTY
    world.now += 20
    world.do(lambda now: world.core.publish("x", "n", b"", None, 60, True, now))
    world.sent.clear()
    assert world.until(lambda: bool(world.sent)) == 25.0


def test_a_cloud_that_was_away_is_found_again_by_the_session() -> None:
    world = connected()
    world.cut = True
    world.until(lambda: any(isinstance(event, Disconnected) for event in world.events))
    # By its session, by a handshake, and so on: neither is answered.
    world.until(lambda: sum(isinstance(event, Disconnected) for event in world.events) > 3)
    assert world.core.handshakes == 1
    world.cut = False
    world.until(lambda: world.online)
    assert world.core.handshakes == 1
    assert world.events[-1] == Connected(resumed=True)


def test_a_cloud_that_lost_the_session_gets_a_new_one_within_two_minutes() -> None:
    world = connected()
    world.deaf_to_sessions = True
    taken = world.until(lambda: world.core.handshakes == 2 and world.online)
    # A ping after 25 s, 30 s for its answer, 30 s for that of the resumed session.
    assert taken < 120


def test_the_waits_grow_to_two_minutes_and_no_further() -> None:
    world = World()
    world.cut = True
    world.do(world.core.connect)
    world.until(lambda: len(world.events) >= 50, 10_000)
    waits = [event.wait for event in world.events if isinstance(event, Disconnected)]
    assert waits[:11] == [1.0] * 5 + [2.0] * 5 + [4.0]
    assert waits[-1] == 128.0


def test_the_cloud_may_end_the_session_in_each_way_that_it_has() -> None:
    ends: list[Callable[[World], None]] = [
        lambda world: world.cloud_sends(ALERT, bytes((AlertLevel.WARNING, Alert.CLOSE_NOTIFY))),
        lambda world: world.cloud_sends(ALERT, bytes((AlertLevel.FATAL, Alert.INTERNAL_ERROR))),
        lambda world: world.cloud_sends(APPLICATION_DATA, bytes.fromhex("40039c01b16b4101")),
    ]
    for end in ends:
        world = connected()
        end(world)
        assert world.kept[-1] is None
        assert world.until(lambda world=world: world.online) == 0.0  # type: ignore[misc]
        assert world.core.handshakes == 2


def test_a_rejected_message_ends_the_session_and_its_publish_is_told() -> None:
    world = connected()
    world.cut = True
    world.do(lambda now: world.core.publish("mine", "n", b"", None, 60, True, now))
    world.cut = False
    id_ = (world.core._endpoint._last_id) & 0xFFFF
    world.cloud_sends(APPLICATION_DATA, reset(id_))
    world.until(lambda: world.online)
    assert world.core.handshakes == 2


def test_the_next_process_goes_on_with_a_moved_record_and_refuses_what_was_heard_before() -> None:
    world = connected()
    assert world.session is not None
    old = world.session.protect(APPLICATION_DATA, bytes.fromhex("4002fb03b1650a64656d6f2f636d642f78ff6869"))
    world.do(lambda now: world.core.receive(old, now))
    world.events.clear()
    stored = world.kept[-1]
    assert stored is not None
    world.core = world.device(stored)
    world.sent.clear()
    world.do(world.core.connect)
    assert world.online
    assert world.sent[0][0] == MOVED
    assert world.core.handshakes == 0
    world.events.clear()
    world.do(lambda now: world.core.receive(old, now))
    assert world.events == []


def test_a_lost_event_is_repeated_and_given_up_as_device_os_does() -> None:
    world = connected()
    world.cut = True
    began = world.now
    world.do(lambda now: world.core.publish("mine", "n", b"", None, 60, True, now))
    world.until(lambda: any(isinstance(event, Published) for event in world.events))
    told = next(event for event in world.events if isinstance(event, Published))
    assert told.tag == "mine"
    assert told.problem is not None
    assert world.now - began == 60.0
