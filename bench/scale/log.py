"""A long log: start, publishing, trimming, and reading what is rare in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench import ground
from bench.harness import Client, NoAnswer, Size, Wirechamber, wirechamber
from bench.load.devices import device_id
from bench.scale.curves import Point, Sizes
from bench.scale.measuring import SETTINGS, cost, median, probing, publish_request, resumed, stream_request
from wirechamber.eventlog.base import EventLog, Trimmable
from wirechamber.model.events import Event

SIZES: Sizes = {"full": (100_000, 500_000, 2_000_000), "quick": (500, 1_000, 2_000)}
RARE = 50
TIMEOUT_S = 60.0
PUBLISHES = {"full": 50, "quick": 3}
# How many replays go on at the same time: as many as the log has readers.
AT_ONCE = 4


def run(size: Size) -> Iterator[Point]:
    there = 0
    with wirechamber(**SETTINGS) as server:
        ground.devices(server.folder, server.owner, range(len(SIZES[size])))
        for rare, count in enumerate(SIZES[size]):
            with server.stopped() as folder:
                ground.events(folder, _events(server.owner, there, count, rare))
                there = count
            with server.stopped() as folder:
                trim = ground.in_log(folder, _trim)
                taken = (folder / "events.db").stat().st_size
            yield Point("log_bytes", count, taken / count)
            yield Point("log_trim", count, trim * 1000)
            yield Point("log_start", count, median(lambda: _start(server)))
            client = Client(server)
            yield Point("log_publish", count, cost(server, lambda: client.publish("n"), PUBLISHES[size]) * 1000)  # noqa: B023
            client.close()
            for curve, path in (("log_device", f"{device_id(rare)}/events"), ("log_prefix", f"events/rare-{rare}")):
                get = stream_request(server, path, after="0")
                yield Point(curve, count, median(lambda get=get: _replay(server, get)) * 1000)  # type: ignore[misc]
            yield Point("log_readers", count, _disturbed(server))


def _events(owner: str, first: int, last: int, rare: int) -> Iterator[Event]:
    """As many as lie between; those of a device that are looked for are spread evenly over them, to the end."""
    every = (last - first) // RARE
    for number in range(last - first):
        if number % every == every - 1 and number < every * RARE:
            yield ground.an_event(owner, f"rare-{rare}/one", device_id(rare))
        else:
            yield ground.an_event(owner, "n")


async def _trim(log: EventLog) -> float:
    """CPU seconds of trimming when nothing is to go."""
    assert isinstance(log, Trimmable)
    spent = time.process_time()
    await log.trim(before_time=0, not_after=await log.newest(), owner_bytes=None)
    return time.process_time() - spent


def _start(server: Wirechamber) -> float:
    server.stop()
    server.restart()
    return server.spent()


def _replay(server: Wirechamber, get: str) -> float:
    """CPU seconds of the server until a stream has got them all."""
    before = server.spent()
    with resumed(server, [get], RARE, TIMEOUT_S) as went:
        if not went["complete"]:
            raise NoAnswer(f"the {RARE} events did not come within {TIMEOUT_S:.0f} s")
        return server.spent() - before


def _disturbed(server: Wirechamber) -> float:
    """How much longer a publish takes while others replay."""
    # A prefix that nothing has: each of them reads all there is.
    get = stream_request(server, "events/nothing", after="0")
    with ExitStack() as stack:
        probe = stack.enter_context(probing(server, publish_request(server, "n"), 0.005))
        with probe.watching() as before:
            time.sleep(1.0)
        with probe.watching() as during:
            stack.enter_context(resumed(server, [get] * AT_ONCE, 1, 1.0))
    return during["p50_ms"] / before["p50_ms"]
