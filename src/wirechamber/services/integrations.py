"""Integrations, as their owners see them: create, show, replace, remove, test, log (cloud-api.md, section 6)."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

import msgspec
from msgspec import structs

from wirechamber.clock import SteadyClock
from wirechamber.errors import BadInput, Conflict, Forbidden, NotFound, TooMany
from wirechamber.eventlog.base import EventLog
from wirechamber.integrations.base import MASK, Integration, InvalidConfig, Reading
from wirechamber.integrations.fields import EVENT, MAX_LABEL, Common, common, without_password
from wirechamber.integrations.registry import Registry, missing_kind
from wirechamber.model.accounts import PERMISSIONS
from wirechamber.model.deliveries import Attempt, Standing
from wirechamber.model.events import BY_API, Event
from wirechamber.model.ids import TIME_DIGITS, is_device_id, new_id
from wirechamber.model.integrations import IntegrationRecord
from wirechamber.model.names import DEFAULT_TTL, RESERVED, check_name, is_reserved
from wirechamber.model.times import day, iso
from wirechamber.services.beside import computed
from wirechamber.services.lately import Lately, hint, misses
from wirechamber.services.standing import Moment, attempt_view, counter_view, standing_view, today_view
from wirechamber.settings import Settings
from wirechamber.store.base import AttemptFilter, Holding, HoldingFull, Store

MAX_SETTINGS_BYTES = 512 * 1024
# As many as Particle's console shows; the log endpoint pages through all.
SHOWN_LOGS = 10
MAX_LOGS = 100
# Integrations that are shown in one go; large ones go in smaller pages.
PAGE = 100
COUNTER_DAYS = 30
# Of integrations with the same name so many are told, so that one can be chosen.
NAMESAKES = 5
_ID = re.compile("[0-9a-f]{24}")
DEFAULT_KIND = "Webhook"
# In which answers wrap one, and users send it back.
WRAPPERS = ("integration", "webhook")
# Settings that name events.
TOPICS = ("responseTopic", "errorResponseTopic")
MAX_DEPTH = 64
# Texts, numbers, lists and objects of one configuration.
MAX_VALUES = 20_000
# Samples of one owner under way: they go around the lanes, so that somebody who looks does not wait behind a backlog.
TESTS_AT_A_TIME = 4


class Delivery(Protocol):
    """What is asked of the delivery side."""

    async def saved(self, record: IntegrationRecord) -> None:
        """A new configuration is stored; what waited for this integration is held, or due at once."""

    async def test(self, record: IntegrationRecord, event: Event) -> Attempt:
        """Sends one sample event through it and tells what came of it."""

    def unreachable(self, url: str) -> str | None:
        """Why nothing can be sent to a URL, as far as its text tells."""


class Integrations:
    """What an owner may do with integrations."""

    def __init__(
        self,
        store: Store,
        log: EventLog,
        registry: Registry,
        clock: SteadyClock,
        settings: Settings,
        delivery: Delivery,
    ) -> None:
        self._store = store
        self._log = log
        self._registry = registry
        self._clock = clock
        self._settings = settings
        self._delivery = delivery
        self._testing: Counter[str] = Counter()
        self._saving: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, owner: str, sent: Mapping[str, Any], kind: str | None = None) -> dict[str, Any]:
        """Makes an integration; returns it as shown, with `warnings`.

        Args:
            sent: Flat, in any accepted spelling.
            kind: When the route says it; else `integration_type` is in `sent`.

        Raises:
            InvalidConfig: Names the field and what is allowed.
        """
        sent = _unwrapped(sent)
        chosen = self._registry.named(kind or sent.get("integration_type") or DEFAULT_KIND)
        if chosen.unavailable is not None:
            raise InvalidConfig("integration_type", chosen.unavailable)
        shared = await self._read_common(owner, sent, chosen)
        now = self._clock.now()
        record = IntegrationRecord(
            id=new_id(now)[:24],
            owner=owner,
            kind=chosen.kind,
            event=shared.event,
            created_at=now,
            updated_at=now,
        )
        record, warnings = await self._configure(record, shared)
        record = structs.replace(record, since=await self._log.newest())
        try:
            await self._store.integrations.add(record, self._most)
        except HoldingFull as full:
            raise self._too_much(full) from None
        return self.view(record) | self._standing(None) | {"warnings": warnings}

    async def replace(self, owner: str, integration_id: str, sent: Mapping[str, Any]) -> dict[str, Any]:
        """Replaces the whole configuration; what is not sent falls back to its default, nothing is merged."""
        record = await self.get(owner, integration_id)
        sent = _unwrapped(sent)
        if set(sent) == {"disabled"}:
            # What a switch sends: everything else stays.
            sent = dict(record.settings) | _common_of(record) | {"disabled": sent["disabled"]}
        shared = await self._read_common(owner, sent, self._registry.get(record.kind))
        if shared.kind is not None and self._registry.named(shared.kind).kind != record.kind:
            raise InvalidConfig("integration_type", f"can't be changed: it is {record.kind}")
        changed, warnings = await self._configure(record, shared)
        # While it was active it keeps its place: events that are accepted and wait for dispatch go to what it is now.
        since = record.since if record.active else await self._log.newest()
        changed = structs.replace(changed, updated_at=self._clock.now(), since=since, paused=None)
        try:
            await self._store.integrations.update(changed, self._most)
        except HoldingFull as full:
            raise self._too_much(full) from None
        await self._delivery.saved(changed)
        standing = (await self._store.deliveries.standing([changed.id])).get(changed.id)
        return self.view(changed) | self._standing(standing) | {"warnings": warnings}

    async def remove(self, owner: str, integration_id: str) -> str:
        """Removes it, with what waited to be delivered; returns its id."""
        record = await self.get(owner, integration_id)
        await self._store.integrations.remove(record.id)
        return record.id

    async def get(self, owner: str, integration_id: str) -> IntegrationRecord:
        """The owner's integration of that id, or of that name.

        Raises:
            NotFound: Unknown or not the owner's: the two are never told apart.
            Conflict: Several have the name.
        """
        record = await self._store.integrations.get(integration_id)
        if record is not None and record.owner == owner:
            return record
        named = [] if _ID.fullmatch(integration_id) else await self._named(owner, integration_id)
        if not named:
            raise NotFound(
                "there is no integration of this id or name; `GET /v1/integrations` lists yours",
                error="Webhook not found",
            )
        if len(named) > 1:
            ids = ", ".join(each.id for each in named)
            raise Conflict(f"several integrations have this name; say which one by its id: {ids}")
        return named[0]

    async def _named(self, owner: str, name: str) -> list[IntegrationRecord]:
        return await self._store.integrations.named(owner, name, NAMESAKES) if len(name) <= MAX_LABEL else []

    async def pages(
        self,
        owner: str,
        kind: str | None = None,
        *,
        after: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """The owner's, oldest first, each with the counts of today (UTC), in pages that are small enough to be shown at
        once; at least one, which may be empty.

        Args:
            after: Begins behind the integration of this id, which need not be there any more.
            offset: Leaves out so many.
            limit: At most so many, all pages together.

        Raises:
            BadInput: `after` is no id.
        """
        place = None if after is None else _place(after)
        first, left = True, limit
        lately: Lately | None = None
        while left is None or left > 0:
            wanted = PAGE if left is None else min(PAGE, left)
            records = await self._store.integrations.page(owner, wanted, place, kind, offset)
            offset = 0
            if not records and not first:
                return
            first = False
            today = day(self._clock.now())
            ids = [record.id for record in records]
            counts = await self._store.deliveries.counts(ids, today)
            standing = await self._store.deliveries.standing(ids)
            if lately is None and any(record.id not in counts for record in records):
                lately = await Lately.of(owner, self._log)
            yield [
                self.view(record)
                | {"todayCounters": today_view(counts.get(record.id))}
                | self._standing(standing.get(record.id))
                | (hint(record, lately) if lately is not None and record.id not in counts else {})
                for record in records
            ]
            if not records:
                return
            place = records[-1].created_at, records[-1].id
            left = None if left is None else left - len(records)

    async def count(self, owner: str, kind: str | None = None) -> int:
        """How many the owner has."""
        if kind is not None:
            return await self._store.integrations.count(owner, kind)
        return (await self._store.integrations.holding(owner)).integrations

    async def show(self, owner: str, integration_id: str) -> dict[str, Any]:
        """One, with its newest successes and errors and the counters of 30 days."""
        record = await self.get(owner, integration_id)
        deliveries = self._store.deliveries
        logs = await deliveries.attempts(record.id, AttemptFilter(ok=True), SHOWN_LOGS)
        errors = await deliveries.attempts(record.id, AttemptFilter(ok=False), SHOWN_LOGS)
        since = day(self._clock.now()) - COUNTER_DAYS + 1
        counts = (await deliveries.counts([record.id], since)).get(record.id, [])
        standing = (await deliveries.standing([record.id])).get(record.id)
        told = {} if logs or errors else hint(record, await Lately.of(owner, self._log))
        return (
            self.view(record)
            | told
            | {
                "todayCounters": today_view([each for each in counts if each.day == day(self._clock.now())]),
                **self._standing(standing),
                "waiting": await deliveries.open_of(record.id),
                "logs": await self._attempts(logs),
                "errors": await self._attempts(errors),
                "counters": [counter_view(each) for each in counts],
            }
        )

    async def hint(self, owner: str, integration_id: str) -> dict[str, str]:
        """Why nothing was attempted yet, where the names of the events that came lately tell it."""
        return hint(await self.get(owner, integration_id), await Lately.of(owner, self._log))

    async def attempts(self, owner: str, integration_id: str, where: AttemptFilter, limit: int) -> list[dict[str, Any]]:
        """The log of one, newest first; fewer than `limit` when they are large, and none only at the end."""
        record = await self.get(owner, integration_id)
        return await self._attempts(await self._store.deliveries.attempts(record.id, where, min(limit, MAX_LOGS)))

    async def attempt(self, owner: str, integration_id: str, attempt_id: str) -> dict[str, Any]:
        """One attempt.

        Raises:
            NotFound: It is not there, or not any more.
        """
        found = await self.attempts(owner, integration_id, AttemptFilter(id=attempt_id), 1)
        if not found:
            raise NotFound("there is no attempt of this id; they are kept for a while only")
        return found[0]

    async def _attempts(self, attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
        """Attempts as they are shown, the newest of each delivery with the time of the next."""
        steps = await self._store.deliveries.steps([each.delivery for each in attempts if not each.final])
        moment = Moment.of(self._clock)
        return [attempt_view(each, steps.get(each.delivery), moment) for each in attempts]

    def _standing(self, standing: Standing | None) -> dict[str, Any]:
        return standing_view(standing or Standing(), Moment.of(self._clock))

    async def test(self, owner: str, integration_id: str, name: Any = None, data: Any = None) -> dict[str, Any]:
        """Sends a sample event through it and tells what came of it; publishes nothing.

        Raises:
            TooMany: Others of this owner are under way.
        """
        record = await self.get(owner, integration_id)
        if data is not None and not isinstance(data, str):
            raise BadInput("data must be a text")
        now = self._clock.now()
        event = Event(
            id=new_id(now),
            name=record.event if name in (None, "") else check_name(name),
            data=self._sample(record.kind) if data is None else data,
            published_at=now,
            received_at=now,
            owner=owner,
            coreid=BY_API,
            partition=owner,
            origin="api",
            ttl=DEFAULT_TTL,
        )
        if self._testing[owner] >= TESTS_AT_A_TIME:
            raise TooMany(f"{TESTS_AT_A_TIME} tests of yours are under way; wait for one to end")
        self._testing[owner] += 1
        try:
            attempt = await self._delivery.test(record, event)
        finally:
            self._testing[owner] -= 1
            if not self._testing[owner]:
                del self._testing[owner]
        shown = attempt_view(attempt, None, Moment.of(self._clock))
        return {
            "ok": attempt.ok,
            "status_code": attempt.status,
            "request": shown.get("request"),
            "response": shown.get("response"),
            "error": attempt.why,
            "duration_ms": attempt.duration_ms,
            "warnings": misses(record, event.name, await Lately.of(owner, self._log)),
        }

    def kinds(self) -> list[dict[str, Any]]:
        """The kinds that there are, with what is needed to make one: fields as JSON Schema, secrets, a sample event."""
        return [
            {
                "integration_type": kind.kind,
                "description": kind.summary,
                "installed": kind.unavailable is None,
                "install": None if kind.needs is None else kind.needs.install,
                "schema": kind.declaration.schema(),
                "secrets": list(kind.declaration.secrets),
                "sample": {"name": kind.declaration.event, "data": kind.sample},
            }
            for kind in self._registry
        ]

    @property
    def _most(self) -> Holding:
        return Holding(self._settings.integrations_per_owner, self._settings.owner_integrations_mb * 1024 * 1024)

    def _too_much(self, full: HoldingFull) -> BadInput:
        if full.many:
            return BadInput(f"you have {full.holding.integrations} integrations, as many as are allowed here")
        most = self._settings.owner_integrations_mb
        return BadInput(f"your integrations take {full.holding.bytes} bytes, and {most} MB are allowed here")

    def _sample(self, kind: str) -> str:
        found = self._registry.get(kind)
        return "" if found is None else found.sample

    def view(self, record: IntegrationRecord) -> dict[str, Any]:
        """The integration as the API shows it: settings flat beside what every kind has."""
        return {
            "id": record.id,
            "integration_type": record.kind,
            "name": record.name,
            "event": record.event,
            "deviceID": record.device,
            "disabled": record.disabled,
            "paused": record.paused or missing_kind(record.kind, self._registry.get(record.kind)),
            "created_at": iso(record.created_at),
            "updated_at": iso(record.updated_at),
            **record.settings,
            # It may have been saved before passwords in templates were found.
            **({"url": without_password(url)} if isinstance(url := record.settings.get("url"), str) else {}),
        }

    async def _read_common(self, owner: str, sent: Mapping[str, Any], kind: Integration[Any, Any] | None) -> Common:
        _check_shape(sent)
        if len(msgspec.json.encode(sent)) > MAX_SETTINGS_BYTES:
            raise BadInput(f"the configuration is larger than {MAX_SETTINGS_BYTES} bytes")
        shared = common(sent, None if kind is None else kind.declaration.event)
        if shared.device is None or is_device_id(shared.device):
            return shared
        device = await self._store.devices.by_name(owner, shared.device)
        if device is None:
            raise InvalidConfig(
                "deviceID",
                f"must be the id, 24 hex digits, or the name of a device of yours, and {shared.device[:64]!r} is none",
            )
        return structs.replace(shared, device=device.id)

    async def _configure(self, record: IntegrationRecord, shared: Common) -> tuple[IntegrationRecord, list[str]]:
        kind = self._registry.get(record.kind)
        if kind is None:
            raise BadInput(f"the kind {record.kind} is not known here any more: its package was removed")
        # Keys and templates take their time, and whoever saves much waits for himself.
        async with self._saving.setdefault(record.owner, asyncio.Lock()):
            reading = await computed(lambda: _read(kind, shared, record))
        needed = kind.permission(reading.config)
        if needed is not None:
            user = await self._store.users.get(record.owner)
            if user is None or needed not in user.permissions:
                raise Forbidden(
                    f"such an integration needs the permission {needed} ({PERMISSIONS.get(needed, 'unknown here')}), "
                    f"which only the operator grants: `wirechamber user grant NAME {needed}`; or give credentials"
                )
        configured = structs.replace(
            record,
            event=shared.event,
            device=shared.device,
            name=shared.name or f"{shared.event} for {kind.describe_target(reading.config)}",
            disabled=shared.disabled,
            settings=reading.settings,
            secrets=reading.secrets,
        )
        refused = [(field, self._delivery.unreachable(url)) for field, url in kind.urls(reading.config)]
        return configured, [*reading.warnings, *(f"{field}: {why}" for field, why in refused if why is not None)]


def _read(kind: Integration[Any, Any], shared: Common, record: IntegrationRecord) -> Reading[Any]:
    """What was sent, with the stored secrets where it has masks, if they may stay.

    They may while everything goes where it went: else whoever may edit an integration, and not see its secrets, would
    have them sent to himself.
    """
    reading = kind.read(shared.rest, record.secrets)
    for field in TOPICS:
        topic = reading.settings.get(field)
        # One that was saved before goes on, and its events get their default names.
        if isinstance(topic, str) and is_reserved(topic) and topic != record.settings.get(field):
            raise InvalidConfig(field, f"may not begin with {', '.join(RESERVED)}: such names are reserved")
    # Compiles every template: a malformed one is refused here, not at the first event.
    kind.prepare(reading.config)
    if record.secrets and kind.destination(reading.config) != _destination(kind, record):
        try:
            kind.read(shared.rest, {})
        except InvalidConfig as problem:
            raise InvalidConfig(
                problem.field,
                f"is {MASK}, which keeps the stored value only while scheme, host and port of the target stay the "
                "same; send the value itself",
            ) from None
    return reading


def _destination(kind: Integration[Any, Any], record: IntegrationRecord) -> object:
    try:
        return kind.destination(kind.read(record.settings, record.secrets).config)
    except InvalidConfig:
        # Saved when something else was allowed: nobody knows where it went.
        return None


def _place(integration_id: str) -> tuple[int, str]:
    """Where in the list an id is: ids begin with the time at which they were made."""
    try:
        return int(integration_id[:TIME_DIGITS], 16), integration_id
    except ValueError:
        raise BadInput("after must be the id of an integration") from None


def _common_of(record: IntegrationRecord) -> dict[str, Any]:
    return {"event": record.event, "deviceID": record.device, "name": record.name, "integration_type": record.kind}


def _unwrapped(sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was sent, also when it is wrapped as answers are; what stands beside the wrapped wins."""
    for wrapper in WRAPPERS:
        inner = sent.get(wrapper)
        if isinstance(inner, Mapping) and (len(sent) == 1 or any(inner.get(field) for field in EVENT)):
            return {**inner, **{key: value for key, value in sent.items() if key != wrapper}}
    return sent


def _check_shape(sent: Mapping[str, Any]) -> None:
    """Raises BadInput when it is nested too deeply or holds too much: all of it is walked through more than once."""
    left = MAX_VALUES
    level: list[Any] = [sent]
    for _ in range(MAX_DEPTH + 1):
        within: list[Any] = []
        for each in level:
            items = each.values() if isinstance(each, Mapping) else each
            left -= len(each)
            if left < 0:
                raise BadInput(f"the configuration holds more than {MAX_VALUES} values")
            within += [item for item in items if isinstance(item, Mapping | list)]
        if not within:
            return
        level = within
    raise BadInput(f"the configuration is nested more than {MAX_DEPTH} deep")
