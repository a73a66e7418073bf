"""Writes that share a transaction: what is asked for while the writer is busy goes in together."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from wirechamber.observe.tasks import awaited
from wirechamber.store.sqlite.database import Database

Item = TypeVar("Item")


class _Batch(Generic[Item]):
    def __init__(self) -> None:
        self.items: list[Item] = []
        self.done: asyncio.Task[None] | None = None


class Grouped(Generic[Item]):
    """Group commit of durable writes.

    Args:
        perform: Writes items, in their order, inside a transaction.
    """

    def __init__(self, database: Database, perform: Callable[[sqlite3.Connection, Sequence[Item]], None]) -> None:
        self._database = database
        self._perform = perform
        self._lock = threading.Lock()
        self._open: _Batch[Item] | None = None

    async def write(self, items: Sequence[Item]) -> None:
        """Returns when the items are durable.

        Raises:
            Unavailable: Nothing of the batch was written.
        """
        with self._lock:
            batch = self._open
            if batch is None:
                batch = self._open = _Batch()
            batch.items.extend(items)
        if batch.done is None:
            batch.done = awaited(self._commit(batch), "store-group")
        # One who does not wait any longer must not take the others' batch away.
        await asyncio.shield(batch.done)

    async def _commit(self, batch: _Batch[Item]) -> None:
        try:
            await self._database.write(lambda db: self._perform(db, self._close(batch)))
        finally:
            # Also when the transaction could not begin.
            self._close(batch)

    def _close(self, batch: _Batch[Item]) -> Sequence[Item]:
        with self._lock:
            if self._open is batch:
                self._open = None
            return batch.items
