"""All repositories over one `state.db`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from wirechamber.clock import Clock
from wirechamber.secrets import Vault
from wirechamber.store.sqlite.accounts import SqliteClients, SqliteTokens, SqliteUsers
from wirechamber.store.sqlite.database import FILE, Database
from wirechamber.store.sqlite.deliveries import SqliteDeliveries
from wirechamber.store.sqlite.devices import SqliteDevices
from wirechamber.store.sqlite.integrations import SqliteIntegrations
from wirechamber.store.sqlite.keys import SqliteClaims, SqliteKeys
from wirechamber.store.sqlite.links import SqliteLinks
from wirechamber.store.sqlite.sessions import SqliteSessions
from wirechamber.store.sqlite.usage import SqliteUsages

# The row that says how far the log had come, beside those that say how far its readers had.
LOG_READER = "log"


class SqliteStore:
    """The store's interface on SQLite. Open it with `open_sqlite_store`."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self.users = SqliteUsers(database)
        self.tokens = SqliteTokens(database)
        self.clients = SqliteClients(database)
        self.devices = SqliteDevices(database)
        self.keys = SqliteKeys(database, vault)
        self.claims = SqliteClaims(database)
        self.sessions = SqliteSessions(database, vault)
        self.links = SqliteLinks(database, vault)
        self.usage = SqliteUsages(database)
        self.deliveries = SqliteDeliveries(database)
        self.integrations = SqliteIntegrations(database, vault, self.deliveries.removed)
        self.revision = database.revision
        self.accounts_changed = database.accounts_changed
        self._database = database

    async def seen(self, cursor: str) -> None:
        """Notes how far the log has come; on disk, and everything before it with it."""
        values = (LOG_READER, cursor)
        await self._database.write(lambda db: db.execute("insert or replace into reader values (?, ?)", values))


@asynccontextmanager
async def open_sqlite_store(folder: Path, vault: Vault, *, clock: Clock) -> AsyncIterator[SqliteStore]:
    """Opens the store in a folder, making it if need be, and closes it at the end.

    Raises:
        StoreTooNew: A newer version wrote it.
    """
    loop = asyncio.get_running_loop()
    database = await loop.run_in_executor(None, Database, folder / FILE)
    try:
        yield SqliteStore(database, vault)
    finally:
        await loop.run_in_executor(None, database.close)
