"""The past as streams show it: pages of the log and of its tail, framed once for all who come back there."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from msgspec import Struct

from wirechamber.eventlog.base import Cursor, EventLog, Scope
from wirechamber.observe.tasks import awaited
from wirechamber.protocols import sse
from wirechamber.streams.hub import framed
from wirechamber.streams.turns import Turns

# Events of one page of the log, and of the tail: there, nothing bounds its bytes.
PAGE = 500
TAIL_PAGE = 100
# Pages that are read at a time: the log keeps a reader beside them for everybody else. And in a second, all together.
PAGES_AT_ONCE = 2
PAGES_PER_S = 1_000
# So much of the past may be left for the turn in which a reader joins. More would look like a reader that is slow.
LEFT_BYTES = 64 * 1024
# What is written in one go, and then taken by the reader, before the next.
PIECE_BYTES = 64 * 1024
# Pages are kept for those who come back at the same time, as all streams of an owner do after a restart.
KEPT_BYTES = 16 * 1024 * 1024
KEPT_S = 5.0


class Part(Struct, frozen=True, gc=False):
    """A page.

    Attributes:
        pieces: Whole chunks, some tens of kilobytes each.
        upto: Everything of the scope up to here is in it.
    """

    pieces: tuple[bytes, ...]
    upto: Cursor


class _Reading:
    """A page that is being read, and how many wait for it."""

    __slots__ = ("task", "wanted")

    def __init__(self, task: asyncio.Task[Part]) -> None:
        self.task = task
        self.wanted = 0


class Past:
    """What was, for streams that come back.

    Attributes:
        turns: Whose page is read next.
    """

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.turns = Turns(PAGES_AT_ONCE, PAGES_PER_S)
        self._loop = asyncio.get_running_loop()
        self._kept: OrderedDict[tuple[Scope, Cursor], tuple[float, Part]] = OrderedDict()
        self._kept_bytes = 0
        self._reading: dict[tuple[Scope, Cursor], _Reading] = {}

    async def after(self, scope: Scope, position: Cursor) -> Part | None:
        """The page after a position; None where little is left, all of it in the tail in memory.

        Raises:
            Unavailable: The log can't be read.
        """
        entries = self.log.tail.since(position, TAIL_PAGE)
        if entries is not None and len(entries) < TAIL_PAGE:
            # Never kept: more of it may come at any moment.
            frames = [framed(entry) for entry in entries if scope.holds(entry.event)]
            return None if sum(map(len, frames)) <= LEFT_BYTES else Part(_pieces(frames), entries[-1].cursor)
        key = (scope, position)
        part = self._of_kept(key)
        if part is None:
            if entries is None:
                part = await self._shared(key)
            else:
                frames = [framed(entry) for entry in entries if scope.holds(entry.event)]
                part = Part(_pieces(frames), entries[-1].cursor)
                self._keep(key, part)
        if entries is not None:
            # Where nothing of it is for the reader, nobody has waited yet.
            await asyncio.sleep(0)
        return part

    async def _shared(self, key: tuple[Scope, Cursor]) -> Part:
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = _Reading(awaited(self._read(*key), "stream-history"))
        reading.wanted += 1
        try:
            return await asyncio.shield(reading.task)
        finally:
            reading.wanted -= 1
            if reading.wanted == 0:
                # Nobody waits for what is not read yet.
                reading.task.cancel()
                if self._reading.get(key) is reading:
                    del self._reading[key]

    async def _read(self, scope: Scope, position: Cursor) -> Part:
        async with self.turns.turn(scope.owner):
            page = await self.log.read(scope, position, PAGE)
        frames = [framed(entry) for entry in page.entries]
        if page.gap is not None:
            frames.insert(0, sse.chunk(sse.gap(page.gap.first, page.gap.last, page.gap.last)))
        part = Part(_pieces(frames), page.after)
        self._keep((scope, position), part)
        return part

    def _of_kept(self, key: tuple[Scope, Cursor]) -> Part | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        until, part = kept
        if until < self._loop.time():
            self._drop(key)
            return None
        return part

    def _keep(self, key: tuple[Scope, Cursor], part: Part) -> None:
        if key in self._kept:
            self._drop(key)
        self._kept[key] = (self._loop.time() + KEPT_S, part)
        self._kept_bytes += _size(part)
        while self._kept_bytes > KEPT_BYTES:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[Scope, Cursor]) -> None:
        _, part = self._kept.pop(key)
        self._kept_bytes -= _size(part)


def _size(part: Part) -> int:
    # The objects around it are some hundred bytes.
    return 500 + sum(map(len, part.pieces))


def _pieces(frames: Iterable[bytes]) -> tuple[bytes, ...]:
    pieces: list[bytes] = []
    gathered: list[bytes] = []
    size = 0
    for frame in frames:
        gathered.append(frame)
        size += len(frame)
        if size >= PIECE_BYTES:
            pieces.append(b"".join(gathered))
            gathered, size = [], 0
    if gathered:
        pieces.append(b"".join(gathered))
    return tuple(pieces)
