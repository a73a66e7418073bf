"""What is particular to the log on SQLite: what survives, where positions go on, who may open it, and a full disk."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.backends import run
from tests.delivery.builders import an_event
from wirechamber.clock import SystemClock
from wirechamber.errors import Unavailable
from wirechamber.eventlog.base import Scope
from wirechamber.eventlog.lock import FolderInUse, hold_folder
from wirechamber.eventlog.sqlite import FILE, SKIP, Durability, LogTooNew, open_sqlite_log
from wirechamber.eventlog.sqlite.file import RECOUNT, open_file
from wirechamber.model.events import Event

# Appends for ever, sixteen at a time, and prints the number of each event that is acknowledged.
APPENDER = """
import asyncio, itertools, sys
from pathlib import Path
from tests.delivery.builders import an_event
from wirechamber.clock import SystemClock
from wirechamber.eventlog.sqlite import open_sqlite_log

async def main():
    numbers = itertools.count(int(sys.argv[3]))
    async with open_sqlite_log(Path(sys.argv[1]), durability=sys.argv[2], clock=SystemClock()) as log:
        async def append():
            while True:
                number = next(numbers)
                await log.append([an_event(f"n/{number}", id=f"{number:032x}")])
                print(number, flush=True)
        await asyncio.gather(*(append() for _ in range(16)))

asyncio.run(main())
"""


def numbered(number: int) -> Event:
    return an_event(f"n/{number}", id=f"{number:032x}")


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, durability: Durability) -> None:
    acknowledged: set[int] = set()
    positions: list[int] = []
    for round_ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(tmp_path), durability, str(round_ * 1_000_000)],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(150 + 40 * round_):
            acknowledged.add(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        acknowledged |= {int(line) for line in process.stdout.read().split()}
        process.stdout.close()
        process.wait()

    async def work() -> None:
        async with open_sqlite_log(tmp_path, durability=durability, clock=SystemClock()) as log:
            after = log.origin
            stored: set[int] = set()
            while True:
                page = await log.read(Scope(), after)
                stored |= {int(entry.event.name[2:]) for entry in page.entries}
                positions.extend(log.order(entry.cursor) for entry in page.entries)
                after = page.after
                if not page.more:
                    break
            assert acknowledged <= stored

    run(work())
    assert positions == sorted(set(positions))
    # Each of the three unclean ends was jumped over.
    assert positions[-1] > 2 * SKIP


def test_positions_jump_after_an_unclean_end_only(tmp_path: Path) -> None:
    async def append(number: int) -> int:
        async with open_sqlite_log(tmp_path, durability="full", clock=SystemClock()) as log:
            (cursor,) = await log.append([numbered(number)])
            return log.order(cursor)

    assert asyncio.run(append(0)) == 1
    assert asyncio.run(append(1)) == 2
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("update state set clean = 0")
    db.close()
    assert asyncio.run(append(2)) == 3 + SKIP
    assert asyncio.run(append(3)) == 4 + SKIP


def test_a_newer_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("pragma user_version = 99")
    db.close()
    before = (tmp_path / FILE).read_bytes()

    async def work() -> None:
        with pytest.raises(LogTooNew, match="newer version"):
            async with open_sqlite_log(tmp_path, durability="full", clock=SystemClock()):
                pass

    run(work())
    assert b"CREATE TABLE" not in (tmp_path / FILE).read_bytes()
    assert before[:16] in (b"", b"SQLite format 3\0")


def test_one_server_per_folder(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from wirechamber.eventlog.lock import hold_folder
with hold_folder(Path({str(tmp_path)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(FolderInUse, match="WIRECHAMBER_DATA"), hold_folder(tmp_path):
        pass
    # The lock ends with its holder, however that ends.
    holder.kill()
    holder.communicate()
    with hold_folder(tmp_path):
        pass


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
def test_durability_is_the_level_that_sqlite_syncs_with(tmp_path: Path, durability: Durability, level: int) -> None:
    async def work() -> None:
        async with open_sqlite_log(tmp_path, durability=durability, clock=SystemClock()) as log:
            # Not to be seen from outside without cutting the power.
            assert log._writer.execute("pragma synchronous").fetchone() == (level,)
            assert log._writer.execute("pragma journal_mode").fetchone() == ("wal",)

    run(work())


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    script = """
import asyncio, resource, sys
from pathlib import Path
from tests.delivery.builders import an_event
from wirechamber.clock import SystemClock
from wirechamber.errors import Unavailable
from wirechamber.eventlog.sqlite import open_sqlite_log

