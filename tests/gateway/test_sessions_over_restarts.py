"""A restart, by SIGTERM or `kill -9`, is nothing that a device notices: no handshake, no nonce twice, nothing played
again, nothing stored twice (DESIGN, section 3; device-protocol.md, section 4)."""

from __future__ import annotations

import base64
import functools
import random
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest

from tests.cloud import Cloud, cloud
from tests.gateway.peer import HandshakeFailed, Peer, a_publish, device_key, path_of, public_der
from tests.gateway.town import Town, in_store, logged, never, until
from wirechamber.model.keys import DeviceKeys
from wirechamber.model.links import Session
from wirechamber.protocols.coap.message import Code, ping
from wirechamber.protocols.dtls import APPLICATION_DATA, MOVED, TLS12_CID, split_records
from wirechamber.secrets import Vault
from wirechamber.store.base import Store

# The record's header, without a connection id; the explicit part of the nonce follows (RFC 6655, section 3).
HEADER = 13


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A cloud that every test here restarts."""
    folder = tmp_path_factory.mktemp("restless") / "data"
    with (
        cloud(folder, provisioning="true", publish_rate="1000", publish_burst="1000") as running,
        Town(running) as made,
    ):
        yield made


@pytest.fixture
def town(restless: Town) -> Iterator[Town]:
    yield restless
    restless.leave()


def by_kill(running: Cloud) -> None:
    running.kill()
    running.start()


def by_term(running: Cloud) -> None:
    assert running.stop() == 0
    running.start()


def stranger(town: Town) -> socket.socket:
    """A socket of somebody who has seen records go by."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.connect(("127.0.0.1", town.cloud.udp_port))
    made.settimeout(0.3)
    return made


def silent(sock: socket.socket) -> bool:
    try:
        sock.recv(4096)
    except TimeoutError:
        return True
    return False


def nonces(peer: Peer) -> list[bytes]:
    """The nonces of all protected records that came, the handshake's last one included, in order."""
    records = [record for datagram in peer.received for record in split_records(datagram, 0)]
    return [record[HEADER : HEADER + 8] for record in records if record[3:5] == b"\0\1"]


def session_of(town: Town, peer: Peer) -> Session:
    """What the store has of a device's session."""
    (session,) = in_store(town.cloud, lambda store: store.sessions.of_device(peer.device))
    return session


# --- it goes on ---


@pytest.mark.parametrize("restart", [by_term, by_kill])
def test_the_next_publish_needs_no_handshake(town: Town, restart: Callable[[Cloud], None]) -> None:
    peer = town.device()
    for number in range(3):
        assert peer.publish("on", str(number).encode()).code == Code.EMPTY
        restart(town.cloud)
    handshakes = len([data for data in peer.sent if data[0] == 22])
    assert peer.publish("on", b"3").code == Code.EMPTY
    assert len([data for data in peer.sent if data[0] == 22]) == handshakes
    assert [event["data"] for event in town.events(peer, "on")] == ["0", "1", "2", "3"]
    # Nobody was told that it went away.
    assert town.statuses(peer) == ["online"]
    never(lambda: town.statuses(peer) != ["online"], 1.5)


def test_a_device_that_slept_through_restarts_comes_back_from_elsewhere(town: Town) -> None:
    peer = town.device()
    peer.subscribe("wake")
    state = peer.state()
    peer.close()
    by_kill(town.cloud)
    by_term(town.cloud)
    woken = town.kept(Peer.of(town.cloud, peer.device, key=peer.key)).resume(state)
    assert woken.publish("woken", b"hello").code == Code.EMPTY
    # The first record goes out with type 253 (device-protocol.md, section 4.3).
    assert woken.sent[0][0] == MOVED
    town.client = town.cloud.client(town.token)
    town.publish("wake", "up")
    assert path_of(woken.request()) == "e/wake"
    assert woken.publish("again").code == Code.EMPTY
    assert woken.sent[-1][0] == TLS12_CID


