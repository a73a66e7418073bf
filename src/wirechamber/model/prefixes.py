"""Which of many prefixes a name begins with, at a cost that does not grow with those it does not begin with."""

from __future__ import annotations

from typing import Generic, TypeVar

Member = TypeVar("Member")


class Prefixes(Generic[Member]):
    """Members by prefix, case-sensitive.

    Prefixes are kept in one table for each length that occurs, so a look-up asks one table per length: at most 64
    (the length of a name), however many prefixes there are.
    """

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        self._tables: dict[int, dict[str, dict[Member, None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._tables)

    def add(self, prefix: str, member: Member) -> None:
        """Puts a member under a prefix; doing so twice is allowed."""
        self._tables.setdefault(len(prefix), {}).setdefault(prefix, {})[member] = None

    def discard(self, prefix: str, member: Member) -> None:
        """Takes a member away from a prefix; it need not be there."""
        table = self._tables.get(len(prefix))
        members = None if table is None else table.get(prefix)
        if table is None or members is None:
            return
        members.pop(member, None)
        if not members:
            del table[prefix]
            if not table:
                del self._tables[len(prefix)]

    def match(self, name: str) -> list[Member]:
        """The members under every prefix of the name; one that is under several comes as often."""
        found: list[Member] = []
        for length, table in self._tables.items():
            members = table.get(name[:length])
            # A name that is shorter than the prefix is its own beginning.
            if members is not None and length <= len(name):
                found += members
        return found
