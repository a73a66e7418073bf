"""One server per data folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wirechamber.errors import CloudError

LOCK_FILE = "server.lock"


class FolderInUse(CloudError):
    """Another server runs on this data folder; stop it, or choose another folder with WIRECHAMBER_DATA."""


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Makes this process the only server on the folder; the lock ends with the process, however it ends.

    Raises:
        FolderInUse: Another process holds it.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderInUse(
                f"another server runs on the data folder {folder}; stop it, or set WIRECHAMBER_DATA to another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)