def test_a_device_without_a_connection_id_goes_on_too(town: Town) -> None:
    peer = town.psk_peer(cid=None).connect()
    assert peer.publish("psk", b"1").code == Code.CHANGED
    by_kill(town.cloud)
    assert peer.publish("psk", b"2").code == Code.CHANGED
    by_term(town.cloud)
    assert peer.publish("psk", b"3").code == Code.CHANGED
    assert [event["data"] for event in town.events(peer, "psk")] == ["1", "2", "3"]


def damage(town: Town, query: str, *values: object) -> None:
    """Changes rows of a cloud that is down."""
    with closing(sqlite3.connect(town.cloud.folder / "state.db")) as db, db:
        assert db.execute(query, values).rowcount == 1


@pytest.mark.timeout(120)
def test_a_session_that_cannot_be_opened_is_dropped_and_all_others_go_on(town: Town) -> None:
    good, *bad = [town.device() for _ in range(7)]
    quiet = town.peer()
    ids = {peer: session_of(town, peer).id for peer in [good, *bad]}
    for peer in [good, *bad]:
        peer.subscribe("news")
    town.cloud.kill()
    vault = Vault.open(town.cloud.folder)
    other = base64.b64encode(vault.seal(msgspec.msgpack.encode({"version": 2}), ids[bad[1]].encode())).decode()
    damage(town, "update session set state = ? where id = ?", base64.b64encode(bytes(200)).decode(), ids[bad[0]])
    damage(town, "update session set state = ? where id = ?", other, ids[bad[1]])
    damage(town, "update session set state = 'no base64' where id = ?", ids[bad[2]])
    damage(town, "update session set cid = 'no hex' where id = ?", ids[bad[3]])
    damage(town, 'update told set greeting = \'{"platform":"none"}\' where device = ?', bad[4].device)
    damage(town, "update subscription set token = 'no hex' where device = ?", bad[5].device)
    town.cloud.start()
    town.client = town.cloud.client(town.token)
    assert good.publish("on").code == Code.EMPTY
    town.publish("news", "1")
    assert good.request().payload == b"1"
    for peer in bad:
        peer.send(ping(peer.next_id()))
    until(lambda: refused(town, "session_unreadable", part="messages") == 6, "their being dropped")
    assert sum("session_dropped" in line for line in town.cloud.log_file.read_text().splitlines()) <= 3
    for peer in bad:
        # As a device does it when it gets no answer.
        peer.start()
        peer.subscribe("news")
    quiet.start()
    town.publish("news", "2")
    for peer in [good, *bad]:
        while peer.request().payload != b"2":
            pass
    # And that was all: nobody is dropped again.
    by_kill(town.cloud)
    town.client = town.cloud.client(town.token)
    for peer in [good, *bad]:
        assert peer.publish("on").code == Code.EMPTY
    assert refused(town, "session_unreadable", part="messages") == 0


# --- nonces ---


