"""Devices that say how they are kept in touch with (docs/device-link.md), with a clock that the test moves: what waits
for one in queue mode comes with its next word, and one that wants to be pinged is."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from tests.cloud import cloud, eventually
from tests.gateway.inside import HandClock, Inside, inside
from tests.gateway.peer import Peer, path_of
from tests.gateway.test_plain_coap_devices import name_of, observe
from tests.gateway.test_presence import answered_ping, looked_after, registered, statuses
from tests.gateway.town import PSK, Town, new_device_id
from wirechamber.errors import DeviceUnreachable
from wirechamber.gateway.keepalive import AWAKE_S
from wirechamber.model.devices import Device
from wirechamber.model.events import Event
from wirechamber.model.ids import new_id
from wirechamber.model.keys import DeviceKeys
from wirechamber.protocols.coap.message import Code, Message, Option, Type, reset
from wirechamber.protocols.deviceos.keepalive import MAX_LIFETIME_S, KeepAlive, write_keep_alive
from wirechamber.services.devices import view
from wirechamber.services.presence import GRACE_S, IDLE_S
from wirechamber.services.serverkeys import ServerKeys
from wirechamber.switchboard.base import CallFunction, Ping

DAY_S = 86_400
PROFILES = ["deviceos", "plain"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with inside(tmp_path_factory.mktemp("keep-alive") / "data", publish_burst=1000, publish_rate=1000.0) as made:
        yield made


def connected(place: Inside, profile: str) -> Peer:
    """A device of ann's."""
    id = new_device_id()

    async def register() -> None:
        user = await place.cloud.access.ensure_user("ann", "correct horse")
        await place.cloud.store.devices.add(Device(id=id, created_at=0, owner=user.id))
        if profile == "plain":
            await place.cloud.store.keys.set(DeviceKeys(device=id, psk=PSK, changed_at=0))

    place.do(register)
    key = ServerKeys(place.folder).ec().public_key()
    peer = Peer(place.udp_port, key, id, psk=PSK if profile == "plain" else None)
    peer.start()
    eventually(lambda: registered(place, peer).online, what="being online")
    return peer


def tell(peer: Peer, told: KeepAlive) -> int:
    return peer.ask(write_keep_alive(told, peer.next_id())).code


def subscribe(peer: Peer, prefix: str) -> None:
    if peer.psk is None:
        assert peer.subscribe(prefix).code == Code.EMPTY
    else:
        assert observe(peer, prefix).code == Code.CONTENT


def publish(place: Inside, peer: Peer, name: str, data: str, ttl: int = DAY_S) -> None:
    owner = registered(place, peer).owner or ""

    async def append() -> None:
        now = place.clock.now()
        event = Event(
            id=new_id(now), name=name, data=data, published_at=now, received_at=now, owner=owner, coreid="api",
            partition="api", origin="api", ttl=ttl,
        )  # fmt: skip
        await place.cloud.log.append([event])

    place.do(append)


def event_of(peer: Peer) -> tuple[str, str]:
    """The next event that comes, acknowledged."""
    message = peer.request()
    name = name_of(message) if peer.psk is not None else path_of(message)
    return name.partition("/")[2], message.payload.decode()


def ask(place: Inside, peer: Peer, question: Any) -> Future[Any]:
    """Puts a question to a device; what comes of it is the future's."""
    asked: Future[Any] = Future()

    async def wait() -> None:
        try:
            asked.set_result(await place.cloud.gateway.questions.ask(peer.device, question))
        except BaseException as problem:
            asked.set_exception(problem)

    async def begin() -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(wait())

    place.do(begin)
    return asked


def asleep(place: Inside, peer: Peer) -> None:
    """Lets a device that is in queue mode fall asleep."""

    def fell() -> bool:
        link = place.look(lambda cloud: _link(cloud, peer))
        if place.clock.at - link.heard <= AWAKE_S:
            # Its last word may still be on its way when the clock is moved.
            place.clock.at += AWAKE_S + 1
        return bool(link.asleep)

    eventually(fell, what="falling asleep")


def _link(cloud: Any, peer: Peer) -> Any:
    link = cloud.gateway.roster.get(peer.device)
    assert link is not None
    return link


