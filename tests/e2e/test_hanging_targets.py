"""An owner's targets that hang hold up nothing of the same owner's that answers."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from tests.cloud import Target, cloud, eventually
from tests.e2e.test_delivery_outcomes import hook, publish

HANGING = 10
ROUNDS = 30


def test_good_targets_are_served_while_others_of_the_owner_hang(tmp_path: Path, target: Target) -> None:
    over = threading.Event()
    with (
        Target() as hanging,
        # Few places, so that those that hang could hold them all many times over.
        cloud(tmp_path / "data", lane_concurrency="8", outbound_concurrency="48", request_timeout="20") as live,
        live.client(live.user("ann")) as client,
    ):
        hanging.answer = lambda method, path, body: over.wait(30) and (200, {}, b"")
        for number in range(HANGING):
            client.post("/v1/webhooks", json={"event": "temp", "url": f"{hanging.url}/{number}"})
        hook(client, target)
        late: list[float] = []
        for number in range(ROUNDS):
            begun = time.monotonic()
            publish(client, data=str(number))
            eventually(lambda number=number: len(target.requests) > number, 20, f"number {number}")
            late.append(time.monotonic() - begun)
        # Far below a time-out: nobody waited for one.
        assert sorted(late)[ROUNDS * 9 // 10] < 5
        over.set()
