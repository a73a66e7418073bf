"""`kill -9` while publishers, devices, webhooks and readers use a cloud: `python -m bench chaos`, in small."""

from __future__ import annotations

import asyncio
import random

import pytest

from bench.chaos import chaos
from bench.crowd import SETTINGS
from bench.harness import wirechamber


@pytest.mark.timeout(300)
def test_what_was_acknowledged_comes_to_webhook_devices_and_resumed_streams_though_the_server_is_killed(
    record_property: object,
) -> None:
    with wirechamber(**SETTINGS) as server:
        outcome = asyncio.run(chaos(server, random.Random(7), kills=3, readers=6, devices=2, between_s=1.0))
    assert outcome.acknowledged > 0
    assert outcome.missing == {"webhook": 0, "devices": 0, "streams": 0}
    # Ids on a stream only grow, whoever is killed or cut; and nothing was removed, so no gap is told.
    assert outcome.back == 0
    assert outcome.gaps == 0
    assert outcome.refused == {}
    # Each stream was cut, and went on where it was.
    assert outcome.resumes > 6
    record_property("repeated", outcome.repeated)  # type: ignore[operator]
