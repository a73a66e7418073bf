"""Lanes: deliveries of one integration to one target host wait in line, and owners are served in turn.

Concurrency is bounded here, before libcurl, so that a request's time-out starts with the request. In memory only; what
must outlive the process is a row.

A lane's places follow what its target does with them: it begins with a few, each answer gives it one more, up to the
operator's bound, and a target that hangs leaves it one, by which it is seen when it answers again. Before that is
known, each lane may take no more than its owner has left, so however many of an owner's targets hang at once, there is
a place for the next one; the last places are for lanes that have none.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Sequence

from wirechamber.delivery.job import Job
from wirechamber.integrations.base import Batch

_SINGLE = Batch()
# Places of a lane whose target has not answered yet.
FIRST_PLACES = 4
# A lane in which something runs and nothing was answered for so long is silent …
SILENT_S = 1.0
# … and of an owner's places, such lanes have this part at most, together.
SILENT_PART = 4
# Part of an owner's places that only lanes have in which nothing runs.
RESERVED_PART = 8
# Jobs of a silent lane that rows are read for: it gets through few.
SILENT_JOBS = 16
# Lanes without jobs that are remembered for what their targets did.
MAX_IDLE = 4_096
# Integration, target, and what must be kept in order (empty when nothing must).
LaneKey = tuple[str, str, str]


class Lane:
    """Jobs of one integration for one target.

    Args:
        at_once: Plans of it that may run at a time, at most.

    Attributes:
        places: Plans of it that may run at a time, as its target answers at present.
        silent: Its target hangs.
        heard: When its target answered last, or when something began to run after a pause.
    """

    __slots__ = (
        "at_once", "batch", "heard", "key", "owner", "paused", "places", "queue", "ready", "running", "silent",
    )  # fmt: skip

    def __init__(self, key: LaneKey, owner: str, at_once: int, batch: Batch) -> None:
        self.key = key
        self.owner = owner
        self.at_once = at_once
        self.places = min(at_once, FIRST_PLACES)
        self.batch = batch
        self.queue: deque[Job] = deque()
        self.running = 0
        self.ready = False
        self.paused = False
        self.silent = False
        self.heard = 0.0


class _Owner:
    """What an owner's lanes do.

    Attributes:
        ready: Lanes that may start something, in turn; those whose targets hang are apart.
        in_turn: It is in the line of owners.
    """

    __slots__ = ("in_turn", "ready", "running", "silent_ready", "silent_running")

    def __init__(self) -> None:
        self.ready: deque[Lane] = deque()
        self.silent_ready: deque[Lane] = deque()
        self.running = 0
        self.silent_running = 0
        self.in_turn = False


class Lanes:
    """All lanes, and whose turn it is.

    Args:
        per_lane: Plans of one lane that may run at a time.
        total: Plans that may run at a time, all lanes together.
        single: Integrations whose jobs do not go together.
        clock: Seconds since some fixed moment.
    """

    def __init__(
        self,
        per_lane: int,
        total: int,
        single: Container[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_lane = per_lane
        self._total = total
        self._single = single
        self._clock = clock
        self._lanes: dict[LaneKey, Lane] = {}
        # Of these, the ones in which nothing waits or runs, the longest idle first.
        self._idle: dict[LaneKey, None] = {}
        self._owners: dict[str, _Owner] = {}
        self._turns: deque[str] = deque()
        self._held: dict[str, int] = {}
        self.running = 0
        self.waiting = 0

    def put(self, job: Job) -> None:
        """Lines a job up; `job.lane` says where."""
        lane = self._lanes.get(job.lane)
        if lane is None:
            lane = self._lanes[job.lane] = self._new_lane(job)
        elif not lane.queue and not lane.running:
            self._idle.pop(job.lane, None)
        lane.queue.append(job)
        self.waiting += 1
        self._held[job.integration] = self._held.get(job.integration, 0) + 1
        self._make_ready(lane)

    def take(self) -> list[Job] | None:
        """The next jobs that may run, in one plan, or None. They count as one running until `release`.

        An owner may have as many running as there are places left: alone half of all, and less the more owners there
        are. So however many targets of however many owners hang, there is a place for the next one.
        """
        left = self._total - self.running
        if left <= 0:
            return None
        now = self._clock()
        for _ in range(len(self._turns)):
            name = self._turns.popleft()
            owner = self._owners[name]
            if owner.running < left:
                lane = self._choose(owner, (left - owner.running + 1) // 2, now)
                if lane is not None:
                    return self._take(name, owner, lane, now)
            if owner.ready or owner.silent_ready:
                self._turns.append(name)
            else:
                self._out_of_turn(name, owner)
        return None

    def _choose(self, owner: _Owner, left: int, now: float) -> Lane | None:
        """The owner's lane whose turn it is.

        Args:
            left: Places that the owner may still take.
        """
        bound = self._total // 2
        reserved = left <= bound // RESERVED_PART
        for _ in range(len(owner.ready)):
            lane = owner.ready.popleft()
            if lane.running and not lane.silent and now - lane.heard > SILENT_S:
                self._fall_silent(lane, owner)
            if lane.silent:
                lane.ready = False
                self._make_ready(lane)
                continue
            if lane.running and (reserved or lane.running >= left):
                # It goes on when something of the owner's ends.
                owner.ready.append(lane)
                continue
            return lane
        if owner.silent_ready and owner.silent_running < max(1, bound // SILENT_PART):
            return owner.silent_ready.popleft()
        return None

    def _take(self, name: str, owner: _Owner, lane: Lane, now: float) -> list[Job]:
        jobs = [lane.queue.popleft()]
        if lane.batch.events > 1:
            _gather(lane, jobs)
        if not lane.running:
            lane.heard = now
        lane.running += 1
        owner.running += 1
        owner.silent_running += lane.silent
        self.running += 1
        self.waiting -= len(jobs)
        lane.ready = False
        if lane.queue:
            self._make_ready(lane)
        if owner.ready or owner.silent_ready:
            self._turns.append(name)
        else:
            owner.in_turn = False
        return jobs

    def release(self, jobs: Sequence[Job], *, answered: bool = True) -> None:
        """Jobs that were taken together do not run any more.

        Args:
            answered: The target gave an answer, whatever it said; otherwise it hangs.
        """
        self.running -= 1
        first = jobs[0]
        for job in jobs:
            self._forget(job)
        lane = self._lanes[first.lane]
        owner = self._owners[first.owner]
        owner.running -= 1
        owner.silent_running -= lane.silent
        lane.running -= 1
        if answered:
            lane.heard = self._clock()
            if lane.silent:
                self._speak(lane, owner)
            if lane.places < lane.at_once:
                lane.places += 1
        elif not lane.silent:
            self._fall_silent(lane, owner)
        if lane.queue:
            self._make_ready(lane)
        elif not lane.running:
            self._rest(lane)
        if not owner.running and not owner.in_turn:
            del self._owners[first.owner]

    def _fall_silent(self, lane: Lane, owner: _Owner) -> None:
        lane.silent = True
        lane.places = 1
        owner.silent_running += lane.running
        if lane.ready and lane in owner.ready:
            owner.ready.remove(lane)
            owner.silent_ready.append(lane)

    def _speak(self, lane: Lane, owner: _Owner) -> None:
        lane.silent = False
        owner.silent_running -= lane.running
        if lane.ready and lane in owner.silent_ready:
            owner.silent_ready.remove(lane)
            owner.ready.append(lane)

    def _rest(self, lane: Lane) -> None:
        """Nothing waits or runs in a lane: it is remembered for a while."""
        self._idle[lane.key] = None
        if len(self._idle) > MAX_IDLE:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._lanes[oldest]

    def empty(self, key: LaneKey) -> list[Job]:
        """Takes out all jobs that wait in a lane."""
        lane = self._lanes.get(key)
        if lane is None or not lane.queue:
            return []
        drawn = list(lane.queue)
        lane.queue.clear()
        self._drawn(drawn)
        return drawn

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Puts jobs that run to the front of their lane, in their order; it starts nothing before `go_on`."""
        lane = self._lanes[jobs[0].lane]
        lane.queue.extendleft(reversed(jobs))
        lane.paused = True
        if lane.ready:
            self._unready(lane)
        self.waiting += len(jobs)
        for job in jobs:
            self._held[job.integration] += 1

    def go_on(self, key: LaneKey) -> None:
        """Ends a lane's pause."""
        lane = self._lanes.get(key)
        if lane is None or not lane.paused:
            return
        lane.paused = False
        if lane.queue:
            self._make_ready(lane)
        elif not lane.running:
            self._rest(lane)

    def held(self, integration: str) -> int:
        """How many jobs of an integration wait or run."""
        return self._held.get(integration, 0)

    def integrations_holding(self, count: int) -> list[str]:
        """The integrations of which at least so many jobs wait or run, or a few of a target that hangs."""
        full = {integration for integration, held in self._held.items() if held >= count}
        for lane in self._lanes.values():
            if lane.silent and len(lane.queue) >= SILENT_JOBS:
                full.add(lane.key[0])
        return list(full)

    def draw(self, before: int) -> list[Job]:
        """Takes out the jobs without a row that have waited since before a moment (milliseconds since 1970)."""
        drawn: list[Job] = []
        for lane in self._lanes.values():
            # In line by age but for the ones that rows brought back, so a look at the first is enough to skip.
            if not lane.queue or (lane.queue[0].created_at >= before and not lane.queue[0].stored):
                continue
            old = [job for job in lane.queue if not job.stored and job.created_at < before]
            if old and lane.key[2]:
                # Where order counts, younger ones follow: they must not overtake.
                old = [job for job in lane.queue if not job.stored]
            gone = set(old)
            lane.queue = deque(job for job in lane.queue if job not in gone)
            drawn += old
        self._drawn(drawn)
        return drawn

    def _drawn(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.waiting -= 1
            self._forget(job)
        for lane in [lane for lane in self._lanes.values() if lane.ready and not lane.queue]:
            self._unready(lane)

    def _new_lane(self, job: Job) -> Lane:
        kind = job.trigger.kind
        batch = _SINGLE if kind is None or job.integration in self._single else kind.batch
        # What is kept in order goes one plan after the other.
        at_once = 1 if job.lane[2] else min(self._per_lane, kind.batch.plans if kind is not None else 1_000)
        return Lane(job.lane, job.owner, at_once, batch)

    def _make_ready(self, lane: Lane) -> None:
        if lane.ready or lane.paused or lane.running >= lane.places:
            return
        owner = self._owners.get(lane.owner)
        if owner is None:
            owner = self._owners[lane.owner] = _Owner()
        lane.ready = True
        (owner.silent_ready if lane.silent else owner.ready).append(lane)
        if not owner.in_turn:
            owner.in_turn = True
            self._turns.append(lane.owner)

    def _unready(self, lane: Lane) -> None:
        """Takes a lane out of its owner's line; the owner gives its own turn up when it comes."""
        lane.ready = False
        owner = self._owners[lane.owner]
        (owner.silent_ready if lane.silent else owner.ready).remove(lane)
        if not lane.running and not lane.queue:
            self._rest(lane)

    def _out_of_turn(self, name: str, owner: _Owner) -> None:
        owner.in_turn = False
        if not owner.running:
            del self._owners[name]

    def _forget(self, job: Job) -> None:
        held = self._held[job.integration] - 1
        if held:
            self._held[job.integration] = held
        else:
            del self._held[job.integration]


def _gather(lane: Lane, jobs: list[Job]) -> None:
    """Lets more of those that wait go with the first."""
    queue, batch = lane.queue, lane.batch
    room = batch.bytes
    while queue and len(jobs) < batch.events:
        # Characters for bytes: the bound is far below what a target takes.
        room -= len(queue[0].event.data or "")
        if room < 0:
            return
        jobs.append(queue.popleft())
