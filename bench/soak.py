"""`python -m bench soak`: some minutes of what a cloud does all day, and what grows meanwhile.

python -m bench soak --minutes 10

Ten devices over DTLS and REST publish 100 events a second; two webhooks take them, another target fails and another
hangs; readers of streams come and go. Sizes of the databases and their WALs, memory, descriptors and CPU are sampled;
after the first third each must be flat: it has not grown by more than a tenth since. At the end the server is killed
with -9, and its CPU while nothing happens after the start is measured. Status 1 if something was not as it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.crowd import PREFIX, SETTINGS, Reader, Target, Things, Told, publisher
from bench.harness import LOAD_CORE, Wirechamber, resident_kb, use_core, wirechamber
from bench.scale.measuring import idle

DEVICES, READERS = 10, 20
# 100 events a second: half of them from devices.
DEVICE_PAUSE_S, PUBLISHERS, PUBLISHER_PAUSE_S = 0.2, 10, 0.2
SAMPLES = 30
# From here on nothing may grow, and by how much it may differ: the databases reuse their room in steps.
FLAT_FROM, FLAT = 1 / 3, 0.10
IDLE_S, IDLE_PERCENT = 20.0, 1.0
# The quotas of the owner: log and attempts reach them soon, so that trimming belongs to what is seen.
QUOTA_MB, ATTEMPTS_MB = 16, 4

Sample = Mapping[str, float]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="of the server")
    given = parser.parse_args(arguments)
    settings = {
        "owner_quota_mb": str(QUOTA_MB), "owner_attempts_mb": str(ATTEMPTS_MB), "attempt_body_hours": "0",
    }  # fmt: skip
    settings |= dict(each.split("=", 1) for each in given.setting)
    use_core(LOAD_CORE)()
    with wirechamber(**SETTINGS | settings) as server:
        samples, delivered = asyncio.run(soak(server, given.minutes * 60))
        server.kill()
        server.restart()
        # What the start itself has to do is over by then.
        time.sleep(2.0)
        after = idle(server, IDLE_S)
    return _report(samples, delivered, after)


async def soak(server: Wirechamber, seconds: float) -> tuple[list[Sample], int]:
    """Uses a server for so long; what was sampled, and how many webhooks came."""
    told = Told()
    things = Things(server, DEVICES)
    samples: list[Sample] = []
    hooks: list[str] = []
    async with (
        Target().open() as first,
        Target().open() as second,
        Target(500).open() as failing,
        Target(None).open() as hanging,
    ):
        for target in (first, second, failing, hanging):
            # The bad ones get a part of it: what waits for them is kept for hours, and grows for as long.
            event = PREFIX if target in (first, second) else f"{PREFIX}device/rare"
            wanted = {
                "integration_type": "Webhook",
                "event": event,
                "url": target.url,
                "body": "{{PARTICLE_EVENT_VALUE}}",
            }
            made = await asyncio.to_thread(server.request, "POST", "/v1/integrations", json.dumps(wanted).encode())
            hooks.append(json.loads(made)["id"])
        await things.open()
        work = [asyncio.create_task(Reader(server, random.Random(n)).run(5.0)) for n in range(READERS)]
        work += [asyncio.create_task(publisher(server, told, PUBLISHER_PAUSE_S)) for _ in range(PUBLISHERS)]
        work += [asyncio.create_task(things.publish(n, told, DEVICE_PAUSE_S)) for n in range(DEVICES)]
        work += [asyncio.create_task(_rare(server))]
        for number in range(SAMPLES):
            before = server.spent()
            began = time.monotonic()
            await asyncio.sleep(seconds / SAMPLES)
            cpu = 100 * (server.spent() - before) / (time.monotonic() - began)
            samples.append(_sample(server) | {"CPU, %": cpu})
            for task in work:
                if task.done():
                    task.result()
            shown = "  ".join(f"{name} {value:,.1f}" for name, value in samples[-1].items())
            print(f"{(number + 1) * seconds / SAMPLES:5.0f} s  {len(told.acknowledged):,} events  {shown}", flush=True)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await things.close()
        # What waits for the bad targets would be tried again: no cloud is idle with that.
        for hook in hooks:
            await asyncio.to_thread(server.request, "DELETE", f"/v1/integrations/{hook}")
        return samples, len(first.came) + len(second.came)


async def _rare(server: Wirechamber) -> None:
    """What the failing and the hanging target are sent."""
    body = json.dumps({"name": f"{PREFIX}device/rare", "data": "0", "private": True}).encode()
    while True:
        await asyncio.to_thread(server.request, "POST", "/v1/devices/events", body)
        await asyncio.sleep(1.0)


def _sample(server: Wirechamber) -> dict[str, float]:
    def megabytes(name: str) -> float:
        file = server.folder / name
        return file.stat().st_size / 1e6 if file.exists() else 0.0

    return {
        "state.db, MB": megabytes("state.db"),
        "state.db-wal, MB": megabytes("state.db-wal"),
        "events.db, MB": megabytes("events.db"),
        "events.db-wal, MB": megabytes("events.db-wal"),
        "memory, MB": resident_kb(server.pid) / 1024,
        "descriptors": float(len(list(Path(f"/proc/{server.pid}/fd").iterdir()))),
    }


def flat(values: Sequence[float]) -> bool:
    """Whether they do not grow any more after the first third: the highest of the last third is not above the highest
    of the second by more than a tenth."""
    first = int(len(values) * FLAT_FROM)
    middle = (first + len(values)) // 2
    return max(values[middle:]) <= max(values[first:middle]) * (1 + FLAT)


def _report(samples: Sequence[Sample], delivered: int, after: float) -> int:
    table = Table(title=f"{delivered:,} webhooks came")
    for column in ("what", "first", "after a third", "last", "highest", "flat"):
        table.add_column(column)
    shown: Callable[[float], str] = "{:,.1f}".format
    good = after < IDLE_PERCENT
    for name in samples[0]:
        values = [sample[name] for sample in samples]
        third = values[int(len(values) * FLAT_FROM)]
        is_flat = flat(values)
        good = good and is_flat
        row = (shown(values[0]), shown(third), shown(values[-1]), shown(max(values)), "yes" if is_flat else "NO")
        table.add_row(name, *row)
    idle_good = "yes" if after < IDLE_PERCENT else "NO"
    table.add_row("CPU after kill -9, idle, %", "", "", f"{after:.2f}", "", f"{idle_good} (< {IDLE_PERCENT:g})")
    Console(width=None if os.isatty(1) else 110).print(table)
    return 0 if good else 1
