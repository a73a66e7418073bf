"""Publishing (cloud-api.md, section 4)."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from msgspec import Struct

from wirechamber.api.http import Call, answer
from wirechamber.api.routing import TOKEN, Parameter, Route
from wirechamber.errors import NotFound


class Publish(Struct):
    """An event. `private` is accepted and means nothing: every event is private."""

    name: str
    data: Any = None
    ttl: int = 60
    private: bool = True


async def publish(call: Call) -> web.Response:
    """Stores an event; the answer comes when it is durable."""
    body = await call.body()
    await call.parts.publishing.publish(
        call.owner,
        body.get("name"),
        body.get("data"),
        body.get("ttl"),
        call.request.headers.get("Idempotency-Key"),
    )
    return answer({"ok": True})


async def no_product(call: Call) -> web.Response:
    """Products and organisations come later; until then there is none."""
    raise NotFound("Product not found.", error="Product not found.")


ROUTES = (
    Route(
        method="POST", path="/v1/devices/events", handler=publish, requires="events:send", body=Publish,
        summary="Publish an event; acknowledged means stored", answers="{ok}",
        parameters=(
            Parameter("Idempotency-Key", "Publishing again with the same key stores nothing.", where="header"),
        ),
    ),
    *(
        Route(
            method=method, path=f"/v1/{area}{rest}", handler=no_product, requires=TOKEN,
            summary="Products and organisations: not yet", answers="404",
        )
        for area in ("products", "orgs", "user/products")
        for rest in ("", "/{rest:.+}")
        for method in ("GET", "POST", "PUT", "DELETE")
    ),
)  # fmt: skip
