"""Identifiers: 32 lower-case hex digits, ordered by the time they were made.

A *derived* id is a function of what it stands for, so making it twice gives the same id, and appending the same
result event twice stores it once.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re

# Milliseconds since 1970 in 48 bits, as in a UUID of version 7 (RFC 9562, section 5.7).
TIME_DIGITS = 12

# Random per process, then counted: as unguessable as needed for a name (never for a secret) and cheap.
_node = os.urandom(6).hex()
_count = itertools.count(int.from_bytes(os.urandom(3), "big"))

DEVICE_ID = re.compile(r"[0-9a-f]{24}")


def new_id(now: int) -> str:
    """A fresh id.

    Args:
        now: Milliseconds since 1970-01-01 UTC.
    """
    return f"{now & 0xFFFFFFFFFFFF:012x}{next(_count) & 0xFFFFFFFF:08x}{_node}"


def derived_id(parent: str, *parts: object) -> str:
    """The id of something that follows from `parent`, the same each time; keeps the parent's place in time."""
    text = "\x00".join([parent, *map(str, parts)])
    return parent[:TIME_DIGITS] + hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def is_device_id(text: str) -> bool:
    """Whether the text is a device id, 24 lower-case hex digits (cloud-api.md, section 1)."""
    return DEVICE_ID.fullmatch(text) is not None
