"""Unsigned numbers of 7 bits a byte, least significant first (LEB128), as protobuf and Device OS write them."""

from __future__ import annotations

# A 64-bit number takes ten bytes; more are no number.
_MAX_BYTES = 10


class TooShort(ValueError):
    """There is no whole number at this place."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next thing begins.

    Raises:
        TooShort: The bytes end within the number, or it is longer than 64 bits.
    """
    value = 0
    for shift, byte in enumerate(data[at : at + _MAX_BYTES]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at + shift + 1
    raise TooShort("a number that is cut short or too long")


def write_varint(value: int) -> bytes:
    """The bytes of a number that is not negative."""
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