@pytest.mark.parametrize("profile", PROFILES)
def test_a_device_in_queue_mode_is_expected_and_not_offline(place: Inside, profile: str) -> None:
    peer = connected(place, profile)
    usual = view(registered(place, peer))
    assert (usual["online"], usual["queue_mode"]) == (True, False)
    assert tell(peer, KeepAlive(lifetime=DAY_S, queue=True)) == Code.CHANGED
    place.clock.at += IDLE_S * 10
    looked_after()
    device = registered(place, peer)
    assert device.last_heard is not None
    assert statuses(place, peer) == ["online"]
    shown = view(device)
    assert (shown["online"], shown["queue_mode"]) == (True, True)
    assert shown["expected_by"] > shown["last_heard"]
    place.clock.at += DAY_S + GRACE_S
    eventually(lambda: statuses(place, peer) == ["online", "offline"], what="being offline")
    eventually(lambda: not registered(place, peer).online, what="being offline in the registry")
    gone = view(registered(place, peer))
    assert (gone["online"], gone["expected_by"]) == (False, None)
    peer.close()


@pytest.mark.parametrize("profile", PROFILES)
def test_what_waits_for_a_device_in_queue_mode_comes_with_its_next_word(place: Inside, profile: str) -> None:
    peer = connected(place, profile)
    subscribe(peer, "to-me")
    assert tell(peer, KeepAlive(lifetime=DAY_S, queue=True)) == Code.CHANGED
    # It listens for a moment.
    publish(place, peer, "to-me/0", "at once")
    assert event_of(peer) == ("to-me/0", "at once")
    asleep(place, peer)
    assert place.look(lambda cloud: cloud.gateway.asleep) > 0
    for number in range(3):
        publish(place, peer, f"to-me/{number}", str(number))
    place.clock.at += 3 * IDLE_S
    looked_after()
    assert peer.silent()
    assert statuses(place, peer) == ["online"]
    # It may be anywhere when it is back.
    peer.move()
    peer.publish("reading", b"21.5", token=b"" if profile == "deviceos" else b"\x09")
    assert [event_of(peer) for _ in range(3)] == [(f"to-me/{number}", str(number)) for number in range(3)]
    peer.close()


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_device_that_fell_asleep_did_not_acknowledge_comes_again(place: Inside, profile: str) -> None:
    peer = connected(place, profile)
    subscribe(peer, "to-me")
    assert tell(peer, KeepAlive(lifetime=DAY_S, queue=True)) == Code.CHANGED
    publish(place, peer, "to-me/0", "lost")
    peer.receive(want=lambda message: message.type is Type.CON)
    asleep(place, peer)
    publish(place, peer, "to-me/1", "kept")
    answered(peer)
    # It may have been repeated before it was given up, and wait in the device's socket.
    came = [event_of(peer)]
    while came[-1] == ("to-me/0", "lost"):
        came.append(event_of(peer))
    assert len(came) > 1
    assert came[-1] == ("to-me/1", "kept")
    assert statuses(place, peer) == ["online"]
    peer.close()


def answered(peer: Peer) -> None:
    """The device pings, in the way of its profile."""
    if peer.psk is None:
        answered_ping(peer)
    else:
        peer.publish("alive", token=b"\x0a")


def test_a_question_waits_for_the_next_word_too(place: Inside) -> None:
    peer = connected(place, "deviceos")
    assert tell(peer, KeepAlive(lifetime=DAY_S, queue=True)) == Code.CHANGED
    asleep(place, peer)
    asked = ask(place, peer, CallFunction("fan", "on"))
    assert peer.silent()
    peer.move()
    answered_ping(peer)
    call = peer.request()
    assert path_of(call) == "f/fan"
    peer.send(Message(Type.CON, Code.CHANGED, peer.next_id(), call.token, (), (7).to_bytes(4, "big")))
    assert asked.result(30) == 7
    peer.close()


