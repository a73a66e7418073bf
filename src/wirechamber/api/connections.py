"""The connections of the API's clients: how many there may be, how long they may keep us waiting, and whose turn it is
to go when there are too many.

What a connection is bounded by: the first request's headers must come within a while; between requests it may rest;
an answer must be read; one that is closed must take what is left. Event streams, which have bounds of their own, do
not count here while they run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import structlog

from wirechamber.descriptors import for_requests, for_streams
from wirechamber.observe.logs import Seldom
from wirechamber.shares import Shares

_seldom = Seldom(structlog.get_logger("wirechamber.api"))

# Connections that are no streams: some 11 KB each.
MAX_CONNECTIONS = 20_000
MAX_PER_NETWORK = 4_000
# A client must have ended its TLS handshake, and then have sent a request's headers, within this.
HEADERS_TIMEOUT_S = 20.0
# An answer that waits for its reader must get on by so many bytes (about 1 KB a second) within this; what is left when
# a connection is closed must be taken within it.
WRITE_TIMEOUT_S = 30.0
MIN_READ_BYTES = 32 * 1024
# Bytes of answers that may wait for their readers, all together.
MAX_UNREAD_BYTES = 64 * 1024 * 1024

Item = TypeVar("Item")


class Connection(Protocol):
    """One of the connections.

    Attributes:
        holder: Whom it counts for.
    """

    holder: str

    def __hash__(self) -> int: ...

    @property
    def has_asked(self) -> bool:
        """Whether a request has come."""

    def give_way(self) -> None:
        """Ends it, as it has kept us waiting for too long or others need its place."""

    def unread(self) -> int:
        """Bytes that were written and not yet taken."""

    def abort(self) -> None:
        """Ends it at once; what was not taken is lost."""


class Overdue(Generic[Item]):
    """Things that must be over within the same time, the oldest first; one timer for all of them.

    Args:
        seconds: How long each may take.
        late: Is told of each that took longer; it is not watched any more then.
    """

    def __init__(self, seconds: float, late: Callable[[Item], None]) -> None:
        self._seconds = seconds
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._deadlines: dict[Item, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: Item) -> None:
        """From now on it has its time, also if it was watched already."""
        self._deadlines.pop(item, None)
        self._deadlines[item] = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def discard(self, item: Item) -> None:
        """It is over."""
        self._deadlines.pop(item, None)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._deadlines:
            item, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                self._timer = self._loop.call_later(deadline - now, self._look)
                return
            del self._deadlines[item]
            self._late(item)


class Connections:
    """All connections of one server.

    Args:
        refused: Counts what was ended, by its reason.
    """

    def __init__(self, refused: Callable[[str], None]) -> None:
        self._refused = refused
        self._descriptors = for_streams() + for_requests()
        self._room = min(MAX_CONNECTIONS, self._descriptors)
        self._shares: Shares[Connection] = Shares(self._room, min(MAX_PER_NETWORK, self._room * 3 // 4))
        self._lasting: set[Connection] = set()
        self._young: Overdue[Connection] = Overdue(HEADERS_TIMEOUT_S, self._no_request)
        self._stalled: Overdue[Connection] = Overdue(WRITE_TIMEOUT_S, self._not_read)
        self._closing: Overdue[Connection] = Overdue(WRITE_TIMEOUT_S, lambda connection: connection.abort())
        self._unread: dict[Connection, int] = {}
        self._unread_by_holder: Counter[str] = Counter()
        self._unread_total = 0

    # --- coming and going ---

    def arrived(self, connection: Connection) -> None:
        """A new one. Where there is no place for it, the one that rests longest of whoever holds most goes."""
        out = self._shares.add(connection.holder, connection)
        if out is not None:
            self._crowded(out)
        elif len(self._shares) + len(self._lasting) > self._descriptors and len(self._shares) > 1:
            self.make_room()
        self._young.add(connection)

    def make_room(self) -> None:
        """Ends the connection that rests longest of whoever holds most."""
        out = self._shares.first_to_go()
        if out is not None:
            self._shares.discard(out)
            self._crowded(out)

    def rests(self, connection: Connection) -> None:
        """It has had its answer, and is as good as new."""
        self._lasting.discard(connection)
        self._shares.add(connection.holder, connection)

    def lasts(self, connection: Connection) -> None:
        """It is a stream now, until it `rests` again."""
        self._shares.discard(connection)
        self._lasting.add(connection)

    def is_lasting(self, connection: Connection) -> bool:
        """Whether it is a stream at present."""
        return connection in self._lasting

    def left(self, connection: Connection) -> None:
        """It has gone."""
        self._lasting.discard(connection)
        self._shares.discard(connection)
        self._young.discard(connection)
        self._closing.discard(connection)
        self.reads(connection)

    # --- reading ---

    def stalls(self, connection: Connection) -> None:
        """More waits for its reader than is written at once."""
        self._waits(connection, connection.unread())
        self._stalled.add(connection)
        while self._unread_total > MAX_UNREAD_BYTES:
            ((most, _),) = self._unread_by_holder.most_common(1)
            self._cut(next(each for each in self._unread if each.holder == most))

    def reads(self, connection: Connection) -> None:
        """It has taken nearly all of it."""
        if connection in self._unread:
            self._stalled.discard(connection)
            self._waits(connection, 0)

    def closes(self, connection: Connection) -> None:
        """It is closed as soon as it has taken what waits for it."""
        self._closing.add(connection)

    # --- what is too late ---

    def _no_request(self, connection: Connection) -> None:
        if not connection.has_asked:
            self._refused("no_request")
            connection.give_way()

    def _not_read(self, connection: Connection) -> None:
        left = connection.unread()
        if self._unread[connection] - left < MIN_READ_BYTES:
            self._cut(connection)
        else:
            self._waits(connection, left)
            self._stalled.add(connection)

    def _waits(self, connection: Connection, size: int) -> None:
        """So many bytes wait for its reader now."""
        change = size - self._unread.pop(connection, 0)
        if size:
            self._unread[connection] = size
        self._unread_total += change
        self._unread_by_holder[connection.holder] += change
        if not self._unread_by_holder[connection.holder]:
            del self._unread_by_holder[connection.holder]

    def _cut(self, connection: Connection) -> None:
        self.reads(connection)
        self._refused("not_read")
        _seldom.warning("answer_not_read", why="a client does not read its answer")
        connection.abort()

    def _crowded(self, connection: Connection) -> None:
        self._refused("too_many_connections" if connection.has_asked else "no_request")
        _seldom.warning("connections_crowded", why="clients hold more connections than there is room for")
        connection.give_way()
