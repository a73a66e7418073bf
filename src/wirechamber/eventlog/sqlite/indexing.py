"""Which events a device published: a table that is written in large sorted steps, after the events.

An index would be one more page to write for each event of a fleet; sorted, many events of a step share a page. Readers
use the table up to where it is written, and look at the few rows beyond it themselves.
"""

from __future__ import annotations

import sqlite3

from wirechamber.model.events import BY_API, BY_CLOUD

# What clients see as publisher of events that are no device's. Nobody asks for these alone.
UNINDEXED = (BY_API, BY_CLOUD)
# Events of one step: some 5 ms, and one fsync.
STEP = 4_000
# Between two steps lies so many times what a step took, so that an older file is indexed beside everything else.
REST = 1.0
# Steps of one end: most starts then find everything indexed, and none is held up for long.
CLOSING_STEPS = 25


def indexed_to(db: sqlite3.Connection) -> int:
    """The position up to which every event is indexed."""
    (position,) = db.execute("select indexed_to from state").fetchone()
    return int(position)


def index_step(db: sqlite3.Connection, newest: int) -> int:
    """Indexes the next events, `STEP` of them at most; returns the position up to which every event is indexed."""
    after = indexed_to(db)
    ahead = "select position from event where position > ? order by position limit 1 offset ?"
    row = db.execute(ahead, (after, STEP - 1)).fetchone()
    upto = newest if row is None else int(row[0])
    db.execute(
        "insert or ignore into published select coreid, position from event where position > ? and position <= ?"
        " and coreid not in (?, ?) order by coreid, position",
        (after, upto, *UNINDEXED),
    )
    db.execute("update state set indexed_to = ?", (upto,))
    return upto
