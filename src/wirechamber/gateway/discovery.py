"""What devices may ask of this cloud, as `/.well-known/core` tells it (RFC 6690)."""

from __future__ import annotations

from wirechamber.protocols.coap.blockwise import SZX_1024, Block, block_of, read_block
from wirechamber.protocols.coap.links import Link, filtered, write_links
from wirechamber.protocols.coap.message import Code, Option, uint
from wirechamber.protocols.deviceos.messages import ContentFormat, Discover

_EVENTS = (
    ContentFormat.TEXT, ContentFormat.OCTET_STREAM, ContentFormat.JSON, ContentFormat.CBOR, ContentFormat.JSON_AS_CBOR,
)  # fmt: skip
LINKS = (
    Link("/E", "event", "POST /E/NAME publishes an event", _EVENTS),
    Link("/e", "events", "GET /e/PREFIX with Observe: 0 brings events", _EVENTS, obs=True),
    Link("/t", "time", "GET: seconds since 1970 in four bytes", (ContentFormat.OCTET_STREAM,)),
    Link("/d", "description", "POST: functions and variables", (ContentFormat.JSON,)),
    Link("/.well-known/core", "links", "GET: this list", (ContentFormat.LINK_FORMAT,)),
)

Options = tuple[tuple[int, bytes], ...]


def answer(asked: Discover) -> tuple[int, bytes, Options]:
    """Code, payload and options of the answer; a long list comes in blocks (RFC 7959, section 2.4)."""
    if not asked.accepts:
        # RFC 7252, section 5.10.4.
        return Code.NOT_ACCEPTABLE, b"", ()
    body = write_links(LINKS if asked.query is None else filtered(LINKS, asked.query))
    wanted = Block(0, False, SZX_1024) if asked.block2 is None else read_block(asked.block2)
    found = None if wanted is None else block_of(body, wanted)
    if found is None:
        return Code.BAD_REQUEST, b"", ()
    block2, payload = found
    options: Options = ((Option.CONTENT_FORMAT, uint(ContentFormat.LINK_FORMAT)),)
    if asked.block2 is not None or len(payload) < len(body):
        options = (*options, (Option.BLOCK2, block2))
    return Code.CONTENT, payload, options
