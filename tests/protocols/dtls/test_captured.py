"""What a real device sent and got, byte by byte (device-protocol.md, section 14)."""

from __future__ import annotations

import hashlib
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.protocols.dtls import captured
from wirechamber.protocols.dtls import (
    ClientHandshake,
    Established,
    Failed,
    Listener,
    Over,
    PublicKeys,
    Received,
    ServerHandshake,
    Session,
    SessionState,
    keys,
    messages,
)
from wirechamber.protocols.dtls.assembly import read_fragments
from wirechamber.protocols.dtls.cookies import Cookies
from wirechamber.protocols.dtls.records import read_records, write_record
from wirechamber.protocols.dtls.suites import ECDHE_ECDSA_CCM_8

DATAGRAMS = {
    "client_hello": captured.CLIENT_HELLO,
    "hello_verify_request": captured.HELLO_VERIFY_REQUEST,
    "client_hello_with_cookie": captured.CLIENT_HELLO_WITH_COOKIE,
    "flight_4": captured.FLIGHT_4,
    "flight_5": captured.FLIGHT_5,
}


def bodies(datagram: bytes) -> dict[int, bytes]:
    """The messages in the clear, by type."""
    found = {}
    for record in read_records(datagram, 8):
        if record.epoch == 0 and record.content_type == 22:
            for fragment in read_fragments(record.content):
                found[fragment.kind] = fragment.data
    return found


BODIES = {kind: body for datagram in DATAGRAMS.values() for kind, body in bodies(datagram).items()}


def server_state() -> SessionState:
    return SessionState(
        "deviceos", "server", 0xC0AE, "draft", captured.CID, b"",
        captured.CLIENT_WRITE_KEY, captured.SERVER_WRITE_KEY, captured.CLIENT_WRITE_IV, captured.SERVER_WRITE_IV,
    )  # fmt: skip


def client_state() -> SessionState:
    return SessionState(
        "deviceos", "client", 0xC0AE, "draft", b"", captured.CID,
        captured.SERVER_WRITE_KEY, captured.CLIENT_WRITE_KEY, captured.SERVER_WRITE_IV, captured.CLIENT_WRITE_IV,
    )  # fmt: skip


def test_the_keys_come_out_of_the_pre_master_secret() -> None:
    exchange = messages.read_client_key_exchange(BODIES[16], psk=False, ephemeral=True)
    assert exchange.point is not None
    shared = captured.SERVER_EPHEMERAL.exchange(ec.ECDH(), messages.read_point(exchange.point))
    assert shared == captured.PREMASTER
    master = keys.master_secret(shared, captured.CLIENT_RANDOM, captured.SERVER_RANDOM)
    assert master == captured.MASTER
    block = keys.key_block(master, captured.CLIENT_RANDOM, captured.SERVER_RANDOM, ECDHE_ECDSA_CCM_8)
    assert block == keys.KeyBlock(
        captured.CLIENT_WRITE_KEY, captured.SERVER_WRITE_KEY, captured.CLIENT_WRITE_IV, captured.SERVER_WRITE_IV
    )


@pytest.mark.parametrize("name", DATAGRAMS)
def test_records_are_read_and_written_alike(name: str) -> None:
    datagram = DATAGRAMS[name]
    records = read_records(datagram, 8)
    assert b"".join(record.raw for record in records) == datagram
    for record in records:
        if record.epoch == 0:
            assert write_record(record.content_type, record.sequence, record.content) == record.raw


CODECS: dict[int, tuple[Any, Any]] = {
    1: (messages.read_client_hello, messages.write_client_hello),
    2: (messages.read_server_hello, messages.write_server_hello),
    3: (messages.read_hello_verify_request, messages.write_hello_verify_request),
    11: (messages.read_raw_public_key, messages.write_raw_public_key),
    12: (
        lambda body: messages.read_server_key_exchange(body, psk=False, ephemeral=True),
        messages.write_server_key_exchange,
    ),
    13: (messages.read_certificate_request, messages.write_certificate_request),
    15: (messages.read_certificate_verify, messages.write_signature),
    16: (
        lambda body: messages.read_client_key_exchange(body, psk=False, ephemeral=True),
        messages.write_client_key_exchange,
    ),
}


