"""What a cloud asks a Device OS device, and what it answers (device-protocol.md, section 8), both ways.

The firmware reads function calls, variable requests, signals and the time at fixed places: the one-letter path comes
first, and the token has exactly one byte (Q12, Q13). So builders that need a token refuse any other.
"""

from __future__ import annotations

import struct

from msgspec import Struct

from wirechamber.protocols.coap.message import Code, Message, Option, Type, uint, write_message
from wirechamber.protocols.deviceos.messages import ContentFormat, Kind, path

# device-protocol.md, section 12.
MAX_NAME = 64
MAX_ARGUMENT = 1024
MAX_VALUE = 1024

Value = bool | int | float | str

# As descriptions code the types of variables (7.2), and as the API names them.
VARIABLE_TYPES = {1: "bool", 2: "int32", 4: "string", 9: "double"}
TYPE_CODES = {name: code for code, name in VARIABLE_TYPES.items()}

_GET, _POST, _PUT = Code.GET.value, Code.POST.value, Code.PUT.value


class BadAnswer(ValueError):
    """An answer of a device that is none."""


# --- the cloud writes ---


def function_call(name: str, argument: str | bytes, id: int, token: bytes) -> Message:
    """Calls a function. Answered on its own by 2.04; not at all if the device has no such function (Q16).

    Raises:
        ValueError: The name or the argument is too long, or the token is not one byte.
    """
    encoded = argument.encode() if isinstance(argument, str) else argument
    if len(encoded) > MAX_ARGUMENT:
        # The device answers 4.00, calls the function all the same, and answers again.
        raise ValueError(f"an argument longer than {MAX_ARGUMENT} bytes")
    # Without this option the device takes left-over bytes for the argument (Q15).
    options = (*path("f", _name(name)), (Option.URI_QUERY.value, encoded))
    return Message(Type.CON, _POST, id, _one_byte(token), options)


def variable_request(name: str, id: int, token: bytes) -> Message:
    """Asks for a variable. Answered on its own by 2.05, or by 4.04."""
    return Message(Type.CON, _GET, id, _one_byte(token), path("v", _name(name)))


def describe_request(kind: Kind, id: int, token: bytes, block2: bytes | None = None) -> Message:
    """Asks for one description. Answered on its own by 2.05; a long one in blocks.

    Args:
        kind: One kind: when asked for two at once, 6.2 drops the connection (Q17); without any it refuses (Q18).
        block2: Which block, for those after the first.
    """
    if kind not in (1, 2, 4):
        raise ValueError("one kind of description at a time")
    options = (*path("d"), (Option.URI_QUERY.value, bytes((kind,))))
    if block2 is not None:
        options = (*options, (Option.BLOCK2.value, block2))
    return Message(Type.CON, _GET, id, _one_byte(token), options)


def event_to_device(
    name: str, payload: bytes, content_format: int | None, id: int, *, confirmable: bool = True
) -> Message:
    """An event for a device's handlers. Answered by an ACK, if it is to be confirmed.

    Args:
        name: Longer ones are cut where the device would cut them. It goes in one option, as firmware up to 6.1 wants.
        content_format: None for text, and for all devices before 6.2: they understand no such option.
    """
    options = path("e", name.encode("utf-8", "replace")[:MAX_NAME])
    if content_format is not None:
        options = (*options, (Option.CONTENT_FORMAT.value, uint(content_format)))
    return Message(Type.CON if confirmable else Type.NON, _POST, id, b"", options, payload)


def signal(on: bool, id: int, token: bytes) -> Message:
    """Lets the device show a rainbow of colours, or stop it. Answered by 2.04 with the ACK."""
    options = (*path("s"), (Option.URI_QUERY.value, b"\1" if on else b"\0"))
    return Message(Type.CON, _PUT, id, _one_byte(token), options)


