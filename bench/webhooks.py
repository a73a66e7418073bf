"""Events to webhooks, everything on: CPU per event, latency at 60 % of the peak, and the price of many integrations.

An event is published over REST, stored, matched, rendered, sent, answered 204, and its hook-sent event, attempt and
cursor are stored. Counterparts: a bare pycurl loop, which only sends, and Node-RED, which stores nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import nodered
from bench.harness import ANSWER_TIMEOUT_S, Load, Result, Size, Wirechamber, cpu_seconds, load, wirechamber

CONNECTIONS = 64
ROUNDS = 3


@dataclass(frozen=True)
class Counts:
    """How many events in a round, how many integrations at most, and for how long latency is measured."""

    events: int
    few: int
    many: int
    seconds: float


COUNTS: dict[Size, Counts] = {"full": Counts(6_000, 10, 10_000, 4.0), "quick": Counts(100, 2, 20, 0.5)}
BODY = '{"reading":"{{reading}}","device":"{{PARTICLE_DEVICE_ID}}"}'
DATA = json.dumps({"reading": "STAMP", "padding": "x" * 100})


def run(size: Size) -> Iterator[Result]:
    counts = COUNTS[size]
    bare = bare_pycurl(counts.events * 3)
    red = nodered.cpu_per_event(counts.events // 2, size)
    for durability in ("full", "normal"):
        with hooked(counts, durability=durability) as (server, loaded):
            cost, rate = median_cost(server.pid, loaded, counts.events)
            name = f"REST event -> webhook, everything stored, durability {durability}"
            yield Result(name, cost * 1e6, "µs CPU per event", f"bare pycurl loop {bare * 1e6:.0f}", cost / bare,
                         "<= 90" if durability == "full" else "", judged="figure")  # fmt: skip
            if durability == "full":
                yield Result("the same, cheaper than Node-RED", cost * 1e6, "µs CPU per event", red.text,
                             None if red.seconds is None else red.seconds / cost, ">= 8")  # fmt: skip
                yield from _latency(loaded, rate, counts.seconds)
    yield _many_integrations(counts)


@contextmanager
def hooked(counts: Counts, others: int = 0, **settings: str) -> Iterator[tuple[Wirechamber, Load]]:
    """A server with a webhook, and so many others that want nothing; the load program is its target."""
    with wirechamber(**settings) as server, load("webhooks") as loaded:
        sink = int(loaded.said("its port"))
        hook(server, sink)
        for number in range(others):
            hook(server, sink, event=f"other-{number}")
        ready(loaded, server)
        loaded.ask("the first events", events=counts.events // 6)
        yield server, loaded


def _latency(loaded: Load, peak: float, seconds: float) -> list[Result]:
    said = loaded.ask("events at 60 % of the peak", events=int(peak * 0.6 * seconds), rate=peak * 0.6)
    fsync = _fsync_ms()
    beside = f"fsync of this disk {fsync:.2f} ms; {peak * 0.6:,.0f} events/s"
    return [
        Result("publish -> webhook at 60 % of peak, p50", said["p50_ms"], "ms", beside, None, "<= 3", "figure"),
        Result("publish -> webhook at 60 % of peak, p99", said["p99_ms"], "ms", beside, None, "<= 15", "figure"),
    ]


def _many_integrations(counts: Counts) -> Result:
    costs = []
    for others in (counts.few, counts.many):
        with hooked(counts, others) as (server, loaded):
            costs.append(median_cost(server.pid, loaded, counts.events)[0] * 1e6)
    few, many = costs
    return Result(
        f"cost per event with {counts.many:,} integrations that do not match", many, "µs CPU per event",
        f"with {counts.few}: {few:.0f}", many / few, "<= 1.2",
    )  # fmt: skip


def hook(server: Wirechamber, sink: int, event: str = "temperature") -> str:
    """Makes a webhook; returns its id."""
    settings = {
        "integration_type": "Webhook", "event": event, "url": f"http://127.0.0.1:{sink}/in", "body": BODY,
        "headers": {"Content-Type": "application/json"},
    }  # fmt: skip
    return str(json.loads(server.request("POST", "/v1/integrations", json.dumps(settings).encode()))["id"])


def ready(loaded: Load, server: Wirechamber, token: str | None = None) -> None:
    """Has the load program connect, to publish with a token."""
    head = (
        f"POST /v1/devices/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Authorization: Bearer {token or server.token}\r\nContent-Type: application/json\r\n"
    )
    body = json.dumps({"name": "temperature", "data": DATA, "private": True})
    start(loaded, server.port, head, body)


def start(loaded: Load, port: int, head: str, body: str) -> None:
    loaded.ask("its connections", port=port, head=head, body=body, connections=CONNECTIONS)


def median_cost(pid: int, loaded: Load, events: int, *, delivered: bool = True) -> tuple[float, float]:
    """CPU seconds of the server per event, and events per second."""
    costs, rates = [], []
    for _ in range(ROUNDS):
        before = cpu_seconds(pid)
        said = loaded.ask(f"{events} events", events=events, delivered=delivered)
        # What is settled after the last answer belongs to it.
        time.sleep(0.3)
        costs.append((cpu_seconds(pid) - before) / events)
        rates.append(events / said["seconds"])
    return statistics.median(costs), statistics.median(rates)


def bare_pycurl(count: int) -> float:
    """CPU seconds of a POST by a bare pycurl multi loop that sends the same body so many times."""
    with load("webhooks") as loaded:
        sink = int(loaded.said("its port"))
        done = subprocess.run(
            [sys.executable, str(Path(__file__).parent / "load" / "pycurl_loop.py"), str(sink), str(count), "32"],
            capture_output=True, text=True, check=True, timeout=ANSWER_TIMEOUT_S,
        )  # fmt: skip
    return float(done.stdout)


def _fsync_ms() -> float:
    times = []
    with tempfile.NamedTemporaryFile(dir=".") as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000
