"""Device OS before 3.1 over UDP: no Certificate message, no connection id, and a session that comes back by its name
(device-protocol.md, section 4.5)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.cloud import Cloud, cloud
from tests.gateway.peer import Peer, a_publish, path_of
from tests.gateway.town import Town, never, new_device_id, until
from wirechamber.gateway.forgeries import BURST
from wirechamber.protocols.coap.message import Code, Type, ping, write_message
from wirechamber.protocols.dtls import APPLICATION_DATA, HANDSHAKE, MOVED_BY_NAME, write_named


@pytest.fixture(scope="module")
def old_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("before-31") / "data"
    with (
        cloud(folder, provisioning="true", publish_rate="1000", publish_burst="1000") as running,
        Town(running) as made,
    ):
        yield made


@pytest.fixture
def town(old_town: Town) -> Iterator[Town]:
    yield old_town
    old_town.leave()


def old(town: Town) -> Peer:
    """A device as before 3.1, connected and greeted."""
    return town.device(profile="deviceos-3.0")


def refused(town: Town, reason: str) -> float:
    return town.metric("wirechamber_device_input_refused_total", part="udp", reason=reason)


def elsewhere(town: Town) -> socket.socket:
    """A socket of somebody who knows the cloud's address."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.connect(("127.0.0.1", town.cloud.udp_port))
    return made


def handshakes(peer: Peer) -> int:
    return len([data for data in peer.sent if data[0] == HANDSHAKE])


def killed(running: Cloud) -> None:
    running.kill()
    running.start()


def stopped(running: Cloud) -> None:
    assert running.stop() == 0
    running.start()


def restart(town: Town, how: Callable[[Cloud], None]) -> None:
    how(town.cloud)
    town.client = town.cloud.client(town.token)


# --- it is a device like others ---


def test_it_connects_publishes_and_gets_events(town: Town) -> None:
    peer = old(town)
    assert peer.publish("old", b"1").code == Code.EMPTY
    peer.subscribe("news")
    town.publish("news", "2")
    asked = peer.request()
    assert path_of(asked) == "e/news"
    assert asked.payload == b"2"
    assert {data[0] for data in peer.sent if data[3:5] == b"\0\1"} == {APPLICATION_DATA}
    assert [event["data"] for event in town.events(peer, "old")] == ["1"]


@pytest.mark.parametrize("how", [killed, stopped])
def test_a_restart_is_nothing_that_it_notices(town: Town, how: Callable[[Cloud], None]) -> None:
    peer = old(town)
    peer.subscribe("news")
    before = handshakes(peer)
    for number in range(2):
        restart(town, how)
        assert peer.publish("on", str(number).encode()).code == Code.EMPTY
        town.publish("news", str(number))
        # It gets again what it acknowledged right before the process was killed.
        while peer.request().payload != str(number).encode():
            pass
    assert handshakes(peer) == before
    assert [event["data"] for event in town.events(peer, "on")] == ["0", "1"]
    assert town.statuses(peer) == ["online"]


# --- it comes back from elsewhere ---


def come_back(town: Town, peer: Peer) -> Peer:
    """The device restarts, and is somewhere else."""
    state = peer.state()
    peer.close()
    return town.kept(Peer.of(town.cloud, peer.device, key=peer.key, profile="deviceos-3.0")).resume(state)


def test_it_comes_back_from_another_port_without_a_handshake(town: Town) -> None:
    peer = old(town)
    peer.subscribe("wake")
    woken = come_back(town, peer)
    assert woken.publish("woken", b"hello").code == Code.EMPTY
    assert woken.sent[0][0] == MOVED_BY_NAME
    assert handshakes(woken) == 0
    # Once something came, its records are plain ones again, told by its new address.
    assert woken.publish("again").code == Code.EMPTY
    assert woken.sent[-1][0] == APPLICATION_DATA
    town.publish("wake", "up")
    assert woken.request().payload == b"up"
    assert [event["data"] for event in town.events(peer, "woken")] == ["hello"]


