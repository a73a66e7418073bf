"""The log's file: opening it, and where positions go on."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Literal, NamedTuple

from wirechamber.errors import CloudError
from wirechamber.sqlite import transaction

FILE = "events.db"
SCHEMA_VERSION = 3
Durability = Literal["full", "normal"]

# After an unclean end, positions that a reader may have seen but that a power loss took away are jumped over.
SKIP = 1 << 24
# 1,000 pages is the default and costs an fsync of the database file every 4 MB; this is about 64 MB.
CHECKPOINT_PAGES = 16_000
# By position: the planner would walk the whole index of owners, at every start.
RECOUNT = """
insert into usage (owner, bytes) select owner, sum(size) from event not indexed where position > ? group by owner
on conflict (owner) do update set bytes = bytes + excluded.bytes
"""

# A hole that begins where another ends is told as one.
EXTENDED = "update hole set last = ?, lost = max(lost, ?) where last = ?"


class LogTooNew(CloudError):
    """The file was written by a newer version of Wirechamber; install that version."""


class Hole(NamedTuple):
    """Positions that were left out, both ends included.

    Attributes:
        lost: Whether there were events at some of them.
    """

    first: int
    last: int
    lost: bool


def open_file(file: Path, durability: Durability, known: int = 0) -> tuple[sqlite3.Connection, int]:
    """The writer's connection, its schema made if need be, and the newest position ever given.

    Args:
        known: A position that is known to have been given, whatever the file says.

    Raises:
        LogTooNew: A newer version wrote it.
        sqlite3.Error: It is damaged.
    """
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    writer = connect(file)
    writer.execute(f"pragma synchronous = {durability}")
    writer.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
    (version,) = writer.execute("pragma user_version").fetchone()
    if version > SCHEMA_VERSION:
        writer.close()
        raise LogTooNew(f"{file} was written by a newer version of Wirechamber; run that version or a later one")
    if version == 0:
        _run(writer, "schema.sql", SCHEMA_VERSION)
    elif version < SCHEMA_VERSION:
        # None of them takes longer with more events.
        for number in range(version + 1, SCHEMA_VERSION + 1):
            _run(writer, f"upgrade_{number}.sql", number)
    with transaction(writer) as db:
        counted, clean = db.execute("select newest, clean from state").fetchone()
        db.execute(RECOUNT, (counted,))
        newest = jump(db, 0 if clean else SKIP, lost=False, beyond=known)
        db.execute("update state set clean = 0")
    return writer, newest


def _run(writer: sqlite3.Connection, script: str, version: int) -> None:
    text = (Path(__file__).parent / script).read_text()
    writer.executescript(f"begin; {text}; pragma user_version = {version}; commit;")


def jump(db: sqlite3.Connection, by: int, *, lost: bool, beyond: int = 0) -> int:
    """Leaves out so many positions; returns the newest one that counts as given from now on.

    Args:
        lost: Events are known to be gone, so every reader who comes to these positions is told of a gap; otherwise only
            one who has been among them.
        beyond: A position that is known to have been given, whatever the log says: if it is newer, all up to there are
            lost, and left out too.
    """
    (counted,) = db.execute("select newest from state").fetchone()
    (last,) = db.execute("select max(position) from event").fetchone()
    newest: int = max(counted, last or 0)
    lost = lost or beyond > newest
    upto = max(newest, beyond) + (by or (SKIP if beyond > newest else 0))
    if upto > newest and not db.execute(EXTENDED, (upto, lost, newest)).rowcount:
        db.execute("insert into hole values (?, ?, ?)", (newest + 1, upto, lost))
    db.execute("update state set newest = ?", (upto,))
    return upto


def holes_of(db: sqlite3.Connection) -> list[Hole]:
    """The positions that were left out, in their order."""
    return [Hole(*row) for row in db.execute("select first, last, lost from hole order by first")]


def connect(file: Path) -> sqlite3.Connection:
    """A connection in autocommit mode; transactions are opened by `transaction`."""
    connection = sqlite3.connect(file, check_same_thread=False, timeout=10, cached_statements=64, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma cache_size = -16000")
    connection.execute("pragma mmap_size = 268435456")
    return connection
