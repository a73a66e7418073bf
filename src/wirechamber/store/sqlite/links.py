"""What devices told over their links.

A batch of changes is folded first, per device, and then written by one statement per kind of row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from wirechamber.model.links import (
    CameOnline,
    Change,
    Described,
    Description,
    Greeted,
    Greeting,
    HasHad,
    KeepAlive,
    KeepAliveTold,
    LinkRecord,
    MetricsTold,
    Session,
    Subscribed,
    Subscription,
    SystemDescribed,
    Unsubscribed,
    Vital,
    Vitals,
    WentOffline,
)
from wirechamber.secrets import Vault
from wirechamber.store.base import MAX_VITALS
from wirechamber.store.sqlite.database import Database
from wirechamber.store.sqlite.grouped import Grouped
from wirechamber.store.sqlite.sessions import add_sessions
from wirechamber.store.sqlite.told import readable

# Milliseconds since 1970; as late as SQLite's numbers go.
MAX_TIME = 2**63 - 1
# Rows that are removed at once: a few milliseconds.
STEP = 500

ENDED = """
delete from session where device in (select value ->> 0 from json_each(?))
and id not in (select value ->> 1 from json_each(?))
"""
MAKE_LINK = """
insert or ignore into link (device)
select value ->> 0 from json_each(?) where value ->> 0 in (select id from device)
"""
LINK = """
update link set
online = coalesce(news.online, link.online),
last_heard = nullif(max(coalesce(link.last_heard, 0), coalesce(news.last_heard, 0)), 0),
last_handshake_at = coalesce(news.last_handshake_at, link.last_handshake_at),
address = coalesce(news.address, link.address),
resume_from = coalesce(news.resume_from, link.resume_from)
from (
    select value ->> 0 as device, value ->> 1 as online, value ->> 2 as last_heard, value ->> 3 as last_handshake_at,
    value ->> 4 as address, value ->> 5 as resume_from from json_each(?)
) as news
where link.device = news.device
"""
HEARD = """
update link set last_heard = news.at
from (select value ->> 0 as device, value ->> 1 as at from json_each(?)) as news
where link.device = news.device and news.at > coalesce(link.last_heard, 0)
"""
REFUSED = """
update link set publishes_refused = link.publishes_refused + news.count
from (select value ->> 0 as device, value ->> 1 as count from json_each(?)) as news
where link.device = news.device
"""
FORGET = "delete from told where device in (select value from json_each(?))"
FORGET_KEEP_ALIVE = "update told set keep_alive = null where device in (select value from json_each(?))"
FORGET_SUBSCRIPTIONS = "delete from subscription where device in (select value from json_each(?))"
MAKE_TOLD = """
insert or ignore into told (device)
select value ->> 0 from json_each(?) where value ->> 0 in (select id from device)
"""
TOLD = """
update told set
greeting = coalesce(news.greeting, told.greeting),
functions = coalesce(news.functions, told.functions),
variables = coalesce(news.variables, told.variables),
system = coalesce(news.system, told.system),
system_at = coalesce(news.system_at, told.system_at),
keep_alive = coalesce(news.keep_alive, told.keep_alive)
from (
    select value ->> 0 as device, value ->> 1 as greeting, value ->> 2 as functions, value ->> 3 as variables,
    value ->> 4 as system, value ->> 5 as system_at, value ->> 6 as keep_alive from json_each(?)
) as news
where told.device = news.device
"""
UNSUBSCRIBE = """
delete from subscription where (device, prefix, sender) in
(select value ->> 0, value ->> 1, value ->> 2 from json_each(?))
"""
SUBSCRIBE = """
insert or replace into subscription (device, prefix, sender, binary, cbor, token)
select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 from json_each(?)
where value ->> 0 in (select id from device)
"""
METRICS = """
insert or replace into vitals (device, at, metrics)
select value ->> 0, value ->> 1, value ->> 2 from json_each(?) where value ->> 0 in (select id from device)
"""
SPARE_METRICS = """
delete from vitals where device = ?1 and at <=
(select at from vitals where device = ?1 order by at desc limit 1 offset ?2)
"""
RECORD = """
select link.device, online, last_heard, last_handshake_at, address, resume_from, greeting, functions, variables,
keep_alive, (
    select json_group_array(json_array(prefix, json(iif(binary, 'true', 'false')), json(iif(cbor, 'true', 'false')),
    nullif(sender, ''), token)) from subscription where subscription.device = link.device
)
from link left join told on told.device = link.device
"""


class SqliteLinks:
    """`Links` of the store's interface."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._applying: Grouped[Change] = Grouped(database, lambda db, changes: _apply(db, vault, changes))

    async def apply(self, changes: Sequence[Change]) -> None:
        """Stores changes, together with those of others at the same time."""
        await self._applying.write(changes)

    async def heard(self, times: Mapping[str, int]) -> None:
        """When devices were heard last."""
        text = _text(list(times.items()))
        await self._database.write(lambda db: db.execute(HEARD, (text,)), durable=False)

    async def refused(self, counts: Mapping[str, int]) -> None:
        """So many more events of devices were refused."""
        text = _text(list(counts.items()))
        await self._database.write(lambda db: db.execute(REFUSED, (text,)), durable=False)

    async def get(self, device_id: str) -> LinkRecord | None:
        """The link of a device."""
        row = await self._database.read(
            lambda db: db.execute(f"{RECORD} where link.device = ?", (device_id,)).fetchone()
        )
        return None if row is None else _record(row)

    async def several(self, device_ids: Sequence[str]) -> dict[str, LinkRecord]:
        """Links by device."""
        ids = _text(list(device_ids))

        def read(db: sqlite3.Connection) -> dict[str, LinkRecord]:
            rows = db.execute(f"{RECORD} where link.device in (select value from json_each(?))", (ids,))
            return {row[0]: _record(row) for row in rows}

        return await self._database.read(read)

    async def description(self, device_id: str) -> Description:
        """The long things that a device told; what can't be read is left out."""

        def read(db: sqlite3.Connection) -> tuple[Any, Any]:
            system = db.execute("select system, system_at from told where device = ?", (device_id,)).fetchone()
            metrics = db.execute(
                "select metrics, at from vitals where device = ? order by at desc limit 1", (device_id,)
            ).fetchone()
            return system, metrics

        system, metrics = await self._database.read(read)
        text, system_at = system or (None, None)
        values, metrics_at = metrics or (None, None)
        told, measured = readable(_read_system, text), readable(_read_metrics, values)
        return Description(
            system=told,
            system_at=None if told is None else system_at,
            metrics=measured,
            metrics_at=None if measured is None else metrics_at,
        )

    async def vitals(
        self, device_id: str, *, since: int | None = None, until: int | None = None, limit: int | None = None
    ) -> list[Vitals]:
        """What the device measured, newest first; what can't be read is left out."""
        query = "select at, metrics from vitals where device = ? and at >= ? and at < ? order by at desc limit ?"
        values = (device_id, since or 0, MAX_TIME if until is None else until, MAX_VITALS if limit is None else limit)
        rows = await self._database.read(lambda db: db.execute(query, values).fetchall())
        return [Vitals(at, found) for at, text in rows if (found := readable(_read_metrics, text)) is not None]

    async def forget_vitals(self, before: int) -> int:
        """Removes what was measured before, some at a time."""
        query = (
            "delete from vitals where (device, at) in (select device, at from vitals where at < ? limit ?) returning 1"
        )
        removed = 0
        while gone := await self._database.write(lambda db: len(db.execute(query, (before, STEP)).fetchall())):
            removed += gone
        return removed

    async def online(self) -> list[LinkRecord]:
        """Every device that is online."""
        rows = await self._database.read(
            lambda db: db.execute(f"{RECORD} where online = 1 order by link.device").fetchall()
        )
        return [_record(row) for row in rows]

    async def remove(self, device_id: str) -> bool:
        """Forgets what a device told, and its sessions."""

        def work(db: sqlite3.Connection) -> bool:
            tables = ("link", "told", "subscription", "vitals", "session")
            return (
                sum(db.execute(f"delete from {table} where device = ?", (device_id,)).rowcount for table in tables) > 0
            )

        return await self._database.write(work)


