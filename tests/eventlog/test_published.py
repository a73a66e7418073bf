"""One device's events are found without looking at everybody's, in files of this version and of the one before it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.delivery.builders import NOW, an_event
from wirechamber.clock import SystemClock
from wirechamber.eventlog.base import Cursor, Entry, EventLog, Scope, Trimmable
from wirechamber.eventlog.sqlite import FILE, open_sqlite_log
from wirechamber.eventlog.sqlite import indexing as steps
from wirechamber.eventlog.sqlite import log as writing
from wirechamber.model.events import Event

SCHEMA_1 = (Path(__file__).parent / "schema_1.sql").read_text()
DEVICES = [f"{number:024x}" for number in range(3)]
SCOPES = [
    Scope(owner=owner, coreid=coreid, prefix=prefix)
    for owner in ("ann", "bob", None)
    for coreid in (*DEVICES, "api", None)
    for prefix in ("", "temp")
]
WHO = st.tuples(st.sampled_from(["ann", "bob"]), st.sampled_from([*DEVICES, "api"]), st.sampled_from(["temp", "hum"]))
BATCHES = st.lists(st.lists(WHO, min_size=1, max_size=7), max_size=8)


def an_owners(number: int, who: tuple[str, str, str]) -> Event:
    owner, coreid, name = who
    device = None if coreid == "api" else coreid
    return an_event(name, id=f"{number:032x}", owner=owner, coreid=coreid, device=device)


async def everything(log: EventLog, scope: Scope, limit: int) -> list[Entry]:
    found: list[Entry] = []
    after, more = log.origin, True
    while more:
        page = await log.read(scope, after, limit)
        found += page.entries
        after, more = page.after, page.more
    assert after == log.tail.newest
    return found


def version_1(file: Path, events: list[Event]) -> None:
    with sqlite3.connect(file) as db:
        db.executescript(f"{SCHEMA_1}; pragma user_version = 1")
        for position, event in enumerate(events, 1):
            record = msgspec.json.encode(event).decode()
            row = (position, event.id, event.owner, event.coreid, event.name, event.received_at, len(record), record)
            db.execute("insert into event values (?, ?, ?, ?, ?, ?, ?, ?)", row)
    db.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    old=st.lists(WHO, max_size=12), before=BATCHES, after=BATCHES, trimmed=st.integers(0, 20), step=st.integers(1, 9)
)
def test_every_scope_is_read_the_same_however_much_is_indexed(
    tmp_path_factory: pytest.TempPathFactory,
    old: list[tuple[str, str, str]],
    before: list[list[tuple[str, str, str]]],
    after: list[list[tuple[str, str, str]]],
    trimmed: int,
    step: int,
) -> None:
    folder = tmp_path_factory.mktemp("log")
    stored: list[Entry] = []

    async def append(log: EventLog, batches: list[list[tuple[str, str, str]]]) -> None:
        for batch in batches:
            events = [an_owners(len(stored) + index, who) for index, who in enumerate(batch)]
            cursors = await log.append(events)
            stored.extend(map(Entry, cursors, events))

    async def look(log: EventLog) -> None:
        for scope in SCOPES:
            wanted = [entry for entry in stored if scope.holds(entry.event)]
            assert await everything(log, scope, 3) == wanted

    async def work() -> None:
        nonlocal stored
        async with open_sqlite_log(folder, durability="normal", clock=SystemClock()) as log:
            await append(log, before)
            await look(log)
        async with open_sqlite_log(folder, durability="normal", clock=SystemClock()) as log:
            await append(log, after)
            assert isinstance(log, Trimmable)
            if trimmed and stored:
                last = stored[min(trimmed, len(stored)) - 1].cursor
                await log.trim(before_time=NOW + 1, not_after=last, owner_bytes=None)
                stored = [entry for entry in stored if log.order(entry.cursor) > log.order(last)]
            await look(log)
        with sqlite3.connect(folder / FILE) as db:
            published = db.execute("select coreid, position from published order by position").fetchall()
        db.close()
        devices = [(entry.event.coreid, int(entry.cursor)) for entry in stored if entry.event.device is not None]
        assert published == devices

    events = [an_owners(number, who) for number, who in enumerate(old)]
    if events:
        version_1(folder / FILE, events)
        stored = [Entry(Cursor(str(position)), event) for position, event in enumerate(events, 1)]
    with pytest.MonkeyPatch.context() as patch:
        for module in (steps, writing):
            patch.setattr(module, "STEP", step)
        asyncio.run(work())


def test_a_device_is_found_without_looking_at_the_others(tmp_path: Path) -> None:
    events = [an_owners(number, ("ann", DEVICES[number % 500 == 7], "temp")) for number in range(12_000)]
    wanted = [event.id for event in events if event.coreid == DEVICES[1]]

    async def work() -> None:
        async with open_sqlite_log(tmp_path, durability="normal", clock=SystemClock()) as log:
            for first in range(0, len(events), 1_000):
                await log.append(events[first : first + 1_000])
        async with open_sqlite_log(tmp_path, durability="normal", clock=SystemClock()) as log:
            # More than a page may look at lies in between: one page finds them all the same.
            page = await log.read(Scope(owner="ann", coreid=DEVICES[1]), log.origin)
            assert [entry.event.id for entry in page.entries] == wanted
            assert (page.after, page.more) == (log.tail.newest, False)

    asyncio.run(work())


def test_a_file_that_was_upgraded_is_as_one_that_was_made(tmp_path: Path) -> None:
    async def opened(folder: Path) -> list[tuple[str, ...]]:
        async with open_sqlite_log(folder, durability="normal", clock=SystemClock()):
            pass
        with sqlite3.connect(folder / FILE) as db:
            (version,) = db.execute("pragma user_version").fetchone()
            tables = db.execute("select name from sqlite_master where type = 'table' order by name").fetchall()
            columns = [db.execute(f"pragma table_info({name})").fetchall() for (name,) in tables]
            rest = db.execute("select type, name, tbl_name from sqlite_master order by 1, 2").fetchall()
        db.close()
        return [version, tables, columns, rest]

    (tmp_path / "made").mkdir()
    (tmp_path / "old").mkdir()
    version_1(tmp_path / "old" / FILE, [])
    assert asyncio.run(opened(tmp_path / "old")) == asyncio.run(opened(tmp_path / "made"))
