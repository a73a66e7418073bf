"""Event streams: many readers, many prefixes, many owners, quiet owners, and all that come back at once."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise

from bench import ground
from bench.harness import ANSWER_TIMEOUT_S, Client, Load, Size, Wirechamber, load, resident_kb, wirechamber
from bench.scale.curves import Point, Sizes
from bench.scale.measuring import (
    SETTINGS,
    cost,
    idle,
    median,
    probing,
    publish_request,
    resumed,
    stream_request,
    streams,
)
from bench.webhooks import ready

SIZES: Sizes = {"full": (100, 1_000, 10_000), "quick": (5, 10, 20)}
OWNERS: Sizes = {"full": (100, 1_000, 3_000), "quick": (3, 6, 12)}
QUIET: Sizes = {"full": (1, 10, 50), "quick": (1, 2, 3)}
STORM: Sizes = {"full": (500, 2_000, 5_000), "quick": (3, 6, 12)}
# More than the tail in memory holds.
BEHIND = {"full": 20_000, "quick": 200}
# What each stream has missed.
MISSED = 20
# Longer than keep-alives are apart.
IDLE_S = {"full": 9.0, "quick": 0.5}
STORM_S = 90.0
PUBLISHES = {"full": 50, "quick": 3}


def run(size: Size) -> Iterator[Point]:
    """All readers want the same."""
    with ExitStack() as stack:
        server = stack.enter_context(wirechamber(**SETTINGS))
        post = publish_request(server, "temperature")
        get = stream_request(server, "events/temp")
        # The first ones pay for what is made once.
        stack.enter_context(streams(server, [get] * 5, post))
        before = resident_kb(server.pid)
        loads: list[Load] = []
        for fewer, count in pairwise((0, *SIZES[size])):
            loads.append(stack.enter_context(streams(server, [get] * (count - fewer), post)))
            yield Point("streams_memory", count, (resident_kb(server.pid) - before) / count)
            yield Point("streams_idle", count, idle(server, IDLE_S[size]))
            # The newest load sees its own share of each message; all have it sent.
            newest = loads[-1]
            messages = max(4, 20_000 // count)

            def fan_out(newest: Load = newest, messages: int = messages, count: int = count) -> float:
                spent = server.spent()
                newest.ask(f"{messages} messages", messages=messages, window=4)
                return (server.spent() - spent) / messages / count * 1e6

            yield Point("streams_fanout", count, median(fan_out))


def prefixes(size: Size) -> Iterator[Point]:
    """Each stream wants something else of the same owner."""
    with ExitStack() as stack:
        server = stack.enter_context(wirechamber(**SETTINGS))
        client = Client(server)
        for fewer, count in pairwise((0, *SIZES[size])):
            gets = [stream_request(server, f"events/p{number:05}") for number in range(fewer, count)]
            stack.enter_context(streams(server, gets))
            spent = cost(server, lambda: client.publish("p00002/x"), PUBLISHES[size])
            yield Point("prefixes", count, spent * 1000)


def owners(size: Size) -> Iterator[Point]:
    """Each stream is another owner's, with a token of its own."""
    with ExitStack() as stack:
        server = stack.enter_context(wirechamber(**SETTINGS))
        tokens = ground.users(server.folder, max(OWNERS[size]))
        client = Client(server, tokens[0])
        for fewer, count in pairwise((0, *OWNERS[size])):
            gets = [stream_request(server, token=token) for token in tokens[fewer:count]]
            stack.enter_context(streams(server, gets))
            spent = cost(server, lambda: client.publish("temperature"), PUBLISHES[size])
            yield Point("owners", count, spent * 1000)
            yield Point("owners_saves", count, _with_saves(server, IDLE_S[size]))


def _with_saves(server: Wirechamber, seconds: float) -> float:
    """CPU in percent while somebody saves something every second, without what saving itself takes."""
    client = Client(server)
    hook = {"integration_type": "Webhook", "event": "never", "url": "http://127.0.0.1:9/in"}
    before, began, saving = server.spent(), time.monotonic(), 0.0
    while time.monotonic() - began < seconds:
        spent = server.spent()
        client.request("POST", "/v1/integrations", hook)
        saving += server.spent() - spent
        time.sleep(1.0)
    client.close()
    return 100 * (server.spent() - before - saving) / (time.monotonic() - began)


def quiet(size: Size) -> Iterator[Point]:
    """Owners to whom nothing happens come back after much has happened to others."""
    with ExitStack() as stack:
        server = stack.enter_context(wirechamber(**SETTINGS))
        tokens = ground.users(server.folder, max(QUIET[size]))
        at = _position(server)
        _others(server, server.token, BEHIND[size])
        for fewer, count in pairwise((0, *QUIET[size])):
            gets = [stream_request(server, token=token, after=at) for token in tokens[fewer:count]]
            stack.enter_context(resumed(server, gets, 1, 0.5))
            time.sleep(min(2.0, IDLE_S[size]))
            yield Point("quiet", count, idle(server, min(4.0, IDLE_S[size])))


def storm(size: Size) -> Iterator[Point]:
    """As after a restart, with clients that have all missed a little."""
    for count in STORM[size]:
        with wirechamber(**SETTINGS) as server:
            other = ground.users(server.folder, 1)[0]
            at = _position(server)
            client = Client(server)
            for _ in range(MISSED):
                client.publish("missed")
            client.close()
            _others(server, other, BEHIND[size])
            with probing(server, publish_request(server, "other", other), 0.005) as probe:
                with probe.watching() as before:
                    time.sleep(min(5.0, IDLE_S[size]))
                gets = [stream_request(server, after=at)] * count
                with probe.watching() as during, resumed(server, gets, MISSED, STORM_S) as went:
                    pass
            # What did not finish has no time: as if it had taken the share that is lacking, too.
            yield Point("storm", count, went["seconds"] * count / max(1, went["complete"]))
            yield Point("storm_publish", count, during["p99_ms"] / before["p99_ms"])


def _position(server: Wirechamber) -> str:
    """Where the log is now: what a client has seen last."""
    client = Client(server)
    client.publish("marker")
    client.close()
    with urllib.request.urlopen(
        urllib.request.Request(f"{server.url}/v1/devices/events", headers={"Authorization": f"Bearer {server.token}"}),
        timeout=ANSWER_TIMEOUT_S,
    ) as answer:
        return str(int(answer.headers["Wirechamber-Stream-Start"]) - 1)


def _others(server: Wirechamber, token: str, count: int) -> None:
    """So many events of somebody else, as fast as they can be published."""
    with load("webhooks") as loaded:
        loaded.said("its port")
        ready(loaded, server, token)
        loaded.ask(f"{count} events of others", events=count, delivered=False)
