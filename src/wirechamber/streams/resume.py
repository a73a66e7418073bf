"""Where a stream starts, and what it gets before it is live."""

from __future__ import annotations

from collections.abc import AsyncIterator

from wirechamber.eventlog.base import Cursor, EventLog, Gap, Scope
from wirechamber.protocols import sse
from wirechamber.streams.hub import framed
from wirechamber.streams.past import Past


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


async def history(past: Past, scope: Scope, start: Start) -> AsyncIterator[bytes]:
    """What a reader missed, as whole chunks in pieces, until little is left, all of it in the tail in memory.

    `start.position` moves on with each page, so the caller can join the live stream there. The caller waits for the
    reader in between, so one that reads slowly stays here, however much comes meanwhile.

    Raises:
        Unavailable: The log can't be read.
    """
    if start.gap is not None:
        yield sse.chunk(sse.gap(start.gap.first, start.gap.last, start.position))
    while (part := await past.after(scope, start.position)) is not None:
        for piece in part.pieces:
            yield piece
        start.position = part.upto


def recent(log: EventLog, scope: Scope, position: Cursor) -> list[bytes]:
    """What is left of the past, from the tail in memory: to be written in the turn in which the reader joins."""
    entries = log.tail.since(position)
    assert entries is not None
    return [framed(entry) for entry in entries if scope.holds(entry.event)]
