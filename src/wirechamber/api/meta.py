"""About this cloud: health, metrics, and the API's own description."""

from __future__ import annotations

from aiohttp import web

from wirechamber import SERVER_NAME, __version__
from wirechamber.api.http import COMMON_HEADERS, Call, answer, is_local
from wirechamber.api.routing import ANYONE, Route
from wirechamber.errors import Forbidden

DOCUMENT = web.AppKey("openapi_document", bytes)
PAGE = web.AppKey("openapi_page", str)


async def healthz(call: Call) -> web.Response:
    """Alive; and what it is, for whoever meets it behind a proxy."""
    return answer({"ok": True, "server": SERVER_NAME, "version": __version__})


async def readyz(call: Call) -> web.Response:
    """Able to store and to read, and open to devices."""
    await call.parts.ready()
    return answer({"ok": True, "version": __version__})


async def metrics(call: Call) -> web.Response:
    """For Prometheus; from this machine only, unless a setting opens it."""
    if not call.parts.settings.metrics_public and not is_local(call):
        raise Forbidden("metrics are for this machine only; WIRECHAMBER_METRICS_PUBLIC=true opens them")
    return web.Response(
        body=call.parts.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


async def document(call: Call) -> web.Response:
    """The API as an OpenAPI document."""
    return web.Response(body=call.request.app[DOCUMENT], headers=COMMON_HEADERS, content_type="application/json")


async def page(call: Call) -> web.Response:
    """The API for people."""
    return web.Response(text=call.request.app[PAGE], content_type="text/html")


ROUTES = (
    Route(
        method="GET", path="/healthz", handler=healthz, requires=ANYONE, summary="Alive?",
        answers="{ok, server, version}",
    ),
    Route(method="GET", path="/readyz", handler=readyz, requires=ANYONE, summary="Ready?", answers="{ok, version}"),
    Route(
        method="GET", path="/metrics", handler=metrics, requires=ANYONE,
        summary="Metrics for Prometheus (from loopback, unless opened)", answers="text/plain",
    ),
    Route(
        method="GET", path="/v1/openapi.json", handler=document, requires=ANYONE,
        summary="This API as an OpenAPI document", answers="OpenAPI 3.1",
    ),
    Route(method="GET", path="/docs", handler=page, requires=ANYONE, summary="This page", answers="text/html"),
)  # fmt: skip
