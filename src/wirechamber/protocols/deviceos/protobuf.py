"""The little of protobuf's wire format that Device OS needs: fields one after the other, no groups.

There is no schema here: whoever reads says what each number means. A field that has another form than expected reads as
absent, as if it were unknown.
"""

from __future__ import annotations

from collections.abc import Iterator

from wirechamber.protocols.deviceos.varint import TooShort, read_varint, write_varint

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
# More fields than a message of the length that is taken could sensibly have.
MAX_FIELDS = 1024


class NotProtobuf(ValueError):
    """Bytes that are no fields."""


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields: number, and value: a number, or bytes for text and messages.

    Raises:
        NotProtobuf: The bytes end in the middle, have a form that is not known here, or there are too many.
    """
    at = 0
    for _ in range(MAX_FIELDS):
        if at >= len(data):
            return
        try:
            key, at = read_varint(data, at)
            number, form = key >> 3, key & 7
            if not number:
                raise NotProtobuf("a field without a number")
            if form == VARINT:
                value, at = read_varint(data, at)
                yield number, value
                continue
            if form == BYTES:
                size, at = read_varint(data, at)
            elif form in (FIXED32, FIXED64):
                size = 4 if form == FIXED32 else 8
            else:
                raise NotProtobuf(f"a field of form {form}")
        except TooShort:
            raise NotProtobuf("cut short") from None
        end = at + size
        if end > len(data):
            raise NotProtobuf("cut short")
        raw = data[at:end]
        yield number, raw if form == BYTES else int.from_bytes(raw, "little")
        at = end
    if at < len(data):
        raise NotProtobuf(f"more than {MAX_FIELDS} fields")


def number_field(number: int, value: int | None) -> bytes:
    """A number; nothing for 0 and None, which proto3 does not write."""
    return write_varint(number << 3 | VARINT) + write_varint(value) if value else b""


def fixed32_field(number: int, value: int | None) -> bytes:
    """A number in four bytes; nothing for 0 and None."""
    return write_varint(number << 3 | FIXED32) + value.to_bytes(4, "little") if value else b""


def bytes_field(number: int, value: bytes | str | None) -> bytes:
    """Bytes, text or a message; nothing for None."""
    if value is None:
        return b""
    raw = value.encode() if isinstance(value, str) else value
    return write_varint(number << 3 | BYTES) + write_varint(len(raw)) + raw
