"""What a Device OS device sends to its cloud (device-protocol.md, section 7), both ways: reading serves the cloud,
writing serves a device.

Most messages are told by the one letter of their first Uri-Path option. Readers take what is there and go by what the
firmware of several years has sent; what they can't use they return as `Malformed` or `Unknown`, and never raise.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from msgspec import Struct

from wirechamber.protocols.coap.links import WELL_KNOWN
from wirechamber.protocols.coap.message import (
    MAX_MESSAGE,
    Code,
    Message,
    Option,
    Type,
    bad_option,
    ping,
    uint,
    unwanted_by,
)
from wirechamber.protocols.deviceos.keepalive import KEEP_ALIVE, KeepAlive, read_keep_alive
from wirechamber.protocols.deviceos.varint import TooShort, read_varint, write_varint

# Device OS: an event without Max-Age lives for 60 s (device-protocol.md, Q24).
DEFAULT_TTL = 60
# device-protocol.md, section 12.
MAX_EVENT_NAME = 64
MAX_FILTER = 64
DEVICE_ID_LENGTH = 12

# Options that a request of a device may have; another one with an odd number is refused by 4.02 (RFC 7252, 5.4).
_KNOWN = frozenset(
    (
        Option.URI_HOST, Option.URI_PORT, Option.URI_PATH, Option.CONTENT_FORMAT, Option.MAX_AGE, Option.URI_QUERY,
        Option.ACCEPT, Option.BLOCK1, Option.BLOCK2,
    )
)  # fmt: skip


class ContentFormat(IntEnum):
    """Content formats that Device OS uses (device-protocol.md, section 6)."""

    TEXT = 0
    JPEG = 22
    PNG = 23
    LINK_FORMAT = 40
    XML = 41
    OCTET_STREAM = 42
    EXI = 47
    JSON = 50
    CBOR = 60
    # The vendor's: CBOR that stands for JSON.
    JSON_AS_CBOR = 65001


class Flag(IntFlag):
    """What a device can do, as its Hello says."""

    UPDATED = 0x01
    DIAGNOSTICS = 0x02
    IMMEDIATE_UPDATES = 0x04
    HANDSHAKE_COMPLETE = 0x08
    GOODBYE = 0x10
    DESCRIBES_ITSELF = 0x20
    COMPRESSED_UPDATES = 0x40
    UPDATE_V3 = 0x80


class Kind(IntFlag):
    """Kinds of descriptions; the byte in the Uri-Query option of `d`."""

    SYSTEM = 1
    APPLICATION = 2
    METRICS = 4


class Hello(Struct, frozen=True):
    """A device begins (7.1).

    Attributes:
        product_version: None: the application has none.
        device: 24 hex digits; None over TCP, where the handshake told it.
        system_version: Of the system module, such as 6200 for 6.2.0; None before 3.0, as the sizes are.
        max_message: The largest CoAP message that it takes, bytes.
        max_binary: The largest firmware that it takes, bytes.
        chunk_size: Of firmware updates, bytes.
    """

    product: int
    product_version: int | None
    flags: Flag
    platform: int
    device: str | None = None
    system_version: int | None = None
    max_message: int | None = None
    max_binary: int | None = None
    chunk_size: int | None = None


class Describe(Struct, frozen=True):
    """A device tells of itself (7.2), or a part of that.

    Attributes:
        kind: What it tells of.
        payload: For `describe.read_system`, `read_application` or `metrics.read_metrics`.
        block1: Set when this is one block of several: the value of the option, for `coap.blockwise`.
    """

    kind: Kind
    payload: bytes
    content_format: int | None = None
    block1: bytes | None = None


class Publish(Struct, frozen=True, gc=False):
    """A device publishes an event (7.3).

    Attributes:
        content_format: None: text.
        max_age: Time to live, seconds.
        private: Sent by the letter `E`: always so since 6.2, before that when it was published as PRIVATE.
        block1: Set when the payload is one block of several.
        no_response: Which classes of responses are not wanted (RFC 7967); 0 for none.
    """

    name: str
    payload: bytes
    content_format: int | None
    max_age: int
    confirmable: bool
    message_id: int
    token: bytes = b""
    private: bool = True
    block1: bytes | None = None
    no_response: int = 0


class Subscribe(Struct, frozen=True):
    """A device wants events (7.4) whose names begin with `prefix`.

    Attributes:
        binary: It wants events that are not text, too.
        cbor: It wants structured events, as CBOR.
        mine: Up to 6.1: only those of its owner's devices. Newer ones can't say, and get no others.
        device: Up to 6.1: only those of this device, 24 hex digits.
    """

    prefix: str
    binary: bool = False
    cbor: bool = False
    mine: bool = False
    device: str | None = None


class TimeRequest(Struct, frozen=True):
    """A device asks for the time (7.5). Answered by `time_answer`, and by nothing else (Q19)."""


class Ping(Struct, frozen=True):
    """A device asks whether somebody is there (7.6). Answered by the empty ACK."""


class Goodbye(Struct, frozen=True):
    """A device leaves (7.7). What it does not tell is None.

    Attributes:
        sleep: For how long it sleeps, in a unit that is not known.
    """

    cloud: int | None = None
    reset: int | None = None
    sleep: int | None = None
    network: int | None = None

    @property
    def reasons(self) -> str:
        """In words, such as `user` or `system reset, reset update`."""
        words = []
        if self.cloud is not None:
            words.append(CLOUD_REASONS.get(self.cloud, f"cloud {self.cloud}"))
        if self.reset is not None:
            words.append(f"reset {RESET_REASONS.get(self.reset, str(self.reset))}")
        if self.sleep is not None:
            words.append(f"sleep {self.sleep}")
        if self.network is not None:
            words.append(f"network {NETWORK_REASONS.get(self.network, str(self.network))}")
        return ", ".join(words)


CLOUD_REASONS = {
    1: "error", 2: "user", 3: "network", 4: "listening", 5: "system reset", 6: "sleep", 7: "unknown", 8: "server moved",
}  # fmt: skip
RESET_REASONS = {
    10: "unknown", 20: "pin", 30: "power management", 40: "power down", 50: "brownout", 60: "watchdog", 70: "update",
    80: "update error", 90: "update timeout", 100: "factory", 110: "safe mode", 120: "dfu", 130: "panic", 140: "user",
    150: "config update",
}  # fmt: skip
NETWORK_REASONS = {1: "error", 2: "user", 3: "off", 4: "listening", 5: "sleep", 6: "reset", 7: "unknown"}


class LedgerRequest(Struct, frozen=True):
    """A device asks for, or tells of, a ledger (7.8). A cloud without ledgers answers as `ledgers` says.

    Attributes:
        payload: A protobuf `particle.cloud.Request`, or a block of one.
        block1: Set when it is one block of several; each must be answered by 2.31.
        request_tag: What the blocks of one request have in common (RFC 9175).
    """

    payload: bytes
    block1: bytes | None = None
    request_tag: bytes | None = None


class Discover(Struct, frozen=True):
    """A device asks what there is (RFC 6690).

    Attributes:
        query: Only what fits, such as `rt=event`; None for everything.
        accepts: It takes a list of links; false when it wants another format.
        block2: Which block it wants, if it says.
    """

    query: str | None = None
    accepts: bool = True
    block2: bytes | None = None


class Unknown(Struct, frozen=True):
    """A well-formed request for something that there is not.

    Attributes:
        path: The segments of the path, joined by `/`.
    """

    method: int
    path: str


class Malformed(Struct, frozen=True):
    """A request that can't be used.

    Attributes:
        code: What it may be answered by.
    """

    why: str
    code: int = Code.BAD_REQUEST


FromDevice = (
    Hello | Describe | Publish | Subscribe | TimeRequest | Ping | Goodbye | KeepAlive | LedgerRequest | Discover
    | Unknown | Malformed
)  # fmt: skip

# --- events: the hot path ---

_POST = Code.POST.value
_NON_BYTE = 0x50
_UPPER_E = ord("E")
_LOWER_E = ord("e")
_ONE_LETTER_PATH = 0xB1


def read_publish(data: bytes) -> Publish | None:
    """Reads an event straight from a datagram.

    Returns:
        None for everything that is not an event as firmware sends it: then `read_message` and `read_request` find out
        what it is. What this returns, they would have returned.
    """
    try:
        head = data[0]
        if not 0x40 <= head < 0x60 or data[1] != 2:
            return None
        token_length = head & 15
        at = 4 + token_length
        letter = data[at + 1]
        if data[at] != _ONE_LETTER_PATH or (letter != _UPPER_E and letter != _LOWER_E) or token_length > 8:
            return None
        length = data[at + 2]
        at += 3
        if length == 13:
            length += data[at]
            at += 1
        elif not 0 < length < 13:
            return None
        end = at + length
        name = data[at:end]
        content_format = None
        max_age = DEFAULT_TTL
        payload = b""
        size = len(data)
        if size > MAX_MESSAGE:
            return None
        if end < size:
            first = data[end]
            if first == 0xFF:
                payload = data[end + 1 :]
            else:
                number = 11
                while True:
                    length = first & 15
                    number += first >> 4
                    at = end + 1
                    end = at + length
                    # Only numbers this way; whatever else there may be is for the thorough reader.
                    if number == 12 and length < 3 and first >> 4:
                        content_format = int.from_bytes(data[at:end], "big")
                    elif number == 14 and length < 5 and first >> 4:
                        max_age = int.from_bytes(data[at:end], "big")
                    else:
                        return None
                    if end >= size:
                        break
                    first = data[end]
                    if first == 0xFF:
                        payload = data[end + 1 :]
                        break
        if end > size:
            return None
        return Publish(
            name.decode(),
            payload,
            content_format,
            max_age,
            head < _NON_BYTE,
            data[2] << 8 | data[3],
            data[4 : 4 + token_length] if token_length else b"",
            letter == _UPPER_E,
        )
    except (IndexError, UnicodeDecodeError):
        return None


# --- the cloud reads ---


def read_request(message: Message) -> FromDevice:
    """Reads a request of a device."""
    code = message.code
    if not code:
        return Ping()
    segments = tuple(message.all(Option.URI_PATH))
    path = segments[0] if segments else b""
    refused = bad_option(message, _KNOWN)
    if refused is not None and path not in _WITH_OWN_OPTIONS:
        return Malformed(f"option {refused} is not known or not allowed", Code.BAD_OPTION)
    try:
        match code, path:
            case Code.POST, b"E" | b"e":
                return _publish(message, segments)
            case Code.GET, b"e" | b"E":
                return _subscribe(message, segments)
            case Code.POST, b"h":
                return read_hello(message.payload)
            case Code.POST, b"d":
                return _describe(message)
            case Code.GET, b"t":
                return TimeRequest()
            case Code.POST, b"x":
                return read_goodbye(message.payload)
            case Code.POST, b"L":
                return LedgerRequest(message.payload, message.option(Option.BLOCK1), message.option(Option.REQUEST_TAG))
            case Code.GET, b".well-known" if segments == WELL_KNOWN:
                return _discover(message)
            case Code.PUT, letter if letter == KEEP_ALIVE:
                return read_keep_alive(message) or Malformed("a lifetime or the like that is none")
    except UnicodeDecodeError:
        return Malformed("text that is not UTF-8")
    # RFC 7252, section 5.8: a method that is not supported is answered 4.05, whatever it is asked of.
    if code not in _METHODS or path in _RESOURCES or segments == WELL_KNOWN:
        return Malformed(f"method {code} is not possible here", Code.METHOD_NOT_ALLOWED)
    return Unknown(code, b"/".join(segments).decode("utf-8", "replace"))


_METHODS = frozenset((Code.GET, Code.POST, Code.PUT, Code.DELETE))
# By the first segment of the path.
_RESOURCES = frozenset((b"E", b"e", b"h", b"d", b"t", b"x", b"L", KEEP_ALIVE))
# Firmware updates have options of their own, some of which are critical (device-protocol.md, section 9.1).
_WITH_OWN_OPTIONS = frozenset((b"S", b"C", b"F", b"A"))


def _publish(message: Message, segments: tuple[bytes, ...]) -> Publish | Malformed:
    # Device OS puts the whole name into one option (Q26); others may send one for each segment.
    name = b"/".join(segments[1:]).decode()
    if not name:
        return Malformed("an event without a name")
    max_age = message.option(Option.MAX_AGE)
    return Publish(
        name,
        message.payload,
        _content_format(message),
        DEFAULT_TTL if max_age is None or len(max_age) > 4 else int.from_bytes(max_age, "big"),
        message.type is Type.CON,
        message.id,
        message.token,
        segments[0] == b"E",
        message.option(Option.BLOCK1),
        unwanted_by(message),
    )


def _content_format(message: Message) -> int | None:
    value = message.option(Option.CONTENT_FORMAT)
    # RFC 7252, section 5.4.3: an elective option of a length that is not allowed is as if it were not there.
    return None if value is None or len(value) > 2 else int.from_bytes(value, "big")


def _subscribe(message: Message, segments: tuple[bytes, ...]) -> Subscribe | Malformed:
    prefix = b"/".join(segments[1:]).decode()
    if len(prefix) > MAX_FILTER:
        return Malformed(f"a filter longer than {MAX_FILTER} characters")
    queries = set(message.all(Option.URI_QUERY))
    device = None
    if message.payload:
        device = message.payload.decode().lower()
        if len(device) != 2 * DEVICE_ID_LENGTH or device.strip("0123456789abcdef"):
            return Malformed("a device id that is none")
    return Subscribe(prefix, b"b" in queries, b"c" in queries, b"u" in queries, device)


def _discover(message: Message) -> Discover:
    query = message.option(Option.URI_QUERY)
    accept = message.uint(Option.ACCEPT)
    return Discover(
        None if query is None else query.decode(),
        accept in (None, ContentFormat.LINK_FORMAT),
        message.option(Option.BLOCK2),
    )


def _describe(message: Message) -> Describe | Malformed:
    payload = message.payload
    query = message.option(Option.URI_QUERY)
    if query:
        if len(query) != 1 or not query[0] & 7 or query[0] > 7:
            return Malformed("a description of no known kind")
        kind = Kind(query[0])
    else:
        kind = guess_kind(payload)
    return Describe(kind, payload, _content_format(message), message.option(Option.BLOCK1))


def guess_kind(payload: bytes) -> Kind:
    """What a description without the query is of, by its first byte (Q30)."""
    first = payload[:1]
    if first == b"{":
        system = b'"m":' in payload
        application = b'"f":' in payload or b'"v":' in payload
        return (Kind.SYSTEM if system else Kind(0)) | (Kind.APPLICATION if application or not system else Kind(0))
    return Kind.METRICS if first == b"\0" else Kind.SYSTEM


def read_hello(payload: bytes) -> Hello | Malformed:
    """Reads the payload of a Hello, of any version: what is there counts, more is ignored (7.1)."""
    if len(payload) < 8:
        return Malformed("a Hello shorter than 8 bytes")
    version = _u16(payload, 2)
    device = None
    rest = payload[10:]
    if len(payload) >= 10 and (length := _u16(payload, 8)):
        if length != DEVICE_ID_LENGTH or len(rest) < length:
            return Malformed("a device id that is not 12 bytes long")
        device = rest[:length].hex()
        rest = rest[length:]
    return Hello(
        _u16(payload, 0),
        None if version == 0xFFFF else version,
        Flag(_u16(payload, 4)),
        _u16(payload, 6),
        device,
        _u16(rest, 0) if len(rest) >= 2 else None,
        _u16(rest, 2) if len(rest) >= 4 else None,
        int.from_bytes(rest[4:8], "big") if len(rest) >= 8 else None,
        _u16(rest, 8) if len(rest) >= 10 else None,
    )


def _u16(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def read_goodbye(payload: bytes) -> Goodbye | Malformed:
    """Reads the payload of a Goodbye."""
    if not payload:
        return Goodbye()
    try:
        flags, at = read_varint(payload, 0)
        values: list[int | None] = []
        for bit in (1, 2, 4, 8):
            value = None
            if flags & bit:
                value, at = read_varint(payload, at)
            values.append(value)
    except TooShort:
        return Malformed("a Goodbye that is cut short")
    return Goodbye(*values)


# --- a device writes ---


def path(*segments: str | bytes) -> tuple[tuple[int, bytes], ...]:
    """Uri-Path options."""
    return tuple((Option.URI_PATH.value, s.encode() if isinstance(s, str) else s) for s in segments)


def write_hello(hello: Hello, id: int, *, tcp: bool = False) -> Message:
    """A Hello, as long as its fields are known: 22 bytes without the version, 32 with all; over TCP 8 or 20."""
    parts = bytearray()
    version = 0xFFFF if hello.product_version is None else hello.product_version
    for number in (hello.product, version, hello.flags, hello.platform):
        parts += number.to_bytes(2, "big")
    device = b"" if tcp or hello.device is None else bytes.fromhex(hello.device)
    if device or hello.system_version is not None:
        parts += len(device).to_bytes(2, "big") + device
    for known, size in (
        (hello.system_version, 2), (hello.max_message, 2), (hello.max_binary, 4), (hello.chunk_size, 2),
    ):  # fmt: skip
        if known is None:
            break
        parts += known.to_bytes(size, "big")
    return Message(Type.NON if tcp else Type.CON, _POST, id, b"", path("h"), bytes(parts))


def write_describe(describe: Describe, id: int, token: bytes) -> Message:
    """A description, or a block of one."""
    options = list(path("d"))
    if describe.content_format is not None:
        options.append((Option.CONTENT_FORMAT.value, uint(describe.content_format)))
    options.append((Option.URI_QUERY.value, bytes((describe.kind,))))
    if describe.block1 is not None:
        options.append((Option.BLOCK1.value, describe.block1))
    return Message(Type.CON, _POST, id, token, tuple(options), describe.payload)


def write_publish(event: Publish, *, before_6_2: bool = False) -> Message:
    """An event.

    Args:
        before_6_2: With the Max-Age in three bytes, as firmware up to 6.1 has it.
    """
    options = list(path("E" if event.private else "e", event.name))
    if event.content_format is not None:
        options.append((Option.CONTENT_FORMAT.value, uint(event.content_format)))
    if event.max_age != DEFAULT_TTL:
        age = event.max_age.to_bytes(3, "big") if before_6_2 else uint(event.max_age)
        options.append((Option.MAX_AGE.value, age))
    if event.block1 is not None:
        options.append((Option.BLOCK1.value, event.block1))
    if event.no_response:
        options.append((Option.NO_RESPONSE.value, uint(event.no_response)))
    kind = Type.CON if event.confirmable else Type.NON
    return Message(kind, _POST, event.message_id, event.token, tuple(options), event.payload)


def write_subscribe(subscribe: Subscribe, id: int, *, tcp: bool = False) -> Message:
    """A subscription. `mine` and `device` are understood, and sent, by firmware up to 6.1 only."""
    options = list(path("e", subscribe.prefix))
    for wanted, letter in ((subscribe.mine, b"u"), (subscribe.binary, b"b"), (subscribe.cbor, b"c")):
        if wanted:
            options.append((Option.URI_QUERY.value, letter))
    payload = subscribe.device.encode() if subscribe.device is not None else b""
    return Message(Type.NON if tcp else Type.CON, Code.GET.value, id, b"", tuple(options), payload)


def write_time_request(id: int, token: bytes) -> Message:
    """A question for the time."""
    return Message(Type.CON, Code.GET.value, id, token, path("t"))


def write_ping(id: int) -> bytes:
    """A ping, as bytes: there is nothing else to it."""
    return ping(id)


def write_goodbye(goodbye: Goodbye, id: int, *, tcp: bool = False) -> Message:
    """A Goodbye."""
    flags = 0
    values = bytearray()
    for bit, value in ((1, goodbye.cloud), (2, goodbye.reset), (4, goodbye.sleep), (8, goodbye.network)):
        if value is not None:
            flags |= bit
            values += write_varint(value)
    options = path("x")
    if tcp:
        options = (*options, (Option.NO_RESPONSE.value, b""))
    payload = write_varint(flags) + bytes(values)
    return Message(Type.NON if tcp else Type.CON, _POST, id, b"", options, payload)


def write_ledger(request: LedgerRequest, id: int, token: bytes) -> Message:
    """A request about ledgers."""
    options = list(path("L"))
    if request.block1 is not None:
        options.append((Option.BLOCK1.value, request.block1))
    if request.request_tag is not None:
        options.append((Option.REQUEST_TAG.value, request.request_tag))
    return Message(Type.CON, _POST, id, token, tuple(options), request.payload)
