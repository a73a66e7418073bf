"""A small reader of event streams for tests; the real clients are tested in tests/interop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
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


class Stream:
    """An open stream: its events come in turn, however they are asked for."""

    def __init__(self, source: EventSource) -> None:
        self.response = source.response
        self._events = source.iter_sse()

    def __iter__(self) -> Iterator[Seen]:
        for event in self._events:
            yield Seen(event.id, event.event, json.loads(event.data))


@contextmanager
def stream(client: httpx.Client, path: str = "/v1/devices/events", **headers: str) -> Iterator[Stream]:
    """Opens a stream; `headers` as given, underscores for hyphens."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    with connect_sse(client, "GET", path, headers=sent) as source:
        yield Stream(source)


def take(source: Stream, count: int) -> list[Seen]:
    """The next so many events."""
    return list(islice(source, count))
