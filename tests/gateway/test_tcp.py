"""Connections over TCP against real sockets: what they bring, and what they cannot do to us."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from tests.protocols.legacy_tcp.people import DEVICE_ID, device_key, public_der, server_key
from wirechamber.gateway import tcp as module
from wirechamber.gateway.faults import Faults
from wirechamber.gateway.link import Link
from wirechamber.gateway.meter import Meter, Purpose
from wirechamber.gateway.tcp import HELLO_S, IDLE_S, LINGER_S, Address, Tcp
from wirechamber.model.devices import Device
from wirechamber.protocols.legacy_tcp import STEP_S, ClientHandshake, Established, Session, wire_length

HELLO = bytes.fromhex("50028405b168ff0003ffff0036000300001838048000a000000200")
SOON_S = 5.0


class HandClock:
    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> int:
        return 1_700_000_000_000 + int(self.at * 1000)

    def monotonic(self) -> float:
        return self.at


class Desk:
    """What sits above the socket: knows one device, and greets whoever says Hello."""

    def __init__(self, meter: Meter) -> None:
        self.known = {DEVICE_ID.hex(): public_der(device_key())}
        self.asked: list[str] = []
        self.undecided: list[Callable[[], None]] | None = None
        self.links: list[Link] = []
        self.heard: list[tuple[bytes, int, int]] = []
        self.over: list[str] = []

    def admit(self, device_id: str, public_key: bytes, decided: Callable[[bool], None]) -> None:
        self.asked.append(device_id)
        welcome = self.known.get(device_id) == public_key
        if self.undecided is None:
            decided(welcome)
        else:
            self.undecided.append(lambda: decided(welcome))

    def established(self, link: Link) -> None:
        self.links.append(link)

    def received(self, link: Link, data: bytes, sequence: int, size: int, address: Address) -> None:
        self.heard.append((data, sequence, size))
        if data == HELLO and link.device is None and link.claimed_id is not None:
            link.count_handshake(size, 1, 0, 0)
            link.greeted(Device(id=link.claimed_id, created_at=0))
            link.send(b"\x50\x02\0\1\xb1h", Purpose.HANDSHAKE)
        else:
            link.send(b"\x60\0" + data[2:4], Purpose.PUBLISH)

    def ended(self, link: Link, why: str) -> None:
        self.over.append(why)
        link.close()


class Peer:
    """A device at the other end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.session: Session | None = None

    async def shake_hands(self, key: str = "its own", piece: int = 1 << 16) -> bool:
        """Whether the server let it in."""
        core = ClientHandshake(DEVICE_ID, device_key(key), server_key().public_key(), 0.0)
        while not core.over:
            data = await self.reader.read(1024)
            if not data:
                return False
            for event in core.receive(data, 0.0):
                assert isinstance(event, Established)
                self.session = event.session
            said = core.outgoing()
            for at in range(0, len(said), piece):
                self.writer.write(said[at : at + piece])
                await self.writer.drain()
                await asyncio.sleep(0)
        return True

    def say(self, *messages: bytes) -> None:
        assert self.session is not None
        self.writer.write(b"".join(map(self.session.frame, messages)))

    async def hear(self, count: int = 1) -> list[bytes]:
        assert self.session is not None
        heard: list[bytes] = []
        async with asyncio.timeout(SOON_S):
            while len(heard) < count:
                data = await self.reader.read(1024)
                assert data, "the server has closed the connection"
                heard += self.session.receive(data)
        return heard

    async def closed(self) -> bytes:
        """What came until the server closed the connection."""
        async with asyncio.timeout(SOON_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


class Cloud:
    """The TCP side alone, on a free port."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.meter = Meter()
        self.desk = Desk(self.meter)
        self.tcp = Tcp(server_key(), self.desk, self.meter, self.clock, Faults())
        self.port = 0
        self.peers: list[Peer] = []

    async def connect(self, host: str = "127.0.0.1") -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self.port, local_addr=(host, 0)))
        self.peers.append(peer)
        return peer

    async def device(self) -> Peer:
        """A device that has been greeted."""
        peer = await self.connect()
        assert await peer.shake_hands()
        peer.say(HELLO)
        await peer.hear()
        return peer

    async def pass_time(self, seconds: float) -> None:
        self.clock.at += seconds
        await self.tcp.tick()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@asynccontextmanager
async def running() -> AsyncIterator[Cloud]:
    cloud = Cloud()
    await cloud.tcp.listen("127.0.0.1", 0)
    cloud.port = cloud.tcp.port
    try:
        yield cloud
    finally:
        cloud.tcp.close()
        for peer in cloud.peers:
            peer.writer.close()
        await until(lambda: cloud.tcp.connections == 0)


def run(body: Callable[[Cloud], Awaitable[None]]) -> None:
    async def work() -> None:
        async with running() as cloud:
            await body(cloud)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


def used(cloud: Cloud, purpose: Purpose) -> list[int]:
    return cloud.meter.of(DEVICE_ID.hex(), purpose)[:4]


# --- a device's life ---


def test_a_device_comes_in_says_hello_and_is_heard() -> None:
    async def body(cloud: Cloud) -> None:
        peer = await cloud.connect()
        assert await peer.shake_hands()
        assert cloud.tcp.handshakes == 1
        [link] = cloud.desk.links
        assert (link.claimed_id, link.public_key) == (DEVICE_ID.hex(), public_der(device_key()))
        assert (link.host, link.reliable, link.deviceos) == ("127.0.0.1", True, True)
        peer.say(HELLO)
        assert await peer.hear() == [b"\x50\x02\0\1\xb1h"]
        assert (cloud.tcp.handshakes, cloud.tcp.connections) == (0, 1)
        event = bytes.fromhex("4002000bb1450664656d6f2f61ff68656c6c6f")
        peer.say(event, event)
        assert await peer.hear(2) == [bytes.fromhex("6000000b")] * 2
        assert [sequence for _, sequence, _ in cloud.desk.heard] == [1, 2, 3]
        assert [size for _, _, size in cloud.desk.heard] == [34, 34, 34]

    run(body)


def test_what_the_handshake_took_is_counted_once_it_is_known_whose_it_was() -> None:
    async def body(cloud: Cloud) -> None:
        await cloud.device()
        hello, answer = wire_length(len(HELLO)), 18
        assert used(cloud, Purpose.HANDSHAKE) == [256 + hello, 2, 40 + 384 + answer, 3]
        peer = await cloud.device()
        await cloud.meter.take()
        peer.say(b"\x40\x02\0\x0b")
        await peer.hear()
        assert used(cloud, Purpose.PUBLISH) == [0, 0, 18, 1]

    run(body)


@pytest.mark.parametrize("piece", [1, 100])
def test_a_handshake_may_come_in_pieces(piece: int) -> None:
    async def body(cloud: Cloud) -> None:
        assert await (await cloud.connect()).shake_hands(piece=piece)

    run(body)


def test_a_device_waits_while_it_is_decided_whether_it_may_come_in() -> None:
    async def body(cloud: Cloud) -> None:
        cloud.desk.undecided = []
        peer, gone = await cloud.connect(), await cloud.connect()
        waiting = asyncio.create_task(peer.shake_hands())
        leaving = asyncio.create_task(gone.shake_hands())
        await until(lambda: len(cloud.desk.undecided or ()) == 2)
        assert not waiting.done()
        gone.writer.transport.abort()
        await until(lambda: cloud.tcp.connections == 1)
        for decide in cloud.desk.undecided:
            decide()
        assert await waiting
        assert isinstance((await asyncio.gather(leaving, return_exceptions=True))[0], (bool, OSError))
        assert len(cloud.desk.links) == 1

    run(body)


def test_a_device_with_another_key_is_sent_away_without_a_word() -> None:
    async def body(cloud: Cloud) -> None:
        peer = await cloud.connect()
        assert not await peer.shake_hands("somebody else's")
        assert cloud.desk.asked == [DEVICE_ID.hex()]
        assert cloud.desk.links == []
        assert cloud.tcp.refused["not_admitted"] == 1
        await until(lambda: cloud.tcp.connections == 0)

    run(body)


def test_when_the_device_hangs_up_its_link_is_over() -> None:
    async def body(cloud: Cloud) -> None:
        polite, rude = await cloud.device(), await cloud.device()
        polite.say(b"\x50\x02\0\x10\xb1x\xd0\xea")
        polite.writer.write_eof()
        await polite.closed()
        await until(lambda: len(cloud.desk.over) == 1)
        rude.writer.transport.abort()
        await until(lambda: len(cloud.desk.over) == 2)
        assert cloud.tcp.connections == 0

    run(body)


def test_when_we_hang_up_what_was_said_still_arrives() -> None:
    async def body(cloud: Cloud) -> None:
        peer = await cloud.device()
        [link] = cloud.desk.links
        link.send(b"last words", Purpose.OTHER)
        link.close()
        link.send(b"after the end", Purpose.OTHER)
        assert peer.session is not None
        assert peer.session.receive(await peer.closed()) == [b"last words"]
        await until(lambda: cloud.tcp.connections == 0)
        assert cloud.desk.over == [], "we know that we did it"

    run(body)


# --- what is not right ---


def test_noise_gets_the_nonce_and_nothing_else() -> None:
    async def body(cloud: Cloud) -> None:
        for noise in (os.urandom(256), os.urandom(5_000), b"GET / HTTP/1.1\r\n\r\n" * 20):
            peer = await cloud.connect()
            peer.writer.write(noise)
            assert len(await peer.closed()) in (0, 40)
        assert cloud.desk.asked == []
        assert sum(cloud.tcp.refused.values()) == 3

    run(body)


def changed(session: Session) -> bytes:
    """A frame of two blocks; a bit of the first one's last byte is a bit of the padding."""
    frame = bytearray(session.frame(b"x" * 20))
    frame[17] ^= 0x40
    return bytes(frame)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (lambda _: b"\xff\xff" + bytes(100), "frame_too_long"),
        (lambda _: b"\0\0", "frame_bad_length"),
        (changed, "frame_bad_padding"),
    ],
)
def test_a_bad_frame_ends_the_connection(bad: Callable[[Session], bytes], why: str) -> None:
    async def body(cloud: Cloud) -> None:
        peer = await cloud.device()
        assert peer.session is not None
        peer.writer.write(bad(peer.session))
        await peer.closed()
        assert cloud.desk.over == [why]
        assert cloud.tcp.refused == {why: 1}
        assert len(cloud.desk.heard) == 1

    run(body)


