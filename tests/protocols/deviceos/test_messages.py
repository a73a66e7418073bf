"""What devices of several years send, and what they might (device-protocol.md, sections 1, 6, 7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocols.deviceos import captured
from wirechamber.protocols.coap.message import Code, Malformed, Message, Option, Type, read_message, uint, write_message
from wirechamber.protocols.deviceos import messages
from wirechamber.protocols.deviceos.messages import (
    Describe,
    Flag,
    Goodbye,
    Hello,
    Kind,
    LedgerRequest,
    Publish,
    Subscribe,
    Unknown,
    path,
    read_hello,
    read_publish,
    read_request,
)


def con(code: int, *segments: str, payload: bytes = b"", more: tuple[tuple[int, bytes], ...] = ()) -> Message:
    return Message(Type.CON, code, 1, b"", (*path(*segments), *more), payload)


def refused(message: Message) -> int:
    told = read_request(message)
    assert isinstance(told, messages.Malformed)
    return told.code


# --- Hello ---


@pytest.mark.parametrize(
    ("payload", "hello"),
    [
        # Up to 2.3 over TCP, and over UDP.
        ("0006 0002 0032 0006", Hello(6, 2, Flag(0x32), 6)),
        ("0006 0002 0032 0006 000c 0123456789abcdef01234567", Hello(6, 2, Flag(0x32), 6, "0123456789abcdef01234567")),
        # As much as is there.
        ("0006 ffff 00b6 000d 0000 1838", Hello(6, None, Flag(0xB6), 13, None, 6200)),
        ("0006 ffff 00b6 000d 0000 1838 04", Hello(6, None, Flag(0xB6), 13, None, 6200)),
        ("0006 ffff 00b6 000d 0000 1838 0480 00a0", Hello(6, None, Flag(0xB6), 13, None, 6200, 1152)),
        # A later version with more at the end.
        (
            "0006 ffff 00b6 000d 0000 1838 0480 00a00000 0200 cafe",
            Hello(6, None, Flag(0xB6), 13, None, 6200, 1152, 0xA00000, 512),
        ),
        # Flags that are not known yet.
        ("0006 ffff ff00 000d", Hello(6, None, Flag(0xFF00), 13)),
    ],
)
def test_hellos_of_all_versions(payload: str, hello: Hello) -> None:
    assert read_request(con(Code.POST, "h", payload=bytes.fromhex(payload))) == hello


@pytest.mark.parametrize(
    "payload",
    ["", "00060002003200", "0006 0002 0032 0006 000c 0123", "0006 0002 0032 0006 0010 " + "00" * 16, "00" * 8 + "ffff"],
)
def test_hellos_that_are_none(payload: str) -> None:
    assert refused(con(Code.POST, "h", payload=bytes.fromhex(payload))) == Code.BAD_REQUEST


@given(
    st.builds(
        Hello,
        st.integers(0, 0xFFFF),
        st.none() | st.integers(0, 0xFFFE),
        st.integers(0, 0xFFFF).map(Flag),
        st.integers(0, 0xFFFF),
        st.none() | st.binary(min_size=12, max_size=12).map(bytes.hex),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFF),
    )
)
def test_a_hello_is_read_as_written(hello: Hello) -> None:
    assert read_hello(messages.write_hello(hello, 1).payload) == hello
    assert messages.write_hello(hello, 1).type is Type.CON


def test_short_hellos_are_written_as_old_firmware_does() -> None:
    udp = Hello(6, 2, Flag(0x32), 6, "0123456789abcdef01234567")
    assert len(messages.write_hello(udp, 1).payload) == 22
    assert len(messages.write_hello(udp, 1, tcp=True).payload) == 8


# --- describe ---


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b'{"f":[],"v":{}}', Kind.APPLICATION),
        (b'{"p":6,"m":[]}', Kind.SYSTEM),
        (b'{"f":[],"v":{},"p":6,"m":[]}', Kind.SYSTEM | Kind.APPLICATION),
        (b"{}", Kind.APPLICATION),
        (b"\0\4\0\2\0\4\0", Kind.METRICS),
        (b"\x0a\x00", Kind.SYSTEM),
    ],
)
def test_a_description_that_does_not_say_of_what(payload: bytes, kind: Kind) -> None:
    # Q30: by the query, then by the first byte.
    told = read_request(con(Code.POST, "d", payload=payload))
    assert isinstance(told, Describe)
    assert told.kind == kind


@pytest.mark.parametrize("query", [b"\0", b"\x08", b"\1\1"])
def test_a_description_of_nothing(query: bytes) -> None:
    assert refused(con(Code.POST, "d", payload=b"{}", more=((Option.URI_QUERY, query),))) == Code.BAD_REQUEST


def test_metrics_have_no_content_format() -> None:
    told = Describe(Kind.METRICS, b"\0\4\0\2\0\4\0")
    assert write_message(messages.write_describe(told, 1, b"t")).hex() == "4102000174b1644104ff00040002000400"


# --- events ---


def test_a_name_in_several_options_is_joined() -> None:
    # Q26.
    told = read_request(con(Code.POST, "E", "demo", "a", "tick", payload=b"x"))
    assert told == Publish("demo/a/tick", b"x", None, 60, True, 1)


def test_the_old_letter_for_public_events() -> None:
    told = read_publish(write_message(con(Code.POST, "e", "demo", payload=b"x")))
    assert told == Publish("demo", b"x", None, 60, True, 1, b"", False)


@pytest.mark.parametrize(("age", "ttl"), [("", 0), ("3c", 60), ("0e10", 3600), ("00003c", 60), ("00ffffff", 16777215)])
def test_max_age_in_up_to_four_bytes(age: str, ttl: int) -> None:
    # Q24. Up to 6.1 it is always three bytes long.
    message = con(Code.POST, "E", "x", more=((Option.MAX_AGE, bytes.fromhex(age)),), payload=b"d")
    for told in (read_request(message), read_publish(write_message(message))):
        assert told == Publish("x", b"d", None, ttl, True, 1)


def test_max_age_as_older_firmware_writes_it() -> None:
    event = Publish("x", b"", None, 3600, True, 1)
    assert messages.write_publish(event, before_6_2=True).option(Option.MAX_AGE) == b"\0\x0e\x10"


def test_empty_text_of_older_firmware() -> None:
    data = bytes.fromhex("40020001b1450178ff")
    expected = Publish("x", b"", None, 60, True, 1)
    assert read_publish(data) == expected
    assert read_request(read_message(data, strict=False)) == expected
    with pytest.raises(Malformed):
        read_message(data)


def test_an_event_with_a_token() -> None:
    data = bytes.fromhex("43020001" + "aabbcc" + "b1450178ff79")
    assert read_publish(data) == Publish("x", b"y", None, 60, True, 1, b"\xaa\xbb\xcc")


def test_an_event_in_blocks_is_left_to_the_thorough_reader() -> None:
    message = con(Code.POST, "E", "x", payload=bytes(16), more=((Option.BLOCK1, b"\x08"),))
    assert read_publish(write_message(message)) is None
    told = read_request(message)
    assert told == Publish("x", bytes(16), None, 60, True, 1, block1=b"\x08")
    assert messages.write_publish(told) == message


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (con(Code.POST, "E"), Code.BAD_REQUEST),
        (con(Code.POST, "E", ""), Code.BAD_REQUEST),
        (Message(Type.CON, Code.POST, 1, b"", ((11, b"E"), (11, b"\xff\xfe"))), Code.BAD_REQUEST),
        (con(Code.POST, "E", "x", more=((9, b""),)), Code.BAD_OPTION),
        (con(Code.POST, "E", "x", more=((35, b"coap://elsewhere"),)), Code.BAD_OPTION),
    ],
)
def test_events_that_are_none(message: Message, code: int) -> None:
    assert refused(message) == code
    assert read_publish(write_message(message)) is None


def test_options_that_do_not_matter_are_read_over() -> None:
    message = con(Code.POST, "E", "x", payload=b"y", more=((2048, b"?"), (Option.SIZE1, b"\1"), (12, b"toolong")))
    assert read_request(message) == Publish("x", b"y", None, 60, True, 1)


NAMES = st.text(min_size=1, max_size=64).map(lambda text: text.encode("utf-8", "replace").decode())
EVENTS = st.builds(
    Publish,
    NAMES,
    st.binary(max_size=40),
    st.none() | st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.booleans(),
    st.integers(0, 0xFFFF),
    st.binary(max_size=8),
    st.booleans(),
)


@given(EVENTS)
def test_events_are_read_as_written(event: Publish) -> None:
    data = write_message(messages.write_publish(event))
    assert read_request(read_message(data)) == event
    quick = read_publish(data)
    # Names of 269 bytes and more take another form, which firmware never has.
    assert quick == event or (quick is None and len(event.name.encode()) >= 269)


@given(st.binary(max_size=60), st.booleans(), st.sampled_from([b"", b"\xb1E\x01x", b"\xb1e\x0212\x11\x2a"]))
def test_the_quick_reader_never_disagrees_with_the_thorough_one(data: bytes, con_: bool, begin: bytes) -> None:
    datagram = bytes((0x40 if con_ else 0x50, 2, 0, 1)) + begin + data if begin else data
    quick = read_publish(datagram)
    if quick is not None:
        assert read_request(read_message(datagram, strict=False)) == quick


@given(st.binary(max_size=80))
def test_any_request_is_read_without_an_exception(data: bytes) -> None:
    try:
        message = read_message(data, strict=False)
    except Malformed:
        return
    read_request(message)


# --- subscribe ---


@pytest.mark.parametrize(
    ("message", "subscribe"),
    [
        (con(Code.GET, "e", "demo"), Subscribe("demo")),
        (con(Code.GET, "e", "demo", "x"), Subscribe("demo/x")),
        (con(Code.GET, "e"), Subscribe("")),
        (
            con(Code.GET, "e", "demo", more=((15, b"b"), (15, b"c"))),
            Subscribe("demo", binary=True, cbor=True),
        ),
        # Up to 6.1.
        (con(Code.GET, "e", "demo", more=((15, b"u"),)), Subscribe("demo", mine=True)),
        (
            con(Code.GET, "e", "demo", payload=b"0123456789ABCDEF01234567"),
            Subscribe("demo", device="0123456789abcdef01234567"),
        ),
        # Not known yet.
        (con(Code.GET, "e", "demo", more=((15, b"z"),)), Subscribe("demo")),
    ],
)
def test_subscriptions_of_all_versions(message: Message, subscribe: Subscribe) -> None:
    assert read_request(message) == subscribe


@pytest.mark.parametrize(
    "subscribe",
    [
        Subscribe("demo"),
        Subscribe("demo", binary=True),
        Subscribe("demo", mine=True),
        Subscribe("demo", device="0123456789abcdef01234567"),
    ],
)
@pytest.mark.parametrize("tcp", [False, True])
def test_subscriptions_are_read_as_written(subscribe: Subscribe, tcp: bool) -> None:
    message = messages.write_subscribe(subscribe, 1, tcp=tcp)
    assert message.type is (Type.NON if tcp else Type.CON)
    assert read_request(message) == subscribe


@pytest.mark.parametrize(
    "message",
    [
        con(Code.GET, "e", "x" * 65),
        con(Code.GET, "e", "x", payload=b"0123"),
        con(Code.GET, "e", "x", payload=b"0123456789abcdef0123456g"),
        con(Code.GET, "e", "x", payload=b"\xff" * 24),
    ],
)
def test_subscriptions_that_are_none(message: Message) -> None:
    assert refused(message) == Code.BAD_REQUEST


# --- Goodbye ---


@pytest.mark.parametrize(
    ("payload", "goodbye", "reasons"),
    [
        ("", Goodbye(), ""),
        ("00", Goodbye(), ""),
        ("0102", Goodbye(cloud=2), "user"),
        ("0305 46", Goodbye(cloud=5, reset=70), "system reset, reset update"),
        ("0306 8c01", Goodbye(cloud=6, reset=140), "sleep, reset user"),
        ("0506 9003", Goodbye(cloud=6, sleep=400), "sleep, sleep 400"),
        ("0903 04", Goodbye(cloud=3, network=4), "network, network listening"),
        ("0f01 0a 05 07", Goodbye(1, 10, 5, 7), "error, reset unknown, sleep 5, network unknown"),
        ("0b63 63 63", Goodbye(99, 99, None, 99), "cloud 99, reset 99, network 99"),
        # More fields than are known.
        ("1102 07", Goodbye(cloud=2), "user"),
    ],
)
def test_goodbyes(payload: str, goodbye: Goodbye, reasons: str) -> None:
    told = read_request(con(Code.POST, "x", payload=bytes.fromhex(payload)))
    assert told == goodbye
    assert told.reasons == reasons
    assert read_request(messages.write_goodbye(goodbye, 1)) == goodbye


@pytest.mark.parametrize("payload", ["01", "0180", "80", "03" + "80" * 10 + "01", "01" + "ff" * 9 + "7f"])
def test_goodbyes_that_are_cut_short(payload: str) -> None:
    assert refused(con(Code.POST, "x", payload=bytes.fromhex(payload))) == Code.BAD_REQUEST


def test_a_goodbye_over_tcp_wants_no_response() -> None:
    message = messages.write_goodbye(Goodbye(cloud=2), 1, tcp=True)
    assert message.type is Type.NON
    assert message.option(Option.NO_RESPONSE) == b""
    assert read_request(read_message(write_message(message))) == Goodbye(cloud=2)


# --- the rest ---


def test_ledgers() -> None:
    request = LedgerRequest(b"\x08\x01", b"\x0e", b"\1")
    message = messages.write_ledger(request, 1, b"t")
    assert read_request(read_message(write_message(message))) == request
    assert read_request(messages.write_ledger(LedgerRequest(b"x"), 1, b"t")) == LedgerRequest(b"x")


@pytest.mark.parametrize(
    ("message", "unknown"),
    [
        (con(Code.GET, "zz"), Unknown(Code.GET, "zz")),
        (con(Code.POST), Unknown(Code.POST, "")),
        (con(Code.GET, ".well-known", "x"), Unknown(Code.GET, ".well-known/x")),
        (con(Code.DELETE, "zz"), Unknown(Code.DELETE, "zz")),
        (Message(Type.CON, Code.POST, 1, b"", ((11, b"\xff"),)), Unknown(Code.POST, "\N{REPLACEMENT CHARACTER}")),
        # An acknowledgement of a firmware update, whose options are critical and known to nobody here.
        (read_message(bytes.fromhex("5002000eb141e106e901")), Unknown(Code.POST, "A")),
    ],
)
def test_requests_for_nothing(message: Message, unknown: Unknown) -> None:
    assert read_request(message) == unknown


@pytest.mark.parametrize("code", [Code.PUT, Code.DELETE, Code.FETCH, Code.PATCH, Code.IPATCH, 31])
@pytest.mark.parametrize("path", [("E", "x"), ("e",), ("t",), ("d",), ("h",), ("x",), ("L",), (".well-known", "core")])
def test_a_method_that_is_not_possible(code: int, path: tuple[str, ...]) -> None:
    told = read_request(con(code, *path))
    assert isinstance(told, messages.Malformed)
    assert told.code == Code.METHOD_NOT_ALLOWED


@pytest.mark.parametrize("code", [Code.FETCH, Code.PATCH, Code.IPATCH, 8])
def test_a_method_that_nobody_supports_is_not_possible_anywhere(code: int) -> None:
    told = read_request(con(code, "zz"))
    assert isinstance(told, messages.Malformed)
    assert told.code == Code.METHOD_NOT_ALLOWED


def test_an_unknown_critical_option_is_refused() -> None:
    message = con(Code.GET, "t", more=((2049, uint(1)),))
    assert refused(message) == Code.BAD_OPTION


def test_nothing_but_events_is_read_as_one() -> None:
    for name, data in vars(captured).items():
        if name.isupper() and isinstance(data, str):
            raw = bytes.fromhex(data)
            quick = read_publish(raw)
            event = raw[0] >> 4 in (4, 5) and isinstance(read_request(read_message(raw, strict=False)), Publish)
            assert event == (quick is not None), name
