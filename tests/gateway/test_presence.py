"""Whether a device is there: online and offline exactly once each, with a clock that the test moves
(device-protocol.md, section 12)."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cloud import eventually
from tests.gateway.inside import Inside, inside
from tests.gateway.peer import Peer
from tests.gateway.town import new_device_id
from wirechamber.model.devices import Device
from wirechamber.protocols.coap.message import Code, ping
from wirechamber.services.presence import IDLE_CELLULAR_S, IDLE_S
from wirechamber.services.serverkeys import ServerKeys

BORON = 13


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Inside]:
    with inside(tmp_path / "data", publish_burst=1000, publish_rate=1000.0) as made:
        yield made


def a_peer(place: Inside) -> Peer:
    return Peer(place.udp_port, ServerKeys(place.folder).ec().public_key(), new_device_id())


def statuses(place: Inside, peer: Peer) -> list[str]:
    with closing(sqlite3.connect(f"file:{place.folder / 'events.db'}?mode=ro", uri=True)) as db:
        rows = db.execute(
            "select record from event where coreid = ? and name = 'spark/status' order by position", (peer.device,)
        ).fetchall()
    return [json.loads(record)["data"] for (record,) in rows]


def registered(place: Inside, peer: Peer) -> Device:
    device = place.do(lambda: place.cloud.store.devices.get(peer.device))
    assert device is not None
    return device


def answered_ping(peer: Peer) -> None:
    id = peer.next_id()
    peer.send(ping(id))
    assert peer.answer(id).code == Code.EMPTY


def looked_after() -> None:
    """Long enough for the cloud to have looked at its links twice."""
    threading.Event().wait(2.2)


def test_silence_makes_a_device_offline_once(place: Inside) -> None:
    wifi, cellular = a_peer(place), a_peer(place)
    wifi.start()
    cellular.connect()
    cellular.hello(platform=BORON)
    for peer in (wifi, cellular):
        eventually(lambda peer=peer: statuses(place, peer) == ["online"], what="being online")
    place.clock.at += IDLE_S - 1
    looked_after()
    assert statuses(place, wifi) == ["online"]
    place.clock.at += 2
    eventually(lambda: statuses(place, wifi) == ["online", "offline"], what="being offline")
    eventually(lambda: not registered(place, wifi).online, what="being offline in the registry")
    # A device on a cellular network pings every 23 minutes.
    assert statuses(place, cellular) == ["online"]
    place.clock.at += IDLE_CELLULAR_S - IDLE_S
    eventually(lambda: statuses(place, cellular) == ["online", "offline"], what="being offline")
    # The sessions are good as ever.
    for peer in (wifi, cellular):
        answered_ping(peer)
        eventually(lambda peer=peer: statuses(place, peer)[-1] == "online", what="being online again")
    looked_after()
    for peer in (wifi, cellular):
        assert statuses(place, peer) == ["online", "offline", "online"]
        peer.close()


def test_any_sign_of_life_puts_it_off(place: Inside) -> None:
    peer = a_peer(place).start()
    peer.subscribe("to-me")
    for sign in ("ping", "publish", "non"):
        place.clock.at += IDLE_S - 5
        if sign == "ping":
            answered_ping(peer)
        else:
            assert peer.publish("x").code == Code.EMPTY
    place.clock.at += IDLE_S - 5
    looked_after()
    assert statuses(place, peer) == ["online"]
    peer.close()


def test_last_heard_follows_what_is_heard(place: Inside) -> None:
    peer = a_peer(place).start()
    first = registered(place, peer).last_heard
    assert first == place.clock.now()
    place.clock.at += 50
    answered_ping(peer)
    # It is written down every few seconds.
    eventually(lambda: registered(place, peer).last_heard == place.clock.now(), what="being written down")
    assert registered(place, peer).last_handshake_at == first
    peer.close()


def test_a_new_session_is_told_as_going_and_coming(place: Inside) -> None:
    peer = a_peer(place).start()
    eventually(lambda: statuses(place, peer) == ["online"], what="being online")
    peer.start()
    eventually(lambda: statuses(place, peer)[-1] == "online" and len(statuses(place, peer)) != 1, what="both")
    looked_after()
    assert statuses(place, peer) == ["online", "offline", "online"]
    assert registered(place, peer).online
    peer.close()
