"""The registry: start, memory and lists with many devices; many that are registered at once."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

from bench import ground
from bench.harness import Client, Size, Wirechamber, resident_kb, wirechamber
from bench.load.devices import device_id
from bench.scale.curves import Point, Sizes
from bench.scale.measuring import SETTINGS, cost, median, peak_mb, probing

SIZES: Sizes = {"full": (1_000, 10_000, 100_000), "quick": (10, 20, 40)}


def run(size: Size) -> Iterator[Point]:
    there = 0
    with wirechamber(**SETTINGS) as server:
        for count in SIZES[size]:
            with server.stopped() as folder:
                ground.devices(folder, server.owner, range(there, count))
                there = count
            yield Point("devices_start", count, median(lambda: _start(server)))
            yield Point("devices_memory", count, resident_kb(server.pid) / 1024)
            client = Client(server)
            page = cost(server, lambda client=client: client.request("GET", "/v1/devices?per_page=25"), 10)  # type: ignore[misc]
            yield Point("devices_page", count, page * 1000)
            with probing(server) as probe:
                with probe.watching() as felt:
                    spent = server.spent()
                    client.request("GET", "/v1/devices")
                    spent = server.spent() - spent
                yield Point("devices_list_hold", count, felt["held_ms"])
            yield Point("devices_list_memory", count, peak_mb(server.pid))
            spent = median(lambda client=client: _list(server, client))  # type: ignore[misc]
            yield Point("devices_list", count, spent * 1000)
            client.close()


def registering(size: Size) -> Iterator[Point]:
    """From a CSV, beside the running server."""
    for count in SIZES[size]:
        with wirechamber(**SETTINGS) as server:
            file = server.folder / "devices.csv"
            lines = "".join(f"{device_id(number)},device-{number}\n" for number in range(count))
            file.write_text("id,name\n" + lines)
            before = _of_children()
            done = subprocess.run(
                [sys.executable, "-m", "wirechamber", "device", "import", str(file), "--owner", "bench"],
                env=server.environment, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise SystemExit(f"there is no way to register many devices: {done.stderr.strip()[:300]}")
            yield Point("devices_import", count, _of_children() - before)


def _of_children() -> float:
    """CPU seconds of commands that have ended; a server that runs is not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _start(server: Wirechamber) -> float:
    server.stop()
    server.restart()
    return server.spent()


def _list(server: Wirechamber, client: Client) -> float:
    before = server.spent()
    client.request("GET", "/v1/devices")
    return server.spent() - before
