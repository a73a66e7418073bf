"""How attempts are kept: compact, bounded, their room used again; and how what was removed is cleared away in steps."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from tests.contract.backends import run
from tests.contract.test_store import a_device, a_token, a_user
from tests.delivery.builders import NOW, OWNER, a_delivery, an_attempt, an_integration
from wirechamber.clock import SystemClock
from wirechamber.model.deliveries import Attempt, Settlement
from wirechamber.secrets import Vault
from wirechamber.store.base import AttemptBounds, AttemptFilter, Holding, HoldingFull, Retention
from wirechamber.store.sqlite import open_sqlite_store, sweeping
from wirechamber.store.sqlite.database import FILE, connect, migrate
from wirechamber.store.sqlite.store import SqliteStore

ROOMY = AttemptBounds(owner=1 << 40, bodies=1 << 40)
DAY = 86_400_000


@asynccontextmanager
async def opened(folder: Path, *owners: str) -> AsyncIterator[SqliteStore]:
    async with open_sqlite_store(folder, Vault(bytes(32)), clock=SystemClock()) as store:
        for owner in owners:
            await store.users.add(a_user(owner, id=owner))
        yield store


def db(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / FILE, isolation_level=None)


def count(folder: Path, table: str) -> int:
    with db(folder) as found:
        return int(found.execute(f"select count(*) from {table}").fetchone()[0])


async def swept(store: SqliteStore, bounds: AttemptBounds = ROOMY) -> int:
    steps = 0
    while await store.deliveries.sweep(bounds):
        steps += 1
    return steps


def a_success(number: int, **rest: Any) -> Attempt:
    """As the courier writes them: ids of 32 digits that begin with the time."""
    at = NOW + number
    return an_attempt(
        number, started_at=at, id=f"{at:012x}{number * 7919:020x}", delivery=f"{at:012x}{number * 104729:020x}",
        event_id=f"{at:012x}{number:020x}", **rest,
    )  # fmt: skip


@pytest.mark.parametrize("device", [None, "0123456789abcdef01234567"])
def test_a_success_takes_150_bytes_at_most(tmp_path: Path, device: str | None) -> None:
    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            for number in range(10):
                await store.integrations.add(an_integration(f"temp{number}"))
            for begin in range(0, 20_000, 500):
                await store.deliveries.settle(
                    Settlement(
                        attempts=tuple(
                            a_success(
                                number, integration=f"hook-temp{number % 10}", detail=None, device=device,
                                coreid=device or "api",
                            )
                            for number in range(begin, begin + 500)
                        )
                    )
                )  # fmt: skip

    run(work())
    with db(tmp_path) as found:
        (page,) = found.execute("pragma page_size").fetchone()
        (pages,) = found.execute("pragma page_count").fetchone()
    empty = 60 * page
    taken = (pages * page - empty) / 20_000
    print(f"{taken:.0f} bytes per attempt")
    assert taken <= 150


def test_room_is_used_again(tmp_path: Path) -> None:
    async def work() -> None:
        bounds = AttemptBounds(owner=400_000, bodies=1 << 40)
        async with opened(tmp_path, OWNER) as store:
            await store.integrations.add(an_integration())
            sizes = []
            for begin in range(0, 6_000, 100):
                attempts = tuple(a_success(number, detail=b"x" * 1_000) for number in range(begin, begin + 100))
                await store.deliveries.settle(Settlement(attempts=attempts))
                await swept(store, bounds)
                sizes.append(pages(tmp_path))
            assert sizes[-1] == sizes[len(sizes) // 2]
            # The newest are there, with their bodies; the oldest are not.
            newest = await store.deliveries.attempts("hook-temp", AttemptFilter(), 10)
            assert [each.id for each in newest] == [a_success(number).id for number in range(5_999, 5_989, -1)]
            assert all(each.detail == b"x" * 1_000 for each in newest)
            assert count(tmp_path, "attempt") < 3_000

    run(work())


def pages(folder: Path) -> int:
    with db(folder) as found:
        return int(found.execute("pragma page_count").fetchone()[0])


def test_who_has_too_many_attempts_loses_his_own_oldest(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path, OWNER, "bob") as store:
            await store.integrations.add(an_integration())
            await store.integrations.add(an_integration("other", owner="bob"))
            mine = tuple(a_success(number, integration="hook-other", owner="bob", detail=b"y" * 900)
                         for number in range(20))  # fmt: skip
            await store.deliveries.settle(Settlement(attempts=mine))
            flood = tuple(a_success(100 + number, ok=number % 2 == 0, detail=b"x" * 10_000) for number in range(300))
            await store.deliveries.settle(Settlement(attempts=flood))
            await swept(store, AttemptBounds(owner=100_000, bodies=1 << 40))
            kept = await store.deliveries.attempts("hook-other", AttemptFilter(), 100)
            assert [each.detail for each in kept] == [b"y" * 900] * 20
            left = await store.deliveries.attempts("hook-temp", AttemptFilter(), 100)
            assert sum(len(each.detail or b"") for each in left) <= 100_000
            assert left[0].id == flood[-1].id
            # And when everybody's are too many, whoever has most gives way.
            await swept(store, AttemptBounds(owner=1 << 40, bodies=30_000))
            kept = await store.deliveries.attempts("hook-other", AttemptFilter(), 100)
            assert sum(each.detail is not None for each in kept) == 20
            assert store.deliveries.crowded_out > 0

    run(work())


def test_an_integration_is_gone_at_once_and_its_rows_go_in_steps(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sweeping, "SMALL_ROWS", 20)
    monkeypatch.setattr(sweeping, "STEP_S", 0.0)

    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            await store.integrations.add(an_integration(secrets={"a": "b"}))
            kept = await store.integrations.add(an_integration("kept"))
            attempts = tuple(a_success(number) for number in range(500))
            await store.deliveries.settle(
                Settlement(
                    attempts=attempts, upsert=tuple(a_delivery(number) for number in range(100)),
                    remember=tuple(("hook-temp", f"key{number}", 1) for number in range(50)),
                )
            )  # fmt: skip
            before = await store.integrations.changes(0)
            assert await store.integrations.remove("hook-temp")
            assert await store.integrations.get("hook-temp") is None
            assert await store.integrations.of_owner(OWNER) == [kept]
            assert await store.integrations.page(OWNER, 10) == [kept]
            assert (await store.integrations.holding(OWNER)).integrations == 1
            assert await store.deliveries.attempts("hook-temp", AttemptFilter(), 10) == []
            assert await store.deliveries.overdue_answers(NOW + DAY, 10) == []
            changes = await store.integrations.changes(before.revision)
            assert list(changes.removed) == ["hook-temp"]
            left = [count(tmp_path, table) for table in ("attempt", "delivery", "body", "memory")]
            for _ in range(5):
                assert await store.deliveries.sweep(ROOMY)
                now = [count(tmp_path, table) for table in ("attempt", "delivery", "body", "memory")]
                assert 0 < sum(left) - sum(now) <= 40
                left = now
        async with opened(tmp_path) as store:
            # The rest goes after a restart.
            assert await swept(store) > 10
            for table in ("attempt", "delivery", "body", "memory", "counter"):
                assert count(tmp_path, table) == 0, table
            assert count(tmp_path, "numbered") == count(tmp_path, "integration") == 1
            changes = await store.integrations.changes(before.revision)
            assert list(changes.removed) == ["hook-temp"]

    run(work())


def test_others_write_while_a_user_is_cleared_away(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sweeping, "STEP_S", 0.0)

    async def work() -> None:
        async with opened(tmp_path, OWNER, "bob") as store:
            for number in range(50):
                await store.integrations.add(an_integration(f"temp{number}"))
                await store.devices.add(a_device(number, owner=OWNER))
            attempts = tuple(a_success(number, integration=f"hook-temp{number % 50}") for number in range(500))
            await store.deliveries.settle(Settlement(attempts=attempts))
            await store.tokens.add(a_token(user=OWNER))
            removing = asyncio.create_task(store.users.remove(OWNER))
            # It is in the writer's line before what follows.
            await asyncio.sleep(0)
            written = 0
            while not removing.done():
                await store.integrations.add(an_integration(f"bob{written}", owner="bob"))
                written += 1
                if written == 1:
                    assert await store.users.get(OWNER) is None
                    assert await store.users.by_name(OWNER) is None
                    assert await store.tokens.by_digest(a_token().digest) is None
                    # The name is free.
                    await store.users.add(a_user(OWNER, id="another"))
            assert await removing
            assert written > 5
            assert {user.id for user in await store.users.all()} == {"another", "bob"}
            assert count(tmp_path, "attempt") == 0
            assert count(tmp_path, "integration") == written
            device = await store.devices.get(f"{7:024x}")
            assert device is not None
            assert device.owner is None
            assert await store.integrations.holding(OWNER) == Holding()

    run(work())


def test_attempts_of_an_older_version_are_brought_over_while_it_runs(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sweeping, "STEP_S", 0.0)
    attempts = [
        structs.replace(
            a_success(number, device="d" if number % 3 else None, coreid="d" if number % 3 else "api"),
            ok=number % 4 != 0, number=1 + number % 3, why=None if number % 4 else "ETIMEDOUT",
        )
        for number in range(500)
    ]  # fmt: skip
    file = tmp_path / FILE
    before = connect(file)
    migrate(before, file, upto=2)
    before.execute("insert into user values (?, ?, ?, ?, ?, ?)", (OWNER, "ann", "ann", "x", NOW, "{}"))
    record = msgspec.json.encode(an_integration()).decode()
    before.execute("insert into integration values ('hook-temp', ?, ?, 1, ?, null)", (OWNER, NOW, record))
    before.executemany(
        "insert into attempt values (?, ?, 'hook-temp', ?, ?, ?, ?, ?)",
        [
            (
                each.id, each.delivery, each.started_at, each.ok, each.device,
                msgspec.json.encode(structs.replace(each, detail=None)).decode(), (each.detail or b"").decode(),
            )
            for each in attempts
        ],
    )  # fmt: skip
    before.close()

    async def work() -> None:
        async with opened(tmp_path) as store:
            assert await store.integrations.holding(OWNER) == Holding(1, len(record))
            newer = a_success(1_000)
            await store.deliveries.settle(Settlement(attempts=(newer,)))
            wanted = [newer, *attempts[::-1]]
            failed = [each for each in wanted if not each.ok]
            pairs = [(each.delivery, each.integration) for each in wanted]
            steps = 0
            while True:
                assert await store.deliveries.attempts("hook-temp", AttemptFilter(), 1_000) == wanted
                assert await store.deliveries.attempts("hook-temp", AttemptFilter(ok=False), 60) == failed[:60]
                of_device = AttemptFilter(device="d", before=attempts[250].id)
                assert (
                    await store.deliveries.attempts("hook-temp", of_device, 5)
                    == [each for each in wanted if each.device == "d" and each.id < attempts[250].id][:5]
                )
                assert await store.deliveries.known(pairs, NOW) == {delivery for delivery, _ in pairs}
                if not await store.deliveries.sweep(ROOMY):
                    break
                steps += 1
            assert steps > 3
            assert await store.deliveries.attempts("hook-temp", AttemptFilter(), 1_000) == wanted

    run(work())
    with db(tmp_path) as found:
        names = {row[0] for row in found.execute("select name from sqlite_master")}
    assert "attempt_before" not in names


def test_a_device_without_attempts_is_answered_by_an_index(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            await store.integrations.add(an_integration())
            attempts = tuple(a_success(number, device="a" * 24, coreid="a" * 24) for number in range(400))
            await store.deliveries.settle(Settlement(attempts=attempts))
            listed = store.deliveries.attempts
            assert await listed("hook-temp", AttemptFilter(device="b" * 24), 10) == []
            assert await listed("hook-temp", AttemptFilter(device="a" * 24, ok=True), 1) == [attempts[-1]]

    run(work())
    with db(tmp_path) as found:
        plan = str(
            found.execute(
                "explain query plan select id from attempt indexed by attempt_of_device where n = 1 and ok = 1"
                " and device = 'b' order by id desc limit 10"
            ).fetchall()
        )
    assert "device=? AND n=? AND ok=?" in plan
    assert "TEMP B-TREE" not in plan


def test_who_missed_removals_reads_everything(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sweeping, "MAX_FORGOTTEN", 20)

    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            kept = await store.integrations.add(an_integration("kept"))
            await store.devices.add(a_device(1_000, owner=OWNER))
            long_ago = await store.integrations.changes(0)
            for number in range(50):
                await store.integrations.add(an_integration(f"temp{number}"))
                await store.integrations.remove(f"hook-temp{number}")
                await store.devices.add(a_device(number, owner=OWNER))
                await store.devices.remove(f"{number:024x}")
            await swept(store)
            lately = store.revision()
            tidy = Retention(bodies_of_newest=0, bodies_after=0, attempts_after=0, counters_after=0)
            await store.deliveries.tidy(tidy)
            assert count(tmp_path, "integration_removed") <= 20
            assert count(tmp_path, "device_removed") <= 20
            changes = await store.integrations.changes(long_ago.revision)
            assert (changes.whole, list(changes.changed)) == (True, [kept])
            changes = await store.integrations.changes(lately)
            assert (changes.whole, list(changes.changed), list(changes.removed)) == (False, [], [])
            devices = await store.devices.changes(long_ago.revision)
            assert (devices.whole, [each.id for each in devices.changed]) == (True, [f"{1_000:024x}"])
            assert not (await store.devices.changes(lately)).whole

    run(work())


def test_what_owners_have_is_counted_and_bounded(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            big = an_integration("big", settings={"body": "x" * 1_000})
            await store.integrations.add(big)
            held = await store.integrations.holding(OWNER)
            assert held.integrations == 1
            assert 1_000 < held.bytes < 1_500
            most = Holding(2, 2_000)
            with pytest.raises(HoldingFull):
                await store.integrations.add(an_integration("more", settings={"body": "x" * 1_000}), most)
            await store.integrations.add(an_integration("small"), most)
            with pytest.raises(HoldingFull):
                await store.integrations.add(an_integration("third"), Holding(2, 1 << 20))
            with pytest.raises(HoldingFull):
                await store.integrations.update(structs.replace(big, settings={"body": "x" * 2_000}), most)
            # What becomes smaller may be saved however much there is.
            await store.integrations.update(structs.replace(big, settings={"body": "x"}), Holding(1, 1))
            smaller = await store.integrations.holding(OWNER)
            assert smaller.integrations == 2
            await store.integrations.remove("hook-big")
            await store.integrations.remove("hook-small")
            assert await store.integrations.holding(OWNER) == Holding(0, 0)

    run(work())


def test_rows_that_cannot_be_read_stop_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path, OWNER) as store:
            for event in ("good", "torn", "locked"):
                await store.integrations.add(an_integration(event, secrets={"auth.password": "s"}))
            rows = tuple(a_delivery(number, integration="hook-good") for number in range(3))
            await store.deliveries.settle(Settlement(upsert=rows))
            with db(tmp_path) as found:
                found.execute("update integration set record = '{\"id\": 7' where id = 'hook-torn'")
                found.execute("update integration set secrets = x'00' where id = 'hook-locked'")
                found.execute("update delivery set event = 'x' where id = 'delivery-1'")
            found.close()
            changes = await store.integrations.changes(0)
            states = {each.id: each.paused for each in changes.changed}
            assert states["hook-good"] is None
            assert states["hook-torn"] is not None
            assert states["hook-locked"] is not None
            assert len(await store.integrations.of_owner(OWNER)) == 3
            assert [each.id for each in await store.deliveries.due(NOW, 10)] == ["delivery-0", "delivery-2"]
            assert [each.id for each in await store.deliveries.overdue_answers(NOW + DAY, 10)] == [
                "delivery-0", "delivery-2",
            ]  # fmt: skip
            await store.deliveries.release_active(NOW)
            with db(tmp_path) as found:
                state, why = found.execute("select state, why from delivery where id = 'delivery-1'").fetchone()
            assert state == "dead"
            assert "can't be read" in why
            # They can be removed as any other.
            assert await store.integrations.remove("hook-torn")
            await swept(store)

    run(work())
