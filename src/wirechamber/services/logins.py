"""Guessing of passwords: who failed how often, and who must wait.

An attempt counts before the password is looked at, so many at once get no more guesses than one after the other, and is
given back when the password was right. Failures count for the network that they come from and for the account that
they were made at. A success forgives the failures at its own account, and no others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct, field

from wirechamber.errors import TooMany

# Failures at one account, from wherever, for each that one network has: somebody with many networks guesses no faster.
ACCOUNT_FACTOR = 2
# Networks, and accounts, that are watched; and as many again that must wait.
MAX_WATCHED = 10_000
# Networks from which an account was logged in to: others' guesses do not keep its owner out there.
MAX_KNOWN = 10_000


class _Entry(Struct):
    """The failures of one network or account since it was last without any.

    Attributes:
        last: When the last one was, in seconds of the monotonic clock.
        parts: Of how many of them which counterpart was part.
    """

    last: float
    parts: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.parts.total()


class _Failures:
    """Failures by key, the oldest first; who must wait is kept apart, so that new keys push none of those out."""

    def __init__(self, most: int, forget_s: float, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._forget_s = forget_s
        self._monotonic = monotonic
        self._watched: OrderedDict[str, _Entry] = OrderedDict()
        self._waiting: OrderedDict[str, _Entry] = OrderedDict()
        self.under_way: Counter[str] = Counter()

    def wait(self, key: str) -> float:
        """Seconds until it may try again; 0 for now."""
        entry = self._waiting.get(key) or self._watched.get(key)
        if entry is not None and self._monotonic() - entry.last >= self._forget_s:
            self._forget(key)
            entry = None
        count = 0 if entry is None else entry.count
        if entry is not None and count >= self._most:
            return entry.last + self._forget_s - self._monotonic()
        # Those under way may all turn out wrong; they are decided on in a moment.
        return 1.0 if count + self.under_way[key] >= self._most else 0.0

    def add(self, key: str, part: str) -> None:
        """One more."""
        entry = self._waiting.pop(key, None) or self._watched.pop(key, None) or _Entry(0.0)
        entry.last = self._monotonic()
        entry.parts[part] += 1
        table = self._waiting if entry.count >= self._most else self._watched
        table[key] = entry
        if len(table) > MAX_WATCHED:
            table.popitem(last=False)

    def forgive(self, key: str, part: str) -> None:
        """Those that a counterpart was part of did not happen."""
        entry = self._watched.get(key)
        if entry is not None:
            del entry.parts[part]
            if not entry.count:
                self._forget(key)

    def forget(self, key: str) -> None:
        """None of its happened."""
        self._forget(key)

    def _forget(self, key: str) -> None:
        self._watched.pop(key, None)
        self._waiting.pop(key, None)


class Attempt:
    """One attempt under way.

    Attributes:
        known: The account was logged in to from there before.
        failed: Set it when the password was wrong.
        right: Set it when the password was right. With neither it does not count.
    """

    def __init__(self, *, known: bool) -> None:
        self.known = known
        self.failed = False
        self.right = False


class Logins:
    """Counts attempts to log in.

    Args:
        failures: How many a network may have.
        block_s: How long it must wait then, and when failures are forgotten, in seconds.
        monotonic: The clock that never goes back.
    """

    def __init__(self, failures: int, block_s: float, monotonic: Callable[[], float]) -> None:
        self._networks = _Failures(failures, block_s, monotonic)
        self._accounts = _Failures(failures * ACCOUNT_FACTOR, block_s, monotonic)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    @contextmanager
    def attempt(self, network: str, account: str) -> Iterator[Attempt]:
        """Counts the attempt that is made in the block.

        Raises:
            TooMany: Network or account has too many failures; nothing was attempted.
        """
        pair = (network, account)
        made = Attempt(known=pair in self._known)
        wait = self._networks.wait(network)
        if not made.known:
            wait = max(wait, self._accounts.wait(account))
        if wait > 0:
            seconds = int(wait) + 1
            raise TooMany(f"too many failed logins; try again in {seconds} s", retry_after=seconds)
        under_way = ((self._networks.under_way, network), (self._accounts.under_way, account))
        for counts, key in under_way:
            counts[key] += 1
        try:
            yield made
        finally:
            for counts, key in under_way:
                counts[key] -= 1
                if not counts[key]:
                    del counts[key]
            if made.failed:
                self._networks.add(network, account)
                self._accounts.add(account, network)
            if made.right:
                self._networks.forgive(network, account)
                self._accounts.forget(account)
                self._known[pair] = None
                self._known.move_to_end(pair)
                if len(self._known) > MAX_KNOWN:
                    self._known.popitem(last=False)