@pytest.mark.parametrize("kind", CODECS)
def test_the_bytes_and_the_message_say_the_same(kind: int) -> None:
    read, write = CODECS[kind]
    assert write(read(BODIES[kind])) == BODIES[kind]


def test_the_signatures_are_those_of_the_keys() -> None:
    exchange = messages.read_server_key_exchange(BODIES[12], psk=False, ephemeral=True)
    assert exchange.signature is not None
    signed = hashlib.sha256(captured.CLIENT_RANDOM + captured.SERVER_RANDOM + exchange.params).digest()
    assert messages.verify(captured.SERVER_KEY.public_key(), exchange.signature, signed)
    assert not messages.verify(captured.DEVICE_KEY.public_key(), exchange.signature, signed)
    transcript = hashlib.sha256()
    for datagram in (captured.CLIENT_HELLO_WITH_COOKIE, captured.FLIGHT_4, captured.FLIGHT_5):
        for record in read_records(datagram, 8)[:4]:
            if read_fragments(record.content)[0].kind != 15:
                transcript.update(record.content)
            else:
                break
    verify = messages.read_certificate_verify(BODIES[15])
    key = messages.read_spki(messages.read_raw_public_key(BODIES[11]))
    assert key == captured.DEVICE_KEY.public_key()
    assert messages.verify(key, verify, transcript.digest())
    # mbedTLS signs as RFC 6979 has it, so there is one signature only.
    assert messages.sign(captured.DEVICE_KEY, transcript.digest(), deterministic=True) == verify


def test_the_device_s_records_are_read() -> None:
    session = Session(server_state(), next_sequence=1)
    finished = session.unprotect(read_records(captured.FLIGHT_5, 8)[-1].raw)
    verify_data = keys.verify_data(captured.MASTER, b"client finished", captured.BEFORE_FINISHED)
    assert finished == Received(22, messages.whole(20, 5, verify_data), 0, False)
    assert session.unprotect(captured.DEVICE_RECORD) == Received(23, captured.HELLO, 1, False)


def test_a_moved_device_s_record_is_the_same_but_for_its_first_byte() -> None:
    session = Session(server_state())
    moved = b"\xfd" + captured.DEVICE_RECORD[1:]
    assert session.unprotect(moved) == Received(23, captured.HELLO, 1, True)


def test_the_server_s_records_are_written_to_the_byte() -> None:
    assert Session(server_state(), next_sequence=1).protect(23, captured.HELLO_ANSWER) == captured.SERVER_RECORD
    received = Session(client_state()).unprotect(captured.SERVER_RECORD)
    assert received == Received(23, captured.HELLO_ANSWER, 1, False)


def test_the_device_s_records_are_written_to_the_byte() -> None:
    session = Session(client_state(), next_sequence=1)
    assert session.protect(23, captured.HELLO) == captured.DEVICE_RECORD
    session.moving = True
    session.next_sequence = 1
    assert session.protect(23, captured.HELLO) == b"\xfd" + captured.DEVICE_RECORD[1:]
    # Until something comes from the server.
    assert session.unprotect(captured.SERVER_RECORD)
    session.next_sequence = 1
    assert session.protect(23, captured.HELLO) == captured.DEVICE_RECORD


class RecordedKey:
    """The server's key, which signs what it signed in the capture: there are many good signatures."""

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return captured.SERVER_KEY.public_key()

    def sign(self, digest: bytes, algorithm: object) -> bytes:
        exchange = messages.read_server_key_exchange(BODIES[12], psk=False, ephemeral=True)
        assert exchange.signature is not None
        assert messages.verify(self.public_key(), exchange.signature, digest)
        return exchange.signature.value


