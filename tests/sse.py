"""A small reader of event streams for tests; the real clients are tested in tests/interop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, connect_sse


class Seen:
    """An event as a client sees it."""

    def __init__(self, cursor: str, name: str, body: dict[str, Any]) -> None:
        self.cursor = cursor
        self.name = name
        self.body = body

    @property
    def data(self) -> Any:
        return self.body["data"]

    def __repr__(self) -> str:
        return f"{self.cursor}:{self.name}={self.body}"


@contextmanager
def stream(client: httpx.Client, path: str = "/v1/devices/events", **headers: str) -> Iterator[EventSource]:
    """An open stream; `headers` as given, underscores for hyphens."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with connect_sse(client, "GET", path, headers=sent) as source:
        yield source


def events(source: EventSource) -> Iterator[Seen]:
    """The events of a stream as they come."""
    for event in source.iter_sse():
        yield Seen(event.id, event.event, json.loads(event.data))


def take(source: EventSource, count: int) -> list[Seen]:
    """The next so many events."""
    found: list[Seen] = []
    for event in events(source):
        found.append(event)
        if len(found) == count:
            break
    return found
