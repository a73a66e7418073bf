"""Records for tests, with everything that a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from wirechamber.model.deliveries import Attempt, Delivery
from wirechamber.model.events import Event
from wirechamber.model.integrations import IntegrationRecord

OWNER = "owner-1"
NOW = 1_700_000_000_000


def an_event(name: str = "temperature", data: str | None = "21.5", **rest: Any) -> Event:
    fields: dict[str, Any] = {
        "id": "0" * 32, "published_at": NOW, "received_at": NOW, "owner": OWNER, "coreid": "api",
        "partition": OWNER, "origin": "api",
    }  # fmt: skip
    return Event(name=name, data=data, **(fields | rest))


def an_integration(event: str = "temp", **rest: Any) -> IntegrationRecord:
    fields: dict[str, Any] = {
        "id": f"hook-{event}", "owner": OWNER, "kind": "Webhook", "created_at": NOW, "updated_at": NOW,
        "settings": {"url": "http://localhost/"},
    }  # fmt: skip
    return IntegrationRecord(event=event, **(fields | rest))


def a_delivery(number: int = 0, **rest: Any) -> Delivery:
    fields: dict[str, Any] = {
        "id": f"delivery-{number}", "integration": "hook-temp", "owner": OWNER, "event": an_event(),
        "cursor": str(number), "state": "waiting", "due_at": NOW, "attempts": 1, "deadline_at": NOW + 120_000,
        "created_at": NOW,
    }  # fmt: skip
    return Delivery(**(fields | rest))


def an_attempt(number: int = 0, **rest: Any) -> Attempt:
    fields: dict[str, Any] = {
        "id": f"{rest.get('started_at', NOW):012x}{number:020x}",
        "delivery": f"delivery-{number}", "integration": "hook-temp", "owner": OWNER,
        "event_id": "0" * 32, "event_name": "temperature", "device": None, "coreid": "api", "number": 1,
        "started_at": NOW, "duration_ms": 5, "ok": True, "final": True, "status": 200, "detail": b'{"request":{}}',
    }  # fmt: skip
    return Attempt(**(fields | rest))
