"""The kinds of integration that this cloud offers: an object, so that two clouds may offer different ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any

import structlog

from wirechamber.integrations.base import Integration, InvalidConfig

_log = structlog.get_logger("wirechamber.integrations")
ENTRY_POINTS = "wirechamber.integrations"


class Registry:
    """Kinds by their name, in the order they were added.

    Args:
        kinds: One instance of each. Of two with the same name the first counts: no package replaces what comes with
            Wirechamber.
    """

    def __init__(self, kinds: Iterable[Integration[Any, Any]]) -> None:
        self._kinds: dict[str, Integration[Any, Any]] = {}
        for kind in kinds:
            if self._kinds.setdefault(kind.kind, kind) is not kind:
                _log.error("kind_left_out", kind=kind.kind, why="there is one of that name already")

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


def missing_kind(name: str, kind: Integration[Any, Any] | None) -> str | None:
    """Why a kind can't be used here, if it can't: its package, or something that it needs, is not installed."""
    if kind is None:
        return f"the kind {name} is not installed here"
    return kind.unavailable


def third_party() -> list[Integration[Any, Any]]:
    """The kinds that installed packages add by entry point. One that can't be loaded is left out, and said so."""
    found: list[Integration[Any, Any]] = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            kind = point.load()()
            if not isinstance(kind, Integration):
                raise TypeError(f"{point.value} is no Integration")
            # Reads the declaration: a mistake in it shows here, and not at the first user's.
            kind.declaration.schema()
        except Exception as problem:
            _log.error("kind_left_out", kind=point.name, why=f"{type(problem).__name__}: {problem}")
        else:
            found.append(kind)
    return found
