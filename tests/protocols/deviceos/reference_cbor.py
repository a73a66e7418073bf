"""CBOR as JSON, written out by hand after RFC 8949: what the codec is compared with."""

from __future__ import annotations

import json
import math
import struct
from base64 import b64encode
from typing import Any

MAX_DEPTH = 32
_BREAK = object()


class NotCbor(ValueError):
    """Bytes that are no CBOR, or none that JSON could say."""


def cbor_to_json(data: bytes) -> str:
    """The JSON text that says the same."""
    value, end = _read(data, 0, 0)
    if value is _BREAK or end != len(data):
        raise NotCbor("more than one item")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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
            value, at = _read(data, at, depth + 1)
            if value is _BREAK:
                raise NotCbor("a tag of nothing")
            return value, at


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
        piece = data[at : at + size]
        if major == 3:
            # RFC 8949, section 3.2.3: no character is spread over pieces.
            _text(piece)
        parts += piece
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
