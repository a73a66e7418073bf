"""Device keys and claim codes."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from wirechamber.errors import NotFound
from wirechamber.model.keys import ClaimCode, DeviceKeys
from wirechamber.secrets import Vault
from wirechamber.store.base import MAX_CLAIM_CODES
from wirechamber.store.sqlite.database import Database

Result = TypeVar("Result")

KEYS = "select public_key, psk, changed_at, bound_by, refused from device_key where device = ?"


class SqliteKeys:
    """`Keys` of the store's interface."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def get(self, device_id: str) -> DeviceKeys | None:
        """The keys of a device."""
        return await self._database.read(lambda db: self._read(db, device_id))

    async def set(self, keys: DeviceKeys) -> bool:
        """Replaces the record; the triggers of the table end the device's sessions."""

        def work(db: sqlite3.Connection) -> bool:
            old = self._read(db, keys.device)
            same = old is not None and (old.public_key, old.psk) == (keys.public_key, keys.psk)
            if same:
                # The keys themselves are left alone: touching them would end the device's sessions.
                who = (keys.bound_by, _text(keys.refused), keys.device)
                db.execute("update device_key set bound_by = ?, refused = ? where device = ?", who)
            else:
                self._write(db, keys)
            return not same

        return await self._put(work, keys.device)

    async def bind(self, keys: DeviceKeys) -> DeviceKeys:
        """Stores them if there is none."""

        def work(db: sqlite3.Connection) -> DeviceKeys:
            old = self._read(db, keys.device)
            if old is not None and (old.public_key is not None or old.psk is not None):
                return old
            if old is not None and old.refused is not None and old.refused == keys.public_key:
                return old
            self._write(db, keys)
            return keys

        return await self._put(work, keys.device)

    async def _put(self, work: Callable[[sqlite3.Connection], Result], device: str) -> Result:
        try:
            return await self._database.write(work)
        except sqlite3.IntegrityError:
            raise NotFound(f"there is no device {device}") from None

    def _read(self, db: sqlite3.Connection, device: str) -> DeviceKeys | None:
        row = db.execute(KEYS, (device,)).fetchone()
        if row is None:
            return None
        public_key, psk, changed_at, bound_by, refused = row
        return DeviceKeys(
            device=device,
            public_key=None if public_key is None else base64.b64decode(public_key),
            psk=None if psk is None else self._vault.unseal(base64.b64decode(psk), _purpose(device)),
            changed_at=changed_at,
            bound_by=bound_by,
            refused=None if refused is None else base64.b64decode(refused),
        )

    def _write(self, db: sqlite3.Connection, keys: DeviceKeys) -> None:
        sealed = None if keys.psk is None else self._vault.seal(keys.psk, _purpose(keys.device))
        db.execute(
            "insert into device_key (device, public_key, psk, changed_at, bound_by, refused) values (?, ?, ?, ?, ?, ?)"
            " on conflict (device) do update set public_key = excluded.public_key, psk = excluded.psk,"
            " changed_at = excluded.changed_at, bound_by = excluded.bound_by, refused = excluded.refused",
            (
                keys.device,
                _text(keys.public_key),
                _text(sealed),
                keys.changed_at,
                keys.bound_by,
                _text(keys.refused),
            ),
        )


def _purpose(device: str) -> bytes:
    return b"psk " + device.encode()


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


SPARE_CODES = """
delete from claim_code where digest in (
    select digest from claim_code where owner = ? order by created_at desc, digest limit -1 offset ?
)
"""


class SqliteClaims:
    """`Claims` of the store's interface."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, code: ClaimCode) -> None:
        """Stores a new code; where its owner has too many, the oldest goes."""
        values = (code.digest, code.owner, code.created_at, code.expires_at, code.device)

        def work(db: sqlite3.Connection) -> None:
            db.execute(SPARE_CODES, (code.owner, MAX_CLAIM_CODES - 1))
            db.execute("insert into claim_code values (?, ?, ?, ?, ?)", values)

        await self._database.write(work)

    async def redeem(self, digest: bytes, device_id: str, now: int) -> ClaimCode | None:
        """Marks a code as used by a device."""

        def work(db: sqlite3.Connection) -> ClaimCode | None:
            row = db.execute(
                "update claim_code set device = ?2 where digest = ?1 and expires_at > ?3"
                " and coalesce(device, ?2) = ?2 returning owner, created_at, expires_at",
                (digest, device_id, now),
            ).fetchone()
            if row is None:
                return None
            owner, created_at, expires_at = row
            return ClaimCode(digest=digest, owner=owner, created_at=created_at, expires_at=expires_at, device=device_id)

        return await self._database.write(work)

    async def remove_expired(self, now: int) -> int:
        """Forgets codes whose time is over."""
        query = "select exists (select 1 from claim_code where expires_at <= ?)"
        (some,) = await self._database.read(lambda db: db.execute(query, (now,)).fetchone())
        if not some:
            return 0
        return await self._database.write(
            lambda db: db.execute("delete from claim_code where expires_at <= ?", (now,)).rowcount
        )
