"""What a page of the log asks SQLite: a bounded number of rows, and whether anything is gone."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from wirechamber.eventlog.base import Cursor, Entry, Scope
from wirechamber.eventlog.sqlite.indexing import UNINDEXED, indexed_to
from wirechamber.eventlog.sqlite.rows import event_of

# Rows that one page may look at, a few milliseconds' work: a rare prefix must not turn a read into a scan of the whole
# log.
MAX_SCAN = 4_000
# And so much of a page's records: whoever is slow to take it keeps it in memory.
MAX_PAGE_BYTES = 256 * 1024


class Found(NamedTuple):
    """What a page found.

    Attributes:
        upto: The position up to which everything was looked at.
        more: Whether there may be more of the scope already.
    """

    entries: list[Entry]
    upto: int
    more: bool


def find(db: sqlite3.Connection, scope: Scope, after: int, newest: int, limit: int) -> Found:
    """The scope's entries after a position and up to `newest`, oldest first."""
    # What is searched: rows of `event` in order of position, an owner's of its index, or what a device published.
    source, searched, upto = "event", {"owner": scope.owner}, newest
    tested: dict[str, Any] = {"coreid": scope.coreid}
    if scope.coreid is not None and scope.coreid not in UNINDEXED and after < (indexed := indexed_to(db)):
        source, searched, tested = "published", {"coreid": scope.coreid}, {"owner": scope.owner}
        upto = min(indexed, newest)
    given = [(name, value) for name, value in searched.items() if value is not None]
    where = "".join(f" and {source}.{name} = ?" for name, _ in given)
    values = [value for _, value in given]
    test, wanted = _test(tested, scope.prefixes)
    if test:
        ahead = f"select position from {source} where position > ?{where} order by position limit 1 offset ?"
        row = db.execute(ahead, (after, *values, MAX_SCAN - 1)).fetchone()
        if row is not None:
            upto = min(upto, int(row[0]))
    joined = "event" if source == "event" else "published cross join event on event.position = published.position"
    rows = db.execute(
        f"select event.position, event.id, event.received_at, event.record from {joined}"
        f" where {source}.position > ? and {source}.position <= ?{where}{test} order by {source}.position limit ?",
        (after, upto, *values, *wanted, limit),
    )
    entries: list[Entry] = []
    size = 0
    for position, event_id, age_from, record in rows:
        entries.append(Entry(Cursor(str(position)), event_of(event_id, age_from, record)))
        size += len(record)
        if len(entries) == limit or size >= MAX_PAGE_BYTES:
            upto = position
            break
    return Found(entries, upto, upto < newest)


def _test(columns: dict[str, Any], prefixes: tuple[str, ...]) -> tuple[str, list[Any]]:
    given = [(name, value) for name, value in columns.items() if value is not None]
    test = "".join(f" and event.{name} = ?" for name, _ in given)
    values = [value for _, value in given]
    if "" not in prefixes:
        # Not LIKE: that ignores case.
        test += f" and ({' or '.join(['substr(event.name, 1, ?) = ?'] * len(prefixes))})"
        values += [value for prefix in prefixes for value in (len(prefix), prefix)]
    return test, values


def trimmed_to(db: sqlite3.Connection, owner: str | None) -> int:
    """The position up to which events of the owner, or of anyone, are gone."""
    if owner is None:
        (position,) = db.execute("select trimmed_to from state").fetchone()
        return int(position)
    row = db.execute("select trimmed_to from usage where owner = ?", (owner,)).fetchone()
    return 0 if row is None else int(row[0])
