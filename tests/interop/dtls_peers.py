"""Our side of DTLS on a real socket, for clients and servers that are not ours."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from wirechamber.protocols.dtls import (
    APPLICATION_DATA,
    HANDSHAKE,
    Answer,
    Arrived,
    ClientHandshake,
    Established,
    Failed,
    Listener,
    NeedsPsk,
    Over,
    Received,
    ServerHandshake,
    Session,
)

IDENTITY, KEY = b"some-device", b"sixteen bytes ok"
PATIENCE_S = 20.0
STEP_S = 0.05


def wait_until(what: Callable[[], object], patience: float = PATIENCE_S) -> None:
    """Returns once it is true."""
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class EchoServer:
    """Answers one client at a time: what it sends comes back with `echo ` in front.

    Args:
        lose: Numbers of datagrams to the client, from 0, that get lost.
    """

    def __init__(self, *, mtu: int = 1200, lose: frozenset[int] = frozenset()) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.session: Session | None = None
        self.failed: list[Failed] = []
        self.received: list[bytes] = []
        self.sent: list[bytes] = []
        self._lose = lose
        self._listener = Listener(self.key, lambda: os.urandom(8), mtu=mtu)
        self._handshake: ServerHandshake | None = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(STEP_S)
        self.port = self._socket.getsockname()[1]
        self._peer: tuple[str, int] = ("", 0)
        self._open = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._open = False
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while self._open:
            try:
                datagram, self._peer = self._socket.recvfrom(65536)
            except TimeoutError:
                datagram = b""
            except ConnectionError:
                # Linux tells of a client that has gone.
                continue
            now = time.monotonic()
            if datagram:
                self._take(datagram, now)
            handshake = self._handshake
            if handshake is not None and (due := handshake.deadline()) is not None and due <= now:
                handshake.tick(now)
            self._drain(now)

    def _take(self, datagram: bytes, now: float) -> None:
        handshake, session = self._handshake, self.session
        if session is not None and (received := session.unprotect(datagram)) is not None:
            self._arrived(received, now)
        elif handshake is not None and handshake.continues(datagram):
            handshake.receive(datagram, now)
        else:
            answer = self._listener.greet(datagram, repr(self._peer).encode(), now)
            if isinstance(answer, Answer):
                self._send(answer.datagram)
            elif answer is not None:
                self._handshake = answer

    def _arrived(self, received: Received, now: float) -> None:
        if received.content_type == APPLICATION_DATA:
            assert self.session is not None
            self.received.append(received.data)
            self._send(self.session.protect(APPLICATION_DATA, b"echo " + received.data))
        elif received.content_type == HANDSHAKE and self._handshake is not None:
            self._handshake.repeated(received, now)

    def _drain(self, now: float) -> None:
        handshake = self._handshake
        if handshake is None:
            return
        for event in handshake.events():
            match event:
                case NeedsPsk(identity):
                    handshake.provide_psk(KEY if identity == IDENTITY else None, now)
                    self._drain(now)
                case Established(session):
                    self.session = session
                case Arrived(received):
                    self._arrived(received, now)
                case Failed():
                    self.failed.append(event)
        for datagram in handshake.datagrams(now):
            self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        self.sent.append(datagram)
        if len(self.sent) - 1 not in self._lose:
            self._socket.sendto(datagram, self._peer)


class Program:
    """A client that reads lines from us and writes what it gets."""

    def __init__(self, *command: str) -> None:
        self.output = b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := self._process.stdout.read(4096):
            self.output += data

    def say(self, line: bytes) -> None:
        """Types a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._thread.join()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def talk_to_server(
    client: ClientHandshake, port: int, line: bytes, said: Callable[[], None] = lambda: None
) -> tuple[Session, bytes]:
    """Shakes hands with a server on this port, says a line, calls `said`, and returns what comes back first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.connect(("127.0.0.1", port))
        session: Session | None = None
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            now = time.monotonic()
            if (due := client.deadline()) is not None and due <= now:
                client.tick(now)
            for datagram in client.datagrams(now):
                wire.send(datagram)
            for event in client.events():
                match event:
                    case Established():
                        session = event.session
                        wire.send(session.protect(APPLICATION_DATA, line))
                        said()
                    case Failed():
                        raise AssertionError(event)
                    case Over() | Arrived() | NeedsPsk():
                        pass
            if not select.select([wire], [], [], STEP_S)[0]:
                continue
            try:
                datagram = wire.recv(65536)
            except ConnectionError:
                # It does not listen yet; the handshake's clock takes care of it.
                continue
            if session is None:
                client.receive(datagram, time.monotonic())
            elif (received := session.unprotect(datagram)) and received.content_type == APPLICATION_DATA:
                return session, received.data
        raise AssertionError("the server did not answer in time")


def write_keys(folder: Path, key: ec.EllipticCurvePrivateKey) -> tuple[str, str]:
    """Files with a private key and its public key."""
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return str(private), str(public)


def free_port() -> int:
    """A UDP port that nobody uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
