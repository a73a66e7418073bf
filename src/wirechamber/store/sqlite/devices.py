"""The device registry. What links told is joined to it, and never written from here."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import structs

from wirechamber.errors import Conflict, NotFound
from wirechamber.model.devices import CELLULAR, Device, name_key
from wirechamber.model.links import Greeting, KeepAlive
from wirechamber.store.base import DeviceChanges, DeviceCount, DeviceFilter
from wirechamber.store.sqlite.database import Database
from wirechamber.store.sqlite.told import readable

_json = msgspec.json

INSERT = """
insert into device (id, owner, name, name_key, created_at, record, platform)
values (?1, ?2, ?3, ?4, ?5, ?6, coalesce(?6 ->> '$.platform_id', 32))
"""
KNOWN = "select id from device where id in (select value ->> 0 from json_each(?))"
INSERT_NEW = """
insert into device (id, owner, name, name_key, created_at, record, platform)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5,
coalesce(value ->> 5 ->> '$.platform_id', 32)
from json_each(?) where value ->> 0 not in (select id from device)
"""
UPDATE = "update device set owner = ?2, name = ?3, name_key = ?4, created_at = ?5, record = ?6 where id = ?1"
SELECT = """
select device.owner, record, link.online, last_heard, last_handshake_at, address, greeting, functions, variables,
keep_alive, link.publishes_refused, public_key is not null, psk is not null
from device left join link on link.device = device.id left join told on told.device = device.id
left join device_key on device_key.device = device.id
"""
SOME = f"{SELECT} where device.id in (select value from json_each(?))"
ORDER = "order by handshake_at desc, created_at desc, id"
BACKWARDS = "order by handshake_at, created_at, id desc"
COUNT = "select number from device_count where owner = ?"
COUNT_CELLULAR = "select count(*) from device where owner = ? and platform in (select value from json_each(?))"
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

    async def add_new(self, devices: Sequence[Device]) -> list[str]:
        """Adds those that are not known yet."""
        rows = _json.encode([_device_row(device) for device in devices]).decode()

        def work(db: sqlite3.Connection) -> list[str]:
            known = [device_id for (device_id,) in db.execute(KNOWN, (rows,))]
            db.execute(INSERT_NEW, (rows,))
            return known

        try:
            return await self._database.write(work)
        except sqlite3.IntegrityError as problem:
            if "FOREIGN" in str(problem):
                raise NotFound("there is no such user") from None
            raise Conflict("an owner has another device of one of these names") from None

    async def get(self, device_id: str) -> Device | None:
        """The device of that id."""
        return await self._one("device.id = ?", (device_id,))

    async def by_name(self, owner: str, name: str) -> Device | None:
        """The owner's device of that name, in any case."""
        return await self._one("owner = ? and name_key = ?", (owner, name_key(name)))

    async def find(self, where: DeviceFilter, *, limit: int | None = None, offset: int = 0) -> tuple[list[Device], int]:
        """One page, and the number of all that match."""
        found, values = _found(where)

        def read(db: sqlite3.Connection) -> tuple[list[Device], int]:
            if where == DeviceFilter(owner=where.owner) and where.owner is not None:
                (count,) = db.execute(COUNT, (where.owner,)).fetchone() or (0,)
            else:
                (count,) = db.execute(f"select count(*) {found}", values).fetchone()
            size = max(0, count - offset if limit is None else min(limit, count - offset))
            # From the nearer end.
            order, skip = (ORDER, offset) if offset <= count // 2 else (BACKWARDS, max(0, count - offset - size))
            # First the ids alone, from an index: what is passed over is not read.
            rows = db.execute(f"select id {found} {order} limit ? offset ?", [*values, size, skip]).fetchall()
            ids = [device_id for (device_id,) in rows]
            return _some(db, ids if order is ORDER else ids[::-1]), count

        return await self._database.read(read)

    async def ids(self, where: DeviceFilter) -> list[str]:
        """The ids of all that match."""
        found, values = _found(where)
        # As one text: a row of Python's for each would hold the interpreter up.
        query = f"select json_group_array(id) from (select id {found} {ORDER})"
        (text,) = await self._database.read(lambda db: db.execute(query, values).fetchone())
        return _read_ids(text)

    async def some(self, device_ids: Sequence[str]) -> list[Device]:
        """Those of these ids that there are."""
        return await self._database.read(lambda db: _some(db, device_ids))

    async def count(self, owner: str) -> DeviceCount:
        """How many devices an owner has."""

        def read(db: sqlite3.Connection) -> DeviceCount:
            (number,) = db.execute(COUNT, (owner,)).fetchone() or (0,)
            platforms = _json.encode(sorted(CELLULAR)).decode()
            (cellular,) = db.execute(COUNT_CELLULAR, (owner, platforms)).fetchone()
            return DeviceCount(number, cellular)

        return await self._database.read(read)

    async def update(self, device: Device) -> None:
        """Replaces the record."""
        if not await self._put(UPDATE, device):
            raise NotFound("there is no such device")

    async def claim(self, device_id: str, owner: str, *, proved: bool = False) -> Device | None:
        """Gives a free device to the owner."""

        def work(db: sqlite3.Connection) -> Device | None:
            row = db.execute(f"{SELECT} where device.id = ?", (device_id,)).fetchone()
            if row is None:
                return None
            device = _device(row)
            if device.owner is not None:
                return device
            taken = db.execute(
                "select 1 from device where owner = ? and name_key = ?", (owner, name_key(device.name or ""))
            ).fetchone()
            # A name is unique to its owner: the newcomer comes without.
            device = structs.replace(device, owner=owner, name=None if taken else device.name)
            if proved:
                db.execute("update device_key set bound_by = null where device = ?", (device_id,))
            db.execute(UPDATE, _device_row(device))
            return _some(db, [device_id])[0]

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
            forgotten = db.execute("select revision from forgotten where what = 'device'").fetchone()
            whole = forgotten is not None and since_revision < forgotten[0]
            since = 0 if whole else since_revision
            changed = db.execute(f"{SELECT} where device.changed > ?", (since,)).fetchall()
            # Who begins has nothing that could have been removed.
            removed = (
                db.execute("select id from device_removed where changed > ?", (since_revision,)).fetchall()
                if since
                else []
            )
            rekeyed = db.execute("select device from device_key where changed > ?", (since_revision,)).fetchall()
            return DeviceChanges(
                revision, [_device(row) for row in changed], [row[0] for row in removed], [row[0] for row in rekeyed],
                whole,
            )  # fmt: skip

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