def test_it_comes_back_to_a_cloud_that_was_killed_meanwhile_and_is_killed_again(town: Town) -> None:
    peer = old(town)
    peer.subscribe("wake")
    restart(town, killed)
    woken = come_back(town, peer)
    assert woken.publish("woken", b"1").code == Code.EMPTY
    restart(town, killed)
    # Its new address is kept, so a plain record finds its session.
    assert woken.publish("woken", b"2").code == Code.EMPTY
    assert woken.sent[-1][0] == APPLICATION_DATA
    town.publish("wake", "up")
    assert woken.request().payload == b"up"
    assert handshakes(woken) == 0
    assert [event["data"] for event in town.events(peer, "woken")] == ["1", "2"]


def test_its_ping_alone_moves_it_and_what_waited_follows(town: Town) -> None:
    peer = old(town)
    peer.subscribe("wake")
    woken = come_back(town, peer)
    town.publish("wake", "sent to where it was")
    id = woken.next_id()
    woken.send(ping(id))
    assert woken.answer(id).type is Type.ACK
    assert woken.request(timeout_s=20.0).payload == b"sent to where it was"


def test_the_bytes_of_its_name_are_counted(town: Town) -> None:
    peer = old(town)
    woken = come_back(town, peer)
    before = len(woken.sent)
    assert woken.publish("woken", b"x" * 100).code == Code.EMPTY
    assert len(woken.sent[before]) == 13 + 8 + len(write_message(a_publish("woken", b"x" * 100, 1))) + 8 + 13


def test_two_devices_change_places(town: Town) -> None:
    """A NAT gives one device's port to another. Nobody loses its session."""
    first, second = old(town), old(town)
    handshaken = handshakes(first), handshakes(second)
    restart(town, killed)
    # The address is free, because nobody has spoken from there since.
    first.socket, second.socket = second.socket, first.socket
    assert second.session is not None
    second.session.moving = True
    assert second.publish("second").code == Code.EMPTY
    assert first.session is not None
    first.session.moving = True
    assert first.publish("first").code == Code.EMPTY
    for peer in (first, second):
        assert peer.publish("plain").code == Code.EMPTY
        assert peer.sent[-1][0] == APPLICATION_DATA
    assert (handshakes(first), handshakes(second)) == handshaken


def test_a_new_handshake_at_its_address_is_not_the_end_of_its_session(town: Town) -> None:
    first = old(town)
    state = first.state()
    newcomer = town.peer(profile="deviceos-3.0")
    newcomer.socket.close()
    newcomer.socket = first.socket
    newcomer.start()
    first.socket = first._new_socket()
    first.resume(state)
    assert first.publish("first").code == Code.EMPTY
    assert newcomer.publish("second").code == Code.EMPTY
    assert handshakes(first) == 2 + 1


# --- anybody can write a name ---


def test_a_forged_record_moves_nothing_and_is_counted(town: Town) -> None:
    peer = old(town)
    peer.subscribe("mine")
    assert peer.session is not None
    genuine = peer.session.protect(APPLICATION_DATA, write_message(a_publish("forged", b"", 9)))
    # Its last byte is another one.
    forged = genuine[:-1] + bytes((genuine[-1] ^ 1,))
    before = refused(town, "moved_tag")
    with elsewhere(town) as sock:
        sock.send(write_named(forged, peer.device))
        until(lambda: refused(town, "moved_tag") == before + 1, "its being counted")
        town.publish("mine", "1")
        assert peer.request().payload == b"1"
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.recv(100)
    assert peer.publish("on").code == Code.EMPTY
    assert not town.events(peer, "forged")


def test_a_name_without_a_session_costs_nothing(town: Town) -> None:
    newer = town.device()
    assert newer.session is not None
    before = refused(town, "unknown_name")
    record = newer.session.protect(APPLICATION_DATA, b"")[:1] + b"\xfe\xfd\0\1" + bytes(6) + b"\0\x10" + bytes(16)
    shapes = [
        write_named(record, new_device_id()),
        # A device of 3.1 or later has a connection id, and no name.
        write_named(record, newer.device),
        write_named(record, newer.device)[:-1],
        write_named(record, newer.device)[:-1] + b"\x0d",
        b"\xfe",
        b"\xfe" + bytes(12),
    ]
    with elsewhere(town) as sock:
        for shape in shapes:
            sock.send(shape)
    until(lambda: refused(town, "unknown_name") == before + len(shapes), "their being counted")
    assert newer.publish("on").code == Code.EMPTY


