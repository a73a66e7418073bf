"""Which devices are online, and the events that tell so (cloud-api.md, section 5)."""

from __future__ import annotations

from wirechamber.clock import SteadyClock
from wirechamber.model.devices import CELLULAR, Device
from wirechamber.model.events import Event
from wirechamber.model.links import KeepAlive
from wirechamber.services.told import event_about

STATUS_EVENT = "spark/status"

# A device on Wi-Fi pings every 25 s, one on a cellular network every 23 minutes, and waits up to 90 s for an answer
# (device-protocol.md, section 12): sooner than this, silence means nothing.
IDLE_S = 25.0 + 90.0 + 5.0
IDLE_CELLULAR_S = 23 * 60.0 + 90.0 + 5.0


# How long a device that was to be heard, or is pinged, may take to be heard after all.
GRACE_S = 90.0 + 5.0


def idle_limit(platform_id: int, keep_alive: KeepAlive | None = None) -> float:
    """Seconds of silence after which a device of this platform, which told this of itself, is gone."""
    usual = IDLE_CELLULAR_S if platform_id in CELLULAR else IDLE_S
    if keep_alive is None:
        return usual
    told = keep_alive.lifetime if keep_alive.lifetime is not None else keep_alive.ping
    return usual if told is None else told + GRACE_S


def expected_by(device: Device) -> int | None:
    """When a device that is online is taken to be gone unless it says something before, milliseconds since 1970."""
    if not device.online or device.last_heard is None:
        return None
    return device.last_heard + int(idle_limit(device.platform_id, device.keep_alive) * 1000)


def status_event(device: Device, clock: SteadyClock, *, online: bool) -> Event:
    """The event that tells a device's owner that it came or went."""
    return event_about(device, STATUS_EVENT, "online" if online else "offline", clock)
