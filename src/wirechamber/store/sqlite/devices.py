"""The device registry. What links told is joined to it, and never written from here."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from msgspec import structs

from wirechamber.errors import Conflict, NotFound
from wirechamber.model.devices import Device
from wirechamber.model.links import Greeting
from wirechamber.store.base import DeviceChanges, DeviceFilter
from wirechamber.store.sqlite.database import Database
from wirechamber.store.sqlite.told import readable

_json = msgspec.json

INSERT = "insert into device (id, owner, name, name_key, created_at, record) values (?, ?, ?, ?, ?, ?)"
UPDATE = "update device set owner = ?2, name = ?3, name_key = ?4, created_at = ?5, record = ?6 where id = ?1"
SELECT = """
select device.owner, record, online, last_heard, last_handshake_at, address, greeting, functions, variables,
public_key is not null, psk is not null
from device left join link on link.device = device.id left join told on told.device = device.id
left join device_key on device_key.device = device.id
"""
# What a record in the registry leaves to the link, as if it had told nothing.
_FIELDS = Device.__struct_fields__
_UNTOLD = {name: getattr(Device(id="", created_at=0), name) for name in _FIELDS[_FIELDS.index("online") :]}


class SqliteDevices:
    """`Devices` of the store's interface."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, device: Device) -> None:
        """Stores a new device."""
        await self._put(INSERT, device)

    async def get(self, device_id: str) -> Device | None:
        """The device of that id."""
        return await self._one("device.id = ?", (device_id,))

    async def by_name(self, owner: str, name: str) -> Device | None:
        """The owner's device of that name, in any case."""
        return await self._one("owner = ? and name_key = ?", (owner, name.casefold()))

    async def find(self, where: DeviceFilter, *, limit: int | None = None, offset: int = 0) -> tuple[list[Device], int]:
        """One page, and the number of all that match."""
        conditions, values = ["1"], []
        if where.owner is not None:
            conditions.append("owner = ?")
            values.append(where.owner)
        if where.name is not None:
            conditions.append("instr(name_key, ?) > 0")
            values.append(where.name.casefold())
        if where.online is not None:
            test = "exists (select 1 from link where link.device = device.id and link.online = 1)"
            conditions.append(test if where.online else f"not {test}")
        test = " and ".join(conditions)

        def read(db: sqlite3.Connection) -> tuple[list[Device], int]:
            (count,) = db.execute(f"select count(*) from device where {test}", values).fetchone()
            rows = db.execute(
                f"{SELECT} where {test} order by last_handshake_at desc, created_at desc, device.id limit ? offset ?",
                [*values, -1 if limit is None else limit, offset],
            ).fetchall()
            return [_device(row) for row in rows], count

        return await self._database.read(read)

    async def update(self, device: Device) -> None:
        """Replaces the record."""
        if not await self._put(UPDATE, device):
            raise NotFound("there is no such device")

    async def claim(self, device_id: str, owner: str) -> Device | None:
        """Gives a free device to the owner."""

        def work(db: sqlite3.Connection) -> Device | None:
            row = db.execute(f"{SELECT} where device.id = ?", (device_id,)).fetchone()
            if row is None:
                return None
            device = _device(row)
            if device.owner is not None:
                return device
            taken = db.execute(
                "select 1 from device where owner = ? and name_key = ?", (owner, (device.name or "").casefold())
            ).fetchone()
            # A name is unique to its owner: the newcomer comes without.
            device = structs.replace(device, owner=owner, name=None if taken else device.name)
            db.execute(UPDATE, _device_row(device))
            return device

        return await self._database.write(work)

    async def remove(self, device_id: str) -> bool:
        """Forgets a device."""
        return await self._database.write(
            lambda db: db.execute("delete from device where id = ?", (device_id,)).rowcount > 0
        )

    async def changes(self, since_revision: int) -> DeviceChanges:
        """What changed after a revision."""

        def work(db: sqlite3.Connection) -> DeviceChanges:
            # The revision first: what changes after it is reported again next time, which does no harm.
            (revision,) = db.execute("select value from revision").fetchone()
            changed = db.execute(f"{SELECT} where device.changed > ?", (since_revision,)).fetchall()
            removed = db.execute("select id from device_removed where changed > ?", (since_revision,)).fetchall()
            rekeyed = db.execute("select device from device_key where changed > ?", (since_revision,)).fetchall()
            return DeviceChanges(
                revision, [_device(row) for row in changed], [row[0] for row in removed], [row[0] for row in rekeyed]
            )

        return await self._database.read(work)

    async def _put(self, query: str, device: Device) -> int:
        try:
            return await self._database.write(lambda db: db.execute(query, _device_row(device)).rowcount)
        except sqlite3.IntegrityError as problem:
            if "device.id" in str(problem):
                raise Conflict(f"the device {device.id} is known already") from None
            if "FOREIGN" in str(problem):
                raise NotFound("there is no such user") from None
            raise Conflict(f"you have another device named {device.name}") from None

    async def _one(self, where: str, values: tuple[str, ...]) -> Device | None:
        row = await self._database.read(lambda db: db.execute(f"{SELECT} where {where}", values).fetchone())
        return None if row is None else _device(row)


_read_device = _json.Decoder(Device).decode
_read_greeting = _json.Decoder(Greeting).decode
_read_functions = _json.Decoder(tuple[str, ...]).decode
_read_variables = _json.Decoder(dict[str, str]).decode


def _device(row: tuple[Any, ...]) -> Device:
    owner, record, online, last_heard, last_handshake_at, address, greeting, functions, variables, *keys = row
    device = _read_device(record)
    told = readable(_read_greeting, greeting)
    platform = device.platform_id if told is None else told.platform
    return structs.replace(
        device,
        # The column is the truth about the owner: removing a user frees its devices there.
        owner=owner,
        platform_id=platform,
        product_id=platform if device.product_id == device.platform_id else device.product_id,
        online=bool(online),
        last_ip_address=address.partition(" ")[0] or None if address else None,
        last_heard=last_heard,
        last_handshake_at=last_handshake_at,
        firmware_product_id=None if told is None else told.product,
        firmware_version=None if told is None else told.product_version,
        system_version=None if told is None else told.system_version,
        functions=readable(_read_functions, functions) or (),
        variables=readable(_read_variables, variables) or {},
        key={(1, 0): "public", (0, 1): "psk", (1, 1): "both"}.get(tuple(keys)),
    )


def _device_row(device: Device) -> tuple[Any, ...]:
    return (
        device.id,
        device.owner,
        device.name,
        None if device.name is None else device.name.casefold(),
        device.created_at,
        _json.encode(structs.replace(device, **_UNTOLD)).decode(),
    )
