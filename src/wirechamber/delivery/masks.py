"""Keeping secrets out of what is kept and told of a delivery.

In a request a secret is hidden where its kind put it (`Request.hidden`). Targets echo requests, so in answers, and in
errors, a secret is hidden wherever it stands, plain or encoded, if it is long enough to be told from other text: a
secret such as `k` is in every other word.

What is masked here is masked before anybody sees it, the plan itself included: so it is in attempts, in the events that
tell the device, and in whatever a kind makes of an answer.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote, quote_plus

from msgspec import structs

from wirechamber import texts
from wirechamber.delivery.flight import Exchange
from wirechamber.integrations.base import (
    MASK,
    MIN_ECHOED,
    Misconfigured,
    NoResponse,
    Outcome,
    Refused,
    Request,
    Response,
    TryLater,
)
from wirechamber.integrations.fields import without_password

# Of one request. A kind that names more has their first ones looked for: each is a pass over the answer.
MAX_SECRETS = 24
# Of a URL, so much is kept at most; nothing behind it is looked at.
MAX_URL_SHOWN = 16_384
# What longer secrets look like when encoded is not kept from request to request.
_LONG = 1_000

_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*")
# Schemes are no secrets (RFC 9110, section 11.1), and tell what was sent.
_SCHEME = re.compile(r"(?:Basic|Bearer|SharedAccessSignature) (?=.)", re.IGNORECASE)
_MASK = MASK.encode()
# CPython looks for a short text in one of up to 30,000 bytes in a way that can take their product; in a longer one its
# time grows with the length only (Objects/stringlib/fastsearch.h). Who made the secret may have made the answer, too.
_LINEAR_FROM = 30_000
_SMALL = 2_000
# Of the half of a secret that an answer may end with, so much is compared.
_TAIL = 128


class Echoes:
    """What secrets look like in an answer.

    Args:
        secrets: As they were sent; those that are too short are left out.
    """

    __slots__ = ("_forms", "_texts")

    def __init__(self, secrets: Sequence[str]) -> None:
        forms = {form for secret in secrets[:MAX_SECRETS] if len(secret) >= MIN_ECHOED for form in _forms(secret)}
        # The longest first: one may be a part of another.
        self._texts = sorted(forms, key=lambda form: (-len(form), form))
        self._forms = [form.encode("utf-8", "replace") for form in self._texts]

    def masked(self, data: bytes, *, cut: bool = False) -> bytes:
        """The bytes without the secrets; the same object where there are none.

        Args:
            cut: More came after these, so that one may be there by half.
        """
        padded = data if not _SMALL < len(data) < _LINEAR_FROM else data.ljust(_LINEAR_FROM, b"\0")
        for form in self._forms:
            if form in padded:
                data = padded = data.replace(form, _MASK)
        if cut:
            for form in self._forms:
                end = _begun(form, data)
                if end:
                    return data[:-end] + _MASK
        return data

    def _masked_text(self, reply: Response, body: bytes) -> bytes:
        """The body of a reply in another encoding than UTF-8, without the secrets as they look in that one."""
        encoding, _ = texts.encoding_of(body, reply.header("Content-Type"))
        if encoding == "utf-8":
            return body
        mask = MASK.encode(encoding)
        for form in self._texts:
            body = body.replace(form.encode(encoding, "replace"), mask)
        return body

    def text(self, text: str) -> str:
        """The text without the secrets; the same object where there are none."""
        if len(text) <= _SMALL:
            for form in self._texts:
                if form in text:
                    text = text.replace(form, MASK)
            return text
        data = text.encode("utf-8", "replace")
        masked = self.masked(data)
        return text if masked is data else masked.decode("utf-8", "replace")

    def headers(self, headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        """The headers without the secrets in their values; the same object where there are none."""
        # One look at all of them: most hold nothing.
        together = "\n".join([value for _, value in headers])
        if self.text(together) is together:
            return headers
        return tuple((name, self.text(value)) for name, value in headers)

    def reply(self, reply: Response | NoResponse) -> Response | NoResponse:
        """The reply without the secrets; the same object where there are none."""
        if isinstance(reply, NoResponse):
            why = self.text(reply.why)
            return reply if why == reply.why else NoResponse(why, reply.final)
        headers = self.headers(reply.headers)
        body = self.masked(reply.body, cut=reply.cut)
        if self._texts and (b"\0" in body[:4] or not body.isascii()):
            body = self._masked_text(reply, body)
        if headers is reply.headers and body is reply.body:
            return reply
        return structs.replace(reply, headers=headers, body=body)


def echoes(secrets: tuple[str, ...]) -> Echoes:
    """What these secrets look like in an answer; kept, since the next request has the same."""
    return _kept(secrets) if sum(map(len, secrets)) < _LONG else _kept_shortly(secrets)


def masked(exchange: Exchange) -> Exchange:
    """The exchange, its reply without the request's secrets."""
    secrets = exchange.request.secrets
    if not secrets:
        return exchange
    reply = echoes(secrets).reply(exchange.reply)
    return exchange if reply is exchange.reply else structs.replace(exchange, reply=reply)