class Talker(threading.Thread):
    """A device that publishes as fast as it is answered, repeats what is not, and pings meanwhile."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(daemon=True)
        self.peer = peer
        self.acknowledged: list[int] = []
        self.enough = threading.Event()
        self.problem: BaseException | None = None

    def run(self) -> None:
        try:
            number = 0
            while not self.enough.is_set():
                # More in flight than is waited for: some records of the cloud are always on their way.
                self.peer.send(ping(self.peer.next_id()))
                message = a_publish("talk", str(number).encode(), self.peer.next_id(), max_age=600)
                answer = self.peer.insist(message, every_s=0.1)
                assert answer.code == Code.EMPTY
                self.acknowledged.append(number)
                number += 1
        except BaseException as problem:
            self.problem = problem


@pytest.mark.timeout(240)
def test_no_nonce_is_used_twice_and_nothing_is_lost_however_often_the_server_is_killed(town: Town) -> None:
    dice = random.Random(5)
    talkers = [Talker(town.device()) for _ in range(2)]
    listener = town.device()
    listener.subscribe("talk")
    for talker in talkers:
        talker.start()
    fresh: list[Peer] = []
    for _ in range(10):
        time.sleep(dice.uniform(0.05, 0.5))
        # A session is killed right after its first answer as well: its first block is its only one so far.
        newcomer = town.peer() if not fresh else fresh[0]
        town.cloud.kill()
        town.cloud.start()
        town.client = town.cloud.client(town.token)
        if not fresh:
            fresh.append(newcomer.start())
        # The listener acknowledges nothing: the same events are sent to it again and again, in new records.
        while not listener.silent(0.05):
            pass
    for talker in talkers:
        talker.enough.set()
    for talker in talkers:
        talker.join(60)
        assert talker.problem is None
        assert not talker.is_alive()
    # Once more, now that all is quiet: the blocks of numbers follow each other.
    by_kill(town.cloud)
    for peer in [talker.peer for talker in talkers] + fresh:
        assert peer.publish("end").code == Code.EMPTY
    for peer in [talker.peer for talker in talkers] + [listener, *fresh]:
        used = nonces(peer)
        assert used
        assert len(set(used)) == len(used)
        # The record's number and the nonce are one and the same, and they only ever grow.
        assert all(data[3:11] == data[HEADER : HEADER + 8] for data in peer.received if data[0] == APPLICATION_DATA)
        assert used == sorted(used)
    assert max(nonces(talkers[0].peer)) >= (1 << 48 | 10 * 1024).to_bytes(8, "big")
    for talker in talkers:
        stored = [int(event["data"]) for event in logged(town.cloud, talker.peer.device, "talk")]
        assert stored == talker.acknowledged
        assert len(stored) > 20


@pytest.mark.timeout(180)
def test_nonces_are_not_repeated_by_a_server_that_dies_right_after_its_first_answers(town: Town) -> None:
    # A handshake, Hello, and death; and after each start one answer, and death.
    for _ in range(2):
        peer = town.peer()
        peer.start()
        town.cloud.kill()
        town.cloud.start()
        for _ in range(2):
            id = peer.next_id()
            peer.send(ping(id))
            peer.answer(id)
            town.cloud.kill()
            town.cloud.start()
        town.client = town.cloud.client(town.token)
        assert peer.publish("x").code == Code.EMPTY
        used = nonces(peer)
        assert len(used) >= 5
        assert len(set(used)) == len(used)


# --- replays ---


@pytest.mark.parametrize("restart", [by_term, by_kill])
def test_nothing_that_was_recorded_has_an_effect_after_a_restart(town: Town, restart: Callable[[Cloud], None]) -> None:
    peer = town.device()
    peer.subscribe("to-it")
    for number in range(5):
        peer.publish("recorded", str(number).encode())
        peer.send(a_publish("recorded-non", str(number).encode(), peer.next_id(), confirmable=False))
    id = peer.next_id()
    peer.send(ping(id))
    peer.answer(id)
    until(lambda: len(town.events(peer, "recorded-non")) == 5, "the last event")
    records = [data for data in peer.sent if data[0] == TLS12_CID]
    assert len(records) > 12
    before = town.events(peer)
    restart(town.cloud)
    town.client = town.cloud.client(town.token)
    with stranger(town) as thief:
        for record in [*records, *reversed(records)]:
            thief.send(record)
        assert silent(thief)
        assert peer.silent()
        assert town.events(peer) == before
        # While the session was fetched from the store, only so many records waited.
        reasons = ("record_replayed", "record_old", "waiting")
        assert sum(refused(town, reason) for reason in reasons) == 2 * len(records)
        # What is for the device goes to the device.
        town.publish("to-it", "hi")
        assert peer.request().payload == b"hi"
        assert silent(thief)


def test_an_address_change_that_was_recorded_is_not_played_again(town: Town) -> None:
    # The last thing before the crash is a move: whoever repeats the record must not get the device's messages.
    peer = town.device()
    peer.subscribe("to-it")
    peer.move()
    id = peer.next_id()
    moving = peer.send(ping(id))
    peer.answer(id)
    port = str(peer.socket.getsockname()[1])
    until(lambda: session_of(town, peer).address.endswith(" " + port), "the new address on disk")
    by_kill(town.cloud)
    town.client = town.cloud.client(town.token)
    with stranger(town) as thief:
        thief.send(moving)
        assert silent(thief)
        town.publish("to-it", "hi")
        assert peer.request().payload == b"hi"


@pytest.mark.timeout(180)
def test_what_was_stored_just_before_the_crash_is_acknowledged_and_not_stored_again(town: Town) -> None:
    # The process dies between the log's commit and the acknowledgement, as nearly as can be had from outside.
    dice = random.Random(7)
    for round_ in range(4):
        peer = town.device()
        messages = [a_publish("crash", str(number).encode(), peer.next_id()) for number in range(60)]
        wanted = dice.randrange(1, 20)

        def crashed(peer: Peer, wanted: int) -> bool:
            return len(town.events(peer, "crash")) >= wanted

        records = [peer.send(message) for message in messages]
        until(functools.partial(crashed, peer, wanted), "the first events")
        town.cloud.kill()
        stored = len(town.events(peer, "crash"))
        town.cloud.start()
        # What is on its way from before the crash is not what is meant.
        while not peer.silent(0.05):
            pass
        with stranger(town) as thief:
            for record in records[:stored]:
                thief.send(record)
            assert silent(thief), round_
        for message in messages:
            answer = peer.insist(message)
            assert answer.code == Code.EMPTY
        assert sorted(int(event["data"]) for event in town.events(peer, "crash")) == list(range(60))
        # Those that had been stored come first, once, and in order.
        assert [event["data"] for event in town.events(peer, "crash")][:stored] == [str(n) for n in range(stored)]
    town.client = town.cloud.client(town.token)


# --- addresses ---


def test_a_device_that_moves_is_followed(town: Town) -> None:
    peer = town.device()
    peer.subscribe("follow")
    for number in range(3):
        peer.move()
        assert peer.publish("moved", str(number).encode()).code == Code.EMPTY
    peer.move()
    peer.session.moving = True  # type: ignore[union-attr]
    record = peer.send(a_publish("moved", b"253", peer.next_id()))
    assert record[0] == MOVED
    peer.answer(peer.message_id)
    town.publish("follow", "there")
    assert peer.request().payload == b"there"
    assert town.statuses(peer) == ["online"]


def test_an_older_record_from_elsewhere_does_not_take_the_address_away(town: Town) -> None:
    peer = town.device()
    peer.subscribe("mine")
    # Held back on its way, and sent on by somebody else once a newer one has arrived.
    held = peer.session.protect(APPLICATION_DATA, b"\x50\x02\x77\x77\xb1E\x04held")  # type: ignore[union-attr]
    assert peer.publish("newer").code == Code.EMPTY
    with stranger(town) as thief:
        thief.send(held)
        until(lambda: town.events(peer, "held"), "the event: it is authentic, and new")
        town.publish("mine", "secret")
        assert peer.request().payload == b"secret"
        # A confirmable one is answered to where the device is.
        held = peer.session.protect(APPLICATION_DATA, ping(0x7878))  # type: ignore[union-attr]
        assert peer.publish("newer").code == Code.EMPTY
        thief.send(held)
        assert peer.answer(0x7878).code == Code.EMPTY
        assert silent(thief)


def test_a_replay_from_elsewhere_does_not_take_the_address_away(town: Town) -> None:
    peer = town.device()
    peer.subscribe("mine")
    id = peer.next_id()
    record = peer.send(ping(id))
    peer.answer(id)
    with stranger(town) as thief:
        thief.send(record)
        assert silent(thief)
        town.publish("mine", "secret")
        assert peer.request().payload == b"secret"


# --- ends ---


def refused(town: Town, reason: str, part: str = "udp") -> float:
    return town.metric("wirechamber_device_input_refused_total", part=part, reason=reason)


def test_records_of_a_session_that_is_lost_are_dropped_without_a_word(town: Town) -> None:
    peer = town.device()
    town.cloud.kill()
    in_store(town.cloud, lambda store: store.links.remove(peer.device))
    town.cloud.start()
    town.client = town.cloud.client(town.token)
    for _ in range(3):
        peer.send(ping(peer.next_id()))
    assert peer.silent()
    assert refused(town, "unknown_cid") >= 3
    # A new handshake is all that it takes.
    peer.start()
    assert peer.publish("back").code == Code.EMPTY


def test_another_key_ends_the_session_and_shuts_the_old_key_out(town: Town) -> None:
    peer = town.device()
    town.peer(id=peer.device, key=(new := device_key()))
    # Told in a way that it believes, so that it comes back at once (device-protocol.md, section 3.6).
    assert peer.alert() in (b"\x01\x00", b"\x02\x31")
    peer.send(ping(peer.next_id()))
    assert peer.silent()
    until(lambda: town.statuses(peer) == ["online", "offline"], "being offline")
    with pytest.raises((HandshakeFailed, AssertionError)):
        peer.start()
    assert peer.alerts
    again = town.kept(Peer.of(town.cloud, peer.device, key=new)).start()
    assert again.publish("back").code == Code.EMPTY


def test_a_key_replaced_by_a_command_ends_the_session_as_well(town: Town) -> None:
    peer = town.device()
    new = device_key()

    async def replace(store: Store) -> None:
        await store.keys.set(DeviceKeys(device=peer.device, public_key=public_der(new), changed_at=0))

    in_store(town.cloud, replace)
    assert peer.alert()
    # Also if the server was not running then: nothing of the old session is left.
    peer.key = new
    peer.start()
    town.cloud.stop()
    new = device_key()
    in_store(town.cloud, replace)
    town.cloud.start()
    town.client = town.cloud.client(town.token)
    peer.send(ping(peer.next_id()))
    assert peer.silent()


def test_a_device_that_is_removed_is_told_so(town: Town) -> None:
    peer = town.device()
    in_store(town.cloud, lambda store: store.devices.remove(peer.device))
    assert peer.alert()
    peer.send(ping(peer.next_id()))
    assert peer.silent()


def test_a_new_handshake_replaces_the_old_session(town: Town) -> None:
    peer = town.device()
    peer.subscribe("one")
    old, message_id = peer.session, peer.message_id
    peer.start()
    peer.subscribe("two")
    assert peer.publish("new").code == Code.EMPTY
    assert old is not None
    peer.transmit(old.protect(APPLICATION_DATA, ping(message_id + 1)))
    assert peer.silent()
    town.publish("one")
    town.publish("two")
    assert path_of(peer.request()) == "e/two"
    assert peer.silent(0.1)
    assert len(in_store(town.cloud, lambda store: store.sessions.of_device(peer.device))) == 1
    # The same id of a message means nothing from one session to the next.
    assert peer.publish("same-id", id=message_id).code == Code.EMPTY
    assert len(town.events(peer, "same-id")) == 1


def test_a_device_that_ends_its_session_is_offline(town: Town) -> None:
    peer = town.device()
    until(lambda: town.statuses(peer) == ["online"], "being online")
    peer.transmit(peer.session.protect(21, b"\x01\x00"))  # type: ignore[union-attr]
    until(lambda: town.statuses(peer) == ["online", "offline"], "being offline")
    peer.send(ping(peer.next_id()))
    assert peer.silent()
