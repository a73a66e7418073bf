"""Devices on TCP and a whole cloud (device-protocol.md, section 5.3)."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.cloud import cloud
from tests.gateway.peer import path_of
from tests.gateway.tcp_peer import TcpPeer, device_key
from tests.gateway.town import Town, in_store, logged, new_device_id, until
from wirechamber.protocols.coap.message import Code, Message, Type, ack
from wirechamber.protocols.deviceos.describe import Application

LAMP = Application(functions=("set",), variables={"level": "int32"})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def tcp_town(folder: Path, **settings: str) -> Iterator[Town]:
    fast = {"provisioning": "true", "publish_rate": "1000", "publish_burst": "1000"}
    with cloud(folder, tcp_port=str(free_port()), **(fast | settings)) as running:
        yield Town(running)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with tcp_town(tmp_path_factory.mktemp("tcp") / "data") as made:
        yield made


@pytest.fixture
def connect(town: Town) -> Iterator[Callable[..., TcpPeer]]:
    """Connects a device of alice's, not greeted yet."""
    peers: list[TcpPeer] = []

    def work(id: str | None = None, key: rsa.RSAPrivateKey | None = None) -> TcpPeer:
        peer = a_peer(town, id, key)
        peers.append(peer)
        return peer

    yield work
    for peer in peers:
        peer.close()


def a_peer(town: Town, id: str | None = None, key: rsa.RSAPrivateKey | None = None) -> TcpPeer:
    if id is None:
        id, key = new_device_id(), device_key()
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        assert town.client.post(f"/v1/provisioning/{id}", json={"publicKey": pem}).status_code == 200
        assert town.client.post("/v1/devices", json={"id": id}).status_code == 200
    return TcpPeer.of(town.cloud, id, key)


def show(town: Town, peer: TcpPeer) -> dict[str, Any]:
    shown: dict[str, Any] = town.client.get(f"/v1/devices/{peer.device}").json()
    return shown


def online(town: Town, peer: TcpPeer) -> bool:
    return bool(show(town, peer)["online"])


def statuses(town: Town, peer: TcpPeer) -> list[str]:
    return [event["data"] for event in logged(town.cloud, peer.device, "spark/status")]


class Asking:
    """A request to the API that waits until the device has answered."""

    def __init__(self, work: Callable[[], httpx.Response]) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._answer = self._pool.submit(work)

    def answer(self) -> Any:
        with self._pool:
            return self._answer.result(20).json()


# --- coming and going ---


def test_a_device_comes_in_and_is_shown(town: Town, connect: Callable[..., TcpPeer]) -> None:
    peer = connect().start()
    peer.describe(LAMP)
    shown = until(lambda: show(town, peer) if online(town, peer) else None, "being online")
    assert (shown["platform_id"], shown["system_module_version"], shown["last_ip_address"]) == (3, 6200, "127.0.0.1")
    assert (shown["functions"], shown["variables"]) == (["set"], {"level": "int32"})
    assert shown["last_handshake_at"] is not None
    assert statuses(town, peer) == ["online"]
    peer.close()
    until(lambda: not online(town, peer), "being offline")
    until(lambda: statuses(town, peer) == ["online", "offline"], "telling so")


def test_the_second_connection_of_a_device_ends_the_first(town: Town, connect: Callable[..., TcpPeer]) -> None:
    first = connect().start()
    second = connect(first.device, first.key).start()
    assert first.closed()
    assert second.publish("still/here").code == Code.EMPTY
    assert online(town, second)


def test_a_key_that_is_not_the_devices_gets_no_answer(town: Town, connect: Callable[..., TcpPeer]) -> None:
    known = connect()
    assert not connect(known.device, device_key()).connect()
    assert known.connect()


def test_an_unknown_device_gets_no_answer(tmp_path: Path) -> None:
    with tcp_town(tmp_path / "data", provisioning="false") as strict:
        peer = TcpPeer.of(strict.cloud, new_device_id())
        assert not peer.connect()
        peer.close()


