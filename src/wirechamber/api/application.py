"""Every route, wired to its parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from wirechamber.api import devices, events, integrations, meta, oauth, openapi, streams, usage, users
from wirechamber.api.http import COMMON_HEADERS, MAX_BODY_BYTES, answer
from wirechamber.api.parts import Parts
from wirechamber.api.routing import Route, served
from wirechamber.descriptors import for_streams

# Fixed paths before the ones with a name in their place.
ROUTES: tuple[Route, ...] = (
    *meta.ROUTES,
    *oauth.ROUTES,
    *users.ROUTES,
    *streams.ROUTES,
    *events.ROUTES,
    *usage.ROUTES,
    *devices.ROUTES,
    *integrations.ROUTES,
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
        parts.metrics.refused("not_found")
        text = f"there is no {request.path[:200]} here; GET /docs lists what there is"
        return answer({"ok": False, "error": "not_found", "error_description": text}, 404)

    return refuse


def _wrong_method(allowed: str, parts: Parts) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def refuse(request: web.Request) -> web.Response:
        parts.metrics.refused("method_not_allowed")
        text = f"{request.method[:20]} is not possible here; allowed are {allowed}"
        body = {"ok": False, "error": "method_not_allowed", "error_description": text}
        return answer(body, 405, {"Allow": allowed})

    return refuse
