"""Passwords: argon2id in a thread, never on the event loop."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from wirechamber.errors import BadInput

MIN_LENGTH = 8
MAX_LENGTH = 1024
# Each takes 64 MB and some 50 ms of a core.
AT_A_TIME = 2


def check_length(password: str) -> None:
    """Raises BadInput when it is too short or too long."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise BadInput(f"the password must have {MIN_LENGTH} to {MAX_LENGTH} characters")


class Passwords:
    """Hashes and verifies."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._slots = asyncio.Semaphore(AT_A_TIME)
        # What an unknown user's password is compared with, so that it takes as long as a known one's.
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """The hash to store.

        Raises:
            BadInput: It is too short or too long.
        """
        check_length(password)
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password is the one; with no stored hash it is not, and takes as long to say so."""
        if len(password) > MAX_LENGTH:
            return False
        if stored is None:
            if self._nobody is None:
                self._nobody = await asyncio.to_thread(self._hasher.hash, "nobody's password")
            await self._compare(self._nobody, password)
            return False
        return await self._compare(stored, password)

    async def _compare(self, stored: str, password: str) -> bool:
        async with self._slots:
            return await asyncio.to_thread(self._matches, stored, password)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
