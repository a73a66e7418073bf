"""What a handshake tells its caller."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from wirechamber.protocols.legacy_tcp.session import Session


class Failure(StrEnum):
    """Why a handshake ended without a session."""

    # One reason for everything that can be wrong with an encrypted block: whoever asks must not learn which it was.
    NOT_FOR_US = "not_for_us"
    BAD_KEY = "bad_key"
    NOT_THE_SERVER = "not_the_server"
    TALKED_OUT_OF_TURN = "talked_out_of_turn"
    LATE = "late"


class NeedsAdmission(Struct, frozen=True):
    """A device says who it is and has proved that it heard our nonce; it waits for `admit()` or `refuse()`.

    Nothing proves yet that it owns the key: it does so with its first message, which it can write only if it could read
    the credentials.

    Attributes:
        device_id: 12 bytes.
        device_public_key: DER SubjectPublicKeyInfo of an RSA key of 1024 bits.
    """

    device_id: bytes
    device_public_key: bytes


class Established(Struct, frozen=True):
    """The handshake is done; from here on the session reads and writes.

    Attributes:
        device_id: 12 bytes.
        device_public_key: DER SubjectPublicKeyInfo.
    """

    session: Session
    device_id: bytes
    device_public_key: bytes


class Failed(Struct, frozen=True):
    """The handshake is over and the connection is to be closed without another word."""

    why: Failure


Event = NeedsAdmission | Established | Failed
