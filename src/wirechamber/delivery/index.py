"""Which integrations an event triggers: a cost that does not grow with the integrations that do not match."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from wirechamber.errors import CloudError
from wirechamber.eventlog.base import Cursor
from wirechamber.integrations.base import Integration, Misconfigured
from wirechamber.integrations.registry import Registry, missing_kind
from wirechamber.model.events import MAX_DEPTH, Event
from wirechamber.model.integrations import IntegrationRecord
from wirechamber.model.prefixes import Prefixes

_log = structlog.get_logger("wirechamber.delivery")


class Trigger:
    """An integration, ready to deliver.

    Attributes:
        since: Order of the cursor after which it sees events.
    """

    __slots__ = ("_missing", "_prepared", "kind", "record", "since")

    def __init__(self, record: IntegrationRecord, kind: Integration[Any, Any] | None, since: int) -> None:
        self.record = record
        self.kind = kind
        self.since = since
        self._prepared: Any = None
        self._missing: str | None = None

    @property
    def ready(self) -> bool:
        """Whether its deliveries may be attempted at present; otherwise they are held."""
        return self.record.active and self.missing() is None

    def missing(self) -> str | None:
        """Why its kind is not there, if it is not. That is no fault of the integration: it goes on once it is."""
        if self._missing is None:
            self._missing = missing_kind(self.record.kind, self.kind) or ""
        return self._missing or None

    def prepared(self) -> Any:
        """Its compiled configuration, or `Misconfigured`; made at first use and kept."""
        if self._prepared is None:
            self._prepared = self._prepare()
        return self._prepared

    def _prepare(self) -> Any:
        missing = self.missing()
        if missing is not None or self.kind is None:
            return Misconfigured(missing or "")
        try:
            return self.kind.prepare(self.kind.read(self.record.settings, self.record.secrets).config)
        except CloudError as problem:
            return Misconfigured(problem.description)
        except BaseException as problem:
            # Nothing is awaited: whatever it is, it is the kind's own, and this integration's only.
            _log.exception("integration_unusable", integration=self.record.id, kind=self.record.kind)
            return Misconfigured(f"its configuration can't be used: {type(problem).__name__}")


class Index:
    """All integrations by owner and prefix.

    Args:
        registry: The kinds there are.
        order: Sorts the log's cursors.
    """

    def __init__(self, registry: Registry, order: Callable[[Cursor], int]) -> None:
        self._registry = registry
        self._order = order
        self._all: dict[str, Trigger] = {}
        self._owners: dict[str, Prefixes[Trigger]] = {}

    def get(self, integration_id: str) -> Trigger | None:
        """The integration of that id, active or not."""
        return self._all.get(integration_id)

    def all(self) -> list[Trigger]:
        """Every integration, active or not."""
        return list(self._all.values())

    def apply(self, changed: Iterable[IntegrationRecord], removed: Iterable[str]) -> None:
        """Takes in what the store says has changed."""
        for integration_id in removed:
            self._drop(integration_id)
        for record in changed:
            self._drop(record.id)
            since = -1 if record.since is None else self._order(Cursor(record.since))
            trigger = self._all[record.id] = Trigger(record, self._registry.get(record.kind), since)
            if record.active:
                self._owners.setdefault(record.owner, Prefixes()).add(record.event, trigger)

    def match(self, event: Event, order: int) -> Sequence[Trigger]:
        """The integrations that an event at this place in the log triggers.

        Hook results trigger nothing, told by their origin and not by their name, because topics rename them
        (integrations.md, section 3).
        """
        prefixes = self._owners.get(event.owner)
        if prefixes is None or event.origin == "integration" or event.depth > MAX_DEPTH:
            return ()
        return [trigger for trigger in prefixes.match(event.name) if _wants(trigger, event, order)]

    def _drop(self, integration_id: str) -> None:
        trigger = self._all.pop(integration_id, None)
        if trigger is None or not trigger.record.active:
            return
        prefixes = self._owners[trigger.record.owner]
        prefixes.discard(trigger.record.event, trigger)
        if not prefixes:
            del self._owners[trigger.record.owner]


def _wants(trigger: Trigger, event: Event, order: int) -> bool:
    record = trigger.record
    return (
        order > trigger.since and (record.device is None or record.device == event.device) and event.about != record.id
    )
