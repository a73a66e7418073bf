"""What many waiting deliveries, integrations and owners cost others: a bounded hold of the writer, and their turn."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from tests.contract.backends import run
from tests.delivery.builders import NOW, OWNER, a_delivery, an_event, an_integration
from tests.store.test_attempts_kept import db, opened
from wirechamber.eventlog.sqlite.file import open_file
from wirechamber.eventlog.sqlite.rows import record_of
from wirechamber.eventlog.sqlite.trimming import front_of, trim_age
from wirechamber.model.deliveries import Settlement
from wirechamber.sqlite import transaction
from wirechamber.store.sqlite.deliveries import STEP_ROWS
from wirechamber.store.sqlite.store import SqliteStore

STEPS = 10


async def with_backlog(store: SqliteStore, integration: str = "hook-temp", count: int = STEPS * STEP_ROWS) -> None:
    rows = (a_delivery(n, id=f"{integration} {n:05}", integration=integration, due_at=NOW + n) for n in range(count))
    await store.deliveries.settle(Settlement(upsert=tuple(rows)))


def states(folder: Path) -> set[str]:
    with db(folder) as found:
        return {state for (state,) in found.execute("select distinct state from delivery")}


def test_others_save_while_a_long_backlog_is_held_and_released(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            await store.integrations.add(an_integration())
            await with_backlog(store)
            for change, state in (
                (store.deliveries.hold("hook-temp"), "held"),
                (store.deliveries.release("hook-temp", NOW), "waiting"),
            ):
                turning = asyncio.create_task(change)
                saved = 0
                while not turning.done():
                    await store.seen(str(saved))
                    saved += 1
                assert await turning == STEPS * STEP_ROWS
                assert states(tmp_path) == {state}
                assert saved >= STEPS // 2

    run(work())


def test_of_holding_and_releasing_at_the_same_time_the_later_has_its_way(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            await store.integrations.add(an_integration())
            await with_backlog(store)
            async with asyncio.timeout(30):
                await asyncio.gather(store.deliveries.hold("hook-temp"), store.deliveries.release("hook-temp", NOW))
                assert states(tmp_path) == {"waiting"}
                await asyncio.gather(store.deliveries.release("hook-temp", NOW), store.deliveries.hold("hook-temp"))
                assert states(tmp_path) == {"held"}

    run(work())


def test_integrations_have_their_turn_whatever_waits_for_those_at_the_front(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            for name in "abcdef":
                await store.integrations.add(an_integration(name))
                await with_backlog(store, f"hook-{name}", 20)
            served = [{row.integration for row in await store.deliveries.due(NOW * 2, limit=8)} for _ in range(3)]
            assert set.union(*served) == {f"hook-{name}" for name in "abcdef"}
            assert all(len(page) == 2 for page in served)

    run(work())


def test_integrations_of_which_nothing_is_due_are_not_asked_one_by_one(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            for number in range(50):
                await store.integrations.add(an_integration(f"{number}"))
                await with_backlog(store, f"hook-{number}", 1)
            asked: list[str] = []
            await store.deliveries._database.read(lambda db: db.set_trace_callback(asked.append))
            assert await store.deliveries.due(NOW - 1, limit=256) == []
            assert len(asked) <= 1

    run(work())


def operations(db: sqlite3.Connection) -> list[int]:
    """Counts, in its one item, tens of operations of SQLite's virtual machine."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    db.set_progress_handler(count, 10)
    return counted


def test_removing_a_user_costs_in_proportion_to_the_integrations(tmp_path: Path) -> None:
    async def work() -> None:
        spent = []
        for number in (100, 800):
            folder = tmp_path / str(number)
            folder.mkdir()
            async with opened(folder, OWNER) as store:
                for n in range(number):
                    await store.integrations.add(an_integration(f"{n}"))
                counted = operations(store._database._writer)
                await store.users.remove(OWNER)
                spent.append(counted[0])
        # Eight times as many; each with all would be 64 times.
        assert spent[1] < 20 * spent[0]

    run(work())


def test_a_step_of_trimming_costs_the_same_however_many_owners_it_is_of(tmp_path: Path) -> None:
    spent = []
    for owners in (1, 1_000):
        folder = tmp_path / str(owners)
        folder.mkdir()
        db, _ = open_file(folder / "events.db", "normal")
        with transaction(db):
            for n in range(1_000):
                event = an_event(id=f"{n:032x}", owner=f"o{n % owners}")
                record = record_of(event, NOW)
                row = (n + 1, event.id, event.owner, event.coreid, event.name, NOW, len(record), record)
                db.execute("insert into event values (?, ?, ?, ?, ?, ?, ?, ?)", row)
            db.execute("insert into usage (owner, bytes) select owner, sum(size) from event group by owner")
        front = front_of(db, NOW)
        assert front is not None
        counted = operations(db)
        with transaction(db):
            assert trim_age(db, NOW + 1, 1_000, front) == 1_000
        spent.append(counted[0])
        assert db.execute("select max(bytes), min(trimmed_to) from usage").fetchone() == (0, 1001 - owners)
        db.close()
    assert spent[1] < 5 * spent[0]


def test_what_runs_all_the_time_does_not_look_at_all_that_waits_or_at_all_integrations(tmp_path: Path) -> None:
    async def work() -> None:
        spent = []
        for number in (20, 400):
            folder = tmp_path / str(number)
            folder.mkdir()
            async with opened(folder, OWNER) as store:
                for n in range(number):
                    await store.integrations.add(an_integration(f"{n}"))
                await with_backlog(store, "hook-0", 20 * number)
                deliveries = store.deliveries
                counted = await deliveries._database.read(operations)
                assert await deliveries.overdue_answers(NOW, limit=10) == []
                assert await deliveries.next_deadline() == NOW + 120_000
                writing = operations(deliveries._database._writer)
                remember = (("hook-0", "key", 1),)
                await deliveries.settle(Settlement(upsert=(a_delivery(0, integration="hook-0"),), remember=remember))
                spent.append((counted[0], writing[0]))
        for few, many in zip(*spent, strict=True):
            assert many < 3 * (few + 1)

    run(work())
