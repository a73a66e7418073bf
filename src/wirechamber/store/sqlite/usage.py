"""What devices used, by hour and purpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import structs

from wirechamber.model.usage import Usage
from wirechamber.store.base import UsageFilter
from wirechamber.store.sqlite.database import Database

# Rows that one step of tidying removes; other writes go in between.
TIDY_ROWS = 2_000
COUNTS = ("up_bytes", "up_datagrams", "down_bytes", "down_datagrams", "publishes", "data_bytes")

ADD = f"""
insert into usage (device, hour, purpose, {", ".join(COUNTS)})
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
value ->> 8 from json_each(?) where value ->> 0 in (select id from device)
on conflict (device, hour, purpose) do update set {", ".join(f"{name} = {name} + excluded.{name}" for name in COUNTS)}
"""
TIDY = f"""
delete from usage where (device, hour, purpose) in
(select device, hour, purpose from usage where hour < ? limit {TIDY_ROWS})
"""


class SqliteUsages:
    """`Usages` of the store's interface."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, rows: Sequence[Usage]) -> None:
        """Adds to what is there."""
        text = msgspec.json.encode([structs.astuple(row) for row in rows]).decode()
        await self._database.write(lambda db: db.execute(ADD, (text,)), durable=False)

    async def hours(self, where: UsageFilter) -> list[Usage]:
        """Rows as they are."""
        test, values = _conditions(where)
        return await self._rows(
            f"select device, hour, purpose, {', '.join(COUNTS)} from usage where {test} order by hour, device, purpose",
            values,
        )

    async def totals(self, where: UsageFilter) -> list[Usage]:
        """Sums over hours."""
        test, values = _conditions(where)
        sums = ", ".join(f"sum({name})" for name in COUNTS)
        return await self._rows(
            f"select device, min(hour), purpose, {sums} from usage where {test}"
            " group by device, purpose order by device, purpose",
            values,
        )

    async def tidy(self, before_hour: int) -> int:
        """Removes older hours, in short transactions."""
        removed = 0
        while step := await self._database.write(lambda db: db.execute(TIDY, (before_hour,)).rowcount, durable=False):
            removed += step
        return removed

    async def _rows(self, query: str, values: Sequence[Any]) -> list[Usage]:
        rows = await self._database.read(lambda db: db.execute(query, values).fetchall())
        return [Usage(*row) for row in rows]


def _conditions(where: UsageFilter) -> tuple[str, list[Any]]:
    conditions: list[str] = ["1"]
    values: list[Any] = []
    for test, value in (
        ("device = ?", where.device),
        (
            "device in (select value from json_each(?))",
            None if where.devices is None else msgspec.json.encode(where.devices).decode(),
        ),
        ("device in (select id from device where owner = ?)", where.owner),
        ("hour >= ?", where.since),
        ("hour < ?", where.until),
    ):
        if value is not None:
            conditions.append(test)
            values.append(value)
    return " and ".join(conditions), values
