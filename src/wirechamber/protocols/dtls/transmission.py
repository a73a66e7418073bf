"""Flights on their way out: messages become fragments, records and datagrams, and are sent until they are answered.

RFC 6347, sections 4.2.3 and 4.2.4. Every record of epoch 0 gets a number of its own, also when it is sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from wirechamber.protocols.dtls.messages import MESSAGE_HEADER, header, whole
from wirechamber.protocols.dtls.records import (
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    HEADER,
    SEQUENCES,
    write_record,
)

# IPv6's smallest packet is 1280 bytes with its headers and UDP's (RFC 8200, section 5).
MTU = 1200
# After the second time that a flight was not answered it may have been too long for some network on the way. 508 bytes
# fit into any IPv4 packet (RFC 791: 576 bytes with up to 60 of IP's header and 8 of UDP's); mbedTLS does the same.
CAREFUL_MTU = 508
CAREFUL_AFTER = 2
# RFC 6347, section 4.2.4.1: "no less than the RFC 6298 maximum of 60 seconds".
LONGEST_TIMEOUT_S = 60.0
# A peer that repeats itself is answered, but not more often than this, nor so often that whoever replays its datagrams
# could make us send without end.
SPACING_S = 0.25
MAX_SENDS = 12
# The fewest bytes of a message that are worth a record.
_LEAST = 16

Protect = Callable[[int, bytes], bytes]


class Message(Struct, frozen=True):
    """A handshake message of a flight. It is sent under the session's keys if `protected`."""

    kind: int
    sequence: int
    body: bytes
    protected: bool = False


class ChangeCipherSpec(Struct, frozen=True):
    """What follows is protected (RFC 5246, section 7.1)."""


Item = Message | ChangeCipherSpec


class Transmission:
    """One side's flights.

    Args:
        first_sequence: Number of the first record of epoch 0.
        first_timeout: Seconds after which a flight is sent again; doubles each time (RFC 6347, section 4.2.4.1).
        mtu: Bytes of a datagram.

    Attributes:
        due: When the flight is sent again; None when it is not.
        repeats: How many times the flight was sent because nothing came.
    """

    __slots__ = (
        "_flight", "_keep", "_kept", "_mtu", "_out", "_protect", "_sends", "_sent_at", "_timeout", "due",
        "first_timeout", "repeats", "sequence",
    )  # fmt: skip

    def __init__(self, first_sequence: int, first_timeout: float, mtu: int = MTU) -> None:
        self.sequence = first_sequence
        self.due: float | None = None
        self.repeats = 0
        self._mtu = mtu
        self.first_timeout = first_timeout
        self._timeout = first_timeout
        self._flight: Sequence[Item] = ()
        self._protect: Protect | None = None
        self._keep = False
        self._kept: bytes | None = None
        self._sends = 0
        self._sent_at = 0.0
        self._out: list[bytes] = []

    def send(
        self,
        flight: Sequence[Item],
        now: float,
        *,
        protect: Protect | None = None,
        keep: bool = False,
        last: bool = False,
    ) -> None:
        """Sends a flight, and again until `stop`.

        Args:
            protect: Makes protected records.
            keep: Protected records are made once, and copies are sent later: the session's numbers are not used then.
            last: Nothing answers it: it is sent again only when the peer repeats itself.
        """
        self._flight = flight
        self._protect = protect
        self._keep = keep
        self._kept = None
        self._timeout = self.first_timeout
        self._sends = 0
        self.repeats = 0
        self._transmit(now)
        self.due = None if last else now + self._timeout

    def stop(self) -> None:
        """The flight was answered, at least in part: the peer's clock takes care of the rest."""
        self.due = None

    def expired(self, now: float) -> None:
        """Sends the flight again because its time is over."""
        self.repeats += 1
        self._timeout = min(self._timeout * 2, LONGEST_TIMEOUT_S)
        if self.repeats >= CAREFUL_AFTER:
            self._mtu = min(self._mtu, CAREFUL_MTU)
        self._transmit(now)
        self.due = now + self._timeout

    def repeat(self, now: float) -> None:
        """Sends the flight again because the peer did (RFC 6347, section 4.2.4, "receives retransmit")."""
        if self._flight and now - self._sent_at >= SPACING_S:
            self._transmit(now)
            if self.due is not None:
                self.due = now + self._timeout

    def record(self, content_type: int, content: bytes) -> None:
        """Sends one record of epoch 0, once."""
        if self.sequence < SEQUENCES:
            self._out.append(self._plain(content_type, content))

    def raw(self, record: bytes) -> None:
        """Sends a record that somebody else made, once."""
        self._out.append(record)

    def datagrams(self) -> list[bytes]:
        """What is to be sent now."""
        out, self._out = self._out, []
        return out

    def _transmit(self, now: float) -> None:
        if self._sends >= MAX_SENDS:
            return
        self._sends += 1
        self._sent_at = now
        self._out += _pack(self._records(), self._mtu)

    def _records(self) -> list[bytes]:
        records = []
        for item in self._flight:
            if isinstance(item, ChangeCipherSpec):
                records.append(self._plain(CHANGE_CIPHER_SPEC, b"\x01"))
            elif item.protected:
                records.append(self._protected(item))
            else:
                records += [self._plain(HANDSHAKE, fragment) for fragment in _fragments(item, self._mtu - HEADER)]
        return records

    def _protected(self, message: Message) -> bytes:
        if self._kept is not None:
            return self._kept
        assert self._protect is not None
        # The one message that is protected is Finished, 24 bytes: never in fragments.
        record = self._protect(HANDSHAKE, whole(message.kind, message.sequence, message.body))
        if self._keep:
            self._kept = record
        return record

    def _plain(self, content_type: int, content: bytes) -> bytes:
        record = write_record(content_type, self.sequence, content)
        self.sequence += 1
        return record


def _fragments(message: Message, room: int) -> list[bytes]:
    body = message.body
    size = max(room - MESSAGE_HEADER, _LEAST)
    return [
        header(message.kind, len(body), message.sequence, at, len(part)) + part
        for at in range(0, len(body) or 1, size)
        for part in (body[at : at + size],)
    ]


def _pack(records: list[bytes], mtu: int) -> list[bytes]:
    datagrams: list[bytes] = []
    datagram = b""
    for record in records:
        if datagram and len(datagram) + len(record) > mtu:
            datagrams.append(datagram)
            datagram = b""
        datagram += record
    if datagram:
        datagrams.append(datagram)
    return datagrams
