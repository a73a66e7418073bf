"""Device OS's older link over TCP: handshake and framing (device-protocol.md, section 5)."""

from wirechamber.protocols.legacy_tcp.events import Established, Event, Failed, Failure, NeedsAdmission
from wirechamber.protocols.legacy_tcp.handshake import (
    DEVICE_KEY_BITS,
    HELLO_ANSWER_S,
    SERVER_KEY_BITS,
    STEP_S,
    ClientHandshake,
    ServerHandshake,
)
from wirechamber.protocols.legacy_tcp.session import (
    CREDENTIALS_LENGTH,
    MAX_MESSAGE,
    Refusal,
    Session,
    TooLong,
    wire_length,
)

__all__ = [
    "CREDENTIALS_LENGTH",
    "DEVICE_KEY_BITS",
    "HELLO_ANSWER_S",
    "MAX_MESSAGE",
    "SERVER_KEY_BITS",
    "STEP_S",
    "ClientHandshake",
    "Established",
    "Event",
    "Failed",
    "Failure",
    "NeedsAdmission",
    "Refusal",
    "ServerHandshake",
    "Session",
    "TooLong",
    "wire_length",
]
