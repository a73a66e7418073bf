"""The store on SQLite: `state.db`, shared by the server and by commands that run beside it."""

from wirechamber.store.sqlite.database import StoreTooNew
from wirechamber.store.sqlite.store import SqliteStore, open_sqlite_store

__all__ = ["SqliteStore", "StoreTooNew", "open_sqlite_store"]
