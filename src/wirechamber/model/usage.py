"""What a device's link carried: counted by hour and purpose."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

HOUR_MS = 3_600_000


class Purpose(IntEnum):
    """What a datagram was for."""

    HANDSHAKE = 0
    PUBLISH = 1
    ANSWER = 2
    KEEPALIVE = 3
    OTHER = 4

    @property
    def label(self) -> str:
        """As the API shows it."""
        return self.name.lower()


class Usage(Struct, frozen=True, gc=False):
    """What a device used in one hour for one purpose.

    Attributes:
        hour: Hours since 1970-01-01 UTC.
        purpose: A `Purpose`.
        up_bytes, down_bytes: On the wire, the headers of IP and UDP included.
        publishes: Events that were stored.
        data_bytes: Their data.
    """

    device: str
    hour: int
    purpose: int
    up_bytes: int = 0
    up_datagrams: int = 0
    down_bytes: int = 0
    down_datagrams: int = 0
    publishes: int = 0
    data_bytes: int = 0


def hour(ms: int) -> int:
    """Hours since 1970-01-01 UTC."""
    return ms // HOUR_MS
