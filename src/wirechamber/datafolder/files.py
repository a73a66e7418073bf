"""Which files a data folder has, and looking into its databases without opening them for good."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from wirechamber.errors import CloudError
from wirechamber.eventlog.sqlite import FILE as LOG
from wirechamber.secrets import KEY_FILE
from wirechamber.services.serverkeys import EC_FILE, RSA_FILE
from wirechamber.sqlite import what_is_wrong
from wirechamber.store.sqlite.database import FILE as STATE

KEYS = (KEY_FILE, EC_FILE, RSA_FILE)
FACTS = "fact"
# What the last server left.
RUN_FILE = "run.json"
# There while files are moved into their places.
UNFINISHED = "restore.unfinished"


class FolderUnusable(CloudError):
    """The data folder can't be used as it is; the text says why, and what to do."""


@contextmanager
def looking_into(file: Path, *, immutable: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection to a database that exists.

    Args:
        immutable: Nobody writes to it, and nothing is to be left beside it.

    Raises:
        FolderUnusable: It is damaged, or can't be read.
    """
    how = "immutable=1" if immutable else "mode=rw"
    try:
        db = sqlite3.connect(f"file:{quote(str(file))}?{how}", uri=True, timeout=10, isolation_level=None)
        try:
            yield db
        finally:
            db.close()
    except sqlite3.Error as problem:
        raise FolderUnusable(what_is_wrong(file, problem)) from None


def run_number(file: Path) -> int:
    """The number of the server's run that a database was last opened by; 0 for one that never was.

    Read without what is in its `-wal`, which may belong to another copy. No connection of this process may be open: its
    locks would be lost.

    Raises:
        FolderUnusable: It can't be read.
    """
    try:
        with file.open("rb") as database:
            # https://www.sqlite.org/fileformat2.html, section 1.3: the application id.
            return int.from_bytes(database.read(100)[68:72], "big")
    except OSError as problem:
        raise FolderUnusable(f"{file} can't be read: {problem.strerror}") from None


def put_run_number(file: Path, number: int) -> bool:
    """Writes a number into a database; returns whether it is in its very file now, and on disk.

    Raises:
        FolderUnusable: It can't be written.
    """
    with looking_into(file) as db:
        db.execute("pragma synchronous = full")
        db.execute(f"pragma application_id = {number}")
        # Whoever reads an older state of it just now keeps it from being complete.
        busy, written, copied = db.execute("pragma wal_checkpoint(passive)").fetchone()
        return not busy and written == copied


def has_table(db: sqlite3.Connection, name: str) -> bool:
    """Whether there is a table of that name."""
    query = "select exists (select 1 from sqlite_master where type = 'table' and name = ?)"
    return bool(db.execute(query, (name,)).fetchone()[0])


def newest_of(log: sqlite3.Connection) -> int:
    """The newest position that the log has given; 0 when it has given none."""
    if not has_table(log, "state"):
        return 0
    (counted,) = log.execute("select newest from state").fetchone()
    (last,) = log.execute("select max(position) from event").fetchone()
    newest: int = max(counted, last or 0)
    return newest


def known_of(state: sqlite3.Connection) -> int:
    """The newest position of the log that the state knows of: the log must have come as far."""
    if not has_table(state, "reader"):
        return 0
    (known,) = state.execute("select max(cast(cursor as integer)) from reader").fetchone()
    return known or 0


def revision_of(state: sqlite3.Connection) -> int:
    """How often users, tokens, devices, keys or integrations were changed."""
    if not has_table(state, "revision"):
        return 0
    (revision,) = state.execute("select value from revision").fetchone()
    return int(revision)


def facts_of(state: sqlite3.Connection) -> dict[str, str]:
    """What was noted of the folder's other files."""
    return dict(state.execute("select name, value from fact").fetchall()) if has_table(state, FACTS) else {}


__all__ = [
    "EC_FILE", "KEYS", "KEY_FILE", "LOG", "RSA_FILE", "RUN_FILE", "STATE", "UNFINISHED", "FolderUnusable", "facts_of",
    "has_table", "known_of", "looking_into", "newest_of", "put_run_number", "revision_of",
    "run_number",
]  # fmt: skip
