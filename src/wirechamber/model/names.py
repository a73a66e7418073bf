"""Rules for event names and data (cloud-api.md, section 4, names and sizes)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from wirechamber.errors import BadInput

MAX_NAME = 64
MAX_PREFIX = 64
# Of one stream: each is one more comparison for every event that is looked at.
MAX_PREFIXES = 32
# A response topic may hold a device id and an event name; the results' names are ours, so they may be longer.
MAX_RESULT_NAME = 256
# The largest that Device OS 6.3 publishes.
MAX_DATA_BYTES = 16_384
DEFAULT_TTL = 60
MAX_TTL = 16_777_215

# Between devices and this cloud, or from this cloud to whoever reads a stream: whoever could publish one would pretend
# to be one of them.
RESERVED = ("spark/", "particle/", "wirechamber/")
_FIRST_LETTERS = frozenset((" ", *(letter for name in RESERVED for letter in (name[0], name[0].upper()))))

_PRINTABLE_ASCII = re.compile(r"[\x20-\x7e]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def check_name(name: object) -> str:
    """The name of an event as published through the API.

    A line break would break the framing of streams, so only printable ASCII passes; blanks and punctuation do.

    Raises:
        BadInput: It is no text, empty, too long, or holds other characters.
    """
    if not isinstance(name, str) or not name:
        raise BadInput("name is required: the event's name, 1 to 64 ASCII characters", error="name is required")
    if len(name) > MAX_NAME:
        raise BadInput(f"name is too long: {len(name)} characters, at most {MAX_NAME} are allowed")
    if not _PRINTABLE_ASCII.fullmatch(name):
        raise BadInput("name may hold printable ASCII characters only (no line breaks, no accents)")
    return name


def is_name(name: str) -> bool:
    """Whether an event may have this name, wherever it comes from."""
    return 0 < len(name) <= MAX_NAME and name.isascii() and name.isprintable()


def is_reserved(name: str) -> bool:
    """Whether only this cloud, and devices' firmware, make events of such a name; in any letter case (cloud-api.md,
    section 4), and behind blanks, which readers of streams take away."""
    # Most names are told by their first letter.
    return name[:1] in _FIRST_LETTERS and name.lstrip(" ").lower().startswith(RESERVED)


def check_not_reserved(name: str) -> str:
    """The name of an event that a user wants to publish.

    Raises:
        BadInput: It is reserved.
    """
    if is_reserved(name):
        raise BadInput(f"names that begin with {', '.join(RESERVED)} are reserved; choose another for {name[:64]!r}")
    return name


def result_name(rendered: str) -> str:
    """A name that an integration's template gave, made safe for the framing of streams and bounded."""
    return _CONTROL.sub(" ", rendered)[:MAX_RESULT_NAME]


def check_prefixes(prefixes: Iterable[str]) -> str | tuple[str, ...]:
    """The prefixes by which a stream filters: one, or several of which none begins with another.

    Raises:
        BadInput: They are too many, or one is longer than any event name.
    """
    given = sorted({check_prefix(prefix) for prefix in prefixes})
    if len(given) > MAX_PREFIXES:
        raise BadInput(f"there are {len(given)} event prefixes, at most {MAX_PREFIXES} are allowed; use a common one")
    # In this order, one that begins with another comes after it, and after nothing but such.
    kept: list[str] = []
    for prefix in given:
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return tuple(kept) if len(kept) > 1 else "".join(kept)


def check_prefix(prefix: str) -> str:
    """The prefix by which a stream filters.

    Raises:
        BadInput: It is longer than any event name.
    """
    if len(prefix) > MAX_PREFIX:
        raise BadInput(f"the event prefix is too long: {len(prefix)} characters, at most {MAX_PREFIX} are allowed")
    return prefix