def test_silence_has_its_time_at_every_step() -> None:
    async def body(cloud: Cloud) -> None:
        nothing, half, nameless = await cloud.connect(), await cloud.connect(), await cloud.connect()
        half.writer.write(b"x" * 200)
        assert await nameless.shake_hands()
        await until(lambda: cloud.tcp.connections == 3)
        await cloud.pass_time(STEP_S - 0.1)
        assert cloud.tcp.connections == 3
        device = await cloud.device()
        await cloud.pass_time(0.2)
        assert len(await nothing.closed()) in (0, 40)
        await half.closed()
        await nameless.closed()
        await until(lambda: cloud.tcp.connections == 1)
        assert cloud.tcp.refused == {"handshake_late": 2, "no_hello": 1}
        assert HELLO_S == STEP_S
        await cloud.pass_time(IDLE_S - 1.0)
        device.say(b"\x40\0\0\x20")
        await device.hear()
        await cloud.pass_time(IDLE_S - 1.0)
        device.say(b"\x40\0\0\x21")
        await device.hear()
        await cloud.pass_time(IDLE_S + 1.0)
        await device.closed()
        assert cloud.tcp.refused["silent"] == 1
        assert cloud.desk.over == ["no_hello", "silent"]

    run(body)


def test_a_device_that_does_not_read_is_let_go() -> None:
    async def body(cloud: Cloud) -> None:
        peer = await cloud.device()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        [link] = cloud.desk.links
        for _ in range(10_000):
            link.send(bytes(2_000), Purpose.OTHER)
            if cloud.tcp.refused["does_not_read"]:
                break
            await asyncio.sleep(0)
        await until(lambda: cloud.tcp.connections == 0)
        assert cloud.tcp.refused["does_not_read"] == 1
        assert link.closed

    run(body)