def test_a_handshake_alone_binds_no_key(town: Town, connect: Callable[..., TcpPeer]) -> None:
    # Whoever says that a key is his must first show it by a message under the credentials.
    id = new_device_id()
    thief, owner = connect(id, device_key()), connect(id, device_key())
    assert thief.connect()
    assert in_store(town.cloud, lambda store: store.keys.get(id)) is None
    owner.start()
    keys = in_store(town.cloud, lambda store: store.keys.get(id))
    assert keys is not None
    assert keys.public_key == owner.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    thief.say_hello()
    assert thief.closed()


def test_a_device_can_not_say_hello_for_another(town: Town, connect: Callable[..., TcpPeer]) -> None:
    other, peer = connect(), connect()
    assert peer.connect()
    peer.say_hello(other.device)
    assert peer.closed()
    assert not online(town, other)


def test_another_key_for_a_device_ends_its_connection(town: Town, connect: Callable[..., TcpPeer]) -> None:
    peer = connect().start()
    pem = device_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert town.client.post(f"/v1/provisioning/{peer.device}", json={"publicKey": pem}).status_code == 200
    assert peer.closed()


# --- what devices tell ---


def test_an_event_is_stored_before_it_is_acknowledged(town: Town, connect: Callable[..., TcpPeer]) -> None:
    peer = connect().start()
    for number in range(20):
        assert peer.publish("reading", b"%d" % number).code == Code.EMPTY
        assert logged(town.cloud, peer.device, "reading")[-1]["data"] == str(number)


def test_most_events_ask_for_no_acknowledgement(town: Town, connect: Callable[..., TcpPeer]) -> None:
    peer = connect().start()
    for number in range(5):
        id = peer.next_id()
        peer.send(bytes.fromhex("5002") + id.to_bytes(2, "big") + b"\xb1E\x05quiet\xff%d" % number)
    until(lambda: len(logged(town.cloud, peer.device, "quiet")) == 5, "storing events")
    assert [event["data"] for event in logged(town.cloud, peer.device, "quiet")] == list("01234")
    assert peer.silent()


def test_a_ping_of_the_device_is_answered(connect: Callable[..., TcpPeer]) -> None:
    peer = connect().start()
    peer.send(b"\x40\0\x12\x34")
    assert peer.receive() == Message(Type.ACK, 0, 0x1234)


def test_what_makes_no_sense_ends_the_connection(town: Town, connect: Callable[..., TcpPeer]) -> None:
    # Frames have no MAC, so a changed one is known by its message only.
    peer = connect().start()
    peer.send(secrets.token_bytes(3))
    assert peer.closed()
    until(lambda: not online(town, peer), "being offline")


# --- what devices are told ---


def test_events_come_in_order_and_are_confirmed_by_a_ping(town: Town, connect: Callable[..., TcpPeer]) -> None:
    peer = connect().start()
    peer.subscribe("orders/")
    peer.describe(LAMP)
    for number in range(10):
        town.publish("orders/new", str(number))
    for number in range(10):
        event = peer.event()
        assert (path_of(event), event.payload) == ("e/orders/new", b"%d" % number)
    assert peer.silent()


def test_what_was_not_confirmed_comes_again_and_what_was_does_not(town: Town, connect: Callable[..., TcpPeer]) -> None:
    peer = connect().start()
    peer.subscribe("letters/")
    peer.describe(LAMP)
    town.publish("letters/1")
    town.publish("letters/2")
    assert path_of(peer.event()) == "e/letters/1"
    # The second one may have been lost on its way, for all that the cloud can know.
    assert path_of(peer.event(confirm=False)) == "e/letters/2"
    peer.close()
    until(lambda: not online(town, peer), "being offline")
    town.publish("letters/3")
    again = connect(peer.device, peer.key).start()
    again.subscribe("letters/")
    assert [path_of(again.event()) for _ in range(2)] == ["e/letters/2", "e/letters/3"]
    assert again.silent()


def test_functions_and_variables(town: Town, connect: Callable[..., TcpPeer]) -> None:
    peer = connect().start()
    peer.describe(LAMP)
    calling = Asking(lambda: town.client.post(f"/v1/devices/{peer.device}/set", data={"arg": "7"}))
    request = peer.receive()
    assert (request.type, path_of(request)) == (Type.CON, "f/set")
    peer.send(ack(request.id))
    peer.send(Message(Type.NON, 0x44, peer.next_id(), request.token, (), (-3).to_bytes(4, "big", signed=True)))
    assert calling.answer()["return_value"] == -3
    asking = Asking(lambda: town.client.get(f"/v1/devices/{peer.device}/level"))
    request = peer.receive()
    assert path_of(request) == "v/level"
    peer.send(ack(request.id), Message(Type.NON, 0x45, peer.next_id(), request.token, (), (42).to_bytes(4, "big")))
    assert asking.answer()["result"] == 42


