"""What is told of those who do not get in: which device, why, and what helps; once for each, and never too much."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud import cloud
from tests.gateway.peer import HandshakeFailed, Peer, a_hello, device_key
from tests.gateway.town import PSK, Town, new_device_id, until
from wirechamber.gateway.door import Door, printable
from wirechamber.gateway.strays import Stray, what_is
from wirechamber.observe.logs import Seldom, Sparing
from wirechamber.protocols.coap.message import Code, ping
from wirechamber.protocols.dtls import ClientHandshake, PreSharedKey
from wirechamber.services.identity import Refused


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A cloud that lets in only whom it knows."""
    with cloud(tmp_path_factory.mktemp("guarded") / "data", provisioning="true") as running, Town(running) as made:
        yield made


@pytest.fixture
def town(guarded: Town) -> Iterator[Town]:
    yield guarded
    guarded.leave()


def lines(town: Town, event: str, **fields: Any) -> list[dict[str, Any]]:
    """Lines of the log with these fields."""
    found = [json.loads(line) for line in town.cloud.log_file.read_text().splitlines() if line.startswith("{")]
    return [each for each in found if each.get("event") == event and fields.items() <= each.items()]


def counted(town: Town, reason: str, part: str = "messages") -> float:
    return town.metric("wirechamber_device_input_refused_total", part=part, reason=reason)


