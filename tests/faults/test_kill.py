"""`kill -9` of the server at random moments: what was acknowledged is delivered."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.cloud import Cloud, Target, cloud, eventually

PUBLISHES = 5_000
KILLS = 10
WRITERS = 4


class Writer(threading.Thread):
    """Publishes numbered events until its share is acknowledged; what is not acknowledged is tried again."""

    def __init__(self, live: Cloud, token: str, numbers: range) -> None:
        super().__init__(daemon=True)
        self._live = live
        self._token = token
        self._numbers = numbers
        self.acknowledged = 0

    def run(self) -> None:
        client = self._live.client(self._token)
        for number in self._numbers:
            while True:
                try:
                    answer = client.post("/v1/devices/events", json={"name": "n", "data": str(number)})
                    if answer.status_code == 200:
                        break
                except httpx.HTTPError:
                    client.close()
                    threading.Event().wait(0.02)
                    client = self._live.client(self._token)
            self.acknowledged += 1
        client.close()


@pytest.mark.timeout(400)
def test_every_acknowledged_event_is_delivered_though_the_server_is_killed_ten_times(
    tmp_path: Path, target: Target, record_property: object
) -> None:
    dice = random.Random(11)
    with cloud(tmp_path / "data", retry_schedule="0,0.2,0.5,1,2") as live:
        token = live.user("ann")
        with live.client(token) as client:
            client.post("/v1/webhooks", json={"event": "n", "url": target.url, "body": "{{PARTICLE_EVENT_VALUE}}"})
        share = PUBLISHES // WRITERS
        writers = [Writer(live, token, range(part * share, (part + 1) * share)) for part in range(WRITERS)]
        for writer in writers:
            writer.start()
        for kill in range(KILLS):
            # Spread over the publishes, each at a random moment after its share.
            due = (kill + dice.random()) * PUBLISHES / (KILLS + 1)
            eventually(lambda due=due: sum(w.acknowledged for w in writers) >= due, 120, "publishing")
            live.kill()
            live.start()
        for writer in writers:
            writer.join(120)
        assert sum(writer.acknowledged for writer in writers) == PUBLISHES
        eventually(lambda: len({body for *_, body in target.requests}) == PUBLISHES, 60, "every delivery")
        # Quiet again: nothing more is under way.
        count = Counter(body for *_, body in target.requests)
        assert set(count) == {str(number).encode() for number in range(PUBLISHES)}
        duplicates = sum(times - 1 for times in count.values())
        print(f"{PUBLISHES} acknowledged, {KILLS} kills, {duplicates} duplicate deliveries")
        record_property("duplicates", duplicates)  # type: ignore[operator]
        # Each kill may repeat what was in flight (a lane's 32 requests and what waited to be settled), not more.
        assert duplicates < KILLS * 200
