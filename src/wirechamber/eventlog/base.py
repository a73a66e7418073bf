"""What an event log is, whatever keeps it.

Everything goes through it: whoever sends an event is acknowledged after the append; streams, devices and dispatch
read. A position is an opaque *cursor*: text that only the log itself looks into. Cursors compare by `order`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NewType, Protocol, runtime_checkable

from msgspec import Struct

from wirechamber.errors import BadInput
from wirechamber.eventlog.tail import Tail
from wirechamber.model.events import Event

Cursor = NewType("Cursor", str)

# The most entries that one page holds, whatever is asked for.
MAX_PAGE = 1_000


class NotACursor(BadInput):
    """The text is no cursor of this log; take one from an event's `id:` line, or leave it out."""


class Entry(Struct, frozen=True, gc=False):
    """An event at its place in the log."""

    cursor: Cursor
    event: Event


class Scope(Struct, frozen=True):
    """Which events a reader wants. Everything given must hold.

    Attributes:
        owner: Id of the user who owned the event at acceptance; None for all (internal readers only).
        coreid: What clients see as the publisher: one device's stream.
        prefix: The name begins with it, or with one of them, case-sensitive. Of several none begins with another.
    """

    owner: str | None = None
    coreid: str | None = None
    prefix: str | tuple[str, ...] = ""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The prefix, or all of them."""
        return (self.prefix,) if isinstance(self.prefix, str) else self.prefix

    def holds(self, event: Event) -> bool:
        """Whether the event is in this scope."""
        return (
            (self.owner is None or event.owner == self.owner)
            and (self.coreid is None or event.coreid == self.coreid)
            and event.name.startswith(self.prefix)
        )


class Gap(Struct, frozen=True):
    """A range of positions of which events are gone, both ends included."""

    first: Cursor
    last: Cursor


class Page(Struct, frozen=True):
    """What one read found.

    Attributes:
        entries: In order of position.
        after: Everything of the scope up to here has been seen: read on from here. It is never beyond the newest entry
            of the log's tail, and it is that one where the scope has nothing more, so a reader who has come to the end
            goes on with the tail.
        more: Whether there may be more already; when false, the reader has reached the newest event.
        gap: Set when events of the scope between the reader's position and the first entry were already gone.
    """

    entries: Sequence[Entry]
    after: Cursor
    more: bool
    gap: Gap | None = None


class EventLog(Protocol):
    """Keeps every accepted event, durably. What is appended is stored; what is read has a cursor."""

    @property
    def tail(self) -> Tail:
        """The newest entries in memory, and wake-ups for readers who have come that far."""

    async def append(self, events: Sequence[Event]) -> Sequence[Cursor]:
        """Stores the events, all or none, and returns their cursors once they are durable.

        An event whose id was appended before (within the log's window, at least ten minutes) is not stored
        again; its cursor is the first one's.

        Raises:
            Unavailable: The log can't be written; nothing was stored.
        """

    async def read(self, scope: Scope, after: Cursor, limit: int = MAX_PAGE) -> Page:
        """The scope's entries after a cursor, oldest first, up to what is the tail's newest when it is called.

        Holds nothing open afterwards.
        """

    async def newest(self) -> Cursor:
        """The cursor of the newest event, or the origin when nothing was ever appended."""

    async def oldest(self) -> Cursor:
        """The cursor of the oldest event that can be read; the next one to be given when there is none."""

    @property
    def origin(self) -> Cursor:
        """The cursor before every event."""

    def parse(self, text: str) -> Cursor:
        """The cursor that a client sent back.

        Raises:
            NotACursor: The text is none.
        """

    def order(self, cursor: Cursor) -> int:
        """A number that sorts cursors of this log."""

    async def within(self, owner: str, cursor: Cursor, count: int) -> Cursor:
        """The cursor, or a later one if there are more than `count` events of the owner after it: then just before the
        newest `count` of them."""

    def next(self, cursor: Cursor) -> Cursor:
        """The first position after a cursor."""


@runtime_checkable
class Trimmable(Protocol):
    """A log whose past can be removed."""

    async def trim(self, *, before_time: int, not_after: Cursor, owner_bytes: int | None) -> int:
        """Removes old events and returns how many.

        Args:
            before_time: Events received before this (milliseconds since 1970) may go.
            not_after: Nothing after this cursor goes, whatever its age: dispatch has not come further.
            owner_bytes: The most bytes that one owner's events may take; the oldest beyond that go. None: no quota.
        """
