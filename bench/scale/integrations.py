"""Many integrations of one owner: creating one more, and an event that all of them want."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import ground
from bench.harness import Client, NoAnswer, Size, Wirechamber, load, wirechamber
from bench.link import DELIVERED
from bench.scale.curves import Point, Sizes
from bench.scale.measuring import SETTINGS, cost, median
from bench.webhooks import DATA, hook

SIZES: Sizes = {"full": (10, 1_000, 10_000), "quick": (3, 6, 12)}
MATCHES: Sizes = {"full": (1, 10, 100, 1_000), "quick": (1, 2, 4)}
# At a port to which nothing listens: nothing is sent to it.
NOWHERE = 9
TIMEOUT_S = 60.0


def run(size: Size) -> Iterator[Point]:
    with wirechamber(**SETTINGS) as server:
        first = hook(server, NOWHERE, event="first")
        there = 1
        client = Client(server)
        for count in SIZES[size]:
            ground.integrations(server.folder, first, (f"other-{number}" for number in range(there, count)))
            there = count
            settings = {"integration_type": "Webhook", "event": "one-more", "url": "http://127.0.0.1:9/in"}

            def create(settings: dict[str, str] = settings) -> None:
                client.request("POST", "/v1/integrations", settings)

            yield Point("integration_create", count, cost(server, create, 5) * 1000)


def matches(size: Size) -> Iterator[Point]:
    """All of them to the same target; everything until the last is settled."""
    with wirechamber(**SETTINGS) as server, load("webhooks") as loaded:
        first = hook(server, int(loaded.said("its port")))
        there = 1
        client = Client(server)
        for count in MATCHES[size]:
            ground.integrations(server.folder, first, ["temperature"] * (count - there))
            there = count
            events = max(1, max(MATCHES[size]) // count // 4)

            def once(events: int = events, count: int = count) -> float:
                before, spent = server.metric(DELIVERED), server.spent()
                for _ in range(events):
                    client.publish("temperature", DATA.replace("STAMP", "t=1"))
                _wait(server, before + events * count)
                return (server.spent() - spent) / events * 1000

            once()
            yield Point("integration_matches", count, median(once))


def _wait(server: Wirechamber, delivered: float) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while (so_far := server.metric(DELIVERED)) < delivered:
        if time.monotonic() > deadline:
            raise NoAnswer(f"{so_far:,.0f} of {delivered:,.0f} deliveries were made")
        time.sleep(0.1)
