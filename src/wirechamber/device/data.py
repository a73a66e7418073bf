"""Event data between Python's values and messages."""

from __future__ import annotations

import json
from typing import Any

from wirechamber.protocols.deviceos.cbor import NotCbor, NotJson, cbor_to_json, json_to_cbor
from wirechamber.protocols.deviceos.messages import MAX_EVENT_NAME, ContentFormat

# device-protocol.md, section 12.
MAX_DATA = 1024

_TEXTS = frozenset(
    (None, ContentFormat.TEXT, ContentFormat.LINK_FORMAT, ContentFormat.XML, ContentFormat.JSON)
)  # fmt: skip
_STRUCTURED = frozenset((ContentFormat.CBOR, ContentFormat.JSON_AS_CBOR))


def check_name(name: str) -> str:
    """The name of an event or the prefix of some.

    Raises:
        ValueError: It is empty, too long, or not printable ASCII.
    """
    if not 0 < len(name) <= MAX_EVENT_NAME or not (name.isascii() and name.isprintable()):
        raise ValueError(f"an event's name has 1 to {MAX_EVENT_NAME} printable ASCII characters")
    return name


def to_payload(data: Any) -> tuple[bytes, int | None]:
    """The payload and its content format.

    Args:
        data: Text as it is, bytes as they are; None is nothing; anything else that JSON can say goes as CBOR, which is
            smaller, and is JSON in the cloud.

    Raises:
        ValueError: It is too large, or JSON can't say it.
    """
    content_format: int | None = None
    if data is None:
        payload = b""
    elif isinstance(data, str):
        payload = data.encode()
    elif isinstance(data, bytes | bytearray | memoryview):
        payload, content_format = bytes(data), int(ContentFormat.OCTET_STREAM)
    else:
        try:
            payload = json_to_cbor(json.dumps(data, allow_nan=False))
        except (TypeError, NotJson) as problem:
            raise ValueError(f"data that is no JSON: {problem}") from problem
        content_format = int(ContentFormat.JSON_AS_CBOR)
    if len(payload) > MAX_DATA:
        raise ValueError(f"{len(payload)} bytes of data; an event holds {MAX_DATA}")
    return payload, content_format


def from_payload(payload: bytes, content_format: int | None) -> Any:
    """What a handler is given: text, bytes, or what structured data says."""
    if content_format in _TEXTS:
        return payload.decode("utf-8", "replace")
    if content_format in _STRUCTURED:
        try:
            return json.loads(cbor_to_json(payload))
        except NotCbor:
            return payload
    return payload


def wants(content_format: int | None, *, binary: bool, structured: bool) -> bool:
    """Whether a handler gets data of this format (device-protocol.md, section 8, delivery rules)."""
    if binary:
        return True
    return content_format in (_STRUCTURED if structured else _TEXTS)
