"""Both sides of a handshake and a wire between them, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from wirechamber.protocols.dtls import (
    HANDSHAKE,
    Answer,
    Arrived,
    ClientHandshake,
    Established,
    Failed,
    Listener,
    NeedsPsk,
    Over,
    PreSharedKey,
    PublicKeys,
    Received,
    ServerHandshake,
    Session,
)

SERVER_KEY = ec.generate_private_key(ec.SECP256R1())
DEVICE_KEY = ec.generate_private_key(ec.SECP256R1())
KEYS = PublicKeys(DEVICE_KEY, SERVER_KEY.public_key())
PSK = PreSharedKey(b"a-device", b"sixteen bytes ok")
PEER = b"192.0.2.1 5684"
LATENCY_S = 0.05

# Every way to shake hands: what a client is made with.
WAYS: dict[str, Callable[..., ClientHandshake]] = {
    "deviceos": lambda **more: ClientHandshake(KEYS, 0.0, **more),
    "deviceos-3.0": lambda **more: ClientHandshake(KEYS, 0.0, "deviceos-3.0", **more),
    "keys": lambda **more: ClientHandshake(KEYS, 0.0, "rfc", **more),
    "keys-empty-cid": lambda **more: ClientHandshake(KEYS, 0.0, "rfc", b"", **more),
    "keys-cid": lambda **more: ClientHandshake(KEYS, 0.0, "rfc", b"mine", **more),
    "psk": lambda **more: ClientHandshake(PSK, 0.0, "rfc", suites=[0xC0A8], **more),
    "psk-cid": lambda **more: ClientHandshake(PSK, 0.0, "rfc", b"mine", suites=[0xC0A8], **more),
    "ecdhe-psk": lambda **more: ClientHandshake(PSK, 0.0, "rfc", suites=[0xCCAC], **more),
    "ecdhe-psk-empty-cid": lambda **more: ClientHandshake(PSK, 0.0, "rfc", b"", suites=[0xCCAC], **more),
    "ecdhe-psk-cid": lambda **more: ClientHandshake(PSK, 0.0, "rfc", b"mine", suites=[0xCCAC], **more),
}


def a_listener(*, psk: bool = True, mtu: int = 1200, key: ec.EllipticCurvePrivateKey = SERVER_KEY) -> Listener:
    """A server whose connection ids are numbered."""
    cids = itertools.count(1)
    return Listener(key, lambda: next(cids).to_bytes(8, "big"), psk, mtu=mtu)


@dataclass
class Wire:
    """What happens to datagrams, by chance, until it heals."""

    seed: int = 0
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    heals_at: float = 1e9
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def carry(self, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
        """When what arrives."""
        dice = self.dice
        if now >= self.heals_at:
            return [(now + LATENCY_S, datagram)]
        if dice.random() < self.drop:
            return []
        arrivals = []
        for _ in range(2 if dice.random() < self.duplicate else 1):
            late = dice.random() * 2.0 if dice.random() < self.reorder else 0.0
            carried = datagram
            if dice.random() < self.corrupt:
                at = dice.randrange(len(datagram))
                carried = datagram[:at] + bytes((datagram[at] ^ 1 << dice.randrange(8),)) + datagram[at + 1 :]
            arrivals.append((now + LATENCY_S + late, carried))
        return arrivals


@dataclass
class Said:
    """A datagram that was sent."""

    at: float
    to_server: bool
    datagram: bytes


class Conversation:
    """A client and a server, driven as a socket's owner would."""

    def __init__(
        self,
        client: ClientHandshake,
        listener: Listener,
        wire: Wire | None = None,
        *,
        psk: bytes | None = PSK.key,
        lookup_s: float = 0.0,
    ) -> None:
        self.client = client
        self.listener = listener
        self.wire = wire or Wire()
        self.psk = psk
        self.lookup_s = lookup_s
        self.server: ServerHandshake | None = None
        self.said: list[Said] = []
        self.client_session: Session | None = None
        self.server_session: Session | None = None
        self.client_failed: Failed | None = None
        self.server_failed: Failed | None = None
        self.client_arrived: list[Received] = []
        self.server_arrived: list[Received] = []
        self.identities: list[bytes] = []
        self.server_over = False
        self.now = 0.0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def run(self, until: float = 300.0) -> Conversation:
        """Until nothing is left to do."""
        self._drain()
        while True:
            times = [self._queue[0][0]] if self._queue else []
            sides = (self.client, self.server)
            times += [due for side in sides if side is not None and (due := side.deadline()) is not None]
            if not times or min(times) > until:
                return self
            self.now = max(self.now, min(times))
            while self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            for side in (self.client, self.server):
                if side is not None and (due := side.deadline()) is not None and due <= self.now:
                    side.tick(self.now)
            self._drain()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Does something at a time."""
        heapq.heappush(self._queue, (when, next(self._count), action))

    def from_client(self, datagram: bytes) -> None:
        """The client's side of the wire."""
        self.said.append(Said(self.now, True, datagram))
        for when, carried in self.wire.carry(datagram, self.now):
            self.at(when, lambda carried=carried: self.at_server(carried))  # type: ignore[misc]

    def from_server(self, datagram: bytes) -> None:
        """The server's side of the wire."""
        self.said.append(Said(self.now, False, datagram))
        for when, carried in self.wire.carry(datagram, self.now):
            self.at(when, lambda carried=carried: self._at_client(carried))  # type: ignore[misc]

    def _at_client(self, datagram: bytes) -> None:
        self.client.receive(datagram, self.now)
        self._drain()

    def at_server(self, datagram: bytes) -> None:
        """What the gateway does with a datagram."""
        if self.server is not None and self.server.continues(datagram):
            self.server.receive(datagram, self.now)
        else:
            answer = self.listener.greet(datagram, PEER, self.now)
            if isinstance(answer, Answer):
                self.from_server(answer.datagram)
            elif answer is not None:
                self.server = answer
        self._drain()

    def _drain(self) -> None:
        for datagram in self.client.datagrams(self.now):
            self.from_client(datagram)
        for event in self.client.events():
            match event:
                case Established(session):
                    assert self.client_session is None
                    self.client_session = session
                case Arrived(received):
                    assert self.client_session is not None
                    self.client_arrived.append(received)
                case Failed():
                    assert self.client_session is None
                    self.client_failed = event
        server = self.server
        if server is None:
            return
        for datagram in server.datagrams(self.now):
            self.from_server(datagram)
        for event in server.events():
            match event:
                case NeedsPsk(identity):
                    self.identities.append(identity)
                    self.at(self.now + self.lookup_s, lambda: self._provide(server))
                case Established(session):
                    self.server_session = session
                case Arrived(received):
                    assert self.server_session is not None
                    if received.content_type == HANDSHAKE:
                        server.repeated(received, self.now)
                    else:
                        self.server_arrived.append(received)
                case Failed():
                    self.server_failed = event
                    self.server = None
                case Over():
                    self.server_over = True
                    self.server = None

    def _provide(self, server: ServerHandshake) -> None:
        server.provide_psk(self.psk, self.now)
        self._drain()

    @property
    def done(self) -> bool:
        """Both sides have a session."""
        return self.client_session is not None and self.server_session is not None

    def talk(self) -> None:
        """Both sides understand each other."""
        client, server = self.client_session, self.server_session
        assert client is not None
        assert server is not None
        for size in (0, 1, 15, 16, 17, 200):
            up = server.unprotect(client.protect(23, b"\1" * size))
            assert up is not None, server.refused
            assert (up.content_type, up.data) == (23, b"\1" * size)
            down = client.unprotect(server.protect(23, b"\2" * size))
            assert down is not None, client.refused
            assert (down.content_type, down.data) == (23, b"\2" * size)


def shake(way: str, **more: object) -> Conversation:
    """A handshake on a good wire."""
    conversation = Conversation(WAYS[way](), a_listener(), **more).run(2.0)  # type: ignore[arg-type]
    assert conversation.done, (conversation.client_failed, conversation.server_failed)
    return conversation
