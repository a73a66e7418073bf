"""Whether the files of a data folder belong together: looked at before a server starts on it.

Each of them can be put back, lost or damaged alone. What would then be skipped or repeated in silence is refused, with
one line that says what is wrong and how to go on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct, structs

from wirechamber.datafolder.backup import sync_folder
from wirechamber.datafolder.era import skip_ahead
from wirechamber.datafolder.files import (
    EC_FILE,
    KEY_FILE,
    LOG,
    RSA_FILE,
    RUN_FILE,
    STATE,
    UNFINISHED,
    FolderUnusable,
    facts_of,
    has_table,
    known_of,
    looking_into,
    newest_of,
    put_run_number,
    revision_of,
    run_number,
)
from wirechamber.services.identity import fingerprint
from wirechamber.services.serverkeys import ServerKeys
from wirechamber.sqlite import transaction
from wirechamber.store.sqlite.database import connect

_log = structlog.get_logger("wirechamber")

# What a start needs at least.
PROBE_BYTES = 64 * 1024
WAY_OUT = (
    "put the right file back, bring a backup back with `wirechamber restore`, or go on with what is there: "
    "`wirechamber server new-era`"
)


class _Mark(Struct, frozen=True):
    """A file as the last server left it. `changed` (ns) is null while it runs, or when it did not end in order."""

    inode: int
    changed: int | None = None


class _Run(Struct, frozen=True):
    """What the last server left: its databases, and the newest position that the state knew of.

    Attributes:
        revision: That of the state.
        numbers: Those that its databases may bear: one for each run of a server, or several when it ended while a new
            one was written into them. Others bear the number of an earlier run, whatever their times and inodes say.
    """

    files: dict[str, _Mark]
    known: int
    revision: int = 0
    numbers: frozenset[int] = frozenset()


def prepare(folder: Path) -> None:
    """Makes the folder, with mode 0700, if it is not there yet, and sees that it can be written to.

    Raises:
        FolderUnusable: It can't.
    """
    probe = folder / f"write-probe-{os.getpid()}"
    with written(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # More than an empty file, which a full disk takes.
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Says in one line why files of the folder can't be written.

    Raises:
        FolderUnusable: They can't.
    """
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FolderUnusable(f"the disk of the data folder {folder} is full; make room and start again") from None
        raise FolderUnusable(
            f"the data folder {folder} can't be written: {problem.strerror}; give the user that the server runs as the "
            "right to write to it, or set WIRECHAMBER_DATA to another folder"
        ) from None


def check(folder: Path, *, may_lose_the_newest: bool) -> int:
    """Looks at a folder that this process holds the lock of; returns the newest position that its state knows of.

    Args:
        may_lose_the_newest: Durability is `normal`: a loss of power takes the newest events, which is no reason to
            refuse. Positions jump, so that whoever saw one of them is told.

    Raises:
        FolderUnusable: Its files do not belong together.
    """
    if (folder / UNFINISHED).exists():
        raise FolderUnusable(f"restoring {folder} was interrupted: run `wirechamber restore` again")
    state_file, log_file = folder / STATE, folder / LOG
    last = _last_run(folder)
    older = set() if last is None else _older(folder, last)
    # First of all: opening it would write what does not belong there into it.
    for file in (log_file, state_file):
        wal = file.with_name(f"{file.name}-wal")
        if file.name in older and wal.exists() and wal.stat().st_size:
            raise FolderUnusable(
                f"{file} is another copy than the one that {wal.name} belongs to, and would be damaged by it: put the "
                f"right file back, or remove {wal.name} and start again"
            )
    if not state_file.exists():
        if log_file.exists():
            with looking_into(log_file) as log:
                newest = newest_of(log)
            if newest:
                raise FolderUnusable(f"{state_file} is missing beside {LOG}, which holds events: {WAY_OUT}")
        return 0
    with looking_into(state_file) as state:
        known, facts, linked, revision = known_of(state), facts_of(state), _has_sessions(state), revision_of(state)
    if not (folder / KEY_FILE).exists():
        raise FolderUnusable(
            f"{folder / KEY_FILE} is missing beside {STATE}: put it back, or bring a backup of the folder back with "
            f"`wirechamber restore`; without it the secrets in {folder} are lost"
        )
    _check_server_keys(folder, facts, linked=linked)
    newest = _check_log(folder, known, may_lose_the_newest=may_lose_the_newest)
    if newest and not known and not facts:
        # Made by a command after the right one was lost: no server ran on it.
        raise FolderUnusable(f"{state_file} knows nothing of the events in {LOG}: {WAY_OUT}")
    if STATE in older or (last is not None and (known < last.known or revision < last.revision)):
        raise FolderUnusable(
            f"{state_file} is an older copy than the one that the last server left, or lost its end: deliveries that "
            f"were made would be repeated; {WAY_OUT}"
        )
    if LOG in older:
        raise FolderUnusable(
            f"{log_file} is an older copy than the one that the last server left: events that were acknowledged since "
            f"are not in it; {WAY_OUT}"
        )
    if last is not None and _was_copied(folder, last):
        _log.warning("folder_copied", folder=str(folder), why="positions and record numbers jump, lest one comes twice")
        skip_ahead(folder)
    return known


