"""Nothing is acknowledged that can't be stored: the device is kept waiting, and then told (DESIGN, P1)."""

from __future__ import annotations

from pathlib import Path

from tests.cloud import cloud
from tests.gateway.peer import a_publish
from tests.gateway.town import Town
from wirechamber.protocols.coap.message import Code, Option

HOLD_S = 15.0


def test_a_full_disk_holds_the_acknowledgement_and_then_refuses(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", provisioning="true", disk_floor_mb="1000000000") as running, Town(running) as town:
        peer = town.peer().connect()
        assert peer.hello().code == Code.EMPTY
        message = a_publish("full", b"x", peer.next_id())
        peer.send(message)
        assert peer.silent(1.0)
        answer = peer.answer(message.id, HOLD_S + 10.0)
        assert answer.code == Code.SERVICE_UNAVAILABLE
        assert answer.option(Option.MAX_AGE) is not None
        assert town.events(peer, "full") == []
        assert town.metric("wirechamber_device_input_refused_total", part="events", reason="unavailable") == 1
