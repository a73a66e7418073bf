"""A new era: the log goes on beyond every position that was ever given, and no session of a device goes on.

Positions, and the record numbers of devices' sessions, must never be used twice. Whoever goes on with an older copy of
the files, or without some of them, does not know which ones were used since. So positions jump, readers are told of a
gap, and devices make new sessions.

They jump to where the time says, since the same copy can be put back twice: what the first one gave is not in it.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from wirechamber.datafolder.files import KEYS, LOG, RUN_FILE, STATE, FolderUnusable, known_of, looking_into, newest_of
from wirechamber.eventlog.sqlite.file import jump, open_file
from wirechamber.sqlite import transaction, what_is_wrong
from wirechamber.store.sqlite.database import Database

# The least that positions jump: those given in 80 days at 10,000 events a second.
ERA = 1 << 36
# Where eras are counted from: 2026-01-01, in seconds since 1970. For each second since then there are more positions,
# and more record numbers of a session, than can be given in one. 68 years of them fit into the whole numbers that
# JavaScript has (2^53), and into 48 bits.
BEGINNING_S = 1_767_225_600
POSITIONS_PER_S = 1 << 22
RECORDS_PER_S = 1 << 16
# A session counts its records in 48 bits (RFC 6347, section 4.1). The second part lets no message id that was used of
# late come again, since these are made of the lowest 16 bits.
RECORDS = (1 << 24) + (1 << 15)


def begin_era(folder: Path, beyond: int = 0) -> int:
    """Begins a new era in a data folder that no server runs on; returns how many sessions were ended.

    Missing databases are made, so that it goes on with what is there. The keys that are there are the right ones from
    now on, and what is missing of them is made anew.

    Args:
        beyond: A position that was given elsewhere.

    Raises:
        FolderUnusable: A file is damaged, or the key without which nothing can be read is missing.
    """
    state_file, log_file = folder / STATE, folder / LOG
    if state_file.exists() and not (folder / KEYS[0]).exists():
        raise FolderUnusable(
            f"{folder / KEYS[0]} is missing: put it back, or bring a backup of the whole folder back with `wirechamber "
            "restore`; without it what is sealed in state.db is lost"
        )
    Database(state_file).close()
    try:
        writer, _ = open_file(log_file, "full")
    except sqlite3.Error as problem:
        raise FolderUnusable(what_is_wrong(log_file, problem)) from None
    with looking_into(state_file) as state:
        known = known_of(state)
        with transaction(writer) as db:
            given = max(newest_of(db), known, beyond)
            base = jump(db, _positions_beyond(given), lost=True, beyond=given)
            db.execute("update state set clean = 1")
        writer.execute("pragma wal_checkpoint(truncate)")
        writer.close()
        with transaction(state) as db:
            ended: int = db.execute("delete from session").rowcount
            if not known:
                # A state that knows nothing of the log begins with what comes.
                db.execute("insert or replace into reader values ('dispatch', ?)", (str(base),))
            db.execute("delete from fact")
    (folder / RUN_FILE).unlink(missing_ok=True)
    return ended


def skip_ahead(folder: Path) -> None:
    """Lets positions, and the record numbers of sessions, jump: the files were copied, and maybe gone on with since."""
    with looking_into(folder / LOG) as log, transaction(log) as db:
        jump(db, _positions_beyond(newest_of(db)), lost=False)
    with looking_into(folder / STATE) as state, transaction(state) as db:
        db.execute(
            "update progress set send_limit = max(send_limit + ?1, ?2 + (send_limit + ?1 & 0xffff))",
            (RECORDS, RECORDS_PER_S * _age_s()),
        )


def _positions_beyond(given: int) -> int:
    """How many positions are left out after those that are known to have been given."""
    return max(ERA, POSITIONS_PER_S * _age_s() - given)


def _age_s() -> int:
    """Seconds since eras are counted; 0 for a clock that is behind."""
    return max(0, int(time.time()) - BEGINNING_S)
