"""Configured integrations, their secrets sealed."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from msgspec import structs

from wirechamber.errors import Conflict, NotFound
from wirechamber.model.integrations import IntegrationRecord
from wirechamber.secrets import Vault
from wirechamber.store.base import IntegrationChanges
from wirechamber.store.sqlite.database import Database

_encode = msgspec.json.encode
_read_record = msgspec.json.Decoder(IntegrationRecord).decode
_read_secrets = msgspec.json.Decoder(dict[str, str]).decode

COLUMNS = "record, secrets, changed"


class SqliteIntegrations:
    """`Integrations` of the store's interface."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def add(self, record: IntegrationRecord) -> IntegrationRecord:
        """Stores a new one."""

        def work(db: sqlite3.Connection) -> IntegrationRecord:
            db.execute(
                "insert into integration (id, record, secrets, owner, created_at, changed) values (?, ?, ?, ?, ?, 0)",
                (*self._row(record), record.owner, record.created_at),
            )
            return self._with_revision(db, record)

        try:
            return await self._database.write(work)
        except sqlite3.IntegrityError as problem:
            if "FOREIGN" in str(problem):
                raise NotFound("there is no such user") from None
            raise Conflict(f"the integration {record.id} exists already") from None

    async def get(self, integration_id: str) -> IntegrationRecord | None:
        """The integration of that id."""
        row = await self._database.read(
            lambda db: db.execute(f"select {COLUMNS} from integration where id = ?", (integration_id,)).fetchone()
        )
        return None if row is None else self._record(row)

    async def of_owner(self, owner: str) -> list[IntegrationRecord]:
        """An owner's integrations, oldest first."""
        rows = await self._database.read(
            lambda db: db.execute(
                f"select {COLUMNS} from integration where owner = ? order by created_at, id", (owner,)
            ).fetchall()
        )
        return [self._record(row) for row in rows]

    async def update(self, record: IntegrationRecord) -> IntegrationRecord:
        """Replaces the record."""

        def work(db: sqlite3.Connection) -> IntegrationRecord:
            changed = db.execute("update integration set record = ?2, secrets = ?3 where id = ?1", self._row(record))
            if not changed.rowcount:
                raise NotFound("there is no such integration")
            return self._with_revision(db, record)

        return await self._database.write(work)

    async def remove(self, integration_id: str) -> bool:
        """Removes it and what belongs to it."""
        return await self._database.write(
            lambda db: db.execute("delete from integration where id = ?", (integration_id,)).rowcount > 0
        )

    async def changes(self, since_revision: int) -> IntegrationChanges:
        """What changed after a revision."""

        def work(db: sqlite3.Connection) -> tuple[int, list[Any], list[Any]]:
            # The revision first: what changes after it is reported again next time, which does no harm.
            (revision,) = db.execute("select value from revision").fetchone()
            changed = db.execute(f"select {COLUMNS} from integration where changed > ?", (since_revision,)).fetchall()
            removed = db.execute("select id from integration_removed where changed > ?", (since_revision,)).fetchall()
            return revision, changed, removed

        revision, changed, removed = await self._database.read(work)
        return IntegrationChanges(revision, [self._record(row) for row in changed], [row[0] for row in removed])

    def _row(self, record: IntegrationRecord) -> tuple[Any, ...]:
        sealed = self._vault.seal(_encode(record.secrets), record.id.encode()) if record.secrets else None
        return (record.id, _encode(structs.replace(record, secrets={}, revision=0)).decode(), sealed)

    def _record(self, row: tuple[Any, ...]) -> IntegrationRecord:
        text, sealed, changed = row
        record = _read_record(text)
        secrets = {} if sealed is None else _read_secrets(self._vault.unseal(sealed, record.id.encode()))
        return structs.replace(record, secrets=secrets, revision=changed)

    @staticmethod
    def _with_revision(db: sqlite3.Connection, record: IntegrationRecord) -> IntegrationRecord:
        (changed,) = db.execute("select changed from integration where id = ?", (record.id,)).fetchone()
        return structs.replace(record, revision=changed)
