"""What strangers can do to a server: nothing is kept of them, little is sent to them, and no bytes make it raise."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.protocols.dtls import captured
from tests.protocols.dtls.conversation import PEER, PSK, WAYS, Conversation, Wire, a_listener, shake
from wirechamber.protocols.dtls import (
    HANDSHAKE,
    Alert,
    Answer,
    ClientHandshake,
    Failed,
    Listener,
    NeedsPsk,
    ServerHandshake,
)
from wirechamber.protocols.dtls.assembly import MAX_BUFFERED, MAX_MESSAGE
from wirechamber.protocols.dtls.cookies import COOKIE, PERIOD_S
from wirechamber.protocols.dtls.handshake import LIFETIME_S, MAX_EARLY
from wirechamber.protocols.dtls.messages import (
    ClientHello,
    HandshakeType,
    header,
    read_client_hello,
    read_server_hello,
    whole,
    write_client_hello,
)
from wirechamber.protocols.dtls.records import read_records, write_record
from wirechamber.protocols.dtls.transmission import MAX_SENDS


def first_hello(way: str = "deviceos") -> bytes:
    (datagram,) = WAYS[way]().datagrams(0.0)
    return datagram


def with_cookie(listener: Listener, way: str = "deviceos", peer: bytes = PEER, now: float = 0.0) -> bytes:
    """A ClientHello with a cookie that the listener made for it."""
    client = WAYS[way]()
    (hello,) = client.datagrams(0.0)
    answer = listener.greet(hello, peer, now)
    assert isinstance(answer, Answer)
    client.receive(answer.datagram, 0.0)
    (again,) = client.datagrams(0.0)
    return again


def begun(way: str = "deviceos") -> ServerHandshake:
    """A handshake that has sent its offer."""
    listener = a_listener()
    server = listener.greet(with_cookie(listener, way), PEER, 0.0)
    assert isinstance(server, ServerHandshake)
    server.datagrams(0.0)
    return server


def hello_like(change: Callable[[ClientHello], ClientHello], way: str = "deviceos") -> list[object]:
    """What a server says to a ClientHello that is changed, and has a good cookie."""
    client_hello = read_client_hello(first_hello(way)[25:])
    changed = change(client_hello)
    listener = a_listener()
    now = 0.0

    def send(hello: ClientHello, number: int) -> Answer | ServerHandshake | None:
        message = whole(1, number, write_client_hello(hello))
        return listener.greet(write_record(HANDSHAKE, number, message), PEER, now)

    answer = send(changed, 0)
    assert isinstance(answer, Answer)
    server = send(msgspec.structs.replace(changed, cookie=answer.datagram[-COOKIE:]), 1)
    assert isinstance(server, ServerHandshake)
    return [server, *server.events()]


# --- before the cookie ---


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_without_a_cookie_is_no_longer_than_the_question(way: str) -> None:
    hello = first_hello(way)
    answer = a_listener().greet(hello, PEER, 0.0)
    assert isinstance(answer, Answer)
    assert len(answer.datagram) == 44
    assert len(answer.datagram) < len(hello)


def test_the_shortest_hello_gets_no_longer_answer() -> None:
    hello = ClientHello(0xFEFD, bytes(32), b"", b"", (0xC0A8,), b"\0", {})
    datagram = write_record(HANDSHAKE, 0, whole(1, 0, write_client_hello(hello)))
    answer = a_listener().greet(datagram, PEER, 0.0)
    assert isinstance(answer, Answer)
    assert len(answer.datagram) < len(datagram)


def test_nothing_is_kept_of_who_sent_no_cookie() -> None:
    listener = a_listener()
    before = {name: repr(value) for name, value in vars(listener).items()}
    for number in range(50):
        listener.greet(first_hello(), b"peer %d" % number, 0.0)
    assert {name: repr(value) for name, value in vars(listener).items()} == before


def test_a_cookie_is_good_for_its_address_and_its_hello_only() -> None:
    listener = a_listener()
    hello = with_cookie(listener)
    assert isinstance(listener.greet(hello, b"somebody else", 0.0), Answer)
    changed = bytearray(hello)
    changed[30] ^= 1
    assert isinstance(listener.greet(bytes(changed), PEER, 0.0), Answer)
    assert isinstance(a_listener().greet(hello, PEER, 0.0), Answer)
    assert isinstance(listener.greet(hello, PEER, 0.0), ServerHandshake)


def test_a_cookie_grows_old() -> None:
    listener = a_listener()
    for made in (0.0, 59.9, 12345.6):
        hello = with_cookie(listener, now=made)
        assert isinstance(listener.greet(hello, PEER, made + PERIOD_S), ServerHandshake)
        assert isinstance(listener.greet(hello, PEER, made + 2 * PERIOD_S), Answer)
        # Not even when the number of its period comes round.
        assert isinstance(listener.greet(hello, PEER, made + 256 * PERIOD_S), Answer)


def test_a_hello_in_pieces_gets_no_answer() -> None:
    body = first_hello()[25:]
    piece = header(1, len(body), 0, 0, 40) + body[:40]
    assert a_listener().greet(write_record(HANDSHAKE, 0, piece), PEER, 0.0) is None


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(captured.FLIGHT_5)
@example(captured.DEVICE_RECORD)
def test_greeting_answers_hellos_only(datagram: bytes) -> None:
    listener = a_listener()
    assert listener.greet(datagram, PEER, 0.0) is None
    content = whole(HandshakeType.CLIENT_HELLO, 0, datagram)
    answer = listener.greet(write_record(HANDSHAKE, 0, content), PEER, 0.0)
    assert answer is None or isinstance(answer, Answer)


# --- negotiation ---


def without(number: int) -> Callable[[ClientHello], ClientHello]:
    return lambda hello: msgspec.structs.replace(
        hello, extensions={kind: body for kind, body in hello.extensions.items() if kind != number}
    )


def replaced(number: int, body: bytes) -> Callable[[ClientHello], ClientHello]:
    return lambda hello: msgspec.structs.replace(hello, extensions={**hello.extensions, number: body})


@pytest.mark.parametrize(
    ("way", "change", "alert"),
    [
        ("deviceos", lambda hello: msgspec.structs.replace(hello, suites=(0xC0AF,)), Alert.HANDSHAKE_FAILURE),
        ("deviceos", without(13), Alert.HANDSHAKE_FAILURE),
        ("deviceos", without(19), Alert.HANDSHAKE_FAILURE),
        ("deviceos", replaced(10, b"\0\2\0\x18"), Alert.HANDSHAKE_FAILURE),
        ("deviceos", replaced(10, b"\0\1\0"), Alert.DECODE_ERROR),
        ("deviceos", replaced(254, b""), Alert.DECODE_ERROR),
        ("deviceos", replaced(254, b"\2\0"), Alert.DECODE_ERROR),
        ("deviceos-3.0", without(13), Alert.HANDSHAKE_FAILURE),
        ("deviceos-3.0", replaced(10, b"\0\2\0\x18"), Alert.HANDSHAKE_FAILURE),
        ("keys", without(19), Alert.HANDSHAKE_FAILURE),
        ("keys", without(20), Alert.HANDSHAKE_FAILURE),
        ("keys", replaced(20, b"\1\0"), Alert.HANDSHAKE_FAILURE),
        ("keys", replaced(13, b"\0\2\4\1"), Alert.HANDSHAKE_FAILURE),
        ("keys", replaced(23, b"\0"), Alert.DECODE_ERROR),
        ("keys", replaced(0xFF01, b"\1\0"), Alert.HANDSHAKE_FAILURE),
        ("psk", lambda hello: msgspec.structs.replace(hello, version=0xFEFF), Alert.PROTOCOL_VERSION),
        ("psk", lambda hello: msgspec.structs.replace(hello, version=0x0303), Alert.PROTOCOL_VERSION),
        ("psk", lambda hello: msgspec.structs.replace(hello, compression=b"\1"), Alert.ILLEGAL_PARAMETER),
        ("psk", lambda hello: msgspec.structs.replace(hello, suites=(0x00FF, 0xC02B)), Alert.HANDSHAKE_FAILURE),
        ("ecdhe-psk", replaced(10, b"\0\2\0\x1d"), Alert.HANDSHAKE_FAILURE),
        ("psk-cid", replaced(54, b"\1"), Alert.DECODE_ERROR),
    ],
)
def test_what_does_not_fit_is_refused(way: str, change: Callable[[ClientHello], ClientHello], alert: Alert) -> None:
    server, failed = hello_like(change, way)
    assert isinstance(server, ServerHandshake)
    assert isinstance(failed, Failed)
    assert (failed.alert, failed.by_peer) == (alert, False)
    (datagram,) = server.datagrams(0.0)
    assert datagram[0] == 21
    assert datagram[13:] == bytes((2, alert))
    assert server.deadline() is None


def test_the_draft_s_connection_id_alone_makes_no_device_os_device() -> None:
    # Such as a program with mbedTLS 2 and a pre-shared key: it gets along without connection ids.
    (server,) = hello_like(lambda hello: msgspec.structs.replace(hello, suites=(0xC0A8,)))
    assert isinstance(server, ServerHandshake)
    (offer,) = server.datagrams(0.0)
    hello = read_server_hello(offer[25 : 13 + int.from_bytes(offer[11:13], "big")])
    assert hello.suite == 0xC0A8
    assert 254 not in hello.extensions


def test_a_newer_version_is_answered_with_ours() -> None:
    (server,) = hello_like(lambda hello: msgspec.structs.replace(hello, version=0xFEFC), "psk")
    assert isinstance(server, ServerHandshake)
    assert server.datagrams(0.0)[0][25:27] == b"\xfe\xfd"


# --- after the cookie ---


def test_a_silent_client_is_forgotten() -> None:
    listener = a_listener()
    server = listener.greet(with_cookie(listener), PEER, 0.0)
    assert isinstance(server, ServerHandshake)
    sent = [(0.0, server.datagrams(0.0))]
    while (due := server.deadline()) is not None:
        server.tick(due)
        sent.append((due, server.datagrams(due)))
    assert due is None
    assert [when for when, _ in sent] == [0.0, 3.0, 9.0, 21.0, 45.0, LIFETIME_S]
    assert sent[-1][1] == []
    (failed,) = server.events()
    assert failed == Failed("the peer did not answer in time", None, False)


def test_a_repeated_hello_is_answered_a_few_times() -> None:
    listener = a_listener()
    hello = with_cookie(listener)
    server = listener.greet(hello, PEER, 0.0)
    assert isinstance(server, ServerHandshake)
    answers = len(server.datagrams(0.0))
    for step in range(200):
        now = step * 0.1
        assert server.continues(hello)
        server.receive(hello, now)
        answers += len(server.datagrams(now))
    assert answers <= MAX_SENDS


def fragment(kind: int, length: int, sequence: int, offset: int, data: bytes, record: int = 100) -> bytes:
    return write_record(HANDSHAKE, record, header(kind, length, sequence, offset, len(data)) + data)


def test_fragments_that_never_end_hold_little() -> None:
    server = begun()
    dice = random.Random(1)
    for _ in range(3000):
        length = dice.randrange(1, MAX_MESSAGE)
        offset = dice.randrange(length)
        data = bytes(dice.randrange(1, min(50, length - offset) + 1))
        # Never the whole, and mostly not the first.
        server.receive(fragment(11, length, dice.randrange(2, 60000), offset, data), 1.0)
        assert server._assembly.buffered <= MAX_BUFFERED + MAX_MESSAGE
    assert server.events() == []


def test_bytes_may_come_one_by_one_and_in_any_order_and_twice() -> None:
    client = WAYS["deviceos"]()
    conversation = Conversation(client, a_listener())

    class OneByOne(Wire):
        def carry(self, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
            if datagram[13] == 1 or datagram[0] != 22:
                return super().carry(datagram, now)
            arrivals = []
            number = 1000
            for record in read_records(datagram, 8):
                if record.epoch or record.content_type != HANDSHAKE:
                    arrivals.append((now + 0.2, record.raw))
                    continue
                kind, message = record.content[0], record.content[12:]
                sequence = int.from_bytes(record.content[4:6], "big")
                for at in range(max(len(message), 1)):
                    part = message[at : at + 3]
                    number += 1
                    arrivals += [(now + 0.1, fragment(kind, len(message), sequence, at, part, number))] * 2
            self.dice.shuffle(arrivals)
            return arrivals

    conversation.wire = OneByOne()
    conversation.run(2.5)
    assert conversation.done
    conversation.talk()


def test_a_message_that_is_too_long_ends_it() -> None:
    server = begun()
    server.receive(fragment(11, MAX_MESSAGE + 1, 2, 0, b"x"), 1.0)
    (failed,) = server.events()
    assert isinstance(failed, Failed)
    assert failed.alert == Alert.DECODE_ERROR


def test_a_message_out_of_turn_ends_it() -> None:
    server = begun()
    server.receive(fragment(16, 1, 2, 0, b"\0"), 1.0)
    (failed,) = server.events()
    assert isinstance(failed, Failed)
    assert failed.alert == Alert.UNEXPECTED_MESSAGE
    # And nothing more comes of it.
    server.receive(fragment(16, 1, 2, 0, b"\0"), 1.0)
    assert server.events() == []


def test_a_client_without_a_key_is_refused() -> None:
    server = begun()
    server.receive(fragment(11, 3, 2, 0, b"\0\0\0"), 1.0)
    (failed,) = server.events()
    assert isinstance(failed, Failed)
    assert failed.alert == Alert.HANDSHAKE_FAILURE


def test_a_finished_message_in_the_clear_is_nobody_s() -> None:
    server = begun()
    server.receive(fragment(20, 12, 2, 0, bytes(12)), 1.0)
    assert server.events() == []
    assert server.deadline() is not None


def test_a_point_off_the_curve_ends_it_before_anybody_is_asked() -> None:
    server = begun("ecdhe-psk")
    body = b"\0\2id" + b"\x41\x04" + bytes(64)
    server.receive(fragment(16, len(body), 2, 0, body), 1.0)
    (failed,) = server.events()
    assert isinstance(failed, Failed)
    assert failed.alert == Alert.ILLEGAL_PARAMETER


def test_early_records_are_kept_within_bounds() -> None:
    server = begun()
    record = b"\x19\xfe\xfd\0\1" + bytes(6) + (1).to_bytes(8, "big") + b"\0\x20" + bytes(32)
    for _ in range(100):
        server.receive(record, 1.0)
    assert len(server._early) == MAX_EARLY
    server = begun()
    long = b"\x19\xfe\xfd\0\1" + bytes(6) + (1).to_bytes(8, "big") + (1400).to_bytes(2, "big") + bytes(1400)
    for _ in range(100):
        server.receive(long, 1.0)
    assert len(server._early) == 2


def test_warnings_are_ignored_and_a_fatal_alert_ends_it() -> None:
    server = begun()
    server.receive(write_record(21, 50, b"\1\x64"), 1.0)
    server.receive(write_record(21, 51, b"\2"), 1.0)
    assert server.events() == []
    server.receive(write_record(21, 52, b"\2\x28"), 1.0)
    assert server.events() == [Failed("the peer said handshake_failure", 40, True)]
    assert server.datagrams(1.0) == []
    server = begun()
    server.receive(write_record(21, 52, b"\2\xfa"), 1.0)
    assert server.events() == [Failed("the peer said alert 250", 250, True)]


def test_an_alert_in_the_clear_does_not_end_a_session() -> None:
    conversation = shake("deviceos")
    assert conversation.server is not None
    conversation.server.receive(write_record(21, 52, b"\2\x28"), 1.0)
    assert conversation.server.events() == []


def test_a_key_that_comes_too_late_or_twice_changes_nothing() -> None:
    conversation = shake("psk")
    assert conversation.server is not None
    conversation.server.provide_psk(b"another", 1.0)
    assert conversation.server.events() == []
    conversation.talk()


def test_while_the_key_is_looked_up_nothing_is_sent_again() -> None:
    client = ClientHandshake(PSK, 0.0, "rfc", suites=[0xC0A8])
    conversation = Conversation(client, a_listener(), lookup_s=20.0).run()
    assert conversation.done
    sizes = [len(one.datagram) for one in conversation.said if not one.to_server]
    assert sizes == [44, 99, 67]
    assert conversation.identities == [PSK.identity]


# --- anything at all ---


@settings(max_examples=300, deadline=None)
@given(
    way=st.sampled_from(sorted(WAYS)),
    garbage=st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.tuples(st.sampled_from([20, 21, 22, 23, 25, 253]), st.integers(0, 2), st.binary(max_size=60)).map(
                lambda it: bytes((it[0], 0xFE, 0xFD, 0, it[1])) + bytes(6) + len(it[2]).to_bytes(2, "big") + it[2]
            ),
            st.tuples(
                st.sampled_from([0, 1, 2, 3, 4, 11, 12, 13, 14, 15, 16, 20, 99]),
                st.integers(0, 6),
                st.binary(max_size=90),
            ).map(lambda it: write_record(HANDSHAKE, 7, whole(it[0], it[1], it[2]))),
        ),
        max_size=6,
    ),
    after=st.integers(0, 5),
)
def test_no_bytes_make_a_handshake_raise(way: str, garbage: list[bytes], after: int) -> None:
    conversation = Conversation(WAYS[way](), a_listener()).run(after * 0.05)
    for datagram in garbage:
        conversation.at_server(datagram)
        conversation._at_client(datagram)
    conversation.run(60.0)
    for side in (conversation.client, conversation.server):
        if side is not None:
            for datagram in garbage:
                side.receive(datagram, 61.0)
                side.datagrams(61.0)
                side.events()


@settings(max_examples=200, deadline=None)
@given(
    way=st.sampled_from(sorted(WAYS)),
    which=st.integers(0, 5),
    at=st.integers(0, 400),
    value=st.binary(min_size=1, max_size=4),
)
def test_no_changed_datagram_makes_a_handshake_raise(way: str, which: int, at: int, value: bytes) -> None:
    class Changes(Wire):
        count = -1

        def carry(self, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
            self.count += 1
            if self.count == which:
                place = at % len(datagram)
                datagram = (datagram[:place] + value + datagram[place + len(value) :])[: len(datagram)]
            return super().carry(datagram, now)

    conversation = Conversation(WAYS[way](), a_listener(), Changes()).run()
    assert (conversation.client_session is None) != (conversation.client_failed is None)
    if conversation.client_session is not None:
        conversation.talk()


def test_provided_keys_never_reach_the_events() -> None:
    server = begun("psk")
    body = b"\0\2id"
    server.receive(fragment(16, len(body), 2, 0, body), 1.0)
    (asked,) = server.events()
    assert asked == NeedsPsk(b"id")
    server.provide_psk(b"secret", 1.0)
    assert server.events() == []
