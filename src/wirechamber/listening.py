"""Sockets to listen on: one for each address that a host stands for, IPv4 and IPv6 apart.

No socket here takes IPv4 in the form of IPv6 (RFC 4291, section 2.5.5.2), so an address has one form everywhere: in
shares, in logs, and in what is kept.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import Any

from wirechamber.hosts import with_port

# Both stand for every address of this machine, IPv4 and IPv6.
EVERY_ADDRESS = ("", "::")
# What these hosts, and 0.0.0.0, are called by somebody on this machine.
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
# A machine, or a container, without IPv6.
_NO_FAMILY = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT))
# A port that is free for IPv4 may be taken for IPv6: then another one is tried.
_TRIES = 16


async def bound(host: str, port: int, kind: socket.SocketKind) -> list[socket.socket]:
    """Bound sockets, not blocking, IPv4 first.

    Args:
        host: An address or a name; `""` or `::` for every address, as far as the machine has both kinds.
        port: 0 for a free one, the same for all.
        kind: `SOCK_STREAM` or `SOCK_DGRAM`.

    Raises:
        OSError: An address is taken, or not ours.
    """
    tries = _TRIES if port == 0 else 1
    addresses = await _addresses(host, kind)
    while True:
        tries -= 1
        try:
            return _bound(addresses, port, kind, lenient=host in EVERY_ADDRESS)
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE or not tries:
                raise


async def _addresses(host: str, kind: socket.SocketKind) -> list[tuple[int, str]]:
    if host in EVERY_ADDRESS:
        return [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]  # noqa: S104
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, 0, type=kind, flags=socket.AI_PASSIVE)
    named = dict.fromkeys((int(family), _scoped(address)) for family, *_, address in found)
    return sorted(named, key=lambda each: each[0] != socket.AF_INET)


def _scoped(address: tuple[Any, ...]) -> str:
    host = str(address[0])
    return f"{host}%{address[3]}" if len(address) > 2 and address[3] and "%" not in host else host


def _bound(
    addresses: list[tuple[int, str]], port: int, kind: socket.SocketKind, *, lenient: bool
) -> list[socket.socket]:
    found: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, address in addresses:
            try:
                found.append(_socket(family, address, found[0].getsockname()[1] if found else port, kind))
            except OSError as problem:
                if not lenient or problem.errno not in _NO_FAMILY:
                    raise
                missing = problem
        if not found and missing is not None:
            raise missing
    except OSError:
        for each in found:
            with suppress(OSError):
                each.close()
        raise
    return found


def _socket(family: int, address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(family, kind)
    try:
        made.setblocking(False)
        if kind is socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Or an IPv4 address would be bound twice, and come in another form.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
    except BaseException:
        made.close()
        raise
    return made


def reached_at(sockets: list[socket.socket]) -> str:
    """How somebody on this machine reaches the first of these: `host:port`, as in a URL."""
    host, port = sockets[0].getsockname()[:2]
    return with_port(_WILDCARDS.get(host, host), port)


def not_ours(problem: OSError) -> bool:
    """Whether it is the host that can't be listened on, and not the port, which another program may have."""
    return isinstance(problem, socket.gaierror) or problem.errno in _NO_FAMILY
