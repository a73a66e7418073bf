"""Device OS before 3.1: its ClientHello, and a record that names its device (device-protocol.md, section 4.5)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocols.dtls.conversation import WAYS, a_listener, shake
from wirechamber.protocols.dtls import (
    APPLICATION_DATA,
    MOVED_BY_NAME,
    Answer,
    Listener,
    Named,
    Refusal,
    ServerHandshake,
    read_named,
    write_named,
)
from wirechamber.protocols.dtls.messages import ClientHello, HandshakeType, read_client_hello, whole, write_client_hello
from wirechamber.protocols.dtls.records import DTLS12, HANDSHAKE, read_records, write_record

DEVICE = "0123456789abcdef01234567"

# Flights before a cookie: record, message, version, random, no session, no cookie, two suites, no compression; then the
# extensions. Up to 1.x there were six signature algorithms, from 2.0 to 3.0 four; nothing else changed.
_RANDOM = "c0" * 32
_HEAD = "16fefd 0000 000000000000 00{size:02x}01 0000{body:02x} 0000 000000 0000{body:02x}fefd {random} 00 00"
_SUITES = "0004 c0ae 00ff 01 00"
_CURVES = "000a 0004 0002 0017000b 0002 0100"
_RAW = "0013 0002 01020014 0002 0102"


def a_client_hello(algorithms: str) -> bytes:
    extensions = f"000d {len(algorithms) // 2 + 2:04x} {len(algorithms) // 2:04x} {algorithms} {_CURVES} {_RAW}"
    rest = f"{_SUITES} {len(bytes.fromhex(extensions)):04x} {extensions}"
    body = 2 + 32 + 2 + len(bytes.fromhex(rest))
    head = _HEAD.format(size=body + 12, body=body, random=_RANDOM)
    return bytes.fromhex(f"{head} {rest}")


VECTORS = {"0.7": a_client_hello("040304010303030102030201"), "2.3": a_client_hello("0403040103030301")}


def flight(listener: Listener, datagram: bytes, hello: ClientHello) -> tuple[bytes, list[int]]:
    """What a server says to a hello that has brought the cookie back: the first answer, and kinds of messages."""
    answer = listener.greet(datagram, b"peer", 0.0)
    assert isinstance(answer, Answer)
    with_cookie = ClientHello(
        hello.version, hello.random, b"", answer.datagram[-16:], hello.suites, hello.compression, hello.extensions
    )
    again = write_record(HANDSHAKE, 1, whole(HandshakeType.CLIENT_HELLO, 1, write_client_hello(with_cookie)), DTLS12)
    server = listener.greet(again, b"peer", 0.0)
    assert isinstance(server, ServerHandshake)
    records = [record for data in server.datagrams(0.0) for record in read_records(data, 0)]
    return answer.datagram, [record.content[0] for record in records]


def hello_of(datagram: bytes) -> ClientHello:
    return read_client_hello(datagram[25:])


@pytest.mark.parametrize("version", VECTORS)
def test_its_client_hello_is_answered_without_a_certificate(version: str) -> None:
    datagram = VECTORS[version]
    first, kinds = flight(a_listener(), datagram, hello_of(datagram))
    # As to newer ones, the cookie comes in a record of version 1.2.
    assert first[:3] == b"\x16\xfe\xfd"
    assert kinds == [
        HandshakeType.SERVER_HELLO,
        HandshakeType.SERVER_KEY_EXCHANGE,
        HandshakeType.CERTIFICATE_REQUEST,
        HandshakeType.SERVER_HELLO_DONE,
    ]


@pytest.mark.parametrize(
    ("extensions", "suites"),
    [
        ({54: b"\0"}, None),
        ({23: b""}, None),
        ({20: b"\2\2\0"}, None),
        ({19: b"\2\0\2"}, None),
        ({}, (0xC0AE,)),
        ({}, (0xC0AE, 0xCCAC, 0x00FF)),
    ],
)
def test_whoever_says_anything_else_gets_one(extensions: dict[int, bytes], suites: tuple[int, ...] | None) -> None:
    hello = hello_of(VECTORS["2.3"])
    other = ClientHello(
        hello.version, hello.random, b"", b"", suites or hello.suites, hello.compression,
        {**hello.extensions, **extensions},
    )  # fmt: skip
    datagram = write_record(HANDSHAKE, 0, whole(HandshakeType.CLIENT_HELLO, 0, write_client_hello(other)), DTLS12)
    _, kinds = flight(a_listener(), datagram, other)
    assert HandshakeType.CERTIFICATE in kinds


def test_our_client_s_hello_is_laid_out_like_that() -> None:
    (datagram,) = WAYS["deviceos-3.0"]().datagrams(0.0)
    theirs = VECTORS["2.3"]
    assert datagram[:27] == theirs[:27]
    assert datagram[59:] == theirs[59:]


def test_its_session_has_no_connection_id() -> None:
    conversation = shake("deviceos-3.0")
    conversation.talk()
    assert conversation.server_session is not None
    state = conversation.server_session.state
    assert (state.profile, state.cid_form, state.local_cid, state.remote_cid) == ("deviceos-3.0", "none", b"", b"")


# --- a record with a name ---

RECORD = bytes.fromhex("17fefd 0001 000000000102 0019 0001000000000102") + bytes(17)
NAMED = bytes.fromhex("fefefd 0001 000000000102 0019 0001000000000102") + bytes(17) + bytes.fromhex(DEVICE + "0c")


def test_a_name_is_twelve_bytes_and_their_length_behind_the_record() -> None:
    assert write_named(RECORD, DEVICE) == NAMED
    assert read_named(NAMED) == Named(DEVICE, RECORD)
    assert NAMED[0] == MOVED_BY_NAME


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        NAMED[:-1],
        NAMED[:-1] + b"\x0d",
        NAMED + b"\x0c",
        RECORD,
        # Another version, epoch 0, and a length that is not the record's.
        NAMED[:1] + b"\xfe\xff" + NAMED[3:],
        NAMED[:4] + b"\0" + NAMED[5:],
        NAMED[:12] + b"\x1a" + NAMED[13:],
        NAMED[:13] + NAMED[-13:],
        bytes.fromhex(DEVICE + "0c"),
    ],
)
def test_what_is_laid_out_otherwise_is_none(datagram: bytes) -> None:
    assert read_named(datagram) is None


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    for datagram in (data, b"\xfe" + data, NAMED[:13] + data):
        named = read_named(datagram)
        assert named is None or len(named.record) + 13 == len(datagram)


def test_a_named_record_is_protected_as_type_23_and_taken_once() -> None:
    conversation = shake("deviceos-3.0")
    conversation.talk()
    client, server = conversation.client_session, conversation.server_session
    assert client is not None
    assert server is not None
    datagram = write_named(client.protect(APPLICATION_DATA, b"hello"), DEVICE)
    named = read_named(datagram)
    assert named is not None
    received = server.unprotect(named.record)
    assert received is not None
    assert (received.content_type, received.data) == (APPLICATION_DATA, b"hello")
    refused = []
    # As it stands it is no record of the session's.
    for again in (named.record, datagram, datagram[:-13]):
        assert server.unprotect(again) is None
        refused.append(server.refused)
    assert refused == [Refusal.REPLAYED, Refusal.LENGTH, Refusal.TYPE]
