"""Messages to bytes and back (RFC 7252, section 3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirechamber.protocols.coap.message import (
    MAX_MESSAGE,
    MAX_OPTION,
    MAX_OPTIONS,
    Code,
    Malformed,
    Message,
    Option,
    Type,
    ack,
    bad_option,
    code_text,
    ping,
    read_message,
    reset,
    uint,
    wants_response,
    write_message,
)


def options() -> st.SearchStrategy[tuple[tuple[int, bytes], ...]]:
    numbers = st.integers(0, 20) | st.integers(0, 0xFFFF) | st.sampled_from([12, 13, 14, 268, 269, 270, 282, 0xFFFF])
    values = st.binary(max_size=20) | st.sampled_from([12, 13, 268, 269, 270, MAX_OPTION]).map(bytes)
    pairs = st.lists(st.tuples(numbers, values), max_size=3)
    return pairs.map(lambda found: tuple(sorted(found, key=lambda pair: pair[0])))


MESSAGES = st.builds(
    Message,
    st.sampled_from(Type),
    st.sampled_from(Code).map(int).filter(bool),
    st.integers(0, 0xFFFF),
    st.binary(max_size=8),
    options(),
    st.binary(max_size=40),
)


@given(MESSAGES)
def test_what_is_written_is_read(message: Message) -> None:
    assert read_message(write_message(message)) == message


@given(st.binary(max_size=64) | MESSAGES.map(write_message))
def test_bytes_are_a_message_or_malformed(data: bytes) -> None:
    try:
        message = read_message(data, strict=False)
    except Malformed:
        return
    # Lengths may be written in more ways than one, so only what is said must be the same.
    assert read_message(write_message(message)) == message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "shorter than a header"),
        ("400200", "shorter than a header"),
        ("80020001", "not version 1"),
        ("49020001" + "00" * 9, "token longer than 8 bytes"),
        ("4f020001", "token longer than 8 bytes"),
        ("41020001", "token cut short"),
        ("4800000101", "an empty message with something in it"),
        ("40000001ff01", "an empty message with something in it"),
        ("4000000100", "an empty message with something in it"),
        ("40200001", "reserved code 1.00"),
        ("40c00001", "reserved code 6.00"),
        ("40e10001", "reserved code 7.01"),
        ("40020001ff", "a payload marker without payload"),
        ("40020001b2aa", "option cut short"),
        ("40020001d1", "option cut short"),
        ("40020001e001", "option cut short"),
        ("40020001bd", "option cut short"),
        ("40020001be00", "option cut short"),
        ("40020001f0", "reserved option delta"),
        ("400200010f", "reserved option length"),
        ("40020001e0fef3", "option number over 65535"),
        ("40020001ed03feff" + "00" * 20, "option cut short"),
        ("40020001be0302" + "00" * 1039, f"option longer than {MAX_OPTION} bytes"),
        ("40020001" + "10" * (MAX_OPTIONS + 1), f"more than {MAX_OPTIONS} options"),
        ("40020001ff" + "00" * MAX_MESSAGE, f"longer than {MAX_MESSAGE} bytes"),
    ],
)
def test_malformed(data: str, why: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_message(bytes.fromhex(data))
    problem = caught.value
    assert problem.why == why
    if why in ("shorter than a header", "not version 1"):
        # RFC 7252, section 3: another version is ignored silently.
        assert (problem.id, problem.type) == (None, None)
    else:
        assert (problem.id, problem.type) == (1, Type.CON)


def test_a_lone_payload_marker_is_an_empty_payload_of_device_os() -> None:
    assert read_message(bytes.fromhex("40020001b145ff"), strict=False).payload == b""


def test_empty_messages() -> None:
    assert ack(0x1234).hex() == "60001234"
    assert reset(0x1234).hex() == "70001234"
    assert ping(0x1234).hex() == "40001234"
    assert read_message(ack(7)) == Message(Type.ACK, 0, 7)
    assert write_message(Message(Type.CON, 0, 0x12)) == ping(0x12)


def test_numbers_take_as_few_bytes_as_they_need() -> None:
    assert [uint(value).hex() for value in (0, 1, 255, 256, 3600, 65001)] == ["", "01", "ff", "0100", "0e10", "fde9"]


def test_options_are_found_by_number() -> None:
    message = Message(Type.CON, 2, 1, b"", ((11, b"a"), (11, b"b"), (14, b"\0\x0e\x10"), (12, b"")))
    assert message.option(Option.URI_PATH) == b"a"
    assert list(message.all(Option.URI_PATH)) == [b"a", b"b"]
    assert message.uint(Option.MAX_AGE) == 3600
    assert message.uint(Option.CONTENT_FORMAT) == 0
    assert message.uint(Option.OBSERVE) is None
    assert message.is_request
    assert not message.is_response
    assert not read_message(ack(1)).is_request
    assert read_message(bytes.fromhex("60450001")).is_response


def test_options_are_written_in_order_and_those_of_one_number_stay_in_theirs() -> None:
    message = Message(Type.CON, 2, 1, b"", ((14, b"x"), (11, b"b"), (11, b"a")))
    assert read_message(write_message(message)).options == ((11, b"b"), (11, b"a"), (14, b"x"))


@pytest.mark.parametrize(
    "message",
    [
        Message(Type.CON, 2, 1, bytes(9)),
        Message(Type.CON, 0, 1, b"t"),
        Message(Type.CON, 0, 1, b"", (), b"p"),
        Message(Type.CON, 2, 1, b"", ((70_000 + 269, b""),)),
        Message(Type.CON, 2, 1, b"", ((1, bytes(70_000)),)),
    ],
)
def test_what_can_not_be_written(message: Message) -> None:
    with pytest.raises(ValueError, match=r"."):
        write_message(message)


def test_codes_as_people_write_them() -> None:
    assert [code_text(code) for code in (Code.EMPTY, Code.POST, Code.CONTENT, Code.NOT_FOUND)] == [
        "0.00", "0.02", "2.05", "4.04",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "refused"),
    [
        ((), None),
        (((11, b"a"), (11, b"b"), (15, b"")), None),
        (((11, b"a"), (9, b"")), 9),
        (((10, b""), (2048, b"")), None),
        (((2049, b"\1"),), 2049),
        (((3, b""),), 3),
        (((3, bytes(255)), (3, b"x")), 3),
        (((27, b"\1\2\3\4"),), 27),
        (((14, bytes(9)), (14, b"")), None),
    ],
)
def test_critical_options_are_known_allowed_and_not_repeated(
    found: tuple[tuple[int, bytes], ...], refused: int | None
) -> None:
    known = {Option.URI_HOST, Option.URI_PATH, Option.URI_QUERY, Option.BLOCK1}
    assert bad_option(Message(Type.CON, 2, 1, b"", found), known) == refused


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, [2, 4, 5]),
        (b"", [2, 4, 5]),
        (b"\x02", [4, 5]),
        (b"\x08", [2, 5]),
        (b"\x1a", []),
        (b"\x02\x02", [2, 4, 5]),
    ],
)
def test_no_response(value: bytes | None, wanted: list[int]) -> None:
    request = Message(Type.NON, 2, 1, b"", () if value is None else ((Option.NO_RESPONSE, value),))
    assert [kind for kind in (2, 4, 5) if wants_response(request, kind << 5)] == wanted
