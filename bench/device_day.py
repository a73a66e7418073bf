"""What a day costs a device in Python, in virtual time: readings, keeping in touch, and the first connection.

The device is `wirechamber.device` without its socket; the cloud is made of the same protocol cores as the gateway and
answers as it does (tests/device/test_keepalive.py compares the two on the wire). Between them is a NAT, which lets in
what the cloud sends for some time after the device has sent something, and no longer. Bytes are those of both
directions at the device, headers of IPv4 and UDP (28) included.

python -m bench.device_day prints the table of docs/python-device.md.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.harness import Result, Size
from wirechamber.device.about import About, identity
from wirechamber.device.core import Core, Phase
from wirechamber.device.data import to_payload
from wirechamber.device.events import Disconnected, EventCame, Published
from wirechamber.device.keepalive import bounds_of
from wirechamber.device.keys import new_key
from wirechamber.device.session_file import StoredSession, Wanted
from wirechamber.device.wire import IPV4_UDP
from wirechamber.protocols.coap.exchange import DEVICE_OS, RFC_7252, Endpoint, Request
from wirechamber.protocols.coap.message import Code, Message, Option, Type, uint
from wirechamber.protocols.deviceos.keepalive import KeepAlive
from wirechamber.protocols.deviceos.messages import (
    DEFAULT_TTL,
    Hello,
    Ping,
    Publish,
    Subscribe,
    TimeRequest,
    read_request,
)
from wirechamber.protocols.dtls import (
    APPLICATION_DATA,
    Answer,
    Established,
    Listener,
    NeedsPsk,
    ServerHandshake,
    Session,
)

DAY_S = 86_400.0
ID = "0123456789abcdef01234567"
PSK = bytes(range(1, 33))
NAME = "greenhouse/reading"
DATA = {"celsius": 21.5}
# What the same readings take over one MQTT connection with TLS 1.3 that is kept open, pinging every 20 minutes.
MQTT_BYTES = 49_476
GOAL_BYTES = 28_000


@dataclass
class Bytes:
    """What went over the wire."""

    up: int = 0
    down: int = 0
    # Sent by the cloud, and let in by no NAT.
    void: int = 0
    pings: int = 0

    @property
    def total(self) -> int:
        return self.up + self.down


@dataclass
class Day:
    """A device, its cloud, and a NAT between them.

    Attributes:
        keepalive: As `Device` takes it.
        nat_s: How long the NAT remembers.
        subscribes: The device wants events.
        plain: By a pre-shared key and plain CoAP.
        knows: The cloud knows how devices are kept in touch with; earlier ones do not.
        loss: Share of datagrams that are lost, each way.
        where: The device's own address.
    """

    keepalive: float | tuple[float, float] | None = None
    nat_s: float = math.inf
    subscribes: bool = False
    plain: bool = False
    knows: bool = True
    loss: float = 0.0
    lifetime: float | None = None
    where: str = "192.0.2.7"
    stored: StoredSession | None = None
    now: float = 1_000.0
    used: Bytes = field(default_factory=Bytes)

    def __post_init__(self) -> None:
        self.dice = random.Random(1)
        self.kept = self.stored
        self.core = self._device()
        self.cut = False
        self.listener = Listener(CLOUD_KEY, lambda: b"\0\0cidcid", psk=True)
        self.handshake: ServerHandshake | None = None
        self.session: Session | None = None
        self.endpoint = self._endpoint()
        self.told: KeepAlive | None = None
        self.tells: list[KeepAlive] = []
        self.heard = self.now
        self.pinged = -1.0
        self.subscribed: Message | None = None
        self.events: list[EventCame] = []
        self.published: list[Published] = []
        self.connects_at: float | None = None
        self._sent_up = -math.inf

    # --- what a test or the bench does ---

    def connect(self) -> None:
        """Connects, and tells all there is to tell."""
        if self.subscribes:
            self.subscribe("to-me")
        self.core.connect(self.now, self.where)
        self._carry()
        self.advance(self.now + 1.0)

    def restart(self) -> None:
        """The device's process ends, and the next one begins with what was kept."""
        self.core.close()
        self.core = self._device()
        self.connects_at = None
        self.connect()

    def subscribe(self, prefix: str) -> None:
        """Asks for events."""
        self.core.subscribe(Wanted(prefix), self.now)
        self._carry()

    def publish(self) -> None:
        """A reading."""
        payload, content_format = to_payload(DATA)
        self.core.publish(None, NAME, payload, content_format, DEFAULT_TTL, True, self.now)
        self._carry()

    def reaches(self) -> bool:
        """Whether the NAT lets in what the cloud sends now."""
        return self.now - self._sent_up <= self.nat_s

    def readings(self, until: float, every_s: float) -> None:
        """Publishes a reading every so many seconds."""
        while self.now < until:
            self.publish()
            self.advance(min(until, self.now + every_s))

    def advance(self, until: float) -> None:
        """Lets the time pass."""
        while True:
            due = min(self._device_due(), self._cloud_due())
            if due > until:
                break
            self.now = max(self.now, due)
            if self.connects_at is not None and self.connects_at <= self.now:
                self.connects_at = None
                self.core.connect(self.now, self.where)
            else:
                self.core.tick(self.now)
            self._cloud_tick()
            self._carry()
        self.now = max(self.now, until)

    # --- the device ---

    def _device(self) -> Core:
        key, server_key, psk = (None, None, PSK) if self.plain else (DEVICE_KEY, CLOUD_KEY.public_key(), None)
        who = identity(ID, key, server_key, psk)
        return Core(
            who, About(), self._keep, dice=lambda: 0.5, stored=self.kept, manner=bounds_of(self.keepalive),
            lifetime=self.lifetime, started=self.now,
        )  # fmt: skip

    def _keep(self, stored: StoredSession | None) -> None:
        self.kept = stored

    def _device_due(self) -> float:
        if self.connects_at is not None:
            return self.connects_at
        if self.core.phase is Phase.OFFLINE:
            return math.inf
        due = self.core.deadline()
        return math.inf if due is None else due

    def _carry(self) -> None:
        """Lets the two talk until neither has anything to say."""
        while True:
            for event in self.core.events():
                if isinstance(event, Disconnected):
                    self.connects_at = self.now + event.wait
                elif isinstance(event, EventCame):
                    self.events.append(event)
                elif isinstance(event, Published):
                    self.published.append(event)
            datagrams = self.core.datagrams()
            if not datagrams:
                return
            for datagram in datagrams:
                self.used.up += len(datagram) + IPV4_UDP
                self._sent_up = self.now
                if not self.cut and self.dice.random() >= self.loss:
                    self._cloud_receives(datagram)

    # --- the cloud ---

    def _endpoint(self) -> Endpoint:
        return Endpoint(RFC_7252 if self.plain else DEVICE_OS, lambda: 0.5, forgiving=not self.plain)

    def _down(self, datagram: bytes) -> None:
        size = len(datagram) + IPV4_UDP
        if self.cut or self.now - self._sent_up > self.nat_s or self.dice.random() < self.loss:
            self.used.void += size
            return
        self.used.down += size
        self.core.receive(datagram, self.now)

    def _cloud_due(self) -> float:
        due = self.endpoint.deadline()
        return min(self._ping_due(), math.inf if due is None else due)

    def _ping_due(self) -> float:
        if self.told is None or self.told.ping is None or self.pinged == self.heard:
            return math.inf
        return self.heard + self.told.ping

    def _cloud_tick(self) -> None:
        if self._ping_due() <= self.now:
            self.pinged = self.heard
            self.used.pings += 1
            self.endpoint.send(Message(Type.CON, Code.EMPTY.value, self._id()), None, self.now)
        self.endpoint.tick(self.now)
        self._flush()

    def _id(self) -> int:
        assert self.session is not None
        return self.session.next_sequence & 0xFFFF

    def _flush(self) -> None:
        for message in self.endpoint.outgoing():
            assert self.session is not None
            self._down(self.session.protect(APPLICATION_DATA, message))

    def _cloud_receives(self, datagram: bytes) -> None:
        session = self.session
        received = None if session is None else session.unprotect(datagram)
        if received is not None:
            self.heard = self.now
            arrival = self.endpoint.receive(received.data, self.now)
            if isinstance(arrival, Request):
                self._answer(arrival)
            self._flush()
        elif self.handshake is not None and self.handshake.continues(datagram):
            self.handshake.receive(datagram, self.now)
            self._drain(self.handshake)
        else:
            greeted = self.listener.greet(datagram, b"peer", self.now)
            if isinstance(greeted, Answer):
                self._down(greeted.datagram)
            elif greeted is not None:
                self.handshake = greeted
                self._drain(greeted)

    def _drain(self, handshake: ServerHandshake) -> None:
        while events := handshake.events():
            for event in events:
                if isinstance(event, NeedsPsk):
                    handshake.provide_psk(PSK, self.now)
                elif isinstance(event, Established):
                    self.session = event.session
                    self.endpoint = self._endpoint()
                    self.told = None
        answers = handshake.datagrams(self.now)
        for datagram in answers:
            self._down(datagram)

    def _answer(self, request: Request) -> None:
        told = read_request(request.message)
        code, payload = int(Code.EMPTY), b""
        options: tuple[tuple[int, bytes], ...] = ()
        match told:
            case Ping():
                self.used.pings += 1
                if self.plain:
                    self.endpoint.reject(request, self.now)
                    return
            case Publish() if self.plain:
                code = Code.CHANGED
            case TimeRequest():
                code, payload = Code.CONTENT, bytes(4)
            case Hello():
                self.told = None
            case Subscribe() if self.plain:
                code, options = Code.CONTENT, ((Option.OBSERVE.value, uint(0)),)
            case KeepAlive():
                self.tells.append(told)
                code = Code.CHANGED if self.knows else Code.NOT_FOUND
                self.told = told if self.knows else None
            case _:
                pass
        self.endpoint.reply(request, code, payload, options, self.now, id=self._id())


