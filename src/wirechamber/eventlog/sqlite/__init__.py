"""The event log on SQLite: the embedded backend."""

from wirechamber.eventlog.sqlite.file import FILE, SKIP, Durability, LogTooNew
from wirechamber.eventlog.sqlite.log import SqliteEventLog, open_sqlite_log

__all__ = ["FILE", "SKIP", "Durability", "LogTooNew", "SqliteEventLog", "open_sqlite_log"]
