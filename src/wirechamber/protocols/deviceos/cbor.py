"""CBOR (RFC 8949) as far as it stands for JSON: what Device OS sends for structured data.

Bounded: nested at most `MAX_DEPTH` deep, and never more items than there are bytes. Tags are read over. Byte strings
become `{"_type":"buffer","_data":"<base64>"}` in JSON, and back (integrations.md, section 7).
"""

from __future__ import annotations

import json
import math
import struct
from base64 import b64decode, b64encode
from typing import Any

# Device OS nests maps and arrays as deep as its memory allows; people don't.
MAX_DEPTH = 32
_BREAK = object()
_MAX_UINT = 0xFFFF_FFFF_FFFF_FFFF


class NotCbor(ValueError):
    """Bytes that are no CBOR, or none that JSON could say."""


class NotJson(ValueError):
    """Text that is no JSON, or none that CBOR could say within bounds."""


def cbor_to_json(data: bytes) -> str:
    """The JSON text that says the same, on one line without blanks.

    Raises:
        NotCbor: There is none.
    """
    value, end = _read(data, 0, 0)
    if value is _BREAK or end != len(data):
        raise NotCbor("more than one item")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_to_cbor(text: str) -> bytes:
    """The CBOR that says the same, each item as short as it can be.

    Raises:
        NotJson: The text is no JSON.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise NotJson("no JSON") from problem
    parts = bytearray()
    _write(value, parts, 0)
    return bytes(parts)


def _read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise NotCbor(f"nested more than {MAX_DEPTH} deep")
    if at >= len(data):
        raise NotCbor("cut short")
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if major == 7:
        return _simple(data, at, info)
    length: int | None
    if info == 31:
        # An indefinite length: the items end with a break (RFC 8949, section 3.2).
        if major not in (2, 3, 4, 5):
            raise NotCbor("an indefinite length where there is none")
        length = None
    else:
        length, at = _argument(data, at, info)
    match major:
        case 0:
            return length, at
        case 1:
            assert length is not None
            return -1 - length, at
        case 2 | 3:
            raw, at = _string(data, at, major, length)
            if major == 2:
                return {"_type": "buffer", "_data": b64encode(raw).decode()}, at
            return _text(raw), at
        case 4:
            return _array(data, at, length, depth)
        case 5:
            return _map(data, at, length, depth)
        case _:
            return _read(data, at, depth + 1)


def _argument(data: bytes, at: int, info: int) -> tuple[int, int]:
    if info < 24:
        return info, at
    if info > 27:
        raise NotCbor("a reserved length")
    size = 1 << info - 24
    if at + size > len(data):
        raise NotCbor("cut short")
    return int.from_bytes(data[at : at + size], "big"), at + size


def _simple(data: bytes, at: int, info: int) -> tuple[Any, int]:
    match info:
        case 20:
            return False, at
        case 21:
            return True, at
        case 22 | 23:
            return None, at
        case 25 | 26 | 27:
            size, form = {25: (2, ">e"), 26: (4, ">f"), 27: (8, ">d")}[info]
            if at + size > len(data):
                raise NotCbor("cut short")
            number: float = struct.unpack_from(form, data, at)[0]
            # JSON has no such numbers.
            return number if math.isfinite(number) else None, at + size
        case 31:
            return _BREAK, at
    raise NotCbor("a simple value that JSON has not")


def _string(data: bytes, at: int, major: int, length: int | None) -> tuple[bytes, int]:
    if length is not None:
        if at + length > len(data):
            raise NotCbor("cut short")
        return data[at : at + length], at + length
    parts = bytearray()
    while True:
        if at >= len(data):
            raise NotCbor("cut short")
        first = data[at]
        at += 1
        if first == 0xFF:
            return bytes(parts), at
        if first >> 5 != major:
            raise NotCbor("a string in pieces of another kind")
        size, at = _argument(data, at, first & 31)
        if at + size > len(data):
            raise NotCbor("cut short")
        parts += data[at : at + size]
        at += size


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise NotCbor("text that is not UTF-8") from None


def _array(data: bytes, at: int, length: int | None, depth: int) -> tuple[list[Any], int]:
    if length is not None and length > len(data) - at:
        raise NotCbor("cut short")
    items: list[Any] = []
    while length is None or len(items) < length:
        item, at = _read(data, at, depth + 1)
        if item is _BREAK:
            if length is not None:
                raise NotCbor("a break where there is none")
            break
        items.append(item)
    return items, at


def _map(data: bytes, at: int, length: int | None, depth: int) -> tuple[dict[str, Any], int]:
    if length is not None and length > (len(data) - at) // 2:
        raise NotCbor("cut short")
    members: dict[str, Any] = {}
    count = 0
    while length is None or count < length:
        key, at = _read(data, at, depth + 1)
        if key is _BREAK:
            if length is not None:
                raise NotCbor("a break where there is none")
            break
        if isinstance(key, int) and not isinstance(key, bool):
            key = str(key)
        if not isinstance(key, str):
            raise NotCbor("a key that is no text")
        value, at = _read(data, at, depth + 1)
        if value is _BREAK:
            raise NotCbor("a key without a value")
        members[key] = value
        count += 1
    return members, at


def _head(major: int, value: int) -> bytes:
    if value < 24:
        return bytes((major << 5 | value,))
    for info, size in ((24, 1), (25, 2), (26, 4)):
        if value < 1 << 8 * size:
            return bytes((major << 5 | info,)) + value.to_bytes(size, "big")
    return bytes((major << 5 | 27,)) + value.to_bytes(8, "big")


def _write(value: Any, parts: bytearray, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise NotJson(f"nested more than {MAX_DEPTH} deep")
    match value:
        case None:
            parts += b"\xf6"
        case bool():
            parts += b"\xf5" if value else b"\xf4"
        case int():
            if 0 <= value <= _MAX_UINT:
                parts += _head(0, value)
            elif -1 - _MAX_UINT <= value < 0:
                parts += _head(1, -1 - value)
            else:
                _write_float(_as_float(value), parts)
        case float():
            _write_float(value, parts)
        case str():
            # A lone surrogate, which JSON can escape, has no UTF-8.
            encoded = value.encode("utf-8", "replace")
            parts += _head(3, len(encoded)) + encoded
        case list():
            parts += _head(4, len(value))
            for item in value:
                _write(item, parts, depth + 1)
        case dict():
            raw = _buffer(value)
            if raw is not None:
                parts += _head(2, len(raw)) + raw
                return
            parts += _head(5, len(value))
            for key, item in value.items():
                _write(key, parts, depth + 1)
                _write(item, parts, depth + 1)


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise NotJson("a number too large") from None


def _write_float(value: float, parts: bytearray) -> None:
    for form, head in ((">e", 0xF9), (">f", 0xFA)):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            parts.append(head)
            parts += packed
            return
    parts.append(0xFB)
    parts += struct.pack(">d", value)


def _buffer(value: dict[str, Any]) -> bytes | None:
    if len(value) != 2 or value.get("_type") != "buffer" or not isinstance(value.get("_data"), str):
        return None
    try:
        return b64decode(value["_data"], validate=True)
    except ValueError:
        return None
