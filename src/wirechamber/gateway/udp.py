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
from typing import Protocol

import structlog

from wirechamber.clock import Clock
from wirechamber.gateway.accounting import BLOCK, Accounting
from wirechamber.gateway.datagrams import Datagrams, Way
from wirechamber.gateway.door import MAX_WATCHED, WATCHED_S, Door
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.forgeries import Forgeries
from wirechamber.gateway.link import Link
from wirechamber.gateway.meter import Meter, overhead
from wirechamber.gateway.slices import slices
from wirechamber.gateway.udplink import UdpLink
from wirechamber.model.ids import new_id
from wirechamber.observe.logs import Seldom
from wirechamber.protocols.dtls import (
    CID_LENGTH,
    HANDSHAKE,
    MOVED,
    MOVED_BY_NAME,
    TLS12_CID,
    Answer,
    Arrived,
    Established,
    Failed,
    Listener,
    NeedsPsk,
    OtherPsk,
    Over,
    Received,
    ServerHandshake,
    Session,
    read_named,
)
from wirechamber.shares import Shares, neighbours_of, network_of

_log = structlog.get_logger("wirechamber.gateway")
_seldom = Seldom(_log)

# Handshakes under way, half-open ones too: each is some kilobytes and 0.2 ms of work. A spoofed address begins none.
# When all places are taken, the oldest of the network that has most gives way, so whoever floods drops his own.
MAX_HANDSHAKES = 4096
# A peer that does not go on is forgotten; Device OS gives up after 45 s (device-protocol.md, section 3.4).
HANDSHAKE_S = 60.0
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
