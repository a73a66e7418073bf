"""What devices used."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from wirechamber.api import devices
from wirechamber.api.http import Call, answer, encoded, listing
from wirechamber.api.routing import Parameter, Route
from wirechamber.services.usage import Span, by_hour, total, view


async def of_device(call: Call) -> web.Response:
    """One device's, by purpose and by hour. A device that has a variable of this name is asked for that."""
    device = await call.parts.devices.get(call.owner, call.path("id"))
    if "usage" in device.variables:
        return await devices.read_variable(call, "usage")
    span = _span(call)
    usage = await call.parts.usage.of_device(call.owner, device.id, span)
    return answer({**view(usage), "hours": by_hour(await call.parts.usage.hours(device, span))})


async def of_all(call: Call) -> web.StreamResponse:
    """That of all devices of the caller; of many it is sent as it is read."""
    sums = total(())
    slices = call.parts.usage.slices(call.owner, _span(call))

    async def views() -> AsyncIterator[list[Any]]:
        async with contextlib.aclosing(slices):
            async for some in slices:
                for name, number in total(row for each in some for row in each.rows).items():
                    sums[name] += number
                yield [view(each) for each in some]

    return await listing(call, views(), opening=b'{"devices":[', closing=lambda: b'],"total":' + encoded(sums) + b"}")


def _span(call: Call) -> Span:
    return call.parts.usage.span(call.query("since"), call.query("until"))


SPAN = (
    Parameter("since", "From this ISO 8601 time on."),
    Parameter("until", "Up to this ISO 8601 time."),
)

ROUTES = (
    Route(
        method="GET", path="/v1/usage", handler=of_all, requires="devices:list",
        summary="What your devices used", answers="{total, devices}", parameters=SPAN,
    ),
    Route(
        method="GET", path="/v1/devices/{id}/usage", handler=of_device, requires="devices:get", owned=("id",),
        summary="What a device used, by purpose and hour, and what HTTPS would have cost",
        answers="{id, total, purposes, https, hours}", parameters=SPAN,
    ),
)  # fmt: skip
