"""The device registry (cloud-api.md, section 3)."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from wirechamber.api.http import Call, answer
from wirechamber.api.routing import Route
from wirechamber.errors import BadInput, CloudError, DeviceUnreachable
from wirechamber.model.times import iso
from wirechamber.services.devices import view


class Claim(Struct):
    """What claiming takes."""

    id: str
    request_transfer: bool = False


class DeviceChange(Struct):
    """What a change of a device takes."""

    name: str | None = None
    notes: str | None = None
    signal: int | None = None


class FunctionCall(Struct):
    """The argument, under any of the names that clients use."""

    args: str | None = None
    arg: str | None = None
    params: str | None = None


class NoAnswer(CloudError):
    """The device did not answer a signal."""

    status = 500
    code = "timed out"


async def listed(call: Call) -> web.Response:
    """A bare array; paging and filters are optional."""
    devices, count = await call.parts.devices.page(
        call.owner,
        name=call.query("name") or call.query("deviceName"),
        page=call.number("page"),
        per_page=call.number("per_page", "perPage"),
    )
    shown = [view(device) for device in devices]
    if call.query("online") in ("true", "1"):
        shown = [device for device in shown if device["online"]]
        count = len(shown)
    return answer(shown, headers={"X-Total-Count": str(count)})


async def show(call: Call) -> web.Response:
    """One device."""
    return answer(view(await call.parts.devices.get(call.owner, call.path("id"))))


async def claim(call: Call) -> web.Response:
    """Makes a free device the caller's."""
    device = await call.parts.devices.claim(call.owner, (await call.body()).get("id"))
    return answer(
        {
            "ok": True,
            "id": device.id,
            "deviceID": device.id,
            "user_id": call.owner,
            "claimed": True,
            "connected": False,
        }
    )


async def unclaim(call: Call) -> web.Response:
    """Frees a device of the caller's."""
    await call.parts.devices.unclaim(call.owner, call.path("id"))
    return answer({"ok": True})


async def change(call: Call) -> web.Response:
    """Renames, notes or signals."""
    body = await call.body()
    if body.get("signal") not in (None, ""):
        await call.parts.devices.get(call.owner, call.path("id"))
        text = "Timed out, didn't hear back from device service"
        raise NoAnswer(text, error="timed out", code=500, errors=[{"error": text}])
    if body.get("name") is None and body.get("notes") is None:
        raise BadInput("send what to change: name, notes or signal")
    device = await call.parts.devices.edit(call.owner, call.path("id"), name=body.get("name"), notes=body.get("notes"))
    changed = {key: getattr(device, key) for key in ("name", "notes") if body.get(key) is not None}
    return answer({"ok": True, "id": device.id, **changed, "updated_at": iso(call.parts.clock.now())})


async def ping(call: Call) -> web.Response:
    """Whether the device answers."""
    await call.parts.devices.get(call.owner, call.path("id"))
    return answer({"ok": True, "online": False})


async def call_function(call: Call) -> web.Response:
    """Calls a function; a device that is known to be offline is not waited for."""
    await call.parts.devices.get(call.owner, call.path("id"))
    raise DeviceUnreachable("the device is offline", error="timed out")


async def read_variable(call: Call) -> web.Response:
    """Reads a variable; a device that is known to be offline is not waited for."""
    await call.parts.devices.get(call.owner, call.path("id"))
    raise DeviceUnreachable("the device is offline", error="Timed out.")


ROUTES = (
    Route(
        method="GET", path="/v1/devices", handler=listed, requires="devices:list",
        summary="List your devices (page, per_page, name, online)", answers="[device], X-Total-Count",
    ),
    Route(
        method="POST", path="/v1/devices", handler=claim, requires="devices:update", body=Claim,
        summary="Claim a device that this cloud knows and nobody owns", answers="{ok, id, user_id, connected}",
    ),
    Route(
        method="GET", path="/v1/devices/{id}", handler=show, requires="devices:get", owned=("id",),
        summary="Show a device, by id or name", answers="device",
    ),
    Route(
        method="PUT", path="/v1/devices/{id}", handler=change, requires="devices:update", owned=("id",),
        body=DeviceChange, summary="Rename, note or signal a device", answers="{ok, id, …, updated_at}",
    ),
    Route(
        method="DELETE", path="/v1/devices/{id}", handler=unclaim, requires="devices:release", owned=("id",),
        summary="Unclaim a device", answers="{ok}",
    ),
    Route(
        method="PUT", path="/v1/devices/{id}/ping", handler=ping, requires="devices:ping", owned=("id",),
        summary="Ask whether a device is there", answers="{ok, online}",
    ),
    Route(
        method="POST", path="/v1/devices/{id}/{function}", handler=call_function,
        requires="devices.function:call", owned=("id",), body=FunctionCall,
        summary="Call a function (408: devices can't connect yet)", answers="408",
    ),
    Route(
        method="GET", path="/v1/devices/{id}/{variable}", handler=read_variable,
        requires="devices.variable:get", owned=("id",),
        summary="Read a variable (408: devices can't connect yet)", answers="408",
    ),
)  # fmt: skip
