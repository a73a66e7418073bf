"""Bodies that come in blocks and are not complete yet: bounded in bytes, all devices together."""

from __future__ import annotations

from collections import Counter

from wirechamber.gateway.link import Link

# 256 bodies of the largest size. A device is in the middle of four at most (`protocols.coap.blockwise`).
MAX_BYTES = 16 * 1024 * 1024


class Blocks:
    """How much is held, by owner. When it is too much, the oldest of the owner who holds most is forgotten.

    Attributes:
        forgotten: How often that happened: those devices begin anew.
    """

    def __init__(self) -> None:
        self._held: dict[str, dict[Link, int]] = {}
        self._owner: dict[Link, str] = {}
        self._bytes: Counter[str] = Counter()
        self._total = 0
        self.forgotten = 0

    def holds(self, link: Link, owner: str, size: int) -> None:
        """So many bytes of a device's are held now."""
        self.forget(link)
        if not size:
            return
        self._held.setdefault(owner, {})[link] = size
        self._owner[link] = owner
        self._bytes[owner] += size
        self._total += size
        while self._total > MAX_BYTES and len(self._owner) > 1:
            most = max(self._bytes, key=self._bytes.__getitem__)
            oldest = next((each for each in self._held[most] if each is not link), None)
            if oldest is None:
                # The newcomer alone holds more than anybody else.
                oldest = link
            oldest.parts = None
            self.forget(oldest)
            self.forgotten += 1

    def forget(self, link: Link) -> None:
        """Nothing of a device's is held any more."""
        owner = self._owner.pop(link, None)
        if owner is None:
            return
        size = self._held[owner].pop(link)
        self._total -= size
        self._bytes[owner] -= size
        if not self._held[owner]:
            del self._held[owner]
            del self._bytes[owner]
