"""Lanes: deliveries of one integration to one target host wait in line, and owners are served in turn.

Concurrency is bounded here, before libcurl, so that a request's time-out starts with the request. A slow target fills
its own lane and nobody else's. In memory only; what must outlive the process is a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from wirechamber.delivery.job import Job
from wirechamber.integrations.base import Batch

_SINGLE = Batch()
# Integration, target, and what must be kept in order (empty when nothing must).
LaneKey = tuple[str, str, str]


class Lane:
    """Jobs of one integration for one target.

    Args:
        at_once: Plans of it that may run at a time.
    """

    __slots__ = ("at_once", "batch", "key", "owner", "paused", "queue", "ready", "running")

    def __init__(self, key: LaneKey, owner: str, at_once: int, batch: Batch) -> None:
        self.key = key
        self.owner = owner
        self.at_once = at_once
        self.batch = batch
        self.queue: deque[Job] = deque()
        self.running = 0
        self.ready = False
        self.paused = False


class Lanes:
    """All lanes, and whose turn it is.

    Args:
        per_lane: Plans of one lane that may run at a time.
        total: Plans that may run at a time, all lanes together.
    """

    def __init__(self, per_lane: int, total: int) -> None:
        self._per_lane = per_lane
        self._total = total
        self._lanes: dict[LaneKey, Lane] = {}
        self._ready: dict[str, deque[Lane]] = {}
        self._turns: deque[str] = deque()
        self._held: dict[str, int] = {}
        self._running_of: dict[str, int] = {}
        self.running = 0
        self.waiting = 0

    def put(self, job: Job) -> None:
        """Lines a job up; `job.lane` says where."""
        lane = self._lanes.get(job.lane)
        if lane is None:
            lane = self._lanes[job.lane] = self._new_lane(job)
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
        if not left:
            return None
        for _ in range(len(self._turns)):
            owner = self._turns.popleft()
            running = self._running_of.get(owner, 0)
            if running < left:
                self._running_of[owner] = running + 1
                return self._take(owner)
            self._turns.append(owner)
        return None

    def _take(self, owner: str) -> list[Job]:
        lanes = self._ready[owner]
        lane = lanes.popleft()
        jobs = [lane.queue.popleft()]
        if lane.batch.events > 1:
            _gather(lane, jobs)
        lane.running += 1
        self.running += 1
        self.waiting -= len(jobs)
        if lane.queue and lane.running < lane.at_once:
            lanes.append(lane)
        else:
            lane.ready = False
        if lanes:
            self._turns.append(owner)
        else:
            del self._ready[owner]
        return jobs

    def release(self, jobs: Sequence[Job]) -> None:
        """Jobs that were taken together do not run any more."""
        self.running -= 1
        first = jobs[0]
        running = self._running_of[first.owner] - 1
        if running:
            self._running_of[first.owner] = running
        else:
            del self._running_of[first.owner]
        for job in jobs:
            self._forget(job)
        lane = self._lanes[first.lane]
        lane.running -= 1
        if lane.queue:
            self._make_ready(lane)
        elif not lane.running:
            del self._lanes[first.lane]

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
            del self._lanes[key]

    def held(self, integration: str) -> int:
        """How many jobs of an integration wait or run."""
        return self._held.get(integration, 0)

    def integrations_holding(self, count: int) -> list[str]:
        """The integrations of which at least so many jobs wait or run."""
        return [integration for integration, held in self._held.items() if held >= count]

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
        batch = _SINGLE if kind is None else kind.batch
        # What is kept in order goes one plan after the other.
        at_once = 1 if job.lane[2] else min(self._per_lane, batch.plans)
        return Lane(job.lane, job.owner, at_once, batch)

    def _make_ready(self, lane: Lane) -> None:
        if lane.ready or lane.paused or lane.running >= lane.at_once:
            return
        lane.ready = True
        ready = self._ready.get(lane.owner)
        if ready is None:
            self._ready[lane.owner] = deque((lane,))
            self._turns.append(lane.owner)
        else:
            ready.append(lane)

    def _unready(self, lane: Lane) -> None:
        lane.ready = False
        ready = self._ready[lane.owner]
        ready.remove(lane)
        if not ready:
            del self._ready[lane.owner]
            self._turns.remove(lane.owner)
        if not lane.running:
            del self._lanes[lane.key]

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
