"""OAuth tokens (cloud-api.md, section 2; clients.md, section 2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from msgspec import Struct

from wirechamber.api.http import Call, answer, basic_credentials
from wirechamber.api.routing import ANYONE, FULL, PASSWORD, TOKEN, Route
from wirechamber.errors import BadInput, CloudError, InvalidToken
from wirechamber.model.times import iso_or_none, parse_iso
from wirechamber.services.access import MAX_TOKEN_SECONDS, Issued
from wirechamber.services.grants import InvalidClient

# What Particle's cloud calls tokens that were got with a public client's id; python3-particle takes no others.
PUBLIC_CLIENT = "__PASSWORD_ONLY__"
PUBLIC_CLIENTS = frozenset(("particle", "particle-api", "particle-cli", "CLI2", "spark", "user"))
MAX_CLIENT = 128
DEFAULT_CLIENT = "particle"


class UnsupportedGrant(CloudError):
    """This way to get a token is not offered."""

    status = 400
    code = "unsupported_grant_type"


class TokenRequest(Struct):
    """What `POST /oauth/token` takes, as a form or JSON."""

    grant_type: str = "password"
    username: str | None = None
    password: str | None = None
    refresh_token: str | None = None
    expires_in: int | None = None
    expires_at: str | None = None
    scope: str | None = None
    client_id: str | None = None
    client_secret: str | None = None


class InvalidBasicClient(InvalidClient):
    """The same for one that came by HTTP Basic (RFC 6749, section 5.2)."""

    status = 401


async def create(call: Call) -> web.Response:
    """Logs in. A Bearer header is ignored: particle-cli sends `Bearer null`, or its old token."""
    body = await call.body()
    grant_type = body.get("grant_type", "password")
    handler = GRANTS.get(grant_type) if isinstance(grant_type, str) else None
    if handler is None:
        told = f"the grant type {str(grant_type)[:40]!r} is not supported; use one of {', '.join(GRANTS)}"
        raise UnsupportedGrant(told)
    basic = basic_credentials(call.request)
    client, secret = (text(body, "client_id"), text(body, "client_secret"))
    if client is None and basic is not None:
        client, secret = basic
    try:
        issued = await handler(call, body, client, secret or "")
    except InvalidClient as problem:
        if basic is None:
            raise
        raise InvalidBasicClient(problem.description) from None
    expires_at = issued.token.expires_at
    life = 0 if expires_at is None else (expires_at - issued.token.created_at) // 1000
    said = {"token_type": "bearer", "access_token": issued.secret, "expires_in": life}
    if issued.refresh is not None:
        said["refresh_token"] = issued.refresh
    return answer(said)


async def _by_password(call: Call, body: dict[str, Any], client: str | None, secret: str) -> Issued:
    name, password = body.get("username"), body.get("password")
    if not isinstance(name, str) or not isinstance(password, str) or not name:
        raise BadInput("send username and password")
    client = (client or DEFAULT_CLIENT)[:MAX_CLIENT]
    registered = await call.parts.grants.client(client, secret)
    user = await call.parts.access.verify(name, password, call.address())
    life = _life(body, call.parts.clock.now())
    return await call.parts.grants.log_in(user, client, _asked(body), life, registered)


async def _by_refresh_token(call: Call, body: dict[str, Any], client: str | None, secret: str) -> Issued:
    shown = text(body, "refresh_token")
    if shown is None:
        raise BadInput("send refresh_token")
    return await call.parts.grants.refresh(shown, client and client[:MAX_CLIENT], secret, _asked(body))


async def _by_client(call: Call, body: dict[str, Any], client: str | None, secret: str) -> Issued:
    if client is None:
        raise BadInput("send client_id and client_secret, or both by HTTP Basic")
    return await call.parts.grants.by_client(client, secret, _asked(body), _life(body, call.parts.clock.now()))


# By grant type (RFC 6749, sections 4.3, 6 and 4.4).
GRANTS: dict[str, Callable[[Call, dict[str, Any], str | None, str], Awaitable[Issued]]] = {
    "password": _by_password,
    "refresh_token": _by_refresh_token,
    "client_credentials": _by_client,
}


def text(body: dict[str, Any], name: str) -> str | None:
    """A text of the body; None when it is absent or empty.

    Raises:
        BadInput: It is something else.
    """
    value = body.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadInput(f"{name} must be a text")
    return value


def _asked(body: dict[str, Any]) -> tuple[str, ...] | None:
    scope = text(body, "scope")
    return None if scope is None or not scope.strip() else tuple(dict.fromkeys(scope.split()))


async def current(call: Call) -> web.Response:
    """Tells about the token that asks."""
    grant = call.caller
    return answer(
        {
            "expires_at": iso_or_none(grant.expires_at),
            "client": _client(grant.client),
            "client_id": grant.client,
            "scopes": sorted(grant.scopes),
            "orgs": [],
        }
    )


async def revoke_current(call: Call) -> web.Response:
    """Logs out."""
    await call.parts.access.revoke(call.secret)
    return answer({"ok": True})


async def revoke(call: Call) -> web.Response:
    """Ends a token: holding it is the permission. An unknown one is answered alike, so nothing is given away."""
    await call.parts.access.revoke(call.path("token"))
    return answer({"ok": True})


async def revoke_all(call: Call) -> web.Response:
    """Ends all of the caller's tokens."""
    await call.parts.access.revoke_all(call.owner)
    return answer({"ok": True})


