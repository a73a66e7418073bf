"""The device registry, as its owners see it (cloud-api.md, section 3)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import structs

from wirechamber.clock import Clock
from wirechamber.errors import BadInput, Conflict, Forbidden, NotFound, TooMany
from wirechamber.model.devices import CELLULAR, DEFAULT_PLATFORM, Device
from wirechamber.model.ids import is_device_id
from wirechamber.model.times import iso, iso_or_none
from wirechamber.services.presence import expected_by
from wirechamber.store.base import DeviceCount, DeviceFilter, Store

MAX_NAME = 128
MAX_NOTES = 4096
MAX_PER_PAGE = 1_000
# Devices of a long list that are made ready at once: a few milliseconds.
SLICE = 200
# A list of more devices is a long one, of which an owner may have a few under way: some MB each.
LONG = 5_000
MAX_LONG_LISTS = 4
# Paths of the API where a device's name may stand.
RESERVED_NAMES = frozenset(("events", "ping"))
_NOT_IN_NAMES = re.compile(r"[/\\?#%{}]")
UNKNOWN = "I didn't recognize that device name or ID"


class Devices:
    """What an owner may do with devices; none of another owner is ever shown or touched."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._long: Counter[str] = Counter()

    async def add(
        self, device_id: str, owner: str | None, *, name: str | None = None, platform: int = DEFAULT_PLATFORM
    ) -> Device:
        """Makes a device known (the operator's right).

        Raises:
            BadInput: The id is none.
            Conflict: It is known already.
        """
        lower = check_id(device_id)
        device = Device(
            id=lower,
            created_at=self._clock.now(),
            owner=owner,
            name=None if name is None else check_name(name, lower),
            platform_id=platform,
            product_id=platform,
        )
        await self._store.devices.add(device)
        return device

    async def add_new(self, devices: Sequence[Device]) -> list[str]:
        """Makes devices known, all or none (the operator's right); returns the ids of those that were known already.

        Raises:
            Conflict: An owner has another device of one of the names.
        """
        return await self._store.devices.add_new(devices)

    async def page(self, where: DeviceFilter, number: int, size: int) -> tuple[list[Device], int]:
        """One page of devices, from 1 on; and how many there are on all."""
        size = min(size, MAX_PER_PAGE)
        return await self._store.devices.find(where, limit=size, offset=(number - 1) * size)

    async def ids(self, where: DeviceFilter) -> list[str]:
        """The ids of devices, in the order in which they are shown."""
        return await self._store.devices.ids(where)

    async def slices(self, ids: Sequence[str], owner: str) -> AsyncGenerator[list[Device], None]:
        """The devices of these ids, a few at a time, without those that are gone or another's meanwhile.

        Whoever shows all goes by ids that were read at once: a device that moves to the front of the list while it is
        shown is neither left out nor shown twice.
        """
        with self.listing(owner, len(ids)):
            for start in range(0, len(ids), SLICE):
                found = await self._store.devices.some(ids[start : start + SLICE])
                yield [device for device in found if device.owner == owner]

    @contextmanager
    def listing(self, owner: str | None, count: int) -> Iterator[None]:
        """Shows a list of so many devices in the block: its ids are in memory as long as somebody reads it.

        Raises:
            TooMany: The owner has too many long ones under way.
        """
        if count <= LONG or owner is None:
            yield
            return
        if self._long[owner] >= MAX_LONG_LISTS:
            raise TooMany(
                f"{MAX_LONG_LISTS} long lists are under way; read one to its end, or ask for pages", retry_after=1
            )
        self._long[owner] += 1
        try:
            yield
        finally:
            self._long[owner] -= 1
            if not self._long[owner]:
                del self._long[owner]

    async def count(self, owner: str) -> DeviceCount:
        """How many devices the owner has."""
        return await self._store.devices.count(owner)

    async def get(self, owner: str, id_or_name: str) -> Device:
        """The owner's device of that id or name.

        Raises:
            Forbidden: Unknown or not the owner's: the two are never told apart.
        """
        device = None
        lower = id_or_name.lower()
        if is_device_id(lower):
            device = await self._store.devices.get(lower)
        if device is None or device.owner != owner:
            device = await self._store.devices.by_name(owner, id_or_name)
        if device is None:
            raise Forbidden(f"{UNKNOWN}.", error="Permission Denied", info=f"{UNKNOWN}; `GET /v1/devices` lists yours")
        return device

    async def claim(self, owner: str, device_id: Any) -> Device:
        """Makes a free device the owner's, also while it is offline.

        Raises:
            BadInput, NotFound, Forbidden: With the bodies of the reference.
        """
        if not isinstance(device_id, str) or not device_id:
            raise BadInput("send the device's id", error="arg.deviceID is empty", errors=["arg.deviceID is empty"])
        device = await self._store.devices.claim(device_id.lower(), owner)
        if device is None:
            raise NotFound(
                "no device of this id is known here; `wirechamber device add` makes it known",
                error="device does not exist",
                errors=["device does not exist"],
            )
        if device.owner != owner:
            text = "That belongs to someone else."
            raise Forbidden(text, error=text, errors=[text])
        return device

    async def unclaim(self, owner: str, id_or_name: str) -> Device:
        """Frees the owner's device."""
        device = await self.get(owner, id_or_name)
        await self._store.devices.update(structs.replace(device, owner=None))
        return device

    async def edit(self, owner: str, id_or_name: str, *, name: Any = None, notes: Any = None) -> Device:
        """Changes name or notes; what is None stays.

        Raises:
            BadInput: A value can't be used, or the name is another's of this owner.
        """
        device = await self.get(owner, id_or_name)
        if name is not None:
            device = structs.replace(device, name=check_name(name, device.id))
        if notes is not None:
            if not isinstance(notes, str) or len(notes) > MAX_NOTES:
                raise BadInput(f"notes must be a text of at most {MAX_NOTES} characters")
            device = structs.replace(device, notes=notes or None)
        try:
            await self._store.devices.update(device)
        except Conflict as problem:
            raise BadInput(problem.description) from None
        return device