def knock(town: Town, identity: bytes, psk: bytes = PSK) -> None:
    """Goes as far as a client gets with a pre-shared key: to the end of its last flight."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", town.cloud.udp_port))
        sock.settimeout(10)
        handshake = ClientHandshake(PreSharedKey(identity, psk), time.monotonic(), "rfc", None)
        for _ in range(2):
            for datagram in handshake.datagrams(time.monotonic()):
                sock.send(datagram)
            handshake.receive(sock.recv(4096), time.monotonic())
        for datagram in handshake.datagrams(time.monotonic()):
            sock.send(datagram)


# --- pre-shared keys ---


def test_each_refused_identity_is_told_with_its_reason(town: Town) -> None:
    unknown = new_device_id()
    without, known = town.peer().device, town.psk_peer().device
    before = {reason: counted(town, reason) for reason in ("unknown_id", "no_id", "no_key", "other_key")}
    cases = {
        unknown.encode(): "unknown_id",
        b"sensor-1": "no_id",
        without.encode(): "no_key",
        known.encode(): "other_key",
    }
    for identity, reason in cases.items():
        # As often as somebody likes to try.
        for _ in range(3):
            knock(town, identity, b"another key than the one that is known")
        until(lambda reason=reason: counted(town, reason) == before[reason] + 3, f"counting {reason}")  # type: ignore[misc]
        (line,) = lines(town, "device_refused", device=identity.decode())
        assert line["reason"] == reason
        assert line["identity"] == identity.decode()
        assert line["address"] == "127.0.0.1"
        assert len(line["why"]) > 20


def test_an_identity_is_shown_as_text_of_one_line_and_some_length(town: Town) -> None:
    knock(town, b"\x1b[31mred\r\n\xff" + b"x" * 100)
    (line,) = until(
        lambda: lines(town, "device_refused", reason="no_id", identity=printable(b"\x1b[31mred\r\n\xff" + b"x" * 100)),
        "a line",
    )
    assert line["identity"].startswith("\\x1b[31mred\\x0d\\x0a\\xffxxx")
    assert line["identity"].endswith("x…")
    assert printable(b"a\\x41") == "a\\x5cx41"


def test_refused_public_keys_are_told_for_each_device(town: Town) -> None:
    for _ in range(2):
        peer = town.device()
        stranger = town.kept(Peer.of(town.cloud, peer.device)).connect()
        stranger.send(a_hello(peer.device, 1))
        (line,) = until(lambda peer=peer: lines(town, "device_refused", device=peer.device), "a line")  # type: ignore[misc]
        assert line["reason"] == "other_key"


# --- servers' keys, and devices that are two ---


def test_a_device_with_another_servers_key_is_told_with_what_helps(town: Town) -> None:
    good = town.device(host="127.0.0.9")
    lost = town.kept(Peer(town.cloud.udp_port, device_key().public_key(), new_device_id(), host="127.0.0.9"))
    for _ in range(2):
        with pytest.raises(HandshakeFailed):
            lost.connect()
    until(lambda: counted(town, "other_server_key") == 2, "counting")
    (line,) = lines(town, "handshake_failed", address="127.0.0.9")
    assert "another server's public key" in line["why"]
    assert "wirechamber server key" in line["advice"]
    # It has not said who it is, but something is known of where it is.
    assert line["devices_seen_there"] == [good.device]


def test_two_devices_with_one_id_and_key_are_told(town: Town) -> None:
    one = town.device()
    other = town.kept(Peer.of(town.cloud, one.device, key=one.key, host="127.0.0.8")).start()
    assert counted(town, "taken_over") == 1
    assert lines(town, "two_devices_with_one_id") == []
    # The first one does not know that its session is over.
    one.send(ping(one.next_id()))
    (line,) = until(lambda: lines(town, "two_devices_with_one_id"), "a line")
    assert line["device"] == one.device
    assert "127.0.0.1" in line["addresses"]
    assert counted(town, "rivals") == 1
    # It is told once, and does not disturb the other one.
    one.send(ping(one.next_id()))
    assert other.publish("mine").code == Code.EMPTY
    assert len(lines(town, "two_devices_with_one_id")) == 1


def test_a_device_that_lost_its_session_is_one(town: Town) -> None:
    before = counted(town, "rivals")
    peer = town.device()
    peer.move()
    old = peer.session
    peer.start()
    assert old is not peer.session
    assert peer.publish("again").code == Code.EMPTY
    assert counted(town, "rivals") == before


# --- datagrams of nobody ---


def record(kind: int, epoch: int = 1) -> bytes:
    return bytes((kind, 0xFE, 0xFD)) + epoch.to_bytes(2, "big") + bytes(6) + (24).to_bytes(2, "big") + bytes(24)


@pytest.mark.parametrize(
    ("datagram", "stray"),
    [
        (bytes.fromhex("40010001b16505746f2d6d65"), Stray.PLAIN_COAP),
        (ping(7), Stray.PLAIN_COAP),
        (record(23), Stray.NO_SESSION),
        (record(21), Stray.NO_SESSION),
        (record(22, epoch=0), Stray.BROKEN_HELLO),
        (b"", Stray.GARBAGE),
        (b"\x40", Stray.GARBAGE),
        (b"GET / HTTP/1.1\r\n\r\n", Stray.GARBAGE),
        (bytes(range(256)), Stray.GARBAGE),
    ],
)
def test_what_a_datagram_is(datagram: bytes, stray: Stray) -> None:
    assert what_is(datagram) is stray


def test_datagrams_of_nobody_are_counted_and_told_once(town: Town) -> None:
    sent = {
        Stray.PLAIN_COAP: bytes.fromhex("40010001b16505746f2d6d65"),
        Stray.NO_SESSION: record(23),
        Stray.GARBAGE: b"hello?",
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.7", 0))
        sock.connect(("127.0.0.1", town.cloud.udp_port))
        for datagram in sent.values():
            for _ in range(5):
                sock.send(datagram)
    for stray in sent:
        until(lambda stray=stray: counted(town, stray.value, "udp") >= 5, f"counting {stray}")  # type: ignore[misc]
        (line,) = lines(town, "datagram_dropped", reason=stray.value, address="127.0.0.7")
        assert line["advice"]
        assert line["why"]


# --- bounds ---


class Lines:
    """A log that counts."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def warning(self, event: str, **more: Any) -> None:
        self.lines.append({"event": event, **more})


def test_strangers_with_ever_new_names_fill_no_log() -> None:
    log = Lines()
    seldom = Seldom(Sparing(log, burst=10.0, rate=0.0), 60.0, 1024)
    for number in range(10_000):
        seldom.warning("device_refused", why="unknown", about=str(number))
    assert len(log.lines) == 10


def test_what_was_left_out_is_told_with_the_next_line() -> None:
    log = Lines()
    sparing = Sparing(log, burst=1.0, rate=1e6)
    sparing._rate = 0.0
    for _ in range(4):
        sparing.warning("x")
    sparing._rate = 1e12
    sparing.warning("y")
    assert log.lines == [{"event": "x"}, {"event": "y", "others_before": 3}]


def test_a_door_that_is_knocked_at_by_many_stays_small() -> None:
    class Clock:
        def monotonic(self) -> float:
            return 0.0

    door = Door(Clock(), lambda host: [])  # type: ignore[arg-type]
    for number in range(3_000):
        door.turned_away(Refused("unknown_id", "no device of this id is known"), f"{number:024x}", "192.0.2.1")
        door.stray(b"x", f"2001:db8:{number:x}::1")
    assert door.refused["unknown_id"] == 3_000
    assert len(door._seldom._next) <= 1024
