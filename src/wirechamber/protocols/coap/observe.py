"""Observing (RFC 7641): a GET that goes on being answered. For peers that are no Device OS devices; those subscribe
without it (device-protocol.md, Q25).

`Observers` is the end that is observed. It makes the notifications; `Endpoint.send` sends them, with a tag by which
`Rejected` and `TimedOut` come back here. `Freshness` is the end that observes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from wirechamber.protocols.coap.message import Code, Message, Option, Type, uint

Subject = TypeVar("Subject")

# What one peer may observe at a time.
MAX_OBSERVATIONS = 32
REGISTER = 0
DEREGISTER = 1
# RFC 7641, section 4.4: sequence numbers have 24 bits.
_NUMBERS = 1 << 24
_HALF = 1 << 23
# RFC 7641, section 3.4: after so many seconds any number is newer.
_STALE = 128.0


def wish(request: Message) -> int | None:
    """What a GET says about observing: `REGISTER`, `DEREGISTER`, or None for anything else."""
    if request.code not in (Code.GET, Code.FETCH):
        return None
    value = request.uint(Option.OBSERVE)
    return value if value in (REGISTER, DEREGISTER) else None


class Observation(Generic[Subject]):
    """One peer's interest in one thing.

    Attributes:
        token: Of the request; every notification has it.
        subject: What is observed.
        number: Of the newest notification.
    """

    __slots__ = ("number", "subject", "token")

    def __init__(self, token: bytes, subject: Subject) -> None:
        self.token = token
        self.subject = subject
        self.number = 0


class Observers(Generic[Subject]):
    """What one peer observes here, by the token of its request (RFC 7641, section 4.1)."""

    __slots__ = ("_by_token",)

    def __init__(self) -> None:
        self._by_token: dict[bytes, Observation[Subject]] = {}

    def __len__(self) -> int:
        return len(self._by_token)

    def __iter__(self) -> Iterator[Observation[Subject]]:
        return iter(tuple(self._by_token.values()))

    def register(self, token: bytes, subject: Subject) -> Observation[Subject] | None:
        """Adds one. The same subject again, with another token too, takes the place of the earlier one.

        Returns:
            None when the peer observes as much as it may: then the request is answered as if it did not ask for more
            than one answer (RFC 7641, section 4.1).
        """
        for known in list(self._by_token.values()):
            if known.subject == subject and known.token != token:
                del self._by_token[known.token]
        if token not in self._by_token and len(self._by_token) >= MAX_OBSERVATIONS:
            return None
        old = self._by_token.get(token)
        observation = self._by_token[token] = Observation(token, subject)
        if old is not None:
            observation.number = old.number
        return observation

    def deregister(self, token: bytes) -> Subject | None:
        """Takes one away: by request, because a notification was rejected, or because it was not acknowledged."""
        observation = self._by_token.pop(token, None)
        return None if observation is None else observation.subject

    def notification(
        self,
        observation: Observation[Subject],
        payload: bytes,
        options: tuple[tuple[int, bytes], ...] = (),
        *,
        confirmable: bool = True,
    ) -> Message:
        """The next notification. One that must stay in order and may not be lost is confirmable."""
        observation.number = (observation.number + 1) % _NUMBERS
        kind = Type.CON if confirmable else Type.NON
        numbered = ((Option.OBSERVE.value, uint(observation.number)), *options)
        return Message(kind, Code.CONTENT.value, 0, observation.token, numbered, payload)


class Freshness:
    """Tells whether a notification is newer than what came before (RFC 7641, section 3.4)."""

    __slots__ = ("_at", "_number")

    def __init__(self) -> None:
        self._number: int | None = None
        self._at = 0.0

    def newer(self, notification: Message, now: float) -> bool:
        """Whether it is; if so, it is the newest from now on. One without a number always is."""
        number = notification.uint(Option.OBSERVE)
        if number is None:
            return True
        number %= _NUMBERS
        before = self._number
        if before is not None and not 0 < (number - before) % _NUMBERS < _HALF and now - self._at <= _STALE:
            return False
        self._number = number
        self._at = now
        return True
