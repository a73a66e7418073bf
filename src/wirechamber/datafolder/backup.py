"""A backup: a whole data folder in another one, from one moment, checked, while a server runs or not."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from wirechamber import __version__
from wirechamber.clock import CONFIRMED_FILE, STATE_FILE
from wirechamber.datafolder.files import (
    KEY_FILE,
    LOG,
    RUN_FILE,
    STATE,
    UNFINISHED,
    FolderUnusable,
    known_of,
    looking_into,
    newest_of,
)
from wirechamber.datafolder.listening import LISTENING_FILE
from wirechamber.delivery.underway import FILE as UNDER_WAY
from wirechamber.eventlog.lock import LOCK_FILE
from wirechamber.model.times import iso
from wirechamber.sqlite import what_is_wrong

MANIFEST = "manifest.json"
FORMAT = 1
# Pages that are copied at a time, between two reports of how far it has come: 4 MB.
PAGES = 1_024
CHUNK = 1 << 20
# What belongs to one machine and moment.
LEFT_OUT = (LOCK_FILE, RUN_FILE, LISTENING_FILE, STATE_FILE, CONFIRMED_FILE, UNFINISHED, MANIFEST, UNDER_WAY)

# What is being done with which file, and how much of it is done, from 0 to 1.
Progress = Callable[[str, float], None]


class Copied(Struct, frozen=True):
    """A file of a backup."""

    bytes: int
    sha256: str


class Manifest(Struct, frozen=True):
    """What a backup holds.

    Attributes:
        newest: The newest position of the log in it.
        schemas: The versions of the databases' schemas.
    """

    format: int
    wirechamber: str
    made_at: str
    newest: int
    schemas: dict[str, int]
    files: dict[str, Copied]


def back_up(folder: Path, to: Path, progress: Progress) -> Manifest:
    """Copies a data folder; `to` is made, and is there only once it is whole, checked and on disk.

    The state is looked at first and the log right after it, both before anything is copied. So the log holds all that
    the state knows of, whatever is published meanwhile; what came between the two is delivered again after a restore.

    Raises:
        FolderUnusable: There is nothing to copy, it is damaged, or the copy can't be written.
    """
    _check_places(folder, to)
    draft = to.parent / f".{to.name}.{os.getpid()}"
    try:
        # Of a backup that was killed; in containers processes have the same numbers again and again.
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        try:
            manifest = _copy(folder, draft, progress)
            if to.exists():
                to.rmdir()
            draft.replace(to)
            sync_folder(to.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as problem:
        raise FolderUnusable(f"{to} can't be written: {problem.strerror or problem}; nothing was left there") from None
    return manifest


def _check_places(folder: Path, to: Path) -> None:
    for name in (STATE, LOG, KEY_FILE):
        if not (folder / name).exists():
            raise FolderUnusable(f"there is no {name} in {folder}: it is no data folder, or was never served")
    if (folder / UNFINISHED).exists():
        raise FolderUnusable(f"restoring {folder} was interrupted: run `wirechamber restore` again")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FolderUnusable(f"{to} is there already; name a folder that is not there yet")
    if to.resolve().is_relative_to(folder.resolve()):
        raise FolderUnusable(f"{to} is inside the data folder; name one on another disk, if there is one")


def _copy(folder: Path, draft: Path, progress: Progress) -> Manifest:
    with ExitStack() as stack:
        state = stack.enter_context(_at_one_moment(folder / STATE))
        log = stack.enter_context(_at_one_moment(folder / LOG))
        for name, db in ((STATE, state), (LOG, log)):
            _copy_database(db, draft / name, name, progress)
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.startswith((STATE, LOG)) and file.name not in LEFT_OUT:
            copy_file(file, draft / file.name)
    schemas = {name: _checked(draft / name, progress) for name in (STATE, LOG)}
    with looking_into(draft / STATE, immutable=True) as state, looking_into(draft / LOG, immutable=True) as log:
        known, newest = known_of(state), newest_of(log)
    if known > newest:
        raise FolderUnusable(f"{folder / LOG} ends before a position that {STATE} knows of; nothing was backed up")
    files = {file.name: Copied(file.stat().st_size, digest_of(file, progress)) for file in sorted(draft.iterdir())}
    manifest = Manifest(FORMAT, __version__, iso(time.time_ns() // 1_000_000), newest, schemas, files)
    write_file(draft / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    sync_folder(draft)
    return manifest


@contextmanager
def _at_one_moment(file: Path) -> Iterator[sqlite3.Connection]:
    """A database as it is now, whoever writes to it meanwhile.

    A copy that begins a transaction of its own for each step would begin anew with every write of the server.
    """
    with looking_into(file) as db:
        db.execute("begin")
        db.execute("select count(*) from sqlite_master").fetchone()
        yield db


def _copy_database(source: sqlite3.Connection, to: Path, name: str, progress: Progress) -> None:
    os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    target = sqlite3.connect(to, isolation_level=None)
    try:
        # Synced as a whole at the end.
        target.execute("pragma synchronous = off")
        target.execute("pragma journal_mode = off")
        source.backup(
            target,
            pages=PAGES,
            progress=lambda _, remaining, total: progress(f"copying {name}", 1 - remaining / max(1, total)),
        )
    except sqlite3.Error as problem:
        raise FolderUnusable(what_is_wrong(to, problem)) from None
    finally:
        target.close()
    _sync(to)


def _checked(file: Path, progress: Progress) -> int:
    """Checks a copied database; returns the version of its schema."""
    progress(f"checking {file.name}", 0.0)
    with looking_into(file, immutable=True) as db:
        (found,) = db.execute("pragma integrity_check(1)").fetchone()
        if found != "ok":
            raise FolderUnusable(f"{file.name} is damaged: {found}; nothing was backed up")
        version: int = db.execute("pragma user_version").fetchone()[0]
    progress(f"checking {file.name}", 1.0)
    return version


def digest_of(file: Path, progress: Progress) -> str:
    """The SHA-256 of a file, in hex."""
    whole, done = max(1, file.stat().st_size), 0
    digest = hashlib.sha256()
    with file.open("rb") as source:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(f"summing {file.name}", done / whole)
    return digest.hexdigest()


def copy_file(source: Path, to: Path) -> None:
    """Copies a file's content, for its owner alone, and has it on disk."""
    with source.open("rb") as content, open(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        shutil.copyfileobj(content, copy, CHUNK)
    _sync(to)


def write_file(file: Path, content: bytes) -> None:
    """Writes a new file for its owner alone, and has it on disk."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
        made.write(content)
    _sync(file)


def sync_folder(folder: Path) -> None:
    """Has the names in a folder on disk."""
    with contextlib.suppress(OSError):
        _sync(folder)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
