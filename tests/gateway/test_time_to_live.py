"""How long an event for a device is worth sending: its time to live is looked at before every sending, with a clock
that the test moves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import eventually
from tests.gateway.inside import Inside, inside
from tests.gateway.peer import Peer
from tests.gateway.town import new_device_id
from wirechamber.gateway.link import Link
from wirechamber.model.events import Event
from wirechamber.model.ids import new_id
from wirechamber.protocols.coap.message import ack
from wirechamber.services.serverkeys import ServerKeys


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Inside]:
    with inside(tmp_path / "data", publish_burst=1000, publish_rate=1000.0) as made:
        yield made


def owned(place: Inside) -> tuple[Peer, str]:
    """A device that has subscribed to everything, and its owner."""
    peer = Peer(place.udp_port, ServerKeys(place.folder).ec().public_key(), new_device_id()).start()
    user = place.do(lambda: place.cloud.access.create_user("ann@example.com", "correct horse battery"))
    place.do(lambda: place.cloud.store.devices.claim(peer.device, user.id))
    eventually(lambda: place.look(lambda cloud: owner_of(cloud.gateway.roster.get(peer.device))), what="being owned")
    peer.subscribe("")
    return peer, user.id


def owner_of(link: Link | None) -> str | None:
    return None if link is None or link.device is None else link.device.owner


def publish(place: Inside, owner: str, ttl: int) -> None:
    now = place.clock.now()
    event = Event(
        id=new_id(now), name="x", data=f"{ttl}", published_at=now, received_at=now, owner=owner, coreid="api",
        partition=owner, origin="api", ttl=ttl,
    )  # fmt: skip
    place.do(lambda: place.cloud.log.append((event,)))


def passes(place: Inside, seconds: float) -> None:
    """Time passes, and what is due is done."""
    place.clock.at += seconds
    place.look(lambda cloud: cloud.gateway.timers._tick())


def test_an_event_is_not_sent_again_after_its_time(place: Inside) -> None:
    peer, owner = owned(place)
    for ttl in (2, 60):
        publish(place, owner, ttl)
    assert peer.receive().payload == b"2"
    passes(place, 7.0)
    first = peer.receive()
    assert first.payload == b"60"
    passes(place, 7.0)
    again = peer.receive()
    assert again.id == first.id
    assert peer.silent()
    assert place.look(lambda cloud: cloud.gateway.refusals()["to_devices", "expired"]) == 1
    peer.send(ack(again.id))
    deadline = time.monotonic() + 20
    while place.look(lambda cloud: cloud.gateway.delivered) != 1:
        assert time.monotonic() < deadline
    # The device is not taken for gone.
    assert place.look(lambda cloud: cloud.gateway.online) == 1
    peer.close()
