"""CBOR (RFC 8949) as far as it stands for JSON: what Device OS sends for structured data.

`cbor2` reads and writes; here is what it is told so that the data says the same as JSON. Bounded: nested at most
`MAX_DEPTH` deep, tags included, and never more items than there are bytes: lengths that are announced reserve nothing.
Tags are read over, so that nothing becomes a date, a shared or a huge number. Byte strings become
`{"_type":"buffer","_data":"<base64>"}` in JSON, and back (integrations.md, section 7).
"""

from __future__ import annotations

import json
import math
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import cbor2

# Device OS nests maps and arrays as deep as its memory allows; people don't.
MAX_DEPTH = 32
_MAX_UINT = 0xFFFF_FFFF_FFFF_FFFF
# Tags that cbor2 gives a meaning: dates, large and decimal numbers, shared and repeated values, sets, addresses, ….
# It asks `_untagged` about all others.
_MEANT = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)


class NotCbor(ValueError):
    """Bytes that are no CBOR, or none that JSON could say."""


class NotJson(ValueError):
    """Text that is no JSON, or none that CBOR could say within bounds."""


def cbor_to_json(data: bytes) -> str:
    """The JSON text that says the same, on one line without blanks.

    Raises:
        NotCbor: There is none.
    """
    source = BytesIO(data)
    decoder = cbor2.CBORDecoder(
        source, max_depth=MAX_DEPTH, tag_hook=_untagged, object_hook=_members, semantic_decoders=_READ_OVER
    )
    try:
        value = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, RecursionError) as problem:
        raise NotCbor(str(problem)) from problem
    if source.tell() != len(data):
        raise NotCbor("more than one item")
    try:
        return _dump(value)
    except NotCbor:
        raise
    except ValueError:
        # JSON has no such numbers.
        return _dump(_finite(value))
    except TypeError as problem:
        raise NotCbor("a key that is no text") from problem


def json_to_cbor(text: str) -> bytes:
    """The CBOR that says the same, each item as short as it can be.

    Raises:
        NotJson: The text is no JSON.
    """
    try:
        value = json.loads(text, object_hook=_bytes, parse_int=_integer, parse_constant=_no_number)
    except (ValueError, RecursionError, OverflowError) as problem:
        raise NotJson("no JSON, or too large a number") from problem
    _check_depth(value, 0)
    try:
        return cbor2.dumps(value, encoders=_SHORTEST)
    except UnicodeEncodeError:
        # A lone surrogate, which JSON can escape, has no UTF-8.
        return json_to_cbor(json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace").decode())


def text_to_cbor(text: str) -> bytes:
    """A text as a CBOR text; half a character in it is replaced."""
    return cbor2.dumps(text.encode("utf-8", "replace").decode())


def bytes_to_cbor(data: bytes) -> bytes:
    """Bytes as a CBOR byte string."""
    return cbor2.dumps(data)


# --- reading ---


def _through(value: Any, _immutable: bool) -> Any:
    return value


_READ_OVER: Mapping[int, Callable[[Any, bool], Any]] = dict.fromkeys(_MEANT, _through)


def _untagged(tag: cbor2.CBORTag, _immutable: bool) -> Any:
    return tag.value


def _members(members: Mapping[Any, Any], _immutable: bool) -> Mapping[Any, Any]:
    """A map whose keys are text; numbers are written as such."""
    if all(type(key) is str for key in members):
        return members
    named: dict[str, Any] = {}
    for key, value in members.items():
        if type(key) is not str and type(key) is not int:
            raise ValueError("a key that is no text")
        named[str(key)] = value
    return named


def _default(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"_type": "buffer", "_data": b64encode(value).decode()}
    if value is cbor2.undefined:
        return None
    if isinstance(value, Mapping):
        # Under a tag, where cbor2 makes what can't be changed.
        return dict(value)
    raise NotCbor("a value that JSON has not")


_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default).encode


def _finite(value: Any) -> Any:
    """The same with null for what is no number, or an infinite one."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [_finite(item) for item in value]
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case _:
            return value


# --- writing ---


def _no_number(name: str) -> float:
    # Python would read NaN and Infinity, which RFC 8259 has not.
    raise ValueError(f"{name} is no JSON")


def _integer(digits: str) -> int | float:
    value = int(digits)
    return value if -1 - _MAX_UINT <= value <= _MAX_UINT else float(value)


def _bytes(members: dict[str, Any]) -> dict[str, Any] | bytes:
    if len(members) != 2 or members.get("_type") != "buffer" or not isinstance(members.get("_data"), str):
        return members
    try:
        return b64decode(members["_data"], validate=True)
    except ValueError:
        return members


def _check_depth(value: Any, depth: int) -> None:
    if not value or not isinstance(value, list | dict):
        return
    if depth >= MAX_DEPTH:
        raise NotJson(f"nested more than {MAX_DEPTH} deep")
    for item in value if isinstance(value, list) else value.values():
        _check_depth(item, depth + 1)


def _write_float(encoder: cbor2.CBOREncoder, value: float) -> None:
    # RFC 8949, section 4.1: the shortest form that says the same. cbor2 does so only where it sorts maps, too.
    for form, head in ((">e", b"\xf9"), (">f", b"\xfa")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            encoder.write(head + packed)
            return
    encoder.write(b"\xfb" + struct.pack(">d", value))


_SHORTEST: Mapping[type, Callable[[cbor2.CBOREncoder, Any], None]] = {float: _write_float}
