"""The record layer's outer form (RFC 6347, 4.1; RFC 9146, 4): headers, and several records in one datagram."""

from __future__ import annotations

from struct import Struct as Layout

from msgspec import Struct

CHANGE_CIPHER_SPEC = 20
ALERT = 21
HANDSHAKE = 22
APPLICATION_DATA = 23
# A record with a connection id; the real type is inside (RFC 9146, section 4).
TLS12_CID = 25
# The same, from a Device OS device that has resumed a session and may have moved (device-protocol.md, Q9).
MOVED = 253
# Application data of a Device OS device before 3.1 that has resumed a session: in place of 23, with the device's id
# behind the record, because it has no connection id that would tell whose it is (device-protocol.md, section 4.5).
MOVED_BY_NAME = 254

# Our connection ids. Device OS takes no other length (device-protocol.md, Q3).
CID_LENGTH = 8

DTLS10 = 0xFEFF
DTLS12 = 0xFEFD
HEADER = 13
# RFC 6347, section 4.1: the sequence number has 48 bits.
SEQUENCES = 1 << 48
# RFC 5246, sections 6.2.1 and 6.2.3: content, and what protection may add.
MAX_CONTENT = 1 << 14
MAX_PROTECTED = MAX_CONTENT + 1024
# A handshake's flight has six records at most; fragments make more of them. A datagram could hold 5,000 empty ones.
MAX_RECORDS = 64

_header = Layout(">BHHHIH")
# What is behind a record of type 254: the device's id, and how long that is.
DEVICE_ID = 12
_TRAILER = DEVICE_ID + 1
# Type, version, and epoch: there is one epoch, and it is protected.
_NAMED_OPENING = bytes((MOVED_BY_NAME,)) + DTLS12.to_bytes(2, "big") + b"\0\1"
_NAMED_AS = bytes((APPLICATION_DATA,)) + _NAMED_OPENING[1:]


class Record(Struct, frozen=True, gc=False):
    """One record as it stands in a datagram.

    Attributes:
        raw: Header and all.
        content: What follows the header.
    """

    content_type: int
    version: int
    epoch: int
    sequence: int
    content: bytes
    raw: bytes


def read_records(datagram: bytes, cid_length: int) -> list[Record]:
    """The records of a datagram, as far as they can be told apart; what comes after a malformed one is dropped.

    Args:
        cid_length: How long the connection id is in records that have one (the header does not say).
    """
    records: list[Record] = []
    at = 0
    size = len(datagram)
    while at + HEADER <= size and len(records) < MAX_RECORDS:
        kind, version, epoch, high, low, length = _header.unpack_from(datagram, at)
        start = at + HEADER
        if kind in (TLS12_CID, MOVED):
            start += cid_length
            if start > size:
                break
            length = int.from_bytes(datagram[start - 2 : start], "big")
        end = start + length
        if end > size or version >> 8 != DTLS12 >> 8 or length > MAX_PROTECTED:
            break
        records.append(Record(kind, version, epoch, high << 32 | low, datagram[start:end], datagram[at:end]))
        at = end
    return records


def split_records(datagram: bytes, cid_length: int) -> list[bytes]:
    """The records of a datagram, each with its header, as far as they can be told apart."""
    return [record.raw for record in read_records(datagram, cid_length)]


class Named(Struct, frozen=True, gc=False):
    """A record of type 254, taken apart.

    Attributes:
        device: The id that it claims to come from, 24 lower-case hex digits. Anybody can write one.
        record: As it was protected: with type 23.
    """

    device: str
    record: bytes


def read_named(datagram: bytes) -> Named | None:
    """Takes a datagram with a record of type 254 apart; None when it is none: one record, the id, and its length."""
    end = len(datagram) - _TRAILER
    if (
        end < HEADER
        or not datagram.startswith(_NAMED_OPENING)
        or datagram[-1] != DEVICE_ID
        or int.from_bytes(datagram[HEADER - 2 : HEADER], "big") != end - HEADER
    ):
        return None
    return Named(datagram[end:-1].hex(), _NAMED_AS + datagram[len(_NAMED_AS) : end])


def write_named(record: bytes, device: str) -> bytes:
    """The datagram with which a device says that a record of application data is its own.

    Args:
        record: With type 23, protected.
        device: 24 hex digits.
    """
    return bytes((MOVED_BY_NAME,)) + record[1:] + bytes.fromhex(device) + bytes((DEVICE_ID,))


def write_record(content_type: int, sequence: int, content: bytes, version: int = DTLS12) -> bytes:
    """A record of epoch 0, which is not protected."""
    return _header.pack(content_type, version, 0, sequence >> 32, sequence & 0xFFFFFFFF, len(content)) + content
