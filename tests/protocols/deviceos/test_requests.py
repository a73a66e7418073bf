"""What devices are asked, and what they answer (device-protocol.md, section 8), with the particulars of section 1."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirechamber.protocols.coap.message import Code, Malformed, Message, Option, Type, read_message, write_message
from wirechamber.protocols.deviceos import requests
from wirechamber.protocols.deviceos.messages import Kind, path
from wirechamber.protocols.deviceos.requests import (
    BadAnswer,
    CloudPing,
    DescribeRequest,
    Event,
    FunctionCall,
    LedgerNotify,
    NotForDevices,
    ServerHello,
    Signal,
    read_from_cloud,
    read_function_result,
    read_time,
    read_variable,
)

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)


def test_the_argument_is_always_there() -> None:
    # Q15: without it, the function would get what is left in the device's buffer.
    message = requests.function_call("f", "", 1, b"t")
    assert message.option(Option.URI_QUERY) == b""
    assert write_message(message).hex() == "4102000174b166016640"


def test_an_argument_of_1024_bytes() -> None:
    message = requests.function_call("f", b"a" * 1024, 1, b"t")
    assert read_from_cloud(read_message(write_message(message))) == FunctionCall("f", b"a" * 1024)
    with pytest.raises(ValueError, match="longer than 1024 bytes"):
        requests.function_call("f", b"a" * 1025, 1, b"t")


@pytest.mark.parametrize("token", [b"", b"12"])
def test_a_token_has_one_byte(token: bytes) -> None:
    # Q12, Q14.
    with pytest.raises(ValueError, match="the token must have one byte"):
        requests.function_call("f", "", 1, token)
    with pytest.raises(ValueError, match="the token must have one byte"):
        requests.variable_request("v", 1, token)
    with pytest.raises(ValueError, match="the token must have one byte"):
        requests.describe_request(Kind.METRICS, 1, token)
    with pytest.raises(ValueError, match="the token must have one byte"):
        requests.signal(True, 1, token)
    with pytest.raises(ValueError, match="the token must have one byte"):
        requests.ledger_notify(b"", 1, token)


@pytest.mark.parametrize("name", ["", "x" * 65, "ä" * 33])
def test_names_that_no_device_has(name: str) -> None:
    with pytest.raises(ValueError, match="a name must have"):
        requests.function_call(name, "", 1, b"t")
    with pytest.raises(ValueError, match="a name must have"):
        requests.variable_request(name, 1, b"t")


@given(st.text(min_size=1, max_size=16), st.binary(max_size=1024))
def test_the_path_comes_first(name: str, argument: bytes) -> None:
    # Q13: the firmware reads at fixed places.
    name = name.encode("utf-8", "replace").decode()
    for message, letter in (
        (requests.function_call(name, argument, 0x1234, b"t"), b"f"),
        (requests.variable_request(name, 0x1234, b"t"), b"v"),
    ):
        assert write_message(message)[:7] == bytes((0x41, message.code, 0x12, 0x34)) + b"t\xb1" + letter


@pytest.mark.parametrize("kind", [Kind(0), Kind(3), Kind(7), Kind.SYSTEM | Kind.METRICS])
def test_one_kind_of_description_at_a_time(kind: Kind) -> None:
    # Q17, Q18.
    with pytest.raises(ValueError, match="one kind"):
        requests.describe_request(kind, 1, b"t")


@pytest.mark.parametrize(
    ("kind", "data"), [(1, "4101000174b1644101"), (2, "4101000174b1644102"), (4, "4101000174b1644104")]
)
def test_describe_requests(kind: int, data: str) -> None:
    message = requests.describe_request(Kind(kind), 1, b"t")
    assert write_message(message).hex() == data
    assert read_from_cloud(message) == DescribeRequest(Kind(kind))
    later = requests.describe_request(Kind(kind), 1, b"t", b"\x16")
    assert write_message(later).hex() == data + "8116"
    assert read_from_cloud(later) == DescribeRequest(Kind(kind), b"\x16")


def test_describe_answers() -> None:
    assert requests.describe_answer(Kind.SYSTEM, b"\x0a\0", 1, b"t").options == ((12, b"\x2a"),)
    assert requests.describe_answer(Kind.SYSTEM, b"{}", 1, b"t").options == ()
    assert requests.describe_answer(Kind.METRICS, b"\0", 1, b"t").options == ()


# --- values ---


@given(INT32)
def test_results_are_big_endian(value: int) -> None:
    message = requests.function_result(value, 1, b"t")
    assert message.payload == struct.pack(">i", value)
    assert read_function_result(message) == value


@given(
    INT32.map(lambda value: ("int32", value))
    | st.booleans().map(lambda value: ("bool", value))
    | st.floats(allow_nan=False).map(lambda value: ("double", value))
    | st.text(max_size=200).map(lambda value: ("string", value.encode("utf-8", "replace").decode()))
)
def test_variables_are_read_as_written(typed: tuple[str, requests.Value]) -> None:
    type, value = typed
    assert read_variable(requests.variable_value(value, type, 1, b"t"), type) == value


def test_doubles_are_little_endian_and_integers_are_not() -> None:
    # Q29.
    assert requests.variable_value(1.0, "double", 1, b"t").payload.hex() == "000000000000f03f"
    assert requests.variable_value(1, "int32", 1, b"t").payload.hex() == "00000001"
    assert requests.variable_value(True, "bool", 1, b"t").payload.hex() == "01"


def test_text_is_cut_and_need_not_be_whole() -> None:
    message = requests.variable_value("ä" * 600, "string", 1, b"t")
    assert len(message.payload) == 1024
    assert read_variable(message, "string") == "ä" * 512
    odd = Message(Type.CON, Code.CONTENT, 1, b"t", (), b"a\xff")
    assert read_variable(odd, "string") == "a\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("type", "payload"),
    [("int32", b""), ("int32", b"12345"), ("bool", b""), ("bool", b"12"), ("double", b"1234"), ("strange", b"1234")],
)
def test_values_that_are_none(type: str, payload: bytes) -> None:
    with pytest.raises(BadAnswer):
        read_variable(Message(Type.CON, Code.CONTENT, 1, b"t", (), payload), type)


def test_answers_that_are_none() -> None:
    missing = requests.no_such_variable(1, b"t")
    with pytest.raises(BadAnswer):
        read_variable(missing, "string")
    with pytest.raises(BadAnswer):
        read_function_result(missing)
    with pytest.raises(BadAnswer):
        read_function_result(Message(Type.CON, Code.CHANGED, 1, b"t", (), b"123"))
    with pytest.raises(BadAnswer):
        read_time(missing)
    with pytest.raises(ValueError, match="no type of variables"):
        requests.variable_value(1, "strange", 1, b"t")


def test_the_time_beyond_2106() -> None:
    answer = requests.time_answer(Message(Type.CON, Code.GET, 7, b"t", path("t")), 0x1_0000_0005)
    # Bytes 6 to 9, wherever the message came from (Q13, Q19).
    assert write_message(answer)[6:10] == b"\0\0\0\x05"


# --- events ---


def test_names_are_cut_where_devices_cut_them() -> None:
    message = requests.event_to_device("x" * 100, b"", None, 1)
    assert read_from_cloud(message) == Event("x" * 64, b"")


def test_events_with_content_formats() -> None:
    message = requests.event_to_device("x", b"\1", 60, 1, confirmable=False)
    assert write_message(message).hex() == "50020001b1650178113cff01"
    assert read_from_cloud(message) == Event("x", b"\1", 60)


# --- as the firmware reads ---


def test_a_path_that_does_not_come_first_is_not_seen() -> None:
    # Q13: with Uri-Host before it, there was no answer at all.
    message = Message(Type.CON, Code.GET, 1, b"t", ((3, b"host"), (11, b"v"), (11, b"x")))
    told = read_from_cloud(message)
    assert isinstance(told, NotForDevices)
    assert not told.fatal


@pytest.mark.parametrize(
    ("message", "fatal"),
    [
        # Q14: the device drops the connection.
        (Message(Type.CON, Code.POST, 1, b"", (*path("f", "x"), (15, b""))), True),
        (Message(Type.CON, Code.GET, 1, b"", path("v", "x")), True),
        # Q12: it says that it does not support those.
        (Message(Type.CON, Code.GET, 1, b"12", path("v", "x")), False),
        # Q17, Q18.
        (Message(Type.CON, Code.GET, 1, b"t", (*path("d"), (15, b"\3"))), True),
        (Message(Type.CON, Code.GET, 1, b"t", path("d")), False),
        (Message(Type.CON, Code.GET, 1, b"t", path("zz")), False),
        (Message(Type.CON, Code.POST, 1, b"t", path("Q")), False),
        (Message(Type.CON, Code.PUT, 1, b"t", path("s")), False),
        (Message(Type.CON, Code.GET, 1, b"t"), False),
    ],
)
def test_what_devices_do_not_answer(message: Message, fatal: bool) -> None:
    told = read_from_cloud(message)
    assert isinstance(told, NotForDevices)
    assert told.fatal == fatal


def test_the_rest_of_what_devices_are_told() -> None:
    assert read_from_cloud(Message(Type.CON, 0, 1)) == CloudPing()
    assert read_from_cloud(requests.server_hello(1)) == ServerHello()
    assert read_from_cloud(requests.ledger_notify(b"\x08\x06", 1, b"t")) == LedgerNotify(b"\x08\x06")
    assert read_from_cloud(requests.signal(False, 1, b"t")) == Signal(False)


@given(st.binary(max_size=60))
def test_anything_is_read_without_an_exception(data: bytes) -> None:
    try:
        message = read_message(data, strict=False)
    except Malformed:
        return
    read_from_cloud(message)
    for type in ("bool", "int32", "double", "string"):
        try:
            read_variable(message, type)
        except BadAnswer:
            continue
