"""How large the numbers in a key are, told before anything is computed with them.

To read an RSA key is to test its primes, which grows with the fourth power of its length: one of 8,192 bits takes
seconds, one of 16,384 takes a minute. Whoever hands a key in chooses that, so it is looked at first, in microseconds.
"""

from __future__ import annotations

import base64
import binascii
import re

# The longest keys that Google, Microsoft and Device OS use have 2,048; 4,096 is what people choose to be sure.
MAX_RSA_BITS = 4_096
# A PEM of that length has 3,300 bytes, one of 16,384 bits 12,700: it is told how long it is.
MAX_KEY_TEXT = 16_384

# An RSA private key in PKCS #8 has some 20 values in it.
_MAX_VALUES = 64
_MAX_DEPTH = 8
_INTEGER, _BIT_STRING, _OCTET_STRING = 0x02, 0x03, 0x04
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----([A-Za-z0-9+/=\s]*)-----END \1-----")


class TooLong(ValueError):
    """A number in a key is longer than it may be. The text says so."""


def plain_der(data: bytes) -> bytes:
    """The DER of a key in PEM (RFC 7468) or DER, with no number over `MAX_RSA_BITS`.

    Of several PEM blocks, none may be a key that is read in place of the one that was looked at: there may be one only.

    Raises:
        TooLong: It is longer, or a number in it is.
        ValueError: It is neither PEM nor DER, or an encrypted PEM.
    """
    if len(data) > MAX_KEY_TEXT:
        raise TooLong(f"a key has at most {MAX_KEY_TEXT} bytes")
    if not data.startswith(b"\x30"):
        blocks = _BEGIN.findall(data)
        if len(blocks) != 1:
            raise ValueError("that is no single key in PEM")
        try:
            data = base64.b64decode(b"".join(blocks[0][1].split()), validate=True)
        except binascii.Error:
            raise ValueError("that is no PEM") from None
    bits = longest_number(data)
    if bits > MAX_RSA_BITS:
        raise TooLong(f"an RSA key has at most {MAX_RSA_BITS} bits, not {bits}")
    return data


def longest_number(der: bytes) -> int:
    """The bits of the longest integer in DER (X.690), within strings that hold DER, too.

    Raises:
        ValueError: It is no DER, or holds more than keys do.
    """
    found = 0
    spans = [(0, len(der), 0)]
    values = 0
    while spans:
        at, end, depth = spans.pop()
        while at < end:
            values += 1
            if values > _MAX_VALUES or depth > _MAX_DEPTH:
                raise ValueError("it holds more than a key does")
            tag, at, after = _header(der, at, end)
            if tag == _INTEGER:
                found = max(found, int.from_bytes(der[at:after]).bit_length())
            elif tag & 0x20 or (tag == _OCTET_STRING and der[at : at + 1] == b"\x30"):
                spans.append((at, after, depth + 1))
            elif tag == _BIT_STRING and der[at : at + 2] == b"\x00\x30":
                spans.append((at + 1, after, depth + 1))
            at = after
    return found


def _header(der: bytes, at: int, end: int) -> tuple[int, int, int]:
    """Tag, and where the content begins and ends."""
    if at + 2 > end:
        raise ValueError("it ends within a value")
    tag, length = der[at], der[at + 1]
    at += 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or at + count > end:
            raise ValueError("a length is none")
        length = int.from_bytes(der[at : at + count])
        at += count
    if at + length > end:
        raise ValueError("it ends within a value")
    return tag, at, at + length
