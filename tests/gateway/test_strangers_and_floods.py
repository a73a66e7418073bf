"""What strangers can do to the link, and what devices can that went mad: bounded work, bounded memory, no answer that
is longer than the question, and counters that say why."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import cloud, eventually
from tests.gateway.inside import Inside, inside
from tests.gateway.peer import HandshakeFailed, Peer, a_publish, device_key
from tests.gateway.town import PSK, Town, new_device_id, until
from wirechamber.gateway import service, udp
from wirechamber.gateway.link import Link
from wirechamber.gateway.publications import Publication, Publications
from wirechamber.protocols.coap.message import Code, Message, Type, ping
from wirechamber.protocols.deviceos.messages import Publish
from wirechamber.protocols.dtls import HANDSHAKE, ClientHandshake, PreSharedKey, PublicKeys
from wirechamber.services.serverkeys import ServerKeys

HELLO_VERIFY_REQUEST = 3


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A cloud that is attacked."""
    folder = tmp_path_factory.mktemp("besieged") / "data"
    fast = {"publish_rate": "1000", "publish_burst": "1000"}
    with cloud(folder, provisioning="true", **fast) as running, Town(running) as made:
        yield made
        # Whatever came: nothing was an error of the cloud's.
        assert '"level": "error"' not in running.log_file.read_text()


@pytest.fixture
def town(besieged: Town) -> Iterator[Town]:
    yield besieged
    besieged.leave()


def stranger(port: int, host: str = "127.0.0.1") -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, 0))
    made.connect(("127.0.0.1", port))
    made.settimeout(0.2)
    return made


def answers(sock: socket.socket) -> list[bytes]:
    found = []
    try:
        while True:
            found.append(sock.recv(65_536))
    except (TimeoutError, ConnectionRefusedError):
        return found


def refused(town: Town, reason: str, part: str = "udp") -> float:
    return town.metric("wirechamber_device_input_refused_total", part=part, reason=reason)


