"""The courier: takes jobs from their lanes, performs their plans, and says what follows from each outcome."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct

from wirechamber.clock import SteadyClock
from wirechamber.delivery import policy, results, sound
from wirechamber.delivery.flight import Exchange
from wirechamber.delivery.index import Index, Trigger
from wirechamber.delivery.job import Job
from wirechamber.delivery.lanes import LaneKey, Lanes
from wirechamber.delivery.order import Order
from wirechamber.delivery.record import detail
from wirechamber.delivery.runner import Run, Runner
from wirechamber.delivery.settler import MAX_WAITING, Settled, Settler
from wirechamber.delivery.underway import UnderWay
from wirechamber.eventlog.base import Cursor
from wirechamber.integrations.base import (
    Context,
    Delivered,
    DeviceInfo,
    Misconfigured,
    NoResponse,
    Outcome,
    Plan,
    Refused,
    Response,
    Topics,
    TryLater,
)
from wirechamber.model.deliveries import Attempt, Delivery
from wirechamber.model.events import Event
from wirechamber.model.ids import derived_id
from wirechamber.observe.logs import Seldom
from wirechamber.observe.metrics import Metrics

_log = structlog.get_logger("wirechamber.delivery")

# Of one integration, so many deliveries wait in memory; further ones wait as rows. A slow target costs no memory.
MEMORY_PER_INTEGRATION = 512
MEMORY_TOTAL = 20_000
# A first attempt that has waited this long becomes a row, so that one slow target does not hold the cursor back.
AGING_MS = 5_000
# What the outbound client answers for requests that were running when it was closed.
CLOSED = "closed"
# A request that failed after this long had no answer: its target hangs.
SILENT_MS = 1_000
# So long plans are started in one turn of the loop.
SLICE_S = 0.005
# A delivery that must go by itself is looked at again after this while another one goes.
CAREFUL_WAIT_MS = 2_000
# Where jobs wait whose target could not be told.
ASTRAY = "?"
# What is said of a delivery that was put off for its target's sake.
QUIET = "waits because the target wants quiet"


class Pace(Struct, frozen=True):
    """How deliveries are made.

    Attributes:
        schedule: Seconds to wait before each attempt.
        answer_deadline_ms: After this the device is told that its delivery still fails.
    """

    schedule: tuple[float, ...]
    answer_deadline_ms: int


class Courier:
    """Makes deliveries.

    Args:
        index: The integrations.
        settler: Writes down what came of them.
        paused: Called with a trigger and the reason when its configuration can't work.
        under_way: Where it is noted what is attempted, for the case that this process does not live to tell.
        user_agent: What outgoing requests call themselves.
    """

    def __init__(
        self,
        *,
        index: Index,
        lanes: Lanes,
        runner: Runner,
        settler: Settler,
        pace: Pace,
        clock: SteadyClock,
        metrics: Metrics,
        paused: Callable[[Trigger, str], None],
        under_way: UnderWay,
        user_agent: str,
    ) -> None:
        self._index = index
        self._lanes = lanes
        self._runner = runner
        self._settler = settler
        self._pace = pace
        self._clock = clock
        self._metrics = metrics
        self._paused = paused
        self._under_way = under_way
        self._user_agent = user_agent
        self._loop = asyncio.get_running_loop()
        self._claimed: dict[str, Job] = {}
        self._running: dict[Job, None] = {}
        # Targets of integrations that want quiet, and until when (steady time).
        self._resting: dict[tuple[str, str], int] = {}
        self._order = Order()
        # The one delivery that goes while no other suspected one may.
        self._careful: str | None = None
        # Rows whose jobs stay in memory, where order counts.
        self._kept: set[str | None] = set()
        # Integrations of which a delivery was written down as held although they are active by now.
        self.revived: set[str] = set()
        self._faults = Seldom(_log)
        self._pump_due = False
        self._stopped = False
        self._waiters: list[asyncio.Future[None]] = []
        # Rows were written, or places became free for some that are due: there is something to fetch.
        self.rows_due = asyncio.Event()
        # Rows are due that could not be fetched for want of room.
        self.hungry = False
        self._just_settled: set[str] = set()

    # --- what comes in ---

    def new_job(self, trigger: Trigger, event: Event, cursor: Cursor) -> Job:
        """A delivery that was never attempted."""
        now = self._clock.steady()
        return Job(trigger, event, cursor, None, now, now + self._pace.answer_deadline_ms)

    def offer(self, job: Job) -> None:
        """Lines a new job up, or puts it aside as a row when too many wait in memory."""
        if self._under_way.any and self._suspected(job):
            return
        if self._lanes.held(job.integration) >= MEMORY_PER_INTEGRATION or self._lanes.waiting >= MEMORY_TOTAL:
            job.lane = self._lane_of(job)
            self._put_aside(job)
            return
        self._line_up(job)

    def resume(self, job: Job) -> None:
        """Lines up a delivery that a row kept and whose time has come."""
        self._claimed[job.delivery] = job
        if self._under_way.any and self._suspected(job):
            return
        self._line_up(job)

    def claimed(self, delivery: str) -> Job | None:
        """The job of a row that is in memory at present."""
        return self._claimed.get(delivery)

    @property
    def claims(self) -> int:
        """How many rows are in memory."""
        return len(self._claimed)

    def begin_fetch(self) -> None:
        """Rows are about to be read: from now on it is noted which ones change under the reader."""
        self._just_settled.clear()
        self.rows_due.clear()

    def may_resume(self, delivery: str) -> bool:
        """Whether a row that was read since `begin_fetch` is true still and not in memory."""
        return delivery not in self._claimed and delivery not in self._just_settled

    async def progress(self, timeout_s: float) -> bool:
        """Waits until a batch was settled; false when the time ran out first."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        done, _ = await asyncio.wait((waiter,), timeout=timeout_s)
        return bool(done)

    def full(self) -> list[str]:
        """The integrations for which no more rows should be fetched at present."""
        return self._lanes.integrations_holding(MEMORY_PER_INTEGRATION // 2)

    def age(self) -> None:
        """Puts first attempts that have waited too long aside as rows."""
        for job in self._lanes.draw(self._clock.steady() - AGING_MS):
            self._put_aside(job)

    def stop(self) -> None:
        """Starts no more jobs; those that run are settled as they end."""
        self._stopped = True

    def overdue(self, now: int) -> list[Job]:
        """First attempts under way past the moment at which their device must be told; later ones have a row."""
        return [job for job in self._running if not job.stored and not job.error_told and job.deadline_at <= now]

    def wake(self) -> None:
        """There may be rows to fetch that were not due before."""
        self.rows_due.set()

    def _progressed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def settled(self, batch: list[Settled]) -> None:
        """The settler has written a batch: there is room for more."""
        if self.hungry:
            self.rows_due.set()
        for item in batch:
            if item.upsert is not None and item.upsert.state != "dead":
                self.rows_due.set()
            if item.upsert is not None and item.upsert.state == "held":
                trigger = self._index.get(item.upsert.integration)
                if trigger is not None and trigger.ready:
                    self.revived.add(item.upsert.integration)
            settled = item.upsert.id if item.upsert is not None else item.remove
            if self._under_way.any and item.upsert is not None:
                self._written(item.upsert)
            if settled in self._kept:
                if item.upsert is not None and item.upsert.state == "waiting":
                    # Its row is written, and it waits in memory.
                    continue
                self._kept.discard(settled)
            if settled is not None:
                self._claimed.pop(settled, None)
                self._just_settled.add(settled)
        self._progressed()
        self._schedule_pump()

    # --- lanes ---

    def _put_aside(self, job: Job) -> None:
        job.stored = True
        mark, job.mark = job.mark, None
        due = self._clock.steady()
        if job.lane[2]:
            due = self._order.row(job.lane, due)
        self._settler.add(Settled(upsert=job.row("waiting", due), mark=mark))

    def _line_up(self, job: Job) -> None:
        job.lane = self._lane_of(job)
        if job.lane[2]:
            if job.stored:
                self._order.resumed(job.lane)
            elif self._order.behind(job.lane):
                self._put_aside(job)
                return
        elif self._resting and self._rests(job):
            return
        self._lanes.put(job)
        self._schedule_pump()

    def _lane_of(self, job: Job) -> LaneKey:
        job.fault = None
        target = order = ""
        self._under_way.look(job.delivery, job.integration)
        prepared, kind = job.trigger.prepared(), job.trigger.kind
        if kind is not None and not isinstance(prepared, Misconfigured):
            asked = "target"
            try:
                target = sound.lane_text(kind.target(job.event, prepared, self._context()), "target")
                asked = "order"
                order = sound.lane_text(kind.order(job.event, prepared), "order")
            except BaseException as problem:
                # Nothing was awaited: whatever it is, it is the kind's own.
                _log.debug("target_unknown", integration=job.integration, exc_info=True)
                job.fault = sound.told(problem, asked)
                target, order = ASTRAY, ""
        self._under_way.rests()
        return job.integration, target, order

    # --- deliveries that may have ended the process ---

    def _suspected(self, job: Job) -> bool:
        """Sees to a job that must not be lined up as others are; whether it is one."""
        why = self._under_way.verdict(job.delivery)
        if why is not None:
            self._set_aside(job, why)
            return True
        if not self._under_way.careful(job.delivery) or self._careful in (None, job.delivery):
            if self._under_way.careful(job.delivery):
                self._careful = job.delivery
            return False
        job.stored = True
        mark, job.mark = job.mark, None
        self._settler.add(Settled(upsert=job.row("waiting", self._clock.steady() + CAREFUL_WAIT_MS), mark=mark))
        return True

    def _set_aside(self, job: Job, why: str) -> None:
        """Gives a delivery up without asking its kind for anything."""
        now = self._clock.steady()
        job.number_started_at, job.number_began = self._clock.now(), self._clock.monotonic()
        told = self._default_topics(job)
        error = [] if job.error_told else [
            results.of_failure(job.event, job.integration, job.delivery, told, why, now)
        ]  # fmt: skip
        job.error_told = True
        attempt = self._attempt(job, None, Refused(why), 0, number=job.attempts + 1, final=True)
        job.attempts += 1
        _log.error("delivery_set_aside", delivery=job.delivery, integration=job.integration, owner=job.owner, why=why)
        self._metrics.delivery(job.trigger.record.kind, "dead")
        self._settler.add(Settled(events=error, attempt=attempt, upsert=job.row("dead", now, why), mark=job.mark))

    def _written(self, row: Delivery) -> None:
        if row.id == self._careful and row.id not in self._kept:
            self._careful = None
        if row.state == "dead":
            self._under_way.through(row.id)

    def _schedule_pump(self) -> None:
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        until = self._loop.time() + SLICE_S
        while not self._stopped and self._settler.waiting < MAX_WAITING:
            jobs = self._lanes.take()
            if jobs is None:
                return
            self._start(jobs)
            if self._loop.time() >= until:
                # Others of the loop have their turn in between.
                self._schedule_pump()
                return

    def _start(self, jobs: list[Job]) -> None:
        """Performs the plan of jobs that go together: all of one integration."""
        integration = jobs[0].integration
        trigger = self._index.get(integration)
        if trigger is None:
            self._lanes.release(jobs)
            for job in jobs:
                self._claimed.pop(job.delivery, None)
                self._settler.add(Settled(remove=job.delivery if job.stored else None, mark=job.mark))
            return
        now, began = self._clock.now(), self._clock.monotonic()
        if not trigger.ready:
            self._lanes.release(jobs)
            for job in jobs:
                job.stored = True
                row = job.row("held", self._clock.steady(), trigger.missing())
                self._settler.add(Settled(upsert=row, mark=job.mark))
            return
        for job in jobs:
            job.trigger = trigger
            job.number_started_at = now
            job.number_began = began
            self._running[job] = None
        slot = self._under_way.begin(integration, [job.delivery for job in jobs])
        self._under_way.runs(slot)
        if jobs[0].fault is not None:
            plan = _stillborn(sound.fault(jobs[0].fault), len(jobs))
        else:
            plan = self._plan(trigger, [job.event for job in jobs])
        self._runner.start(integration, plan, len(jobs), lambda run: self._attempted(jobs, run), slot, jobs[0].owner)

    def _plan(self, trigger: Trigger, events: list[Event], *, trial: bool = False) -> Plan:
        prepared = trigger.prepared()
        if isinstance(prepared, Misconfigured) or trigger.kind is None:
            return _stillborn(prepared, len(events))
        try:
            plan = trigger.kind.deliver(events, prepared, self._context(trial))
        except BaseException as problem:
            # Nothing was awaited: whatever it is, it is the kind's own.
            self._faults.warning("plan_failed", why=sound.raised(problem), integration=trigger.record.id, exc_info=True)
            return _stillborn(sound.fault(sound.told(problem, "deliver")), len(events))
        unsound = sound.plan_of(plan)
        return plan if unsound is None else _stillborn(sound.fault(unsound), len(events))

    def _context(self, trial: bool = False, device: DeviceInfo | None = None) -> Context:
        return Context(self._clock.now(), self._user_agent, trial=trial, device=device)

    # --- what came of an attempt ---

    def _attempted(self, jobs: list[Job], run: Run) -> None:
        """Takes what came of a plan: each of its jobs ends in a settlement, and their place is free again."""
        for job in jobs:
            del self._running[job]
            job.device = run.about.get(job.event.device or "")
        if self._stopped and _was_cut_short(run):
            # Not an attempt that the target can be blamed for; it is made again after the restart.
            self._under_way.end(run.slot)
            self._lanes.release(jobs)
            return
        # What the plan asked to remember is about the target, and written down once.
        remember = [(run.integration, key, value) for key, value in run.remember]
        again: list[Job] = []
        until = 0
        for place, (job, outcome) in enumerate(zip(jobs, run.outcomes, strict=True)):
            try:
                due = self._conclude(job, outcome, run, place, remember if place == 0 else [])
            except Exception as problem:
                _log.exception("conclusion_failed", integration=run.integration)
                due = None
                self._give_up(job, sound.fault(sound.raised(problem)).why)
            if due is not None and job.lane[2]:
                again.append(job)
                until = max(until, due)
            if self._under_way.any:
                self._went_through(job)
        # Only now: the names of results are the kind's work, too.
        self._under_way.end(run.slot)
        if again:
            self._keep_in_line(again, until)
        self._lanes.release(jobs, answered=_answered(run))
        self._schedule_pump()

    def _went_through(self, job: Job) -> None:
        if self._careful == job.delivery:
            self._careful = None
        self._under_way.through(job.delivery)

    def _give_up(self, job: Job, why: str) -> None:
        """The plainest settlement there is, when nothing better can be made of an attempt."""
        now = self._clock.steady()
        job.attempts += 1
        error = results.of_failure(job.event, job.integration, job.delivery, self._default_topics(job), why, now)
        self._metrics.delivery(job.trigger.record.kind, "dead")
        self._settler.add(Settled(events=[error], upsert=job.row("dead", now, why), mark=job.mark))

    def _keep_in_line(self, jobs: list[Job], until: int) -> None:
        """What failed where order counts stays in memory, in front of its lane, beside the row that keeps it."""
        for job in jobs:
            job.stored = True
            job.mark = None
            self._claimed[job.delivery] = job
            self._kept.add(job.delivery)
        lane = jobs[0].lane
        self._lanes.put_back(jobs)
        self._loop.call_later(max(0.0, (until - self._clock.steady()) / 1000), self._go_on, lane)

    def _go_on(self, lane: LaneKey) -> None:
        self._lanes.go_on(lane)
        self._schedule_pump()

    def _conclude(
        self, job: Job, outcome: Outcome, run: Run, place: int, remember: list[tuple[str, str, object]]
    ) -> int | None:
        """Writes down what came of one job; returns when it is tried again, if it is."""
        now = self._clock.steady()
        due: int | None = None
        verdict = policy.decide(
            outcome, job.attempts + 1, self._pace.schedule, now, random.random(), now - job.created_at  # noqa: S311
        )  # fmt: skip
        again = isinstance(verdict, policy.Again)
        counted = not isinstance(verdict, policy.Again) or verdict.counted
        why = _why(outcome)
        settled = Settled(remember=remember, mark=job.mark)
        if counted or run.exchanges:
            settled.attempt = self._attempt(job, run, outcome, place, number=job.attempts + 1, final=not again)
        job.attempts += counted
        match verdict:
            case policy.Done():
                assert isinstance(outcome, Delivered)
                settled.events = self._answered(job, outcome, now)
                settled.remove = job.delivery if job.stored else None
            case policy.Again(at):
                due = at
                settled.upsert = job.row("waiting", at, why)
                if isinstance(outcome, TryLater) and outcome.rest and not job.lane[2]:
                    self._rest(job, at)
            case policy.GivenUp():
                settled.events = self._tell_error(job, why or "", now)
                settled.upsert = job.row("dead", now, why)
            case policy.Paused():
                settled.events = self._tell_error(job, why or "", now)
                settled.upsert = job.row("held", now, why)
                self._paused(job.trigger, why or "")
        self._metrics.delivery(job.trigger.record.kind, _outcome_name(verdict))
        self._settler.add(settled)
        return due

    def _answered(self, job: Job, outcome: Delivered, now: int) -> list[Event]:
        if outcome.no_answer is not None:
            return self._tell_error(job, outcome.no_answer, now)
        return results.of_success(
            job.event, job.integration, job.delivery, self._topics(job), outcome.answer, now, late=job.error_told
        )

    # --- targets that want quiet ---

    def _rest(self, job: Job, until: int) -> None:
        """Sends nothing more to a job's target until then: what waits for it becomes rows that are due then."""
        target = job.lane[:2]
        if self._resting.get(target, 0) >= until:
            return
        if target not in self._resting:
            _log.info("target_rests", integration=job.integration, target=job.lane[1], until=until)
        self._resting[target] = until
        for waiting in self._lanes.empty((*target, "")):
            self._put_off(waiting, until)

    def _rests(self, job: Job) -> bool:
        """Puts a job off when its target wants quiet."""
        until = self._resting.get(job.lane[:2])
        if until is None:
            return False
        if until <= self._clock.steady():
            del self._resting[job.lane[:2]]
            return False
        self._put_off(job, until)
        return True

    def _put_off(self, job: Job, until: int) -> None:
        job.stored = True
        mark, job.mark = job.mark, None
        self._settler.add(Settled(upsert=job.row("waiting", until, QUIET), mark=mark))

    def _tell_error(self, job: Job, why: str, now: int) -> list[Event]:
        if job.error_told:
            return []
        job.error_told = True
        return [results.of_failure(job.event, job.integration, job.delivery, self._topics(job), why, now)]

    def topics(self, job: Job) -> Topics:
        """The names of a job's result events; the default ones when its own can't be rendered."""
        if self._under_way.any and self._under_way.verdict(job.delivery) is not None:
            return self._default_topics(job)
        self._under_way.look(job.delivery, job.integration)
        found = self._topics(job)
        self._under_way.rests()
        return found

    def _topics(self, job: Job) -> Topics:
        prepared, kind = job.trigger.prepared(), job.trigger.kind
        if kind is not None and not isinstance(prepared, Misconfigured):
            try:
                return sound.topics_of(
                    kind.topics(job.event, prepared, self._context(device=job.device)), self._default_topics(job)
                )
            except BaseException as problem:
                # Nothing was awaited: whatever it is, it is the kind's own.
                self._faults.warning("topics_failed", why=sound.raised(problem), integration=job.integration)
        return self._default_topics(job)

    @staticmethod
    def _default_topics(job: Job) -> Topics:
        name = job.event.name
        return Topics(f"hook-sent/{name}", f"hook-response/{name}", f"hook-error/{name}")

    def _attempt(self, job: Job, run: Run | None, outcome: Outcome, place: int, *, number: int, final: bool) -> Attempt:
        started = job.number_started_at
        exchanges: Sequence[Exchange] = () if run is None else run.exchanges
        last = exchanges[-1].reply if exchanges else None
        why = _why(outcome)
        return Attempt(
            id=derived_id(f"{started:012x}", job.delivery, number),
            delivery=job.delivery,
            integration=job.integration,
            owner=job.owner,
            event_id=job.event.id,
            event_name=job.event.name,
            device=job.event.device,
            coreid=job.event.coreid,
            number=number,
            started_at=started,
            duration_ms=int((self._clock.monotonic() - job.number_began) * 1000),
            ok=isinstance(outcome, Delivered),
            final=final,
            status=last.status if isinstance(last, Response) else None,
            why=why,
            detail=detail(exchanges, why, place, 1 if run is None else run.events),
        )

    # --- trying out ---

    async def try_out(self, trigger: Trigger, event: Event) -> Attempt:
        """Makes one delivery for the owner to look at: recorded and counted, but no results, no retry, no lane."""
        job = self.new_job(trigger, event, Cursor("0"))
        job.number_started_at = self._clock.now()
        job.number_began = self._clock.monotonic()
        ended: asyncio.Future[Run] = self._loop.create_future()
        slot = self._under_way.begin(job.integration, [job.delivery])
        self._under_way.runs(slot)
        plan = self._plan(trigger, [event], trial=True)
        self._runner.start(job.integration, plan, 1, ended.set_result, slot, job.owner)
        run = await asyncio.shield(ended)
        self._under_way.end(slot)
        attempt = self._attempt(job, run, run.outcomes[0], 0, number=1, final=True)
        remember = [(run.integration, key, value) for key, value in run.remember]
        self._settler.add(Settled(attempt=attempt, remember=remember))
        return attempt


def _stillborn(problem: Outcome, events: int) -> Plan:
    """The plan of an integration whose stored configuration, or whose kind, can't be used."""
    yield from ()
    return (problem,) * events


def _why(outcome: Outcome) -> str | None:
    return (outcome.no_answer or outcome.doubt) if isinstance(outcome, Delivered) else outcome.why


def _answered(run: Run) -> bool:
    """Whether the target gave an answer of any sort, if it was asked at all."""
    if not run.exchanges:
        return True
    last = run.exchanges[-1]
    return not isinstance(last.reply, NoResponse) or last.duration_ms < SILENT_MS


def _was_cut_short(run: Run) -> bool:
    return bool(run.exchanges) and getattr(run.exchanges[-1].reply, "why", None) == CLOSED


def _outcome_name(verdict: policy.Verdict) -> str:
    match verdict:
        case policy.Done():
            return "delivered"
        case policy.Again():
            return "retried"
        case policy.GivenUp():
            return "dead"
        case _:
            return "paused"
