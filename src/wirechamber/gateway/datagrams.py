"""The UDP port: datagrams in, and out by the way that they came.

A *way* is a peer's host and port, and the address of this machine that it spoke to. A machine may have several, and a
peer takes an answer only from the one that it asked (RFC 7252, section 5.3.2), as does every firewall and NAT between.
So a socket that is open for all addresses is told by the kernel which one each datagram was for, and tells it from
which to send (RFC 3542, section 6; ip(7), IP_PKTINFO).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import structlog

from wirechamber.listening import bound
from wirechamber.observe.logs import Seldom
from wirechamber.shares import bare_address

_seldom = Seldom(structlog.get_logger("wirechamber.gateway"))

# Host, port, and the address of ours that was spoken to, empty where that is not known: `()` is no way at all.
Way = tuple[Any, ...]

# The sockets' buffers: a fleet that lost power together comes back together.
SOCKET_BUFFER = 4 * 1024 * 1024
# Datagrams that are read before others have their turn.
AT_A_TIME = 32
# Datagrams that wait for room in the kernel's buffer, of each socket; devices and exchanges repeat what is dropped.
MAX_UNSENT = 1024
# Addresses of this machine that are remembered with what it takes to send from them. Whoever holds a whole prefix has
# more.
MAX_LOCAL = 4096
_LARGEST = 65_536
# One of the structures below.
_CONTROL = socket.CMSG_SPACE(20) if hasattr(socket, "CMSG_SPACE") else 0
# ip(7), `struct in_pktinfo`: interface, our address, and the datagram's destination, which may be a broadcast.
_IN_PKTINFO = struct.Struct("=I4s4s")
# RFC 3542, section 6.1, `struct in6_pktinfo`: address and interface.
_IN6_PKTINFO = struct.Struct("=16sI")
# Python has no name for it before 3.14.
_IP_PKTINFO: int | None = getattr(socket, "IP_PKTINFO", 8 if sys.platform == "linux" else None)
_IPV6_RECVPKTINFO: int | None = getattr(socket, "IPV6_RECVPKTINFO", None)
_IPV6_PKTINFO: int | None = getattr(socket, "IPV6_PKTINFO", None)
# What sending from an address is answered by that this machine has no more (Linux 6).
_NOT_OURS = frozenset((errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH))

Control = list[tuple[int, int, bytes]]


class Datagrams:
    """The port's sockets, one for each family and address.

    Args:
        take: Called with each datagram and the way that it came.
        refused: Counts what could not be sent, by reason.

    Attributes:
        port: Where they are open; 0 while they are not.
    """

    def __init__(self, take: Callable[[bytes, Way], None], refused: Counter[str]) -> None:
        self.take = take
        self.refused = refused
        self.port = 0
        self._sockets: list[_Socket] = []
        # By which socket, and with what, one sends from an address of ours.
        self._exits: dict[str, tuple[_Socket, Control | None]] = {}

    async def open(self, host: str, port: int) -> None:
        """Opens the port on every address that the host stands for.

        Raises:
            OSError: It is not to be had.
        """
        for made in await bound(host, port, socket.SOCK_DGRAM):
            self._sockets.append(_Socket(made, self))
        self.port = self._sockets[0].port

    def close(self) -> None:
        """Closes it; what still waits to be sent is lost."""
        sockets, self._sockets = self._sockets, []
        self._exits.clear()
        self.port = 0
        for each in sockets:
            each.close()

    def send(self, datagram: bytes, way: Way) -> None:
        """Sends a datagram back by this way; the network may lose it, and so may a full buffer."""
        found = self._exits.get(way[2]) or self._exit(way)
        if found is not None:
            found[0].send(datagram, way[:2], found[1])

    def _exit(self, way: Way) -> tuple[_Socket, Control | None] | None:
        host, _, local = way
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        fitting = [each for each in self._sockets if each.family == family]
        if not fitting:
            if self._sockets:
                # Where it was when this cloud listened to IPv6, or IPv4, as well.
                self.refused["no_socket"] += 1
            return None
        chosen = next((each for each in fitting if each.local == local), fitting[0])
        found = chosen, chosen.control(local) if local else None
        if local:
            if len(self._exits) >= MAX_LOCAL:
                self._exits.clear()
            self._exits[local] = found
        return found


class _Socket:
    """One socket."""

    __slots__ = ("_locals", "_loop", "_owner", "_sock", "_unsent", "_wildcard", "family", "local", "port")

    def __init__(self, sock: socket.socket, owner: Datagrams) -> None:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        self._sock = sock
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.family = sock.family
        # What a socket is bound to is what it sends from.
        host, self.port = sock.getsockname()[:2]
        self._wildcard = host in ("0.0.0.0", "::")  # noqa: S104
        self.local = "" if self._wildcard else host
        self._locals: dict[bytes, str] = {}
        self._unsent: deque[tuple[bytes, tuple[str, int], Control | None]] = deque()
        if self._wildcard and not _ask_for_destinations(sock):
            self._wildcard = False
            _seldom.warning(
                "one_local_address", why="this system does not tell which of its addresses a datagram was for",
                advice="a machine with several addresses answers from one of them: set udp_host to the one to be used",
            )  # fmt: skip
        self._loop.add_reader(sock, self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._unsent.clear()
        self._sock.close()

    # --- what comes in ---

    def _readable(self) -> None:
        sock, take, wildcard, local = self._sock, self._owner.take, self._wildcard, self.local
        recvmsg, known = sock.recvmsg, self._locals
        for _ in range(AT_A_TIME):
            try:
                if wildcard:
                    data, control, _, address = recvmsg(_LARGEST, _CONTROL)
                    told = control[0][2] if control else b""
                    local = known[told] if told in known else self._learned(told)
                else:
                    data, address = sock.recvfrom(_LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # The network told that somebody is not there; time-outs take care of it.
                self._owner.refused["network_error"] += 1
                continue
            if len(address) == 2 or not address[3]:
                take(data, (address[0], address[1], local))
            else:
                take(data, (f"{address[0]}%{address[3]}", address[1], local))

    def _learned(self, told: bytes) -> str:
        local = _destination(self.family, told)
        if len(self._locals) >= MAX_LOCAL:
            self._locals.clear()
        self._locals[told] = local
        return local

    # --- what goes out ---

    def control(self, local: str) -> Control | None:
        """What it takes to send from an address of ours; None where that needs nothing, or can't be said."""
        return _source(self.family, local) if self._wildcard else None

    def send(self, datagram: bytes, peer: tuple[str, int], control: Control | None) -> None:
        """Sends a datagram, or lines it up while the kernel's buffer is full."""
        unsent = self._unsent
        if unsent:
            self._wait(datagram, peer, control)
            return
        try:
            if control is None:
                self._sock.sendto(datagram, peer)
            else:
                self._sock.sendmsg((datagram,), control, 0, peer)
        except (BlockingIOError, InterruptedError):
            self._wait(datagram, peer, control)
        except OSError as problem:
            self._failed(problem, datagram, peer, control)

    def _failed(self, problem: OSError, datagram: bytes, peer: tuple[str, int], control: Control | None) -> None:
        refused = self._owner.refused
        if control is not None and problem.errno in _NOT_OURS:
            try:
                self._sock.sendto(datagram, peer)
            except OSError as again:
                problem = again
            else:
                # The address was taken from this machine. Some peers take an answer from another, and know it then.
                refused["local_address_gone"] += 1
                _seldom.warning(
                    "local_address_gone",
                    why="devices are answered from another address than the one that they asked, which is gone",
                    address=_destination(self.family, control[0][2]),
                )
                return
        refused["not_sent"] += 1
        _seldom.warning("datagrams_not_sent", why=problem.strerror or str(problem), address=peer[0])

    def _wait(self, datagram: bytes, peer: tuple[str, int], control: Control | None) -> None:
        if len(self._unsent) >= MAX_UNSENT:
            self._owner.refused["send_buffer"] += 1
            return
        if not self._unsent:
            self._loop.add_writer(self._sock, self._writable)
        self._unsent.append((datagram, peer, control))

    def _writable(self) -> None:
        waiting, self._unsent = self._unsent, deque()
        while waiting:
            self.send(*waiting.popleft())
            if self._unsent:
                # The one that found no room comes first, then those behind it.
                self._unsent.extend(waiting)
                return
        self._loop.remove_writer(self._sock)


