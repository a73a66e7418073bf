"""What a client wants of a stream, and in which form it can take it: read from its request alone (docs/streams.md)."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from aiohttp import HttpVersion11, web
from msgspec import Struct

from wirechamber.api.routing import Parameter
from wirechamber.errors import BadInput
from wirechamber.model.names import check_prefixes
from wirechamber.protocols import sse

EVENT_STREAM = "text/event-stream"
LAST_EVENT_ID = "Last-Event-ID"
# The query's names for the same, the one that counts most first. What a client adds by itself when it comes back counts
# more than what stood in the address from the start: `lastEventId` is event-source-polyfill's, `evs_last_event_id` that
# of amvtek's EventSource.
IN_QUERY = ("lastEventId", "evs_last_event_id", "lastEventID", LAST_EVENT_ID, "last_event_id")
# Which programs heed an `id:` without data, by the beginning of their User-Agent: browsers; Node's own EventSource
# (npm's ignores it); aiohttp-sse-client. Others make an empty event of it, such as httpx-sse and sseclient.
HEEDING = ("Mozilla/", "node", "undici", "Python/")
# And which shows all that comes to a person.
SHOWING = "curl/"


class Positions(StrEnum):
    """How a client is told where its stream is while no event comes that says so."""

    BLOCKS = "blocks"
    EVENTS = "events"
    NONE = "none"


Mark = Callable[[str], bytes]
_MARKS: dict[Positions, Mark] = {Positions.BLOCKS: sse.position_block, Positions.EVENTS: sse.position_event}


class Wanted(Struct, frozen=True):
    """What a request for a stream asks for.

    Attributes:
        prefix: As a scope has it.
        last_event_id: The client's own word about where it was, not looked at yet; None for a new stream.
        mark: Says where the stream is, in the form that the client takes; None where it takes none.
        chunked: Whether it takes HTTP chunks; otherwise the stream ends with the connection.
        notes: What the client's owner should know, a line each.
    """

    prefix: str | tuple[str, ...]
    last_event_id: str | None
    mark: Mark | None
    chunked: bool
    notes: tuple[str, ...]


def wanted(request: web.Request, unknown: str) -> Wanted:
    """Reads a request.

    Args:
        unknown: What of its query means nothing here.

    Raises:
        BadInput: It asks for what there is not.
    """
    in_path = request.match_info.get("prefix", "")
    # A filter that is empty is none.
    prefixes = [prefix for prefix in (in_path, *request.query.getall("prefix", ())) if prefix]
    return Wanted(
        prefix=check_prefixes(prefixes or [""]),
        last_event_id=_last_event_id(request),
        mark=_MARKS.get(_positions(request)),
        chunked=request.version >= HttpVersion11,
        notes=_notes(in_path, unknown),
    )


def is_event_source(request: web.Request) -> bool:
    """Whether the client is an EventSource, as it says by what the standard lets it send (HTML, sections 9.2.2 and
    9.2.3): it takes an event stream only, from no cache. httpx-sse says `no-store`."""
    headers = request.headers
    return EVENT_STREAM in headers.get("Accept", "") and "no-cache" in headers.get("Cache-Control", "")


def _last_event_id(request: web.Request) -> str | None:
    found = request.headers.get(LAST_EVENT_ID)
    for name in IN_QUERY:
        if found:
            break
        # Whoever adds one anew leaves the old one before it.
        found = next(reversed(request.query.getall(name, ())), None)
    return found or None


def _positions(request: web.Request) -> Positions:
    asked = request.query.get("positions")
    if asked:
        try:
            return Positions(asked)
        except ValueError:
            raise BadInput(f"positions may be {', '.join(Positions)}") from None
    agent = request.headers.get("User-Agent", "")
    heeds = is_event_source(request) and agent.startswith(HEEDING)
    return Positions.BLOCKS if heeds or agent.startswith(SHOWING) else Positions.NONE


def _notes(in_path: str, unknown: str) -> tuple[str, ...]:
    notes = []
    if "," in in_path:
        notes.append("the comma is part of the prefix; for several prefixes say ?prefix=a&prefix=b")
    if unknown:
        known = ", ".join(each.name for each in PARAMETERS if each.where == "query")
        notes.append(f"not known here and ignored: {unknown}; known are {known}")
    return tuple(notes)


PARAMETERS = (
    Parameter("Last-Event-ID", "Go on after the event of this `id:`; wins over the query.", where="header"),
    Parameter(
        "last_event_id", "The same, for clients that can't set headers.",
        spellings=tuple(name for name in IN_QUERY if name != "last_event_id"),
    ),
    Parameter("prefix", "Only events whose name begins so; several times for one of several, with the path's."),
    Parameter("positions", "How the stream says where it is while no event does: `blocks`, `events` or `none`."),
)  # fmt: skip
