"""What an attempt's log entry keeps of requests and responses: as sent, secrets masked, long bodies cut."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct, structs

from wirechamber import texts
from wirechamber.delivery.flight import Exchange
from wirechamber.delivery.masks import echoes, masked, shown
from wirechamber.integrations.base import NoResponse, Request, Response

# The rest of a body is not kept, only its length.
KEPT_BODY_BYTES = 16_384
# Encoded, a character may take this many bytes.
LONGEST_FORM = 12
# Of an answer to many events, each of their attempts keeps at least this.
LEAST_KEPT_BYTES = 512

_encode = msgspec.json.Encoder().encode


class SentRequest(Struct, frozen=True, omit_defaults=True):
    """A request as it went out. `body_length` is the true length in bytes."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    body: str | None = None
    body_length: int = 0


class GotResponse(Struct, frozen=True, omit_defaults=True):
    """An answer as it came in, its body as text. `body_length` is the number of bytes read, content codings undone;
    `unreadable` why that could not be."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: str | None = None
    body_length: int = 0
    unreadable: str = ""


class Step(Struct, frozen=True, omit_defaults=True):
    """One request of a plan and what came of it: a response, or the error's text."""

    request: SentRequest | None = None
    response: GotResponse | None = None
    error: str | None = None
    duration_ms: int = 0
    address: str | None = None


class Detail(Step, frozen=True, omit_defaults=True):
    """The last step, and the ones before it where a plan took several.

    Attributes:
        together: How many events went in one request, where it was more than one; `body` is this event's part.
    """

    earlier: Sequence[Step] = ()
    together: int = 1


def detail(exchanges: Sequence[Exchange], error: str | None = None, place: int = 0, events: int = 1) -> bytes:
    """The JSON that an attempt keeps.

    Args:
        exchanges: In the order they were made; none when the request could not even be built.
        error: Why there is no exchange.
        place: Which of the plan's events the attempt is about.
        events: How many the plan was for.
    """
    if not exchanges:
        return _encode(Detail(error=error))
    last = exchanges[-1]
    if events > 1:
        # The part about an event is in the last request that held it; answers for many are kept in proportion.
        last = next((each for each in reversed(exchanges) if _part(each.request, place) is not None), last)
    request, response, problem = _parts(last, place, events)
    return _encode(
        Detail(
            request=request,
            response=response,
            error=problem or error,
            duration_ms=last.duration_ms,
            address=last.address,
            earlier=() if events > 1 else tuple(_step(exchange) for exchange in exchanges[:-1]),
            together=events,
        )
    )


def _step(exchange: Exchange) -> Step:
    request, response, problem = _parts(exchange)
    return Step(request, response, problem, exchange.duration_ms, exchange.address)


def _part(request: Request, place: int) -> bytes | None:
    """What of a request for several events is about one of them."""
    return request.parts[place] or None if place < len(request.parts) else None


def _parts(exchange: Exchange, place: int = 0, events: int = 1) -> tuple[SentRequest, GotResponse | None, str | None]:
    request, reply = exchange.request, exchange.reply
    length = 0
    if isinstance(reply, Response):
        length = reply.length
        most = KEPT_BODY_BYTES + LONGEST_FORM * max(map(len, request.secrets), default=0)
        if len(reply.body) > most:
            # What is not kept is not looked through; who made the answer may have made the secrets, too.
            exchange = structs.replace(exchange, reply=structs.replace(reply, body=reply.body[:most]))
    reply = masked(exchange).reply
    whole = body = request.body
    kept = KEPT_BODY_BYTES
    if events > 1:
        part = _part(request, place)
        body = body if part is None else part
        kept = max(LEAST_KEPT_BYTES, KEPT_BODY_BYTES // events)
    url, headers = shown(request)
    sent = SentRequest(
        request.method,
        url,
        headers,
        None if body is None else _begin(body, request.secrets)[:KEPT_BODY_BYTES].decode("utf-8", "replace"),
        0 if whole is None else len(whole),
    )
    if isinstance(reply, NoResponse):
        return sent, None, reply.why
    got = GotResponse(reply.status, reply.headers, _text(reply, kept), length, reply.unreadable)
    return sent, got, None


def _text(reply: Response, kept: int) -> str:
    """So many bytes of a reply's body, as text."""
    body = reply.body[:kept]
    if texts.is_plain(body):
        return body.decode("ascii")
    return texts.text_of(body, reply.header("Content-Type"), cut=len(body) < reply.length)


def _begin(body: bytes, secrets: tuple[str, ...]) -> bytes:
    """As much of a request's body as is kept, without its secrets."""
    if not secrets:
        return body
    # Masked before it is cut, so that no half of a secret stays at the edge.
    longest = max(map(len, secrets))
    return echoes(secrets).masked(body[: KEPT_BODY_BYTES + longest * LONGEST_FORM])
