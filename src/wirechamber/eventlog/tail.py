"""The newest entries of the log in memory: how readers follow it without polling.

The log calls `extend` on the event loop's thread, once per group commit, after the entries are durable. A reader
either listens (called synchronously with each batch) or asks for what came since its cursor and waits. A listener that
fails is that listener's trouble: the log and the others go on.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from wirechamber.eventlog.base import Cursor, Entry

# Enough for a reader to be a second behind at full speed, and bounded in bytes for large events.
MAX_ENTRIES = 16_384
MAX_BYTES = 32 * 1024 * 1024

_log = structlog.get_logger("wirechamber.eventlog")

Listener = Callable[["Sequence[Entry]"], None]


class Tail:
    """A ring of the newest entries.

    Args:
        newest: The log's newest cursor when it was opened.
        order: Sorts cursors.

    Attributes:
        newest: The cursor of the newest entry.
        floor: Everything after this cursor is in the ring; a reader who finds nothing before it goes on here.
    """

    def __init__(self, newest: Cursor, order: Callable[[Cursor], int]) -> None:
        self.newest = self.floor = newest
        self._order = order
        self._floor = order(newest)
        self._orders: list[int] = []
        self._entries: list[Entry] = []
        self._bytes = 0
        self._listeners: list[Listener] = []
        self._waiters: list[asyncio.Future[None]] = []

    def extend(self, entries: Sequence[Entry]) -> None:
        """Takes in newly stored entries, tells listeners, wakes waiters. Entries are in order and newer than all."""
        if not entries:
            return
        self._entries.extend(entries)
        self._orders.extend(self._order(entry.cursor) for entry in entries)
        self._bytes += sum(_size(entry) for entry in entries)
        self.newest = entries[-1].cursor
        if len(self._entries) > MAX_ENTRIES or self._bytes > MAX_BYTES:
            self._forget_half()
        for listener in tuple(self._listeners):
            try:
                listener(entries)
            except Exception:
                # The events are stored: whoever sent them must be told so, and the next reader, too.
                _log.exception("listener_failed", first=entries[0].cursor, last=entries[-1].cursor)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def since(self, cursor: Cursor, limit: int | None = None) -> Sequence[Entry] | None:
        """The entries after a cursor, or None when the ring does not reach back that far (read the log then)."""
        order = self._order(cursor)
        if order < self._floor:
            return None
        start = bisect_right(self._orders, order)
        return self._entries[start : None if limit is None else start + limit]

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` with each batch of entries from now on; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def wait_beyond(self, cursor: Cursor) -> None:
        """Returns as soon as there is an entry after the cursor."""
        while self._order(self.newest) <= self._order(cursor):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _forget_half(self) -> None:
        # In large steps, so that the cost per entry stays constant.
        count = len(self._entries) // 2 + 1
        self.floor = self._entries[count - 1].cursor
        self._floor = self._orders[count - 1]
        self._bytes -= sum(_size(entry) for entry in self._entries[:count])
        del self._entries[:count]
        del self._orders[:count]


def _size(entry: Entry) -> int:
    # The record itself is about 500 bytes; data and name come on top.
    return 500 + len(entry.event.name) + len(entry.event.data or "")