def test_last_words_to_nobody_have_an_end() -> None:
    async def body(cloud: Cloud) -> None:
        peer = await cloud.device()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        [link] = cloud.desk.links
        transport = link._connection._transport  # type: ignore[attr-defined]
        while not transport.get_write_buffer_size():
            link.send(bytes(2_000), Purpose.OTHER)
        link.close()
        await asyncio.sleep(0.01)
        assert cloud.tcp.connections == 1
        await cloud.pass_time(LINGER_S + 1.0)
        await until(lambda: cloud.tcp.connections == 0)

    run(body)


def test_too_long_a_message_is_dropped_and_the_next_one_arrives() -> None:
    async def body(cloud: Cloud) -> None:
        peer = await cloud.device()
        [link] = cloud.desk.links
        link.send(bytes(5_000), Purpose.OTHER)
        link.send(b"short", Purpose.OTHER)
        assert await peer.hear() == [b"short"]
        assert cloud.tcp.refused["too_long"] == 1

    run(body)


# --- bounds ---


def test_who_floods_with_connections_drops_his_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(cloud: Cloud) -> None:
        # Devices that are known take no place of a stranger's.
        for _ in range(3):
            await cloud.device()
        innocent = await cloud.connect("127.0.0.7")
        flood = [await cloud.connect(host) for _ in range(6) for host in ("127.0.0.2", "127.0.0.3")]
        await until(lambda: cloud.tcp.refused["handshakes"] == 5)
        assert cloud.tcp.handshakes == 8
        # The oldest of those who have most went, and nobody else.
        for peer in flood[:5]:
            await peer.closed()
        assert await innocent.shake_hands()
        newcomer = await cloud.connect("127.0.0.8")
        assert await newcomer.shake_hands()
        # Also from a host that floods: the newest gets in.
        assert await (await cloud.connect("127.0.0.2")).shake_hands()

    monkeypatch.setattr(module, "MAX_HANDSHAKES", 8)
    run(body)


