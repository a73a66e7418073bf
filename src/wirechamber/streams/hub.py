"""The fan-out: an event is matched once per group of equal subscriptions, formatted once, and written once per reader.

A reader is a transport. What waits for a slow one is bounded: a reader whose buffer is over the bound is let go, rather
than delaying the others or filling memory. Bursts are merged: everything a group gets within one flush is one write.
Many readers are written to in slices, and what comes in the meantime is the group's next write: so an event for
thousands holds nobody up, and events that come faster than that cost less each.

What goes wrong with one reader, or with one event, is that one's: whoever can't be written to is let go and resumes
where it was, and everybody else gets what is theirs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from wirechamber.eventlog.base import Entry, Scope
from wirechamber.eventlog.tail import Tail
from wirechamber.model.events import Event
from wirechamber.model.prefixes import Prefixes
from wirechamber.model.times import iso
from wirechamber.observe.logs import Seldom
from wirechamber.protocols import sse

_seldom = Seldom(structlog.get_logger("wirechamber.streams"))

# Under load, writes are gathered for this long; a lone event is written at once.
MERGE_S = 0.002
# Readers that are written to in one turn of the loop, some 10 µs each; and of one group before others have their turn.
SLICE = 500
GROUP_SLICE = 100

# Why a reader is let go. Slow and failed ones get no proper end: they do not read, so they would not see one.
SLOW = "slow"
FAILED = "failed"
CLOSED = "closed"
SHUTDOWN = "shutdown"
TOKEN = "token"  # noqa: S105


class Sink(Protocol):
    """Where a stream is written to: what the hub needs of an asyncio transport."""

    def write(self, data: bytes) -> None: ...  # noqa: D102
    def get_write_buffer_size(self) -> int: ...  # noqa: D102
    def is_closing(self) -> bool: ...  # noqa: D102


class Reader:
    """One live stream.

    Args:
        sink: The connection's transport.
        let_go: Called with the reason when the hub will write no more to it.
        chunked: Whether it takes HTTP chunks; else what they hold.
    """

    __slots__ = ("chunked", "let_go", "sink")

    def __init__(self, sink: Sink, let_go: Callable[[str], None], *, chunked: bool = True) -> None:
        self.sink = sink
        self.let_go = let_go
        self.chunked = chunked


class Group:
    """Readers who want exactly the same, in the same form.

    Attributes:
        readers: Each with the number of the first frame that is for it.
        frames: How many there have been so far, those that are pending included.
        under_way: What is being written, until all have it.
    """

    __slots__ = ("chunked", "frames", "pending", "readers", "scope", "under_way")

    def __init__(self, scope: Scope, chunked: bool) -> None:
        self.scope = scope
        self.chunked = chunked
        self.readers: dict[Reader, int] = {}
        self.pending: list[bytes] = []
        self.frames = 0
        self.under_way: _Write | None = None

    @property
    def rests(self) -> bool:
        """Whether all of its readers have been written what there is for them."""
        return not self.pending and self.under_way is None


class _Write:
    """Frames that go to those who were a group's readers when it began."""

    __slots__ = ("at", "data", "first", "frames", "readers")

    def __init__(self, group: Group) -> None:
        self.frames, group.pending = group.pending, []
        self.data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.first = group.frames - len(self.frames)
        self.readers = list(group.readers)
        self.at = 0


