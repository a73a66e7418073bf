"""A session that outlives its process: a file with its keys and counters.

Numbers of records are never used twice under one key (RFC 6655, section 3), whenever the process ends. So numbers are
reserved: the file names the first number that no process has used or may still use, and it is on the disk before any
number above the last one is. After an unclean end the next process goes on there; the gap means nothing to the cloud.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from wirechamber.device.errors import BadFile, SessionInUse
from wirechamber.device.keepalive import Learned
from wirechamber.protocols.deviceos.keepalive import KeepAlive
from wirechamber.protocols.dtls import SessionState

FORMAT = 1


class Wanted(Struct, frozen=True):
    """A subscription: which events the device wants.

    Attributes:
        binary: Those that are not text, too.
        structured: As objects instead of their JSON text.
    """

    prefix: str
    binary: bool = False
    structured: bool = False


class Told(Struct, frozen=True):
    """What the cloud has acknowledged in this session, so that it need not be told again (device-protocol.md, 11).

    Attributes:
        hello, system, application: Checksums of what was sent; None: it was not.
        keep_alive: How the device is kept in touch with; None: as usual.
        tokens: By which events come for each of `wanted`, in plain CoAP (RFC 7641, section 3.2). In that of Device OS:
            none.
    """

    hello: int | None = None
    system: int | None = None
    application: int | None = None
    wanted: tuple[Wanted, ...] = ()
    keep_alive: KeepAlive | None = None
    tokens: tuple[bytes, ...] = ()


class StoredSession(Struct, frozen=True):
    """Everything that is needed to go on without a handshake. It is secret.

    Attributes:
        fingerprint: Of the device's id and both keys: with others the session is not used.
        next_sequence: The first record number, and so message id, that certainly was not used.
        top: The highest record number that was received; none up to it is taken again.
        learned: For how long the way back to the device stays open.
    """

    fingerprint: bytes
    state: SessionState
    next_sequence: int
    top: int
    told: Told = Told()
    learned: Learned | None = None
    format: int = FORMAT


class SessionFile:
    """The file, kept locked while it is open.

    Args:
        path: Made with mode 0600. Beside it there will be `path.lock`.

    Raises:
        SessionInUse: Another process has it open.
        BadFile: It can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The file itself is replaced with each write, so the lock is on one that stays.
        lock = path.with_name(path.name + ".lock")
        try:
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise BadFile(f"{lock} can't be opened: {problem.strerror}") from problem
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SessionInUse(f"another process uses the session in {path}") from None

    def close(self) -> None:
        """Lets another process have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def load(self, fingerprint: bytes) -> StoredSession | None:
        """The session; None when there is none, it can't be read, or it is of other keys: then a new one is made."""
        try:
            stored = msgspec.json.decode(self._path.read_bytes(), type=StoredSession)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            return None
        except OSError as problem:
            raise BadFile(f"{self._path} can't be read: {problem.strerror}") from problem
        return stored if stored.format == FORMAT and stored.fingerprint == fingerprint else None

    def save(self, stored: StoredSession | None) -> None:
        """Replaces the file; once this returns, it stays so even without power.

        Raises:
            BadFile: It can't be written. Nothing may be sent then.
        """
        try:
            if stored is None:
                self._path.unlink(missing_ok=True)
            else:
                self._replace(msgspec.json.encode(stored))
            self._sync_folder()
        except OSError as problem:
            raise BadFile(f"{self._path} can't be written: {problem.strerror}") from problem

    def _replace(self, data: bytes) -> None:
        new = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        new.replace(self._path)

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
