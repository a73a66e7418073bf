"""Connections, threads and migrations of `state.db`.

One thread writes, a few read, each with its own connection; nobody holds a transaction across an await. Several
processes may have the file open (the server, and commands beside it), so a writer takes its lock at once
(`begin immediate`) and waits for another's.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from wirechamber.errors import CloudError, Unavailable
from wirechamber.sqlite import FileGone, Presence, transaction, what_is_wrong

FILE = "state.db"
READERS = 2
# A command beside the server holds the write lock for milliseconds.
BUSY_TIMEOUT_S = 10.0
# What another process changed is seen after this long: sooner than a command that made the change has ended.
LOOK_EVERY_S = 0.005
MIGRATIONS = Path(__file__).parent / "migrations"

Result = TypeVar("Result")


class StoreTooNew(CloudError):
    """The file was written by a newer version of Wirechamber; install that version."""


class Database:
    """The file, its writer and its readers.

    Args:
        file: Made, and brought to the newest schema, if need be.

    Raises:
        StoreTooNew: A newer version wrote it.
        Unavailable: It is damaged, or locked for long.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            writer = connect(file)
            migrate(writer, file)
        except sqlite3.Error as problem:
            raise Unavailable(what_is_wrong(file, problem)) from None
        self._writer = writer
        self._durable: bool | None = None
        self._presence = Presence(file)
        self._write_thread = ThreadPoolExecutor(1, "store-writer")
        self._read_threads = ThreadPoolExecutor(READERS, "store-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = [writer]
        # For `revision`, on the loop's own thread.
        self._watcher = self._read_connection()
        self._data_version = -1
        self._look_at = 0.0
        self._revision: int = writer.execute("select value from revision").fetchone()[0]

    async def write(self, work: Callable[[sqlite3.Connection], Result], *, durable: bool = True) -> Result:
        """Performs `work` in one transaction on the writer's thread.

        Args:
            durable: Survives power loss too (`synchronous=FULL`); otherwise a killed process. What counts as a
                change of the store's revision is written so.

        Raises:
            Unavailable: The file can't be written; nothing was.
        """
        return await self._run(self._write_thread, lambda: self._transact(work, durable))

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Performs `work` on a reader's thread."""
        return await self._run(self._read_threads, lambda: work(self._reader()))

    def revision(self) -> int:
        """The revision as of the last commit here, and that of other processes a few milliseconds ago.

        Takes microseconds, on the calling thread.
        """
        now = time.monotonic()
        if now < self._look_at:
            return self._revision
        self._look_at = now + LOOK_EVERY_S
        # `data_version` changes when another connection has committed.
        (version,) = self._watcher.execute("pragma data_version").fetchone()
        if version != self._data_version:
            (value,) = self._watcher.execute("select value from revision").fetchone()
            # It only rises; the writer's thread may have been quicker.
            self._revision = max(self._revision, value)
            self._data_version = version
        return self._revision

    def accounts_changed(self, since_revision: int) -> list[str]:
        """Ids of users who, or whose tokens, changed after a revision; on the calling thread, as `revision`."""
        query = "select user from account_changed where changed > ?"
        return [user for (user,) in self._watcher.execute(query, (since_revision,))]

    def close(self) -> None:
        """Waits for what runs, and closes every connection."""
        self._write_thread.shutdown()
        self._read_threads.shutdown()
        for connection in reversed(self._connections):
            connection.close()

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        except sqlite3.IntegrityError:
            # What the caller wrote contradicts what is there; it knows what that means.
            raise
        except (sqlite3.Error, FileGone) as problem:
            raise Unavailable(f"the store can't be used: {problem}") from problem

    def _transact(self, work: Callable[[sqlite3.Connection], Result], durable: bool) -> Result:
        self._presence.check()
        if durable != self._durable:
            self._writer.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
            self._durable = durable
        with transaction(self._writer) as db:
            result = work(db)
            (revision,) = db.execute("select value from revision").fetchone() if durable else (self._revision,)
        self._revision = max(self._revision, revision)
        return result

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._read_connection()
        return connection

    def _read_connection(self) -> sqlite3.Connection:
        connection = connect(self._file)
        connection.execute("pragma query_only = on")
        self._connections.append(connection)
        return connection


def connect(file: Path) -> sqlite3.Connection:
    """A connection in autocommit mode; transactions are opened by `transaction`."""
    connection = sqlite3.connect(
        file, check_same_thread=False, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=128
    )
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma foreign_keys = on")
    connection.execute("pragma recursive_triggers = off")
    return connection


def migrate(db: sqlite3.Connection, file: Path, upto: int | None = None) -> None:
    """Brings the schema from any earlier version to the newest (or `upto`), each step in a transaction of its own."""
    steps = migrations()
    newest = max(steps)
    with transaction(db):
        (version,) = db.execute("pragma user_version").fetchone()
    if version > newest:
        db.close()
        raise StoreTooNew(f"{file} was written by a newer version of Wirechamber; run that version or a later one")
    for number in range(version + 1, (upto or newest) + 1):
        with transaction(db):
            # Another process may have been quicker.
            if db.execute("pragma user_version").fetchone()[0] >= number:
                continue
            for statement in statements(steps[number].read_text()):
                db.execute(statement)
            db.execute(f"pragma user_version = {number}")


def migrations() -> dict[int, Path]:
    """The steps by number, from their file names (`0001_first.sql`).

    Raises:
        ValueError: Two have the same number, so that one of them would be left out, or one is missing.
    """
    files = sorted(MIGRATIONS.glob("[0-9]*.sql"))
    if [int(file.name[:4]) for file in files] != list(range(1, len(files) + 1)):
        raise ValueError(f"the steps of the schema are not numbered one by one: {[file.name for file in files]}")
    return dict(enumerate(files, 1))


def statements(script: str) -> Iterator[str]:
    """The statements of a script: `executescript` would commit the transaction around it."""
    pending = ""
    for line in re.sub(r"(?m)^\s*--.*$", "", script).splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            if pending.strip():
                yield pending
            pending = ""