def _ask_for_destinations(sock: socket.socket) -> bool:
    """Has the kernel tell which address each datagram is for; False where it can't."""
    level, option = (
        (socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO) if sock.family == socket.AF_INET6 else (socket.IPPROTO_IP, _IP_PKTINFO)
    )
    if option is None or not _CONTROL or (sock.family == socket.AF_INET6 and _IPV6_PKTINFO is None):
        return False
    try:
        sock.setsockopt(level, option, 1)
    except OSError:
        return False
    return True


def _destination(family: int, told: bytes) -> str:
    """The address of ours that a datagram was for, or is sent from; empty if that is none to answer from."""
    if family == socket.AF_INET and len(told) == _IN_PKTINFO.size:
        return socket.inet_ntoa(_IN_PKTINFO.unpack(told)[1])
    if family == socket.AF_INET6 and len(told) == _IN6_PKTINFO.size and told[0] != 0xFF:
        return socket.inet_ntop(family, told[:16])
    return ""


def _source(family: int, local: str) -> Control | None:
    """What has the kernel send from an address of ours, whichever interface that takes."""
    try:
        packed = socket.inet_pton(family, local)
    except OSError:
        return None
    if family == socket.AF_INET:
        assert _IP_PKTINFO is not None
        return [(socket.IPPROTO_IP, _IP_PKTINFO, _IN_PKTINFO.pack(0, packed, bytes(4)))]
    assert _IPV6_PKTINFO is not None
    return [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, _IN6_PKTINFO.pack(packed, 0))]


def format_way(way: Way) -> str:
    """As it is kept: `local host port`, or `host port`."""
    return f"{way[2]} {way[0]} {way[1]}".lstrip() if way else ""


def parse_way(text: str) -> Way:
    """What `format_way` made, of any version of it; empty when there is none."""
    peer, _, port = text.rpartition(" ")
    local, _, host = peer.rpartition(" ")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
        return ()
    # One socket used to take both kinds, and wrote IPv4 in the form of IPv6.
    return (bare_address(host) if host.startswith("::ffff:") else host, int(port), local)
