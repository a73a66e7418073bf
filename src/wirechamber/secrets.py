"""The vault: what must be readable again, such as a webhook password, is kept encrypted, its key outside the database.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce. The purpose is authenticated, so a sealed value can't be moved
to another record.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wirechamber.errors import CloudError

KEY_FILE = "secret.key"
KEY_BYTES = 32
NONCE_BYTES = 12


class SecretsUnreadable(CloudError):
    """The key file is missing, damaged, open to others, or not the one that sealed this value."""


class Vault:
    """Seals and opens values with one key.

    Args:
        key: 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def open(cls, folder: Path) -> Vault:
        """The vault of a data folder; its key file (mode 0600) is made on first use.

        Raises:
            SecretsUnreadable: Others may read the key file, it is damaged, or it is gone while data is there.
        """
        file = folder / KEY_FILE
        if not file.exists():
            if (folder / "state.db").exists():
                raise SecretsUnreadable(
                    f"{file} is missing: put it back from your backup; without it the secrets in {folder} are lost"
                )
            create_private(file, os.urandom(KEY_BYTES))
        key = read_private(file)
        if len(key) != KEY_BYTES:
            raise SecretsUnreadable(f"{file} is damaged: put it back from your backup")
        return cls(key)

    def seal(self, plaintext: bytes, purpose: bytes) -> bytes:
        """The value, encrypted for one purpose (such as the id of the record it belongs to)."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, purpose)

    def unseal(self, sealed: bytes, purpose: bytes) -> bytes:
        """The value that was sealed for this purpose.

        Raises:
            SecretsUnreadable: Another key sealed it, or for another purpose, or it was changed.
        """
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose)
        except (InvalidTag, ValueError):
            raise SecretsUnreadable(f"a stored secret was sealed with another key than {KEY_FILE}") from None


def create_private(file: Path, content: bytes) -> None:
    """Makes a file that only its owner may read, whole or not at all, unless it is there already.

    Several processes may do so at once: one of them wins, and the others find its file.
    """
    # Written beside and renamed, so that a crash leaves no half of a key; `link` refuses to replace another's.
    draft = file.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
            made.write(content)
            made.flush()
            os.fsync(made.fileno())
        # Should another process have been quicker, its key is the one.
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_private(file: Path) -> bytes:
    """What is in a file that only its owner may read.

    Raises:
        SecretsUnreadable: Others may read it.
    """
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise SecretsUnreadable(f"{file} can be read by others; run: chmod 600 {file}")
    return file.read_bytes()
