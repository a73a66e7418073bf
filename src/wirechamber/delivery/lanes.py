"""Lanes: deliveries of one integration to one target host wait in line, and owners are served in turn.

Concurrency is bounded here, before libcurl, so that a request's time-out starts with the request. A slow target fills
its own lane and nobody else's. In memory only; what must outlive the process is a row.
"""

from __future__ import annotations

from collections import deque

from wirechamber.delivery.job import Job

LaneKey = tuple[str, str]


class Lane:
    """Jobs of one integration for one target."""

    __slots__ = ("key", "owner", "queue", "ready", "running")

    def __init__(self, key: LaneKey, owner: str) -> None:
        self.key = key
        self.owner = owner
        self.queue: deque[Job] = deque()
        self.running = 0
        self.ready = False


class Lanes:
    """All lanes, and whose turn it is.

    Args:
        per_lane: Jobs of one lane that may run at a time.
        total: Jobs that may run at a time, all lanes together.
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
            lane = self._lanes[job.lane] = Lane(job.lane, job.owner)
        lane.queue.append(job)
        self.waiting += 1
        self._held[job.integration] = self._held.get(job.integration, 0) + 1
        self._make_ready(lane)

    def take(self) -> Job | None:
        """The next job that may run, or None. It counts as running until `release`.

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

    def _take(self, owner: str) -> Job:
        lanes = self._ready[owner]
        lane = lanes.popleft()
        job = lane.queue.popleft()
        lane.running += 1
        self.running += 1
        self.waiting -= 1
        if lane.queue and lane.running < self._per_lane:
            lanes.append(lane)
        else:
            lane.ready = False
        if lanes:
            self._turns.append(owner)
        else:
            del self._ready[owner]
        return job

    def release(self, job: Job) -> None:
        """A job that was taken does not run any more."""
        self.running -= 1
        running = self._running_of[job.owner] - 1
        if running:
            self._running_of[job.owner] = running
        else:
            del self._running_of[job.owner]
        self._forget(job)
        lane = self._lanes[job.lane]
        lane.running -= 1
        if lane.queue:
            self._make_ready(lane)
        elif not lane.running:
            del self._lanes[job.lane]

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
            kept = deque(job for job in lane.queue if job.stored or job.created_at >= before)
            drawn += [job for job in lane.queue if not job.stored and job.created_at < before]
            lane.queue = kept
        for job in drawn:
            self.waiting -= 1
            self._forget(job)
        for lane in [lane for lane in self._lanes.values() if lane.ready and not lane.queue]:
            self._unready(lane)
        return drawn

    def _make_ready(self, lane: Lane) -> None:
        if lane.ready or lane.running >= self._per_lane:
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
