"""The vault: what it seals only it can open, for the same purpose, with a key that only its owner can read."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wirechamber.secrets import KEY_FILE, SecretsUnreadable, Vault


def test_what_is_sealed_comes_back(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    sealed = vault.seal("pässword".encode(), b"hook-1")
    assert b"ssword" not in sealed
    assert vault.seal("pässword".encode(), b"hook-1") != sealed
    assert Vault.open(tmp_path).unseal(sealed, b"hook-1") == "pässword".encode()


def test_changed_moved_or_foreign_values_are_refused(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path)
    sealed = vault.seal(b"secret", b"hook-1")
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(SecretsUnreadable):
            vault.unseal(bytes(changed), b"hook-1")
    for damaged in (b"", sealed[:5], sealed[:-1], sealed + b"x"):
        with pytest.raises(SecretsUnreadable):
            vault.unseal(damaged, b"hook-1")
    with pytest.raises(SecretsUnreadable):
        vault.unseal(sealed, b"hook-2")
    with pytest.raises(SecretsUnreadable, match=KEY_FILE):
        Vault(b"\0" * 32).unseal(sealed, b"hook-1")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    Vault.open(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(SecretsUnreadable, match="chmod 600"):
        Vault.open(tmp_path)


def test_a_lost_key_is_told_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    with pytest.raises(SecretsUnreadable, match="backup"):
        Vault.open(tmp_path)
    assert not (tmp_path / KEY_FILE).exists()


def test_a_damaged_key_is_told(tmp_path: Path) -> None:
    Vault.open(tmp_path)
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(SecretsUnreadable, match="damaged"):
        Vault.open(tmp_path)


def test_who_comes_first_makes_the_key_for_all(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as other:
        sealed = other.submit(lambda: Vault.open(tmp_path).seal(b"x", b"p")).result()
    assert Vault.open(tmp_path).unseal(sealed, b"p") == b"x"
    assert [file.name for file in tmp_path.iterdir()] == [KEY_FILE]
