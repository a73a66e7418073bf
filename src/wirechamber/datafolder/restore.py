"""Bringing a backup back: checked, as a new era, with what was there kept aside."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from wirechamber.datafolder.backup import (
    FORMAT,
    MANIFEST,
    Manifest,
    Progress,
    copy_file,
    digest_of,
    sync_folder,
    write_file,
)
from wirechamber.datafolder.era import begin_era
from wirechamber.datafolder.files import KEY_FILE, LOG, STATE, UNFINISHED, FolderUnusable, looking_into, newest_of
from wirechamber.eventlog.lock import LOCK_FILE, hold_folder

DRAFT = "restore.draft"
ASIDE = "replaced-"


class Restored(Struct, frozen=True):
    """What was brought back.

    Attributes:
        aside: Where everything is that was in the data folder; None when it was empty.
        ended: How many sessions of devices ended.
    """

    manifest: Manifest
    aside: Path | None
    ended: int


def restore(backup: Path, folder: Path, progress: Progress) -> Restored:
    """Brings a backup back as the data folder, on which no server may run.

    Nothing is touched before the whole backup was checked and copied. A new era begins: see `era`.

    Raises:
        FolderUnusable: The backup is not whole, or the folder can't be written.
        FolderInUse: A server runs on the folder.
    """
    try:
        manifest = checked(backup, progress)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with hold_folder(folder):
            draft = folder / DRAFT
            shutil.rmtree(draft, ignore_errors=True)
            try:
                draft.mkdir(mode=0o700)
                for name in manifest.files:
                    progress(f"copying {name}", 0.0)
                    copy_file(backup / name, draft / name)
                    progress(f"copying {name}", 1.0)
                ended = begin_era(draft, beyond=_newest_in(folder))
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            return Restored(manifest, _put_in_place(folder, draft), ended)
    except OSError as problem:
        raise FolderUnusable(f"{problem.filename or folder} can't be used: {problem.strerror or problem}") from None


def checked(backup: Path, progress: Progress) -> Manifest:
    """The manifest of a backup that is whole.

    Raises:
        FolderUnusable: It is not.
    """
    try:
        manifest = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise FolderUnusable(f"{backup} is no backup: there is no {MANIFEST} in it") from None
    except (msgspec.DecodeError, OSError) as problem:
        raise FolderUnusable(f"{backup / MANIFEST} can't be read: {problem}") from None
    if manifest.format > FORMAT:
        raise FolderUnusable(
            f"{backup} was made by Wirechamber {manifest.wirechamber}; run that version or a later one"
        )
    missing = {STATE, LOG, KEY_FILE} - set(manifest.files)
    if missing:
        raise FolderUnusable(f"{backup} is not whole: {', '.join(sorted(missing))} is missing")
    for name, copied in manifest.files.items():
        file = backup / name
        if Path(name).name != name or file.is_symlink() or not file.is_file():
            raise FolderUnusable(f"{backup} is not whole: {name} is missing")
        if file.stat().st_size != copied.bytes or digest_of(file, progress) != copied.sha256:
            raise FolderUnusable(f"{file} is not as it was written: take another backup")
    return manifest


def _newest_in(folder: Path) -> int:
    if not (folder / LOG).exists():
        return 0
    with contextlib.suppress(FolderUnusable), looking_into(folder / LOG) as log:
        return newest_of(log)
    return 0


def _put_in_place(folder: Path, draft: Path) -> Path | None:
    """Moves what is there aside, and the draft into its place; an interruption is seen by the next start."""
    marker = folder / UNFINISHED
    marker.unlink(missing_ok=True)
    write_file(marker, b"")
    sync_folder(folder)
    stay = (LOCK_FILE, UNFINISHED, DRAFT)
    there = [each for each in folder.iterdir() if each.name not in stay and not each.name.startswith(ASIDE)]
    aside = None
    if there:
        aside = folder / f"{ASIDE}{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime())}"
        number = 1
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{aside.name.partition('_')[0]}_{number}")
        aside.mkdir(mode=0o700)
        for each in there:
            each.replace(aside / each.name)
    owner = folder.stat()
    for each in list(draft.iterdir()):
        if os.geteuid() == 0:
            # Root may bring back what another user's server runs on.
            os.chown(each, owner.st_uid, owner.st_gid)
        each.replace(folder / each.name)
    draft.rmdir()
    sync_folder(folder)
    marker.unlink()
    return aside