async def main():
    # No file may grow beyond this: writes fail as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    async with open_sqlite_log(Path(sys.argv[1]), durability="full", clock=SystemClock()) as log:
        for number in range(1000):
            try:
                await log.append([an_event(f"n/{number}", "x" * 10_000, id=f"{number:032x}")])
            except Unavailable:
                break
            print("stored", number)
        else:
            sys.exit("the disk never filled")
        # It fills up again: nothing has to be started anew.
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await log.append([an_event("n/5000", id=f"{5000:032x}")])
        print("stored", 5000)

import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    acknowledged = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("stored")]
    assert len(acknowledged) > 5

    async def work() -> None:
        async with open_sqlite_log(tmp_path, durability="full", clock=SystemClock()) as log:
            page = await log.read(Scope(), log.origin)
            assert [int(entry.event.name[2:]) for entry in page.entries] == acknowledged

    run(work())


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_sqlite_log(tmp_path, durability="normal", clock=SystemClock()) as log:
            bulk = [[an_event(id=os.urandom(16).hex()) for _ in range(2_000)] for _ in range(30)]
            answers = await asyncio.gather(*(log.append(events) for events in bulk), return_exceptions=True)
            refused = [answer for answer in answers if isinstance(answer, Unavailable)]
            assert 0 < len(refused) < 30
            stored = sum(len(answer) for answer in answers if isinstance(answer, list))
            assert stored == (30 - len(refused)) * 2_000
            # And it goes on.
            await log.append([numbered(1)])

    run(work())


def test_what_a_taken_position_keeps_out_is_not_acknowledged(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_sqlite_log(tmp_path, durability="full", clock=SystemClock()) as log:
            (first,) = await log.append([numbered(0)])
            intruder = sqlite3.connect(tmp_path / FILE)
            intruder.execute(
                "insert into event select position + 1, 'other', owner, coreid, name, received_at, size, record"
                " from event"
            )
            intruder.commit()
            intruder.close()
            with pytest.raises(Unavailable):
                await log.append([numbered(1)])
            # Nothing of it is in the way of the next one.
            (second,) = await log.append([numbered(1)])
            assert log.order(second) > log.order(first) + 1
            page = await log.read(Scope(owner=numbered(0).owner), log.origin)
            assert [entry.cursor for entry in page.entries if entry.event.id == numbered(1).id] == [second]

    run(work())


def test_what_owners_use_is_counted_although_a_transaction_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    async def work() -> None:
        async with open_sqlite_log(tmp_path, durability="full", clock=SystemClock()) as log:
            (cursor,) = await log.append([numbered(0)])
            with monkeypatch.context() as patch:
                patch.setattr("wirechamber.eventlog.sqlite.log.trim_age", full)
                with pytest.raises(Unavailable):
                    await log.trim(before_time=0, not_after=cursor, owner_bytes=None)

    run(work())
    with sqlite3.connect(tmp_path / FILE) as db:
        (used,) = db.execute("select bytes from usage").fetchone()
        (size,) = db.execute("select size from event").fetchone()
    db.close()
    assert used == size


@pytest.mark.parametrize("where", ["record_of", "index_step", "trim_age"])
def test_the_writer_outlives_any_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def too_much(*_: object, **__: object) -> None:
        raise MemoryError("no memory is left")

    async def work() -> None:
        async with open_sqlite_log(tmp_path, durability="normal", clock=SystemClock()) as log:
            (cursor,) = await log.append([numbered(0)])
            with monkeypatch.context() as patch:
                patch.setattr(f"wirechamber.eventlog.sqlite.log.{where}", too_much)
                patch.setattr("wirechamber.eventlog.sqlite.log.STEP", 1)
                if where == "record_of":
                    with pytest.raises(Unavailable):
                        await asyncio.wait_for(log.append([numbered(1)]), 10)
                elif where == "trim_age":
                    with pytest.raises(MemoryError):
                        await asyncio.wait_for(log.trim(before_time=0, not_after=cursor, owner_bytes=None), 10)
                else:
                    await asyncio.wait_for(log.append([numbered(1)]), 10)
                    await asyncio.wait_for(log.append([numbered(2)]), 10)
            await asyncio.wait_for(log.append([numbered(3)]), 10)
            assert log.tail.newest > cursor

    run(work())


def test_what_is_counted_again_at_the_start_is_found_by_position(tmp_path: Path) -> None:
    db, _ = open_file(tmp_path / "events.db", "normal")
    plan = [row[3] for row in db.execute(f"explain query plan {RECOUNT}", (1,))]
    db.close()
    assert any("INTEGER PRIMARY KEY" in step for step in plan)
    assert not any(step.startswith("SCAN event") for step in plan)
