"""Devices of every generation get what they can take and nothing else: what is too long for one, or never acknowledged,
is given up, told once and counted, and no device has to connect anew for it (docs/firmware.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.gateway.firmware import PROFILES, OldDevice, Profile, Reconnected, is_event, start_tcp
from tests.gateway.peer import Peer, Silence
from tests.gateway.tcp_peer import TcpPeer
from tests.gateway.test_events_to_devices import come_back, leave
from tests.gateway.test_tcp_cloud import Asking, a_peer, tcp_town
from tests.gateway.town import Town, new_device_id, until
from wirechamber.protocols.coap.message import Code, Option, Type, ack
from wirechamber.protocols.deviceos.describe import Application, write_application
from wirechamber.protocols.deviceos.messages import Describe, Kind, Subscribe, write_describe, write_subscribe
from wirechamber.protocols.deviceos.requests import FunctionCall, function_result, read_from_cloud

REFUSED = "wirechamber_device_input_refused_total"
LAMP = Application(functions=("set",), variables={"level": "int32"})
BY_NAME = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


@pytest.fixture(scope="module")
def whole_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with tcp_town(tmp_path_factory.mktemp("firmware") / "data") as made:
        yield made


@pytest.fixture
def town(whole_town: Town) -> Iterator[Town]:
    yield whole_town
    whole_town.leave()


@pytest.fixture
def tcp_peer(town: Town) -> Iterator[Callable[[], TcpPeer]]:
    peers: list[TcpPeer] = []

    def work() -> TcpPeer:
        peers.append(a_peer(town))
        return peers[-1]

    yield work
    for peer in peers:
        peer.close()


def lost(town: Town, reason: str) -> float:
    return town.metric(REFUSED, part="to_devices", reason=reason)


def told_of(town: Town, device: str, entry: str) -> list[dict[str, Any]]:
    """What the log says of a device under this name."""
    lines = town.cloud.log_file.read_text().splitlines()
    return [json.loads(line) for line in lines if f'"{entry}"' in line and device in line]


# --- how long a message may be ---


@BY_NAME
def test_over_udp_a_device_gets_events_up_to_its_buffer_and_never_connects_anew(town: Town, profile: Profile) -> None:
    name = f"size/udp/{new_device_id()}"
    device = OldDevice(town.peer(), profile, name).start()
    most, before = profile.data(name, reliable=False), lost(town, "too_large")
    for size in (most + 1, most, 1025, 1):
        town.publish(name, "x" * size)
    assert [len(device.event()) for _ in range(2)] == [most, 1]
    assert device.connections == 1
    assert lost(town, "too_large") == before + 2
    (line,) = told_of(town, device.peer.device, "event_too_large_for_devices")
    assert (line["bytes"], line["name"]) == (most + 1, name)
    assert line["message"] > line["room"]


@BY_NAME
def test_over_tcp_too(town: Town, tcp_peer: Callable[[], TcpPeer], profile: Profile) -> None:
    name = f"size/tcp/{new_device_id()}"
    peer = start_tcp(tcp_peer(), profile)
    peer.subscribe(name)
    peer.describe(LAMP)
    most, before = profile.data(name, reliable=True), lost(town, "too_large")
    for size in (most + 1, most, 1025, 1):
        town.publish(name, "x" * size)
    assert [len(peer.event().payload) for _ in range(2)] == [most, 1]
    assert lost(town, "too_large") == before + 2
    assert len(told_of(town, peer.device, "event_too_large_for_devices")) == 1


def test_over_tcp_structured_handlers_get_everything_and_handlers_of_one_prefix_stand_side_by_side(
    town: Town, tcp_peer: Callable[[], TcpPeer]
) -> None:
    peer = tcp_peer().start()
    for cbor in (True, False):
        peer.send(write_subscribe(Subscribe("tcp-var", cbor=cbor), peer.next_id(), tcp=True))
    peer.describe(LAMP)
    town.publish("tcp-var", '{"a":123,"b":"testing"}')
    town.device().publish("tcp-var", b"\0\1", content_format=42)
    forms = [
        (message.uint(Option.CONTENT_FORMAT), message.payload)
        for message in (peer.receive(want=is_event) for _ in range(2))
    ]
    assert forms == [(None, b'{"a":123,"b":"testing"}'), (60, b"\xa2aa\x18{abgtesting")]
    peer.pong(peer.receive(want=lambda message: message.code == 0))
    assert peer.event().payload == b"\x42\0\1"


def test_text_that_is_longer_as_cbor_is_told_with_the_length_that_it_would_have(town: Town) -> None:
    device = town.device()
    device.subscribe("longer", cbor=True)
    text = f"[{','.join(['0.1'] * 200)}]"
    town.publish("longer", text)
    (line,) = until(lambda: told_of(town, device.device, "event_too_large_for_devices"), "being told")
    assert line["bytes"] == len(text) < line["room"] < line["message"]


def test_what_waited_for_a_device_is_looked_at_in_the_same_way(town: Town) -> None:
    # Found in the log when it comes back, and after a Hello that tells of another buffer than the one before.
    profile = PROFILES[4]
    device = OldDevice(town.peer(), profile, "held").start()
    device.peer.close()
    device.peer.socket = device.peer._new_socket()
    for data in ("x" * 1000, "after"):
        town.publish("held", data, ttl=600)
    device.start()
    assert device.event() == b"after"
    assert device.connections == 2


def test_the_name_counts(town: Town) -> None:
    profile = PROFILES[2]
    long = "n" * 64
    device = OldDevice(town.peer(), profile, "n").start()
    most = profile.data(long, reliable=False)
    town.publish(long, "x" * (most + 1))
    town.publish("n" * 20, "y" * (most + 40))
    assert device.event() == b"y" * (most + 40)
    assert device.connections == 1


# --- what is never acknowledged ---


def test_an_event_that_ends_connection_after_connection_is_given_up_and_the_others_come(town: Town) -> None:
    device = OldDevice(town.peer(), PROFILES[4], "poison").start()
    device.refuses = b"poison"
    before = lost(town, "unacknowledged")
    for data in ("first", "poison", "second", "third", "fourth"):
        town.publish("poison", data, ttl=600)
    got: list[bytes] = []
    while b"fourth" not in got:
        try:
            got.append(device.event())
        except Reconnected:
            assert device.connections < 6
    # At least once, and all of them.
    assert set(got) == {b"first", b"second", b"third", b"fourth"}
    assert device.connections == 4
    assert lost(town, "unacknowledged") == before + 1
    (line,) = told_of(town, device.peer.device, "event_never_acknowledged")
    assert line["name"] == "poison"


def test_the_same_over_tcp(town: Town, tcp_peer: Callable[[], TcpPeer]) -> None:
    first = start_tcp(tcp_peer(), PROFILES[2])
    town.publish("tcp-poison", "before")
    peer, connections, got = first, 1, []
    peer.subscribe("tcp-poison")
    peer.describe(LAMP)
    for data in ("poison", "good"):
        town.publish("tcp-poison", data, ttl=600)
    while b"good" not in got:
        event = peer.event(confirm=False)
        if event.payload == b"poison":
            assert connections < 6
            peer.close()
            peer = start_tcp(TcpPeer.of(town.cloud, first.device, first.key), PROFILES[2])
            connections += 1
            peer.subscribe("tcp-poison")
        else:
            got.append(event.payload)
    assert connections == 4
    # From then on it gets several at a time again.
    peer.send(ack(peer.next_id()))
    for number in range(4):
        town.publish("tcp-poison", str(number))
    assert [peer.event(confirm=False).payload for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    peer.close()


def test_a_device_that_leaves_and_comes_back_by_its_session_misses_nothing_for_it(town: Town) -> None:
    device = OldDevice(town.peer(), PROFILES[6], "patience").start()
    before = lost(town, "unacknowledged")
    town.publish("patience", "x", ttl=600)
    for _ in range(4):
        assert device.peer.receive(want=is_event).payload == b"x"
        leave(device.peer)
        come_back(device.peer)
    assert device.event() == b"x"
    assert lost(town, "unacknowledged") == before


# --- arguments of functions ---


def described(peer: Peer) -> Peer:
    message = write_describe(Describe(Kind.APPLICATION, write_application(LAMP)), peer.next_id(), b"\x01")
    assert peer.ask(message).code == Code.EMPTY
    return peer


@BY_NAME
def test_an_argument_that_is_too_long_for_the_device_is_answered_400(town: Town, profile: Profile) -> None:
    peer = town.peer().connect()
    peer.hello(**profile.hello)
    described(peer)
    url = f"/v1/devices/{peer.device}/set"
    longest = min(profile.argument, profile.udp - 16 - 14)
    answer = town.client.post(url, json={"arg": "x" * (longest + 1)})
    assert answer.status_code == 400, answer.text
    assert str(longest if longest == profile.argument else profile.udp - 16) in answer.text
    assert call_of(peer, 0.1) is None
    asking = Asking(lambda: town.client.post(url, json={"arg": "x" * longest}))
    call = call_of(peer)
    assert call is not None
    assert len(call.argument) == longest
    assert asking.answer()["return_value"] == 7


def call_of(peer: Peer, timeout_s: float = 10.0) -> FunctionCall | None:
    """The next call, answered by 7."""
    while True:
        try:
            message = peer.request(timeout_s)
        except Silence:
            return None
        wanted = read_from_cloud(message)
        if isinstance(wanted, FunctionCall):
            peer.send(function_result(7, peer.next_id(), message.token))
            return wanted
        assert message.type is Type.CON


# --- descriptions ---


def test_the_old_description_holds_until_the_new_one_is_there(town: Town) -> None:
    peer = described(town.peer().start())
    peer.start()
    url = f"/v1/devices/{peer.device}/set"
    # Nothing has been described yet in the new session.
    asking = Asking(lambda: town.client.post(url, json={"arg": "on"}))
    call = call_of(peer)
    assert call is not None
    assert asking.answer()["return_value"] == 7
    assert town.show(peer)["functions"] == ["set"]


def test_a_call_of_a_known_function_waits_until_the_application_has_registered_it_again(town: Town) -> None:
    peer = described(town.peer().start())
    peer.start()
    asking = Asking(lambda: town.client.post(f"/v1/devices/{peer.device}/set", json={"arg": "on"}))
    # Firmware would acknowledge it and never answer.
    assert call_of(peer, 0.3) is None
    described(peer)
    assert call_of(peer) is not None
    assert asking.answer()["return_value"] == 7


def test_a_call_that_met_the_old_session_is_made_in_the_new_one(town: Town) -> None:
    # The handshake is done, and the Hello that tells whose it is on its way.
    peer = described(town.peer().start())
    old = peer.socket
    peer.socket = peer._new_socket()
    peer.connect()
    asking = Asking(lambda: town.client.post(f"/v1/devices/{peer.device}/set", json={"arg": "on"}))
    old.settimeout(10)
    old.recv(4096)
    assert peer.hello().code == Code.EMPTY
    call = call_of(peer)
    assert call is not None
    assert asking.answer()["return_value"] == 7
    old.close()


def test_a_call_that_the_old_session_acknowledged_is_not_made_twice(town: Town) -> None:
    # Its function may be what makes the device begin anew.
    peer = described(town.peer().start())
    asking = Asking(lambda: town.client.post(f"/v1/devices/{peer.device}/set", json={"arg": "reset"}))
    assert isinstance(read_from_cloud(peer.request()), FunctionCall)
    peer.start()
    assert asking.answer()["error"] == "timed out"
    assert call_of(peer, 0.3) is None


def test_a_call_waits_for_the_description_of_a_device_that_has_just_connected(town: Town) -> None:
    peer = town.peer().start()
    until(lambda: town.show(peer)["online"], "being online")
    asking = Asking(lambda: town.client.post(f"/v1/devices/{peer.device}/set", json={"arg": "on"}))
    reading = Asking(lambda: town.client.get(f"/v1/devices/{peer.device}/nothing"))
    assert peer.silent(0.5)
    described(peer)
    call = call_of(peer)
    assert call is not None
    assert asking.answer()["return_value"] == 7
    # What it does not have is not there.
    assert reading.answer()["error"] == "Variable not found"
    answer = town.client.post(f"/v1/devices/{peer.device}/other", json={"arg": "on"})
    assert (answer.status_code, answer.json()["error"]) == (404, "Function other not found")
