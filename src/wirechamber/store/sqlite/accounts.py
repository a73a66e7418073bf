"""Users, tokens, and the clients that users registered."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import msgspec

from wirechamber.errors import Conflict, NotFound
from wirechamber.model.accounts import OAuthClient, RefreshToken, Token, User
from wirechamber.store.accounts import MAX_TOKENS
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
SPARE_REFRESH_TOKENS = """
delete from refresh_token where digest in (
    select digest from refresh_token where user = ? order by used_at is null desc, expires_at desc, created_at desc
    limit -1 offset ?
)
"""
_TOKEN = "digest, user, hint, client, scopes, created_at, expires_at, family"  # noqa: S105
_REFRESH = "digest, family, user, client, scopes, life, created_at, expires_at, used_at"
_CLIENT = "id, owner, name, type, redirect_uri, scopes, secret, created_at"
NEWEST = """
select family from token as asked where digest = ? and family is not null and not exists (
    select 1 from token where token.family = asked.family and token.created_at > asked.created_at
)
"""
_GONE = "(select id from user where removed = 1)"


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

    async def add(self, token: Token, refresh: RefreshToken | None = None) -> None:
        """Stores a new token; where its user has too many, those go that would end first."""
        await self._database.write(lambda db: _add_tokens(db, token, refresh))

    async def refresh(self, digest: bytes) -> RefreshToken | None:
        """The refresh token of that digest."""
        query = f"select {_REFRESH} from refresh_token where digest = ? and user not in {_GONE}"
        row = await self._database.read(lambda db: db.execute(query, (digest,)).fetchone())
        return None if row is None else _refresh_token(row)

    async def rotate(self, digest: bytes, token: Token, refresh: RefreshToken) -> bool:
        """Uses a refresh token."""
        query = f"update refresh_token set used_at = ? where digest = ? and used_at is null and user not in {_GONE}"

        def work(db: sqlite3.Connection) -> bool:
            if not db.execute(query, (refresh.created_at, digest)).rowcount:
                return False
            _add_tokens(db, token, refresh)
            return True

        return await self._database.write(work)

    async def end_family(self, family: str) -> int:
        """Removes all that came of one login."""
        return await self._database.write(lambda db: _end_family(db, family))

    async def by_digest(self, digest: bytes) -> Token | None:
        """The token of that digest."""
        row = await self._database.read(
            lambda db: db.execute(
                f"select {_TOKEN} from token where digest = ? and user not in {_GONE}", (digest,)
            ).fetchone()
        )
        return None if row is None else _token(row)

    async def of_user(self, user_id: str) -> list[Token]:
        """The user's tokens, newest first."""
        rows = await self._database.read(
            lambda db: db.execute(
                f"select {_TOKEN} from token where user = ? order by created_at desc, digest", (user_id,)
            ).fetchall()
        )
        return [_token(row) for row in rows]

    async def remove(self, digest: bytes) -> bool:
        """Revokes one, and what comes of it."""

        def work(db: sqlite3.Connection) -> bool:
            found = (
                db.execute(NEWEST, (digest,)).fetchone()
                or db.execute("select family from refresh_token where digest = ?", (digest,)).fetchone()
            )
            if found is not None:
                _end_family(db, found[0])
                return True
            return db.execute("delete from token where digest = ?", (digest,)).rowcount > 0

        return await self._database.write(work)

    async def remove_all(self, user_id: str, *, keep: bytes | None = None) -> int:
        """Revokes all of a user's but one."""

        def work(db: sqlite3.Connection) -> int:
            db.execute(
                "delete from refresh_token where user = ?1"
                " and family is not (select family from token where digest is ?2 and user = ?1)",
                (user_id, keep),
            )
            return db.execute("delete from token where user = ? and digest is not ?", (user_id, keep)).rowcount

        return await self._database.write(work)

    async def remove_expired(self, now: int) -> int:
        """Forgets those whose time is over."""
        removed = 0
        for table in ("token", "refresh_token"):
            removed += await self._remove_expired(table, now)
        return removed

    async def _remove_expired(self, table: str, now: int) -> int:
        query = f"select exists (select 1 from {table} where expires_at <= ?)"
        (some,) = await self._database.read(lambda db: db.execute(query, (now,)).fetchone())
        if not some:
            return 0
        drop = f"delete from {table} where expires_at <= ?"
        return await self._database.write(lambda db: db.execute(drop, (now,)).rowcount)


