"""Reading settings that arrive flat, in several spellings, from JSON, forms and console exports (integrations.md, 4).

An empty text counts as absent everywhere: console exports are full of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from wirechamber.integrations.base import MASK, InvalidConfig
from wirechamber.jsontext import trouble
from wirechamber.model.ids import is_device_id
from wirechamber.model.names import MAX_PREFIX
from wirechamber.suggest import did_you_mean

MAX_LABEL = 256
# Headers, parameters and form fields, each.
MAX_FIELDS = 256
# Unknown fields for which a known one is looked for that is alike.
COMPARED = 20
_PORTS = {"http": 80, "https": 443}
_USERINFO = re.compile(r"(?<=//)([^/?#@:]{0,256}):([^/?#]{0,1024})@")
_TRUE = frozenset(("true", "1", "yes", "on"))
_FALSE = frozenset(("false", "0", "no", "off"))

EVENT = ("event", "eventName")
DEVICE = ("deviceID", "deviceid", "deviceId", "coreID")
# What answers carry and users send back with their file: read-only.
READ_ONLY = frozenset(
    ("id", "ok", "created_at", "updated_at", "hookUrl", "todayCounters", "logs", "errors", "counters", "warnings",
     "paused", "waiting", "failing", "failed_at", "last_error", "next_try_at", "hook", "hint")
)  # fmt: skip


class Common(Struct, frozen=True):
    """What every kind has. `rest` is what the kind itself reads."""

    event: str
    device: str | None
    name: str | None
    disabled: bool
    kind: object
    rest: dict[str, Any]


def common(settings: Mapping[str, Any], default_event: str | None = None) -> Common:
    """Takes out what every kind has.

    Args:
        default_event: What the kind listens to when nothing is said.

    Raises:
        InvalidConfig: The event is missing, or a value can't be used.
    """
    rest = {key: value for key, value in settings.items() if key not in READ_ONLY}
    event = text(rest, *EVENT) or default_event
    if event is None:
        raise InvalidConfig("event", "is required: the prefix of the event names that trigger it, such as temperature")
    if len(event) > MAX_PREFIX:
        raise InvalidConfig("event", f"may have at most {MAX_PREFIX} characters, not {len(event)}")
    device = text(rest, *DEVICE)
    if device is not None:
        # What is no id is a name, which whoever knows the owner's devices looks up.
        device = device.lower() if is_device_id(device.lower()) else device
    name = text(rest, "name")
    if name is not None and len(name) > MAX_LABEL:
        raise InvalidConfig("name", f"may have at most {MAX_LABEL} characters, not {len(name)}")
    disabled = boolean(rest, "disabled", default=False)
    kind = take(rest, "integration_type")
    return Common(event, device, name, disabled, kind, rest)


def unknown(rest: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """What is said of fields that nobody reads, and what may have been meant."""
    # Of a whole foreign document, only some are compared.
    return tuple(
        f"{name}: is not known{did_you_mean(name, known) if place < COMPARED else ''}; it is stored and does nothing"
        for place, name in enumerate(rest)
    )


def take(settings: dict[str, Any], *spellings: str) -> Any:
    """Takes the value out, under whatever spelling; None when absent or empty. The first spelling wins."""
    found: Any = None
    for spelling in spellings:
        value = settings.pop(spelling, None)
        if found is None and value not in (None, ""):
            found = value
    return found


def text(settings: dict[str, Any], *spellings: str) -> str | None:
    """A text; numbers are taken as their text.

    Raises:
        InvalidConfig: It is something else.
    """
    value = take(settings, *spellings)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise InvalidConfig(spellings[0], f"must be a text, not {kind_of(value)}")


def boolean(settings: dict[str, Any], *spellings: str, default: bool) -> bool:
    """A boolean, also as text or number, as forms send it.

    Raises:
        InvalidConfig: It is something else.
    """
    value = take(settings, *spellings)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    word = str(value).lower() if isinstance(value, str | int) else ""
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise InvalidConfig(spellings[0], "must be true or false")


def mapping(settings: dict[str, Any], name: str) -> dict[str, Any] | None:
    """An object; text that is a JSON object is taken as that, since forms can't send another.

    Raises:
        InvalidConfig: It is something else.
    """
    value = take(settings, name)
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as problem:
            why = trouble(value, problem)
            raise InvalidConfig(name, f"must be an object of names and values; it is no JSON: {why}") from None
    if value is None or value == {}:
        return None
    if not isinstance(value, dict):
        raise InvalidConfig(name, f"must be an object of names and values, not {kind_of(value)}")
    return value


def texts(settings: dict[str, Any], name: str) -> dict[str, str] | None:
    """An object of texts: what headers, query and form are; other scalars are taken as JavaScript prints them.

    Raises:
        InvalidConfig: It is something else.
    """
    value = mapping(settings, name)
    if value is None:
        return None
    if len(value) > MAX_FIELDS:
        raise InvalidConfig(name, f"may have at most {MAX_FIELDS} entries, not {len(value)}")
    return {key: _scalar(f"{name}.{key}", item) for key, item in value.items()}


def origin(url: str) -> str:
    """Scheme, host and port of a URL. Of one whose host, or what goes before it, is a template: the whole text."""
    authority = re.match(r"[^/?#]*//[^/?#]*", url)
    if authority is None or "{{" in authority[0]:
        return url
    try:
        parts = urlsplit(authority[0])
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return url
    return f"{parts.scheme}://{parts.hostname}:{port}"


def without_password(url: str) -> str:
    """The URL without the password of its user, if it has one (RFC 3986, section 3.2.1)."""
    if "@" not in url:
        return url
    end = re.search(r"[?#]|$", url)
    assert end is not None
    head = url[: end.start()]
    return _USERINFO.sub(lambda found: f"{found[1]}:{MASK}@", head) + url[len(head) :]


def kind_of(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list) else "an object"


def _scalar(field: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return msgspec.json.encode(value).decode()
    # Nested values come as their JSON, which is what a receiver can read again.
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    raise InvalidConfig(field, "must be a text")
