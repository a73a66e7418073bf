"""Captured messages say what they say, and are produced byte for byte from that."""

from __future__ import annotations

import pytest

from tests.protocols.deviceos import captured
from wirechamber.protocols.coap.message import Code, Message, Option, Type, ack, read_message, write_message
from wirechamber.protocols.deviceos import messages, requests
from wirechamber.protocols.deviceos.messages import (
    Describe,
    Flag,
    Goodbye,
    Hello,
    Kind,
    Ping,
    Publish,
    Subscribe,
    TimeRequest,
    read_publish,
    read_request,
)

HELLO = Hello(
    product=3,
    product_version=None,
    flags=Flag.DIAGNOSTICS | Flag.IMMEDIATE_UPDATES | Flag.GOODBYE | Flag.DESCRIBES_ITSELF,
    platform=3,
    device="0123456789abcdef01234567",
    system_version=6200,
    max_message=1152,
    max_binary=0xA00000,
    chunk_size=512,
)


def read(data: str) -> Message:
    return read_message(bytes.fromhex(data))


def written(message: Message) -> str:
    return write_message(message).hex()


@pytest.mark.parametrize(
    "data", [value for name, value in vars(captured).items() if name.isupper() and type(value) is str]
)
def test_every_message_is_written_as_it_was_read(data: str) -> None:
    data += "00" * (data in (captured.DESCRIBE_BLOCK_0, captured.DESCRIBE_ANSWER_BLOCK_1))
    assert written(read(data)) == data


def test_hello() -> None:
    assert read_request(read(captured.HELLO)) == HELLO
    assert written(messages.write_hello(HELLO, 1)) == captured.HELLO


def test_hello_over_tcp() -> None:
    hello = read_request(read(captured.TCP_HELLO))
    assert isinstance(hello, Hello)
    assert hello.device is None
    assert (hello.system_version, hello.chunk_size) == (6200, 512)
    assert written(messages.write_hello(hello, 0x8405, tcp=True)) == captured.TCP_HELLO
    assert written(requests.server_hello(0x0485)) == captured.TCP_SERVER_HELLO


def test_describe() -> None:
    system = read_request(read(captured.SYSTEM_DESCRIBE))
    assert isinstance(system, Describe)
    assert (system.kind, system.content_format, system.block1) == (Kind.SYSTEM, 42, None)
    assert written(messages.write_describe(system, 2, b"\xb5")) == captured.SYSTEM_DESCRIBE
    application = read_request(read(captured.APPLICATION_DESCRIBE))
    assert isinstance(application, Describe)
    assert (application.kind, application.content_format) == (Kind.APPLICATION, None)
    assert written(messages.write_describe(application, 6, b"\xb7")) == captured.APPLICATION_DESCRIBE


def test_describe_in_blocks() -> None:
    data = captured.DESCRIBE_BLOCK_0 + "7b" * 1024
    block = read_request(read(data))
    assert block == Describe(Kind.APPLICATION, b"{" * 1024, None, b"\x0e")
    assert written(messages.write_describe(block, 6, b"\x9e")) == data


@pytest.mark.parametrize(
    ("data", "event"),
    [
        (captured.UPDATES_ENABLED, Publish("particle/device/updates/enabled", b"true", None, 60, True, 4)),
        (captured.UPDATES_FORCED, Publish("particle/device/updates/forced", b"false", None, 60, True, 5)),
        (captured.TICK, Publish("demo/tick", b'{"n":78,"t":21.5}', None, 60, True, 15)),
        (captured.NO_ACK, Publish("demo/noack", b"na", None, 60, False, 15)),
        (captured.NO_DATA, Publish("demo/none", b"", None, 60, True, 14)),
        (captured.BINARY, Publish("demo/bin", b"\0\1\2", 42, 60, True, 17)),
        (captured.TTL_3600, Publish("demo/ttl", b"t", None, 3600, True, 20)),
        (
            captured.STRUCTURED,
            Publish("demo/struct", bytes.fromhex("a361610161626374776f6163f5"), 65001, 60, True, 21),
        ),
        (captured.JSON_TYPE, Publish("demo/json", b'{"k":1}', 50, 60, True, 22)),
    ],
)
def test_events(data: str, event: Publish) -> None:
    raw = bytes.fromhex(data)
    assert read_publish(raw) == event
    assert read_request(read_message(raw)) == event
    assert written(messages.write_publish(event)) == data


