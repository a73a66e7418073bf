"""What devices told, as it is stored: a row that can't be read is taken for one that is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Told = TypeVar("Told")


def readable(decode: Callable[[str], Told], text: Any) -> Told | None:
    """What a device told; None if it told nothing, or nothing that can be read."""
    try:
        return None if text is None else decode(text)
    except (ValueError, TypeError):
        return None
