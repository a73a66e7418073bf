"""Fan-out of events to many subscribers: messages per second of the server's CPU time, against nchan in the same run.

Wirechamber has everything on: durable log (an fsync per batch), ids, history, filters, token check of each publish.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import nchan
from bench.harness import Load, Result, Size, cpu_seconds, load, wirechamber

SUBSCRIBERS: dict[Size, int] = {"full": 1_000, "quick": 20}
# Outstanding events, and how many are sent in a measurement.
CASES: dict[Size, dict[str, tuple[int, int]]] = {
    "full": {"plain (4 outstanding)": (4, 400), "16 outstanding": (16, 1_200)},
    "quick": {"plain (4 outstanding)": (4, 40), "16 outstanding": (16, 120)},
}
GOALS = {"plain (4 outstanding)": ">= 1.2", "16 outstanding": ">= 4"}
ROUNDS = 3
DATA = json.dumps({"reading": "x" * 100})


def run(size: Size) -> Iterator[Result]:
    count = SUBSCRIBERS[size]
    with ExitStack() as stack:
        ours = stack.enter_context(wirechamber())
        sides = [(ours.pid, stack.enter_context(subscribed(ours.port, *requests(ours.port, ours.token), count)))]
        if nchan.available(size):
            theirs = stack.enter_context(nchan.nchan())
            sides.append(
                (theirs.pid, stack.enter_context(subscribed(theirs.port, *nchan_requests(theirs.port), count)))
            )
        for case, (window, messages) in CASES[size].items():
            # Medians of interleaved rounds.
            rounds = [[_rate(pid, loaded, count, window, messages) for pid, loaded in sides] for _ in range(ROUNDS)]
            rate, *other = (statistics.median(side) for side in zip(*rounds, strict=True))
            yield Result(
                f"SSE fan-out to {count}, {case}",
                rate,
                "messages per CPU second",
                f"nchan {other[0]:,.0f}" if other else "nchan is not installed",
                rate / other[0] if other else None,
                GOALS[case],
            )


def _rate(pid: int, loaded: Load, count: int, window: int, messages: int) -> float:
    before = cpu_seconds(pid)
    loaded.ask(f"{messages} messages to {count} readers", messages=messages, window=window)
    return messages * count / (cpu_seconds(pid) - before)


def requests(port: int, token: str) -> tuple[str, str]:
    body = json.dumps({"name": "temperature", "data": DATA, "private": True, "ttl": 60})
    common = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
    get = f"GET /v1/devices/events/temp HTTP/1.1\r\n{common}Accept: text/event-stream\r\n\r\n"
    post = (
        f"POST /v1/devices/events HTTP/1.1\r\n{common}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )
    return get, post


def nchan_requests(port: int) -> tuple[str, str]:
    # The very JSON that our stream carries.
    body = json.dumps(
        {"data": DATA, "ttl": 60, "published_at": "2026-01-02T03:04:05.678Z", "coreid": "api"}, separators=(",", ":")
    )
    get = f"GET /sub HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n"
    post = f"POST /pub HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    return get, post


@contextmanager
def subscribed(port: int, get: str, post: str, count: int) -> Iterator[Load]:
    """So many open streams."""
    with load("streams") as started:
        started.ask(f"{count} streams", port=port, gets=[get] * count, post=post)
        yield started