def untold(exchange: Exchange) -> Exchange:
    """Of an exchange that was about a token, what may be kept: whom it was with, and how it ended."""
    request, reply = exchange.request, exchange.reply
    address = re.match(r"[A-Za-z]+://[^/?#]*", request.url)
    plain = Request(request.method, without_password(address[0]) if address else "", secrets=request.secrets)
    if isinstance(reply, Response):
        reply = Response(reply.status, length=reply.length)
    return masked(structs.replace(exchange, request=plain, reply=reply))


def told(outcome: Outcome, secrets: tuple[str, ...]) -> Outcome:
    """What became of a token's plan, without the secrets of its requests."""
    if not secrets or not isinstance(outcome, TryLater | Refused | Misconfigured):
        return outcome
    return structs.replace(outcome, why=echoes(secrets).text(outcome.why))


def shown(request: Request) -> tuple[str, tuple[tuple[str, str], ...]]:
    """URL and headers as they are kept: without what was hidden in them."""
    url = without_password(request.url[: 2 * MAX_URL_SHOWN])
    headers = request.headers
    if request.hidden:
        names, queries = _places(request.hidden)
        for query in queries:
            url = query.sub(lambda found: found[1] + MASK, url)
        headers = tuple([(name, _hidden(value) if name.lower() in names else value) for name, value in headers])
    if not request.secrets:
        return url[:MAX_URL_SHOWN], headers
    echoed = echoes(request.secrets)
    url, headers = echoed.text(url), echoed.headers(headers)
    if not request.hidden:
        # A kind that does not say where it put them: short ones stand alone, between marks.
        for secret in request.secrets[:MAX_SECRETS]:
            if 0 < len(secret) < MIN_ECHOED:
                alone = re.compile(f"(?<![\\w.~%+-]){re.escape(secret)}(?![\\w.~%+-])")
                url = alone.sub(MASK, url)
                headers = tuple((name, alone.sub(MASK, value)) for name, value in headers)
    return url[:MAX_URL_SHOWN], headers


@lru_cache(maxsize=512)
def _places(hidden: tuple[str, ...]) -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    """Names of headers in lower case, and what finds parameters of a query."""
    names = [place.removeprefix("headers.").lower() for place in hidden if place.startswith("headers.")]
    queries = [quote(place.removeprefix("query."), safe="") for place in hidden if place.startswith("query.")]
    return frozenset(names), tuple(re.compile(f"([?&]{re.escape(query)}=)[^&#]*", re.IGNORECASE) for query in queries)


@lru_cache(maxsize=512)
def _kept(secrets: tuple[str, ...]) -> Echoes:
    return Echoes(secrets)


@lru_cache(maxsize=8)
def _kept_shortly(secrets: tuple[str, ...]) -> Echoes:
    return Echoes(secrets)


def _begun(form: bytes, data: bytes) -> int:
    """With how many bytes of a secret's beginning, but not all of it, the data ends; 0 if with too few to be told.

    Of many bytes only the last are looked for, wherever they stand in the secret: rather too much is hidden than that
    one comparison is made for each length that there may be.
    """
    tail = data[-_TAIL:]
    if len(tail) == _TAIL < len(form):
        at = form.rfind(tail, 0, len(form) - 1)
        if at >= 0:
            return at + _TAIL
    shorter = range(min(len(form) - 1, _TAIL), MIN_ECHOED - 1, -1)
    return next((n for n in shorter if data.endswith(form[:n])), 0)


def _hidden(value: str) -> str:
    scheme = _SCHEME.match(value)
    return f"{scheme[0]}{MASK}" if scheme else MASK


def _forms(secret: str) -> set[str]:
    """A text as it is, and as URLs, JSON and HTML show it."""
    if _PLAIN.fullmatch(secret):
        return {secret}
    encoded = {quote(secret, safe="", errors="replace"), quote(secret, errors="replace")}
    encoded.add(quote_plus(secret, errors="replace"))
    lower = {re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in encoded}
    plain = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    slashed = {form.replace("/", "\\/") for form in plain}
    return {secret, html.escape(secret), html.escape(secret, quote=False)} | encoded | lower | plain | slashed