def server_keys(folder: Path) -> ServerKeys:
    """The keys by which devices know this cloud, to be made if they were never used.

    Raises:
        FolderUnusable: They were used, and are lost.
    """
    if (folder / STATE).exists():
        with looking_into(folder / STATE) as state:
            facts, linked = facts_of(state), _has_sessions(state)
        _check_server_keys(folder, facts, linked=linked)
    return ServerKeys(folder)


def _has_sessions(state: sqlite3.Connection) -> bool:
    return has_table(state, "session") and state.execute("select 1 from session limit 1").fetchone() is not None


def _check_server_keys(folder: Path, facts: dict[str, str], *, linked: bool) -> None:
    for name, tcp in ((EC_FILE, False), (RSA_FILE, True)):
        file, known = folder / name, facts.get(name)
        if not file.exists():
            if known is not None or (linked and not tcp):
                raise FolderUnusable(f"{file} is missing, the key by which devices know this cloud: {WAY_OUT}")
        elif known is not None and known != fingerprint(ServerKeys(folder).public(tcp=tcp)):
            raise FolderUnusable(f"{file} is another key than the one by which devices know this cloud: {WAY_OUT}")


def _check_log(folder: Path, known: int, *, may_lose_the_newest: bool) -> int:
    file = folder / LOG
    if not file.exists():
        if known:
            raise FolderUnusable(f"{file} is missing beside {STATE}, which knows of its events: {WAY_OUT}")
        return 0
    with looking_into(file) as log:
        newest = newest_of(log)
    if newest >= known:
        return newest
    if not may_lose_the_newest:
        raise FolderUnusable(
            f"{file} ends at position {newest}, and {STATE} knows of {known}: it is an older copy, or lost its end; "
            f"{WAY_OUT}"
        )
    _log.error("events_lost", after=newest, upto=known, why="a loss of power with durability normal, or an older copy")
    return newest


def _last_run(folder: Path) -> _Run | None:
    try:
        return msgspec.json.decode((folder / RUN_FILE).read_bytes(), type=_Run)
    except (OSError, msgspec.DecodeError):
        return None


def _older(folder: Path, last: _Run) -> set[str]:
    """The databases that are of an earlier run than the last one, by name."""
    if not last.numbers:
        return set()
    there = [name for name in (LOG, STATE) if (folder / name).exists()]
    return {name for name in there if run_number(folder / name) not in last.numbers}


def _was_copied(folder: Path, last: _Run) -> bool:
    """Whether the databases are others than those which the last server left, such as a copy that was put back.

    The time of the last change of a file's status can't be set, unlike that of its content.
    """
    for name, mark in last.files.items():
        try:
            found = (folder / name).stat()
        except OSError:
            continue
        if found.st_ino != mark.inode or (mark.changed is not None and found.st_ctime_ns != mark.changed):
            return True
    return False


def note_open(folder: Path) -> None:
    """Both databases are open: they are known again by their inodes until they are closed in order, and bear a number.

    Raises:
        FolderUnusable: They can't be written.
    """
    files = [folder / name for name in (LOG, STATE)]
    last = _last_run(folder)
    before: Set[int] = set() if last is None else last.numbers
    for file in files:
        with looking_into(file) as db:
            before = before | {db.execute("pragma application_id").fetchone()[0]}
    number = secrets.randbits(30) + 1
    # Each step is on disk before the next, so whenever the process ends, or power is lost, the numbers are those noted.
    _note(folder, closed=False, numbers=before | {number})
    if all(put_run_number(file, number) for file in files):
        _note(folder, closed=False, numbers={number})


def note_known(folder: Path, known: int, revision: int) -> None:
    """Notes how far the state has come, which is on disk already: by it is seen that it lost its end.

    Raises:
        OSError: It can't be written.
    """
    last = _last_run(folder)
    if last is not None:
        # Not synced: one that says less is none the worse.
        draft = folder / f"{RUN_FILE}.new"
        draft.write_bytes(msgspec.json.encode(structs.replace(last, known=known, revision=revision)))
        draft.replace(folder / RUN_FILE)


def note_closed(folder: Path) -> None:
    """Both databases were closed; if that can't be noted, the next start takes them for such as were not."""
    with contextlib.suppress(OSError, FolderUnusable):
        last = _last_run(folder)
        # Others that were put in their places meanwhile are not what this server left.
        if last is not None and not _was_copied(folder, last):
            _note(folder, closed=True, numbers=last.numbers)


def _note(folder: Path, *, closed: bool, numbers: Set[int]) -> None:
    with looking_into(folder / STATE) as state:
        known, revision = known_of(state), revision_of(state)
    marks = {}
    for name in (LOG, STATE):
        found = (folder / name).stat()
        # Commands change the state while no server runs.
        marks[name] = _Mark(found.st_ino, found.st_ctime_ns if closed and name == LOG else None)
    draft = folder / f"{RUN_FILE}.new"
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(_Run(marks, known, revision, frozenset(numbers))))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / RUN_FILE)
    sync_folder(folder)


def note_keys(folder: Path, *, tcp: bool) -> None:
    """Notes which keys devices know from now on."""
    keys = ServerKeys(folder)
    names = {EC_FILE: False} | ({RSA_FILE: True} if tcp else {})
    facts = [(name, fingerprint(keys.public(tcp=of_tcp))) for name, of_tcp in names.items()]
    db = connect(folder / STATE)
    try:
        # Each time: synced, it takes along what was not when the last server was killed, before that is relied upon.
        with transaction(db):
            db.executemany("insert or replace into fact values (?, ?)", facts)
    finally:
        db.close()