def discard_session(id: int) -> bytes:
    """Makes the device begin a new session, as bytes to be sent once, past the endpoint.

    The device acknowledges it with a message id of its own (Q21), so an endpoint would send it again, and again.
    """
    options = (*path("k"), (Option.URI_QUERY.value, b"\1"))
    return write_message(Message(Type.CON, _PUT, id, b"", options))


def ledger_notify(payload: bytes, id: int, token: bytes) -> Message:
    """Tells the device of a ledger's change: a protobuf `particle.cloud.Request`. Answered on its own by 2.04."""
    return Message(Type.CON, _POST, id, _one_byte(token), path("L"), payload)


def server_hello(id: int) -> Message:
    """The cloud's Hello, which a device on TCP waits for (device-protocol.md, section 5.3)."""
    return Message(Type.NON, _POST, id, b"", path("h"))


def time_answer(request: Message, unix_time: int) -> Message:
    """The answer to a question for the time, whose layout is fixed (7.5).

    Args:
        unix_time: Seconds since 1970.
    """
    return Message(
        Type.ACK, Code.CONTENT.value, request.id, request.token, (), (unix_time & 0xFFFFFFFF).to_bytes(4, "big")
    )


def _one_byte(token: bytes) -> bytes:
    if len(token) != 1:
        raise ValueError("the token must have one byte")
    return token


def _name(name: str) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) <= MAX_NAME:
        raise ValueError(f"a name must have 1 to {MAX_NAME} bytes")
    return encoded


# --- the cloud reads answers ---


def read_function_result(message: Message) -> int:
    """What a function returned.

    Raises:
        BadAnswer: It is no result of a function.
    """
    if message.code != Code.CHANGED or len(message.payload) != 4:
        raise BadAnswer("no result of a function")
    return int.from_bytes(message.payload, "big", signed=True)


def read_variable(message: Message, type: str) -> Value:
    """The value of a variable.

    Args:
        type: As the device's description has it: one of `VARIABLE_TYPES`.

    Raises:
        BadAnswer: The answer is no value of this type.
    """
    payload = message.payload
    if message.code != Code.CONTENT:
        raise BadAnswer("no value of a variable")
    if type == "string":
        return payload[:MAX_VALUE].decode("utf-8", "replace")
    if type == "bool" and len(payload) == 1:
        return payload != b"\0"
    if type == "int32" and len(payload) == 4:
        return int.from_bytes(payload, "big", signed=True)
    if type == "double" and len(payload) == 8:
        # Unlike all others, this one is little-endian (Q29).
        value: float = struct.unpack("<d", payload)[0]
        return value
    raise BadAnswer(f"no value of type {type}")


def read_time(message: Message) -> int:
    """The time that an answer tells, seconds since 1970.

    Raises:
        BadAnswer: It tells none.
    """
    if message.code != Code.CONTENT or len(message.payload) != 4:
        raise BadAnswer("no time")
    return int.from_bytes(message.payload, "big")


# --- a device reads ---


class FunctionCall(Struct, frozen=True):
    """A function is to be called."""

    name: str
    argument: bytes


class VariableRequest(Struct, frozen=True):
    """A variable is wanted."""

    name: str


class DescribeRequest(Struct, frozen=True):
    """A description is wanted, or (`block2`) a part of one."""

    kind: Kind
    block2: bytes | None = None


class Event(Struct, frozen=True):
    """An event for the device's handlers."""

    name: str
    payload: bytes
    content_format: int | None = None
    max_age: int | None = None


class Signal(Struct, frozen=True):
    """The rainbow is to begin or to end."""

    on: bool


class DiscardSession(Struct, frozen=True):
    """The session is to be thrown away."""


class LedgerNotify(Struct, frozen=True):
    """A ledger has changed."""

    payload: bytes


class ServerHello(Struct, frozen=True):
    """The cloud's Hello."""


class CloudPing(Struct, frozen=True):
    """The cloud asks whether the device is there."""


