"""Users and tokens."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import msgspec

from wirechamber.errors import Conflict, NotFound
from wirechamber.model.accounts import Token, User
from wirechamber.store.base import MAX_TOKENS
from wirechamber.store.sqlite.database import Database
from wirechamber.store.sqlite.sweeping import going

_json = msgspec.json
_COLUMNS = "id, name, name_key, password, created_at, account_info, permissions"
# Others write between the steps in which a user is cleared away.
STEP_PAUSE_S = 0.002


SPARE_TOKENS = """
delete from token where digest in (
    select digest from token where user = ? order by coalesce(expires_at, 9e18) desc, created_at desc limit -1 offset ?
)
"""


class SqliteUsers:
    """`Users` of the store's interface."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, user: User) -> None:
        """Stores a new user."""
        await self._put(f"insert into user ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?)", user)

    async def get(self, user_id: str) -> User | None:
        """The user of that id."""
        return await self._one("id = ?", user_id)

    async def by_name(self, name: str) -> User | None:
        """The user of that name, in any case."""
        return await self._one("name_key = ?", name.casefold())

    async def all(self) -> list[User]:
        """Everyone, by name."""
        query = f"select {_COLUMNS} from user where removed = 0 order by name_key"
        rows = await self._database.read(lambda db: db.execute(query).fetchall())
        return [_user(row) for row in rows]

    async def update(self, user: User) -> None:
        """Replaces the record."""
        changed = await self._put(
            "update user set name = ?2, name_key = ?3, password = ?4, created_at = ?5, account_info = ?6, "
            "permissions = ?7 where id = ?1 and removed = 0",
            user,
        )
        if not changed:
            raise NotFound("there is no such user")

    async def remove(self, user_id: str) -> bool:
        """Removes the user and what belongs to it."""

        def mark(db: sqlite3.Connection) -> bool:
            # The name is free again.
            query = "update user set removed = 1, name_key = 'removed ' || id where id = ? and removed = 0"
            return db.execute(query, (user_id,)).rowcount > 0

        if not await self._database.write(mark):
            return False
        while True:
            if not await self._database.write(going):
                return True
            await asyncio.sleep(STEP_PAUSE_S)

    async def _put(self, query: str, user: User) -> int:
        values = (
            user.id,
            user.name,
            user.name.casefold(),
            user.password,
            user.created_at,
            _json.encode(user.account_info).decode(),
            _json.encode(user.permissions).decode(),
        )
        try:
            return await self._database.write(lambda db: db.execute(query, values).rowcount)
        except sqlite3.IntegrityError:
            raise Conflict(f"there is a user named {user.name} already") from None

    async def _one(self, where: str, value: str) -> User | None:
        query = f"select {_COLUMNS} from user where {where} and removed = 0"
        row = await self._database.read(lambda db: db.execute(query, (value,)).fetchone())
        return None if row is None else _user(row)


def _user(row: tuple[Any, ...]) -> User:
    user_id, name, _, password, created_at, account_info, permissions = row
    return User(
        id=user_id,
        name=name,
        password=password,
        created_at=created_at,
        account_info=_json.decode(account_info),
        permissions=tuple(_json.decode(permissions)),
    )


class SqliteTokens:
    """`Tokens` of the store's interface."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, token: Token) -> None:
        """Stores a new token; where its user has too many, those go that would end first."""
        values = (
            token.digest,
            token.user,
            token.hint,
            token.client,
            _json.encode(token.scopes).decode(),
            token.created_at,
            token.expires_at,
        )

        def work(db: sqlite3.Connection) -> None:
            (count,) = db.execute("select count(*) from token where user = ?", (token.user,)).fetchone()
            if count >= MAX_TOKENS:
                db.execute(SPARE_TOKENS, (token.user, MAX_TOKENS - 1))
            db.execute("insert into token values (?, ?, ?, ?, ?, ?, ?)", values)

        await self._database.write(work)

    async def by_digest(self, digest: bytes) -> Token | None:
        """The token of that digest."""
        row = await self._database.read(
            lambda db: db.execute(
                "select * from token where digest = ? and user not in (select id from user where removed = 1)",
                (digest,),
            ).fetchone()
        )
        return None if row is None else _token(row)

    async def of_user(self, user_id: str) -> list[Token]:
        """The user's tokens, newest first."""
        rows = await self._database.read(
            lambda db: db.execute(
                "select * from token where user = ? order by created_at desc, digest", (user_id,)
            ).fetchall()
        )
        return [_token(row) for row in rows]

    async def remove(self, digest: bytes) -> bool:
        """Revokes one."""
        return await self._database.write(
            lambda db: db.execute("delete from token where digest = ?", (digest,)).rowcount > 0
        )

    async def remove_all(self, user_id: str, *, keep: bytes | None = None) -> int:
        """Revokes all of a user's but one."""
        return await self._database.write(
            lambda db: db.execute("delete from token where user = ? and digest is not ?", (user_id, keep)).rowcount
        )

    async def remove_expired(self, now: int) -> int:
        """Forgets those whose time is over."""
        query = "select exists (select 1 from token where expires_at <= ?)"
        (some,) = await self._database.read(lambda db: db.execute(query, (now,)).fetchone())
        if not some:
            return 0
        return await self._database.write(
            lambda db: db.execute("delete from token where expires_at <= ?", (now,)).rowcount
        )


def _token(row: tuple[Any, ...]) -> Token:
    digest, user, hint, client, scopes, created_at, expires_at = row
    return Token(
        digest=digest,
        user=user,
        hint=hint,
        client=client,
        scopes=tuple(_json.decode(scopes)),
        created_at=created_at,
        expires_at=expires_at,
    )