class RecordedEphemeral:
    """The device's ephemeral key, of which the capture has the public half and what came out of it."""

    def public_key(self) -> ec.EllipticCurvePublicKey:
        exchange = messages.read_client_key_exchange(BODIES[16], psk=False, ephemeral=True)
        assert exchange.point is not None
        return messages.read_point(exchange.point)

    def exchange(self, algorithm: object, other: ec.EllipticCurvePublicKey) -> bytes:
        assert other == captured.SERVER_EPHEMERAL.public_key()
        return captured.PREMASTER


def test_the_server_answers_the_device_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    # The capture's cookie was another program's.
    monkeypatch.setattr(Cookies, "good", lambda self, hello, peer, now: bool(hello.cookie))
    monkeypatch.setattr(Cookies, "make", lambda self, hello, peer, now: captured.HELLO_VERIFY_REQUEST[-16:])
    listener = Listener(
        cast(ec.EllipticCurvePrivateKey, RecordedKey()),
        lambda: captured.CID,
        urandom=lambda size: captured.SERVER_RANDOM,
        new_key=lambda: captured.SERVER_EPHEMERAL,
    )
    answer = listener.greet(captured.CLIENT_HELLO, b"peer", 0.0)
    assert answer is not None
    assert not isinstance(answer, ServerHandshake)
    assert answer.datagram == captured.HELLO_VERIFY_REQUEST
    server = listener.greet(captured.CLIENT_HELLO_WITH_COOKIE, b"peer", 0.0)
    assert isinstance(server, ServerHandshake)
    assert server.datagrams(0.0) == [captured.FLIGHT_4]
    server.receive(captured.FLIGHT_5, 0.1)
    assert server.datagrams(0.1) == [captured.FLIGHT_6]
    (established,) = server.events()
    assert isinstance(established, Established)
    session = established.session
    state = session.state
    assert state.peer_public_key == messages.write_spki(captured.DEVICE_KEY.public_key())
    assert session.unprotect(captured.DEVICE_RECORD) == Received(23, captured.HELLO, 1, False)
    assert session.protect(23, captured.HELLO_ANSWER) == captured.SERVER_RECORD


def test_the_client_does_what_the_device_did_to_the_byte() -> None:
    client = ClientHandshake(
        PublicKeys(captured.DEVICE_KEY, captured.SERVER_KEY.public_key()),
        0.0,
        urandom=lambda size: captured.CLIENT_RANDOM,
        new_key=lambda: cast(ec.EllipticCurvePrivateKey, RecordedEphemeral()),
        deterministic=True,
    )
    assert client.datagrams(0.0) == [captured.CLIENT_HELLO]
    client.receive(captured.HELLO_VERIFY_REQUEST, 0.1)
    assert client.datagrams(0.1) == [captured.CLIENT_HELLO_WITH_COOKIE]
    client.receive(captured.FLIGHT_4, 0.2)
    assert client.datagrams(0.2) == [captured.FLIGHT_5]
    client.receive(captured.FLIGHT_6, 0.3)
    established, over = client.events()
    assert isinstance(established, Established)
    assert isinstance(over, Over)
    assert established.session.protect(23, captured.HELLO) == captured.DEVICE_RECORD
    assert established.session.unprotect(captured.SERVER_RECORD) == Received(23, captured.HELLO_ANSWER, 1, False)


def test_a_device_with_another_server_key_says_decrypt_error() -> None:
    client = ClientHandshake(
        PublicKeys(captured.DEVICE_KEY, captured.DEVICE_KEY.public_key()),
        0.0,
        urandom=lambda size: captured.CLIENT_RANDOM,
    )
    client.datagrams(0.0)
    client.receive(captured.HELLO_VERIFY_REQUEST, 0.1)
    client.datagrams(0.1)
    client.receive(captured.FLIGHT_4, 0.2)
    # The alert that was seen on the wire: device-protocol.md, section 3.4.
    (datagram,) = client.datagrams(0.2)
    assert datagram[0] == 21
    assert datagram[13:] == bytes.fromhex("0233")
    (failed,) = client.events()
    assert isinstance(failed, Failed)
    assert (failed.alert, failed.by_peer) == (51, False)
