"""What both SQLite backends need of `sqlite3`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


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
