"""Where a stream starts, and what it gets before it is live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from wirechamber.eventlog.base import Cursor, EventLog, Gap, Scope
from wirechamber.protocols import sse
from wirechamber.streams.hub import formatted

PAGE = 500
# So much of the past may be left for the turn in which a reader joins. More would look like a reader that is slow.
LEFT_BYTES = 64 * 1024


class Start:
    """A reader's place in the log.

    Attributes:
        position: Everything of the scope up to here has been sent.
        gap: The client named a position that this log has not reached: everything before the newest is unknown.
    """

    def __init__(self, log: EventLog, last_event_id: str | None) -> None:
        """Reads what the client sent.

        Raises:
            NotACursor: It is no position of this log.
        """
        self.position = log.tail.newest
        self.gap: Gap | None = None
        if last_event_id is None:
            return
        cursor = log.parse(last_event_id)
        if log.order(cursor) > log.order(self.position):
            # The data folder was replaced by an older one: what the client saw is not here any more.
            self.gap = Gap(log.next(self.position), cursor)
        else:
            self.position = cursor


async def history(log: EventLog, scope: Scope, start: Start) -> AsyncIterator[bytes]:
    """The events that a reader missed, one each, until little is left, all of it in the tail in memory.

    `start.position` moves on with each of them, so the caller can join the live stream there. The caller waits for the
    reader in between, so one that reads slowly stays here, however much comes meanwhile.
    """
    if start.gap is not None:
        yield sse.gap(start.gap.first, start.gap.last, start.position)
    while True:
        entries = log.tail.since(start.position, PAGE)
        if entries is None:
            page = await log.read(scope, start.position, PAGE)
            if page.gap is not None:
                yield sse.gap(page.gap.first, page.gap.last, page.gap.last)
            for entry in page.entries:
                start.position = entry.cursor
                yield formatted(entry.cursor, entry.event)
            start.position = page.after
            continue
        frames = [formatted(entry.cursor, entry.event) if scope.holds(entry.event) else b"" for entry in entries]
        if len(entries) < PAGE and sum(map(len, frames)) <= LEFT_BYTES:
            return
        for entry, frame in zip(entries, frames, strict=True):
            start.position = entry.cursor
            if frame:
                yield frame
        # Where nothing of this page was for the reader, nobody has waited yet.
        await asyncio.sleep(0)


def recent(log: EventLog, scope: Scope, position: Cursor) -> list[bytes]:
    """What is left of the past, from the tail in memory: to be written in the turn in which the reader joins."""
    entries = log.tail.since(position)
    assert entries is not None
    return [sse.chunk(formatted(entry.cursor, entry.event)) for entry in entries if scope.holds(entry.event)]
