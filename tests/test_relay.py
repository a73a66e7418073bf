"""The bad network itself: it does what its weather says, and the same with the same seed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.relay import FAIR, HOST, Relay, Weather, relay

COUNT = 2000


class Peer(asyncio.DatagramProtocol):
    """A socket that keeps what it gets, and tells when something came."""

    def __init__(self, *, echo: bool = False) -> None:
        self.got: list[tuple[bytes, Any]] = []
        self._echo = echo
        self._came = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append((data, addr))
        self._came.set()
        if self._echo:
            self.transport.sendto(data, addr)

    @property
    def data(self) -> list[bytes]:
        return [data for data, _ in self.got]

    async def until(self, done: Callable[[], bool], timeout_s: float = 10) -> None:
        async with asyncio.timeout(timeout_s):
            while not done():
                self._came.clear()
                await self._came.wait()


async def peer(remote: Any = None, **rest: Any) -> Peer:
    loop = asyncio.get_running_loop()
    where: Any = {"local_addr": (HOST, 0)} if remote is None else {"remote_addr": remote}
    _, made = await loop.create_datagram_endpoint(lambda: Peer(**rest), **where)
    return made


def over(
    scenario: Callable[[Peer, Peer, Relay], Awaitable[Any]], *, seed: int = 1, up: Weather = FAIR, down: Weather = FAIR
) -> Any:
    """A server that echoes, a client, and a relay between the two."""

    async def body() -> Any:
        server = await peer(echo=True)
        async with relay(server.transport.get_extra_info("sockname"), seed=seed, up=up, down=down) as between:
            client = await peer(between.address)
            try:
                return await scenario(server, client, between)
            finally:
                client.transport.close()
                server.transport.close()

    return asyncio.run(body())


async def turns(done: Callable[[], bool], timeout_s: float = 10) -> None:
    """Lets the loop go round until it is so."""
    async with asyncio.timeout(timeout_s):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def one_by_one(client: Peer, server: Peer, between: Relay, count: int = COUNT) -> None:
    """Sends in order, each after the relay has had the last one."""
    counts = between.up.counts
    for number in range(count):
        client.transport.sendto(number.to_bytes(2, "big"))
        await turns(lambda: counts.passed + counts.dropped > number)  # noqa: B023


def test_fair_weather_changes_nothing_and_counts_by_kind() -> None:
    async def scenario(server: Peer, client: Peer, between: Relay) -> None:
        for data in (b"\x19one", b"\x19two", b"\x16three"):
            client.transport.sendto(data)
        await client.until(lambda: len(client.got) == 3)
        assert client.data == server.data == [b"\x19one", b"\x19two", b"\x16three"]
        assert between.up.counts.kinds == between.down.counts.kinds == {0x19: 2, 0x16: 1}
        assert between.up.counts.bytes == 4 + 4 + 6

    over(scenario)


def test_the_same_seed_loses_the_same_datagrams_and_about_as_many_as_it_should() -> None:
    async def scenario(server: Peer, client: Peer, between: Relay) -> list[bytes]:
        await one_by_one(client, server, between)
        await server.until(lambda: len(server.got) == between.up.counts.passed)
        assert between.up.counts.dropped == pytest.approx(COUNT * 0.05, rel=0.4)
        return server.data

    bad = Weather(drop=0.05)
    first = over(scenario, seed=7, up=bad)
    assert first == over(scenario, seed=7, up=bad)
    assert first != over(scenario, seed=8, up=bad)


def test_datagrams_are_repeated_overtaken_and_damaged() -> None:
    async def scenario(server: Peer, client: Peer, between: Relay) -> None:
        counts = between.up.counts
        await one_by_one(client, server, between, 500)
        await server.until(lambda: len(server.got) == counts.passed + counts.duplicated)
        assert counts.duplicated > 20
        assert counts.reordered > 20
        assert counts.corrupted > 5
        assert server.data != sorted(server.data)

    over(scenario, up=Weather(duplicate=0.1, reorder=0.1, corrupt=0.05))


def test_rebinding_shows_a_new_address_and_loses_answers_to_the_old_one() -> None:
    async def scenario(server: Peer, client: Peer, between: Relay) -> None:
        client.transport.sendto(b"before")
        await client.until(lambda: client.data == [b"before"])
        old = server.got[0][1]
        between.rebind()
        server.transport.sendto(b"to the old address", old)
        client.transport.sendto(b"after")
        await client.until(lambda: len(client.got) == 2)
        assert client.data == [b"before", b"after"]
        assert server.got[1][1] != old

    over(scenario)


def test_nothing_passes_while_it_is_paused() -> None:
    async def scenario(server: Peer, client: Peer, between: Relay) -> None:
        between.pause()
        client.transport.sendto(b"lost")
        await turns(lambda: between.lost_in_pause == 1)
        between.resume()
        client.transport.sendto(b"passed")
        await client.until(lambda: bool(client.got))
        assert client.data == server.data == [b"passed"]

    over(scenario)


def test_every_client_has_an_address_of_its_own() -> None:
    async def scenario(server: Peer, client: Peer, between: Relay) -> None:
        other = await peer(between.address)
        client.transport.sendto(b"one")
        other.transport.sendto(b"two")
        await client.until(lambda: bool(client.got))
        await other.until(lambda: bool(other.got))
        assert (client.data, other.data) == ([b"one"], [b"two"])
        assert len({address for _, address in server.got}) == 2
        other.transport.close()

    over(scenario)
