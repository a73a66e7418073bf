"""Sending: CPU per POST of the outbound client, hand-over to the event loop included, against a bare pycurl loop."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvloop

from bench.harness import ANSWER_TIMEOUT_S, Result, Size, load
from bench.webhooks import bare_pycurl
from wirechamber.clock import SystemClock
from wirechamber.delivery.guard import Guard
from wirechamber.delivery.outbound import Outbound
from wirechamber.integrations.base import Request

if TYPE_CHECKING:
    # Where an earlier version, which is compared with this one, has it elsewhere.
    from wirechamber.delivery.flight import Exchange

COUNT: dict[Size, int] = {"full": 20_000, "quick": 500}
AT_A_TIME = 50


def run(size: Size) -> Iterator[Result]:
    sys.setswitchinterval(0.0005)
    with load("webhooks") as loaded:
        ours = uvloop.run(_seconds(int(loaded.said("its port")), COUNT[size]))
    bare = bare_pycurl(COUNT[size])
    yield Result("outbound POST", ours * 1e6, "µs CPU", f"bare pycurl loop {bare * 1e6:.0f}", ours / bare)


async def _seconds(sink: int, count: int) -> float:
    outbound = Outbound(Guard(["127.0.0.0/8"]), clock=SystemClock(), timeout_s=20)
    headers = (("Content-Type", "application/json"), ("User-Agent", "bench"))
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sent = done = 0

    def again(exchange: Exchange | None) -> None:
        nonlocal sent, done
        done += exchange is not None
        if sent < count:
            sent += 1
            body = b'{"reading":"t=%d"}' % time.perf_counter_ns()
            outbound.send(Request("POST", f"http://127.0.0.1:{sink}/in", headers, body), again)
        elif done == count:
            finished.set_result(None)

    started = time.process_time()
    for _ in range(AT_A_TIME):
        again(None)
    await asyncio.wait_for(finished, ANSWER_TIMEOUT_S)
    taken = time.process_time() - started
    await outbound.close(1)
    return taken / count
