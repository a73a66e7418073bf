"""Everything that a handshake reports."""

from __future__ import annotations

from msgspec import Struct

from wirechamber.protocols.dtls.session import Received, Session


class NeedsPsk(Struct, frozen=True):
    """The client named its pre-shared key; the handshake waits for `provide_psk`."""

    identity: bytes


class OtherPsk(Struct, frozen=True):
    """What the client sent can't be opened with the keys that its pre-shared key would give: it has another one, or
    there is none for it here. Told once; the handshake goes on, since anybody may have sent that."""

    identity: bytes


class Established(Struct, frozen=True):
    """The peer proved that it knows its key: it may be believed from now on."""

    session: Session


class Arrived(Struct, frozen=True):
    """A record for the session that came through the handshake: with its last flight, or before it."""

    received: Received


class Failed(Struct, frozen=True):
    """The handshake is over, and there is no session.

    Attributes:
        why: For the log.
        alert: What the peer was told, or told us; None when nobody said anything, such as after a time-out.
        by_peer: The peer ended it.
    """

    why: str
    alert: int | None
    by_peer: bool


class Over(Struct, frozen=True):
    """The session is established, and the handshake is not needed any longer."""


Event = NeedsPsk | OtherPsk | Established | Arrived | Failed | Over
