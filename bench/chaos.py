"""`python -m bench chaos`: kill -9 at random moments while everybody uses the cloud. What was acknowledged comes.

python -m bench chaos --kills 100
python -m bench chaos --kills 5 --readers 10     a small one

Publishers over REST and over the device link, a webhook, subscribed devices, and readers of streams that come and go by
FIN and by RST and resume with Last-Event-ID. At the end nothing that was acknowledged is missing at the webhook, at a
device or in a resumed stream, and no stream has given an id that was not greater than the one before. Status 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.table import Table

from bench.crowd import PREFIX, SETTINGS, Reader, Target, Things, Told, publisher
from bench.harness import LOAD_CORE, Wirechamber, use_core, wirechamber

PUBLISHERS = 3
# What waits for its retry after the last kill has come by then.
SETTLE_S = 120.0
POLL_S = 0.1


@dataclass
class Outcome:
    """What is left to be explained; all of it 0 when the promises hold.

    Attributes:
        missing: Acknowledged events that did not come, by who lacks them.
        back: Ids of streams that were not greater than the one before.
        gaps: What streams said is gone, though nothing was removed.
        refused: Answers of the publishing that were neither good nor "try again".
    """

    acknowledged: int
    missing: dict[str, int]
    back: int
    gaps: int
    refused: dict[int, int]
    repeated: dict[str, int]
    resumes: int
    ready_s: list[float]

    @property
    def good(self) -> bool:
        """Whether everything that was promised was kept."""
        return not any((*self.missing.values(), self.back, self.gaps, *self.refused.values()))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--readers", type=int, default=40, help="streams that come and go")
    parser.add_argument("--devices", type=int, default=5, help="devices that publish and subscribe")
    parser.add_argument("--between", type=float, default=2.0, help="most seconds between a start and the next kill")
    parser.add_argument("--seed", type=int, help="of the moments [default: another each time]")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    use_core(LOAD_CORE)()
    with wirechamber(**SETTINGS) as server:
        outcome = asyncio.run(
            chaos(server, random.Random(seed), given.kills, given.readers, given.devices, given.between)
        )
        if not outcome.good:
            print((server.folder / "server.log").read_text()[-3000:], file=sys.stderr)
    _show(outcome)
    return 0 if outcome.good else 1


async def chaos(
    server: Wirechamber, dice: random.Random, kills: int, readers: int, devices: int, between_s: float
) -> Outcome:
    """Kills a server so many times, and waits until everything has come or does not."""
    rest, things_told = Told(), Told()
    # Numbers of devices and of REST must differ: readers and the webhook see both.
    things_told.published = 1_000_000_000
    things = Things(server, devices)
    streams = [Reader(server, random.Random(dice.random())) for _ in range(readers)]
    ready_s: list[float] = []
    async with Target().open() as target:
        hook = {"integration_type": "Webhook", "event": PREFIX, "url": target.url, "body": "{{PARTICLE_EVENT_VALUE}}"}
        await asyncio.to_thread(server.request, "POST", "/v1/integrations", json.dumps(hook).encode())
        await things.open()
        reading = [asyncio.create_task(stream.run(between_s / 2)) for stream in streams]
        for stream in streams:
            await asyncio.wait_for(stream.opened.wait(), SETTLE_S)
        publishing = [asyncio.create_task(publisher(server, rest, 0.01)) for _ in range(PUBLISHERS)]
        publishing += [asyncio.create_task(things.publish(number, things_told, 0.05)) for number in range(devices)]
        for number in range(kills):
            await asyncio.sleep(dice.random() * between_s)
            await asyncio.to_thread(server.kill)
            ready_s.append(await asyncio.to_thread(server.restart))
            _look(publishing + reading)
            count = len(rest.acknowledged) + len(things_told.acknowledged)
            print(f"kill {number + 1}: ready after {ready_s[-1]:.2f} s, {count:,} acknowledged so far", flush=True)
        await asyncio.sleep(between_s)
        for task in publishing:
            task.cancel()
        await asyncio.gather(*publishing, return_exceptions=True)
        acknowledged = rest.acknowledged | things_told.acknowledged
        missing = partial(_missing, acknowledged, rest.acknowledged, target, things, streams)
        deadline = time.monotonic() + SETTLE_S
        while any(missing().values()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        _look(reading)
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        await things.close()
    return Outcome(
        acknowledged=len(acknowledged),
        missing=missing(),
        back=sum(stream.back for stream in streams),
        gaps=sum(stream.gaps for stream in streams),
        refused=dict(rest.refused),
        repeated={
            "webhook": sum(times - 1 for times in target.came.values()),
            "devices": sum(times - 1 for came in things.came for times in came.values()),
        },
        resumes=sum(stream.resumes for stream in streams),
        ready_s=sorted(ready_s),
    )


def _missing(
    acknowledged: set[int], rest: set[int], target: Target, things: Things, streams: list[Reader]
) -> dict[str, int]:
    return {
        "webhook": len(acknowledged - set(target.came)),
        "devices": sum(len(rest - set(came)) for came in things.came),
        "streams": sum(len(acknowledged - stream.seen) for stream in streams),
    }


def _look(tasks: list[asyncio.Task[None]]) -> None:
    """Raises what one of them ended by: they go on for ever."""
    for task in tasks:
        if task.done():
            task.result()


def _show(outcome: Outcome) -> None:
    table = Table(
        title=f"{len(outcome.ready_s)} kills, {outcome.acknowledged:,} events acknowledged", show_header=False
    )
    times = outcome.ready_s
    rows = {
        **{f"missing at {who}": f"{count:,}" for who, count in outcome.missing.items()},
        **{f"repeated at {who}": f"{count:,}" for who, count in outcome.repeated.items()},
        "ids of streams that went back": f"{outcome.back:,}",
        "gaps told": f"{outcome.gaps:,}",
        "resumes": f"{outcome.resumes:,}",
        "answers other than 200 and 503": ", ".join(f"{s}: {n}" for s, n in outcome.refused.items()) or "0",
    }
    if times:
        rows["ready after a kill"] = f"{times[len(times) // 2]:.2f} s (p50), {times[-1]:.2f} s (longest)"
    for name, value in rows.items():
        table.add_row(name, value)
    Console(width=None if os.isatty(1) else 100).print(table)
