"""Device OS by generation, as its sources have it: what each says in Hello, and the sizes of its buffers."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from tests.gateway.peer import Peer
from tests.gateway.tcp_peer import TcpPeer
from wirechamber.protocols.coap.message import Message, Type, ack, write_message
from wirechamber.protocols.deviceos.messages import Flag

SILENT: dict[str, Any] = {"system_version": None, "max_message": None, "max_binary": None, "chunk_size": None}


class Profile(Struct, frozen=True):
    """One version.

    Attributes:
        hello: What its Hello tells, other than that of 6.2.
        udp, tcp: Its buffer, bytes.
        argument: The longest argument of a function.
        dtls: How it shakes hands over UDP.
    """

    name: str
    hello: dict[str, Any]
    udp: int
    tcp: int
    argument: int
    dtls: Literal["deviceos", "deviceos-3.0"] = "deviceos"

    def room(self, *, reliable: bool) -> int:
        """The longest message with an event that it takes and, where it does that, acknowledges."""
        # Over TCP 2 bytes of length and 16 for what fills the last block are set aside, and 1 to 16 of those are used.
        return (self.tcp - 18) // 16 * 16 - 1 if reliable else self.udp - 5

    def data(self, name: str, *, reliable: bool) -> int:
        """The longest data of an event of this name, which is longer than 12 characters."""
        return min(1024, self.room(reliable=reliable) - (4 + 2 + 2 + len(name) + 1))


def told(version: int, size: int) -> dict[str, Any]:
    return {"system_version": version, "max_message": size}


BEFORE_0_8 = {"flags": Flag(0x01), **SILENT}
BEFORE_2 = {"flags": Flag(0x06), **SILENT}
PROFILES = (
    Profile("0.6.4", BEFORE_0_8, 768, 800, 63, "deviceos-3.0"),
    Profile("0.6.4 on a Core", BEFORE_0_8 | {"platform": 0, "product": 0}, 640, 640, 63, "deviceos-3.0"),
    Profile("1.5.2", BEFORE_2, 800, 800, 622, "deviceos-3.0"),
    Profile("2.3.1", {"flags": Flag(0x76), **SILENT}, 800, 800, 622, "deviceos-3.0"),
    Profile("3.1.0", told(3102, 960), 960, 960, 864),
    Profile("3.3.1 on an Argon", told(3301, 1152), 1152, 1152, 1024),
    Profile("5.9.0", told(5900, 1152), 1152, 1152, 1024),
    Profile("6.2.0", {}, 1152, 1152, 1024),
    Profile("6.2.0 on a narrow link", told(6200, 500), 500, 500, 1024),
)


class Reconnected(Exception):
    """The message did not fit into the buffer, and the firmware has begun a new session."""


class OldDevice:
    """A device over UDP that takes what its firmware takes: from a longer message on, it begins anew.

    Attributes:
        connections: How many sessions it has had.
        refuses: An event with this data makes it begin anew, as what crashes it.
    """

    def __init__(self, peer: Peer, profile: Profile, prefix: str) -> None:
        self.peer = peer
        self.profile = profile
        self.prefix = prefix
        self.connections = 0
        self.refuses: bytes | None = None

    def start(self) -> OldDevice:
        """Handshake, Hello, and its subscription."""
        self.peer.profile = self.profile.dtls
        self.peer.connect()
        self.connections += 1
        self.peer.hello(**self.profile.hello)
        self.peer.subscribe(self.prefix)
        return self

    def event(self, timeout_s: float = 10.0) -> bytes:
        """The data of the next event.

        Raises:
            Reconnected: It was too much for it.
        """
        message = self.peer.receive(timeout_s, is_event)
        if len(write_message(message)) > self.profile.room(reliable=False) or message.payload == self.refuses:
            self.start()
            raise Reconnected
        self.peer.send(ack(message.id))
        return message.payload


def is_event(message: Message) -> bool:
    """Whether a message brings an event."""
    return message.type in (Type.CON, Type.NON) and any(value == b"e" for _, value in message.options[:1])


def start_tcp(peer: TcpPeer, profile: Profile) -> TcpPeer:
    """Handshake and Hello over TCP."""
    return peer.start(**profile.hello)
