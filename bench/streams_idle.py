"""Memory that an idle event stream takes: growth for 1,000 of them."""

from __future__ import annotations

from collections.abc import Iterator

from bench import nchan
from bench.fanout import nchan_requests, requests, subscribed
from bench.harness import Result, Size, resident_kb, wirechamber

STREAMS: dict[Size, int] = {"full": 1_000, "quick": 50}


def run(size: Size) -> Iterator[Result]:
    streams = STREAMS[size]
    with wirechamber() as ours:
        get, post = requests(ours.port, ours.token)
        # The first ones pay for what is made once.
        with subscribed(ours.port, get, post, streams // 10):
            before = resident_kb(ours.pid)
            with subscribed(ours.port, get, post, streams):
                each = (resident_kb(ours.pid) - before) / streams
    theirs: float | None = None
    if nchan.available(size):
        with nchan.nchan() as other:
            get, post = nchan_requests(other.port)
            with subscribed(other.port, get, post, streams // 10):
                before = resident_kb(other.pid)
                with subscribed(other.port, get, post, streams):
                    theirs = (resident_kb(other.pid) - before) / streams
    counterpart = "nchan is not installed" if theirs is None else f"nchan {theirs:.1f}"
    ratio = None if theirs is None else each / theirs
    yield Result("memory per idle SSE stream", each, "KB", counterpart, ratio, "<= 14", judged="figure")
