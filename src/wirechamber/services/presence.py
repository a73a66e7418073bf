"""Which devices are online, and the events that tell so (cloud-api.md, section 5)."""

from __future__ import annotations

from wirechamber.clock import SteadyClock
from wirechamber.eventlog.base import EventLog
from wirechamber.model.devices import CELLULAR, Device
from wirechamber.model.events import Event
from wirechamber.model.ids import new_id

STATUS_EVENT = "spark/status"

# A device on Wi-Fi pings every 25 s, one on a cellular network every 23 minutes, and waits up to 90 s for an answer
# (device-protocol.md, section 12): sooner than this, silence means nothing.
IDLE_S = 25.0 + 90.0 + 5.0
IDLE_CELLULAR_S = 23 * 60.0 + 90.0 + 5.0


def idle_limit(platform_id: int) -> float:
    """Seconds of silence after which a device of this platform is gone."""
    return IDLE_CELLULAR_S if platform_id in CELLULAR else IDLE_S


def status_event(device: Device, clock: SteadyClock, *, online: bool) -> Event:
    """The event that tells a device's owner that it came or went."""
    now = clock.now()
    return Event(
        id=new_id(now),
        name=STATUS_EVENT,
        data="online" if online else "offline",
        published_at=now,
        received_at=clock.steady(),
        owner=device.owner or "",
        coreid=device.id,
        partition=device.id,
        origin="system",
        product=device.product_id,
        device=device.id,
    )


async def tell_status(log: EventLog, clock: SteadyClock, changes: list[tuple[Device, bool]]) -> None:
    """Appends one event for each change, in order."""
    await log.append([status_event(device, clock, online=online) for device, online in changes])
