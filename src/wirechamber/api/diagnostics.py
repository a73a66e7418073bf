"""What devices measure of themselves: vital signs (cloud-api.md, section 7)."""

from __future__ import annotations

from aiohttp import web

from wirechamber.api.http import Call, answer
from wirechamber.api.routing import Parameter, Route


async def last(call: Call) -> web.Response:
    """The newest."""
    return answer({"diagnostics": await call.parts.vitals.last(call.owner, call.path("id"))})


async def history(call: Call) -> web.Response:
    """Those that are kept, newest first."""
    start, end = call.query("start_date"), call.query("end_date")
    return answer({"diagnostics": await call.parts.vitals.history(call.owner, call.path("id"), start, end)})


async def refresh(call: Call) -> web.Response:
    """Asks the device."""
    await call.parts.vitals.refresh(call.owner, call.path("id"))
    return answer({"ok": True})


ROUTES = (
    Route(
        method="GET", path="/v1/diagnostics/{id}/last", handler=last, requires="devices.diagnostics:get", owned=("id",),
        summary="Show a device's newest vitals", answers="{diagnostics: {updated_at, deviceID, payload}}",
    ),
    Route(
        method="GET", path="/v1/diagnostics/{id}", handler=history, requires="devices.diagnostics:get", owned=("id",),
        summary="List a device's vitals, newest first", answers="{diagnostics: [{updated_at, deviceID, payload}]}",
        parameters=(
            Parameter("start_date", "Only those from this time on, ISO 8601."),
            Parameter("end_date", "Only those before this time, ISO 8601."),
        ),
    ),
    Route(
        method="POST", path="/v1/diagnostics/{id}/update", handler=refresh, requires="devices.diagnostics:update",
        owned=("id",), summary="Ask a device for its vitals; answered when they are stored", answers="{ok}",
    ),
)  # fmt: skip
