"""The TCP side of the gateway: Device OS's older link (device-protocol.md, section 5), a connection for each device.

A connection costs the server two RSA operations, and whoever can connect can ask for the first of them. So they are
done one at a time, with pauses between, for one network after the other; who has to wait too long gives up and comes
back, as devices do.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from wirechamber.clock import Clock
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.link import Link
from wirechamber.gateway.meter import DOWN_BYTES, DOWN_DATAGRAMS, UP_BYTES, UP_DATAGRAMS, Meter, Purpose
from wirechamber.gateway.slices import slices
from wirechamber.listening import bound
from wirechamber.model.devices import Device
from wirechamber.model.ids import new_id
from wirechamber.observe.logs import Seldom
from wirechamber.protocols.legacy_tcp import (
    Established,
    Event,
    Failed,
    Failure,
    NeedsAdmission,
    ServerHandshake,
    Session,
    TooLong,
    wire_length,
)
from wirechamber.shares import Shares, neighbours_of, network_of

_log = structlog.get_logger("wirechamber.gateway")
_seldom = Seldom(_log)

Address = tuple[Any, ...]

# Each is a file descriptor and some kilobytes; a common limit of a process is 1024 or more of these. When all places
# are taken, the oldest of the owner who has most gives way.
MAX_CONNECTIONS = 4096
# Connections whose device is not known yet; each ends within a minute at most. When all places are taken, the oldest of
# the network that has most gives way.
MAX_HANDSHAKES = 256
# An RSA operation takes 0.4 ms. At one in 2 ms, strangers take a fifth of the time, and 256 of them wait half a second.
PACE_S = 0.002
# A device says Hello at once; it gives up on its own when it has no answer after 4 s (device-protocol.md, 5.1).
HELLO_S = 20.0
# A device on Wi-Fi pings after 15 s of silence, the virtual one after 25 s.
IDLE_S = 120.0
# What a device has not taken is kept by the kernel first, then here. One that does not read is not there.
MAX_UNSENT = 64 * 1024
BACKLOG = 512
# Connections that are looked at in one turn of the loop.
SLICE = 500
# Last words get so long to go out.
LINGER_S = 5.0


class Handler(Protocol):
    """What becomes of what arrives: the gateway above the socket."""

    def admit(self, device_id: str, public_key: bytes, decided: Callable[[bool], None]) -> None:
        """A device says who it is, and waits; calls `decided` with whether it may come in with this key."""

    def established(self, link: Link) -> None:
        """A handshake is done; that the device owns its key, its first message shows."""

    def received(self, link: Link, data: bytes, sequence: int, size: int, address: Address) -> None:
        """A message, `size` bytes on the wire."""

    def ended(self, link: Link, why: str) -> None:
        """The connection is over."""


class TcpLink(Link):
    """A device's connection after its handshake. It ends with the connection and is stored nowhere."""

    __slots__ = ("_connection", "_key", "_next_id", "session")

    def __init__(self, connection: Connection, established: Established, session_id: str) -> None:
        super().__init__(session_id, deviceos=True, reliable=True)
        self._connection = connection
        self._key = established.device_public_key
        self._next_id = 0
        self.session: Session = established.session
        self.claimed_id = established.device_id.hex()
        self.address = connection.address

    @property
    def public_key(self) -> bytes | None:
        """The device's RSA key, DER; it proves that it owns it by what it sends."""
        return self._key

    @property
    def psk_identity(self) -> bytes | None:
        """None: this link knows no pre-shared keys."""
        return None

    def record(self, device: str, now: int) -> None:
        """None: it ends with this process."""

    def send(self, message: bytes, purpose: Purpose) -> None:
        """Sends one CoAP message."""
        if self.closed:
            return
        try:
            frame = self.session.frame(message)
        except TooLong:
            self._connection.tcp.refused["too_long"] += 1
            return
        if self.device is None:
            self.count_handshake(0, 0, len(frame), 1)
        else:
            self._connection.tcp.meter.down(self.device.id, purpose, len(frame))
        self._connection.write(frame)

    def next_id(self) -> int:
        """Counted up; nothing is sent twice over TCP."""
        self._next_id = (self._next_id + 1) & 0xFFFF
        return self._next_id

    def after_accounting(self, then: Callable[[], Any]) -> None:
        """Calls `then` at once: a connection's bytes can't be played again on another."""
        then()

    def moved(self, sequence: int, address: Address) -> bool:
        """False: a connection stays where it is."""
        return False

    def greeted(self, device: Device) -> None:
        """As `Link.greeted`."""
        self.device = device
        self._connection.known()
        if self.handshake is not None:
            counts = self._connection.tcp.meter.of(device.id, Purpose.HANDSHAKE)
            for which, count in zip((UP_BYTES, UP_DATAGRAMS, DOWN_BYTES, DOWN_DATAGRAMS), self.handshake, strict=True):
                counts[which] += count
            self.handshake = None

    def refuse(self) -> None:
        """Says nothing: that the connection ends is all that the device understands."""

    def discard(self) -> None:
        """Says nothing: with the connection the session ends."""

    def close(self) -> None:
        """What was sent goes out, then the connection ends."""
        self.closed = True
        self._connection.close()


