"""Sessions of devices, their states sealed. Everything here is durable when it returns."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from wirechamber.model.links import Checkpoint, KnownSession, Reservation, Session
from wirechamber.secrets import SecretsUnreadable, Vault
from wirechamber.store.sqlite.database import Database
from wirechamber.store.sqlite.grouped import Grouped

READER = "links"

ADD = """
insert or replace into session (id, device, cid, deviceos, created_at, state)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 from json_each(?)
where value ->> 1 is null or value ->> 1 in (select id from device)
"""
ADD_PROGRESS = """
insert or replace into progress (session, send_limit, top, mids, address)
select value ->> 0, value ->> 6, value ->> 7, value ->> 8, value ->> 9 from json_each(?)
where value ->> 0 in (select id from session)
"""
CHECKPOINT = """
update progress set top = news.top, mids = news.mids, address = news.address
from (
    select value ->> 0 as session, value ->> 1 as top, value ->> 2 as mids, value ->> 3 as address from json_each(?)
) as news
where progress.session = news.session and news.top >= progress.top
"""
RESERVE = """
update progress set send_limit = news.send_limit
from (select value ->> 0 as session, value ->> 1 as send_limit from json_each(?)) as news
where progress.session = news.session and news.send_limit > progress.send_limit
"""
MOVED = "insert or replace into reader values (?, ?)"
REMOVE = "delete from session where id in (select value from json_each(?))"
FULL = (
    "select id, device, cid, deviceos, created_at, state, send_limit, top, mids, address"
    " from session join progress on session = id"
)


class SqliteSessions:
    """`Sessions` of the store's interface."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._adding: Grouped[Session] = Grouped(database, lambda db, records: add_sessions(db, vault, records))

    async def add(self, session: Session) -> None:
        """Stores a session."""
        await self._adding.write([session])

    async def known(self) -> list[KnownSession]:
        """All of them, lightly."""
        query = "select id, cid, device, deviceos, address from session join progress on session = id order by id"
        rows = await self._database.read(lambda db: db.execute(query).fetchall())
        return [
            KnownSession(session_id, _known_cid(cid), device, bool(deviceos), str(address))
            for session_id, cid, device, deviceos, address in rows
        ]

    async def get(self, session_id: str) -> Session | None:
        """The session of that id."""
        return (await self.several([session_id])).get(session_id)

    async def several(self, session_ids: Sequence[str]) -> dict[str, Session | None]:
        """Sessions by id."""
        ids = _text(list(session_ids))

        def read(db: sqlite3.Connection) -> dict[str, Session | None]:
            rows = db.execute(f"{FULL} where id in (select value from json_each(?))", (ids,))
            return {row[0]: self._record(row) for row in rows}

        return await self._database.read(read)

    async def of_device(self, device_id: str) -> list[Session]:
        """The device's sessions, oldest first."""
        rows = await self._database.read(
            lambda db: db.execute(f"{FULL} where device = ? order by created_at, id", (device_id,)).fetchall()
        )
        return [session for session in map(self._record, rows) if session is not None]

    async def account(
        self, checkpoints: Sequence[Checkpoint], reservations: Sequence[Reservation], cursor: str | None
    ) -> None:
        """Writes state down in one durable transaction."""
        states = [(each.session, each.top, each.mids.hex(), each.address) for each in checkpoints]
        limits = [(each.session, each.send_limit) for each in reservations]

        def work(db: sqlite3.Connection) -> None:
            if states:
                db.execute(CHECKPOINT, (_text(states),))
            if limits:
                db.execute(RESERVE, (_text(limits),))
            if cursor is not None:
                db.execute(MOVED, (READER, cursor))

        await self._database.write(work)

    async def cursor(self) -> str | None:
        """From where on the log must be read."""
        row = await self._database.read(
            lambda db: db.execute("select cursor from reader where name = ?", (READER,)).fetchone()
        )
        return None if row is None else str(row[0])

    async def remove(self, session_ids: Sequence[str]) -> int:
        """Removes sessions."""
        ids = _text(list(session_ids))
        return await self._database.write(lambda db: db.execute(REMOVE, (ids,)).rowcount)

    def _record(self, row: tuple[Any, ...]) -> Session | None:
        """The session, or None if the row is damaged or was sealed with another key."""
        session_id, device, cid, deviceos, created_at, state, send_limit, top, mids, address = row
        try:
            return Session(
                id=session_id,
                device=device,
                cid=bytes.fromhex(cid or ""),
                deviceos=bool(deviceos),
                created_at=created_at,
                state=self._vault.unseal(base64.b64decode(state), session_id.encode()),
                send_limit=int(send_limit),
                top=int(top),
                mids=bytes.fromhex(mids),
                address=str(address),
            )
        except (SecretsUnreadable, ValueError, TypeError):
            return None


def _known_cid(text: str | None) -> bytes:
    """The connection id; none if it can't be read: then the rest can't, either, which is found out later."""
    try:
        return bytes.fromhex(text or "")
    except (ValueError, TypeError):
        return b""


def add_sessions(db: sqlite3.Connection, vault: Vault, sessions: Sequence[Session]) -> None:
    """Stores sessions, inside a transaction."""
    rows = [
        (
            session.id,
            session.device,
            session.cid.hex() or None,
            int(session.deviceos),
            session.created_at,
            base64.b64encode(vault.seal(session.state, session.id.encode())).decode(),
            session.send_limit,
            session.top,
            session.mids.hex(),
            session.address,
        )
        for session in sessions
    ]
    text = _text(rows)
    db.execute(ADD, (text,))
    db.execute(ADD_PROGRESS, (text,))


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
