"""A device for tests on TCP, over a real socket: it answers as Device OS 6.2 does, and does only what it is told."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.cloud import Cloud
from tests.gateway.peer import ANSWER_S, SILENCE_S, Silence, a_hello, a_publish
from wirechamber.protocols.coap.message import Message, Type, ack, read_message, write_message
from wirechamber.protocols.deviceos.describe import Application, write_application
from wirechamber.protocols.deviceos.messages import (
    Describe,
    Flag,
    Hello,
    Kind,
    Subscribe,
    write_describe,
    write_hello,
    write_subscribe,
)
from wirechamber.protocols.legacy_tcp import ClientHandshake, Established, Session
from wirechamber.services.serverkeys import ServerKeys


def device_key() -> rsa.RSAPrivateKey:
    """A key for a device."""
    return rsa.generate_private_key(65537, 1024)


class TcpPeer:
    """A device's side of one connection.

    Attributes:
        up: Bytes that it sent.
        down: Bytes that it received.
    """

    def __init__(self, port: int, server_key: rsa.RSAPublicKey, device: str, key: rsa.RSAPrivateKey) -> None:
        self.device = device
        self.key = key
        self.port = port
        self.server_key = server_key
        self.session: Session | None = None
        self.message_id = 0
        self.up = self.down = 0
        self._waiting: list[Message] = []
        self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_S)

    @classmethod
    def of(cls, cloud: Cloud, device: str, key: rsa.RSAPrivateKey | None = None) -> TcpPeer:
        """A device of a cloud whose settings name a TCP port."""
        port = int(cloud.environment["WIRECHAMBER_TCP_PORT"])
        return cls(port, ServerKeys(cloud.folder).rsa().public_key(), device, key or device_key())

    def close(self) -> None:
        self.socket.close()

    # --- bytes ---

    def write(self, data: bytes) -> None:
        self.up += len(data)
        self.socket.sendall(data)

    def read(self, timeout_s: float) -> bytes:
        """What comes; empty when the cloud has closed the connection.

        Raises:
            Silence: Nothing came.
        """
        self.socket.settimeout(max(timeout_s, 0.001))
        try:
            data = self.socket.recv(4096)
        except TimeoutError:
            raise Silence(f"nothing came in {timeout_s} s") from None
        except ConnectionResetError:
            return b""
        self.down += len(data)
        return data

    def closed(self) -> bool:
        """Whether the cloud closes the connection without another word."""
        return self.read(ANSWER_S) == b""

    # --- a device's life ---

    def connect(self) -> bool:
        """Makes a handshake; whether the cloud went along."""
        core = ClientHandshake(bytes.fromhex(self.device), self.key, self.server_key, 0.0)
        while self.session is None:
            data = self.read(ANSWER_S)
            if not data:
                return False
            for event in core.receive(data, 0.0):
                assert isinstance(event, Established), event
                self.session = event.session
                self.message_id = event.session.seed
            self.write(core.outgoing())
        return True

    def start(self, **fields: Any) -> TcpPeer:
        """Handshake, Hello, and the cloud's Hello."""
        assert self.connect()
        self.say_hello(**fields)
        assert self.receive().payload == b""
        return self

    def say_hello(self, device: str | None = None, **fields: Any) -> None:
        """Says Hello, under another's id if one is given."""
        if device is None:
            given: dict[str, Any] = {
                "product": 3, "product_version": None, "flags": Flag(0x36), "platform": 3,
                "system_version": 6200, "max_message": 1152, "max_binary": 10 << 20, "chunk_size": 512,
            }  # fmt: skip
            self.send(write_hello(Hello(**(given | fields)), self.next_id(), tcp=True))
        else:
            self.send(a_hello(device, self.next_id(), **fields))

    def subscribe(self, prefix: str) -> None:
        """Subscribes; over TCP nothing answers that."""
        self.send(write_subscribe(Subscribe(prefix), self.next_id(), tcp=True))

    def publish(self, name: str, data: bytes = b"") -> Message:
        """Publishes and waits for the acknowledgement."""
        message = a_publish(name, data, self.next_id())
        self.send(message)
        return self.receive(want=lambda answer: answer.type is Type.ACK and answer.id == message.id)

    # --- messages ---

    def next_id(self) -> int:
        self.message_id = (self.message_id + 1) & 0xFFFF
        return self.message_id

    def send(self, *messages: Message | bytes) -> None:
        session = self.session
        assert session is not None
        self.write(
            b"".join(session.frame(each if isinstance(each, bytes) else write_message(each)) for each in messages)
        )

    def receive(self, timeout_s: float = ANSWER_S, want: Callable[[Message], bool] = lambda message: True) -> Message:
        """The next message that is wanted; others wait for later calls.

        Raises:
            Silence: None came in time.
        """
        assert self.session is not None
        deadline = time.monotonic() + timeout_s
        while True:
            for message in self._waiting:
                if want(message):
                    self._waiting.remove(message)
                    return message
            data = self.read(deadline - time.monotonic())
            assert data, "the cloud has closed the connection"
            self._waiting += map(read_message, self.session.receive(data))

    def silent(self, timeout_s: float = SILENCE_S) -> bool:
        """Whether nothing comes for a while."""
        try:
            self.receive(timeout_s)
        except Silence:
            return True
        return False

    def pong(self, message: Message) -> None:
        """Acknowledges a ping, or says that it has done what it was told: under an id of its own."""
        if message.token:
            self.send(Message(Type.ACK, 0x44, self.next_id(), message.token))
        else:
            self.send(ack(self.next_id()))

    def event(self, timeout_s: float = ANSWER_S, *, confirm: bool = True) -> Message:
        """The next event, and the ping that asks whether it has come."""
        event = self.receive(timeout_s, lambda message: message.type is Type.NON and message.code == 0x02)
        ping = self.receive(timeout_s, lambda message: message.type is Type.CON and message.code == 0)
        if confirm:
            self.pong(ping)
        return event

    def describe(self, application: Application) -> None:
        """Describes itself; when that is acknowledged, what was said before is stored too."""
        message = write_describe(Describe(Kind.APPLICATION, write_application(application)), self.next_id(), b"\x01")
        self.send(message)
        self.receive(want=lambda answer: answer.type is Type.ACK and answer.id == message.id)
