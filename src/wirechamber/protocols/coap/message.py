"""CoAP messages as bytes (RFC 7252, section 3), and the options around them.

Reading is bounded: a message is at most `MAX_MESSAGE` bytes, has at most `MAX_OPTIONS` options, and none of them is
longer than `MAX_OPTION`. Whatever breaks a rule is `Malformed`, which knows what must be known to answer it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum

from msgspec import Struct

VERSION = 1
# The largest datagram that a peer may send us. Device OS takes and sends 1152 bytes and a bit more on some platforms;
# the rest is room for peers that do not fragment at the CoAP level.
MAX_MESSAGE = 4096
# Device OS uses five at most. A message of one-byte options would otherwise make a list as long as itself.
MAX_OPTIONS = 32
# RFC 7252, section 5.10: the longest option, Proxy-Uri, has 1034 bytes. An argument of a function has up to 1024.
MAX_OPTION = 1034
MAX_TOKEN = 8

_PAYLOAD_MARKER = 0xFF
# RFC 7252, section 3.1: from here on an option's delta or length needs one, or two, bytes more.
_ONE_BYTE = 13
_TWO_BYTES = 269
# The option numbers are 16 bits long.
_MAX_NUMBER = 0xFFFF


class Type(IntEnum):
    """What a message wants from the message layer."""

    CON = 0
    NON = 1
    ACK = 2
    RST = 3


_TYPES = (Type.CON, Type.NON, Type.ACK, Type.RST)


class Code(IntEnum):
    """Methods and response codes: class in the upper three bits, detail in the lower five."""

    EMPTY = 0x00
    GET = 0x01
    POST = 0x02
    PUT = 0x03
    DELETE = 0x04
    FETCH = 0x05
    PATCH = 0x06
    IPATCH = 0x07
    CREATED = 0x41
    DELETED = 0x42
    VALID = 0x43
    CHANGED = 0x44
    CONTENT = 0x45
    CONTINUE = 0x5F
    BAD_REQUEST = 0x80
    UNAUTHORIZED = 0x81
    BAD_OPTION = 0x82
    FORBIDDEN = 0x83
    NOT_FOUND = 0x84
    METHOD_NOT_ALLOWED = 0x85
    NOT_ACCEPTABLE = 0x86
    REQUEST_ENTITY_INCOMPLETE = 0x88
    CONFLICT = 0x89
    PRECONDITION_FAILED = 0x8C
    REQUEST_ENTITY_TOO_LARGE = 0x8D
    UNSUPPORTED_CONTENT_FORMAT = 0x8F
    UNPROCESSABLE_ENTITY = 0x96
    TOO_MANY_REQUESTS = 0x9D
    INTERNAL_SERVER_ERROR = 0xA0
    NOT_IMPLEMENTED = 0xA1
    BAD_GATEWAY = 0xA2
    SERVICE_UNAVAILABLE = 0xA3
    GATEWAY_TIMEOUT = 0xA4
    PROXYING_NOT_SUPPORTED = 0xA5


class Option(IntEnum):
    """Numbers of options (RFC 7252, 7641, 7959, 7967, 9175)."""

    IF_MATCH = 1
    URI_HOST = 3
    ETAG = 4
    IF_NONE_MATCH = 5
    OBSERVE = 6
    URI_PORT = 7
    LOCATION_PATH = 8
    URI_PATH = 11
    CONTENT_FORMAT = 12
    MAX_AGE = 14
    URI_QUERY = 15
    ACCEPT = 17
    LOCATION_QUERY = 20
    BLOCK2 = 23
    BLOCK1 = 27
    SIZE2 = 28
    PROXY_URI = 35
    PROXY_SCHEME = 39
    SIZE1 = 60
    NO_RESPONSE = 258
    REQUEST_TAG = 292


# RFC 7252, section 5.10: how long each option's value may be. Others: 0 to MAX_OPTION.
_LENGTHS: dict[int, tuple[int, int]] = {
    Option.IF_MATCH: (0, 8),
    Option.URI_HOST: (1, 255),
    Option.ETAG: (1, 8),
    Option.IF_NONE_MATCH: (0, 0),
    Option.OBSERVE: (0, 3),
    Option.URI_PORT: (0, 2),
    Option.CONTENT_FORMAT: (0, 2),
    Option.MAX_AGE: (0, 4),
    Option.ACCEPT: (0, 2),
    Option.BLOCK2: (0, 3),
    Option.BLOCK1: (0, 3),
    Option.SIZE2: (0, 4),
    Option.SIZE1: (0, 4),
    Option.NO_RESPONSE: (0, 1),
    Option.REQUEST_TAG: (0, 8),
}
_REPEATABLE = frozenset(
    (
        Option.IF_MATCH, Option.ETAG, Option.LOCATION_PATH, Option.URI_PATH, Option.URI_QUERY, Option.LOCATION_QUERY,
        Option.REQUEST_TAG,
    )
)  # fmt: skip


class Malformed(ValueError):
    """A message that breaks a rule of its format.

    Attributes:
        why: What is wrong with it.
        id: Its message id; None when it is too short to have one, or of another version of CoAP: then it must be
            ignored silently (RFC 7252, section 3).
        type: Its type, of which a CON is to be answered, by RST or, where the peer would take that for more than it
            is, by 4.00.
    """

    def __init__(self, why: str, id: int | None = None, type: Type | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.id = id
        self.type = type


class Message(Struct, frozen=True, gc=False):
    """One CoAP message.

    Attributes:
        code: Of a request, a response, or 0: empty, a ping if it is a CON.
        id: 16 bits; pairs an ACK or RST with what it answers, and tells duplicates.
        token: 0 to 8 bytes; pairs a response with its request.
        options: Numbers and values. When written, they are put in the order of their numbers.
    """

    type: Type
    code: int
    id: int
    token: bytes = b""
    options: tuple[tuple[int, bytes], ...] = ()
    payload: bytes = b""

    def option(self, number: int) -> bytes | None:
        """The value of the first option of this number."""
        for found, value in self.options:
            if found == number:
                return value
        return None

    def all(self, number: int) -> Iterator[bytes]:
        """The values of all options of this number."""
        return (value for found, value in self.options if found == number)

    def uint(self, number: int) -> int | None:
        """The value of an option that is a number; leading zero bytes are allowed (RFC 7252, section 3.2)."""
        value = self.option(number)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def is_request(self) -> bool:
        """Whether the code is a method."""
        return 0 < self.code < 0x20

    @property
    def is_response(self) -> bool:
        """Whether the code is of a response, good or bad."""
        return self.code >= 0x40


def uint(value: int) -> bytes:
    """A number as an option has it: as few bytes as it takes, none for 0 (RFC 7252, section 3.2)."""
    return value.to_bytes((value.bit_length() + 7) >> 3, "big")


def code_text(code: int) -> str:
    """A code as people write it: `4.04`."""
    return f"{code >> 5}.{code & 31:02}"


def ack(id: int) -> bytes:
    """The empty acknowledgement of a message."""
    return b"\x60\0" + id.to_bytes(2, "big")


def reset(id: int) -> bytes:
    """The rejection of a message. Device OS throws its session away when it gets one (device-protocol.md, Q20)."""
    return b"\x70\0" + id.to_bytes(2, "big")


def ping(id: int) -> bytes:
    """An empty CON: whoever gets it must answer (RFC 7252, section 4.3)."""
    return b"\x40\0" + id.to_bytes(2, "big")


def read_message(data: bytes, *, strict: bool = True) -> Message:
    """Reads one message.

    Args:
        strict: Whether a payload marker with nothing behind it is an error, as RFC 7252, section 3, has it. Device OS
            sends one for an event of empty text.

    Raises:
        Malformed: It is none.
    """
    size = len(data)
    if size < 4:
        raise Malformed("shorter than a header")
    head = data[0]
    if head >> 6 != VERSION:
        raise Malformed("not version 1")
    kind = _TYPES[head >> 4 & 3]
    id = data[2] << 8 | data[3]
    code = data[1]
    if size == 4 and head & 15 == 0 and (code < 0x20 or 0x40 <= code < 0xC0):
        return Message(kind, code, id)
    if size > MAX_MESSAGE:
        raise Malformed(f"longer than {MAX_MESSAGE} bytes", id, kind)
    token_length = head & 15
    if token_length > MAX_TOKEN:
        raise Malformed("token longer than 8 bytes", id, kind)
    if not code:
        raise Malformed("an empty message with something in it", id, kind)
    if 0x20 <= code < 0x40 or code >= 0xC0:
        raise Malformed(f"reserved code {code_text(code)}", id, kind)
    at = 4 + token_length
    if at > size:
        raise Malformed("token cut short", id, kind)
    token = data[4:at]
    if at == size:
        return Message(kind, code, id, token)
    options: list[tuple[int, bytes]] = []
    payload = b""
    number = 0
    try:
        while at < size:
            first = data[at]
            at += 1
            if first == _PAYLOAD_MARKER:
                payload = data[at:]
                if strict and not payload:
                    raise Malformed("a payload marker without payload", id, kind)
                break
            delta, length = first >> 4, first & 15
            if delta >= _ONE_BYTE:
                if delta == 13:
                    delta = data[at] + _ONE_BYTE
                    at += 1
                elif delta == 14:
                    delta = (data[at] << 8 | data[at + 1]) + _TWO_BYTES
                    at += 2
                else:
                    raise Malformed("reserved option delta", id, kind)
            if length >= _ONE_BYTE:
                if length == 13:
                    length = data[at] + _ONE_BYTE
                    at += 1
                elif length == 14:
                    length = (data[at] << 8 | data[at + 1]) + _TWO_BYTES
                    at += 2
                else:
                    raise Malformed("reserved option length", id, kind)
            number += delta
            end = at + length
            if end > size:
                raise Malformed("option cut short", id, kind)
            if number > _MAX_NUMBER:
                raise Malformed("option number over 65535", id, kind)
            if length > MAX_OPTION:
                raise Malformed(f"option longer than {MAX_OPTION} bytes", id, kind)
            if len(options) == MAX_OPTIONS:
                raise Malformed(f"more than {MAX_OPTIONS} options", id, kind)
            options.append((number, data[at:end]))
            at = end
    except IndexError:
        raise Malformed("option cut short", id, kind) from None
    return Message(kind, code, id, token, tuple(options), payload)


def write_message(message: Message) -> bytes:
    """The bytes of a message.

    Raises:
        ValueError: Something in it can't be written: a token over 8 bytes, an option's number or length that does not
            fit, or an empty message that is not empty.
    """
    token, options, payload = message.token, message.options, message.payload
    if len(token) > MAX_TOKEN:
        raise ValueError("token longer than 8 bytes")
    if not message.code and (token or options or payload):
        raise ValueError("an empty message with something in it")
    parts = bytearray((0x40 | message.type << 4 | len(token), message.code, message.id >> 8, message.id & 0xFF))
    parts += token
    number = 0
    for following, value in sorted(options, key=_number) if len(options) > 1 else options:
        delta, length = following - number, len(value)
        number = following
        if delta < _ONE_BYTE and length < _ONE_BYTE:
            parts.append(delta << 4 | length)
        else:
            delta_nibble, delta_more = _extended(delta)
            length_nibble, length_more = _extended(length)
            parts.append(delta_nibble << 4 | length_nibble)
            parts += delta_more
            parts += length_more
        parts += value
    if payload:
        parts.append(_PAYLOAD_MARKER)
        parts += payload
    return bytes(parts)


def _number(option: tuple[int, bytes]) -> int:
    return option[0]


def _extended(value: int) -> tuple[int, bytes]:
    """The four bits of a delta or length, and the bytes that follow."""
    if value < _ONE_BYTE:
        return value, b""
    if value < _TWO_BYTES:
        return 13, bytes((value - _ONE_BYTE,))
    if value - _TWO_BYTES > 0xFFFF:
        raise ValueError("an option's number or length that does not fit")
    return 14, (value - _TWO_BYTES).to_bytes(2, "big")


def bad_option(message: Message, known: Iterable[int]) -> int | None:
    """The first option because of which a message must be refused; None when there is none.

    RFC 7252, section 5.4: a critical option (one with an odd number) that is not understood, has a length that is not
    allowed, or comes twice although it may not. A CON request with one is answered by 4.02; a NON request is ignored;
    a response is rejected. Elective options with such faults are to be ignored.

    Args:
        known: Numbers of the options that whoever asks understands in this place.
    """
    before = -1
    for number, value in message.options:
        if number & 1:
            low, high = _LENGTHS.get(number, (0, MAX_OPTION))
            if number not in known or not low <= len(value) <= high:
                return number
            if number == before and number not in _REPEATABLE:
                return number
        before = number
    return None


# RFC 7967, section 2.1: which classes of responses the client does not want.
_UNWANTED = {2: 0x02, 4: 0x08, 5: 0x10}
NO_RESPONSE_AT_ALL = 0x1A


def wants_response(request: Message, code: int) -> bool:
    """Whether the sender of a request wants a response of this code to be sent (RFC 7967).

    Device OS sets the option, empty, on its Goodbye over TCP. An empty option names no class (section 2.1: "interested
    in all responses"), yet nobody is waiting; such a Goodbye is a NON, and closing is the answer.
    """
    return response_wanted(unwanted_by(request), code)


def unwanted_by(request: Message) -> int:
    """The value of a request's No-Response option: which classes of responses are not wanted; 0 for none."""
    value = request.option(Option.NO_RESPONSE)
    return value[0] if value and len(value) == 1 else 0


def response_wanted(unwanted: int, code: int) -> bool:
    """Whether a response of this code is wanted, by the value of a request's No-Response option."""
    return not unwanted & _UNWANTED.get(code >> 5, 0)