def test_a_record_that_was_seen_is_not_taken_again(town: Town) -> None:
    peer = old(town)
    woken = come_back(town, peer)
    assert woken.publish("once").code == Code.EMPTY
    seen = woken.sent[0]
    plain = woken.send(a_publish("twice", b"", woken.next_id()))
    before = refused(town, "moved_replayed")
    with elsewhere(town) as sock:
        sock.send(seen)
        # A plain record becomes no other one by being given a name.
        sock.send(write_named(plain, woken.device))
        until(lambda: refused(town, "moved_replayed") == before + 2, "their being counted")
    assert woken.publish("on").code == Code.EMPTY
    restart(town, killed)
    with elsewhere(town) as sock:
        sock.send(seen)
        until(lambda: refused(town, "moved_old") + refused(town, "moved_replayed") == 1, "its being counted")
    assert woken.publish("on").code == Code.EMPTY
    assert woken.sent[-1][0] == APPLICATION_DATA
    assert len(town.events(peer, "once")) == 1


def test_a_flood_of_forgeries_is_damped_and_the_device_itself_is_not(town: Town) -> None:
    peer = old(town)
    record = b"\x17\xfe\xfd\0\1" + (1 << 20).to_bytes(6, "big") + b"\0\x18" + bytes(24)
    tried, damped = refused(town, "moved_tag"), refused(town, "moved_damped")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.7.7.7", 0))
        sock.connect(("127.0.0.1", town.cloud.udp_port))

        def flood() -> bool:
            for _ in range(50):
                sock.send(write_named(record, peer.device))
            return refused(town, "moved_damped") > damped

        until(flood, "its being damped")
    assert refused(town, "moved_tag") - tried >= BURST
    woken = come_back(town, peer)
    assert woken.publish("back").code == Code.EMPTY
    assert woken.sent[0][0] == MOVED_BY_NAME


def test_a_device_can_not_be_put_out_by_one_that_says_to_be_where_it_is(town: Town) -> None:
    victim, other = old(town), old(town)
    assert victim.publish("on").code == Code.EMPTY
    assert other.session is not None
    other.session.moving = True
    # As if the address on the datagram were forged: it comes from the victim's socket.
    before = refused(town, "address_held")
    record = write_named(other.session.protect(APPLICATION_DATA, ping(7)), other.device)
    victim.socket.send(record)
    until(lambda: refused(town, "address_held") == before + 1, "its being counted")
    assert victim.publish("on").code == Code.EMPTY
    assert other.publish("on").code == Code.EMPTY
    assert handshakes(victim) == handshakes(other) == 3


def test_a_mapping_that_is_lost_in_mid_session_is_found_again_by_its_name_only(town: Town) -> None:
    """Without a connection id a plain record from elsewhere is nobody's: this is told in the documentation."""
    peer = old(town)
    peer.move()
    peer.send(a_publish("lost", b"", peer.next_id()))
    never(lambda: town.events(peer, "lost"), 0.5)
    # As the firmware does it when its ping is not answered.
    assert peer.session is not None
    peer.session.moving = True
    assert peer.publish("found").code == Code.EMPTY
    assert peer.publish("plain").code == Code.EMPTY
    assert [data[0] for data in peer.sent[-2:]] == [MOVED_BY_NAME, APPLICATION_DATA]


def test_many_names_at_once(town: Town) -> None:
    """A fleet whose network was away comes back together."""
    peers = [come_back(town, old(town)) for _ in range(8)]
    done: list[str] = []

    def publish(peer: Peer) -> None:
        peer.insist(a_publish("all", b"", peer.next_id(), max_age=600))
        done.append(peer.device)

    threads = [threading.Thread(target=publish, args=(peer,)) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == sorted(peer.device for peer in peers)
    assert all(handshakes(peer) == 0 for peer in peers)
