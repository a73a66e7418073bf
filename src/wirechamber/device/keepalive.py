"""When a device says something although it has nothing to say, so that its cloud can reach it.

A NAT or a firewall lets in what the cloud sends for a while after the device has said something; for how long, nobody
tells (RFC 4787, section 4.3: 2 minutes at least, and many forget sooner). Four manners:

- A device that needs nothing from the cloud does not care: *queue mode*. What waits for it comes with its next word.
- One that was given a number of seconds pings after so much silence.
- Otherwise it *learns*. It asks the cloud to ping it after a silence that is twice as long as one that is known to be
  good. If the ping comes, the way in was open: twice as long is good, too. If it does not come, but an answer to the
  device's own ping does, the way in was shut: what was good before is good enough for a day, or, if that was tried,
  half of it. A time that is kept from the last run is where the next one begins.
- At the least time, and with a cloud that does not ping, it pings by itself.

So what the cloud sends gets through all the time but for one attempt, nothing swings, and no manner takes more than
pinging at the least time. Time is a clock that does not jump; what is kept needs none.
"""

from __future__ import annotations

import math

from msgspec import Struct

from wirechamber.protocols.deviceos.keepalive import MAX_LIFETIME_S, MIN_PING_S, KeepAlive

# Device OS on Wi-Fi, and over cellular (device-protocol.md, section 12): through the NATs of all its customers.
LEAST_S = 25.0
MOST_S = 23 * 60.0
# How long a device in queue mode may be silent, unless it is told otherwise.
LIFETIME_S = 86_400.0
LEAST_LIFETIME_S = 60
# A sign of life is given this much before the lifetime is over: as long as a message is repeated.
AHEAD_S = 90.0
# A ping that the cloud sends is repeated once within this time, so it is not just lost.
GRACE_S = 8.0
# Whoever speaks up so long after the cloud should have pinged has reason to doubt; twice in a row, to believe it.
LATE_S = 3.0
DOUBTS = 2
# A silence that is nearly as long as the one that was asked for shows as much.
NEARLY = 0.9
# An answer to a ping that had to be repeated shows that the network is bad, or the cloud was away: nothing about NATs.
PROMPT_S = 2.0
# What was too long is tried again after so many seconds in which less was good.
RETRY_S = 86_400.0
# A device that does what is due so late was asleep itself, and could hear nothing.
ASLEEP_S = 5.0


class Bounds(Struct, frozen=True):
    """Between these a device learns after how many seconds of silence it must be pinged."""

    least: float = LEAST_S
    most: float = MOST_S


class Learned(Struct, frozen=True):
    """What a device knows of the way back to it.

    Attributes:
        good: It is open for so many seconds after a word.
        shut: It was shut after so many; 0: it never was.
        since: For so many seconds in all, less than that has been good.
        where: The device's own address then; elsewhere, it may all be different.
    """

    good: float
    shut: float = 0.0
    since: float = 0.0
    where: str = ""

    def differs(self, other: Learned) -> bool:
        """Whether it is worth being written down."""
        return (self.good, self.shut, self.where) != (other.good, other.shut, other.where)


def bounds_of(keepalive: float | tuple[float, float] | None) -> Bounds | float:
    """What a program says of it: seconds, 0 for never; two bounds to learn between; None for the usual ones.

    Raises:
        ValueError: It makes no sense.
    """
    if keepalive is None:
        return Bounds()
    if isinstance(keepalive, tuple):
        least, most = keepalive
        if not MIN_PING_S <= least <= most <= LIFETIME_S:
            raise ValueError(f"keepalive: the least of two bounds is {MIN_PING_S} seconds, the most is a day")
        return Bounds(float(least), float(most))
    if not 0 <= keepalive <= LIFETIME_S:
        raise ValueError("keepalive is 0 for never, or up to a day in seconds")
    return float(keepalive)


def check_lifetime(lifetime: float | None) -> float | None:
    """The lifetime as it is.

    Raises:
        ValueError: It is shorter than a minute, or longer than a cloud waits.
    """
    if lifetime is not None and not LEAST_LIFETIME_S <= lifetime <= MAX_LIFETIME_S:
        raise ValueError(
            f"lifetime has {LEAST_LIFETIME_S} seconds at least, and {MAX_LIFETIME_S // 86_400} days at most"
        )
    return lifetime


