"""Server-Sent Events as Particle's clients read them (cloud-api.md, section 4; clients.md, section 5).

Each event is one HTTP chunk of its own and never split, because sseclient reads below the chunked framing and
particle-api-js decodes each network chunk alone. The JSON is one line of ASCII, so no character can be cut.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as _quote

CONTENT_TYPE = "text/event-stream; charset=utf-8"
# A comment is a line of its own, and no blank line follows: some clients make an event without data of it (httpx-sse
# as soon as it has seen an `id:`, others always).
GREETING = b":ok\n"
# Any byte ends the silence after which a client gives up; a comment is skipped by all of them.
KEEP_ALIVE = b":\n"
GAP_EVENT = "wirechamber/gap"
POSITION_EVENT = "wirechamber/position"


def event(name: str, data: str | None, ttl: int, published_at: str, coreid: str, cursor: str) -> bytes:
    """One event in the reference's form, with our `id:` line.

    Args:
        name: Holds no line break (publishing refuses it, results are cleaned of it).
        data: None was published without data.
        published_at: ISO 8601.
        cursor: The event's position, which the client sends back as Last-Event-ID.
    """
    quoted = "null" if data is None else _quote(data)
    return (
        f"id: {cursor}\nevent: {name}\n"
        f'data: {{"data":{quoted},"ttl":{ttl},"published_at":"{published_at}","coreid":{_quote(coreid)}}}\n\n'
    ).encode("utf-8", "replace")


def gap(first: str, last: str, cursor: str) -> bytes:
    """Says that the events at these positions, both included, can't be sent any more.

    Args:
        cursor: Where the stream goes on: what the client sends back if it is cut right after this.
    """
    lost = f'{{"first":{_quote(first)},"last":{_quote(last)}}}'
    return f"id: {cursor}\nevent: {GAP_EVENT}\ndata: {lost}\n\n".encode()


def comment(text: str) -> bytes:
    """A line that clients skip and people may read.

    Args:
        text: One line.
    """
    return f": {text}\n".encode("utf-8", "replace")


def position_line(cursor: str) -> bytes:
    """Where the stream is, for whoever reads lines; a parser forgets it for the next event's own."""
    return f"id: {cursor}\n".encode()


def position_block(cursor: str) -> bytes:
    """Where the stream is, for clients that do as the standard says: without data no event comes of it, but the client
    remembers it as Last-Event-ID (HTML, section 9.2.6)."""
    return f"id: {cursor}\n\n".encode()


def position_event(cursor: str) -> bytes:
    """The same as an event, for clients that look at the ids of events only; most hand it on to nobody who has not
    asked for its name."""
    return f'id: {cursor}\nevent: {POSITION_EVENT}\ndata: {{"position":{_quote(cursor)}}}\n\n'.encode()


def retry(milliseconds: int) -> bytes:
    """When to connect again once the stream has ended; takes effect at once, without a blank line, as in the standard.

    Some clients would take a blank line for the end of an event without data.
    """
    return b"retry: %d\n" % milliseconds


def chunk(payload: bytes) -> bytes:
    """A chunk of HTTP/1.1's chunked transfer coding (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def unchunked(chunks: bytes) -> bytes:
    """What whole chunks hold, for a client of HTTP/1.0, which knows none."""
    found = []
    at = 0
    while at < len(chunks):
        start = chunks.index(b"\r\n", at) + 2
        end = start + int(chunks[at : start - 2], 16)
        found.append(chunks[start:end])
        at = end + 2
    return b"".join(found)