def test_the_owner_of_most_connections_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(cloud: Cloud) -> None:
        devices = [await cloud.device() for _ in range(4)]
        await until(lambda: cloud.tcp.refused["connections"] == 1)
        assert await devices[0].closed() == b""
        devices[3].say(b"\x40\0\0\7")
        assert await devices[3].hear()

    monkeypatch.setattr(module, "MAX_CONNECTIONS", 3)
    run(body)


def test_rsa_is_done_for_one_network_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(cloud: Cloud) -> None:
        flood = [await cloud.connect("127.0.0.2") for _ in range(100)]
        for peer in flood:
            peer.writer.write(os.urandom(256))
        await until(lambda: cloud.tcp.refused["handshake_not_for_us"] > 0)
        innocent = await cloud.connect("127.0.0.7")
        assert await innocent.shake_hands()
        # Two turns of its own, and as many of the flood's in between.
        assert cloud.tcp.refused["handshake_not_for_us"] < 60

    monkeypatch.setattr(module, "PACE_S", 0.05)
    run(body)


def test_rsa_is_done_one_at_a_time_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(cloud: Cloud) -> None:
        peers = [await cloud.connect() for _ in range(8)]
        began = asyncio.get_running_loop().time()
        for peer in peers:
            peer.writer.write(os.urandom(256))
        for peer in peers:
            await peer.closed()
        assert asyncio.get_running_loop().time() - began >= 7 * 0.05
        assert cloud.tcp.refused["handshake_not_for_us"] == 8

    monkeypatch.setattr(module, "PACE_S", 0.05)
    run(body)


def test_when_it_stops_every_connection_ends() -> None:
    async def body(cloud: Cloud) -> None:
        device, stranger = await cloud.device(), await cloud.connect()
        cloud.tcp.close()
        assert await device.closed() == b""
        await stranger.closed()
        await until(lambda: cloud.tcp.connections == 0)
        with pytest.raises(OSError):  # noqa: PT011
            await cloud.connect()

    run(body)