def _token(row: tuple[Any, ...]) -> Token:
    digest, user, hint, client, scopes, created_at, expires_at, family = row
    return Token(
        digest=digest,
        user=user,
        hint=hint,
        client=client,
        scopes=tuple(_json.decode(scopes)),
        created_at=created_at,
        expires_at=expires_at,
        family=family,
    )


def _refresh_token(row: tuple[Any, ...]) -> RefreshToken:
    digest, family, user, client, scopes, life, created_at, expires_at, used_at = row
    return RefreshToken(
        digest=digest,
        family=family,
        user=user,
        client=client,
        scopes=tuple(_json.decode(scopes)),
        life=life,
        created_at=created_at,
        expires_at=expires_at,
        used_at=used_at,
    )


def _add_tokens(db: sqlite3.Connection, token: Token, refresh: RefreshToken | None) -> None:
    rows: list[tuple[str, str, str, tuple[Any, ...]]] = [
        (
            "token",
            SPARE_TOKENS,
            _TOKEN,
            (
                token.digest,
                token.user,
                token.hint,
                token.client,
                _json.encode(token.scopes).decode(),
                token.created_at,
                token.expires_at,
                token.family,
            ),
        )
    ]
    if refresh is not None:
        values = (
            refresh.digest,
            refresh.family,
            refresh.user,
            refresh.client,
            _json.encode(refresh.scopes).decode(),
            refresh.life,
            refresh.created_at,
            refresh.expires_at,
            refresh.used_at,
        )
        rows.append(("refresh_token", SPARE_REFRESH_TOKENS, _REFRESH, values))
    for table, spare, columns, values in rows:
        (count,) = db.execute(f"select count(*) from {table} where user = ?", (token.user,)).fetchone()
        if count >= MAX_TOKENS:
            db.execute(spare, (token.user, MAX_TOKENS - 1))
        db.execute(f"insert into {table} ({columns}) values ({', '.join('?' * len(values))})", values)


def _end_family(db: sqlite3.Connection, family: str) -> int:
    db.execute("delete from refresh_token where family = ?", (family,))
    return db.execute("delete from token where family = ?", (family,)).rowcount


class SqliteClients:
    """`OAuthClients` of the store's interface."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, client: OAuthClient, most: int) -> bool:
        """Stores a new client, if its owner may have another."""
        values = (
            client.id,
            client.owner,
            client.name,
            client.type,
            client.redirect_uri,
            _json.encode(client.scopes).decode(),
            client.secret,
            client.created_at,
        )

        def work(db: sqlite3.Connection) -> bool:
            (count,) = db.execute("select count(*) from oauth_client where owner = ?", (client.owner,)).fetchone()
            if count >= most:
                return False
            db.execute(f"insert into oauth_client ({_CLIENT}) values (?, ?, ?, ?, ?, ?, ?, ?)", values)
            return True

        return await self._database.write(work)

    async def get(self, client_id: str) -> OAuthClient | None:
        """The client of that id."""
        query = f"select {_CLIENT} from oauth_client where id = ? and owner not in {_GONE}"
        row = await self._database.read(lambda db: db.execute(query, (client_id,)).fetchone())
        return None if row is None else _client(row)

    async def of_owner(self, owner: str) -> list[OAuthClient]:
        """The owner's clients, oldest first."""
        query = f"select {_CLIENT} from oauth_client where owner = ? order by created_at, id"
        rows = await self._database.read(lambda db: db.execute(query, (owner,)).fetchall())
        return [_client(row) for row in rows]

    async def update(self, client: OAuthClient) -> bool:
        """Stores name and scopes."""
        values = (client.name, _json.encode(client.scopes).decode(), client.id)
        query = "update oauth_client set name = ?, scopes = ? where id = ?"
        return await self._database.write(lambda db: db.execute(query, values).rowcount > 0)

    async def remove(self, owner: str, client_id: str) -> bool:
        """Removes a client with what was got through it."""

        def work(db: sqlite3.Connection) -> bool:
            query = "delete from oauth_client where id = ? and owner = ?"
            if not db.execute(query, (client_id, owner)).rowcount:
                return False
            for table in ("token", "refresh_token"):
                db.execute(f"delete from {table} where client = ?", (client_id,))
            return True

        return await self._database.write(work)


def _client(row: tuple[Any, ...]) -> OAuthClient:
    client_id, owner, name, kind, redirect_uri, scopes, secret, created_at = row
    return OAuthClient(
        id=client_id,
        owner=owner,
        name=name,
        type=kind,
        redirect_uri=redirect_uri,
        scopes=tuple(_json.decode(scopes)),
        secret=secret,
        created_at=created_at,
    )