class Hub:
    """All live streams of this process.

    Args:
        tail: The newest entries; the hub listens to it until `close`.
        buffer_bytes: How much may wait for a slow reader.

    Attributes:
        open: Readers now.
        sent: Events written, once for each reader.
        let_go: Readers that were let go because they were slow or could not be written to.
    """

    def __init__(self, tail: Tail, buffer_bytes: int) -> None:
        self._tail = tail
        self._buffer_bytes = buffer_bytes
        self._groups: dict[tuple[Scope, bool], Group] = {}
        # By owner, and by device for those who want one device's events: an event looks up the groups it concerns.
        self._audiences: dict[tuple[str | None, str | None], Prefixes[Group]] = {}
        # Groups that something is to be written to, each once.
        self._dirty: deque[Group] = deque()
        self._loop = asyncio.get_running_loop()
        self._flush_due = False
        self._last_flush = 0.0
        self._end_listening = tail.listen(self._arrived)
        self.open = 0
        self.sent = 0
        self.let_go = 0

    def join(self, scope: Scope, reader: Reader) -> Group:
        """Writes to the reader, from the next entry on, what the scope holds. The scope names an owner."""
        key = (scope, reader.chunked)
        group = self._groups.get(key)
        if group is None:
            assert scope.owner is not None
            group = self._groups[key] = Group(scope, reader.chunked)
            audience = self._audiences.setdefault((scope.owner, scope.coreid), Prefixes())
            for prefix in scope.prefixes:
                audience.add(prefix, group)
        # What waits to be written came before this reader joined.
        group.readers[reader] = group.frames
        self.open += 1
        return group

    def leave(self, scope: Scope, reader: Reader) -> None:
        """Writes nothing more to the reader. Leaving twice is allowed."""
        key = (scope, reader.chunked)
        group = self._groups.get(key)
        if group is None or reader not in group.readers:
            return
        del group.readers[reader]
        self.open -= 1
        if not group.readers:
            del self._groups[key]
            audience = self._audiences[scope.owner, scope.coreid]
            for prefix in scope.prefixes:
                audience.discard(prefix, group)
            if not audience:
                del self._audiences[scope.owner, scope.coreid]

    def close(self) -> None:
        """Stops listening, and lets every reader go."""
        self._end_listening()
        while self._dirty:
            self._write_some()
        for group in list(self._groups.values()):
            for reader in list(group.readers):
                self._let_go(group, reader, SHUTDOWN)

    def _arrived(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            event = entry.event
            groups = self._concerned(event)
            if not groups:
                continue
            frame = framed(entry)
            if not frame:
                continue
            for group in groups:
                if not group.pending and group.under_way is None:
                    self._dirty.append(group)
                group.pending.append(frame if group.chunked else sse.unchunked(frame))
                group.frames += 1
        if self._dirty and not self._flush_due:
            self._flush_due = True
            # Idle: at the end of this turn of the loop. Busy: when the merge window ends.
            wait = self._last_flush + MERGE_S - self._loop.time()
            if wait > 0:
                self._loop.call_later(wait, self._flush)
            else:
                self._loop.call_soon(self._flush)

    def _concerned(self, event: Event) -> list[Group]:
        audiences, owner, name = self._audiences, event.owner, event.name
        everything = audiences.get((owner, None))
        groups = [] if everything is None else everything.match(name)
        device = audiences.get((owner, event.coreid))
        return groups if device is None else groups + device.match(name)

    def _flush(self) -> None:
        try:
            self._write_some()
        finally:
            self._last_flush = self._loop.time()
            self._flush_due = bool(self._dirty)
            if self._flush_due:
                self._loop.call_soon(self._flush)

    def _write_some(self) -> None:
        """Writes to `SLICE` readers, group after group."""
        room = SLICE
        while self._dirty and room > 0:
            group = self._dirty.popleft()
            write = group.under_way
            if write is None:
                write = group.under_way = _Write(group)
            room -= self._write(group, write, min(room, GROUP_SLICE)) or 1
            if write.at >= len(write.readers):
                group.under_way = None
            if group.under_way is not None or group.pending:
                self._dirty.append(group)

    def _write(self, group: Group, write: _Write, room: int) -> int:
        """Goes on with a write; returns to how many it wrote."""
        limit, get = self._buffer_bytes, group.readers.get
        first, whole, count = write.first, write.data, len(write.frames)
        some = write.readers[write.at : write.at + room]
        write.at += len(some)
        ended: list[tuple[Reader, str]] = []
        sent = 0
        for reader in some:
            since = get(reader)
            if since is None:
                # It left meanwhile.
                continue
            data, frames = whole, count
            if since > first:
                data, frames = b"".join(write.frames[since - first :]), first + count - since
            sink = reader.sink
            try:
                # Nothing may wait between the question and the write: a closed transport raises.
                if sink.is_closing():
                    ended.append((reader, CLOSED))
                elif sink.get_write_buffer_size() > limit:
                    ended.append((reader, SLOW))
                elif data:
                    sink.write(data)
                    sent += frames
            except Exception as problem:
                _seldom.warning("stream_not_written", why=repr(problem))
                ended.append((reader, FAILED))
        self.sent += sent
        for reader, why in ended:
            self._let_go(group, reader, why)
        return len(some)

    def _let_go(self, group: Group, reader: Reader, why: str) -> None:
        self.leave(group.scope, reader)
        if why in (SLOW, FAILED):
            self.let_go += 1
        try:
            reader.let_go(why)
        except Exception as problem:
            _seldom.warning("stream_not_ended", why=repr(problem))


def framed(entry: Entry) -> bytes:
    """An entry as streams show it, as an HTTP chunk of its own; empty, and logged, where it can't be shown."""
    event = entry.event
    try:
        shown = sse.event(event.name, event.data, event.ttl, iso(event.published_at), event.coreid, entry.cursor)
    except Exception as problem:
        _seldom.warning("event_not_streamed", why=repr(problem), position=entry.cursor)
        return b""
    return sse.chunk(shown)