def test_a_question_that_nobody_will_answer_says_why(place: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirechamber.gateway.questions.PING_S", 0.1)
    peer = connected(place, "deviceos")
    assert tell(peer, KeepAlive(lifetime=DAY_S, queue=True)) == Code.CHANGED
    asleep(place, peer)
    with pytest.raises(DeviceUnreachable, match="queue mode"):
        ask(place, peer, Ping()).result(30)
    peer.close()


def test_a_device_in_queue_mode_that_does_not_answer_sleeps_and_is_not_offline(
    place: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wirechamber.gateway.questions.PING_S", 0.1)
    peer = connected(place, "deviceos")
    subscribe(peer, "to-me")
    assert tell(peer, KeepAlive(lifetime=DAY_S, queue=True)) == Code.CHANGED
    # In the moment in which it should listen.
    with pytest.raises(DeviceUnreachable):
        ask(place, peer, Ping()).result(30)
    assert place.look(lambda cloud: _link(cloud, peer).asleep)
    publish(place, peer, "to-me/0", "kept")
    answered_ping(peer)
    came = event_of(peer)
    while not came[0]:
        # The ping of before, read only now.
        came = event_of(peer)
    assert came == ("to-me/0", "kept")
    assert statuses(place, peer) == ["online"]
    peer.close()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_device_that_wants_it_is_pinged_after_its_silence_and_gone_if_it_does_not_answer(
    place: Inside, profile: str
) -> None:
    peer = connected(place, profile)
    assert tell(peer, KeepAlive(ping=600)) == Code.CHANGED
    place.clock.at += 590
    looked_after()
    assert peer.silent()
    assert statuses(place, peer) == ["online"]
    place.clock.at += 11
    for _ in range(2):
        came = peer.request() if profile == "deviceos" else peer.receive()
        assert (came.type, came.code) == (Type.CON, Code.EMPTY)
        if profile == "plain":
            # RFC 7252, section 4.3.
            peer.send(reset(came.id))
        eventually(lambda: place.look(lambda cloud: _link(cloud, peer).heard) == place.clock.at, what="hearing it")
        assert peer.silent()
        place.clock.at += 601
    peer.receive()
    place.clock.at += GRACE_S
    eventually(lambda: statuses(place, peer) == ["online", "offline"], what="being offline")
    peer.close()


def test_whoever_says_nothing_sensible_is_told_so(place: Inside) -> None:
    peer = connected(place, "deviceos")
    for words in ([b"lt=0"], [b"lt=x"], [b"lt=-1"], [b"lt=%d" % (MAX_LIFETIME_S + 1)], [b"ping=1"], [b"ping=60", b"Q"]):
        options = ((Option.URI_PATH.value, b"K"), *((Option.URI_QUERY.value, word) for word in words))
        assert peer.ask(Message(Type.CON, Code.PUT, peer.next_id(), b"", options)).code == Code.BAD_REQUEST
    # Words of later versions mean nothing yet.
    options = ((Option.URI_PATH.value, b"K"), (Option.URI_QUERY.value, b"b=U"), (Option.URI_QUERY.value, b"Q"))
    assert peer.ask(Message(Type.CON, Code.PUT, peer.next_id(), b"", options)).code == Code.CHANGED
    peer.close()


def test_a_restart_knows_who_sleeps_and_what_waits_for_it(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true") as running, Town(running) as town:
        peers = [town.psk_peer().connect(), town.device()]
        for peer in peers:
            subscribe(peer, "to-me")
            assert tell(peer, KeepAlive(lifetime=DAY_S, queue=True)) == Code.CHANGED
        for peer in peers:
            eventually(lambda peer=peer: town.statuses(peer) == ["online"], what="being told to be online")
        running.kill()
        running.start()
        town.client = running.client(town.token)
        assert all(town.show(peer)["queue_mode"] for peer in peers)
        name = f"to-me/{secrets.token_hex(4)}"
        town.publish(name, "hello", ttl=DAY_S)
        # Whether they fell asleep before is not known: nothing is sent before their next word.
        threading.Event().wait(1.0)
        for peer in peers:
            assert peer.silent()
            peer.move()
            answered(peer)
            assert event_of(peer) == (name, "hello")
            assert town.statuses(peer) == ["online"]


def test_a_restart_pings_when_the_device_expects_it(tmp_path: Path) -> None:
    clock = HandClock()
    with inside(tmp_path / "data", clock) as place:
        peer = connected(place, "deviceos")
        assert tell(peer, KeepAlive(ping=600)) == Code.CHANGED
        port = place.udp_port
    clock.at += 590
    with inside(tmp_path / "data", clock, udp_port=port) as place:
        looked_after()
        assert peer.silent()
        clock.at += 11
        assert peer.request().code == Code.EMPTY
        peer.close()
