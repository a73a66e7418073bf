"""`wirechamber backup` and `wirechamber restore`: the whole data folder."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from wirechamber.cli.files import reason
from wirechamber.cli.folder import opened
from wirechamber.cli.output import done, exit_code, fail
from wirechamber.cli.user import Data, Json
from wirechamber.datafolder.backup import back_up
from wirechamber.datafolder.restore import restore as bring_back
from wirechamber.errors import CloudError


def backup(
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put it; made, and must not be there yet.")],
    data: Data = None,
    json: Json = False,
) -> None:
    """Copy the whole data folder, keys included, as of one moment, and check the copy. A server may run on it."""
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        with _Shown() as shown:
            manifest = back_up(opened(data).data_folder, to.absolute(), shown.progress)
    except CloudError as problem:
        fail(problem.description, exit_code(problem))
    except OSError as problem:
        fail(f"{problem.filename or to} can't be used: {reason(problem)}")
    size = sum(file.bytes for file in manifest.files.values())
    done(
        f"{len(manifest.files)} files, {size / 1e6:.1f} MB, were backed up to {to}; `wirechamber restore` brings them "
        "back. Whoever reads them has every key and secret of this cloud.",
        json, folder=str(to), bytes=size, newest=manifest.newest, made_at=manifest.made_at,
    )  # fmt: skip


def restore(
    backup: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `wirechamber backup` made.")],
    data: Data = None,
    json: Json = False,
) -> None:
    """Bring a backup back as the data folder, on which no server may run. What is there is kept aside. Events get new
    positions, streams are told of a gap, and devices make new sessions by themselves."""
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        folder = opened(data, create=True).data_folder
        with _Shown() as shown:
            restored = bring_back(backup.absolute(), folder, shown.progress)
    except CloudError as problem:
        fail(problem.description, exit_code(problem))
    except OSError as problem:
        fail(f"{problem.filename or backup} can't be used: {reason(problem)}")
    aside = "" if restored.aside is None else f"; what was there is in {restored.aside}"
    done(
        f"the backup of {restored.manifest.made_at} was brought back to {folder}{aside}",
        json, made_at=restored.manifest.made_at, newest=restored.manifest.newest, forgotten=restored.ended,
        aside=None if restored.aside is None else str(restored.aside),
    )  # fmt: skip


class _Shown:
    """Shows how far it has come, on a terminal in one line, elsewhere a line for each thing that was done."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._percent = -1
        self._what = ""

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal and self._what:
            typer.echo("\r\x1b[K", err=True, nl=False)

    def progress(self, what: str, part: float) -> None:
        percent = int(part * 100)
        if (what, percent) == (self._what, self._percent):
            return
        if self._terminal:
            typer.echo(f"\r\x1b[K{what} {percent} %", err=True, nl=False)
        elif percent == 100:
            typer.echo(f"{what}: done", err=True)
        self._what, self._percent = what, percent


def _interrupted(*_: Any) -> None:
    # So that what is half made is removed.
    sys.exit(143)
