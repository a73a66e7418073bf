"""What templates may name: the predefined variables of an event, and its data (integrations.md, section 6)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from wirechamber.integrations.base import DeviceInfo
from wirechamber.jsontext import trouble
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
    # As databases of time series want it.
    "PARTICLE_PUBLISHED_AT_S": lambda event: str(event.published_at // 1000),
    "PARTICLE_PUBLISHED_AT_MS": lambda event: str(event.published_at),
    "PARTICLE_PUBLISHED_AT_NS": lambda event: f"{event.published_at}000000",
    "PARTICLE_EVENT_ID": lambda event: event.id,
    "PRODUCT_USER_ID": lambda event: event.owner,
    "PARTICLE_EVENT_JSON": _json_of,
    "PARTICLE_EVENT_BASE64": lambda event: base64.b64encode(_json_of(event).encode()).decode(),
    "SPARK_CORE_ID": lambda event: event.coreid,
    "SPARK_EVENT_NAME": lambda event: event.name,
    "SPARK_EVENT_VALUE": lambda event: event.data or "",
    "SPARK_PUBLISHED_AT": lambda event: iso(event.published_at),
}
# What is known of the device that published, if it is the owner's.
_OF_DEVICE: Mapping[str, Callable[[Event, DeviceInfo | None], str]] = {
    "PARTICLE_DEVICE_NAME": lambda event, device: "" if device is None else device.name or "",
    "PRODUCT_ID": lambda event, device: _text(event.product if device is None else device.product),
    "PRODUCT_VERSION": lambda event, device: "" if device is None else device.firmware or "",
}
# Those that are numbers, and empty where they are not known.
NUMBERS = ("PRODUCT_ID", "PRODUCT_VERSION")
PREDEFINED = frozenset(_PREDEFINED) | frozenset(_OF_DEVICE)


class Names:
    """Which variables a set of templates needs, worked out once: only those are made for an event.

    Args:
        names: The first part of every name that the templates look up.

    Attributes:
        needs_data: Of the event's data, or of the answer, something is named.
        needs_device: What is known of the device is named.
    """

    __slots__ = ("_makers", "_of_device", "needs_data", "needs_device")

    def __init__(self, names: Collection[str]) -> None:
        self._makers = tuple((name, maker) for name, maker in _PREDEFINED.items() if name in names)
        self._of_device = tuple((name, maker) for name, maker in _OF_DEVICE.items() if name in names)
        self.needs_device = bool(self._of_device)
        self.needs_data = any(name not in PREDEFINED for name in names)

    def predefined(self, event: Event, extra: Mapping[str, Any], device: DeviceInfo | None = None) -> dict[str, Any]:
        """The predefined variables that are needed, over those that the context adds."""
        found = {name: maker(event) for name, maker in self._makers}
        if self._of_device:
            found |= {name: maker(event, device) for name, maker in self._of_device}
        return {**extra, **found} if extra else found

    def data(self, text: str | None) -> Any:
        """The data as JSON, if it is and something is needed of it; else nothing to name."""
        return parsed(text) if self.needs_data else None

    def lacking(self, event: Event) -> str | None:
        """Why nothing can be named of an event's data although something is; None where all is well."""
        if not self.needs_data:
            return None
        data = event.data or ""
        try:
            _decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as problem:
            why = f"the event's data is no JSON: {trouble(data, problem)}" if data else "the event has no data"
            return f"{why}; what the templates name of it is empty"
        return None


def parsed(text: str | None) -> Any:
    """The JSON value that a text is, or None when it is none."""
    if not text:
        return None
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def _text(number: int | None) -> str:
    return "" if number is None else str(number)
