"""Fan-out of events to 1,000 subscribers: messages per second of the server's CPU time, against nchan in the same run.

Wirechamber has everything on: durable log (an fsync per batch), ids, history, filters, token check of each publish.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import nchan
from bench.harness import LOAD_CORE, Result, cpu_seconds, process, wirechamber

SUBSCRIBERS = 1_000
# Outstanding events, and how many are sent in a measurement.
CASES = {"plain (4 outstanding)": (4, 400), "16 outstanding": (16, 1_200)}
GOALS = {"plain (4 outstanding)": ">= 1.2", "16 outstanding": ">= 4"}
ROUNDS = 3
DATA = json.dumps({"reading": "x" * 100})


def run() -> list[Result]:
    with wirechamber() as ours, load(ours.port, *requests(ours.port, ours.token)) as our_load:
        if not nchan.available():
            figures: dict[str, tuple[float, float | None]] = {
                case: (rates(ours.pid, our_load, case), None) for case in CASES
            }
        else:
            with nchan.nchan() as theirs, load(theirs.port, *nchan_requests(theirs.port)) as their_load:
                figures = {case: compared(ours.pid, our_load, theirs.pid, their_load, case) for case in CASES}
    return [
        Result(
            f"SSE fan-out to {SUBSCRIBERS}, {case}",
            ours_rate,
            "messages per CPU second",
            "nchan is not installed" if theirs_rate is None else f"nchan {theirs_rate:,.0f}",
            None if theirs_rate is None else ours_rate / theirs_rate,
            GOALS[case],
        )
        for case, (ours_rate, theirs_rate) in figures.items()
    ]


def compared(pid: int, our_load: Any, their_pid: int, their_load: Any, case: str) -> tuple[float, float | None]:
    """Medians of interleaved rounds."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(rate(pid, our_load, case))
        theirs.append(rate(their_pid, their_load, case))
    return statistics.median(ours), statistics.median(theirs)


def rates(pid: int, loaded: Any, case: str) -> float:
    return statistics.median(rate(pid, loaded, case) for _ in range(ROUNDS))


def rate(pid: int, loaded: subprocess.Popen[str], case: str) -> float:
    window, messages = CASES[case]
    assert loaded.stdin is not None
    assert loaded.stdout is not None
    before = cpu_seconds(pid)
    loaded.stdin.write(json.dumps({"messages": messages, "window": window}) + "\n")
    loaded.stdin.flush()
    assert loaded.stdout.readline(), "the load program ended"
    return messages * SUBSCRIBERS / (cpu_seconds(pid) - before)


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
def load(port: int, get: str, post: str, subscribers: int = SUBSCRIBERS) -> Iterator[subprocess.Popen[Any]]:
    command = [sys.executable, str(Path(__file__).parent / "load" / "streams.py")]
    with process(command, LOAD_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        setup = {"port": port, "get": get, "post": post, "subscribers": subscribers}
        print(json.dumps(setup), file=started.stdin)
        started.stdin.flush()
        assert started.stdout.readline(), "the load program did not start"
        yield started
