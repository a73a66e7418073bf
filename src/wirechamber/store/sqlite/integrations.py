"""Configured integrations, their secrets sealed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from msgspec import structs

from wirechamber.errors import Conflict, NotFound
from wirechamber.model.integrations import IntegrationRecord
from wirechamber.secrets import Vault
from wirechamber.store.base import Holding, HoldingFull, IntegrationChanges
from wirechamber.store.sqlite.database import Database
from wirechamber.store.sqlite.sweeping import mark

_log = structlog.get_logger("wirechamber.store")
_encode = msgspec.json.encode
_read_record = msgspec.json.Decoder(IntegrationRecord).decode
_read_secrets = msgspec.json.Decoder(dict[str, str]).decode

# A page of integrations ends after so many bytes of configuration: whoever shows it decodes and encodes them at once.
PAGE_BYTES = 512 * 1024
COLUMNS = "record, secrets, changed, id, owner, created_at"


class SqliteIntegrations:
    """`Integrations` of the store's interface.

    Args:
        sweeping: Called when there is something to clear away.
    """

    def __init__(self, database: Database, vault: Vault, sweeping: Callable[[], None]) -> None:
        self._database = database
        self._vault = vault
        self._sweeping = sweeping

    async def add(self, record: IntegrationRecord, most: Holding | None = None) -> IntegrationRecord:
        """Stores a new one."""

        def work(db: sqlite3.Connection) -> IntegrationRecord:
            row = self._row(record)
            db.execute(
                "insert into integration (id, record, secrets, owner, created_at, changed) values (?, ?, ?, ?, ?, 0)",
                (*row, record.owner, record.created_at),
            )
            db.execute("insert into numbered (integration, owner) values (?, ?)", (record.id, record.owner))
            _hold(db, record.owner, 1, _size(row), most)
            return self._with_revision(db, record)

        try:
            return await self._database.write(work)
        except sqlite3.IntegrityError as problem:
            if "FOREIGN" in str(problem):
                raise NotFound("there is no such user") from None
            raise Conflict(f"the integration {record.id} exists already") from None

    async def get(self, integration_id: str) -> IntegrationRecord | None:
        """The integration of that id."""
        query = f"select {COLUMNS} from integration where id = ? and removed = 0"
        row = await self._database.read(lambda db: db.execute(query, (integration_id,)).fetchone())
        return None if row is None else self._record(row)

    async def of_owner(self, owner: str) -> list[IntegrationRecord]:
        """An owner's integrations, oldest first."""
        query = f"select {COLUMNS} from integration where owner = ? and removed = 0 order by created_at, id"
        return await self._all(query, (owner,))

    async def page(
        self,
        owner: str,
        limit: int,
        after: tuple[int, str] | None = None,
        kind: str | None = None,
        offset: int = 0,
    ) -> list[IntegrationRecord]:
        """Some of an owner's, oldest first."""
        of_kind = "" if kind is None else " and json_valid(record) and record ->> 'kind' = ?"
        query = (
            f"select {COLUMNS} from integration where owner = ? and (created_at, id) > (?, ?) and removed = 0{of_kind}"
            " order by created_at, id limit ? offset ?"
        )
        values = (owner, *(after or (-1, "")), *(() if kind is None else (kind,)), limit, offset)

        def read(db: sqlite3.Connection) -> list[Any]:
            rows: list[Any] = []
            size = 0
            for row in db.execute(query, values):
                rows.append(row)
                size += len(row[0]) + len(row[1] or b"")
                if size >= PAGE_BYTES:
                    break
            return rows

        return [self._record(row) for row in await self._database.read(read)]

    async def named(self, owner: str, name: str, limit: int) -> list[IntegrationRecord]:
        """Those of an owner that people call so."""
        query = (
            f"select {COLUMNS} from integration where owner = ? and removed = 0 and json_valid(record)"
            " and record ->> 'name' = ? order by created_at, id limit ?"
        )
        return await self._all(query, (owner, name, limit))

    async def count(self, owner: str, kind: str) -> int:
        """How many of a kind an owner has."""
        query = (
            "select count(*) from integration where owner = ? and removed = 0 and json_valid(record)"
            " and record ->> 'kind' = ?"
        )
        row = await self._database.read(lambda db: db.execute(query, (owner, kind)).fetchone())
        return int(row[0])

    async def holding(self, owner: str) -> Holding:
        """What an owner has."""
        return await self._database.read(lambda db: _holding(db, owner))

    async def update(self, record: IntegrationRecord, most: Holding | None = None) -> IntegrationRecord:
        """Replaces the record."""

        def work(db: sqlite3.Connection) -> IntegrationRecord:
            row = self._row(record)
            before = db.execute(
                "select length(record) + coalesce(length(secrets), 0) from integration where id = ? and removed = 0",
                (record.id,),
            ).fetchone()
            if before is None:
                raise NotFound("there is no such integration")
            db.execute("update integration set record = ?2, secrets = ?3 where id = ?1", row)
            more = _size(row) - before[0]
            _hold(db, record.owner, 0, more, most if more > 0 else None)
            return self._with_revision(db, record)

        return await self._database.write(work)

    async def remove(self, integration_id: str) -> bool:
        """Removes it and what belongs to it."""
        found = await self._database.write(lambda db: mark(db, "id = ?", (integration_id,)))
        if found:
            self._sweeping()
        return found > 0

    async def changes(self, since_revision: int) -> IntegrationChanges:
        """What changed after a revision."""

        def work(db: sqlite3.Connection) -> tuple[int, list[Any], list[Any], bool]:
            # The revision first: what changes after it is reported again next time, which does no harm.
            (revision,) = db.execute("select value from revision").fetchone()
            forgotten = db.execute("select revision from forgotten where what = 'integration'").fetchone()
            whole = forgotten is not None and since_revision < forgotten[0]
            since = 0 if whole else since_revision
            query = f"select {COLUMNS} from integration where changed > ? and removed = 0"
            changed = db.execute(query, (since,)).fetchall()
            # Who knows nothing yet needs to forget nothing.
            removed = since and db.execute(
                "select id from integration_removed where changed > ?1"
                " union all select id from integration where removed = 1 and changed > ?1", (since,)
            ).fetchall()  # fmt: skip
            return revision, changed, removed or [], whole

        revision, changed, removed, whole = await self._database.read(work)
        return IntegrationChanges(revision, [self._record(row) for row in changed], [row[0] for row in removed], whole)

    async def _all(self, query: str, values: tuple[Any, ...]) -> list[IntegrationRecord]:
        return [self._record(row) for row in await self._database.read(lambda db: db.execute(query, values).fetchall())]

    def _row(self, record: IntegrationRecord) -> tuple[Any, ...]:
        sealed = self._vault.seal(_encode(record.secrets), record.id.encode()) if record.secrets else None
        return (record.id, _encode(structs.replace(record, secrets={}, revision=0)).decode(), sealed)

    def _record(self, row: tuple[Any, ...]) -> IntegrationRecord:
        """A record as it is stored. One that can't be read is there all the same, paused, with the reason."""
        text, sealed, changed, integration_id, owner, created_at = row
        try:
            record = _read_record(text)
        except msgspec.MsgspecError as problem:
            _log.error("integration_unreadable", integration=integration_id, why=str(problem))
            return IntegrationRecord(
                id=integration_id, owner=owner, kind="unreadable", event="unreadable", created_at=created_at,
                updated_at=created_at, paused=f"it can't be read as it is stored: {problem}", revision=changed,
            )  # fmt: skip
        try:
            secrets = {} if sealed is None else _read_secrets(self._vault.unseal(sealed, record.id.encode()))
        except Exception as problem:
            _log.error("integration_unreadable", integration=integration_id, why=str(problem))
            why = "its secrets can't be read; save it again with them"
            return structs.replace(record, paused=record.paused or why, revision=changed)
        return structs.replace(record, secrets=secrets, revision=changed)

    @staticmethod
    def _with_revision(db: sqlite3.Connection, record: IntegrationRecord) -> IntegrationRecord:
        (changed,) = db.execute("select changed from integration where id = ?", (record.id,)).fetchone()
        return structs.replace(record, revision=changed)


def _size(row: tuple[Any, ...]) -> int:
    """Bytes that a configuration takes: those of its text, as SQLite counts them in characters, and of its secrets."""
    return len(row[1]) + len(row[2] or b"")


def _holding(db: sqlite3.Connection, owner: str) -> Holding:
    row = db.execute("select integrations, bytes from holding where owner = ?", (owner,)).fetchone()
    return Holding() if row is None else Holding(*row)


def _hold(db: sqlite3.Connection, owner: str, integrations: int, size: int, most: Holding | None) -> None:
    db.execute(
        "insert into holding values (?1, ?2, ?3) on conflict (owner) do update set"
        " integrations = integrations + ?2, bytes = bytes + ?3",
        (owner, integrations, size),
    )
    now = _holding(db, owner)
    many = most is not None and integrations > 0 and now.integrations > most.integrations
    if many or (most is not None and now.bytes > most.bytes):
        raise HoldingFull(Holding(now.integrations - integrations, now.bytes - size), many=many)
