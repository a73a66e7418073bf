"""Shares of a bounded room: whoever holds most gives way first, so a flood from one side shuts nobody else out."""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from functools import lru_cache
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)

# A household or a hosting customer gets a /64 at least (RFC 6177, section 2), so its addresses are one client's.
IPV6_PREFIX = 64
IPV4_PREFIX = 32
# Whoever rents one address can easily rent its neighbours: for what anybody may begin without saying who they are.
IPV4_NEIGHBOURS = 24


@lru_cache(maxsize=4096)
def network_of(address: str, ipv4_prefix: int = IPV4_PREFIX) -> str:
    """The network that an address counts for: IPv6 by /64, IPv4 by itself or by `ipv4_prefix` bits.

    Args:
        address: As sockets and proxies write it: with brackets, a port or a zone, or IPv4 within IPv6.
        ipv4_prefix: How many leading bits of an IPv4 address count.

    Returns:
        The network's first address; text that is no address is one network of its own, `""`.
    """
    bare = bare_address(address)
    if not bare:
        return ""
    found = ipaddress.ip_address(bare)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Address(int(found) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX)))
    return str(ipaddress.IPv4Address(int(found) >> (32 - ipv4_prefix) << (32 - ipv4_prefix)))


@lru_cache(maxsize=4096)
def bare_address(address: str) -> str:
    """An address without brackets, port and zone, IPv4 taken out of IPv6; empty for text that is none."""
    text = address.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)


def neighbours_of(address: str) -> str:
    """The network that an unknown address counts for together with its neighbours: IPv6 by /64, IPv4 by /24."""
    return network_of(address, IPV4_NEIGHBOURS)


class Shares(Generic[Item]):
    """Items by whoever holds them, the oldest first; a holder may belong to a group, such as a wider network.

    Every call takes constant time, however many holders there are.

    Args:
        room: How many items there may be in all.
        each: How many one holder may have; None for no bound but `room`.
    """

    __slots__ = ("_each", "_groups", "_held", "_members", "_places", "_room")

    def __init__(self, room: int, each: int | None = None) -> None:
        self._room = room
        self._each = room if each is None else each
        self._held: dict[str, dict[Item, None]] = {}
        # The holder and the group of each item.
        self._places: dict[Item, tuple[str, str]] = {}
        self._groups = _Ranking()
        self._members: dict[str, _Ranking] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, item: object) -> bool:
        return item in self._places

    def held(self, holder: str) -> int:
        """How many items a holder has."""
        return len(self._held.get(holder, ()))

    def add(self, holder: str, item: Item, group: str | None = None) -> Item | None:
        """Takes an item in as the holder's newest; returns the item that gave way and is not held any more, if any.

        It is the holder's own oldest when its share is full. When the room is full, it is the oldest of whoever holds
        most in the group that holds most; never the new one.

        Args:
            group: What the holder belongs to, always the same one; None: it stands for itself.
        """
        group = holder if group is None else group
        self.discard(item)
        out: Item | None = None
        if self.held(holder) >= self._each:
            out = next(iter(self._held[holder]))
        elif len(self._places) >= self._room:
            out = self._gives_way(holder, group)
        if out is not None:
            self.discard(out)
        self._held.setdefault(holder, {})[item] = None
        self._places[item] = holder, group
        self._groups.change(group, 1)
        self._members.setdefault(group, _Ranking()).change(holder, 1)
        return out

    def discard(self, item: Item) -> bool:
        """Forgets an item; returns whether it was held."""
        place = self._places.pop(item, None)
        if place is None:
            return False
        holder, group = place
        items, members = self._held[holder], self._members[group]
        del items[item]
        if not items:
            del self._held[holder]
        self._groups.change(group, -1)
        members.change(holder, -1)
        if not members:
            del self._members[group]
        return True

    def first_to_go(self) -> Item | None:
        """The item that gives way next: the oldest of whoever holds most; None when there is none."""
        return self._gives_way() if self._places else None

    def _gives_way(self, holder: str | None = None, group: str | None = None) -> Item:
        """What goes when a holder gets one more item, which counts already."""
        most = self._groups.most(group)
        members = self._members[most]
        return next(iter(self._held[members.most(holder if most == group else None)]))


class _Ranking:
    """How many each has, and who has most."""

    __slots__ = ("_by_count", "_counts", "_top")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._by_count: dict[int, dict[str, None]] = {}
        self._top = 0

    def __bool__(self) -> bool:
        return bool(self._counts)

    def change(self, name: str, by: int) -> None:
        """Somebody has one more or one less."""
        before = self._counts.get(name, 0)
        now = before + by
        if before:
            peers = self._by_count[before]
            del peers[name]
            if not peers:
                del self._by_count[before]
        if now:
            self._counts[name] = now
            self._by_count.setdefault(now, {})[name] = None
        else:
            del self._counts[name]
        # A count changes by one, so the highest does, too.
        if now > self._top or (before == self._top and before not in self._by_count):
            self._top = now

    def most(self, newcomer: str | None = None) -> str:
        """Who has most, if the newcomer had one more."""
        if newcomer is not None and self._counts.get(newcomer, 0) + 1 > self._top:
            return newcomer
        return next(iter(self._by_count[self._top]))
