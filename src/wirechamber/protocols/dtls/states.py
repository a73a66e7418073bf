"""Who waits for what: the handshake as a table (RFC 5246, section 7.3; RFC 6347, section 4.2.4).

A message that a state does not name ends the handshake. ChangeCipherSpec is not in the table: a record of the new epoch
says the same, and it, unlike a ChangeCipherSpec, is authenticated.
"""

from __future__ import annotations

from enum import StrEnum

from wirechamber.protocols.dtls.messages import HandshakeType as Type
from wirechamber.protocols.dtls.session import Profile
from wirechamber.protocols.dtls.suites import KeyExchange


class State(StrEnum):
    """What is awaited."""

    HELLO = "hello"
    CERTIFICATE = "certificate"
    KEY_EXCHANGE = "key_exchange"
    # The client may be asked for its key, or the flight is at its end.
    HELLO_DONE = "hello_done"
    # Not a message, but the pre-shared key that somebody looks up for us.
    PSK = "psk"
    SIGNATURE = "signature"
    FINISHED = "finished"
    # Nothing more: there is a session. The peer may not know yet.
    ESTABLISHED = "established"
    OVER = "over"
    FAILED = "failed"


Path = dict[tuple[State, int], State]

_SERVER_PSK: Path = {
    (State.KEY_EXCHANGE, Type.CLIENT_KEY_EXCHANGE): State.PSK,
    (State.FINISHED, Type.FINISHED): State.ESTABLISHED,
}

# After the ServerHello. Where a path begins is the state of its first row.
SERVER: dict[KeyExchange, Path] = {
    KeyExchange.ECDHE_ECDSA: {
        (State.CERTIFICATE, Type.CERTIFICATE): State.KEY_EXCHANGE,
        (State.KEY_EXCHANGE, Type.CLIENT_KEY_EXCHANGE): State.SIGNATURE,
        (State.SIGNATURE, Type.CERTIFICATE_VERIFY): State.FINISHED,
        (State.FINISHED, Type.FINISHED): State.ESTABLISHED,
    },
    KeyExchange.PSK: _SERVER_PSK,
    KeyExchange.ECDHE_PSK: _SERVER_PSK,
}

# Before it is known what the server chooses.
CLIENT_HELLO: Path = {
    (State.HELLO, Type.HELLO_VERIFY_REQUEST): State.HELLO,
    (State.HELLO, Type.SERVER_HELLO): State.KEY_EXCHANGE,
}

_CLIENT_PSK: Path = {
    # Without a hint there need not be a ServerKeyExchange (RFC 4279, section 2).
    (State.HELLO_DONE, Type.SERVER_KEY_EXCHANGE): State.HELLO_DONE,
    (State.HELLO_DONE, Type.SERVER_HELLO_DONE): State.FINISHED,
    (State.FINISHED, Type.FINISHED): State.ESTABLISHED,
}
_CLIENT_ECDHE: Path = {
    (State.KEY_EXCHANGE, Type.SERVER_KEY_EXCHANGE): State.HELLO_DONE,
    (State.HELLO_DONE, Type.SERVER_HELLO_DONE): State.FINISHED,
    (State.FINISHED, Type.FINISHED): State.ESTABLISHED,
}
_CLIENT_ASKED: Path = {(State.HELLO_DONE, Type.CERTIFICATE_REQUEST): State.HELLO_DONE}

# After the ServerHello, as far as it differs: a Device OS device wants no Certificate (device-protocol.md, Q1).
CLIENT: dict[tuple[Profile, KeyExchange], Path] = {
    ("deviceos", KeyExchange.ECDHE_ECDSA): _CLIENT_ECDHE | _CLIENT_ASKED,
    ("deviceos-3.0", KeyExchange.ECDHE_ECDSA): _CLIENT_ECDHE | _CLIENT_ASKED,
    ("rfc", KeyExchange.ECDHE_ECDSA): {(State.CERTIFICATE, Type.CERTIFICATE): State.KEY_EXCHANGE}
    | _CLIENT_ECDHE
    | _CLIENT_ASKED,
    ("rfc", KeyExchange.ECDHE_PSK): _CLIENT_ECDHE,
    ("rfc", KeyExchange.PSK): _CLIENT_PSK,
}


def beginning(path: Path) -> State:
    """Where a path begins."""
    return next(iter(path))[0]
