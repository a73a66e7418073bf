"""A new era: the log goes on beyond every position that was ever given, and no session of a device goes on.

Positions, and the record numbers of devices' sessions, must never be used twice. Whoever goes on with an older copy of
the files, or without some of them, does not know which ones were used since. So positions jump, readers are told of a
gap, and devices make new sessions.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from wirechamber.datafolder.files import KEYS, LOG, RUN_FILE, STATE, FolderUnusable, known_of, looking_into
from wirechamber.eventlog.sqlite.file import jump, open_file
from wirechamber.sqlite import transaction, what_is_wrong
from wirechamber.store.sqlite.database import Database

# Positions given in 80 days at 10,000 events a second; 131,000 eras fit into the whole numbers that JavaScript has.
ERA = 1 << 36
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
            base = jump(db, ERA, lost=True, beyond=max(known, beyond))
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
        jump(db, ERA, lost=False)
    with looking_into(folder / STATE) as state, transaction(state) as db:
        db.execute("update progress set send_limit = send_limit + ?", (RECORDS,))
