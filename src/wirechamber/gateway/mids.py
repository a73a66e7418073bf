"""Which CoAP message ids of a session have led to stored events: small enough to be kept with the session.

Retransmissions come with a new DTLS record and the same message id (RFC 7252, section 4.2). While the process lives,
the exchanges know them; after a restart this does. Device OS counts its message ids up (device-protocol.md, Q27), so
the newest one and a map of those just before it are enough.
"""

from __future__ import annotations

# Device OS gives a message up after 90 s and sends a few messages a second at most.
WINDOW = 256
_MASK = (1 << WINDOW) - 1
_BYTES = 2 + WINDOW // 8


class Mids:
    """Message ids, the newest and those up to 255 before it."""

    __slots__ = ("_newest", "_seen")

    def __init__(self) -> None:
        self._newest = 0
        self._seen = 0

    def add(self, message_id: int) -> None:
        """An event of this message id is stored."""
        if not self._seen:
            self._newest, self._seen = message_id, 1
            return
        ahead = (message_id - self._newest) & 0xFFFF
        behind = 0x10000 - ahead
        if ahead < 0x8000:
            self._seen = (self._seen << ahead | 1) & _MASK if ahead < WINDOW else 1
            self._newest = message_id
        elif behind < WINDOW:
            self._seen |= 1 << behind
        else:
            # A peer that does not count in order: what is known of others says nothing about it.
            self._newest, self._seen = message_id, 1

    def __contains__(self, message_id: int) -> bool:
        behind = (self._newest - message_id) & 0xFFFF
        return behind < WINDOW and bool(self._seen >> behind & 1)

    def to_bytes(self) -> bytes:
        """To be stored; empty when nothing was seen."""
        if not self._seen:
            return b""
        return self._newest.to_bytes(2, "big") + self._seen.to_bytes(WINDOW // 8, "big")

    @classmethod
    def from_bytes(cls, stored: bytes) -> Mids:
        """What `to_bytes` gave."""
        mids = cls()
        if len(stored) == _BYTES:
            mids._newest = int.from_bytes(stored[:2], "big")
            mids._seen = int.from_bytes(stored[2:], "big")
        return mids
