"""Appending to the event log: events per second and CPU per event, in both durabilities, against bare SQLite."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import uvloop

from bench.harness import Result, Size
from wirechamber.clock import SystemClock
from wirechamber.eventlog.sqlite import open_sqlite_log
from wirechamber.model.events import Event
from wirechamber.model.ids import new_id

Durability = Literal["full", "normal"]
NOW = 1_700_000_000_000
DATA = "x" * 100
# How many events, by how many appends at a time.
PER_CASE: dict[Size, dict[int, int]] = {"full": {1: 400, 100: 20_000}, "quick": {1: 50, 100: 2_000}}
DURABILITIES: tuple[Durability, ...] = ("full", "normal")


def run(size: Size) -> Iterator[Result]:
    sys.setswitchinterval(0.0005)
    for durability in DURABILITIES:
        for appenders, count in PER_CASE[size].items():
            rate, cpu = uvloop.run(_log(durability, appenders, count))
            bare = _bare(durability, appenders, count)
            yield Result(
                f"append, {appenders} at a time, durability {durability}",
                rate,
                "events/s",
                f"bare SQLite, same batches {bare:,.0f}",
                rate / bare,
            )
            yield Result(f"append, {appenders} at a time, durability {durability}: CPU", cpu * 1e6, "µs CPU", "", None)


async def _log(durability: Durability, appenders: int, count: int) -> tuple[float, float]:
    folder = Path(tempfile.mkdtemp(prefix="bench-log-"))
    try:
        async with open_sqlite_log(folder, durability=durability, clock=SystemClock()) as log:

            async def append() -> None:
                for _ in range(count // appenders):
                    await log.append((an_event(),))

            started, cpu = time.perf_counter(), time.process_time()
            await asyncio.gather(*(append() for _ in range(appenders)))
            return count / (time.perf_counter() - started), (time.process_time() - cpu) / count
    finally:
        shutil.rmtree(folder)


def _bare(durability: Durability, batch: int, count: int) -> float:
    """The same number of rows in transactions of `batch`, on this thread, one table without an index."""
    folder = Path(tempfile.mkdtemp(prefix="bench-log-"))
    try:
        db = sqlite3.connect(folder / "bare.db", isolation_level=None)
        db.execute("pragma journal_mode = wal")
        db.execute(f"pragma synchronous = {durability}")
        db.execute("create table event (position integer primary key, record text)")
        row = ("x" * 400,)
        started = time.perf_counter()
        for _ in range(count // batch):
            db.execute("begin")
            db.executemany("insert into event (record) values (?)", [row] * batch)
            db.execute("commit")
        taken = time.perf_counter() - started
        db.close()
        return count / taken
    finally:
        shutil.rmtree(folder)


def an_event() -> Event:
    return Event(
        id=new_id(NOW), name="temperature", data=DATA, published_at=NOW, received_at=NOW, owner="o" * 32,
        coreid="api", partition="o" * 32, origin="api",
    )  # fmt: skip
