"""What is kept of what was removed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

from bench import ground
from bench.harness import Size, Wirechamber, wirechamber
from bench.scale.curves import Point, Sizes
from bench.scale.measuring import SETTINGS
from bench.webhooks import hook

SIZES: Sizes = {"full": (1_000, 5_000, 20_000), "quick": (10, 20, 40)}
NOWHERE = 9


def run(size: Size) -> Iterator[Point]:
    there = 0
    with wirechamber(**SETTINGS) as server:
        first = hook(server, NOWHERE, event="first")
        for count in SIZES[size]:
            with server.stopped() as folder:
                numbers = range(there, count)
                ground.forget_integrations(
                    folder, ground.integrations(folder, first, (f"other-{number}" for number in numbers))
                )
                ground.devices(folder, server.owner, numbers)
                ground.forget_devices(folder, numbers)
                there = count
            # What is tidied is tidied right after the start.
            time.sleep(1.0 if size == "full" else 0.0)
            yield Point("removed", count, _rows(server))


def _rows(server: Wirechamber) -> int:
    db = sqlite3.connect(server.folder / "state.db")
    try:
        tables = db.execute("select name from sqlite_master where type = 'table' and name like '%_removed'").fetchall()
        return sum(db.execute(f"select count(*) from {table}").fetchone()[0] for (table,) in tables)
    finally:
        db.close()
