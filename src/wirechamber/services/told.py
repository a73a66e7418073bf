"""Events by which the cloud itself tells a device's owner of it."""

from __future__ import annotations

from wirechamber.clock import SteadyClock
from wirechamber.model.devices import Device
from wirechamber.model.events import Event
from wirechamber.model.ids import new_id


def event_about(device: Device, name: str, data: str, clock: SteadyClock) -> Event:
    """An event of the cloud's own about a device, of this moment."""
    now = clock.now()
    return Event(
        id=new_id(now),
        name=name,
        data=data,
        published_at=now,
        received_at=clock.steady(),
        owner=device.owner or "",
        coreid=device.id,
        partition=device.id,
        origin="system",
        product=device.product_id,
        device=device.id,
    )