def _found(where: DeviceFilter) -> tuple[str, list[Any]]:
    """What is looked through and for, and the values in it."""
    conditions, values = ["1"], list[Any]()
    if where.owner is not None:
        conditions.append("owner = ?")
        values.append(where.owner)
    if where.name is not None:
        conditions.append("instr(name_key, ?) > 0")
        values.append(name_key(where.name))
    if where.online is not None:
        conditions.append("online = 1" if where.online else "online = 0")
    # Few are online, perhaps, and the planner does not know.
    table = "device indexed by device_online" if where.online and where.owner is not None else "device"
    return f"from {table} where {' and '.join(conditions)}", values


def _some(db: sqlite3.Connection, device_ids: Sequence[str]) -> list[Device]:
    rows = db.execute(SOME, (_json.encode(device_ids).decode(),)).fetchall()
    found = {device.id: device for device in map(_device, rows)}
    return [found[device_id] for device_id in device_ids if device_id in found]


_read_ids = _json.Decoder(list[str]).decode
_read_device = _json.Decoder(Device).decode
_read_greeting = _json.Decoder(Greeting).decode
_read_keep_alive = _json.Decoder(KeepAlive).decode
_read_functions = _json.Decoder(tuple[str, ...]).decode
_read_variables = _json.Decoder(dict[str, str]).decode


def _device(row: tuple[Any, ...]) -> Device:
    owner, record, online, last_heard, last_handshake_at, address, greeting, functions, variables, *rest = row
    keep_alive, refused, *keys = rest
    device = _read_device(record)
    told = readable(_read_greeting, greeting)
    return structs.replace(
        device.greeted(told),
        # The column is the truth about the owner: removing a user frees its devices there.
        owner=owner,
        online=bool(online),
        last_ip_address=address.partition(" ")[0] or None if address else None,
        last_heard=last_heard,
        last_handshake_at=last_handshake_at,
        publishes_refused=refused or 0,
        functions=readable(_read_functions, functions) or (),
        variables=readable(_read_variables, variables) or {},
        keep_alive=readable(_read_keep_alive, keep_alive),
        key={(1, 0): "public", (0, 1): "psk", (1, 1): "both"}.get(tuple(keys)),
    )


def _device_row(device: Device) -> tuple[Any, ...]:
    # What its firmware tells is the link's.
    product = device.platform_id if device.registered_product is None else device.registered_product
    return (
        device.id,
        device.owner,
        device.name,
        None if device.name is None else name_key(device.name),
        device.created_at,
        _json.encode(structs.replace(device, product_id=product, **_UNTOLD)).decode(),
    )
