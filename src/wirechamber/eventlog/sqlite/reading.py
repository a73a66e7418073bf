"""What a page of the log asks SQLite: a bounded number of rows, and whether anything is gone."""

from __future__ import annotations

import sqlite3
from typing import Any

from wirechamber.eventlog.base import Scope

# Rows that one page may look at: a rare prefix must not turn a read into a scan of the whole log.
MAX_SCAN = 5_000


def page_query(scope: Scope, after: int, newest: int, limit: int) -> tuple[str, list[Any], int]:
    """Looks at a bounded number of rows, and says of each whether the rest of the scope holds.

    Returns the query, its values, and how many rows it looks at.
    """
    where: list[str] = ["position > ?", "position <= ?"]
    values: list[Any] = [after, newest]
    if scope.owner is not None:
        where.append("owner = ?")
        values.append(scope.owner)
    matches: list[str] = ["1"]
    tested: list[Any] = []
    if scope.coreid is not None:
        matches.append("coreid = ?")
        tested.append(scope.coreid)
    if scope.prefix:
        # Not LIKE: that ignores case.
        matches.append("substr(name, 1, ?) = ?")
        tested += [len(scope.prefix), scope.prefix]
    test = " and ".join(matches)
    scanned = MAX_SCAN if tested else limit
    return (
        f"select position, {test}, iif({test}, record, null) from event where {' and '.join(where)}"
        f" order by position limit {scanned}",
        [*tested, *tested, *values],
        scanned,
    )


def trimmed_to(db: sqlite3.Connection, owner: str | None) -> int:
    """The position up to which events of the owner, or of anyone, are gone."""
    if owner is None:
        (position,) = db.execute("select trimmed_to from state").fetchone()
        return int(position)
    row = db.execute("select trimmed_to from usage where owner = ?", (owner,)).fetchone()
    return 0 if row is None else int(row[0])
