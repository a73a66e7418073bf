"""Publishing (cloud-api.md, section 4)."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from msgspec import Struct

from wirechamber.api.http import Call, answer
from wirechamber.api.routing import Parameter, Route


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


ROUTES = (
    Route(
        method="POST", path="/v1/devices/events", handler=publish, requires="events:send", body=Publish,
        summary="Publish an event; acknowledged means stored", answers="{ok}",
        parameters=(
            Parameter("Idempotency-Key", "Publishing again with the same key stores nothing.", where="header"),
        ),
    ),
)  # fmt: skip
