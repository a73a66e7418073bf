"""Every route, wired to its parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from wirechamber.api import (
    absent,
    clients,
    devices,
    diagnostics,
    events,
    integrations,
    meta,
    oauth,
    openapi,
    streams,
    usage,
    users,
)
from wirechamber.api.bodies import MAX_BODY_BYTES, check_encoding
from wirechamber.api.connection import HttpConnection
from wirechamber.api.http import COMMON_HEADERS, Call, answer
from wirechamber.api.parts import Parts
from wirechamber.api.routing import Route, refused, served
from wirechamber.descriptors import for_streams
from wirechamber.errors import CloudError

# Fixed paths before the ones with a name in their place.
ROUTES: tuple[Route, ...] = (
    *meta.ROUTES,
    *oauth.ROUTES,
    *clients.ROUTES,
    *users.ROUTES,
    *streams.ROUTES,
    *events.ROUTES,
    *usage.ROUTES,
    *devices.ROUTES,
    *diagnostics.ROUTES,
    *integrations.ROUTES,
    *absent.ROUTES,
)

PREFLIGHT = {
    **COMMON_HEADERS,
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": (
        "X-Requested-With, Content-Type, Accept, Authorization, Last-Event-ID, Cache-Control, Idempotency-Key,"
        " X-Particle-Tool, X-Particle-Project"
    ),
    "Access-Control-Max-Age": "300",
}


def application(parts: Parts) -> web.Application:
    """The API as an aiohttp application."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[streams.OPEN] = streams.Open(for_streams())
    app[meta.DOCUMENT] = msgspec.json.encode(openapi.document(ROUTES))
    app[meta.PAGE] = openapi.page(ROUTES)
    allowed: dict[str, list[str]] = {}
    for route in ROUTES:
        allowed.setdefault(route.path, []).append(route.method)
        handler = served(route, parts)
        if route in streams.ROUTES:
            handler = _lasting(handler)
        for path in _spellings(route.path):
            app.router.add_route(route.method, path, handler)
            if route.method == "GET" and route not in streams.ROUTES:
                # The same without the body (RFC 9110, section 9.3.2); balancers probe so.
                app.router.add_route("HEAD", path, handler)
    for path, methods in allowed.items():
        refuse = _wrong_method(", ".join(methods), parts)
        for spelling in _spellings(path):
            app.router.add_route("OPTIONS", spelling, _preflight)
            app.router.add_route("*", spelling, refuse)
    app.router.add_route("OPTIONS", "/{rest:.*}", _preflight)
    app.router.add_route("*", "/{rest:.*}", _unknown(parts))
    return app


def _lasting(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Callable[..., Any]:
    """The handler of a stream, which counts as such while it runs."""

    async def handle(request: web.Request) -> web.StreamResponse:
        assert isinstance(request.protocol, HttpConnection)
        request.protocol.lasts()
        return await handler(request)

    return handle


def _spellings(path: str) -> tuple[str, ...]:
    # A redirect would turn a POST into a GET in most clients, so a trailing slash is answered directly; particle-api-js
    # with a trailing slash in its base URL makes `//v1`.
    if path.endswith(("+}", "*}")):
        return (path, "/" + path)
    return (path, path + "/", "/" + path)


async def _preflight(_request: web.Request) -> web.Response:
    return web.Response(status=204, headers=PREFLIGHT)


def _unknown(parts: Parts) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def refuse(request: web.Request) -> web.Response:
        text = absent.reason(request.path) or f"there is no {request.path[:200]} here; GET /docs lists what there is"
        return _refused(request, parts, "not_found", text, 404)

    return refuse


def _wrong_method(allowed: str, parts: Parts) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def refuse(request: web.Request) -> web.Response:
        text = f"{request.method[:20]} is not possible here; allowed are {allowed}"
        return _refused(request, parts, "method_not_allowed", text, 405, {"Allow": allowed})

    return refuse


def _refused(
    request: web.Request, parts: Parts, code: str, text: str, status: int, headers: dict[str, str] | None = None
) -> web.Response:
    try:
        check_encoding(request)
    except CloudError as problem:
        return refused(Call(request, parts), problem)
    parts.metrics.refused(code)
    return answer({"ok": False, "error": code, "error_description": text}, status, headers)
