"""What the programs share: cost per operation, what another client feels meanwhile, streams that are held open."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.harness import ANSWER_TIMEOUT_S, Load, Wirechamber, load

# Limits that belong to a stranger's address or an owner would stop a load that comes from one.
SETTINGS = {
    "provisioning": "true",
    "publish_rate": "1000000",
    "publish_burst": "1000000",
    "owner_quota_mb": "0",
    "streams_per_address": "100000",
    "streams_per_owner": "100000",
    "connections_per_address": "100000",
    "integrations_per_owner": "100000",
}
ROUNDS = 3
# One that takes longer is not measured three times.
LONG_S = 20.0


def cost(server: Wirechamber, work: Callable[[], Any], times: int) -> float:
    """CPU seconds of the server for one of these, in the median of rounds of so many."""
    work()

    def round() -> float:
        before = server.spent()
        for _ in range(times):
            work()
        return (server.spent() - before) / times

    return median(round)


def median(measure: Callable[[], float]) -> float:
    """In the median of three; of one that takes long, the first."""
    started = time.monotonic()
    values = [measure()]
    while len(values) < ROUNDS and time.monotonic() - started < LONG_S * len(values):
        values.append(measure())
    return statistics.median(values)


def idle(server: Wirechamber, seconds: float) -> float:
    """CPU of the server while nothing is asked of it, in percent of a core."""
    before, began = server.spent(), time.monotonic()
    time.sleep(seconds)
    return 100 * (server.spent() - before) / (time.monotonic() - began)


class Probe:
    """Another client, which asks the same again and again."""

    def __init__(self, load: Load) -> None:
        self._load = load

    @contextmanager
    def watching(self) -> Iterator[dict[str, float]]:
        """What it felt meanwhile, filled in at the end: `held_ms`, `longest_ms`, `p50_ms`, `p99_ms`."""
        felt: dict[str, float] = {}
        self._load.ask("the probe's begin", begin=True)
        yield felt
        felt |= self._load.ask("the probe's end", end=True)


@contextmanager
def probing(server: Wirechamber, request: str | None = None, pause_s: float = 0.001) -> Iterator[Probe]:
    """A probe that asks `GET /healthz`, or something else."""
    asked = request or f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
    with load("probe") as started:
        started.ask("the probe", port=server.port, pid=server.pid, request=asked, pause_s=pause_s)
        yield Probe(started)


def publish_request(server: Wirechamber, name: str, token: str | None = None) -> str:
    """A publish, as bytes on the wire."""
    return write_request(
        server, "POST", "/v1/devices/events", f'{{"name":"{name}","data":"x","private":true}}', token or server.token
    )


def write_request(server: Wirechamber, method: str, path: str, body: str, token: str) -> str:
    """A request with a body, as bytes on the wire."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def stream_request(server: Wirechamber, path: str = "", token: str | None = None, after: str | None = None) -> str:
    """What opens a stream of `/v1/devices/…`, as bytes on the wire."""
    resume = "" if after is None else f"Last-Event-ID: {after}\r\n"
    return (
        f"GET /v1/devices/{path or 'events'} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Authorization: Bearer {token or server.token}\r\nAccept: text/event-stream\r\n{resume}\r\n"
    )


@contextmanager
def streams(server: Wirechamber, gets: Sequence[str], post: str = "") -> Iterator[Load]:
    """Streams that are held open."""
    with load("streams") as started:
        started.ask(f"{len(gets)} streams", port=server.port, gets=gets, post=post)
        yield started


@contextmanager
def resumed(server: Wirechamber, gets: Sequence[str], wanted: int, deadline_s: float) -> Iterator[dict[str, float]]:
    """Streams that come at once; how it went when each has its events, or the deadline passed. They stay open."""
    with load("resumes") as started:
        # Opening them takes its time, too.
        yield started.ask(
            f"{len(gets)} streams that resume", deadline_s + ANSWER_TIMEOUT_S, port=server.port, gets=gets,
            wanted=wanted, deadline_s=deadline_s,
        )  # fmt: skip


def peak_mb(pid: int) -> float:
    """The most memory that a process had."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 1024
