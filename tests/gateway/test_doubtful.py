"""A device that is gone and that nobody knows of yet: the first question that it leaves unanswered tells, and nobody
waits for as long again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cloud import eventually
from tests.gateway.inside import Inside, inside
from tests.gateway.peer import Peer
from tests.gateway.town import new_device_id
from wirechamber.errors import DeviceUnreachable
from wirechamber.gateway import questions
from wirechamber.protocols.coap.message import Code, Message, Type, ack, ping
from wirechamber.services.serverkeys import ServerKeys
from wirechamber.switchboard.base import CallFunction, Offline, Ping, Question, Value


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    # What would take 15 and 30 s.
    monkeypatch.setattr(questions, "PING_S", 0.3)
    monkeypatch.setattr(questions, "ANSWER_S", 60.0)
    monkeypatch.setattr(questions, "DOUBTFUL_S", 0.2)
    with inside(tmp_path / "data") as made:
        yield made


def device(place: Inside) -> Peer:
    return Peer(place.udp_port, ServerKeys(place.folder).ec().public_key(), new_device_id()).start()


def ask(place: Inside, peer: Peer, question: Question) -> Value:
    return place.do(lambda: place.cloud.gateway.questions.ask(peer.device, question))


def is_online(place: Inside, peer: Peer) -> bool:
    """As the API tells it."""
    known = place.do(lambda: place.cloud.store.devices.get(peer.device))
    return known is not None and known.online


def test_one_that_leaves_a_question_unanswered_is_offline_until_it_is_heard(place: Inside) -> None:
    peer = device(place)
    eventually(lambda: is_online(place, peer))
    with pytest.raises(DeviceUnreachable, match="did not answer"):
        ask(place, peer, Ping())
    eventually(lambda: not is_online(place, peer), what="being told to be offline")
    # It is tried, and nobody waits a minute for it.
    with pytest.raises(DeviceUnreachable, match="did not answer"):
        ask(place, peer, CallFunction("go", ""))
    peer.send(ping(peer.next_id()))
    eventually(lambda: is_online(place, peer), what="being back")
    peer.close()


def test_one_that_is_there_after_all_answers_the_next_question(place: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = device(place)
    with pytest.raises(DeviceUnreachable):
        ask(place, peer, Ping())
    # It has heard nothing of that.
    assert peer.receive().code == Code.EMPTY
    monkeypatch.setattr(questions, "DOUBTFUL_S", 20.0)

    with ThreadPoolExecutor(1) as pool:
        called = pool.submit(lambda: ask(place, peer, CallFunction("go", "x")))
        asked = peer.receive(20, lambda message: message.code == Code.POST)
        peer.send(ack(asked.id))
        answer = Message(
            Type.CON, Code.CHANGED.value, peer.next_id(), asked.token, (), (7).to_bytes(4, "big"),
        )  # fmt: skip
        peer.send(answer)
        assert called.result(20) == 7
    assert place.look(lambda cloud: cloud.gateway.online) == 1
    peer.close()


def test_one_that_says_other_things_is_there(place: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "PING_S", 5.0)
    peer = device(place)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: ask(place, peer, Ping()))
        peer.receive()
        # It does not answer, and publishes.
        place.clock.at += 1
        peer.publish("busy")
        with pytest.raises(DeviceUnreachable):
            asked.result(20)
    assert place.look(lambda cloud: cloud.gateway.online) == 1
    peer.close()


def test_one_that_is_silent_for_longer_than_it_may_be_is_not_tried(place: Inside) -> None:
    peer = device(place)
    with pytest.raises(DeviceUnreachable):
        ask(place, peer, Ping())
    place.clock.at += 10_000
    with pytest.raises(Offline):
        ask(place, peer, Ping())
    peer.close()


def test_all_who_wait_are_told_at_once(place: Inside) -> None:
    peer = device(place)
    with ThreadPoolExecutor(2) as pool:
        called = pool.submit(lambda: ask(place, peer, CallFunction("go", "")))
        peer.receive(20, lambda message: message.code == Code.POST)
        with pytest.raises(DeviceUnreachable):
            ask(place, peer, Ping())
        # Its own minute is not over.
        with pytest.raises(DeviceUnreachable):
            called.result(20)
    peer.close()