class NotForDevices(Struct, frozen=True):
    """A request that Device OS would not answer.

    Attributes:
        fatal: It would drop the connection, too (Q14, Q17).
    """

    why: str
    fatal: bool = False


FromCloud = (
    FunctionCall | VariableRequest | DescribeRequest | Event | Signal | DiscardSession | LedgerNotify | ServerHello
    | CloudPing | NotForDevices
)  # fmt: skip


def read_from_cloud(message: Message) -> FromCloud:
    """Reads a request of the cloud, with the firmware's own strictness."""
    if not message.code:
        return CloudPing()
    options = message.options
    segments = tuple(message.all(Option.URI_PATH))
    if not options or options[0][0] != Option.URI_PATH or len(options[0][1]) != 1:
        return NotForDevices("the path does not come first")
    query = message.option(Option.URI_QUERY)
    letter = segments[0]
    name = b"/".join(segments[1:]).decode("utf-8", "replace")
    needs_token = letter in (b"f", b"v")
    if len(message.token) != 1 and letter not in (b"e", b"E", b"h", b"k"):
        return NotForDevices("the token is not one byte long", fatal=needs_token and not message.token)
    match message.code, letter:
        case Code.POST, b"f":
            return FunctionCall(name, query or b"")
        case Code.GET, b"v":
            return VariableRequest(name)
        case Code.GET, b"d":
            if query is None or len(query) != 1 or query[0] not in (1, 2, 4):
                return NotForDevices("not one kind of description", fatal=query == b"\3")
            return DescribeRequest(Kind(query[0]), message.option(Option.BLOCK2))
        case Code.POST, b"e" | b"E":
            return Event(name, message.payload, message.uint(Option.CONTENT_FORMAT), message.uint(Option.MAX_AGE))
        case Code.PUT, b"s" if query is not None:
            return Signal(query == b"\1")
        case Code.PUT, b"k":
            return DiscardSession()
        case Code.POST, b"L":
            return LedgerNotify(message.payload)
        case Code.POST, b"h":
            return ServerHello()
    return NotForDevices("nothing that a device knows")


# --- a device answers ---


def function_result(value: int, id: int, token: bytes) -> Message:
    """What a function returned, a signed 32-bit number."""
    return Message(Type.CON, Code.CHANGED.value, id, token, (), value.to_bytes(4, "big", signed=True))


def variable_value(value: Value, type: str, id: int, token: bytes) -> Message:
    """The value of a variable, in the form of its type; text is cut at 1024 bytes."""
    match type:
        case "bool":
            payload = b"\1" if value else b"\0"
        case "int32":
            payload = int(value).to_bytes(4, "big", signed=True)
        case "double":
            payload = struct.pack("<d", float(value))
        case "string":
            payload = str(value).encode()[:MAX_VALUE]
        case _:
            raise ValueError(f"no type of variables: {type}")
    return Message(Type.CON, Code.CONTENT.value, id, token, (), payload)


def no_such_variable(id: int, token: bytes) -> Message:
    """There is no variable of this name."""
    return Message(Type.CON, Code.NOT_FOUND.value, id, token)


def describe_answer(
    kind: Kind, payload: bytes, id: int, token: bytes, etag: bytes | None = None, block2: bytes | None = None
) -> Message:
    """A description that was asked for, or a block of one."""
    options: list[tuple[int, bytes]] = []
    if etag is not None:
        options.append((Option.ETAG.value, etag))
    if kind is Kind.SYSTEM and not payload.startswith(b"{"):
        options.append((Option.CONTENT_FORMAT.value, uint(ContentFormat.OCTET_STREAM)))
    if block2 is not None:
        options.append((Option.BLOCK2.value, block2))
    return Message(Type.CON, Code.CONTENT.value, id, token, tuple(options), payload)


def signal_answer(request: Message) -> Message:
    """The rainbow has begun, or ended."""
    return Message(Type.ACK, Code.CHANGED.value, request.id, request.token)
