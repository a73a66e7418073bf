"""What both SQLite backends need of `sqlite3`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# How often it is looked whether a file is there still.
LOOK_EVERY_S = 1.0


class FileGone(Exception):
    """The file of an open database was removed or replaced: what is written goes nowhere."""


class Presence:
    """Whether an open database is still the file of its name, and the file of its log (`-wal`) too.

    SQLite goes on with files that have no name any more, and everything is lost when they are closed.
    """

    def __init__(self, file: Path) -> None:
        self._files = (file, file.with_name(f"{file.name}-wal"))
        self._inodes: list[int | None] = [_inode(each) for each in self._files]
        self._look_at = 0.0
        self._gone: Path | None = None

    def check(self) -> None:
        """Raises FileGone when it is not; looks once a second."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self._gone = next(
                (
                    file
                    for file, inode in zip(self._files, self._inodes, strict=True)
                    if inode is not None and _inode(file) != inode
                ),
                None,
            )
        if self._gone is not None:
            raise FileGone(
                f"{self._gone} was removed or replaced while the server runs; stop it, and bring a backup back with "
                "`wirechamber restore`"
            )


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None


def what_is_wrong(file: Path, problem: sqlite3.Error) -> str:
    """What is wrong with a database and what to do, in one line."""
    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return f"the disk is full: {file} can't be written; make room and start again"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"{file} can't be written: {problem}; give the user that the server runs as the right to write to it"
    if code == sqlite3.SQLITE_IOERR:
        return f"{file} can't be read or written: {problem}; is the disk full, or failing?"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"{file} is damaged: {problem}; bring the folder back with `wirechamber restore`"
    return f"{file} can't be used: {problem}"


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A write transaction on a connection in autocommit mode, committed at the end or rolled back."""
    db.execute("begin immediate")
    try:
        yield db
        db.execute("commit")
    except BaseException:
        # Some errors, such as a full disk, have rolled back already.
        if db.in_transaction:
            db.execute("rollback")
        raise


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A read transaction on a connection in autocommit mode: all that is read in it is of one moment."""
    db.execute("begin")
    try:
        yield db
    finally:
        if db.in_transaction:
            db.execute("rollback")
