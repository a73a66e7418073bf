"""The UDP side of the gateway: whose a datagram is, handshakes, and links that are made by them.

A datagram belongs to a session by the connection id in its record or, where there is none, by the address it came
from. Whatever a datagram holds, it causes bounded work: mostly a look-up and a decryption. A ClientHello without a good
cookie is answered by no more bytes than it had, and forgotten.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import msgspec
import structlog

from wirechamber.clock import Clock
from wirechamber.gateway.accounting import BLOCK, LOW, Accounting
from wirechamber.gateway.datagrams import Datagrams, Way, format_way
from wirechamber.gateway.door import MAX_WATCHED, WATCHED_S, Door
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.forgeries import Forgeries
from wirechamber.gateway.link import Link
from wirechamber.gateway.meter import DOWN_BYTES, DOWN_DATAGRAMS, UP_BYTES, UP_DATAGRAMS, Meter, Purpose, overhead
from wirechamber.gateway.slices import slices
from wirechamber.model import links
from wirechamber.model.devices import Device
from wirechamber.model.ids import new_id
from wirechamber.model.links import Checkpoint
from wirechamber.observe.logs import Seldom
from wirechamber.protocols.dtls import (
    ALERT,
    APPLICATION_DATA,
    CID_LENGTH,
    HANDSHAKE,
    MOVED,
    MOVED_BY_NAME,
    TLS12_CID,
    Alert,
    AlertLevel,
    Answer,
    Arrived,
    Established,
    Failed,
    Listener,
    NeedsPsk,
    OtherPsk,
    Over,
    Received,
    Refusal,
    SequenceExhausted,
    ServerHandshake,
    Session,
    read_named,
    split_records,
)
from wirechamber.shares import Shares, neighbours_of, network_of

_log = structlog.get_logger("wirechamber.gateway")
_seldom = Seldom(_log)

# Handshakes under way, half-open ones too: each is some kilobytes and 0.2 ms of work. A spoofed address begins none.
# When all places are taken, the oldest of the network that has most gives way, so whoever floods drops his own.
MAX_HANDSHAKES = 4096
# A peer that does not go on is forgotten; Device OS gives up after 45 s (device-protocol.md, section 3.4).
HANDSHAKE_S = 60.0
# Datagrams that wait while a session is fetched from the store, by number and bytes; devices repeat what is dropped.
MAX_WAITING = 16
MAX_WAITING_BYTES = 8192
# Handshakes that are looked at in one turn of the loop; each may send its flight again.
SLICE = 256
# An address from which a session was heard so lately is not given to another one: no network takes a mapping away from
# a device that speaks (RFC 4787, REQ-5), so whoever says to be there has written somebody else's address on a datagram.
HELD_S = 20.0
# The first two bytes of a connection id say which process holds it; there is one.
SLOT = b"\0\0"


class Handler(Protocol):
    """What becomes of what arrives: the gateway above the socket."""

    def established(self, link: UdpLink) -> None:
        """A handshake is done; the device has not said yet who it is, unless a pre-shared key did."""

    def received(self, link: Link, data: bytes, sequence: int, size: int, address: Way) -> None:
        """An authentic record of application data; `size` in bytes on the wire."""

    def ended(self, link: UdpLink, why: str) -> None:
        """The peer ended the session."""

    def wake(self, link: UdpLink) -> None:
        """Something came for a session that is in the store only; `UdpLink.open` is called, or `Udp.forget`."""

    def awake(self, link: Link) -> None:
        """A device that slept has said something, and it is known from where."""

    def linked(self, device: str) -> Link | None:
        """The link that a device has, if it has one."""

    def find_psk(self, identity: bytes, address: Way, found: Callable[[bytes | None], None]) -> None:
        """Looks a pre-shared key up and calls `found` with it, or with None."""

    def other_psk(self, identity: bytes, address: Way) -> None:
        """A device gives this identity and has another pre-shared key."""


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
        "_accounting", "_asked", "_at", "_coming", "_meter", "_overhead", "_udp", "cid", "handshaking", "names_itself",
        "session", "stored", "waiting",
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
        elsewhere = False
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


class Handshaking:
    """A handshake at an address, and what it has taken so far."""

    __slots__ = ("address", "began", "core", "counts", "due", "link", "overhead", "told")

    def __init__(self, core: ServerHandshake, address: Way, began: float) -> None:
        self.core = core
        self.address = address
        self.began = began
        self.due: float | None = None
        self.link: UdpLink | None = None
        self.overhead = overhead(address[0])
        # Why it will fail is told already.
        self.told = False
        self.counts = [0, 0, 0, 0]


class Udp:
    """The port, its sessions and its handshakes.

    Attributes:
        refused: Datagrams and records that were dropped, by reason.
        handshakes_done: How many were completed.
        datagrams: How many came.
    """

    def __init__(
        self,
        listener: Listener,
        handler: Handler,
        accounting: Accounting,
        meter: Meter,
        clock: Clock,
        faults: Faults,
        door: Door,
    ) -> None:
        self._door = door
        self._listener = listener
        self._faults = faults
        self.handler = handler
        self.accounting = accounting
        self.meter = meter
        self.clock = clock
        self.refused: Counter[str] = Counter()
        self.handshakes_done = 0
        self.datagrams = 0
        self._by_cid: dict[bytes, UdpLink] = {}
        self._by_address: dict[Way, UdpLink] = {}
        self._handshakes: dict[Way, Handshaking] = {}
        self._places: Shares[Handshaking] = Shares(MAX_HANDSHAKES)
        self._forgeries = Forgeries()
        # Sessions that were replaced by newer ones of their devices, and when.
        self._watched: dict[bytes | Way, tuple[UdpLink, Link, float]] = {}
        self._port = Datagrams(self.datagram_received, self.refused)
        self.open = self._port.open
        self.transmit = self._port.send

    # --- the port ---

    @property
    def port(self) -> int:
        """Where it is open; 0 while it is not."""
        return self._port.port

    def datagram_received(self, data: bytes, addr: Way) -> None:
        """Takes a datagram; whatever it does to us, the socket stays open for others."""
        self.datagrams += 1
        try:
            self._received(data, addr)
        except Exception as problem:
            self._faults.of(None, "datagram", problem)

    def _received(self, data: bytes, addr: Way) -> None:
        """Finds whom a datagram is for."""
        kind = data[0] if data else 0
        if kind in (TLS12_CID, MOVED):
            cid = data[11 : 11 + CID_LENGTH]
            link = self._by_cid.get(cid)
            if link is not None:
                link.arrived(data, addr)
            elif (handshaking := self._handshakes.get(addr)) is not None:
                # The end of a flight that came in several datagrams.
                self._feed(handshaking, data)
            else:
                # Nothing can be said that the device would believe (device-protocol.md, section 3.6).
                self.refused["unknown_cid"] += 1
                self._look_back(cid, data, addr)
            return
        if kind == MOVED_BY_NAME:
            self._named(data, addr)
            return
        handshaking = self._handshakes.get(addr)
        if handshaking is not None and (kind == HANDSHAKE or addr not in self._by_address):
            if handshaking.core.continues(data):
                self._feed(handshaking, data)
                return
        elif kind != HANDSHAKE or data[3:5] != b"\0\0":
            link = self._by_address.get(addr)
            if link is not None:
                link.arrived(data, addr)
                return
        self._greet(data, addr)

    def _named(self, data: bytes, addr: Way) -> None:
        """Gives a record that names its device to that device's session: nothing is true of it before it verifies."""
        named = read_named(data)
        link = None if named is None else self.handler.linked(named.device)
        if not isinstance(link, UdpLink) or not link.names_itself:
            # It has made a new session meanwhile, or there is none; nothing can be said that the device would believe.
            self.refused["unknown_name"] += 1
        elif self._forgeries.shut(neighbours_of(addr[0]), self.clock.monotonic()) and addr[:1] != link.address[:1]:
            self.refused["moved_damped"] += 1
        else:
            link.arrived(data, addr)

    def forged(self, address: Way) -> None:
        """A record that named a device was not the device's."""
        _seldom.warning("moved_forged", why="a record names a device that did not write it", address=address[0])
        self._forgeries.failed(neighbours_of(address[0]), self.clock.monotonic())

    def close(self) -> None:
        """Closes the port; devices are told nothing, and go on with the next process."""
        self._port.close()

    # --- sessions ---

    def bind(self, link: UdpLink) -> None:
        """Records of this session are given to it from now on."""
        if link.cid:
            self._by_cid[link.cid] = link
        elif link.address:
            self._by_address[link.address] = link

    def move(self, link: UdpLink, address: Way) -> None:
        """A session without a connection id goes on from this address."""
        there = self._by_address.get(address)
        if there is not None and there is not link:
            if not there.dormant and self.clock.monotonic() - there.heard < HELD_S:
                self.refused["address_held"] += 1
                return
            self._displace(there, "another session is at its address")
        if self._by_address.get(link.address) is link:
            del self._by_address[link.address]
        link.adopt(address)
        self._by_address[address] = link

    def _displace(self, link: UdpLink, why: str) -> None:
        """A session is not where it was last: it comes back by itself, if it can say that it does."""
        if not link.names_itself:
            self.handler.ended(link, why)
            return
        del self._by_address[link.address]
        link.adopt(())
        if link.stored:
            # So that the next process does not look for it there either.
            self.accounting.received(link)

    def forget(self, link: UdpLink) -> None:
        """The session is no more."""
        link.closed = True
        link.waiting = link.handshaking = None
        if self._by_cid.get(link.cid) is link:
            del self._by_cid[link.cid]
        if self._by_address.get(link.address) is link:
            del self._by_address[link.address]

    def watch(self, old: UdpLink, new: Link) -> None:
        """The session was replaced by a newer one of its device: if it goes on all the same, there are two of those."""
        self._watched[old.cid or old.address] = old, new, self.clock.monotonic()
        if len(self._watched) > MAX_WATCHED:
            del self._watched[next(iter(self._watched))]

    def _look_back(self, key: bytes | Way, data: bytes, addr: Way) -> None:
        watched = self._watched.get(key)
        if watched is None:
            return
        old, new, since = watched
        if self.clock.monotonic() - since > WATCHED_S or old.session is None:
            del self._watched[key]
        elif addr != new.address and old.session.unprotect(data) is not None:
            del self._watched[key]
            self._door.still_there(old, addr)

    def new_cid(self) -> bytes:
        """A connection id that nobody has."""
        while True:
            cid = SLOT + os.urandom(CID_LENGTH - len(SLOT))
            if cid not in self._by_cid:
                return cid

    # --- handshakes ---

    @property
    def handshakes(self) -> int:
        """How many are under way."""
        return len(self._handshakes)

    def repeated(self, address: Way, received: Received) -> None:
        """A device that has a session repeats the end of its handshake."""
        handshaking = self._handshakes.get(address)
        if handshaking is not None:
            handshaking.core.repeated(received, self.clock.monotonic())
            self._drain(handshaking)

    async def tick(self) -> None:
        """Sends what is due again, and forgets handshakes that do not go on."""
        async for handshakes in slices(self._handshakes.values(), SLICE):
            now = self.clock.monotonic()
            for handshaking in handshakes:
                self._faults.guard(handshaking.link, "handshake", partial(self._look_after, handshaking, now))

    def _look_after(self, handshaking: Handshaking, now: float) -> None:
        if self._handshakes.get(handshaking.address) is not handshaking:
            # It has ended meanwhile.
            return
        if handshaking.due is not None and handshaking.due <= now:
            handshaking.core.tick(now)
            self._drain(handshaking)
        elif now - handshaking.began > HANDSHAKE_S:
            self.drop(handshaking)

    def _greet(self, data: bytes, addr: Way) -> None:
        now = self.clock.monotonic()
        answer = self._listener.greet(data, repr(addr[:2]).encode(), now)
        if isinstance(answer, Answer):
            self.transmit(answer.datagram, addr)
        elif answer is None:
            self.refused[self._door.stray(data, addr[0])] += 1
            self._look_back(addr, data, addr)
        elif answer is not None:
            old = self._handshakes.get(addr)
            if old is not None:
                self.drop(old)
            handshaking = self._handshakes[addr] = Handshaking(answer, addr, now)
            out = self._places.add(network_of(addr[0]), handshaking, neighbours_of(addr[0]))
            if out is not None:
                self.refused["handshakes"] += 1
                _seldom.warning(
                    "handshakes_full", why="too many handshakes are half open", network=network_of(out.address[0])
                )
                self.drop(out)
            handshaking.counts[0] += len(data) + handshaking.overhead
            handshaking.counts[1] += 1
            self._drain(handshaking)

    def _feed(self, handshaking: Handshaking, data: bytes) -> None:
        handshaking.counts[0] += len(data) + handshaking.overhead
        handshaking.counts[1] += 1
        handshaking.core.receive(data, self.clock.monotonic())
        self._drain(handshaking)

    def _drain(self, handshaking: Handshaking) -> None:
        """Sends what a handshake has to say, and does what it tells."""
        core = handshaking.core
        for datagram in core.datagrams(self.clock.monotonic()):
            self.transmit(datagram, handshaking.address)
            handshaking.counts[2] += len(datagram) + handshaking.overhead
            handshaking.counts[3] += 1
        for event in core.events():
            match event:
                case NeedsPsk(identity):
                    self.handler.find_psk(identity, handshaking.address, lambda psk: self._provide(handshaking, psk))
                case OtherPsk(identity):
                    if not handshaking.told:
                        handshaking.told = True
                        self.handler.other_psk(identity, handshaking.address)
                case Established(session):
                    self._established(handshaking, session)
                case Arrived(received):
                    if handshaking.link is not None:
                        # Its bytes are counted already, as the handshake's.
                        handshaking.link.take(received, 0, handshaking.address)
                case Failed():
                    self.refused["handshake_failed"] += 1
                    if not handshaking.told:
                        self._door.handshake_failed(event, handshaking.address[0], showed_key=core.showed_key)
                    self.drop(handshaking)
                    return
                case Over():
                    self.drop(handshaking)
                    return
        handshaking.due = core.deadline()

    def _provide(self, handshaking: Handshaking, psk: bytes | None) -> None:
        if self._handshakes.get(handshaking.address) is handshaking:
            handshaking.told = psk is None
            handshaking.core.provide_psk(psk, self.clock.monotonic())
            self._drain(handshaking)

    def _established(self, handshaking: Handshaking, session: Session) -> None:
        state = session.state
        session.send_limit = BLOCK
        link = UdpLink(self, new_id(self.clock.now()), state.local_cid, deviceos=state.profile != "rfc")
        link.session = session
        link.heard = self.clock.monotonic()
        link.handshake = handshaking.counts
        link.adopt(handshaking.address)
        handshaking.link = link
        link.handshaking = handshaking
        replaced = None if link.cid else self._by_address.get(link.address)
        if replaced is not None:
            self._displace(replaced, "a new handshake from its address")
        self.bind(link)
        self.handshakes_done += 1
        self.handler.established(link)

    def drop(self, handshaking: Handshaking) -> None:
        """The handshake is over."""
        if handshaking.link is not None:
            handshaking.link.handshaking = None
        self._places.discard(handshaking)
        if self._handshakes.get(handshaking.address) is handshaking:
            del self._handshakes[handshaking.address]