# What a device tells of itself, as `TOLD` has it.
_TOLD = ("greeting", "functions", "variables", "system", "system_at", "keep_alive")


class _News:
    """What a batch holds about one device."""

    def __init__(self) -> None:
        self.greeted = False
        # It says no Hello, and described nothing since.
        self.mute = False
        self.session: Session | None = None
        self.link: dict[str, Any] = {}
        self.told: dict[str, Any] = {}
        self.metrics: list[tuple[int, str]] = []
        self.subscriptions: dict[tuple[str, str, bool, bool], Subscription] = {}
        self.unsubscribed: set[tuple[str, str]] = set()

    def take(self, change: Change) -> None:
        """The next change of the device."""
        match change:
            case Greeted():
                self.greeted = True
                self.session = change.session or self.session
                self.link |= {"last_heard": change.at, "address": change.address}
                if change.session is not None or change.handshake:
                    self.link["last_handshake_at"] = change.at
                # Its description holds until it describes itself anew; what it wants, it tells each time.
                self.told.pop("keep_alive", None)
                if change.greeting is None:
                    self.mute, self.told = True, {}
                else:
                    self.told["greeting"] = _text(change.greeting)
                self.subscriptions.clear()
            case Described():
                self.told |= {"functions": _text(change.functions), "variables": _text(change.variables)}
            case SystemDescribed():
                self.told |= {"system": _text(change.system), "system_at": change.at}
            case MetricsTold():
                self.metrics.append((change.at, _text(change.metrics)))
            case Subscribed():
                wanted = change.subscription
                self.subscriptions[wanted.prefix, wanted.device or "", wanted.binary, wanted.cbor] = wanted
            case Unsubscribed():
                gone = change.prefix, change.of or ""
                self.subscriptions = {key: each for key, each in self.subscriptions.items() if key[:2] != gone}
                self.unsubscribed.add(gone)
            case KeepAliveTold():
                self.told |= {"keep_alive": _text(change.keep_alive)}
            case CameOnline():
                self.link |= {"online": 1, "last_heard": change.at, "address": change.address}
            case WentOffline():
                self.link["online"] = 0
                if change.resume_from is not None:
                    self.link["resume_from"] = change.resume_from
            case HasHad():
                self.link["resume_from"] = change.resume_from


