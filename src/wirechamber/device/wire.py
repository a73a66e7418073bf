"""A device's socket, and what goes over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from msgspec import Struct

# Headers of IP and UDP.
IPV4_UDP, IPV6_UDP = 28, 48

Address = tuple[Any, ...]


class Traffic(Struct):
    """What went over the wire, headers of IP and UDP included."""

    up_bytes: int = 0
    up_datagrams: int = 0
    down_bytes: int = 0
    down_datagrams: int = 0

    def since(self, before: Traffic) -> Traffic:
        """What was added since then."""
        return Traffic(
            self.up_bytes - before.up_bytes,
            self.up_datagrams - before.up_datagrams,
            self.down_bytes - before.down_bytes,
            self.down_datagrams - before.down_datagrams,
        )

    def plus(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(
            self.up_bytes + other.up_bytes,
            self.up_datagrams + other.up_datagrams,
            self.down_bytes + other.down_bytes,
            self.down_datagrams + other.down_datagrams,
        )

    def copy(self) -> Traffic:
        """As of now."""
        return Traffic(self.up_bytes, self.up_datagrams, self.down_bytes, self.down_datagrams)

    @property
    def total(self) -> int:
        """Bytes of both directions."""
        return self.up_bytes + self.down_bytes


class Wire(asyncio.DatagramProtocol):
    """One socket, connected to the cloud's address.

    Attributes:
        where: The address that this machine reaches the cloud from.
        refused: The network said that nobody listens there; anybody could say that, so it is no more than a hint.
    """

    def __init__(self, receive: Callable[[bytes], None], traffic: Traffic) -> None:
        self._receive = receive
        self._traffic = traffic
        self._headers = IPV4_UDP
        self.where = ""
        self.refused = False
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        name = transport.get_extra_info("sockname")
        self.where = str(name[0])
        if len(name) == 4:
            self._headers = IPV6_UDP

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """The cloud sent something, or whoever pretends to be it."""
        self._traffic.down_bytes += len(data) + self._headers
        self._traffic.down_datagrams += 1
        if self._transport is not None:
            self._receive(data)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there at the moment, says the network."""
        self.refused = True

    def send(self, datagram: bytes) -> None:
        """Sends to the cloud; what can't be sent is lost, as on any network."""
        if self._transport is not None and not self._transport.is_closing():
            self._traffic.up_bytes += len(datagram) + self._headers
            self._traffic.up_datagrams += 1
            self._transport.sendto(datagram)

    def close(self) -> None:
        """Closes the socket."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