class Connection(asyncio.Protocol):
    """One TCP connection, from the accept to its end.

    Attributes:
        address: Host and port of the other side.
        began: When it was accepted, then when the handshake was done; seconds, monotonic.
        link: Once the handshake is done.
        network: Where it comes from.
    """

    __slots__ = (
        "_core", "_counts", "_ending", "_sequence", "_transport", "_waiting", "address", "began", "link", "network",
        "tcp",
    )  # fmt: skip

    def __init__(self, tcp: Tcp) -> None:
        self.tcp = tcp
        self.address: Address = ()
        self.network = ""
        self.began = tcp.clock.monotonic()
        self.link: TcpLink | None = None
        self._core: ServerHandshake | None = None
        self._transport: asyncio.Transport | None = None
        # Bytes that wait for their turn.
        self._waiting = b""
        self._ending: float | None = None
        self._sequence = 0
        self._counts = [0, 0, 0, 0]

    # --- the socket ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        # Not of that class everywhere: uvloop has its own.
        self._transport = transport = cast(asyncio.Transport, transport)
        self.address = transport.get_extra_info("peername") or ("", 0)
        self.network = network_of(str(self.address[0]))
        self.tcp.accept(self)
        self._core = ServerHandshake(self.tcp.private_key, self.began)
        self._flush(self._core)

    def data_received(self, data: bytes) -> None:
        """Bytes, cut anywhere; whatever they do to us is the end of this connection only."""
        try:
            self._received(data)
        except Exception as problem:
            self.tcp.fault(self, problem)

    def _received(self, data: bytes) -> None:
        link = self.link
        if link is not None:
            self._frames(link, data)
        elif self._core is not None:
            self._counts[0] += len(data)
            self._counts[1] += 1
            if self._waiting or len(data) >= self._core.missing:
                self._line_up(data)
            else:
                self._happened(self._core.receive(data, self.tcp.clock.monotonic()))

    def eof_received(self) -> bool:
        """The other side says no more; then neither do we."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self.tcp.lost(self)
        self._core = None
        self._transport = None
        link = self.link
        if link is not None and not link.closed:
            self.tcp.handler.ended(link, "the connection ended" if exc is None else f"the connection broke: {exc}")

    def write(self, data: bytes) -> None:
        """Sends bytes, unless too many wait already."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(data)
        if transport.get_write_buffer_size() > MAX_UNSENT:
            self.tcp.refused["does_not_read"] += 1
            transport.abort()

    def close(self) -> None:
        """Ends it, after what was written has gone out."""
        self._core = None
        if self._transport is not None:
            self._ending = self.tcp.clock.monotonic()
            self._transport.close()

    def abort(self) -> None:
        """Ends it at once."""
        self._core = None
        if self._transport is not None:
            self._transport.abort()

    # --- the handshake ---

    def known(self) -> None:
        """Its device has said Hello and is let in."""
        link = self.link
        assert link is not None
        assert link.device is not None
        self.tcp.known(self, link.device.owner or link.device.id)

    def give_way(self, why: str) -> None:
        """Ends it at once, for others."""
        self._give_up(why)

    def go_on(self) -> None:
        """It is this connection's turn for an RSA operation."""
        core = self._core
        if core is not None:
            waiting, self._waiting = self._waiting, b""
            self._happened(core.receive(waiting, self.tcp.clock.monotonic()))

    def tick(self, now: float) -> None:
        """Looks whether the other side has had its time."""
        if self._ending is not None:
            if now - self._ending > LINGER_S:
                self.abort()
        elif self._core is not None and self.link is None:
            self._happened(self._core.tick(now))
        elif self.link is not None and self.link.device is None:
            if now - self.began > HELLO_S:
                self._give_up("no_hello")
        elif self.link is not None and now - self.link.heard > max(IDLE_S, self.link.idle_limit):
            self._give_up("silent")

    def _line_up(self, data: bytes) -> None:
        core = self._core
        assert core is not None
        if not self._waiting:
            self.tcp.line_up(self)
        # One byte too many is enough to be refused for.
        self._waiting += data[: core.missing + 1 - len(self._waiting)]

    def _happened(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case NeedsAdmission(device_id, public_key):
                    self.tcp.handler.admit(device_id.hex(), public_key, self._decided)
                case Failed(why):
                    self.tcp.refused[f"handshake_{why}"] += 1
                    address = str(self.address[0])
                    if why is Failure.NOT_FOR_US:
                        _seldom.warning(
                            "handshake_failed", why="the device holds another server's public key", transport="tcp",
                            address=address, advice="give it this server's: `wirechamber server key --tcp`",
                        )  # fmt: skip
                    else:
                        _seldom.warning("handshake_failed", why=str(why), transport="tcp", address=address)
                    self.abort()
                case Established():
                    self._established(event)

    def _decided(self, welcome: bool) -> None:
        core = self._core
        if core is None or core.over:
            return
        if welcome:
            self._happened([core.admit()])
        else:
            core.refuse()
            self.tcp.refused["not_admitted"] += 1
            self.abort()

    def _established(self, established: Established) -> None:
        core = self._core
        assert core is not None
        link = self.link = TcpLink(self, established, new_id(self.tcp.clock.now()))
        self.began = link.heard = self.tcp.clock.monotonic()
        self._flush(core)
        self._core = None
        link.count_handshake(*self._counts)
        self.tcp.handshakes_done += 1
        self.tcp.handler.established(link)

    def _flush(self, core: ServerHandshake) -> None:
        data = core.outgoing()
        self._counts[2] += len(data)
        self._counts[3] += 1
        self.write(data)

    # --- messages ---

    def _frames(self, link: TcpLink, data: bytes) -> None:
        session = link.session
        messages = session.receive(data)
        if messages:
            link.heard = self.tcp.clock.monotonic()
        for message in messages:
            if link.closed:
                return
            self._sequence += 1
            self.tcp.handler.received(link, message, self._sequence, wire_length(len(message)), self.address)
        if session.refused is not None and not link.closed:
            self._give_up(f"frame_{session.refused}")

    def _give_up(self, why: str) -> None:
        self.tcp.refused[why] += 1
        link = self.link
        if link is not None and not link.closed:
            self.tcp.handler.ended(link, why)
        self.abort()


class Tcp:
    """The listening socket and its connections.

    Attributes:
        refused: What was dropped, by reason.
        handshakes_done: How many were completed.
    """

    def __init__(
        self, private_key: RSAPrivateKey, handler: Handler, meter: Meter, clock: Clock, faults: Faults
    ) -> None:
        self.private_key = private_key
        self._faults = faults
        self.handler = handler
        self.meter = meter
        self.clock = clock
        self.refused: Counter[str] = Counter()
        self.handshakes_done = 0
        self._connections: set[Connection] = set()
        # Those whose device is not known yet, by network, and the others, by owner.
        self._strangers: Shares[Connection] = Shares(MAX_HANDSHAKES)
        self._known: Shares[Connection] = Shares(MAX_CONNECTIONS)
        # By network, in the order of their turns.
        self._line: dict[str, deque[Connection]] = {}
        self._pump: asyncio.Handle | None = None
        self._servers: list[asyncio.Server] = []

    async def listen(self, host: str, port: int) -> None:
        """Opens the port on every address that the host stands for.

        Raises:
            OSError: It is not to be had.
        """
        loop = asyncio.get_running_loop()
        for each in await bound(host, port, socket.SOCK_STREAM):
            self._servers.append(await loop.create_server(lambda: Connection(self), sock=each, backlog=BACKLOG))

    @property
    def port(self) -> int:
        """The port that is listened on; 0 while there is none."""
        sockets = self._servers[0].sockets if self._servers else ()
        return int(sockets[0].getsockname()[1]) if sockets else 0

    def close_port(self) -> None:
        """Takes no more connections."""
        servers, self._servers = self._servers, []
        for each in servers:
            each.close()

    def close(self) -> None:
        """Ends all connections, and takes no more; devices come back by themselves."""
        self.close_port()
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        self._line.clear()
        for connection in list(self._connections):
            # Nobody is told: whether its device comes back, the next process will see.
            end = connection.close if connection.link is None else connection.link.close
            self._faults.guard(connection.link, "connection", end)

    async def tick(self) -> None:
        """Ends connections whose other side has had its time."""
        async for connections in slices(self._connections, SLICE):
            now = self.clock.monotonic()
            for connection in connections:
                self._faults.guard(connection.link, "connection", partial(connection.tick, now))

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    @property
    def handshakes(self) -> int:
        """Connections whose device is not known yet."""
        return len(self._strangers)

    # --- what connections tell ---

    def fault(self, connection: Connection, problem: Exception) -> None:
        """Something failed with a connection by an error of ours."""
        self._faults.of(connection.link, "connection", problem)
        connection.abort()

    def accept(self, connection: Connection) -> None:
        """A stranger has connected."""
        self._connections.add(connection)
        self._give_way(
            self._strangers.add(connection.network, connection, neighbours_of(connection.network)), "handshakes"
        )

    def known(self, connection: Connection, owner: str) -> None:
        """It is known whose it is."""
        self._strangers.discard(connection)
        self._give_way(self._known.add(owner, connection), "connections")

    def _give_way(self, out: Connection | None, reason: str) -> None:
        if out is not None:
            _seldom.warning(f"tcp_{reason}_full", why=f"too many {reason} over TCP", network=out.network)
            out.give_way(reason)

    def lost(self, connection: Connection) -> None:
        """It is over."""
        self._strangers.discard(connection)
        self._known.discard(connection)
        self._connections.discard(connection)

    def line_up(self, connection: Connection) -> None:
        """It needs an RSA operation; `Connection.go_on` is called when it is its turn."""
        self._line.setdefault(connection.network, deque()).append(connection)
        if self._pump is None:
            self._pump = asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._pump = None
        while self._line:
            network = next(iter(self._line))
            waiting = self._line.pop(network)
            connection = waiting.popleft()
            if waiting:
                # Behind all others.
                self._line[network] = waiting
            if connection in self._strangers:
                self._pump = asyncio.get_running_loop().call_later(PACE_S, self._next)
                if not self._faults.guard(connection.link, "connection", connection.go_on):
                    connection.abort()
                return
