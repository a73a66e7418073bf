"""The event log on SQLite: one writer thread with group commit, readers with connections of their own.

Whatever waits when the writer is free becomes one transaction, so the price of an fsync is shared by all of it. A batch
is one statement (`insert … select … from json_each`), because beside a busy event loop sqlite3 hands the GIL over at
each row of an `executemany`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from wirechamber.clock import SteadyClock
from wirechamber.errors import CloudError, Unavailable
from wirechamber.eventlog.base import MAX_PAGE, Cursor, Entry, Gap, NotACursor, Page, Scope
from wirechamber.eventlog.sqlite.file import FILE, Durability, Hole, connect, holes_of, open_file
from wirechamber.eventlog.sqlite.indexing import CLOSING_STEPS, REST, STEP, index_step, indexed_to
from wirechamber.eventlog.sqlite.reading import find, trimmed_to
from wirechamber.eventlog.sqlite.rows import ROW_BYTES, record_of
from wirechamber.eventlog.sqlite.trimming import AHEAD_MS, Front, front_of, over_quota, trim_age, trim_owner
from wirechamber.eventlog.tail import Tail
from wirechamber.model.events import Event
from wirechamber.observe.logs import Seldom
from wirechamber.sqlite import FileGone, Presence, snapshot, transaction, what_is_wrong

_log = structlog.get_logger("wirechamber.eventlog")
_seldom = Seldom(_log)

# Enough to share an fsync many times over, and short enough that a reader of the WAL never waits long.
MAX_BATCH = 2_000
# Beyond this the sender is told to come back, instead of memory filling up.
MAX_WAITING = 50_000
# A commit costs as much as ten events. Where several wait at a time, the next batch begins this long after the last one
# at the earliest; a lone event, and one sender after the other, is stored at once.
GATHER_S = 0.002
READERS = 3
MAX_POSITION = (1 << 63) - 1

_encode = msgspec.json.Encoder().encode

INSERT = """
insert or ignore into event (position, id, owner, coreid, name, received_at, size, record)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7
from json_each(?)
"""
USED = """
insert into usage (owner, bytes) select value ->> 0, value ->> 1 from json_each(?) where true
on conflict (owner) do update set bytes = bytes + excluded.bytes
"""
COUNTED = "update state set newest = ?"
# Usage and the newest position are written down after so many events; after an unclean end the rest is counted again.
COUNT_EVERY = 10_000
# After an error, and between two lines of the log about an older file that is indexed.
INDEX_RETRY_S = 10.0
INDEX_TOLD_S = 10.0


class NotClosed(CloudError):
    """The log could not be closed in order; the next start repairs it."""


class _Append:
    """Events that wait for the writer."""

    __slots__ = ("cursors", "done", "events")

    def __init__(self, events: Sequence[Event], done: asyncio.Future[Sequence[Cursor]]) -> None:
        self.events = events
        self.done = done
        self.cursors: Sequence[Cursor] = ()


class _Task:
    """Something else for the writer's connection to do, between two batches."""

    __slots__ = ("done", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Any], done: asyncio.Future[Any]) -> None:
        self.work = work
        self.done = done


