"""Removing the past: each function is one short step on the writer's connection."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

# What one step removes at most, some 20 ms; appends go in between.
TRIM_ROWS = 1_000
TRIM_BYTES = 1 << 20
# An event that was stored more than this ahead of the present time was stamped by a clock that had been set wrong.
AHEAD_MS = 86_400_000

_encode = msgspec.json.Encoder().encode


class Front(NamedTuple):
    """The oldest event that is stamped with a time that can be true; those before it are as old at least."""

    position: int
    received_at: int


def front_of(db: sqlite3.Connection, latest: int) -> Front | None:
    """Passes over the events at the beginning of the log that are stamped later than `latest`: the clock was ahead."""
    query = "select position, received_at from event where received_at <= ? order by position limit 1"
    row = db.execute(query, (latest,)).fetchone()
    return None if row is None else Front(*row)


def trim_age(db: sqlite3.Connection, before_time: int, not_after: int, front: Front) -> int:
    """Removes a few of the events received before a time (milliseconds since 1970); returns how many."""
    # In order of position, which is nearly that of time: the first young event ends a step.
    rows = db.execute(
        "select position, owner, size, received_at < ? or position < ? from event"
        " where position <= ? order by position limit ?",
        (before_time, front.position if front.received_at < before_time else 0, not_after, TRIM_ROWS),
    ).fetchall()
    old: list[tuple[int, str, int]] = []
    taken = 0
    for position, owner, size, is_old in rows:
        if not is_old or taken > TRIM_BYTES:
            break
        old.append((position, owner, size))
        taken += size
    return _remove(db, old, everybody=True)


def over_quota(db: sqlite3.Connection, owner_bytes: int) -> list[str]:
    """The owners whose events take more than so many bytes."""
    return [owner for (owner,) in db.execute("select owner from usage where bytes > ?", (owner_bytes,))]


def trim_owner(db: sqlite3.Connection, owner: str, owner_bytes: int, not_after: int) -> int:
    """Removes a few of the owner's oldest events while they take more than so many bytes; returns how many."""
    (used,) = db.execute("select bytes from usage where owner = ?", (owner,)).fetchone()
    rows = db.execute(
        "select position, owner, size from event where owner = ? and position <= ? order by position limit ?",
        (owner, not_after, TRIM_ROWS),
    ).fetchall()
    over = []
    taken = 0
    for row in rows:
        if used - taken <= owner_bytes or taken > TRIM_BYTES:
            break
        over.append(row)
        taken += row[2]
    return _remove(db, over, everybody=False)


def _remove(db: sqlite3.Connection, rows: list[tuple[int, str, int]], *, everybody: bool) -> int:
    if not rows:
        return 0
    positions = [position for position, _, _ in rows]
    db.execute("delete from event where position in (select value from json_each(?))", (_encode(positions).decode(),))
    freed: dict[str, tuple[int, int]] = {}
    for position, owner, size in rows:
        before, upto = freed.get(owner, (0, 0))
        freed[owner] = (before + size, max(upto, position))
    # Each owner's row is found once: a step may be of as many owners as events.
    db.execute(
        "update usage set bytes = bytes - (freed.value ->> 1), trimmed_to = max(trimmed_to, freed.value ->> 2)"
        " from json_each(?) as freed where usage.owner = freed.value ->> 0",
        (_encode([(owner, size, upto) for owner, (size, upto) in freed.items()]).decode(),),
    )
    if everybody:
        db.execute("update state set trimmed_to = max(trimmed_to, ?)", (positions[-1],))
    return len(rows)
