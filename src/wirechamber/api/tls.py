"""The certificate that the API is served with, and its renewal."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import structlog

from wirechamber.errors import BadInput
from wirechamber.settings import Settings

_log = structlog.get_logger("wirechamber.api")

# The certificate's files are looked at this often.
CHECK_S = 2.0


class _KeyEncrypted(Exception):
    """OpenSSL asks for a pass phrase."""


class Certificate:
    """A certificate with its key, from two files.

    Attributes:
        context: What a new connection is served with. Each reload makes another one: a context that has held a key of
            one type goes on to prefer it after one of another type was loaded.

    Raises:
        BadInput: The files hold no certificate with its key, or the key is encrypted.
    """

    def __init__(self, settings: Settings) -> None:
        self._files = (settings.tls_cert, settings.tls_key)
        # Before the files are read: what changes meanwhile is seen as a change.
        self._seen = self._stamps()
        self.context = self._load()

    async def renew(self) -> None:
        """Follows the files for ever; new connections get what is in them, open ones go on."""
        while True:
            await asyncio.sleep(CHECK_S)
            now = self._stamps()
            if now == self._seen:
                continue
            try:
                self.context = await asyncio.to_thread(self._load)
            except BadInput as problem:
                # Half written, or wrong: the old one stays in use, and the next look tries again.
                _log.warning("certificate_not_reloaded", why=problem.description)
                continue
            self._seen = now
            _log.info("certificate_reloaded")

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate, key = self._files
        check_files(certificate, key)
        try:
            context.load_cert_chain(certificate, key, password=_no_pass_phrase)
        except _KeyEncrypted:
            raise BadInput(
                f"the key {key} (tls_key) is encrypted; write it without a pass phrase, for example with"
                " `openssl pkey -in KEY -out PLAIN`, and let only this user read it"
            ) from None
        except (OSError, ValueError) as problem:
            if getattr(problem, "reason", "") == "KEY_VALUES_MISMATCH":
                raise BadInput(f"the key {key} (tls_key) is not that of the certificate {certificate}") from None
            raise BadInput(f"the certificate can't be used (tls_cert, tls_key): {problem}") from None
        return context

    def _stamps(self) -> list[Any]:
        found: list[Any] = []
        for name in self._files:
            with suppress(OSError):
                status = Path(name).stat()
                found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        return found


def _no_pass_phrase() -> NoReturn:
    # Without this, OpenSSL would ask for it on the terminal, and everything would wait.
    raise _KeyEncrypted


def check_files(certificate: str, key: str) -> None:
    """Raises BadInput when one of the files can't be read, or holds nothing of the sort."""
    _check(certificate, "tls_cert", b"CERTIFICATE")
    _check(key, "tls_key", b"PRIVATE KEY")


def _check(file: str, setting: str, what: bytes) -> None:
    """Raises BadInput, with the file's name, when it can't be read or holds nothing of the sort."""
    try:
        content = Path(file).read_bytes()
    except OSError as problem:
        raise BadInput(f"the file {file} ({setting}) can't be read: {problem.strerror}") from None
    if b"-----BEGIN " not in content or what not in content:
        raise BadInput(f"the file {file} ({setting}) holds no {what.decode().lower()} in PEM")
