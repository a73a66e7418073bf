"""A bad network for tests: a UDP relay that loses, repeats and overtakes datagrams, by a seed.

Each client gets a socket of its own towards the server, as behind a NAT; `rebind` gives all of them new ones, so the
server sees every client at a new address.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

HOST = "127.0.0.1"
# How long a datagram that is to be overtaken is held at most: the next one passes it.
HELD_S = 0.05
# A fleet in one burst must not be lost in the relay's own buffers: only the dice lose datagrams.
SOCKET_BUFFER = 8 * 1024 * 1024

Address = tuple[str, int]


@dataclass(frozen=True)
class Weather:
    """What happens to a datagram; each a share of 0 to 1."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0


FAIR = Weather()


@dataclass
class Counts:
    """What one direction did."""

    passed: int = 0
    dropped: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    bytes: int = 0
    # By the first byte: for DTLS that is the record's content type.
    kinds: dict[int, int] = field(default_factory=dict)


class Direction:
    """One way over the relay. `weather` may be changed at any time."""

    def __init__(self, weather: Weather, seed: object) -> None:
        self.weather = weather
        self.counts = Counts()
        self._dice = random.Random(str(seed))

    def carry(self, data: bytes, send: Callable[[bytes], None]) -> None:
        """Takes a datagram and sends it, or whatever the weather makes of it."""
        weather, counts, dice = self.weather, self.counts, self._dice
        kind = data[0] if data else -1
        counts.kinds[kind] = counts.kinds.get(kind, 0) + 1
        # The same number of rolls for every datagram, so that one kind of weather does not shift another's.
        drop, duplicate, reorder, corrupt = (dice.random() for _ in range(4))
        if drop < weather.drop:
            counts.dropped += 1
            return
        counts.passed += 1
        counts.bytes += len(data)
        if data and corrupt < weather.corrupt:
            counts.corrupted += 1
            at = dice.randrange(len(data))
            data = data[:at] + bytes((data[at] ^ (1 << dice.randrange(8)),)) + data[at + 1 :]
        if duplicate < weather.duplicate:
            counts.duplicated += 1
            send(data)
        if reorder < weather.reorder:
            counts.reordered += 1
            asyncio.get_running_loop().call_later(HELD_S * dice.random(), send, data)
        else:
            send(data)


class Relay(asyncio.DatagramProtocol):
    """Stands between clients and one server. Made by `relay`.

    Attributes:
        address: Where clients send to.
        up: The way to the server.
        down: The way to the clients.
        lost_in_pause: How many datagrams of clients came while it was paused.
    """

    def __init__(self, server: Address, up: Direction, down: Direction) -> None:
        self.server = server
        self.up = up
        self.down = down
        self.address: Address = (HOST, 0)
        self._front: asyncio.DatagramTransport | None = None
        self._backs: dict[Any, Back] = {}
        self._opening: dict[Any, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused = False
        self.lost_in_pause = 0

    # --- what a test does with it ---

    def pause(self) -> None:
        """From now on nothing passes, either way: as with the cable pulled."""
        self._paused = True

    def resume(self) -> None:
        """The cable is back."""
        self._paused = False

    def rebind(self) -> None:
        """Every client has a new address from its next datagram on; answers to the old one are lost."""
        for back in self._backs.values():
            back.close()
        self._backs.clear()

    # --- the socket that clients see ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The loop's own class is no subclass of what it implements.
        self._front = cast("asyncio.DatagramTransport", transport)
        self.address = transport.get_extra_info("sockname")[:2]
        enlarge(transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._paused:
            self.lost_in_pause += 1
            return
        back = self._backs.get(addr)
        if back is not None:
            self.up.carry(data, back.send)
        elif addr in self._opening:
            self._opening[addr].append(data)
        else:
            self._opening[addr] = [data]
            task = asyncio.get_running_loop().create_task(self._open(addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, client: Any) -> None:
        loop = asyncio.get_running_loop()
        _, back = await loop.create_datagram_endpoint(lambda: Back(self, client), remote_addr=self.server)
        self._backs[client] = back
        for data in self._opening.pop(client):
            self.up.carry(data, back.send)

    def answer(self, back: Back, data: bytes) -> None:
        """A datagram of the server came to one of the sockets behind."""
        if self._paused or self._backs.get(back.client) is not back or self._front is None:
            return
        front = self._front

        def send(made: bytes) -> None:
            if not front.is_closing():
                front.sendto(made, back.client)

        self.down.carry(data, send)

    def close(self) -> None:
        self.rebind()
        for task in self._tasks:
            task.cancel()
        if self._front is not None:
            self._front.close()


class Back(asyncio.DatagramProtocol):
    """One client's socket towards the server."""

    def __init__(self, relay: Relay, client: Any) -> None:
        self.client = client
        self._relay = relay
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._relay.answer(self, data)

    def error_received(self, exc: Exception) -> None:
        """The server is not there at the moment: a network tells nobody."""

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def enlarge(transport: asyncio.BaseTransport) -> None:
    """Large buffers for a socket, as far as the system allows."""
    inner = transport.get_extra_info("socket")
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        inner.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)


@asynccontextmanager
async def relay(server: Address, *, seed: object = 1, up: Weather = FAIR, down: Weather = FAIR) -> AsyncIterator[Relay]:
    """A relay on a free port of this machine, closed at the end.

    Args:
        server: Where datagrams go.
        seed: The dice, for both ways; the same seed and the same datagrams in the same order lose the same ones.
    """
    loop = asyncio.get_running_loop()
    made = Relay(server, Direction(up, f"{seed} up"), Direction(down, f"{seed} down"))
    await loop.create_datagram_endpoint(lambda: made, local_addr=(HOST, 0))
    try:
        yield made
    finally:
        made.close()
        # Transports close in the loop's next turn.
        await asyncio.sleep(0)
