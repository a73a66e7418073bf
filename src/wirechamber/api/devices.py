"""The device registry (cloud-api.md, section 3)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from wirechamber.api.absent import change_of_device
from wirechamber.api.http import Call, answer, listing
from wirechamber.api.routing import Parameter, Route
from wirechamber.errors import BadInput, CloudError, DeviceUnreachable
from wirechamber.model.devices import Device
from wirechamber.model.times import iso, iso_or_none
from wirechamber.services.devices import view
from wirechamber.store.base import DeviceFilter

PER_PAGE = 25


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
    format: str | None = None


class PublicKey(Struct):
    """What provisioning takes; only the key counts, the rest is what clients send along."""

    publicKey: str  # noqa: N815
    deviceID: str | None = None  # noqa: N815
    filename: str | None = None
    order: str | None = None
    algorithm: str | None = None
    product_id: str | None = None


class ClaimCodeRequest(Struct):
    """What asking for a claim code takes; neither is looked at."""

    iccid: str | None = None
    imei: str | None = None


class NoAnswer(CloudError):
    """The device did not answer a signal."""

    status = 500
    code = "timed out"


async def listed(call: Call) -> web.StreamResponse:
    """A bare array; paging and filters are optional. All of many are sent as they are read."""
    where = DeviceFilter(
        owner=call.owner,
        name=call.query("name") or call.query("deviceName"),
        online={"true": True, "1": True, "false": False, "0": False}.get(call.query("online") or ""),
    )
    number, size = call.number("page"), call.number("per_page", "perPage")
    if number is not None or size is not None:
        page, count = await call.parts.devices.page(where, number or 1, size or PER_PAGE)
        return answer([view(device) for device in page], headers={"X-Total-Count": str(count)})
    ids = await call.parts.devices.ids(where)
    slices = call.parts.devices.slices(ids, call.owner)
    return await listing(call, views(slices), headers={"X-Total-Count": str(len(ids))})


async def views(slices: AsyncGenerator[list[Device], None]) -> AsyncIterator[list[Any]]:
    """The devices as the API shows them."""
    async with contextlib.aclosing(slices):
        async for devices in slices:
            yield [view(device) for device in devices]


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
            "connected": device.online,
        }
    )


async def unclaim(call: Call) -> web.Response:
    """Frees a device of the caller's."""
    await call.parts.devices.unclaim(call.owner, call.path("id"))
    return answer({"ok": True})


async def change(call: Call) -> web.Response:
    """Renames, notes or signals."""
    body = await change_of_device(call)
    if body.get("signal") not in (None, ""):
        return await _signal(call, body["signal"])
    if body.get("name") is None and body.get("notes") is None:
        raise BadInput("send what to change: name, notes or signal")
    device = await call.parts.devices.edit(call.owner, call.path("id"), name=body.get("name"), notes=body.get("notes"))
    changed = {key: getattr(device, key) for key in ("name", "notes") if body.get(key) is not None}
    return answer({"ok": True, "id": device.id, **changed, "updated_at": iso(call.parts.clock.now())})


async def _signal(call: Call, wanted: Any) -> web.Response:
    # Clients send 1, "1" or true.
    text = str(wanted).lower()
    if text not in ("0", "1", "true", "false"):
        raise BadInput("signal must be 1 or 0")
    on = text in ("1", "true")
    try:
        device = await call.parts.functions.signal(call.owner, call.path("id"), on=on)
    except DeviceUnreachable:
        text = "Timed out, didn't hear back from device service"
        raise NoAnswer(text, error="timed out", code=500, errors=[{"error": text}]) from None
    return answer({"ok": True, "id": device.id, "connected": True, "signaling": on})


async def ping(call: Call) -> web.Response:
    """Whether the device answers."""
    return answer({"ok": True, "online": await call.parts.functions.ping(call.owner, call.path("id"))})


async def call_function(call: Call) -> web.Response:
    """Calls a function; a device that is known to be offline is not waited for."""
    body = await call.body()
    device, result = await call.parts.functions.call(
        call.owner, call.path("id"), call.path("function"), _argument(body)
    )
    if "raw" in (body.get("format"), call.query("format")):
        return answer(result)
    return answer(
        {"ok": True, "id": device.id, "name": device.name, "last_app": None, "connected": True, "return_value": result}
    )


def _argument(body: dict[str, Any]) -> str:
    for name in ("args", "arg", "params"):
        value = body.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, int | float):
            # A number that a client did not put into quotes.
            return msgspec.json.encode(value).decode()
        if value is not None:
            raise BadInput("the argument must be a text")
    return ""


async def read_variable(call: Call, name: str | None = None) -> web.Response:
    """Reads a variable; a device that is known to be offline is not waited for."""
    name = name or call.path("variable")
    device, value = await call.parts.functions.read(call.owner, call.path("id"), name)
    if call.query("format") == "raw":
        return answer(value)
    return answer({"cmd": "VarReturn", "name": name, "result": value, "coreInfo": _core_info(device)})


def _core_info(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "last_app": None,
        "last_heard": iso_or_none(device.last_heard),
        "connected": True,
        "last_handshake_at": iso_or_none(device.last_handshake_at),
        "deviceID": device.id,
        "product_id": device.product_id,
    }


async def provision(call: Call) -> web.Response:
    """Binds a public key to a device."""
    body = await call.body()
    device = await call.parts.identity.provision(call.owner, call.path("id"), body.get("publicKey"))
    return answer({"ok": True, "id": device.id, "device_id": device.id})


async def claim_code(call: Call) -> web.Response:
    """A code by which a device becomes the caller's."""
    await call.body()
    code, devices = await call.parts.identity.new_claim_code(call.owner)
    return answer({"ok": True, "claim_code": code, "device_ids": devices})


RAW = (Parameter("format", "`raw` for the value alone."),)

ROUTES = (
    Route(
        method="GET", path="/v1/devices", handler=listed, requires="devices:list",
        summary="List your devices", answers="[device], X-Total-Count",
        parameters=(
            Parameter("page", "From 1 on; all devices without page and per_page.", "integer"),
            Parameter("per_page", "25 if only page is given.", "integer", spellings=("perPage",)),
            Parameter(
                "name", "Only devices whose name holds this, in any letter case.", spellings=("deviceName",)
            ),
            Parameter("online", "Only devices that are connected, or only others.", "boolean"),
        ),
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
        summary="Call a function", answers="{id, name, connected, return_value}, or with format=raw the number",
        parameters=RAW,
    ),
    Route(
        method="GET", path="/v1/devices/{id}/{variable}", handler=read_variable,
        requires="devices.variable:get", owned=("id",),
        summary="Read a variable", answers="{name, result, coreInfo}, or with format=raw the value",
        parameters=RAW,
    ),
    Route(
        method="POST", path="/v1/provisioning/{id}", handler=provision, requires="devices:update", owned=("id",),
        body=PublicKey, summary="Bind a public key (PEM) to your device", answers="{ok, id}",
    ),
    Route(
        method="POST", path="/v1/device_claims", handler=claim_code, requires="devices:update", body=ClaimCodeRequest,
        summary="A code that makes the first device which sends it yours", answers="{claim_code, device_ids}",
    ),
)  # fmt: skip
