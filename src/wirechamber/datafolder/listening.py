"""Where the server that runs on a data folder reaches devices, for commands beside it: it may have been started with
other settings than they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from wirechamber.eventlog.lock import FolderInUse, hold_folder

LISTENING_FILE = "listening.json"


class Listening(Struct, frozen=True):
    """What devices must be told.

    Attributes:
        tcp_port: 0: devices of the older generation are not listened to.
        device_host: Empty: it was not set.
    """

    udp_port: int
    tcp_port: int
    device_host: str


@contextmanager
def noted(folder: Path, where: Listening) -> Iterator[None]:
    """Notes it while the block lasts, on a folder that this process holds.

    Raises:
        OSError: It can't be written.
    """
    file = folder / LISTENING_FILE
    draft = file.with_name(f"{LISTENING_FILE}.new")
    draft.write_bytes(msgspec.json.encode(where))
    draft.replace(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """Removes what a server left that was killed."""
    (folder / LISTENING_FILE).unlink(missing_ok=True)


def found(folder: Path) -> Listening | None:
    """What a running server noted; None when none runs, or it listens to no devices yet."""
    try:
        noted_ = msgspec.json.decode((folder / LISTENING_FILE).read_bytes(), type=Listening)
    except (OSError, msgspec.DecodeError):
        return None
    try:
        with hold_folder(folder):
            # Nobody else does: whoever wrote it was killed.
            return None
    except FolderInUse:
        return noted_
