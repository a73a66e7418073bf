"""What is particular to the store on SQLite: its schema's steps, who else writes to the file, and a broken one."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.backends import run
from tests.contract.test_store import a_user
from wirechamber.clock import SystemClock
from wirechamber.errors import Unavailable
from wirechamber.eventlog.lock import hold_folder
from wirechamber.secrets import Vault
from wirechamber.store.base import AttemptBounds, AttemptFilter
from wirechamber.store.sqlite import database
from wirechamber.store.sqlite.database import FILE, StoreTooNew, connect, migrate, migrations, statements
from wirechamber.store.sqlite.store import open_sqlite_store

VERSION_2 = (Path(__file__).parent / "version_2.sql").read_text()
KEPT = ("user", "device", "device_key", "session", "progress", "link", "told", "integration", "delivery", "attempt")
OWNER_2 = "01a21f6541e800e10ba3a2a72e8dbfb0"

OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from tests.contract.test_store import a_user
from wirechamber.clock import SystemClock
from wirechamber.secrets import Vault
from wirechamber.store.sqlite.store import open_sqlite_store

async def main():
    folder = Path(sys.argv[1])
    async with open_sqlite_store(folder, Vault.open(folder), clock=SystemClock()) as store:
        await store.users.add(a_user("bob"))

asyncio.run(main())
"""


def _add_bob(folder: Path) -> None:
    command = [sys.executable, "-c", OTHER_PROCESS, str(folder)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=30)


def _tables(file: Path) -> list[str]:
    db = sqlite3.connect(file)
    found = [row[0] for row in db.execute("select sql from sqlite_master where sql is not null order by name")]
    db.close()
    return found


def _modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def test_each_step_leads_to_the_same_schema(tmp_path: Path) -> None:
    steps = migrations()
    assert sorted(steps) == list(range(1, len(steps) + 1))
    at_once, one_by_one = tmp_path / "at-once.db", tmp_path / "steps.db"
    db = connect(at_once)
    migrate(db, at_once)
    assert db.execute("pragma user_version").fetchone() == (len(steps),)
    # Again does nothing.
    migrate(db, at_once)
    db.close()
    db = connect(one_by_one)
    for number in steps:
        migrate(db, one_by_one, upto=number)
    db.close()
    assert _tables(at_once) == _tables(one_by_one)
    assert len(_tables(at_once)) > 10


def test_a_file_of_an_earlier_version_becomes_as_one_that_was_made(tmp_path: Path) -> None:
    old = tmp_path / FILE
    (tmp_path / "made").mkdir()
    db = sqlite3.connect(old)
    db.executescript(VERSION_2)
    rows = {name: db.execute(f"select count(*) from {name}").fetchone() for name in KEPT}
    online = {row[0] for row in db.execute("select device from link where online")}
    attempts = {row[0] for row in db.execute("select id from attempt")}
    (hook,) = db.execute("select integration from delivery where state = 'waiting' limit 1").fetchone()
    db.close()
    assert min(rows.values()) > (0,)

    async def work() -> None:
        async with open_sqlite_store(tmp_path, Vault(os.urandom(32)), clock=SystemClock()) as store:
            integrations = [each.id for each in await store.integrations.of_owner(OWNER_2)]
            assert hook in integrations
            while await store.deliveries.sweep(AttemptBounds(1 << 30, 1 << 30)):
                pass
            found = []
            for name in integrations:
                found += await store.deliveries.attempts(name, AttemptFilter(), 10)
            assert {each.id for each in found} == attempts
            assert all(each.detail for each in found)

    async def make() -> None:
        async with open_sqlite_store(tmp_path / "made", Vault(os.urandom(32)), clock=SystemClock()) as store:
            await store.deliveries.sweep(AttemptBounds(1 << 30, 1 << 30))

    run(work())
    run(make())
    assert _tables(old) == _tables(tmp_path / "made" / FILE)
    db = sqlite3.connect(old)
    assert {name: db.execute(f"select count(*) from {name}").fetchone() for name in KEPT} == rows
    assert {row[0] for row in db.execute("select id from device where online and handshake_at > 0")} == online
    assert db.execute("select number from device_count").fetchall() == [(len(online),)]
    assert db.execute("pragma foreign_key_check").fetchall() == []
    db.close()


