"""DTLS, made up: whatever comes, nothing is raised, what is held stays within bounds, and both sides agree or give up.

`python -m tests.fuzz.dtls FOLDER tests/fuzz/corpus/dtls` runs it under Atheris (`pip install atheris`) until it finds
something; new inputs go into the first folder. The committed ones are played by `test_dtls_corpus.py`.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from wirechamber.protocols.dtls import (
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
    ServerHandshake,
    Session,
    SessionState,
    messages,
    split_records,
)
from wirechamber.protocols.dtls.assembly import MAX_BUFFERED, MAX_MESSAGE
from wirechamber.protocols.dtls.handshake import MAX_EARLY, MAX_HELD, Handshake
from wirechamber.protocols.dtls.messages import whole
from wirechamber.protocols.dtls.records import write_record
from wirechamber.protocols.dtls.session import CidForm
from wirechamber.protocols.dtls.wire import Malformed


def key(number: int) -> ec.EllipticCurvePrivateKey:
    """Always the same, so that an input does the same each time."""
    return ec.derive_private_key(number, ec.SECP256R1())


SERVER_KEY, DEVICE_KEY, EPHEMERAL = key(11), key(12), key(13)
KEYS = PublicKeys(DEVICE_KEY, SERVER_KEY.public_key())
PSK = PreSharedKey(b"a-device", b"sixteen bytes ok")
PEER = b"peer"
WAYS: tuple[Callable[..., ClientHandshake], ...] = (
    lambda **more: ClientHandshake(KEYS, 0.0, **more),
    lambda **more: ClientHandshake(KEYS, 0.0, "rfc", b"mine", **more),
    lambda **more: ClientHandshake(KEYS, 0.0, "deviceos-3.0", **more),
    lambda **more: ClientHandshake(PSK, 0.0, "rfc", suites=[0xC0A8], **more),
    lambda **more: ClientHandshake(PSK, 0.0, "rfc", b"", suites=[0xCCAC], **more),
)
LAST_EVENTS = (Failed, Over)


def check(side: Handshake) -> None:
    """What is held of a peer is bounded."""
    assert side._assembly.buffered <= MAX_BUFFERED + MAX_MESSAGE
    assert len(side._early) <= MAX_EARLY
    assert len(side._held) <= MAX_HELD


class Play:
    """A handshake whose wire does what the input says."""

    def __init__(self, way: int) -> None:
        dice = random.Random(way)
        more = {"urandom": dice.randbytes, "new_key": lambda: EPHEMERAL}
        cids = itertools.count(1)
        self.listener = Listener(SERVER_KEY, lambda: next(cids).to_bytes(8, "big"), **more)  # type: ignore[arg-type]
        self.client = WAYS[way % len(WAYS)](deterministic=True, **more)
        self.server: ServerHandshake | None = None
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.now = 0.0
        self.client_session: Session | None = None
        self.server_sessions: list[Session] = []

    def settle(self) -> None:
        """Takes what both sides have to say."""
        self.up += self.client.datagrams(self.now)
        check(self.client)
        for event in self.client.events():
            if isinstance(event, Established):
                assert self.client_session is None
                self.client_session = event.session
            elif isinstance(event, Arrived):
                assert self.client_session is not None
        for _ in range(2):
            server = self.server
            if server is None:
                return
            check(server)
            self.down += server.datagrams(self.now)
            for event in server.events():
                match event:
                    case NeedsPsk():
                        server.provide_psk(PSK.key, self.now)
                    case Established(session):
                        self.server_sessions.append(session)
                    case Arrived(received):
                        server.repeated(received, self.now)
                    case Failed() | Over():
                        self.server = None

    def to_server(self, datagram: bytes) -> None:
        """As the gateway does it."""
        if self.server is not None and self.server.continues(datagram):
            self.server.receive(datagram, self.now)
        else:
            answer = self.listener.greet(datagram, PEER, self.now)
            if isinstance(answer, Answer):
                assert len(answer.datagram) <= len(datagram)
                self.down.append(answer.datagram)
            elif answer is not None:
                self.server = answer

    def to_client(self, datagram: bytes) -> None:
        """The other direction."""
        self.client.receive(datagram, self.now)


def changed(datagram: bytes, data: bytes) -> bytes:
    """Some bytes replaced, or cut off."""
    if not data or not datagram:
        return datagram
    at = data[0] * 4 % len(datagram)
    if len(data) == 1:
        return datagram[:at]
    return datagram[:at] + data[1:] + datagram[at + len(data) - 1 :]


def handshake(data: bytes) -> None:
    """A conversation: first the way, then steps of one byte, some with bytes of their own."""
    play = Play(data[0] if data else 0)
    play.settle()
    at = 1
    while at < len(data):
        step = data[at]
        size = step >> 4
        extra = data[at + 1 : at + 1 + size]
        at += 1 + size
        queue, deliver = (play.up, play.to_server) if step & 1 else (play.down, play.to_client)
        match step >> 1 & 7:
            case 0 | 1 if queue:
                deliver(queue.pop(0))
            case 2 if queue:
                deliver(changed(queue[0], extra))
            case 3 if queue:
                deliver(queue[-1])
            case 4 if queue:
                queue.pop(0)
            case 5:
                deliver(extra)
            case 6 if extra:
                deliver(write_record(22, 1000 + at, whole(extra[0], extra[-1] & 7, extra[1:])))
            case 7:
                play.now += 1 + size
                play.client.tick(play.now)
                if play.server is not None:
                    play.server.tick(play.now)
            case _:
                pass
        play.settle()
    # The wire is good from here on.
    for _ in range(400):
        while play.up or play.down:
            if play.up:
                play.to_server(play.up.pop(0))
            if play.down:
                play.to_client(play.down.pop(0))
            play.settle()
        dues = [due for side in (play.client, play.server) if side and (due := side.deadline()) is not None]
        if not dues:
            break
        play.now = max(play.now, min(dues))
        play.client.tick(play.now)
        if play.server is not None:
            play.server.tick(play.now)
        play.settle()
    else:
        raise AssertionError("it does not come to an end")
    if play.client_session is not None:
        record = play.client_session.protect(23, b"hello")
        assert any(session.unprotect(record) for session in play.server_sessions)


def states(form: CidForm, suite: int) -> SessionState:
    """A session with known keys."""
    long = suite == 0xCCAC
    cid = b"" if form == "none" else b"12345678"
    return SessionState(
        "deviceos", "server", suite, form, cid, b"", bytes(32 if long else 16), bytes(32 if long else 16),
        bytes(12 if long else 4), bytes(12 if long else 4),
    )  # fmt: skip


FORMS: tuple[CidForm, ...] = ("none", "draft", "rfc9146")


def records(data: bytes) -> None:
    """Records for a session, some under its keys."""
    if len(data) < 2:
        return
    suite = (0xC0AE, 0xCCAC)[data[0] & 1]
    form = FORMS[data[1] % 3]
    state = states(form, suite)
    session = Session(state)
    mirrored = SessionState(
        "deviceos", "client", suite, form, b"", state.local_cid, state.write_key, state.read_key,
        state.write_iv, state.read_iv,
    )  # fmt: skip
    peer = Session(mirrored)
    taken: set[int] = set()
    for part in data[2:].split(b"\xff")[:64]:
        session.unprotect(part)
        split_records(part, 8)
        if len(part) < 2:
            continue
        peer.next_sequence = int.from_bytes(part[:2], "big")
        received = session.unprotect(changed(peer.protect(23, part[2:]), part[2:4] if part[0] & 1 else b""))
        if received is not None:
            assert received.sequence not in taken
            taken.add(received.sequence)


READERS: tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes] | None], ...] = (
    (messages.read_client_hello, messages.write_client_hello),
    (messages.read_server_hello, messages.write_server_hello),
    (messages.read_hello_verify_request, messages.write_hello_verify_request),
    (messages.read_raw_public_key, messages.write_raw_public_key),
    (messages.read_certificate_verify, messages.write_signature),
    (messages.read_certificate_request, None),
    (messages.read_spki, messages.write_spki),
    *(
        (
            lambda body, psk=psk, ephemeral=ephemeral: messages.read_server_key_exchange(
                body, psk=psk, ephemeral=ephemeral
            ),
            messages.write_server_key_exchange,
        )
        for psk, ephemeral in ((False, True), (True, False), (True, True))
    ),
    *(
        (
            lambda body, psk=psk, ephemeral=ephemeral: messages.read_client_key_exchange(
                body, psk=psk, ephemeral=ephemeral
            ),
            messages.write_client_key_exchange,
        )
        for psk, ephemeral in ((False, True), (True, False), (True, True))
    ),
)


def bodies(data: bytes) -> None:
    """A message's body: what can be read is written as it was."""
    if not data:
        return
    read, write = READERS[data[0] % len(READERS)]
    try:
        found = read(data[1:])
    except Malformed:
        return
    if write is not None:
        # An empty list of extensions may be there or not; one form is written.
        assert write(found) in (data[1:], data[1:-2])


def greeting(data: bytes) -> None:
    """A stranger's datagram, and a ClientHello with a cookie and extensions of any kind."""
    play = Play(0)
    for datagram in (data, write_record(22, 0, whole(1, 0, data))):
        answer = play.listener.greet(datagram, PEER, 0.0)
        assert not isinstance(answer, ServerHandshake)
        if answer is not None:
            assert len(answer.datagram) <= len(datagram)
            hello = messages.read_client_hello(data)
            cookie = answer.datagram[-16:]
            bred = messages.ClientHello(
                hello.version, hello.random, hello.session_id, cookie, hello.suites, hello.compression, hello.extensions
            )
            again = write_record(22, 1, whole(1, 1, messages.write_client_hello(bred)))
            server = play.listener.greet(again, PEER, 1.0)
            assert isinstance(server, ServerHandshake)
            assert server.continues(again)
            failed = [event for event in server.events() if isinstance(event, Failed)]
            assert bool(failed) == (server.deadline() is None)


TARGETS: tuple[Callable[[bytes], None], ...] = (handshake, records, bodies, greeting)


def one(data: bytes) -> None:
    """One input: its first byte says what it is for."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def main() -> None:
    """Runs under Atheris."""
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
