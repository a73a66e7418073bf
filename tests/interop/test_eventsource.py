from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable

import httpx

from tests.cloud import Cloud, eventually
from tests.interop.cutter import Cutter

Node = Callable[..., "subprocess.Popen[str]"]
COUNT = 2_000
CUTS = 5


def test_eventsource_cut_at_random_points_sees_every_event_once(live: Cloud, node: Node, cutter: Cutter) -> None:
    token = live.user("ann")
    reader = node("eventsource_resume.mjs", cutter.url(live.url), token, str(COUNT))
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    dice = random.Random(5)
    cuts = sorted(dice.sample(range(COUNT), CUTS))
    with live.client(token) as client:
        for number in range(COUNT):
            answer = client.post("/v1/devices/events", json={"name": "n", "data": str(number)})
            assert answer.status_code == httpx.codes.OK
            if number in cuts:
                cutter.cut()
                # The client waits 3 s before it comes back; the next cut must find it there.
                eventually(lambda: cutter.connections > 0, what="coming back")
    out, err = reader.communicate(timeout=60)
    assert reader.returncode == 0, err
    said = json.loads(out)
    assert said["seen"] == [str(number) for number in range(COUNT)]
    assert said["opens"] == CUTS + 1
