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


class Shares(Generic[Item]):
    """Items by whoever holds them, the oldest first.

    Every call takes constant time, however many holders there are.

    Args:
        room: How many items there may be in all.
        each: How many one holder may have; None for no bound but `room`.
    """

    __slots__ = ("_by_count", "_each", "_held", "_holder", "_most", "_room")

    def __init__(self, room: int, each: int | None = None) -> None:
        self._room = room
        self._each = room if each is None else each
        self._held: dict[str, dict[Item, None]] = {}
        self._holder: dict[Item, str] = {}
        # Holders by how many items they have, and the highest such number.
        self._by_count: dict[int, dict[str, None]] = {}
        self._most = 0

    def __len__(self) -> int:
        return len(self._holder)

    def __contains__(self, item: object) -> bool:
        return item in self._holder

    def held(self, holder: str) -> int:
        """How many items a holder has."""
        return len(self._held.get(holder, ()))

    def first_to_go(self) -> Item | None:
        """The oldest item of whoever holds most; None when nothing is held."""
        return next(iter(self._held[next(iter(self._by_count[self._most]))])) if self._most else None

    def add(self, holder: str, item: Item) -> Item | None:
        """Takes an item in as the holder's newest; returns the item that gave way and is not held any more, if any.

        It is the holder's own oldest when its share is full, and the oldest of whoever holds most when the room is;
        never the new one.
        """
        self.discard(item)
        out: Item | None = None
        if self.held(holder) >= self._each:
            out = next(iter(self._held[holder]))
        elif len(self._holder) >= self._room:
            # The newcomer's own holder counts as if it had the new item already.
            most = holder if self.held(holder) + 1 > self._most else next(iter(self._by_count[self._most]))
            out = next(iter(self._held[most])) if most in self._held else None
        if out is not None:
            self.discard(out)
        items = self._held.setdefault(holder, {})
        items[item] = None
        self._holder[item] = holder
        self._moved(holder, len(items) - 1, len(items))
        return out

    def discard(self, item: Item) -> bool:
        """Forgets an item; returns whether it was held."""
        holder = self._holder.pop(item, None)
        if holder is None:
            return False
        items = self._held[holder]
        del items[item]
        if not items:
            del self._held[holder]
        self._moved(holder, len(items) + 1, len(items))
        return True

    def _moved(self, holder: str, before: int, now: int) -> None:
        if before:
            peers = self._by_count[before]
            del peers[holder]
            if not peers:
                del self._by_count[before]
        if now:
            self._by_count.setdefault(now, {})[holder] = None
        # A count changes by one, so the highest does, too.
        if now > self._most or (before == self._most and before not in self._by_count):
            self._most = now