class Contact:
    """Keeps in touch.

    Args:
        manner: Bounds to learn between, or seconds after which is pinged; 0: never.
        lifetime: Seconds of silence after which the cloud may take the device to be gone; None: it need not know, or
            learns it when the device is silent for the first time.
        learned: Of the last run.

    Attributes:
        learned: What is to be kept.
        listens: The device has something that the cloud may want of it.
        told: What the cloud acknowledged last; None: nothing.
    """

    def __init__(
        self, manner: Bounds | float, lifetime: float | None, learned: Learned | None, told: KeepAlive | None
    ) -> None:
        self._manner = manner
        self._lifetime = lifetime
        self._bounds = manner if isinstance(manner, Bounds) else None
        least, most = (manner.least, manner.most) if isinstance(manner, Bounds) else (0.0, 0.0)
        if learned is None:
            self.learned = Learned(least)
            self._aim = self._next()
        else:
            self.learned = Learned(min(max(learned.good, least), most), learned.shut, learned.since, learned.where)
            # Where it was left: whether more is good is found out from there.
            self._aim = self.learned.good if self.learned.good > least else self._next()
        self.listens = False
        self.told = told
        self._refused = False
        self._spoke = 0.0
        self._heard = 0.0
        self._missed: float | None = None
        self._doubts = 0

    # --- what happens ---

    def begin(self, where: str, now: float) -> None:
        """A connection begins, from this address of the device's own."""
        self._spoke = self._heard = now
        self._missed, self._doubts = None, 0
        if self._bounds is not None and where != self.learned.where:
            if self.learned.where:
                self.learned = Learned(self._bounds.least)
                self._aim = self._next()
            self.learned = Learned(self.learned.good, self.learned.shut, self.learned.since, where)

    def forgotten(self) -> None:
        """The cloud knows nothing of the device any more: it has a new session, or said Hello."""
        self.told = None
        self._refused = False

    def spoke(self, now: float) -> None:
        """The device sends something."""
        if self._awaits_ping and now - self._spoke > self._aim + LATE_S and self._missed is None:
            self._doubts += 1
            if self._doubts >= DOUBTS:
                self._shut()
        self._spoke = now

    def heard(self, now: float) -> None:
        """Something authentic came; told before anything is answered."""
        missed, self._missed = self._missed, None
        self._heard = now
        if self._awaits_ping and now - self._spoke >= NEARLY * self._aim:
            self._open()
        elif missed is not None and now - missed <= PROMPT_S:
            self._shut()

    def answered(self, told: KeepAlive, *, taken: bool) -> None:
        """The cloud has taken what it was told, or does not know what that is."""
        self.told = told if taken else None
        self._refused = not taken

    # --- what is to be done ---

    @property
    def wish(self) -> KeepAlive | None:
        """How the cloud is to see it; None: as it does anyway."""
        lifetime = None if self._lifetime is None else math.ceil(self._lifetime)
        if self.queues:
            return KeepAlive(math.ceil(self._silence), queue=True)
        if self._bounds is None:
            assert isinstance(self._manner, float)
            return KeepAlive(lifetime or math.ceil(self._manner)) if lifetime or self._manner > LEAST_S else None
        asking = self._asking(self._aim)
        return None if asking == KeepAlive() else asking

    def _asking(self, silence: float) -> KeepAlive:
        """Asks for a ping after a silence; at the least one, the device pings by itself."""
        assert self._bounds is not None
        lifetime = None if self._lifetime is None else math.ceil(self._lifetime)
        return KeepAlive(lifetime, ping=math.ceil(silence) if silence > self._bounds.least else None)

    @property
    def tells(self) -> KeepAlive | None:
        """What the cloud should be told at once; None: nothing that could not wait."""
        if not self._may_tell:
            return None
        if self.told is None or self.queues:
            # A program may offer functions and the like a moment after it has connected.
            return self.wish if self._lifetime is not None and self.told is None else None
        return self.wish or KeepAlive()

    @property
    def queues(self) -> bool:
        """Whether it is in queue mode."""
        return self._manner == 0.0 or (self._bounds is not None and not self.listens)

    def due(self) -> float:
        """When something must be said, if nothing is heard or said before; infinite: never."""
        if self._may_tell:
            return self._spoke + (LEAST_S if self._bounds is None else self._bounds.least)
        if self.queues:
            return self._spoke + max(self._silence - AHEAD_S, self._silence / 2)
        if self._bounds is None:
            assert isinstance(self._manner, float)
            return max(self._spoke, self._heard) + self._manner
        if self._awaits_ping:
            return self._spoke + self._aim + GRACE_S
        return self._spoke + self._bounds.least

    def act(self, now: float) -> KeepAlive | None:
        """What is due: telling the cloud this, or (None) a ping.

        Where the cloud's ping did not come, it is told what follows if the way in is shut: its answer shows that it is.
        """
        if self._may_tell:
            return self.wish or KeepAlive()
        if self._bounds is not None and self.listens and not self._awaits_ping:
            self._good_for(self._bounds.least)
        missed = self._awaits_ping and now - self.due() <= ASLEEP_S
        self._missed = now if missed else None
        # Whatever the answer shows, it shows by itself.
        self._doubts, self._spoke = 0, now
        return self._asking(self._less) if missed else None

    @property
    def _may_tell(self) -> bool:
        """Whether there is something to be told, instead of a ping."""
        return not self._refused and (self.wish or KeepAlive()) != (self.told or KeepAlive())

    @property
    def _awaits_ping(self) -> bool:
        """Whether the cloud is to ping."""
        return self.told is not None and self.told.ping is not None and self.told == self.wish

    @property
    def _silence(self) -> float:
        return LIFETIME_S if self._lifetime is None else self._lifetime

    # --- what is learned ---

    def _next(self) -> float:
        """What is tried next: twice what is good, or what is good where more is known to be too long."""
        assert self._bounds is not None or self.learned.good == 0.0
        good, shut = self.learned.good, self.learned.shut
        more = min(2 * good, self._bounds.most if self._bounds is not None else 0.0)
        return good if shut and more >= shut else more

    def _open(self) -> None:
        self._doubts = 0
        learned = self.learned
        self.learned = Learned(max(self._aim, learned.good), learned.shut, learned.since, learned.where)
        self._good_for(self._aim)

    def _good_for(self, seconds: float) -> None:
        """Less than what was too long was good once more; after a day that is tried again."""
        learned = self.learned
        since = learned.since + seconds if learned.shut else 0.0
        if since >= RETRY_S:
            self.learned = Learned(learned.good, where=learned.where)
        else:
            self.learned = Learned(learned.good, learned.shut, since, learned.where)
        if not self._refused:
            self._aim = self._next()

    def _shut(self) -> None:
        self._doubts = 0
        good = self._less
        self.learned = Learned(good, self._aim, 0.0, self.learned.where)
        self._aim = good

    @property
    def _less(self) -> float:
        """What is good if what is aimed at is not."""
        assert self._bounds is not None
        good = self.learned.good
        return good if self._aim > good else max(self._bounds.least, self._aim / 2)
