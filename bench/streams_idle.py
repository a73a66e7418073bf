"""Memory that an idle event stream takes: growth for 1,000 of them."""

from __future__ import annotations

from bench import nchan
from bench.fanout import load, nchan_requests, requests
from bench.harness import Result, resident_kb, wirechamber

STREAMS = 1_000


def run() -> list[Result]:
    with wirechamber() as ours:
        get, post = requests(ours.port, ours.token)
        # The first ones pay for what is made once.
        with load(ours.port, get, post, 100):
            before = resident_kb(ours.pid)
            with load(ours.port, get, post, STREAMS):
                each = (resident_kb(ours.pid) - before) / STREAMS
    theirs: float | None = None
    if nchan.available():
        with nchan.nchan() as other:
            get, post = nchan_requests(other.port)
            with load(other.port, get, post, 100):
                before = resident_kb(other.pid)
                with load(other.port, get, post, STREAMS):
                    theirs = (resident_kb(other.pid) - before) / STREAMS
    counterpart = "nchan is not installed" if theirs is None else f"nchan {theirs:.1f}"
    ratio = None if theirs is None else each / theirs
    return [Result("memory per idle SSE stream", each, "KB", counterpart, ratio, "<= 14", judged="figure")]