class SqliteEventLog:
    """An event log in one file. Open it with `open_sqlite_log`."""

    def __init__(self, file: Path, writer: sqlite3.Connection, newest: int, clock: SteadyClock) -> None:
        self._file = file
        self._clock = clock
        self._holes = holes_of(writer)
        self._presence = Presence(file)
        self._writer = writer
        self._newest = newest
        # What owners used since it was last written down, and by how many events.
        self._used: dict[str, int] = {}
        self._uncounted = 0
        # Everything up to here is indexed; not before then is the next step.
        self._indexed = indexed_to(writer)
        self._index_at = 0.0
        self._index_told_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._tail = Tail(Cursor(str(newest)), int)
        self._waiting: deque[_Append | _Task] = deque()
        self._events_waiting = 0
        self._wake = threading.Condition()
        self._stop = threading.Event()
        self._closing = False
        self._unclosed: sqlite3.Error | None = None
        self._readers = ThreadPoolExecutor(READERS, "eventlog-reader")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._thread = threading.Thread(target=self._write_for_ever, name="eventlog-writer", daemon=True)
        self._thread.start()

    # --- the interface ---

    @property
    def tail(self) -> Tail:
        """The newest entries in memory."""
        return self._tail

    @property
    def origin(self) -> Cursor:
        """The cursor before every event."""
        return Cursor("0")

    def parse(self, text: str) -> Cursor:
        """The cursor that a client sent back: a decimal number as the log gave it."""
        if not (0 < len(text) <= 19 and text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
            raise NotACursor(f"{text[:40]!r} is no position of this log; send the `id:` of an event")
        if int(text) > MAX_POSITION:
            raise NotACursor(f"{text!r} is no position of this log; send the `id:` of an event")
        return Cursor(text)

    def order(self, cursor: Cursor) -> int:
        """The position as a number."""
        return int(cursor)

    async def within(self, owner: str, cursor: Cursor, count: int) -> Cursor:
        """The cursor, or a later one. Positions that are so close need not be looked at."""
        if int(self._tail.newest) - int(cursor) <= count:
            return cursor
        return await self._loop.run_in_executor(self._readers, self._within, owner, cursor, count)

    def next(self, cursor: Cursor) -> Cursor:
        """The position after a cursor."""
        return Cursor(str(int(cursor) + 1))

    async def append(self, events: Sequence[Event]) -> Sequence[Cursor]:
        """Stores the events and returns their cursors once they are durable."""
        if not events:
            return []
        if self._events_waiting >= MAX_WAITING:
            raise Unavailable("too many events wait to be stored; try again in a moment")
        item = _Append(events, self._loop.create_future())
        self._events_waiting += len(events)
        self._hand_over(item)
        return await item.done

    async def read(self, scope: Scope, after: Cursor, limit: int = MAX_PAGE) -> Page:
        """The scope's entries after a cursor."""
        newest = int(self._tail.newest)
        return await self._loop.run_in_executor(
            self._readers, self._read, scope, int(after), newest, min(limit, MAX_PAGE)
        )

    async def newest(self) -> Cursor:
        """The newest event's cursor."""
        return self._tail.newest

    async def oldest(self) -> Cursor:
        """The oldest event's cursor."""
        return await self._loop.run_in_executor(self._readers, self._oldest)

    async def trim(self, *, before_time: int, not_after: Cursor, owner_bytes: int | None) -> int:
        """Removes old events in small steps, appends going in between."""
        removed = 0
        bound = int(not_after)
        latest = max(self._clock.now(), self._clock.steady()) + AHEAD_MS
        while front := await self._loop.run_in_executor(self._readers, self._front, latest):
            step = await self._on_writer(partial(trim_age, before_time=before_time, not_after=bound, front=front))
            if not step:
                break
            removed += step
        if owner_bytes is not None:
            for owner in await self._on_writer(lambda db: over_quota(db, owner_bytes)):
                trim = partial(trim_owner, owner=owner, owner_bytes=owner_bytes, not_after=bound)
                while step := await self._on_writer(trim):
                    removed += step
        return removed

    async def close(self) -> None:
        """Writes what waits, marks the file clean and closes it.

        Raises:
            NotClosed: That could not be written, such as on a full disk.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._stop.set()
        await self._loop.run_in_executor(None, self._thread.join)
        self._readers.shutdown()
        for connection in self._connections:
            connection.close()
        if self._unclosed is not None:
            why = what_is_wrong(self._file, self._unclosed)
            raise NotClosed(f"{why}; it was not closed in order, and no acknowledged event is lost")

    # --- reading ---

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect(self._file)
            connection.execute("pragma query_only = on")
            self._connections.append(connection)
        return connection

    def _oldest(self) -> Cursor:
        try:
            self._presence.check()
            (first,) = self._connection().execute("select min(position) from event").fetchone()
        except (sqlite3.Error, FileGone) as problem:
            raise Unavailable(f"the event log can't be read: {problem}") from problem
        return Cursor(str(self._newest + 1 if first is None else first))

    def _hole_beyond(self, after: int) -> Hole | None:
        place = bisect_right(self._holes, after, key=lambda hole: hole.last)
        return self._holes[place] if place < len(self._holes) else None

    def _front(self, latest: int) -> Front | None:
        try:
            return front_of(self._connection(), latest)
        except sqlite3.Error as problem:
            raise Unavailable(f"the event log can't be read: {problem}") from problem

    def _within(self, owner: str, cursor: Cursor, count: int) -> Cursor:
        # Of the index only, and of what is after the cursor.
        query = "select position from event where owner = ? and position > ? order by position desc limit 1 offset ?"
        try:
            row = self._connection().execute(query, (owner, int(cursor), count)).fetchone()
        except sqlite3.Error as problem:
            raise Unavailable(f"the event log can't be read: {problem}") from problem
        return cursor if row is None else Cursor(str(row[0]))

    def _read(self, scope: Scope, after: int, newest: int, limit: int) -> Page:
        db = self._connection()
        hole = self._hole_beyond(after)
        if hole is not None and not hole.lost and after == hole.first - 1:
            # Nobody saw an event there.
            after, hole = hole.last, self._hole_beyond(hole.last)
        if hole is not None:
            if after >= hole.first - 1:
                last = Cursor(str(hole.last))
                return Page([], last, hole.last < newest, Gap(Cursor(str(after + 1)), last))
            newest = hole.first - 1
        try:
            # At one moment: a gap is told exactly where rows are missing.
            with snapshot(db):
                found = find(db, scope, after, newest, limit)
                trimmed = trimmed_to(db, scope.owner)
        except sqlite3.Error as problem:
            raise Unavailable(f"the event log can't be read: {problem}") from problem
        gap = Gap(Cursor(str(after + 1)), Cursor(str(trimmed))) if trimmed > after else None
        more = found.more or hole is not None
        return Page(found.entries, Cursor(str(max(found.upto, trimmed, after))), more, gap)

    # --- writing ---

    def _hand_over(self, item: _Append | _Task) -> None:
        with self._wake:
            if self._closing:
                raise Unavailable("the event log is closing")
            self._waiting.append(item)
            self._wake.notify()

    async def _on_writer(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        item = _Task(work, self._loop.create_future())
        self._hand_over(item)
        return await item.done

    def _write_for_ever(self) -> None:
        next_at = 0.0
        while True:
            with self._wake:
                while not self._waiting and not self._closing and (wait := self._index_wait()) != 0:
                    self._wake.wait(wait)
            if self._index_wait() == 0:
                self._index()
            pause = next_at - time.monotonic()
            if pause > 0 and self._events_waiting < MAX_BATCH:
                self._stop.wait(pause)
            began = time.monotonic()
            with self._wake:
                if not self._waiting:
                    if self._closing:
                        break
                    continue
                batch = self._next_batch()
            next_at = began + GATHER_S if isinstance(batch, list) and len(batch) > 1 else 0.0
            if isinstance(batch, _Task):
                self._perform(batch)
            else:
                self._store(batch)
        try:
            with self._counting() as db:
                for _ in range(CLOSING_STEPS):
                    self._indexed = index_step(db, self._newest)
                    if self._indexed >= self._newest:
                        break
                db.execute("update state set clean = 1")
            self._writer.execute("pragma wal_checkpoint(truncate)")
        except sqlite3.Error as problem:
            self._unclosed = problem
        self._writer.close()

    def _index_wait(self) -> float | None:
        """Seconds until the next step of the index; None while there is too little for one."""
        if self._newest - self._indexed < STEP:
            return None
        return max(0.0, self._index_at - time.monotonic())

    def _index(self) -> None:
        began = time.monotonic()
        try:
            with transaction(self._writer) as db:
                self._indexed = index_step(db, self._newest)
        except Exception as problem:
            # Readers look at the rows themselves meanwhile.
            _seldom.warning("index_waits", why=str(problem))
            self._index_at = began + INDEX_RETRY_S
            return
        now = time.monotonic()
        self._index_at = now + REST * (now - began)
        if self._newest - self._indexed >= STEP and now >= self._index_told_at:
            self._index_told_at = now + INDEX_TOLD_S
            _log.info("indexing", upto=self._indexed, newest=self._newest)

    def _next_batch(self) -> _Task | list[_Append]:
        first = self._waiting.popleft()
        if isinstance(first, _Task):
            return first
        batch = [first]
        count = len(first.events)
        while self._waiting and count < MAX_BATCH:
            item = self._waiting[0]
            if isinstance(item, _Task):
                break
            batch.append(item)
            count += len(item.events)
            self._waiting.popleft()
        return batch

    def _perform(self, task: _Task) -> None:
        try:
            with self._counting() as db:
                result = task.work(db)
        except sqlite3.Error as problem:
            error = Unavailable(f"the event log can't be written: {problem}")
            self._loop.call_soon_threadsafe(_fail, task.done, error)
            return
        except Exception as problem:
            # An error of ours is the asker's, such as memory that ran out; the thread goes on.
            self._loop.call_soon_threadsafe(_fail, task.done, problem)
            return
        self._loop.call_soon_threadsafe(_succeed, task.done, result)

    def _store(self, batch: list[_Append]) -> None:
        try:
            self._presence.check()
            entries = self._insert(batch)
        except Exception as problem:
            # Whatever it is, the thread goes on: without it nobody is answered any more.
            self._loop.call_soon_threadsafe(self._refused, batch, problem)
            return
        self._loop.call_soon_threadsafe(self._stored, batch, entries)

    def _insert(self, batch: list[_Append]) -> list[Entry]:
        """Stores a batch in one transaction; returns the entries that are new."""
        events = [event for item in batch for event in item.events]
        first = self._newest + 1
        rows: list[tuple[Any, ...]] = []
        used: dict[str, int] = {}
        # Should the time to which the clock was set turn out to be the right one, these are not old by then.
        ahead = self._clock.ahead()
        for position, event in enumerate(events, first):
            age_from = event.received_at + ahead
            record = record_of(event, age_from)
            size = len(record) + ROW_BYTES
            rows.append((position, event.id, event.owner, event.coreid, event.name, age_from, size, record))
            used[event.owner] = used.get(event.owner, 0) + size
        newest = first + len(events) - 1
        # A transaction of its own, begun and committed within the statement: each further one would wait for the GIL.
        stored = self._writer.execute(INSERT, (_encode(rows).decode(),)).rowcount
        # At once: whatever fails from here on, these positions are taken.
        self._newest = newest
        known: dict[str, int] = {}
        if stored != len(rows):
            known = _positions(self._writer, [event.id for event in events])
            if any(event.id not in known for event in events):
                # Left out for another reason than its id. It must not be acknowledged.
                raise sqlite3.IntegrityError("a position was taken already")
            used = _sizes_of_new(rows, known)
        for owner, size in used.items():
            self._used[owner] = self._used.get(owner, 0) + size
        self._uncounted += stored
        if self._uncounted >= COUNT_EVERY:
            with suppress(sqlite3.Error), self._counting():
                pass
        entries: list[Entry] = []
        position = first
        for item in batch:
            cursors: list[Cursor] = []
            for event in item.events:
                at = known.get(event.id, position)
                cursor = Cursor(str(at))
                cursors.append(cursor)
                if at == position:
                    entries.append(Entry(cursor, event))
                position += 1
            item.cursors = cursors
        return entries

    @contextmanager
    def _counting(self) -> Iterator[sqlite3.Connection]:
        """A transaction that also writes down what owners used, and the newest position."""
        with transaction(self._writer) as db:
            db.execute(USED, (_encode(list(self._used.items())).decode(),))
            db.execute(COUNTED, (self._newest,))
            yield db
        # Only now: what is rolled back is counted with the next one.
        self._used.clear()
        self._uncounted = 0

    def _stored(self, batch: list[_Append], entries: list[Entry]) -> None:
        self._tail.extend(entries)
        for item in batch:
            self._events_waiting -= len(item.events)
            _succeed(item.done, item.cursors)

    def _refused(self, batch: list[_Append], problem: Exception) -> None:
        # Some, such as that memory ran out, have no words of their own.
        why = str(problem) or type(problem).__name__
        _seldom.warning("append_failed", why=why, appends=len(batch))
        for item in batch:
            self._events_waiting -= len(item.events)
            _fail(item.done, Unavailable(f"the event log can't be written: {why}"))


@asynccontextmanager
async def open_sqlite_log(
    folder: Path, *, durability: Durability, clock: SteadyClock, known: int = 0
) -> AsyncIterator[SqliteEventLog]:
    """Opens the log in a folder, making it if need be, and closes it at the end.

    Args:
        known: A position that is known to have been given: positions go on beyond it, whatever the file says.
        durability: `full` survives power loss, `normal` a killed process.

    Raises:
        LogTooNew: A newer version wrote it.
        Unavailable: It is damaged.
    """
    file = folder / FILE
    try:
        writer, newest = await asyncio.get_running_loop().run_in_executor(None, open_file, file, durability, known)
    except sqlite3.Error as problem:
        raise Unavailable(what_is_wrong(file, problem)) from None
    log = SqliteEventLog(file, writer, newest, clock)
    try:
        yield log
    finally:
        await log.close()


def _positions(db: sqlite3.Connection, ids: list[str]) -> dict[str, int]:
    found = db.execute(
        "select id, position from event where id in (select value from json_each(?))", (_encode(ids).decode(),)
    )
    return dict(found.fetchall())


def _sizes_of_new(rows: list[tuple[Any, ...]], known: dict[str, int]) -> dict[str, int]:
    used: dict[str, int] = {}
    for position, event_id, owner, _, _, _, size, _ in rows:
        if known.get(event_id) == position:
            used[owner] = used.get(owner, 0) + size
    return used


def _succeed(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], problem: Exception) -> None:
    if not future.done():
        future.set_exception(problem)
