"""What an attempt's log entry keeps of requests and responses: as sent, secrets masked, long bodies cut."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from wirechamber.delivery.outbound import Exchange
from wirechamber.integrations.base import MASK, NoResponse

# The rest of a body is not kept, only its length.
KEPT_BODY_BYTES = 16_384

_encode = msgspec.json.Encoder().encode


class SentRequest(Struct, frozen=True, omit_defaults=True):
    """A request as it went out. `body_length` is the true length in bytes."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    body: str | None = None
    body_length: int = 0


class GotResponse(Struct, frozen=True, omit_defaults=True):
    """An answer as it came in. `body_length` is the number of bytes read."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: str | None = None
    body_length: int = 0


class Step(Struct, frozen=True, omit_defaults=True):
    """One request of a plan and what came of it: a response, or the error's text."""

    request: SentRequest | None = None
    response: GotResponse | None = None
    error: str | None = None
    duration_ms: int = 0
    address: str | None = None


class Detail(Step, frozen=True, omit_defaults=True):
    """The last step, and the ones before it where a plan took several."""

    earlier: Sequence[Step] = ()


def detail(exchanges: Sequence[Exchange], error: str | None = None) -> bytes:
    """The JSON that an attempt keeps.

    Args:
        exchanges: In the order they were made; none when the request could not even be built.
        error: Why there is no exchange.
    """
    if not exchanges:
        return _encode(Detail(error=error))
    last = exchanges[-1]
    request, response, problem = _parts(last)
    return _encode(
        Detail(
            request=request,
            response=response,
            error=problem or error,
            duration_ms=last.duration_ms,
            address=last.address,
            earlier=tuple(_step(exchange) for exchange in exchanges[:-1]),
        )
    )


def _step(exchange: Exchange) -> Step:
    request, response, problem = _parts(exchange)
    return Step(request, response, problem, exchange.duration_ms, exchange.address)


def _parts(exchange: Exchange) -> tuple[SentRequest, GotResponse | None, str | None]:
    request, reply, secrets = exchange.request, exchange.reply, exchange.request.secrets
    body = request.body
    sent = SentRequest(
        request.method,
        _mask(request.url, secrets),
        _mask_headers(request.headers, secrets),
        None if body is None else _kept(body, secrets),
        0 if body is None else len(body),
    )
    if isinstance(reply, NoResponse):
        return sent, None, _mask(reply.why, secrets)
    got = GotResponse(reply.status, _mask_headers(reply.headers, secrets), _kept(reply.body, secrets), reply.length)
    return sent, got, None


def _kept(body: bytes, secrets: Sequence[str]) -> str:
    if not secrets:
        return body[:KEPT_BODY_BYTES].decode("utf-8", "replace")
    # Masked before it is cut, so that no half of a secret stays at the edge.
    masked = _mask(body.decode("utf-8", "replace"), secrets)
    return masked.encode()[:KEPT_BODY_BYTES].decode("utf-8", "replace")


def _mask(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        if secret:
            text = text.replace(secret, MASK)
    return text


def _mask_headers(headers: Sequence[tuple[str, str]], secrets: Sequence[str]) -> Sequence[tuple[str, str]]:
    if not secrets:
        return headers
    return [(_mask(name, secrets), _mask(value, secrets)) for name, value in headers]