@pytest.mark.parametrize(("data", "prefix"), captured.SUBSCRIPTIONS.items())
def test_subscriptions(data: str, prefix: str) -> None:
    subscribe = read_request(read(data))
    assert subscribe == Subscribe(prefix, binary=prefix == "demo/bin", cbor=prefix == "demo/var")
    assert written(messages.write_subscribe(subscribe, int(data[4:8], 16))) == data
    assert read_publish(bytes.fromhex(data)) is None


def test_time() -> None:
    request = read(captured.TIME_REQUEST)
    assert read_request(request) == TimeRequest()
    assert written(messages.write_time_request(3, b"\xb6")) == captured.TIME_REQUEST
    answer = requests.time_answer(request, 0x6B0398C8)
    assert written(answer) == captured.TIME
    assert requests.read_time(read(captured.TIME)) == 0x6B0398C8


def test_goodbye() -> None:
    goodbye = read_request(read(captured.GOODBYE))
    assert goodbye == Goodbye(cloud=2)
    assert goodbye.reasons == "user"
    assert written(messages.write_goodbye(goodbye, 17)) == captured.GOODBYE


def test_ping() -> None:
    assert read_request(read(captured.PING)) == Ping()
    assert messages.write_ping(18).hex() == captured.PING
    assert ack(18).hex() == captured.PONG


def test_function_call() -> None:
    assert written(requests.function_call("set", "77", 0xFB01, b"\x21")) == captured.CALL_SET
    assert written(requests.function_call("cmd", "graceful", 0xFB04, b"\x22")) == captured.CALL_CMD
    assert requests.read_from_cloud(read(captured.CALL_SET)) == requests.FunctionCall("set", b"77")
    for data, value in ((captured.CALL_RESULT, 77), (captured.CMD_RESULT, 0), (captured.RESULT_MINUS_1, -1)):
        message = read(data)
        assert requests.read_function_result(message) == value
        assert written(requests.function_result(value, message.id, message.token)) == data


@pytest.mark.parametrize(
    ("data", "type", "value"),
    [(captured.COUNTER, "int32", 77), (captured.DOUBLE_21_5, "double", 21.5), (captured.BOOL, "bool", True)],
)
def test_variables(data: str, type: str, value: requests.Value) -> None:
    message = read(data)
    assert requests.read_variable(message, type) == value
    assert written(requests.variable_value(value, type, message.id, message.token)) == data


def test_variable_request() -> None:
    assert written(requests.variable_request("counter", 0xFB02, b"\x31")) == captured.READ_COUNTER
    assert requests.read_from_cloud(read(captured.READ_COUNTER)) == requests.VariableRequest("counter")
    assert written(requests.no_such_variable(0x13, b"\x36")) == captured.UNKNOWN_VARIABLE
    assert read(captured.UNKNOWN_VARIABLE).code == Code.NOT_FOUND


def test_event_to_device() -> None:
    assert written(requests.event_to_device("demo/cmd/x", b"hi", None, 0xFB03)) == captured.COMMAND_EVENT
    assert requests.read_from_cloud(read(captured.COMMAND_EVENT)) == requests.Event("demo/cmd/x", b"hi")


def test_signal() -> None:
    assert written(requests.signal(True, 0xAD0D, b"\x51")) == captured.SIGNAL
    assert requests.read_from_cloud(read(captured.SIGNAL)) == requests.Signal(True)
    assert written(requests.signal_answer(read(captured.SIGNAL))) == captured.SIGNAL_ANSWER


def test_discard_session() -> None:
    assert requests.discard_session(0x9C01).hex() == captured.DISCARD_SESSION
    assert requests.read_from_cloud(read(captured.DISCARD_SESSION)) == requests.DiscardSession()


def test_describe_answer_in_blocks() -> None:
    data = captured.DESCRIBE_ANSWER_BLOCK_1 + "61" * 1024
    message = read(data)
    assert (message.type, message.option(Option.ETAG), message.option(Option.BLOCK2)) == (Type.CON, b"\1", b"\x1e")
    answer = requests.describe_answer(Kind.APPLICATION, message.payload, 0x10, b"\x42", b"\1", b"\x1e")
    assert written(answer) == data
