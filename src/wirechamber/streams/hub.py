"""The fan-out: an event is matched once per group of equal subscriptions, formatted once, and written once per reader.

A reader is a transport. What waits for a slow one is bounded: a reader whose buffer is over the bound is let go, rather
than delaying the others or filling memory. Bursts are merged: everything a group gets within one flush is one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from wirechamber.eventlog.base import Cursor, Entry, Scope
from wirechamber.eventlog.tail import Tail
from wirechamber.model.events import Event
from wirechamber.model.times import iso
from wirechamber.protocols import sse

# Under load, writes are gathered for this long; a lone event is written at once.
MERGE_S = 0.002


class Sink(Protocol):
    """Where a stream is written to: what the hub needs of an asyncio transport."""

    def write(self, data: bytes) -> None: ...  # noqa: D102
    def get_write_buffer_size(self) -> int: ...  # noqa: D102


class Reader:
    """One live stream.

    Args:
        sink: The connection's transport.
        let_go: Called with the reason when the hub will write no more to it.
    """

    __slots__ = ("let_go", "sink")

    def __init__(self, sink: Sink, let_go: Callable[[str], None]) -> None:
        self.sink = sink
        self.let_go = let_go


class Group:
    """Readers who want exactly the same."""

    __slots__ = ("pending", "readers", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.readers: dict[Reader, None] = {}
        self.pending: list[bytes] = []


class Hub:
    """All live streams of this process.

    Args:
        tail: The newest entries; the hub listens to it until `close`.
        buffer_bytes: How much may wait for a slow reader.
    """

    def __init__(self, tail: Tail, buffer_bytes: int) -> None:
        self._tail = tail
        self._buffer_bytes = buffer_bytes
        self._groups: dict[Scope, Group] = {}
        self._by_owner: dict[str, list[Group]] = {}
        self._dirty: list[Group] = []
        self._loop = asyncio.get_running_loop()
        self._flush_due = False
        self._last_flush = 0.0
        self._end_listening = tail.listen(self._arrived)
        self.open = 0
        self.sent = 0
        self.let_go = 0

    def join(self, scope: Scope, reader: Reader) -> None:
        """Writes to the reader, from the next entry on, what the scope holds. The scope names an owner."""
        group = self._groups.get(scope)
        if group is None:
            group = self._groups[scope] = Group(scope)
            assert scope.owner is not None
            self._by_owner.setdefault(scope.owner, []).append(group)
        elif group.pending:
            # What waits to be flushed came before this reader joined.
            self._flush()
        group.readers[reader] = None
        self.open += 1

    def leave(self, scope: Scope, reader: Reader) -> None:
        """Writes nothing more to the reader. Leaving twice is allowed."""
        group = self._groups.get(scope)
        if group is None or reader not in group.readers:
            return
        del group.readers[reader]
        self.open -= 1
        if not group.readers:
            del self._groups[scope]
            assert scope.owner is not None
            groups = self._by_owner[scope.owner]
            groups.remove(group)
            if not groups:
                del self._by_owner[scope.owner]

    def close(self) -> None:
        """Stops listening, and lets every reader go."""
        self._end_listening()
        self._flush()
        for group in list(self._groups.values()):
            for reader in list(group.readers):
                reader.let_go("shutdown")

    def _arrived(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            groups = self._by_owner.get(entry.event.owner)
            if groups is None:
                continue
            frame: bytes | None = None
            for group in groups:
                if group.scope.holds(entry.event):
                    if frame is None:
                        frame = framed(entry)
                    if not group.pending:
                        self._dirty.append(group)
                    group.pending.append(frame)
        if self._dirty and not self._flush_due:
            self._flush_due = True
            # Idle: at the end of this turn of the loop. Busy: when the merge window ends.
            wait = self._last_flush + MERGE_S - self._loop.time()
            if wait > 0:
                self._loop.call_later(wait, self._flush)
            else:
                self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        dirty, self._dirty = self._dirty, []
        limit = self._buffer_bytes
        for group in dirty:
            count = len(group.pending)
            data = group.pending[0] if count == 1 else b"".join(group.pending)
            group.pending = []
            slow: list[Reader] = []
            for reader in group.readers:
                sink = reader.sink
                if sink.get_write_buffer_size() > limit:
                    slow.append(reader)
                else:
                    sink.write(data)
            self.sent += count * (len(group.readers) - len(slow))
            for reader in slow:
                self.let_go += 1
                self.leave(group.scope, reader)
                reader.let_go("slow")
        self._last_flush = self._loop.time()


def formatted(cursor: Cursor, event: Event) -> bytes:
    """An event as a stream shows it."""
    return sse.event(event.name, event.data, event.ttl, iso(event.published_at), event.coreid, cursor)


def framed(entry: Entry) -> bytes:
    """An entry as an HTTP chunk of its own."""
    return sse.chunk(formatted(entry.cursor, entry.event))
