"""Who a device is: ids, keys, and whom the cloud takes in (device-protocol.md, sections 3.6 and 7.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud import cloud
from tests.gateway.peer import HandshakeFailed, Peer, a_hello, device_key, public_der
from tests.gateway.town import Town, in_store, new_device_id, until
from wirechamber.model.devices import Device
from wirechamber.model.keys import DeviceKeys
from wirechamber.protocols.coap.message import Code, ping
from wirechamber.protocols.dtls import Alert
from wirechamber.store.base import Store

ACCESS_DENIED = b"\x02\x31"


@pytest.fixture(scope="module")
def walled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A cloud that takes in only whom it knows: the default."""
    with cloud(tmp_path_factory.mktemp("walled") / "data") as running, Town(running) as made:
        yield made


def known(town: Town, **keys: Any) -> str:
    """A device that the operator has added."""
    id = new_device_id()

    async def work(store: Store) -> None:
        await store.devices.add(Device(id=id, created_at=0))
        if keys:
            await store.keys.set(DeviceKeys(device=id, changed_at=0, **keys))

    in_store(town.cloud, work)
    return id


def refused(town: Town, reason: str) -> float:
    return town.metric("wirechamber_device_input_refused_total", part="messages", reason=reason)


def is_turned_away(peer: Peer) -> None:
    """Its Hello gets no acknowledgement but an alert that it believes, and the session is no more."""
    peer.connect()
    peer.send(a_hello(peer.device, peer.next_id()))
    assert peer.alert() == ACCESS_DENIED
    peer.send(ping(peer.next_id()))
    assert peer.silent(0.1)


def test_a_known_device_with_its_key_comes_in(walled: Town) -> None:
    key = device_key()
    peer = walled.kept(Peer.of(walled.cloud, known(walled, public_key=public_der(key)), key=key)).start()
    assert peer.publish("in").code == Code.EMPTY
    assert len(walled.events(peer, "in")) == 1


def test_an_unknown_id_is_turned_away(walled: Town) -> None:
    before = refused(walled, "unknown_id")
    peer = walled.kept(Peer.of(walled.cloud, new_device_id()))
    is_turned_away(peer)
    assert refused(walled, "unknown_id") == before + 1
    assert in_store(walled.cloud, lambda store: store.devices.get(peer.device)) is None


def test_another_key_is_turned_away(walled: Town) -> None:
    before = refused(walled, "other_key")
    id = known(walled, public_key=public_der(device_key()))
    is_turned_away(walled.kept(Peer.of(walled.cloud, id)))
    assert refused(walled, "other_key") == before + 1
    assert in_store(walled.cloud, lambda store: store.sessions.of_device(id)) == []


def test_a_device_without_any_key_is_turned_away(walled: Town) -> None:
    before = refused(walled, "no_key")
    is_turned_away(walled.kept(Peer.of(walled.cloud, known(walled))))
    assert refused(walled, "no_key") == before + 1


def test_a_device_with_a_pre_shared_key_only_is_turned_away_with_a_public_one(walled: Town) -> None:
    is_turned_away(walled.kept(Peer.of(walled.cloud, known(walled, psk=b"p" * 32))))


def test_hello_for_anothers_id_is_turned_away_and_leaves_the_other_alone(walled: Town) -> None:
    key = device_key()
    victim = walled.kept(Peer.of(walled.cloud, known(walled, public_key=public_der(key)), key=key)).start()
    thief_key = device_key()
    thief = walled.kept(Peer.of(walled.cloud, known(walled, public_key=public_der(thief_key)), key=thief_key))
    # With its own key, for another's id.
    thief.connect()
    thief.send(a_hello(victim.device, thief.next_id()))
    assert thief.alert() == ACCESS_DENIED
    # In a session of its own that was greeted before.
    thief.start()
    thief.send(a_hello(victim.device, thief.next_id()))
    assert thief.alert() == ACCESS_DENIED
    assert refused(walled, "hello_of_another") == 1
    assert victim.publish("still", b"me").code == Code.EMPTY
    assert [event["data"] for event in walled.events(victim, "still")] == ["me"]
    assert walled.statuses(victim) == ["online"]


def test_a_device_that_never_says_hello_has_no_effect(walled: Town) -> None:
    peer = walled.kept(Peer.of(walled.cloud, new_device_id())).connect()
    for _ in range(3):
        peer.send(ping(peer.next_id()))
    assert peer.silent()
    assert in_store(walled.cloud, lambda store: store.devices.get(peer.device)) is None


def test_a_server_of_another_key_is_not_believed(walled: Town) -> None:
    peer = walled.kept(Peer.of(walled.cloud, new_device_id()))
    peer.server_key = device_key().public_key()
    with pytest.raises(HandshakeFailed, match=f"alert {Alert.DECRYPT_ERROR:d}, by the cloud: False"):
        peer.connect()
    until(
        lambda: walled.metric("wirechamber_device_input_refused_total", part="udp", reason="handshake_failed"),
        "being counted",
    )


# --- provisioning mode ---


def test_in_provisioning_mode_an_unknown_device_comes_in_free(town: Town) -> None:
    peer = town.kept(Peer.of(town.cloud, new_device_id())).start()
    assert peer.publish("free").code == Code.EMPTY
    (stored,) = town.events(peer, "free")
    assert stored["owner"] == ""
    device = in_store(town.cloud, lambda store: store.devices.get(peer.device))
    assert device is not None
    assert device.owner is None
    # From now on, this is its key.
    is_turned_away(town.kept(Peer.of(town.cloud, peer.device)))
    assert peer.publish("still").code == Code.EMPTY


def test_in_provisioning_mode_a_device_that_has_a_key_keeps_it(town: Town) -> None:
    peer = town.peer()
    is_turned_away(town.kept(Peer.of(town.cloud, peer.device)))
    with_psk = town.psk_peer()
    is_turned_away(town.kept(Peer.of(town.cloud, with_psk.device)))


def test_a_free_device_that_is_claimed_while_connected_publishes_for_its_owner(town: Town) -> None:
    peer = town.kept(Peer.of(town.cloud, new_device_id())).start()
    peer.subscribe("for-me")
    assert town.client.post("/v1/devices", json={"id": peer.device}).status_code == 200
    assert peer.publish("owned").code == Code.EMPTY
    (stored,) = town.events(peer, "owned")
    assert stored["owner"] == town.show(peer)["owner"]
    town.publish("for-me", "hi")
    assert peer.request().payload == b"hi"