def test_ping_and_signal_are_acknowledged_under_an_id_of_the_devices_own(
    town: Town, connect: Callable[..., TcpPeer]
) -> None:
    peer = connect().start()
    pinging = Asking(lambda: town.client.put(f"/v1/devices/{peer.device}/ping"))
    peer.pong(peer.receive())
    assert pinging.answer() == {"ok": True, "online": True}
    signalling = Asking(lambda: town.client.put(f"/v1/devices/{peer.device}", data={"signal": "1"}))
    request = peer.receive()
    assert path_of(request) == "s"
    peer.pong(request)
    assert signalling.answer()["ok"] is True


# --- what is counted, and what outlives the process ---


def test_every_byte_on_the_wire_is_counted(town: Town, connect: Callable[..., TcpPeer]) -> None:
    peer = connect().start()
    peer.subscribe("count/")
    peer.describe(LAMP)
    for number in range(3):
        peer.publish("count/this", b"%d" % number)
        peer.event()
    peer.send(b"\x40\0\0\x01")
    peer.receive()
    peer.close()
    until(lambda: not online(town, peer), "being offline")

    def total() -> tuple[int, int]:
        used = town.client.get(f"/v1/devices/{peer.device}/usage").json()["total"]
        return used["up_bytes"], used["down_bytes"]

    until(lambda: total() == (peer.up, peer.down), f"counting {peer.up} and {peer.down} bytes, not {total()}")


def test_after_a_crash_its_devices_are_told_to_be_gone_until_they_come_back(tmp_path: Path) -> None:
    with tcp_town(tmp_path / "data") as town:
        peer, lost = a_peer(town).start(), a_peer(town).start()
        peer.subscribe("mail/")
        peer.describe(LAMP)
        assert peer.publish("before").code == Code.EMPTY
        until(lambda: online(town, peer) and online(town, lost), "being online")
        town.cloud.kill()
        assert peer.closed()
        town.cloud.start()
        town.client = town.cloud.client(town.token)
        until(lambda: not online(town, lost), "being offline")
        until(lambda: statuses(town, lost) == ["online", "offline"], "telling so")
        town.publish("mail/meanwhile", ttl=600)
        again = TcpPeer.of(town.cloud, peer.device, peer.key).start()
        again.subscribe("mail/")
        assert path_of(again.event()) == "e/mail/meanwhile"
        assert [event["name"] for event in logged(town.cloud, peer.device)] == [
            "spark/status", "before", "spark/status", "spark/status",
        ]  # fmt: skip
        for each in (peer, lost, again):
            each.close()


def test_stopping_ends_the_connections_and_what_arrived_is_stored(tmp_path: Path) -> None:
    with tcp_town(tmp_path / "data") as town:
        peer = a_peer(town).start()
        for number in range(50):
            peer.send(b"\x50\x02" + peer.next_id().to_bytes(2, "big") + b"\xb1E\x04last\xff%d" % number)
        assert peer.publish("the/end").code == Code.EMPTY
        assert town.cloud.stop() == 0
        assert peer.closed()
        assert len(logged(town.cloud, peer.device, "last")) == 50
        peer.close()


def test_without_a_tcp_port_nobody_listens_and_no_key_is_made(tmp_path: Path) -> None:
    with cloud(tmp_path / "data") as running:
        assert not (running.folder / "server-rsa.key").exists()


def test_a_sleeping_session_outlives_a_restart_by_more_than_a_moment(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true") as running:
        town = Town(running)
        sleeper, other = town.device(), town.device()
        running.kill()
        running.start()
        # What is known of devices is brought up to date before anything is stored.
        assert other.publish("awake").code == Code.EMPTY
        assert sleeper.publish("awake too").code == Code.EMPTY
        town.leave()