def test_a_command_does_not_change_the_schema_under_a_server_of_an_earlier_version(tmp_path: Path) -> None:
    def created(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "wirechamber", "user", "create", name, "--password-stdin"]
        return subprocess.run(
            command, env=os.environ | {"WIRECHAMBER_DATA": str(tmp_path)}, input="correct horse\n",
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def version() -> int:
        db = sqlite3.connect(tmp_path / FILE)
        (found,) = db.execute("pragma user_version").fetchone()
        db.close()
        return int(found)

    Vault.open(tmp_path)
    db = sqlite3.connect(tmp_path / FILE)
    db.executescript(VERSION_2)
    db.close()
    with hold_folder(tmp_path):
        refused = created("carl")
    assert refused.returncode != 0
    assert "a server of an earlier version runs" in refused.stderr
    assert version() == 2
    assert created("carl").returncode == 0
    assert version() == max(migrations())


@pytest.mark.parametrize("names", [("0001_a.sql", "0002_b.sql", "0002_c.sql"), ("0001_a.sql", "0003_b.sql")])
def test_two_steps_of_one_number_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(database, "MIGRATIONS", tmp_path)
    with pytest.raises(ValueError, match="not numbered one by one"):
        migrations()


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    assert list(
        statements("-- a comment; with a semicolon\ncreate table a (b);\n\ncreate table c (d text default ';');")
    )
    file = tmp_path / "x.db"
    db = connect(file)
    # Something is in the way of the first step.
    db.execute("create table token (a)")
    with pytest.raises(sqlite3.OperationalError):
        migrate(db, file)
    assert db.execute("pragma user_version").fetchone() == (0,)
    assert [row[0] for row in db.execute("select name from sqlite_master")] == ["token"]
    db.close()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("pragma user_version = 99")
    db.close()

    async def work() -> None:
        vault = Vault(os.urandom(32))
        with pytest.raises(StoreTooNew, match="newer version"):
            async with open_sqlite_store(tmp_path, vault, clock=SystemClock()):
                pass

    run(work())


def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_sqlite_store(tmp_path, Vault.open(tmp_path), clock=SystemClock()) as store:
            await store.users.add(a_user())
            modes.update(_modes(tmp_path))

    modes: dict[str, int] = {}
    run(work())
    assert FILE in modes
    assert not any(mode & 0o077 for mode in modes.values()), modes


def test_another_process_is_seen_as_soon_as_it_has_ended(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_sqlite_store(tmp_path, Vault.open(tmp_path), clock=SystemClock()) as store:
            before = store.revision()
            await asyncio.to_thread(_add_bob, tmp_path)
            assert store.revision() > before
            assert await store.users.by_name("bob") == a_user("bob")

    run(work())


def test_a_locked_file_is_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_sqlite_store(tmp_path, Vault.open(tmp_path), clock=SystemClock()) as store:
            await store.users.all()
            other = asyncio.create_task(asyncio.to_thread(_add_bob, tmp_path))
            for number in range(200):
                await store.users.add(a_user(f"user-{number}"))
            await other
            assert len(await store.users.all()) == 201

    run(work())


def test_a_damaged_file_is_told_in_words(tmp_path: Path) -> None:
    async def fill() -> None:
        async with open_sqlite_store(tmp_path, Vault.open(tmp_path), clock=SystemClock()) as store:
            for number in range(100):
                await store.users.add(a_user(f"user-{number}", account_info={"text": "x" * 300}))

    async def look() -> None:
        async with open_sqlite_store(tmp_path, Vault.open(tmp_path), clock=SystemClock()) as store:
            await store.users.all()

    run(fill())
    run(look())
    file = tmp_path / FILE
    # The first pages hold the schema, so opening succeeds; then not even that.
    whole = file.read_bytes()
    for kept in (4096 * 30, 100):
        file.write_bytes(whole[:kept] + b"\xa5" * (len(whole) - kept))
        with pytest.raises(Unavailable, match=r"state\.db|can't be used"):
            run(look())
