"""A session over UDP: records in and out, and where its device is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from wirechamber.gateway.accounting import BLOCK, LOW
from wirechamber.gateway.datagrams import Way, format_way
from wirechamber.gateway.link import Link
from wirechamber.gateway.meter import DOWN_BYTES, DOWN_DATAGRAMS, UP_BYTES, UP_DATAGRAMS, Purpose, overhead
from wirechamber.model import links
from wirechamber.model.devices import Device
from wirechamber.model.links import Checkpoint
from wirechamber.protocols.dtls import (
    ALERT,
    APPLICATION_DATA,
    HANDSHAKE,
    MOVED_BY_NAME,
    Alert,
    AlertLevel,
    Received,
    Refusal,
    SequenceExhausted,
    Session,
    read_named,
    split_records,
)

if TYPE_CHECKING:
    from wirechamber.gateway.udp import Handshaking, Udp

# Datagrams that wait while a session is fetched from the store, by number and bytes; devices repeat what is dropped.
MAX_WAITING = 16
MAX_WAITING_BYTES = 8192


class UdpLink(Link):
    """A session over UDP. Dormant ones, which this process only knows to exist, have no `session`.

    Attributes:
        cid: The connection id in the device's records; empty: they are told by their address.
        names_itself: It has no connection id, and says its device's id when it comes from elsewhere, as Device OS did
            before 3.1.
        address: Where the device was last; empty: another session is there now, and it has yet to come back.
        stored: The session is in the store, so what it does is accounted for.
        waiting: What came while it was fetched from there.
        handshaking: How it began, while the peer may not have the end of that yet.
    """

    __slots__ = (
        "_accounting", "_asked", "_at", "_coming", "_elsewhere", "_meter", "_overhead", "_udp", "cid", "handshaking",
        "names_itself", "session", "stored", "waiting",
    )  # fmt: skip

    def __init__(self, udp: Udp, session_id: str, cid: bytes, *, deviceos: bool) -> None:
        super().__init__(session_id, deviceos=deviceos)
        self._udp = udp
        self._meter = udp.meter
        self._accounting = udp.accounting
        self._asked = 0
        self._overhead = 0
        self.cid = cid
        self.names_itself = deviceos and not cid
        self.session: Session | None = None
        self.stored = False
        # Number of the record that told where the device is.
        self._at = -1
        # It was found elsewhere by its name, and nobody was told yet.
        self._elsewhere = False
        # From where it came by its name, while that is written down.
        self._coming: Way = ()
        self.waiting: list[tuple[bytes, Way]] | None = None
        self.handshaking: Handshaking | None = None

    # --- what comes in ---

    def arrived(self, datagram: bytes, address: Way) -> None:
        """Takes a datagram that names this session."""
        session = self.session
        if session is None:
            self._wait(datagram, address)
            return
        received = session.unprotect(datagram)
        if received is not None:
            self.take(received, len(datagram), address)
            return
        why = session.refused
        if datagram[0] == MOVED_BY_NAME:
            self._arrived_by_name(session, datagram, address)
            return
        # Mostly a datagram holds one record; where it holds more, they are told by their lengths.
        records = split_records(datagram, len(self.cid)) if why is Refusal.LENGTH else []
        if len(records) < 2:
            self._udp.refused[f"record_{why}"] += 1
            return
        for record in records:
            received = session.unprotect(record)
            if received is None:
                self._udp.refused[f"record_{session.refused}"] += 1
            else:
                self.take(received, len(record), address)

    def _arrived_by_name(self, session: Session, datagram: bytes, address: Way) -> None:
        """Takes a record that names its device, which anybody could write."""
        named = read_named(datagram)
        received = None if named is None else session.unprotect(named.record)
        if received is not None:
            # By its address it is found after a restart. Once it has an answer its records have no name, so where it
            # is must be on disk before that, together with the record's number.
            self._coming = address
            self.after_accounting(partial(self._came, received, len(datagram), address))
            return
        self._udp.refused[f"moved_{session.refused}"] += 1
        if session.refused is Refusal.TAG:
            self._udp.forged(address)

    def _came(self, received: Received, size: int, address: Way) -> None:
        if self._coming == address:
            self._coming = ()
        if received.sequence > self._at:
            self._at = received.sequence
            if address != self.address:
                self._udp.move(self, address)
                self._elsewhere = True
        self.take(received, size, address)

    def take(self, received: Received, size: int, address: Way) -> None:
        """Takes a record that proved to be the device's.

        Args:
            size: Bytes of the datagram; 0 if they were counted elsewhere.
        """
        if self.closed:
            # The end of its handshake is still kept, and may be handed records of a session that is no more.
            self._udp.refused["closed"] += 1
            return
        self.heard = self._udp.clock.monotonic()
        if received.content_type == APPLICATION_DATA:
            if self.handshaking is not None:
                # Who speaks under the new keys has all that it needs (RFC 6347, section 4.2.4).
                self._udp.drop(self.handshaking)
            if size:
                size += self._overhead if address == self.address else overhead(address[0])
            self._udp.handler.received(self, received.data, received.sequence, size, address)
        elif received.content_type == HANDSHAKE:
            self._udp.repeated(address, received)
        elif received.content_type == ALERT:
            data = received.data
            if len(data) == 2 and (data[0] == AlertLevel.FATAL or data[1] == Alert.CLOSE_NOTIFY):
                self._udp.handler.ended(self, f"alert {data[1]}")

    def moved(self, sequence: int, address: Way) -> bool:
        """As `Link.moved`: an older record does not bring an older address back."""
        elsewhere, self._elsewhere = self._elsewhere, False
        if self.stored:
            self._accounting.received(self)
        if sequence > self._at:
            self._at = sequence
            # Without a connection id, the address is what tells whose a record is.
            if address != self.address and self.cid:
                self.adopt(address)
                elsewhere = True
        if self.asleep:
            self._udp.handler.awake(self)
        return elsewhere

    def adopt(self, address: Way) -> None:
        """The device is at this address now."""
        self.address = address
        self._overhead = overhead(address[0]) if address else 0

    def _wait(self, datagram: bytes, address: Way) -> None:
        waiting = self.waiting
        if waiting is None:
            waiting = self.waiting = []
            self._udp.handler.wake(self)
        if len(waiting) < MAX_WAITING and sum(len(each) for each, _ in waiting) + len(datagram) <= MAX_WAITING_BYTES:
            waiting.append((datagram, address))
        else:
            self._udp.refused["waiting"] += 1

    def open(self, session: Session) -> None:
        """From now on records are read; those that waited are first."""
        self.session = session
        self._at = session.top
        waiting, self.waiting = self.waiting, None
        for datagram, address in waiting or ():
            self.arrived(datagram, address)

    # --- what goes out ---

    def send(self, message: bytes, purpose: Purpose) -> None:
        """Sends one CoAP message to where the device was last."""
        self._send(APPLICATION_DATA, message, purpose)

    def refuse(self) -> None:
        """As `Link.refuse`: a protected alert, which a device believes (device-protocol.md, section 3.6)."""
        self._send(ALERT, bytes((AlertLevel.FATAL, Alert.ACCESS_DENIED)), Purpose.OTHER)

    def discard(self) -> None:
        """As `Link.discard`."""
        self._send(ALERT, bytes((AlertLevel.WARNING, Alert.CLOSE_NOTIFY)), Purpose.OTHER)

    def close(self) -> None:
        """As `Link.close`."""
        self._udp.forget(self)

    def _send(self, content_type: int, data: bytes, purpose: Purpose) -> None:
        session = self.session
        if session is None or self.closed or not self.address:
            return
        try:
            record = session.protect(content_type, data)
        except SequenceExhausted:
            # The next block is on its way; whatever this was is sent again by whoever needs it.
            self._udp.refused["send_limit"] += 1
            self._reserve(session)
            return
        if session.send_limit - session.next_sequence < LOW:
            self._reserve(session)
        self._udp.transmit(record, self.address)
        size = len(record) + self._overhead
        counts = self.published
        if counts is not None and purpose is Purpose.PUBLISH:
            counts[DOWN_BYTES] += size
            counts[DOWN_DATAGRAMS] += 1
        elif self.device is None:
            self.count_handshake(0, 0, size, 1)
        else:
            self._meter.down(self.device.id, purpose, size)

    def _reserve(self, session: Session) -> None:
        # A session that is not stored yet has its first block only, and its keys die with the process.
        if self.stored and self._asked <= session.send_limit:
            self._asked = session.send_limit + BLOCK
            self._accounting.reserve(self, self._asked)

    def reserved(self, send_limit: int) -> None:
        """Sequence numbers below this may be sent."""
        if self.session is not None:
            self.session.send_limit = max(self.session.send_limit, send_limit)

    def next_id(self) -> int:
        """From the record's number, so that none repeats for 65,536 records."""
        return 0 if self.session is None else self.session.next_sequence & 0xFFFF

    # --- what is kept ---

    def after_accounting(self, then: Callable[[], Any]) -> None:
        """Calls `then` once what was received so far is on disk."""
        if self.stored:
            self._accounting.after(self, then)
        else:
            then()

    def checkpoint(self) -> Checkpoint:
        """The session's state as of now."""
        session = self.session
        return Checkpoint(
            session=self.id,
            top=-1 if session is None else session.top,
            mids=self.mids.to_bytes(),
            address=format_way(self._coming or self.address),
        )

    @property
    def public_key(self) -> bytes | None:
        """As `Link.public_key`."""
        return None if self.session is None else self.session.state.peer_public_key

    @property
    def psk_identity(self) -> bytes | None:
        """As `Link.psk_identity`."""
        return None if self.session is None else self.session.state.psk_identity

    def record(self, device: str, now: int) -> links.Session | None:
        """As `Link.record`."""
        session = self.session
        assert session is not None
        return links.Session(
            id=self.id,
            cid=self.cid,
            deviceos=self.deviceos,
            state=msgspec.msgpack.encode(session.state),
            created_at=now,
            device=device,
            address=format_way(self.address),
            send_limit=session.send_limit,
            top=session.top,
            mids=self.mids.to_bytes(),
        )

    @property
    def dormant(self) -> bool:
        """As `Link.dormant`."""
        return self.session is None

    def greeted(self, device: Device) -> None:
        """As `Link.greeted`."""
        self.device = device
        self.stored = True
        if self.handshake is not None:
            up, up_datagrams, down, down_datagrams = self.handshake
            counts = self._meter.of(device.id, Purpose.HANDSHAKE)
            counts[UP_BYTES] += up
            counts[UP_DATAGRAMS] += up_datagrams
            counts[DOWN_BYTES] += down
            counts[DOWN_DATAGRAMS] += down_datagrams
            self.handshake = None
