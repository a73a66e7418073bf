"""Datagrams that belong to no session and begin no handshake: what they are, and what their sender could do."""

from __future__ import annotations

from enum import StrEnum

from wirechamber.protocols.coap.message import Malformed, read_message
from wirechamber.protocols.dtls import ALERT, APPLICATION_DATA, HANDSHAKE

_CHANGE_CIPHER_SPEC = 20
# RFC 7252, section 3: the two highest bits are the version, 1.
_COAP = range(0x40, 0x80)


class Stray(StrEnum):
    """What a datagram is, as it is counted."""

    PLAIN_COAP = "plain_coap"
    NO_SESSION = "no_session_there"
    BROKEN_HELLO = "broken_hello"
    GARBAGE = "garbage"


# What is told of each: why it is dropped, and what helps.
TEXTS = {
    Stray.PLAIN_COAP: (
        "CoAP came without DTLS to the port for DTLS",
        "let the client speak coaps:// with the device's pre-shared key or key pair",
    ),
    Stray.NO_SESSION: (
        "a record without a connection id came from an address that no session has: a NAT on the way has forgotten its"
        " device, or the session is over",
        "let the device use connection ids (RFC 9146), say something more often, or make a new handshake when nothing"
        " answers",
    ),
    Stray.BROKEN_HELLO: (
        "a ClientHello that can't be read: it came in pieces, or is none of DTLS 1.2",
        "let the client offer fewer suites and extensions, so that it fits into one record",
    ),
    Stray.GARBAGE: (
        "neither DTLS nor CoAP",
        "if it is a device: it speaks DTLS 1.2 over UDP; otherwise there is nothing to do",
    ),
}


def what_is(datagram: bytes) -> Stray:
    """What a datagram is that nobody expects."""
    kind = datagram[0] if datagram else 0
    dtls = datagram[1:2] == b"\xfe" and len(datagram) > 12
    if dtls and kind in (ALERT, APPLICATION_DATA, HANDSHAKE, _CHANGE_CIPHER_SPEC):
        if kind == HANDSHAKE and datagram[3:5] == b"\0\0":
            return Stray.BROKEN_HELLO
        return Stray.NO_SESSION
    if kind in _COAP:
        try:
            read_message(datagram)
        except Malformed:
            return Stray.GARBAGE
        return Stray.PLAIN_COAP
    return Stray.GARBAGE