def memory(town: Town) -> int:
    """Resident memory of the server, bytes."""
    assert town.cloud.process is not None
    for line in Path(f"/proc/{town.cloud.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def client_hello(profile: str = "deviceos") -> bytes:
    """A ClientHello without a cookie."""
    if profile == "psk":
        handshake = ClientHandshake(PreSharedKey(b"0" * 24, PSK), time.monotonic(), "rfc", None)
    else:
        handshake = ClientHandshake(PublicKeys(device_key(), device_key().public_key()), time.monotonic())
    (hello,) = handshake.datagrams(time.monotonic())
    return hello


def half_open(port: int, sock: socket.socket, server_key: object) -> ClientHandshake:
    """Gets as far as the server's flight, and stops there."""
    handshake = ClientHandshake(PublicKeys(device_key(), server_key), time.monotonic())  # type: ignore[arg-type]
    for _ in range(2):
        for datagram in handshake.datagrams(time.monotonic()):
            sock.send(datagram)
        handshake.receive(sock.recv(4096), time.monotonic())
    return handshake


def works(town: Town) -> None:
    """A device comes in and publishes."""
    peer = town.device()
    assert peer.publish("works").code == Code.EMPTY


# --- garbage ---


def test_garbage_is_dropped_without_a_word(town: Town) -> None:
    dice = random.Random(3)
    peer = town.device()
    record = peer.send(ping(peer.next_id()))
    peer.answer(peer.message_id)
    hello = client_hello()
    with stranger(town.cloud.udp_port) as sock:
        for _ in range(600):
            sock.send(dice.randbytes(dice.choice((0, 1, 2, 12, 13, 14, 30, 60, 200, 1500))))
        # Each with a beginning that looks right.
        for start in (record[:11], record[:21], record[:23], hello[:3], hello[:11], hello[:13], hello[:25]):
            for _ in range(20):
                sock.send(start + dice.randbytes(dice.randrange(300)))
        # Cut short at every place, made longer, and with any one byte changed.
        for cut in range(len(record)):
            sock.send(record[:cut])
            sock.send(record[:cut] + bytes((record[cut] ^ dice.randrange(1, 256),)) + record[cut + 1 :])
        sock.send(record + b"\0")
        sock.send(record * 2)
        for size in (16_384, 40_000, 65_507):
            sock.send(os.urandom(size))
            sock.send(record[:3] + os.urandom(size - 3))
            sock.send(record[:21] + os.urandom(size - 21))
        assert answers(sock) == []
    assert peer.publish("still").code == Code.EMPTY
    assert refused(town, "record_tag") > 0
    assert refused(town, "unknown_cid") > 0
    works(town)


def test_hellos_that_are_broken_get_no_answer_or_a_cookie(town: Town) -> None:
    dice = random.Random(4)
    for profile in ("deviceos", "psk"):
        hello = client_hello(profile)
        with stranger(town.cloud.udp_port) as sock:
            for at in range(len(hello)):
                for broken in (hello[:at], hello[:at] + bytes((hello[at] ^ dice.randrange(1, 256),)) + hello[at + 1 :]):
                    sock.send(broken)
                    # An answer may be to the one before.
                    assert all(len(answer) <= len(hello) for answer in answers_now(sock))
    assert town.metric("wirechamber_device_handshakes_open") == 0
    works(town)


def answers_now(sock: socket.socket) -> list[bytes]:
    """What is there already."""
    sock.setblocking(False)
    found = []
    try:
        while True:
            found.append(sock.recv(65_536))
    except BlockingIOError:
        return found
    finally:
        sock.settimeout(0.2)


def test_what_a_device_gone_mad_sends_inside_its_session(town: Town) -> None:
    dice = random.Random(5)
    peer = town.device()
    seeds = [bytes.fromhex(text) for text in (
        "40020001b168ff0003ffff0036000300000c0123456789abcdef01234567183804800000000002004444",
        "4102000201b1643101024c", "40020003b14502686901ff78", "40010004b16505746f2d6d65", "4101000542b174",
        "40020006b178ff0102", "41020007 01b14cff0801".replace(" ", ""),
    )]  # fmt: skip
    for _ in range(500):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if data[2:4] != b"\0\0" and bytes(data[4:6]) != b"\xb1h":
            peer.send(bytes(data[: dice.randrange(4, len(data) + 1)]))
    while not peer.silent(0.2):
        pass
    if not peer.alerts:
        # Unless it said that it is another one, it is in all the same.
        assert peer.publish("sane", id=0x7777).code in (Code.EMPTY, Code.TOO_MANY_REQUESTS)
    works(town)


# --- floods ---


def test_a_flood_of_hellos_costs_no_memory_and_makes_no_more_bytes_than_it_has(town: Town) -> None:
    works(town)
    hello = client_hello()
    for _ in range(1_000):
        with stranger(town.cloud.udp_port) as sock:
            sock.send(hello)
    before = memory(town)
    sent = received = 0
    for _ in range(3_000):
        with stranger(town.cloud.udp_port) as sock:
            sock.send(hello)
            sent += len(hello)
            sock.settimeout(5.0)
            (answer,) = [sock.recv(4096)]
            received += len(answer)
            assert answer[13] == HELLO_VERIFY_REQUEST
    assert received < sent
    assert memory(town) - before < 2_000_000
    assert town.metric("wirechamber_device_handshakes_open") == 0
    works(town)


def test_an_answer_to_a_hello_is_not_sent_again(town: Town) -> None:
    with stranger(town.cloud.udp_port) as sock:
        sock.send(client_hello())
        sock.settimeout(2.5)
        assert len(answers(sock)) == 1


def test_a_cookie_is_good_for_its_address_only(town: Town) -> None:
    key = ServerKeys(town.cloud.folder).ec().public_key()
    handshake = ClientHandshake(PublicKeys(device_key(), key), time.monotonic())
    with stranger(town.cloud.udp_port) as sock, stranger(town.cloud.udp_port) as other:
        for datagram in handshake.datagrams(time.monotonic()):
            sock.send(datagram)
        handshake.receive(sock.recv(4096), time.monotonic())
        (with_cookie,) = handshake.datagrams(time.monotonic())
        # Repeated from elsewhere, and with cookies that nobody gave: after version, random, and no session id.
        cookie_at = 13 + 12 + 2 + 32 + 1 + 1
        other.send(with_cookie)
        for _ in range(20):
            other.send(with_cookie[:cookie_at] + os.urandom(8) + with_cookie[cookie_at + 8 :])
        assert {answer[13] for answer in answers(other)} <= {HELLO_VERIFY_REQUEST}
        assert town.metric("wirechamber_device_handshakes_open") == 0
        sock.send(with_cookie)
        assert sock.recv(4096)[13] == 2
        assert town.metric("wirechamber_device_handshakes_open") == 1


def test_fragments_that_never_end_are_given_up(town: Town) -> None:
    works(town)
    key = ServerKeys(town.cloud.folder).ec().public_key()
    before = memory(town)
    for total in (0xFFFFFF, 4_000, 16_000):
        with stranger(town.cloud.udp_port) as sock:
            half_open(town.cloud.udp_port, sock, key)
            sequence = 10
            for round_ in range(300):
                # A Certificate message, in pieces of which one is always missing; or the same ones again.
                offset = 100 + (round_ * 200) % max(total - 400, 200)
                body = os.urandom(100)
                fragment = b"\x0b" + total.to_bytes(3, "big") + b"\0\2" + offset.to_bytes(3, "big") + b"\0\0\x64" + body
                record = bytes((HANDSHAKE,)) + b"\xfe\xfd\0\0" + sequence.to_bytes(6, "big")
                sock.send(record + len(fragment).to_bytes(2, "big") + fragment)
                sequence += 1
            works(town)
    assert memory(town) - before < 3_000_000
    works(town)


def test_a_handshake_is_off_the_books_as_soon_as_its_device_speaks(town: Town) -> None:
    # A fleet that lost power together comes back together: only those count that are under way.
    before = town.metric("wirechamber_device_handshakes_open")
    done = town.metric("wirechamber_device_handshakes_total")
    for _ in range(5):
        town.device()
        assert town.psk_peer().connect().publish("x").code == Code.CHANGED
    assert town.metric("wirechamber_device_handshakes_open") == before
    assert town.metric("wirechamber_device_handshakes_total") == done + 10


# --- bounds in number and time, with a clock of ours ---


@pytest.fixture
def within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    """A cloud with small bounds."""
    monkeypatch.setattr(udp, "MAX_HANDSHAKES", 8)
    monkeypatch.setattr(service, "MAX_UNNAMED", 4)
    with inside(tmp_path / "data") as made:
        yield made


def half_open_from(within: Inside, host: str) -> socket.socket:
    """A stranger at an address of loopback who has sent the cookie back, and then nothing."""
    sock = stranger(within.udp_port, host)
    half_open(within.udp_port, sock, ServerKeys(within.folder).ec().public_key())
    return sock


def test_half_open_handshakes_are_bounded_in_number_and_time(within: Inside) -> None:
    socks = [half_open_from(within, "127.0.0.1") for _ in range(12)]
    assert within.look(lambda cloud: cloud.gateway.udp.refused["handshakes"]) == 4
    assert within.look(lambda cloud: cloud.gateway.udp.handshakes) == 8
    # What was sent is sent again a few times, and then there is room.
    within.clock.at += 61.0
    eventually(lambda: within.look(lambda cloud: cloud.gateway.udp.handshakes) == 0, what="being forgotten")
    for sock in socks:
        sock.close()


def test_who_floods_with_handshakes_drops_his_own(within: Inside) -> None:
    key = ServerKeys(within.folder).ec().public_key()
    # Eight places: one is an innocent's, and slow; then two hosts come with ten each.
    with stranger(within.udp_port, "127.0.0.7") as slow:
        handshake = half_open(within.udp_port, slow, key)
        socks = [half_open_from(within, host) for _ in range(10) for host in ("127.0.0.2", "127.0.0.3")]
        # Newcomers get in at once, by whatever host, and the slow one's place is kept.
        for number, host in enumerate(("127.0.0.2", "127.0.0.8", "127.0.0.9")):
            peer = Peer(within.udp_port, key, new_device_id(), host=host).start()
            assert peer.publish("in", str(number).encode()).code == Code.EMPTY
            peer.close()
        for datagram in handshake.datagrams(time.monotonic()):
            slow.send(datagram)
        until(lambda: within.look(lambda cloud: cloud.gateway.udp.handshakes_done) == 4, "the slow one's end")
    for sock in socks:
        sock.close()


def test_those_who_never_say_who_they_are_are_bounded_in_number_and_time(within: Inside) -> None:
    key = ServerKeys(within.folder).ec().public_key()
    silent = [Peer(within.udp_port, key, new_device_id()).connect() for _ in range(7)]
    assert within.look(lambda cloud: cloud.gateway.refused["unnamed"]) == 3
    # The oldest had to go; the youngest may still say Hello.
    assert silent[-1].hello().code == Code.EMPTY
    silent[0].send(ping(1))
    assert silent[0].silent(0.2)
    within.clock.at += 91.0
    eventually(lambda: within.look(lambda cloud: cloud.gateway.refused["no_hello"]) == 3, what="being forgotten")
    assert silent[-1].publish("in").code == Code.EMPTY
    for peer in silent:
        peer.close()


def test_who_floods_with_links_that_say_nothing_drops_his_own(within: Inside) -> None:
    key = ServerKeys(within.folder).ec().public_key()
    # Four places.
    innocent = Peer(within.udp_port, key, new_device_id(), host="127.0.0.7").connect()
    flood = [Peer(within.udp_port, key, new_device_id(), host="127.0.0.2").connect() for _ in range(9)]
    assert innocent.hello().code == Code.EMPTY
    assert within.look(lambda cloud: cloud.gateway.refused["unnamed"]) == 6
    assert innocent.publish("in").code == Code.EMPTY
    for peer in [innocent, *flood]:
        peer.close()


def test_who_has_not_said_hello_leaves_nothing_in_the_exchanges(within: Inside) -> None:
    key = ServerKeys(within.folder).ec().public_key()
    peer = Peer(within.udp_port, key, new_device_id()).connect()
    for id in range(300):
        # Answers to nothing, requests, and Hellos of somebody else's kind.
        peer.send(Message(Type.CON, Code.CONTENT, 1_000 + id, b"", (), b"x" * 500))
        peer.send(a_publish("early", b"x", 2_000 + id))
    until(lambda: within.look(lambda cloud: cloud.gateway.refused["before_hello"]) >= 300, "their being refused")
    held = within.look(
        lambda cloud: [len(link.endpoint._seen or ()) for link in cloud.gateway._unnamed if link.endpoint is not None]
    )
    assert sum(held) == 0
    assert peer.hello().code == Code.EMPTY
    peer.close()


def test_many_devices_after_each_other_need_no_room(within: Inside) -> None:
    key = ServerKeys(within.folder).ec().public_key()
    for _ in range(20):
        peer = Peer(within.udp_port, key, new_device_id())
        peer.start()
        peer.close()
    assert within.look(lambda cloud: cloud.gateway.udp.refused["handshakes"]) == 0


def test_an_error_with_one_device_harms_no_other(within: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ServerKeys(within.folder).ec().public_key()
    good, bad = (Peer(within.udp_port, key, new_device_id()).start() for _ in range(2))
    take, reply = Publications.take, Publications.stored

    def broken(self: Publications, link: Link, publish: Publish, *more: Any) -> None:
        if publish.name == "bad":
            raise RuntimeError("as it comes in")
        take(self, link, publish, *more)

    def also_broken(self: Publications, publication: Publication) -> None:
        if publication.publish.name == "worse":
            raise RuntimeError("once it is stored")
        reply(self, publication)

    monkeypatch.setattr(Publications, "take", broken)
    monkeypatch.setattr(Publications, "stored", also_broken)
    for name in ("bad", "worse"):
        bad.send(a_publish(name, b"", bad.next_id()))
    assert good.publish("good").code == Code.EMPTY
    until(lambda: within.look(lambda cloud: cloud.gateway.faults.counted["event"]) == 1, "the second fault")
    assert within.look(lambda cloud: cloud.gateway.faults.counted["datagram"]) == 1
    # The socket and all parts are as they were, and so is the device.
    for peer in (good, bad, Peer(within.udp_port, key, new_device_id()).start()):
        assert peer.publish("on").code == Code.EMPTY
        peer.close()


def test_a_client_that_gives_up_leaves_nothing(within: Inside) -> None:
    key = ServerKeys(within.folder).ec().public_key()
    peer = Peer(within.udp_port, device_key().public_key(), new_device_id())
    with pytest.raises(HandshakeFailed):
        peer.connect()
    peer.close()
    eventually(lambda: within.look(lambda cloud: cloud.gateway.udp.handshakes) == 0, what="being forgotten")
    good = Peer(within.udp_port, key, new_device_id()).start()
    good.close()
    until(lambda: within.look(lambda cloud: cloud.gateway.roster.online) == 1, "being online")
