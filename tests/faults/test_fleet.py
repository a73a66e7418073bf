"""Many devices over a bad network, and a cloud that restarts: what was acknowledged is in the log once.

At its full size (1,000 devices for a minute) by WIRECHAMBER_FLEET=1000 and WIRECHAMBER_FLEET_SECONDS=60.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from pathlib import Path

import pytest
import uvloop

from tests.cloud import Cloud, cloud
from tests.relay import HOST, Address, Weather, relay
from wirechamber.cli.folder import Folder, in_folder
from wirechamber.cli.simulate import registered
from wirechamber.clock import SystemClock
from wirechamber.device import Device
from wirechamber.device.fleet import Fleet, allow_sockets
from wirechamber.eventlog.base import Scope
from wirechamber.eventlog.sqlite import open_sqlite_log
from wirechamber.protocols.dtls import HANDSHAKE

COUNT = int(os.environ.get("WIRECHAMBER_FLEET", "100"))
SECONDS = float(os.environ.get("WIRECHAMBER_FLEET_SECONDS", "12"))
RATE = 0.5
SEED = 5
BAD = Weather(drop=0.05)


def devices_of(live: Cloud, address: Address) -> list[Device]:
    """Devices that the cloud knows, and which find it at an address."""

    async def work(folder: Folder) -> list[Device]:
        return await registered(folder, await folder.access.named("ann"), COUNT, *address)

    return in_folder(work, data=live.folder)


def stored(live: Cloud) -> Counter[str]:
    """How often each event's data is in the log of a cloud that has stopped."""

    async def read() -> Counter[str]:
        found: Counter[str] = Counter()
        async with open_sqlite_log(live.folder, durability="normal", clock=SystemClock()) as log:
            page = await log.read(Scope(prefix="fleet"), log.origin)
            while page.entries:
                found.update(entry.event.data or "" for entry in page.entries)
                page = await log.read(Scope(prefix="fleet"), page.after)
        return found

    return asyncio.run(read())


@pytest.mark.timeout(600)
def test_a_fleet_over_a_bad_network_outlives_two_restarts(tmp_path: Path, record_property: object) -> None:
    allow_sockets(2 * COUNT)
    acknowledged: list[str] = []

    async def scenario(live: Cloud) -> Fleet:
        async with relay((HOST, live.udp_port), seed=SEED, up=BAD, down=BAD) as between:
            devices = await asyncio.to_thread(devices_of, live, between.address)
            fleet = Fleet(
                devices, rate=RATE, name="fleet", data=lambda number, count: f"{number}/{count}",
                acknowledged=lambda number, data: acknowledged.append(data),
            )  # fmt: skip
            try:
                await fleet.open()
                assert fleet.handshakes == COUNT
                hellos = between.up.counts.kinds[HANDSHAKE]
                publishing = asyncio.create_task(fleet.run(SECONDS))
                await until(lambda: len(acknowledged) > COUNT * SECONDS * RATE / 4)
                await asyncio.to_thread(live.stop)
                await asyncio.to_thread(live.start)
                before = len(acknowledged)
                await until(lambda: len(acknowledged) > before + COUNT / 2)
                await asyncio.to_thread(live.kill)
                await asyncio.to_thread(live.start)
                await publishing
                # Not one handshake more: not a single datagram of one.
                assert between.up.counts.kinds[HANDSHAKE] == hellos
                assert fleet.handshakes == COUNT
                assert between.up.counts.dropped > 0
                assert between.down.counts.dropped > 0
                return fleet
            finally:
                await fleet.close()

    with cloud(tmp_path / "data") as live:
        live.user("ann")
        fleet = uvloop.run(scenario(live))
        live.stop()
        found = stored(live)
    assert fleet.published == fleet.acknowledged + fleet.unanswered + fleet.refused
    assert len(acknowledged) == fleet.acknowledged > COUNT * SECONDS * RATE / 4
    assert {data: found[data] for data in acknowledged if found[data] != 1} == {}
    # Neither is anything in there twice of which nobody knows.
    assert [data for data, times in found.items() if times != 1] == []
    # A message is lost four times in a row once in 11,000 times.
    assert fleet.unanswered <= max(3, fleet.published // 1000)
    each = fleet.bytes_per_event()
    p50, p99 = fleet.latencies.quantile(0.5), fleet.latencies.quantile(0.99)
    assert each is not None
    print(
        f"{COUNT} devices, {fleet.acknowledged} of {fleet.published} acknowledged, {fleet.unanswered} unanswered, "
        f"{fleet.refused} refused, {each:.0f} bytes each, after {p50:.3f} s (p50) and {p99:.1f} s (p99)"
    )
    record_property("bytes_per_event", each)  # type: ignore[operator]


async def until(so: object) -> None:
    """Polls; the test's own time-out is the deadline."""
    while not so():  # type: ignore[operator]  # noqa: ASYNC110
        await asyncio.sleep(0.02)
