"""One request under way: its handle of libcurl's, and what has come of its answer so far, within bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pycurl
import structlog
from msgspec import Struct

from wirechamber.integrations.base import MAX_ANSWER_BYTES, MAX_LARGE_ANSWER_BYTES, NoResponse, Request, Response
from wirechamber.observe.logs import Seldom

_log = structlog.get_logger("wirechamber.outbound")
_seldom = Seldom(_log, every_s=60.0)

# A target that sends headers for ever.
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 256
# What may come on the wire for one answer, for what is thrown away comes as well: extensions of chunks, 1xx answers,
# padding, frames without data. As much more as more of it is wanted.
MAX_WIRE_BYTES = 1024 * 1024
# Pieces of an answer that are taken, such as chunks: each is a call of ours, and 600 KB on the wire may be 100,000.
MAX_PIECES = 4_096
# Of a large one there may be more, as long as they are no smaller on average.
_PIECE_BYTES = 64
# Answers of more than `MAX_ANSWER_BYTES` under way: each may take ten times the memory of others.
MAX_LARGE_ANSWERS = 64


class Place:
    """A place for a large answer, held from when it is seen to be one until nothing of it is needed any more."""

    __slots__ = ("_owner", "_places")

    def __init__(self, places: LargeAnswers, owner: str) -> None:
        self._places: LargeAnswers | None = places
        self._owner = owner

    def give_back(self) -> None:
        """Lets another one have it; doing so twice is allowed."""
        if self._places is not None:
            self._places.give_back(self._owner)
            self._places = None


class Exchange(Struct, frozen=True):
    """A request and what came of it.

    Attributes:
        started_at: Milliseconds since 1970.
        address: The address really connected to, if there was a connection.
        place: Of a large answer: whoever takes it gives the place back when he has done with it.
    """

    request: Request
    reply: Response | NoResponse
    started_at: int
    duration_ms: int
    address: str | None
    place: Place | None = None


Done = Callable[[Exchange], None]


class LargeAnswers:
    """How many large answers are under way, and whose.

    An owner may have as many as are left: half of all when alone, less beside others.

    Args:
        counted: Where it is counted, as `large`, that there was no place for one.
    """

    __slots__ = ("_counted", "_held", "_left")

    def __init__(self, counted: Counter[str]) -> None:
        self._counted = counted
        self._held: Counter[str] = Counter()
        self._left = MAX_LARGE_ANSWERS

    def take(self, owner: str) -> Place | None:
        """A place, if there is one for this owner."""
        if self._held[owner] >= self._left:
            self._counted["large"] += 1
            why = f"{self._held[owner]} of this owner are under way, and {self._left} places are left"
            _seldom.warning("large_answer_cut", why=why, owner=owner)
            return None
        self._held[owner] += 1
        self._left -= 1
        return Place(self, owner)

    def give_back(self, owner: str) -> None:
        """One of this owner's has ended."""
        self._left += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]


class Flight:
    """A handle of libcurl's and the request that it has under way. Reused: setting one up is dear."""

    __slots__ = (
        "again", "asked_certificate", "body", "cut", "done", "forbidden", "handle", "head_ended", "header_bytes",
        "headers", "large", "length", "most", "opened", "owner", "pieces", "place", "request", "secure", "set_alone",
        "set_direct", "set_headers", "set_lifetime", "set_shape", "set_traced", "set_url", "shared", "started",
        "started_at", "stream",
    )  # fmt: skip

    def __init__(self, handle: pycurl.Curl, large: LargeAnswers) -> None:
        self.handle = handle
        self.large = large
        # What the handle was told last, so as not to tell it again.
        self.set_url = ""
        self.set_headers: tuple[tuple[str, str], ...] | None = None
        self.set_shape: tuple[str, bool, bool] | None = None
        self.set_direct: bool | None = None
        self.set_alone = False
        self.set_lifetime = 0
        self.set_traced = False
        self.secure = False
        # Of HTTP/2, as it is traced.
        self.stream = 0

    def begin(self, request: Request, done: Done, started_at: int, started: float, owner: str) -> None:
        """Takes a request on; nothing of the one before is left."""
        self.request = request
        self.owner = owner
        self.done = done
        self.started_at = started_at
        self.started = started
        # It was sent a second time; a connection was opened for it; it is one of HTTP/2, which others may share; the
        # target was seen to ask for a certificate.
        self.again = self.opened = self.shared = self.head_ended = self.asked_certificate = False
        self.headers: list[tuple[str, str]] = []
        self.header_bytes = 0
        self.body: list[bytes] = []
        self.length = 0
        self.most = min(request.answer_bytes, MAX_LARGE_ANSWER_BYTES)
        self.pieces = max(MAX_PIECES, self.most // _PIECE_BYTES)
        self.place: Place | None = None
        self.cut = False
        self.forbidden: str | None = None

    def take_header(self, line: bytes) -> int | None:
        """Takes a line of the headers; -1 ends the request, as libcurl wants it."""
        self.header_bytes += len(line)
        if self.header_bytes > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            return -1
        if line[:5] == b"HTTP/":
            # A 1xx answer came before: only the last one's headers count.
            self.headers.clear()
            self.head_ended = False
            self.shared = line[5:6] == b"2"
            return None
        if self.head_ended:
            # A trailer is no header (RFC 9110, section 6.5.1).
            return None
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            self.headers.append((name.strip(), value.strip()))
        else:
            self.head_ended = True
        return None

    def take_body(self, data: bytes) -> int | None:
        """Takes a piece of the body; 0 ends the request, which then has its answer, cut."""
        room = self.most - self.length
        self.length += len(data)
        if self.length > MAX_ANSWER_BYTES and room >= len(data) and self.place is None:
            self.place = self.large.take(self.owner)
            if self.place is None:
                room = 0
        if len(data) > room or len(self.body) == self.pieces:
            if len(self.body) < self.pieces:
                self.body.append(data[:room])
            self.cut = True
            return 0
        self.body.append(data)
        return None

    @property
    def wire_bytes(self) -> int:
        """What may come on the wire for the answer."""
        return MAX_WIRE_BYTES + self.most - MAX_ANSWER_BYTES

    def let_go(self, reply: Response | NoResponse) -> Place | None:
        """It has ended with this; returns the place that its answer holds, if it is a large one."""
        # What was read is a reply now, or nothing; the handle waits for the next request.
        self.body = []
        place, self.place = self.place, None
        if place is not None and isinstance(reply, NoResponse):
            place.give_back()
            return None
        return place