CLOUD_KEY, DEVICE_KEY = new_key(), new_key()


def a_day(keepalive: float | tuple[float, float] | None = None, **how: object) -> Day:
    """The second day of a device that publishes a reading every 10 minutes: what it takes once is behind it."""
    day = Day(keepalive, **how)  # type: ignore[arg-type]
    day.connect()
    first = day.now + DAY_S
    day.readings(first, 600.0)
    day.used = Bytes()
    day.readings(first + DAY_S, 600.0)
    return day


def silence(**how: object) -> Day:
    """The second day of a device that says nothing by itself."""
    day = Day(**how)  # type: ignore[arg-type]
    day.connect()
    day.advance(day.now + DAY_S)
    day.used = Bytes()
    day.advance(day.now + DAY_S)
    return day


def first_day(**how: object) -> Day:
    """The first day of a device with defaults: the first connection is part of it."""
    day = Day(**how)  # type: ignore[arg-type]
    day.connect()
    day.readings(day.now + DAY_S, 600.0)
    return day


CHOICES: tuple[tuple[str, dict[str, object]], ...] = (
    ("nothing to hear (default): queue mode", {}),
    ("functions or subscriptions (default), the NAT remembers 30 minutes or more", {"subscribes": True}),
    ("the same, 5 minutes", {"subscribes": True, "nat_s": 300.0}),
    ("the same, 2 minutes", {"subscribes": True, "nat_s": 120.0}),
    ("the same, 30 seconds", {"subscribes": True, "nat_s": 30.0}),
    ("keepalive=1380, as Device OS over cellular", {"subscribes": True, "keepalive": 1380.0}),
    ("keepalive=25, as Device OS on Wi-Fi", {"subscribes": True, "keepalive": 25.0}),
)


def run(size: Size) -> Iterator[Result]:
    """As `make bench` shows it. It has one size."""
    counterpart = f"the same readings over one MQTT connection with TLS, kept open: {MQTT_BYTES}"
    goal = f"<= {GOAL_BYTES / MQTT_BYTES:.2f}"
    days = (("", a_day()), (", the first one, with its first connection", first_day()))
    for name, used in ((name, day.used.total) for name, day in days):
        yield Result(
            f"a day of a device in Python, a reading every 10 minutes{name}", used, "bytes", counterpart,
            used / MQTT_BYTES, goal,
        )  # fmt: skip


def main() -> int:
    """Prints the table."""
    print(f"a reading every 10 minutes, {NAME} {DATA}, bytes of both directions in a day")
    for name, how in CHOICES:
        day = a_day(**how)  # type: ignore[arg-type]
        print(f"{day.used.total:9,}  {day.used.pings:5} pings  {name}")
    print(f"{first_day().used.total:9,}               the first day with defaults, first connection included")
    print("the same devices, that say nothing")
    for name, how in CHOICES:
        day = silence(**how)
        print(f"{day.used.total:9,}  {day.used.pings:5} pings  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