def _apply(db: sqlite3.Connection, vault: Vault, changes: Sequence[Change]) -> None:
    devices: dict[str, _News] = {}
    for change in changes:
        news = devices.get(change.device)
        if news is None:
            news = devices[change.device] = _News()
        news.take(change)
    sessions = [(device, news.session) for device, news in devices.items() if news.session is not None]
    if sessions:
        db.execute(ENDED, (_text([(device, session.id) for device, session in sessions]),) * 2)
        add_sessions(db, vault, [session for _, session in sessions])
    if mute := [device for device, news in devices.items() if news.mute]:
        db.execute(FORGET, (_text(mute),))
    if greeted := [device for device, news in devices.items() if news.greeted]:
        for query in (FORGET_KEEP_ALIVE, FORGET_SUBSCRIPTIONS):
            db.execute(query, (_text(greeted),))
    if links := [
        (device, *map(news.link.get, ("online", "last_heard", "last_handshake_at", "address", "resume_from")))
        for device, news in devices.items()
        if news.link
    ]:
        for query in (MAKE_LINK, LINK):
            db.execute(query, (_text(links),))
    if told := [(device, *map(news.told.get, _TOLD)) for device, news in devices.items() if news.told]:
        for query in (MAKE_TOLD, TOLD):
            db.execute(query, (_text(told),))
    if measured := [(device, *each) for device, news in devices.items() for each in news.metrics]:
        db.execute(METRICS, (_text(measured),))
        for device in dict.fromkeys(each[0] for each in measured):
            db.execute(SPARE_METRICS, (device, MAX_VITALS))
    if gone := [(device, *key) for device, news in devices.items() for key in news.unsubscribed]:
        db.execute(UNSUBSCRIBE, (_text(gone),))
    if wanted := [
        (device, prefix, sender, int(binary), int(cbor), wish.token.hex())
        for device, news in devices.items()
        for (prefix, sender, binary, cbor), wish in news.subscriptions.items()
    ]:
        db.execute(SUBSCRIBE, (_text(wanted),))


_read_greeting = msgspec.json.Decoder(Greeting).decode
_read_functions = msgspec.json.Decoder(tuple[str, ...]).decode
_read_variables = msgspec.json.Decoder(dict[str, str]).decode
_read_keep_alive = msgspec.json.Decoder(KeepAlive).decode
_read_system = msgspec.json.Decoder(dict[str, Any]).decode
_read_metrics = msgspec.json.Decoder(dict[str, Vital]).decode
_read_subscriptions = msgspec.json.Decoder(list[tuple[str, bool, bool, str | None, str]]).decode


def _subscriptions(text: str) -> tuple[Subscription, ...]:
    return tuple(
        Subscription(prefix, binary, cbor, sender, bytes.fromhex(token))
        for prefix, binary, cbor, sender, token in _read_subscriptions(text)
    )


def _record(row: tuple[Any, ...]) -> LinkRecord:
    (
        device,
        online,
        last_heard,
        last_handshake_at,
        address,
        resume_from,
        greeting,
        functions,
        variables,
        keep_alive,
        subscriptions,
    ) = row
    told = (
        readable(_read_greeting, greeting),
        readable(_read_functions, functions),
        readable(_read_variables, variables),
        readable(_subscriptions, subscriptions),
    )
    return LinkRecord(
        device=device,
        online=bool(online),
        last_heard=last_heard,
        last_handshake_at=last_handshake_at,
        address=address,
        resume_from=resume_from,
        greeting=told[0],
        functions=told[1] or (),
        variables=told[2] or {},
        subscriptions=told[3] or (),
        # What can't be read is as if it had not been told: then it is pinged for, or gone, as usual.
        keep_alive=readable(_read_keep_alive, keep_alive),
        damaged=any(
            stored is not None and found is None
            for stored, found in zip((greeting, functions, variables, subscriptions), told, strict=True)
        ),
    )


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
