"""Passwords: argon2id in a thread, never on the event loop, and a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from wirechamber.errors import BadInput, TooMany
from wirechamber.shares import Shares

MIN_LENGTH = 8
MAX_LENGTH = 1024
# Each takes 64 MB and some 50 ms of a core.
AT_A_TIME = 2
# What may wait for its turn, in all and of one network; one more is told at once to come again.
MAX_WAITING = 20
MAX_WAITING_EACH = 4
RETRY_AFTER_S = 2


def check_length(password: str) -> None:
    """Raises BadInput when it is too short or too long."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise BadInput(f"the password must have {MIN_LENGTH} to {MAX_LENGTH} characters")


class Turns:
    """Whose turn it is, of those who want one of a few places.

    Args:
        places: How many are used at a time.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._shares: Shares[asyncio.Future[None]] = Shares(MAX_WAITING, MAX_WAITING_EACH)
        # First those who are known to be right usually, and then everybody else, in the order in which they came.
        self._known: dict[asyncio.Future[None], None] = {}
        self._others: dict[asyncio.Future[None], None] = {}

    @asynccontextmanager
    async def turn(self, holder: str, *, known: bool = False) -> AsyncIterator[None]:
        """Holds a place within the block.

        Args:
            holder: Whose share of those that wait it counts for.
            known: Goes before others.

        Raises:
            TooMany: Too many wait.
        """
        if self._free:
            self._free -= 1
        else:
            await self._waited(holder, self._known if known else self._others)
        try:
            yield
        finally:
            self._next()

    async def _waited(self, holder: str, queue: dict[asyncio.Future[None], None]) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue[mine] = None
        out = self._shares.add(holder, mine)
        if out is not None and not out.done():
            out.set_exception(
                TooMany("too many log in at this moment; try again in a moment", retry_after=RETRY_AFTER_S)
            )
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                # It was told that it is its turn, and does not want it any more.
                self._next()
            raise
        finally:
            queue.pop(mine, None)
            self._shares.discard(mine)

    def _next(self) -> None:
        for queue in (self._known, self._others):
            for waiting in queue:
                if not waiting.done():
                    waiting.set_result(None)
                    return
        self._free += 1


class Passwords:
    """Hashes and verifies."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._turns = Turns(AT_A_TIME)
        # What an unknown user's password is compared with, so that it takes as long as a known one's.
        self._nobody: str | None = None

    async def hash(self, password: str, holder: str = "") -> str:
        """The hash to store.

        Args:
            holder: Whose share of the work it is.

        Raises:
            BadInput: It is too short or too long.
            TooMany: Too many wait for theirs.
        """
        check_length(password)
        async with self._turns.turn(holder):
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str, holder: str = "", *, known: bool = False) -> bool:
        """Whether the password is the one; with no stored hash it is not, and takes as long to say so.

        Args:
            holder: Whose share of the work it is.
            known: Goes before others who wait.

        Raises:
            TooMany: Too many wait for theirs.
        """
        if len(password) > MAX_LENGTH:
            return False
        async with self._turns.turn(holder, known=known):
            return await asyncio.to_thread(self._matches, stored, password)

    def _matches(self, stored: str | None, password: str) -> bool:
        if stored is None:
            if self._nobody is None:
                self._nobody = self._hasher.hash("nobody's password")
            self._compares(self._nobody, password)
            return False
        return self._compares(stored, password)

    def _compares(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