def view(device: Device) -> dict[str, Any]:
    """The device as the API shows it. Every key is an identifier: spyrk makes a namedtuple of them."""
    return {
        "id": device.id,
        "name": device.name,
        "owner": device.owner,
        "last_ip_address": device.last_ip_address,
        "last_heard": iso_or_none(device.last_heard),
        "last_handshake_at": iso_or_none(device.last_handshake_at),
        "product_id": device.product_id,
        "platform_id": device.platform_id,
        "online": device.online,
        "connected": device.online,
        "cellular": device.platform_id in CELLULAR,
        "expected_by": iso_or_none(expected_by(device)),
        "queue_mode": device.keep_alive is not None and device.keep_alive.queue,
        "status": "normal",
        "notes": device.notes,
        "serial_number": device.serial_number,
        "firmware_product_id": device.firmware_product_id,
        "firmware_version": device.firmware_version,
        "system_module_version": device.system_version,
        "key": device.key,
        "publishes_refused": device.publishes_refused,
        "functions": list(device.functions),
        "variables": dict(device.variables),
        "created_at": iso(device.created_at),
    }


def check_id(text: str) -> str:
    """The device id in lower case.

    Raises:
        BadInput: It is none.
    """
    lower = text.lower()
    if not is_device_id(lower):
        raise BadInput(f"a device id has 24 hex digits, and {text[:40]!r} is none")
    return lower


def check_name(name: Any, device_id: str) -> str:
    """The name as it is.

    Clients put names into the paths of URLs as they are, so one may hold nothing that ends a path or a part of it, and
    must not be taken for another device's id.

    Raises:
        BadInput: The device can't be named so.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise BadInput(f"a device's name has 1 to {MAX_NAME} printable characters")
    if (found := _NOT_IN_NAMES.search(name)) is not None:
        raise BadInput(f"a device's name stands in URLs, so none of / \\ ? # % {{ }} may be in it, and {found[0]} is")
    if name != name.strip() or name.strip(".") == "":
        raise BadInput("a device's name neither begins nor ends with a blank, and is not of dots alone")
    if name.lower() in RESERVED_NAMES:
        raise BadInput(f"{name} is reserved: it is a path of the API")
    if is_device_id(name.lower()) and name.lower() != device_id:
        raise BadInput("a device's name may not look like another device's id, 24 hex digits")
    return name