async def listed(call: Call) -> web.Response:
    """The caller's tokens, masked: only digests are stored."""
    credentials = basic_credentials(call.request)
    if credentials is None:
        raise InvalidToken(
            "send user name and password by HTTP Basic", error="invalid_request", errors=["Unknown user"]
        )
    try:
        user = await call.parts.access.verify(*credentials, call.address())
    except CloudError as problem:
        if problem.status != 400:
            raise
        raise InvalidToken("Bad password", error="Bad password", errors=["Bad password"]) from None
    tokens = await call.parts.access.tokens_of(user.id)
    return answer(
        [
            {
                "token": token.hint + "*" * 34,
                "expires_at": iso_or_none(token.expires_at),
                "client": _client(token.client),
                "scopes": list(token.scopes),
            }
            for token in tokens
        ]
    )


def _client(client: str) -> str:
    return PUBLIC_CLIENT if client in PUBLIC_CLIENTS else client


def _life(body: dict[str, Any], now: int) -> int | None:
    """The seconds asked for; 0 for never, None for the default."""
    if body.get("expires_in") not in (None, ""):
        try:
            return min(int(body["expires_in"]), MAX_TOKEN_SECONDS)
        except (TypeError, ValueError, OverflowError):
            raise BadInput("expires_in must be a number of seconds, or 0 for never") from None
    if "expires_at" not in body:
        return None
    if body["expires_at"] in (None, "", "null"):
        return 0
    try:
        return max(1, (parse_iso(str(body["expires_at"])) - now) // 1000)
    except (ValueError, OverflowError):
        raise BadInput("expires_at must be an ISO 8601 time, or null for never") from None


ROUTES = (
    Route(
        method="POST", path="/oauth/token", handler=create, requires=ANYONE, body=TokenRequest,
        summary="Log in with name and password, a refresh token, or as a client that you registered",
        answers="{token_type, access_token, expires_in, refresh_token}",
    ),
    Route(
        method="GET", path="/v1/access_tokens", handler=listed, requires=PASSWORD,
        summary="List your tokens, masked (HTTP Basic)", answers="[{token, expires_at, client}]",
    ),
    Route(
        method="DELETE", path="/v1/access_tokens", handler=revoke_all, requires=FULL,
        summary="Revoke all your tokens", answers="{ok}",
    ),
    Route(
        method="GET", path="/v1/access_tokens/current", handler=current, requires=TOKEN,
        summary="Show the token that asks", answers="{expires_at, client_id, scopes, orgs}",
    ),
    Route(
        method="DELETE", path="/v1/access_tokens/current", handler=revoke_current, requires=TOKEN,
        summary="Revoke the token that asks", answers="{ok}",
    ),
    Route(
        method="DELETE", path="/v1/access_tokens/{token}", handler=revoke, requires=ANYONE,
        summary="Revoke an access or refresh token; holding it is the permission", answers="{ok}",
    ),
)  # fmt: skip
