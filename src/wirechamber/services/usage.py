"""What devices used, and what the same publishes would have cost by HTTPS."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Any

from msgspec import Struct

from wirechamber.clock import Clock
from wirechamber.errors import BadInput
from wirechamber.model.devices import Device
from wirechamber.model.times import iso, parse_iso
from wirechamber.model.usage import HOUR_MS, Purpose, Usage, hour
from wirechamber.services.devices import SLICE, Devices
from wirechamber.store.base import DeviceFilter, Store, UsageFilter

# A publish of 20 bytes by a new HTTPS connection, and by one that is kept open, as `python -m bench https_bytes`
# measures them; the conditions are told in docs/devices.md.
HTTPS_BYTES = 4_298
HTTPS_KEPT_BYTES = 536
HTTPS_DATA_BYTES = 20
# The most hours that one answer lists.
MAX_HOURS = 24 * 92
DEFAULT_HOURS = 24 * 30

_COUNTS = ("up_bytes", "up_datagrams", "down_bytes", "down_datagrams", "publishes", "data_bytes")


class Span(Struct, frozen=True):
    """Hours since 1970: the first in, the last not."""

    since: int
    until: int


class DeviceUsage(Struct, frozen=True):
    """What one device used in a span of time, by purpose."""

    device: Device
    span: Span
    rows: tuple[Usage, ...]


class Usages:
    """What an owner may know about the traffic of devices."""

    def __init__(self, store: Store, devices: Devices, clock: Clock) -> None:
        self._store = store
        self._devices = devices
        self._clock = clock

    def span(self, since: str | None = None, until: str | None = None) -> Span:
        """The hours from `since` to `until`, ISO 8601; the hour that is now and 30 days before if not given.

        Raises:
            BadInput: One is no time, or they are too far apart, or the wrong way round.
        """
        last = hour(self._clock.now()) + 1 if until is None else hour(_time("until", until) + HOUR_MS - 1)
        first = last - DEFAULT_HOURS if since is None else hour(_time("since", since))
        if not first <= last <= first + MAX_HOURS:
            raise BadInput(f"`since` must be before `until`, and at most {MAX_HOURS // 24} days")
        return Span(first, last)

    async def of_device(self, owner: str, id_or_name: str, span: Span) -> DeviceUsage:
        """One device's.

        Raises:
            Forbidden: The device is unknown or not the owner's.
        """
        device = await self._devices.get(owner, id_or_name)
        where = UsageFilter(device=device.id, since=span.since, until=span.until)
        return DeviceUsage(device, span, tuple(await self._store.usage.totals(where)))

    async def hours(self, device: Device, span: Span) -> list[Usage]:
        """One device's, hour by hour."""
        return await self._store.usage.hours(UsageFilter(device=device.id, since=span.since, until=span.until))

    async def slices(self, owner: str | None, span: Span) -> AsyncGenerator[list[DeviceUsage], None]:
        """That of every device of the owner that used something, of some devices at a time; of all without an owner."""
        ids = await self._store.devices.ids(DeviceFilter(owner=owner))
        with self._devices.listing(owner, len(ids)):
            for start in range(0, len(ids), SLICE):
                some = ids[start : start + SLICE]
                found: dict[str, list[Usage]] = {}
                for row in await self._store.usage.totals(
                    UsageFilter(devices=some, since=span.since, until=span.until)
                ):
                    found.setdefault(row.device, []).append(row)
                devices = await self._store.devices.some(list(found))
                yield [
                    DeviceUsage(device, span, tuple(found[device.id]))
                    for device in devices
                    if owner is None or device.owner == owner
                ]


def total(rows: Iterable[Usage]) -> dict[str, int]:
    """The sums over all rows, and the bytes of both directions."""
    sums = dict.fromkeys(_COUNTS, 0)
    for row in rows:
        for name in _COUNTS:
            sums[name] += getattr(row, name)
    return {"bytes": sums["up_bytes"] + sums["down_bytes"], **sums}


def by_https(publishes: int, data_bytes: int) -> int:
    """Bytes on the wire if each publish had been a new HTTPS connection with the same data."""
    return publishes * (HTTPS_BYTES - HTTPS_DATA_BYTES) + data_bytes


def by_kept_https(publishes: int, data_bytes: int) -> int:
    """The same over one HTTPS connection that is kept open, without what opening it and keeping it so takes."""
    return publishes * (HTTPS_KEPT_BYTES - HTTPS_DATA_BYTES) + data_bytes


def compared(used: dict[str, int]) -> dict[str, Any]:
    """What the same publishes would have cost by HTTPS, and how many times as many that is: each by a new connection,
    and all over one that is kept open."""
    https, kept = (count(used["publishes"], used["data_bytes"]) for count in (by_https, by_kept_https))
    all_ = used["bytes"]
    return {
        "bytes": https,
        "times": round(https / all_, 1) if all_ else None,
        "kept_open_bytes": kept,
        "kept_open_times": round(kept / all_, 1) if all_ else None,
    }


def view(usage: DeviceUsage) -> dict[str, Any]:
    """As the API shows it."""
    used = total(usage.rows)
    return {
        "id": usage.device.id,
        "name": usage.device.name,
        "since": iso(usage.span.since * HOUR_MS),
        "until": iso(usage.span.until * HOUR_MS),
        "total": used,
        "purposes": by_purpose(usage.rows),
        "https": compared(used),
    }


def by_purpose(rows: Iterable[Usage]) -> dict[str, dict[str, int]]:
    """The sums of each purpose that has any."""
    sorted_out: dict[int, list[Usage]] = {}
    for row in rows:
        sorted_out.setdefault(row.purpose, []).append(row)
    return {Purpose(purpose).label: total(found) for purpose, found in sorted(sorted_out.items())}


def by_hour(rows: Iterable[Usage]) -> list[dict[str, Any]]:
    """Hours that have any, oldest first."""
    sorted_out: dict[int, list[Usage]] = {}
    for row in rows:
        sorted_out.setdefault(row.hour, []).append(row)
    return [
        {"hour": iso(number * HOUR_MS), "total": total(found), "purposes": by_purpose(found)}
        for number, found in sorted(sorted_out.items())
    ]


def _time(name: str, text: str) -> int:
    try:
        return parse_iso(text)
    except (ValueError, OverflowError):
        raise BadInput(f"{name} must be a time such as 2027-01-31T13:00:00Z") from None
