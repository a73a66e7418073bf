"""The way back is the way in: a cloud that listens on all addresses answers from the one that was asked, for as long as
a session lasts, and every address has one form."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.cloud import Cloud, cloud
from tests.gateway.town import Town, until
from wirechamber.gateway.datagrams import MAX_UNSENT, Datagrams, Way, format_way, parse_way
from wirechamber.protocols.coap.message import Code

# What Linux takes for its own without being told.
SECOND = "127.0.0.2"


def has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as made:
        try:
            made.bind(("::1", 0))
        except OSError:
            return False
    return True


def own_ipv6() -> str | None:
    """An IPv6 address of this machine beside ::1."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return None
    for address, _, _, scope, *_ in (line.split() for line in lines):
        if scope == "00":
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))
    return None


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
SECONDS = [
    SECOND,
    pytest.param("::1", marks=needs_ipv6),
    pytest.param(own_ipv6() or "", marks=pytest.mark.skipif(own_ipv6() is None, reason="no second IPv6 address")),
]


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A cloud that listens on every address."""
    folder = tmp_path_factory.mktemp("everywhere") / "data"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with (
        cloud(folder, provisioning="true", udp_host="::", http_host="::", tcp_port=port) as running,
        Town(running) as made,
    ):
        yield made


@pytest.fixture
def town(everywhere: Town) -> Iterator[Town]:
    yield everywhere
    everywhere.leave()


# --- the address that was asked ---


@pytest.mark.parametrize("asked", SECONDS)
def test_answers_and_pushes_come_from_the_address_that_was_asked(town: Town, asked: str) -> None:
    # Its socket takes nothing from anywhere else, as a NAT and most clients do.
    peer = town.device(to=asked, host=None)
    assert peer.publish("asked").code == Code.EMPTY
    assert peer.subscribe("pushed").code == Code.EMPTY
    town.publish("pushed", asked)
    assert peer.request().payload == asked.encode()
    peer.move()
    assert peer.publish("asked/again").code == Code.EMPTY
    town.publish("pushed", "after it moved")
    assert peer.request().payload == b"after it moved"


def test_a_device_may_ask_at_another_address(town: Town) -> None:
    peer = town.device()
    peer.subscribe("moved")
    peer.to = SECOND
    peer.move()
    assert peer.publish("elsewhere").code == Code.EMPTY
    town.publish("moved", "from there")
    assert peer.request().payload == b"from there"


def test_a_restored_session_is_pushed_to_from_the_address_that_was_asked(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true", udp_host="0.0.0.0") as running, Town(running) as town:
        peer = town.device(to=SECOND)
        peer.subscribe("after")
        peer.publish("before")
        running.kill()
        running.start()
        town.client = running.client(town.token)
        # It has said nothing to this process.
        town.publish("after", "the restart")
        assert peer.request().payload == b"the restart"


def test_one_address_that_is_named_is_the_one_that_answers(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true", udp_host=SECOND) as running, Town(running) as town:
        assert town.device(to=SECOND).publish("named").code == Code.EMPTY


# --- both kinds of addresses, in one form ---


def lines(live: Cloud, event: str) -> list[dict[str, str]]:
    return [
        found
        for found in (json.loads(line) for line in live.log_file.read_text().splitlines() if line.startswith("{"))
        if found.get("event") == event
    ]


@needs_ipv6
def test_every_address_means_both_kinds_over_http(town: Town) -> None:
    live = town.cloud
    port = live.url.rpartition(":")[2]
    for host in ("127.0.0.1", "[::1]", SECOND):
        assert httpx.get(f"http://{host}:{port}/readyz").status_code == 200
    # The name that the log gives works, and metrics are for this machine, whichever way it asks.
    assert lines(live, "serving")[-1]["url"] == f"http://127.0.0.1:{port}"
    for host in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{host}:{port}/metrics").status_code == 200


@pytest.mark.parametrize("asked", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_addresses_are_told_and_kept_in_their_own_form(town: Town, asked: str) -> None:
    peer = town.device(to=asked, host=None)
    until(lambda: town.show(peer)["last_ip_address"] == asked, "the address")
    assert "::ffff:" not in town.cloud.log_file.read_text()


@pytest.mark.parametrize("asked", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_tcp_is_open_on_both_kinds(town: Town, asked: str) -> None:
    port = int(town.cloud.environment["WIRECHAMBER_TCP_PORT"])
    with socket.create_connection((asked, port), timeout=10) as made:
        # The server's nonce.
        assert made.recv(40)


def test_ways_are_kept_as_text() -> None:
    for way in (("192.0.2.1", 5684, "192.0.2.9"), ("2001:db8::1", 1, "2001:db8::2"), ("192.0.2.1", 65535, "")):
        assert parse_way(format_way(way)) == way
    assert format_way(()) == ""
    assert parse_way("192.0.2.1 5684") == ("192.0.2.1", 5684, "")
    # As one socket for both kinds wrote it.
    assert parse_way("::ffff:192.0.2.1 5684") == ("192.0.2.1", 5684, "")
    for text in ("", " ", "192.0.2.1", "192.0.2.1 x", "192.0.2.1 65536", "192.0.2.1 ²"):
        assert parse_way(text) == ()


# --- the port by itself ---


def with_port(host: str, work: Callable[[Datagrams, list[tuple[bytes, Way]]], object]) -> Counter[str]:
    """Opens a port, and lets its loop turn until the work gives something true."""
    refused: Counter[str] = Counter()
    came: list[tuple[bytes, Way]] = []

    async def run() -> None:
        turned = asyncio.Event()

        def take(data: bytes, way: Way) -> None:
            came.append((data, way))
            turned.set()

        port = Datagrams(take, refused)
        await port.open(host, 0)
        try:
            async with asyncio.timeout(20):
                while not work(port, came):
                    await turned.wait()
                    turned.clear()
        finally:
            port.close()

    asyncio.run(run())
    return refused


def test_an_address_that_is_gone_is_told_once_and_another_one_used() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)

        def work(port: Datagrams, came: object) -> bool:
            for _ in range(3):
                port.send(b"hello", ("127.0.0.1", peer.getsockname()[1], "192.0.2.200"))
            return True

        refused = with_port("0.0.0.0", work)
        assert refused["local_address_gone"] == 3
        assert [peer.recv(100) for _ in range(3)] == [b"hello"] * 3


def test_what_can_not_be_sent_harms_nothing() -> None:
    def work(port: Datagrams, came: list[tuple[bytes, Way]]) -> bool:
        # A source port of 0, which anybody can forge; a kind of address that is not listened to; one that is none.
        port.send(b"x", ("127.0.0.1", 0, "127.0.0.1"))
        port.send(b"x", ("::1", 9, "::1"))
        port.send(b"x", ("127.0.0.1", port.port, "no address"))
        port.send(bytes(70_000), ("127.0.0.1", port.port, "127.0.0.1"))
        return bool(came)

    refused = with_port("0.0.0.0", work)
    assert refused["not_sent"] >= 2
    assert refused["no_socket"] >= 1


def test_a_full_buffer_keeps_what_waits_in_order_and_bounded() -> None:
    class Full:
        """A socket whose buffer is full until it is told otherwise."""

        def __init__(self, port: Datagrams) -> None:
            self.inner = port._sockets[0]._sock
            self.full = True

        def sendto(self, datagram: bytes, peer: tuple[str, int]) -> int:
            if self.full:
                raise BlockingIOError
            return self.inner.sendto(datagram, peer)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    made: list[Full] = []

    def work(port: Datagrams, came: list[tuple[bytes, Way]]) -> bool:
        if not made:
            made.append(Full(port))
            port._sockets[0]._sock = made[0]  # type: ignore[assignment]
            for number in range(MAX_UNSENT + 10):
                port.send(b"%d" % number, ("127.0.0.1", port.port, "127.0.0.1"))
            made[0].full = False
        return len(came) >= MAX_UNSENT and [data for data, _ in came] == [b"%d" % n for n in range(MAX_UNSENT)]

    assert with_port("127.0.0.1", work)["send_buffer"] == 10
