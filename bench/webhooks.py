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
from pathlib import Path
from typing import Any

from bench import nodered
from bench.harness import LOAD_CORE, Result, Wirechamber, cpu_seconds, process, wirechamber

CONNECTIONS = 64
EVENTS = 6_000
ROUNDS = 3
MANY = 10_000
BODY = '{"reading":"{{reading}}","device":"{{PARTICLE_DEVICE_ID}}"}'
DATA = json.dumps({"reading": "STAMP", "padding": "x" * 100})


def run() -> list[Result]:
    results: list[Result] = []
    bare = _bare_pycurl()
    red = nodered.cpu_per_event(EVENTS // 2)
    for durability in ("full", "normal"):
        with wirechamber(durability=durability) as server, load() as (loaded, sink):
            hook(server, sink)
            ready(loaded, server)
            ask(loaded, events=1_000)
            cost, rate = median_cost(server.pid, loaded)
            name = f"REST event -> webhook, everything stored, durability {durability}"
            results.append(
                Result(name, cost * 1e6, "µs CPU per event", f"bare pycurl loop {bare * 1e6:.0f}", cost / bare,
                       "<= 90" if durability == "full" else "", judged="figure")
            )  # fmt: skip
            if durability == "full":
                results.append(
                    Result("the same, cheaper than Node-RED", cost * 1e6, "µs CPU per event", red.text,
                           None if red.seconds is None else red.seconds / cost, ">= 8")
                )  # fmt: skip
                results += _latency(loaded, rate)
    results.append(_many_integrations())
    return results


def _latency(loaded: Any, peak: float) -> list[Result]:
    said = ask(loaded, events=int(peak * 0.6 * 4), rate=peak * 0.6)
    fsync = _fsync_ms()
    beside = f"fsync of this disk {fsync:.2f} ms; {peak * 0.6:,.0f} events/s"
    return [
        Result("publish -> webhook at 60 % of peak, p50", said["p50_ms"], "ms", beside, None, "<= 3", "figure"),
        Result("publish -> webhook at 60 % of peak, p99", said["p99_ms"], "ms", beside, None, "<= 15", "figure"),
    ]


def _many_integrations() -> Result:
    costs = {}
    for count in (10, MANY):
        with wirechamber() as server, load() as (loaded, sink):
            hook(server, sink)
            for number in range(count):
                hook(server, sink, event=f"other-{number}")
            ready(loaded, server)
            ask(loaded, events=1_000)
            costs[count], _ = median_cost(server.pid, loaded)
    few, many = costs[10] * 1e6, costs[MANY] * 1e6
    return Result(
        f"cost per event with {MANY:,} integrations that do not match", many, "µs CPU per event",
        f"with 10: {few:.0f}", many / few, "<= 1.2",
    )  # fmt: skip


def hook(server: Wirechamber, sink: int, event: str = "temperature") -> None:
    settings = {
        "integration_type": "Webhook", "event": event, "url": f"http://127.0.0.1:{sink}/in", "body": BODY,
        "headers": {"Content-Type": "application/json"},
    }  # fmt: skip
    server.request("POST", "/v1/integrations", json.dumps(settings).encode())


@contextmanager
def load() -> Iterator[tuple[Any, int]]:
    command = [sys.executable, str(Path(__file__).parent / "load" / "webhooks.py")]
    with process(command, LOAD_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        yield started, int(started.stdout.readline())  # type: ignore[union-attr]


def ready(loaded: Any, server: Wirechamber) -> None:
    head = (
        f"POST /v1/devices/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Authorization: Bearer {server.token}\r\nContent-Type: application/json\r\n"
    )
    body = json.dumps({"name": "temperature", "data": DATA, "private": True})
    start(loaded, server.port, head, body)


def start(loaded: Any, port: int, head: str, body: str) -> None:
    loaded.stdin.write(json.dumps({"port": port, "head": head, "body": body, "connections": CONNECTIONS}) + "\n")
    loaded.stdin.flush()
    assert loaded.stdout.readline(), "the load program did not start"


def ask(loaded: Any, **wanted: Any) -> dict[str, float]:
    loaded.stdin.write(json.dumps(wanted) + "\n")
    loaded.stdin.flush()
    line = loaded.stdout.readline()
    assert line, "the load program ended"
    return dict(json.loads(line))


def median_cost(pid: int, loaded: Any, events: int = EVENTS, *, delivered: bool = True) -> tuple[float, float]:
    """CPU seconds of the server per event, and events per second."""
    costs, rates = [], []
    for _ in range(ROUNDS):
        before = cpu_seconds(pid)
        said = ask(loaded, events=events, delivered=delivered)
        # What is settled after the last answer belongs to it.
        time.sleep(0.3)
        costs.append((cpu_seconds(pid) - before) / events)
        rates.append(events / said["seconds"])
    return statistics.median(costs), statistics.median(rates)


def _bare_pycurl() -> float:
    """CPU seconds of a POST by a bare pycurl multi loop that sends the same body."""
    with load() as (loaded, sink):
        assert loaded.poll() is None
        done = subprocess.run(
            [sys.executable, str(Path(__file__).parent / "load" / "pycurl_loop.py"), str(sink), "20000", "32"],
            capture_output=True, text=True, check=True,
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
