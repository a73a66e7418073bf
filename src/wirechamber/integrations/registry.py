"""The kinds of integration that this cloud offers: an object, so that two clouds may offer different ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any

from wirechamber.integrations.base import Integration, InvalidConfig

ENTRY_POINTS = "wirechamber.integrations"


class Registry:
    """Kinds by their name, in the order they were added.

    Args:
        kinds: One instance of each.
    """

    def __init__(self, kinds: Iterable[Integration[Any, Any]]) -> None:
        self._kinds = {kind.kind: kind for kind in kinds}

    def __iter__(self) -> Iterator[Integration[Any, Any]]:
        return iter(self._kinds.values())

    def get(self, kind: str) -> Integration[Any, Any] | None:
        """The kind of that exact name, or None."""
        return self._kinds.get(kind)

    def named(self, kind: object) -> Integration[Any, Any]:
        """The kind that a user named, in any letter case.

        Raises:
            InvalidConfig: There is none of that name.
        """
        for name, found in self._kinds.items():
            if isinstance(kind, str) and name.lower() == kind.lower():
                return found
        raise InvalidConfig("integration_type", f"must be one of {', '.join(self._kinds)}")


def third_party() -> list[Integration[Any, Any]]:
    """The kinds that installed packages add by entry point."""
    return [point.load()() for point in entry_points(group=ENTRY_POINTS)]
