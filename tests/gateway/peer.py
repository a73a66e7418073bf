"""A device for tests that does just what it is told, by a real socket: it repeats nothing, answers nothing unasked."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cloud import Cloud
from wirechamber.protocols.coap.message import Code, Message, Option, Type, ack, read_message, write_message
from wirechamber.protocols.deviceos.messages import (
    Flag,
    Hello,
    Publish,
    Subscribe,
    write_hello,
    write_publish,
    write_subscribe,
)
from wirechamber.protocols.dtls import (
    ALERT,
    APPLICATION_DATA,
    Arrived,
    ClientHandshake,
    Established,
    Failed,
    PreSharedKey,
    PublicKeys,
    Session,
    SessionState,
    write_named,
)
from wirechamber.services.serverkeys import ServerKeys

ANSWER_S = 10.0
SILENCE_S = 0.3


class Silence(AssertionError):
    """Nothing came in time."""


class HandshakeFailed(Exception):
    """The cloud, or we, did not want to go on."""


def device_key() -> ec.EllipticCurvePrivateKey:
    """A key for a device."""
    return ec.generate_private_key(ec.SECP256R1())


def public_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Its public half."""
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


class Peer:
    """A device's side of one session.

    Args:
        psk: A pre-shared key; then plain CoAP by the RFCs is spoken, otherwise Device OS.
        profile: Which generation of Device OS it is, unless it has a pre-shared key.
        cid: What a device with a pre-shared key wants in records to it; None: it knows no connection ids.
        host: Where it is: an address of loopback; None: any.
        to: The cloud's address that it asks, and takes answers from.
    """

    def __init__(
        self,
        port: int,
        server_key: ec.EllipticCurvePublicKey,
        device: str,
        key: ec.EllipticCurvePrivateKey | None = None,
        psk: bytes | None = None,
        cid: bytes | None = b"",
        suites: Sequence[int] | None = None,
        host: str | None = "127.0.0.1",
        to: str = "127.0.0.1",
        profile: Literal["deviceos", "deviceos-3.0"] = "deviceos",
    ) -> None:
        self.port = port
        self.host = host
        self.to = to
        self.server_key = server_key
        self.device = device
        self.key = key or device_key()
        self.psk = psk
        self.profile: Literal["deviceos", "deviceos-3.0"] = profile
        self.cid = cid
        self.suites = suites
        self.message_id = 0
        self.session: Session | None = None
        self.alerts: list[bytes] = []
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self._waiting: list[Message] = []
        # Ids of requests that were acknowledged: what comes again is acknowledged again, and that is all, as a device
        # does it (device-protocol.md, section 6).
        self._had: set[int] = set()
        self.socket = self._new_socket()

    @classmethod
    def of(cls, cloud: Cloud, device: str, **more: Any) -> Peer:
        """A device of a cloud."""
        return cls(cloud.udp_port, ServerKeys(cloud.folder).ec().public_key(), device, **more)

    def _new_socket(self) -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in self.to else socket.AF_INET, socket.SOCK_DGRAM)
        if self.host is not None:
            made.bind((self.host, 0))
        made.connect((self.to, self.port))
        return made

    def move(self) -> None:
        """Goes on from another port, as behind a NAT that forgot."""
        self.socket.close()
        self.socket = self._new_socket()

    def close(self) -> None:
        self.socket.close()

    # --- handshake ---

    def connect(self) -> Peer:
        """Makes a handshake."""
        credentials: PublicKeys | PreSharedKey
        if self.psk is not None:
            credentials = PreSharedKey(self.device.encode(), self.psk)
            handshake = ClientHandshake(credentials, time.monotonic(), "rfc", self.cid, suites=self.suites)
        else:
            handshake = ClientHandshake(PublicKeys(self.key, self.server_key), time.monotonic(), self.profile)
        self.session = None
        self._had = set()
        deadline = time.monotonic() + ANSWER_S
        while self.session is None:
            for datagram in handshake.datagrams(time.monotonic()):
                self.transmit(datagram)
            for event in handshake.events():
                match event:
                    case Established(session):
                        self.session = session
                    case Failed(why, alert, by_peer):
                        raise HandshakeFailed(f"{why} (alert {alert}, by the cloud: {by_peer})")
                    case Arrived(received):
                        self._waiting.append(read_message(received.data))
            if self.session is None:
                if time.monotonic() > deadline:
                    raise Silence("the handshake did not end")
                due = handshake.deadline() or deadline
                data = self._datagram(min(max(due - time.monotonic(), 0.0), 1.0))
                if data is None:
                    handshake.tick(time.monotonic())
                else:
                    handshake.receive(data, time.monotonic())
        for datagram in handshake.datagrams(time.monotonic()):
            self.transmit(datagram)
        return self

    def state(self) -> tuple[bytes, int, int, int]:
        """What a device keeps in its memory while it sleeps."""
        assert self.session is not None
        return (
            msgspec.msgpack.encode(self.session.state), self.session.next_sequence, self.session.top, self.message_id,
        )  # fmt: skip

    def resume(self, state: tuple[bytes, int, int, int]) -> Peer:
        """Wakes up with what it kept."""
        keys, next_sequence, top, self.message_id = state
        self.session = Session(msgspec.msgpack.decode(keys, type=SessionState), next_sequence=next_sequence, top=top)
        self.session.moving = True
        return self

    # --- datagrams ---

    def transmit(self, datagram: bytes) -> None:
        self.sent.append(datagram)
        try:
            self.socket.send(datagram)
        except ConnectionRefusedError:
            # Of the one before: nobody was there.
            self.socket.send(datagram)

    def _datagram(self, timeout_s: float) -> bytes | None:
        self.socket.settimeout(max(timeout_s, 0.001))
        try:
            data = self.socket.recv(4096)
        except (TimeoutError, ConnectionRefusedError):
            return None
        self.received.append(data)
        return data

    # --- CoAP ---

    def next_id(self) -> int:
        self.message_id = (self.message_id + 1) & 0xFFFF
        return self.message_id

    def send(self, message: Message | bytes) -> bytes:
        """Sends a message; returns the record that carried it."""
        assert self.session is not None
        data = message if isinstance(message, bytes) else write_message(message)
        named = self.session.moving and self.profile == "deviceos-3.0"
        record = self.session.protect(APPLICATION_DATA, data)
        if named:
            record = write_named(record, self.device)
        self.transmit(record)
        return record

    def receive(self, timeout_s: float = ANSWER_S, want: Callable[[Message], bool] = lambda message: True) -> Message:
        """The next message that is wanted; others wait for later calls.

        Raises:
            Silence: None came in time.
        """
        assert self.session is not None
        for message in self._waiting:
            if want(message):
                self._waiting.remove(message)
                return message
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            data = self._datagram(left)
            received = None if data is None else self.session.unprotect(data)
            if received is None:
                continue
            if received.content_type == ALERT:
                self.alerts.append(received.data)
                continue
            if received.content_type != APPLICATION_DATA:
                continue
            message = read_message(received.data)
            if message.id in self._had and message.type is Type.CON:
                self.send(ack(message.id))
                continue
            if want(message):
                return message
            self._waiting.append(message)
        raise Silence(f"nothing that was wanted came in {timeout_s} s; alerts: {self.alerts}")

    def silent(self, timeout_s: float = SILENCE_S) -> bool:
        """Whether nothing at all comes for a while."""
        try:
            self.receive(timeout_s)
        except Silence:
            return True
        return False

    def alert(self, timeout_s: float = ANSWER_S) -> bytes:
        """The next protected alert."""
        deadline = time.monotonic() + timeout_s
        while not self.alerts and time.monotonic() < deadline:
            self.silent(0.05)
        assert self.alerts, "no alert came"
        return self.alerts.pop(0)

    def answer(self, id: int, timeout_s: float = ANSWER_S) -> Message:
        """What acknowledges, or answers, the message of this id."""
        return self.receive(timeout_s, lambda message: message.type in (Type.ACK, Type.RST) and message.id == id)

    def ask(self, message: Message) -> Message:
        """Sends a CON and returns its acknowledgement."""
        self.send(message)
        return self.answer(message.id)

    def insist(self, message: Message, timeout_s: float = 30.0, every_s: float = 0.3) -> Message:
        """Sends a CON, in a new record each time, until it is acknowledged."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.send(message)
            try:
                return self.answer(message.id, every_s)
            except Silence:
                assert time.monotonic() < deadline, "it was never acknowledged"

    def request(self, timeout_s: float = ANSWER_S) -> Message:
        """The next request of the cloud, acknowledged."""
        message = self.receive(timeout_s, lambda message: message.type in (Type.CON, Type.NON))
        if message.type is Type.CON:
            self._had.add(message.id)
            self.send(ack(message.id))
        return message

    # --- Device OS ---

    def hello(self, **fields: Any) -> Message:
        """Says Hello; returns its acknowledgement."""
        return self.ask(a_hello(self.device, self.next_id(), **fields))

    def start(self) -> Peer:
        """Handshake and Hello."""
        self.connect()
        if self.psk is None:
            assert self.hello().code == Code.EMPTY
        return self

    def publish(self, name: str, data: bytes = b"", *, id: int | None = None, **fields: Any) -> Message:
        """Publishes; returns the acknowledgement."""
        return self.ask(a_publish(name, data, self.next_id() if id is None else id, **fields))

    def subscribe(self, prefix: str, **fields: Any) -> Message:
        """Subscribes; returns the acknowledgement."""
        return self.ask(write_subscribe(Subscribe(prefix, **fields), self.next_id()))


def a_hello(device: str, id: int, **fields: Any) -> Message:
    """As the virtual device of 6.2 says it."""
    given: dict[str, Any] = {
        "product": 3, "product_version": None, "flags": Flag(0x36), "platform": 3, "device": device,
        "system_version": 6200, "max_message": 1152, "max_binary": 10 << 20, "chunk_size": 512,
    }  # fmt: skip
    return write_hello(Hello(**(given | fields)), id)


def a_publish(name: str, data: bytes, id: int, **fields: Any) -> Message:
    """An event."""
    given: dict[str, Any] = {"content_format": None, "max_age": 60, "confirmable": True}
    return write_publish(Publish(name=name, payload=data, message_id=id, **(given | fields)))


def path_of(message: Message) -> str:
    """A request's path."""
    return "/".join(segment.decode() for segment in message.all(Option.URI_PATH))
