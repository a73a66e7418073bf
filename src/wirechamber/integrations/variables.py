"""What templates may name: the predefined variables of an event, and its data (integrations.md, section 6)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from wirechamber.model.events import Event
from wirechamber.model.times import iso

_decode = msgspec.json.Decoder().decode


def _json_of(event: Event) -> str:
    # The object that streams show, with the name: the reference knows no better.
    return msgspec.json.encode(
        {
            "name": event.name,
            "data": event.data,
            "ttl": event.ttl,
            "published_at": iso(event.published_at),
            "coreid": event.coreid,
        }
    ).decode()


_PREDEFINED: Mapping[str, Callable[[Event], str]] = {
    "PARTICLE_DEVICE_ID": lambda event: event.coreid,
    "PARTICLE_EVENT_NAME": lambda event: event.name,
    "PARTICLE_EVENT_VALUE": lambda event: event.data or "",
    "PARTICLE_EVENT_DATA": lambda event: event.data or "",
    "PARTICLE_PUBLISHED_AT": lambda event: iso(event.published_at),
    "PARTICLE_EVENT_ID": lambda event: event.id,
    "PRODUCT_ID": lambda event: "" if event.product is None else str(event.product),
    "PRODUCT_USER_ID": lambda event: event.owner,
    # Known once devices report the version of their product's firmware.
    "PRODUCT_VERSION": lambda event: "",
    "PARTICLE_EVENT_JSON": _json_of,
    "PARTICLE_EVENT_BASE64": lambda event: base64.b64encode(_json_of(event).encode()).decode(),
    "SPARK_CORE_ID": lambda event: event.coreid,
    "SPARK_EVENT_NAME": lambda event: event.name,
    "SPARK_EVENT_VALUE": lambda event: event.data or "",
    "SPARK_PUBLISHED_AT": lambda event: iso(event.published_at),
}
PREDEFINED = frozenset(_PREDEFINED)


class Names:
    """Which variables a set of templates needs, worked out once: only those are made for an event.

    Args:
        names: The first part of every name that the templates look up.
    """

    __slots__ = ("_makers", "needs_data")

    def __init__(self, names: Collection[str]) -> None:
        self._makers = tuple((name, maker) for name, maker in _PREDEFINED.items() if name in names)
        self.needs_data = any(name not in PREDEFINED for name in names)

    def predefined(self, event: Event, extra: Mapping[str, Any]) -> dict[str, Any]:
        """The predefined variables that are needed, over those that the context adds."""
        found = {name: maker(event) for name, maker in self._makers}
        return {**extra, **found} if extra else found

    def data(self, text: str | None) -> Any:
        """The data as JSON, if it is and something is needed of it; else nothing to name."""
        return parsed(text) if self.needs_data else None


def parsed(text: str | None) -> Any:
    """The JSON value that a text is, or None when it is none."""
    if not text:
        return None
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
