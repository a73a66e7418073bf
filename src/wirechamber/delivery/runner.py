"""Performs the steps that a plan yields. The one place that knows how a step is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import structlog

from wirechamber.clock import Clock
from wirechamber.delivery import sound
from wirechamber.delivery.flight import Exchange, Place
from wirechamber.delivery.masks import masked, told, untold
from wirechamber.delivery.outbound import Outbound
from wirechamber.delivery.underway import UnderWay
from wirechamber.delivery.unpack import is_large, shortened, taken_in, takes_long
from wirechamber.integrations.base import (
    About,
    Allow,
    Call,
    Compute,
    DeviceInfo,
    Granted,
    Outcome,
    Plan,
    Recall,
    Refused,
    Remember,
    Step,
    Token,
)
from wirechamber.observe.logs import Seldom
from wirechamber.observe.tasks import Tasks
from wirechamber.services.beside import computed
from wirechamber.store.base import Store

_log = structlog.get_logger("wirechamber.delivery")
_NOT_AT_HAND: Any = object()

# A plan that never ends would hold its lane for ever. One for many events may take one step more for each.
MAX_STEPS = 32
MAX_CACHED_TOKENS = 10_000
# A token is renewed this long before it ends, so that it lasts for the request it is wanted for.
TOKEN_MARGIN_S = 60.0
# What plans remember, such as one value for each device: so many of the values used last are kept at hand.
MAX_KEPT_VALUES = 50_000
MAX_VALUE_BYTES = 16_384
MAX_BUCKETS = 10_000
# What a device tells of itself changes no revision of the store: so long, an older version may be told.
DEVICES_KEPT_S = 10.0


class Run:
    """One plan being performed.

    Attributes:
        exchanges: The requests made and what came of each.
        remember: What the plan asked to keep, by key; stored when the delivery is settled.
        about: What it was told of devices, by id.
        events: How many the plan is for.
        outcomes: One for each, when the plan has ended.
        slot: Its place in the notes of what is under way; 0 for none.
        owner: Whose integration it is.
        places: Of its large answers.
    """

    __slots__ = (
        "about", "done", "ended", "events", "exchanges", "integration", "outcomes", "owner", "places", "plan",
        "remember", "slot", "steps",
    )  # fmt: skip

    def __init__(
        self, integration: str, plan: Plan, events: int, done: Callable[[Run], None], slot: int = 0, owner: str = ""
    ) -> None:
        self.integration = integration
        self.owner = owner
        self.plan = plan
        self.events = events
        self.done = done
        self.exchanges: list[Exchange] = []
        self.remember: list[tuple[str, Any]] = []
        self.about: dict[str, DeviceInfo | None] = {}
        self.outcomes: Sequence[Outcome] = ()
        self.places: list[Place] = []
        self.slot = slot
        self.steps = 0
        self.ended = False


class Runner:
    """Performs plans.

    Args:
        outbound: Sends requests.
        store: Keeps what plans remember, and what is known of devices.
        tasks: Runs what a plan must wait for.
        under_way: Notes whose code runs; None where nobody looks, as in tests.
    """

    def __init__(
        self, outbound: Outbound, store: Store, clock: Clock, tasks: Tasks, under_way: UnderWay | None = None
    ) -> None:
        self._outbound = outbound
        self._store = store
        self._deliveries = store.deliveries
        self._devices: dict[str, DeviceInfo | None] = {}
        self._devices_of = -1
        self._devices_until = 0.0
        self._clock = clock
        # What owners of integrations were granted, as of a revision of the store.
        self._granted: dict[str, frozenset[str]] = {}
        self._granted_of = -1
        self._values: dict[tuple[str, str], Any] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}
        self._making: dict[tuple[str, str], asyncio.Future[str]] = {}
        self._tasks = tasks
        self._computing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way = under_way
        self._faults = Seldom(_log)

    def start(
        self, integration: str, plan: Plan, events: int, done: Callable[[Run], None], slot: int = 0, owner: str = ""
    ) -> None:
        """Performs a plan of so many events; `done` is called with the run when it has ended, maybe at once.

        Args:
            slot: The plan's place in the notes of what is under way.
            owner: Whose integration it is; what takes long is done for each owner one after the other.
        """
        self._advance(Run(integration, plan, events, done, slot, owner), None)

    def forget(self, integrations: Iterable[str]) -> None:
        """Drops the cached tokens and values of integrations whose configuration has changed."""
        changed = set(integrations)
        for cache in (self._tokens, self._values, self._buckets):
            for key in [key for key in cache if key[0] in changed]:
                del cache[key]

    def _advance(self, run: Run, reply: Any) -> None:
        """Goes on with a plan. Whatever its code does wrong, the run ends with outcomes, and nothing is raised."""
        under_way = self._under_way
        if under_way is not None:
            under_way.runs(run.slot)
        try:
            outcomes = self._steps(run, reply)
        except StopIteration as stop:
            outcomes = stop.value
        except BaseException as problem:
            # A kind's own fault must cost its delivery a retry, and nobody else anything. Nothing is awaited here, so
            # an exit or a cancellation is the kind's own, too.
            self._faults.warning("plan_failed", why=sound.raised(problem), integration=run.integration, exc_info=True)
            outcomes = sound.fault(str(problem) if isinstance(problem, sound.Unsound) else sound.raised(problem))
        if outcomes is not _NOT_AT_HAND:
            self._end(run, outcomes)
        if under_way is not None:
            under_way.rests()

    def _steps(self, run: Run, reply: Any) -> Any:
        """Performs the steps that need no waiting; returns the outcomes, or `_NOT_AT_HAND` when it must wait."""
        while True:
            run.steps += 1
            if run.steps > MAX_STEPS + run.events:
                return Refused(f"the plan took more than {MAX_STEPS} steps")
            step = run.plan.send(reply)
            if isinstance(step, Call):
                problem = sound.request_problem(step.request)
                if problem is not None:
                    return sound.fault(problem)
                self._outbound.send(step.request, partial(self._called, run), run.owner)
                return _NOT_AT_HAND
            if not isinstance(step, Step):
                return sound.fault(f"the plan yielded {type(step).__name__} in place of a step")
            reply = self._at_once(run, step)
            if reply is _NOT_AT_HAND:
                self._tasks.spawn(self._answer(run, step), "plan-look-up")
                return _NOT_AT_HAND

    def _at_once(self, run: Run, step: Any) -> Any:
        """The reply to a step that can be had without waiting, or `_NOT_AT_HAND`."""
        match step:
            case Remember(key, value):
                if type(key) is not str or not sound.small_json(value, MAX_VALUE_BYTES):
                    raise sound.Unsound(f"to remember is a text and at most {MAX_VALUE_BYTES} bytes of JSON")
                run.remember.append((key, value))
                return None
            case Recall(key):
                return self._at_hand(run, key)
            case Token():
                return self._cached(run, step)
            case About(device):
                if self._store.revision() == self._devices_of and self._clock.monotonic() < self._devices_until:
                    found = self._devices.get(device, _NOT_AT_HAND)
                    if found is not _NOT_AT_HAND:
                        run.about[device] = found
                    return found
            case Granted(permission):
                if self._store.revision() == self._granted_of and run.integration in self._granted:
                    return permission in self._granted[run.integration]
            case Allow(key):
                return self._allow((run.integration, key), step)
        return _NOT_AT_HAND

    async def _may(self, integration: str, permission: str) -> bool:
        """Whether the operator granted this to the owner of an integration."""
        revision = self._store.revision()
        if revision != self._granted_of or len(self._granted) >= MAX_KEPT_VALUES:
            self._granted.clear()
            self._granted_of = revision
        record = await self._store.integrations.get(integration)
        user = None if record is None else await self._store.users.get(record.owner)
        granted = frozenset(() if user is None else user.permissions)
        if revision == self._granted_of:
            self._granted[integration] = granted
        return permission in granted

    async def _about(self, device_id: str) -> DeviceInfo | None:
        revision = self._store.revision()
        now = self._clock.monotonic()
        if revision != self._devices_of or now >= self._devices_until or len(self._devices) >= MAX_KEPT_VALUES:
            self._devices.clear()
            self._devices_of = revision
            self._devices_until = now + DEVICES_KEPT_S
        device = await self._store.devices.get(device_id)
        if device is None:
            info = None
        else:
            version = device.firmware_version
            firmware = None if version is None else str(version)
            info = DeviceInfo(device.name, firmware, device.product_id, device.owner)
        if revision == self._devices_of:
            self._devices[device_id] = info
        return info

    def _at_hand(self, run: Run, key: str) -> Any:
        for known, value in reversed(run.remember):
            if known == key:
                return value
        where = (run.integration, key)
        if where not in self._values:
            return _NOT_AT_HAND
        # Last in line to be dropped.
        value = self._values[where] = self._values.pop(where)
        return value

    def _keep(self, integration: str, key: str, value: Any) -> None:
        self._values.pop((integration, key), None)
        while len(self._values) >= MAX_KEPT_VALUES:
            del self._values[next(iter(self._values))]
        self._values[integration, key] = value

    def _allow(self, key: tuple[str, str], step: Allow) -> float:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets.clear()
            bucket = self._buckets[key] = Bucket(float(step.burst), self._passed_ms())
        return bucket.take(step, self._passed_ms())

    def _passed_ms(self) -> int:
        return int(self._clock.monotonic() * 1000)

    def _called(self, run: Run, exchange: Exchange) -> None:
        if exchange.place is not None:
            run.places.append(exchange.place)
        if takes_long(exchange):
            self._tasks.spawn(self._take_in(run, exchange), "large-answer")
            return
        try:
            exchange = masked(taken_in(exchange))
        except Exception as problem:
            self._not_taken_in(run, problem)
            return
        run.exchanges.append(exchange)
        self._advance(run, exchange.reply)

    async def _take_in(self, run: Run, exchange: Exchange) -> None:
        """Takes a large answer in: looking for secrets in it takes milliseconds for each."""
        try:
            exchange = await self._computed(run, lambda: masked(taken_in(exchange)))
        except Exception as problem:
            self._not_taken_in(run, problem)
            return
        if not run.places and is_large(exchange):
            place = self._outbound.place(run.owner)
            if place is None:
                exchange = shortened(exchange)
            else:
                run.places.append(place)
        run.exchanges.append(exchange)
        self._advance(run, exchange.reply)

    async def _computed(self, run: Run, work: Callable[[], Any]) -> Any:
        """What takes long, beside the loop: whoever wants much of it waits for himself."""
        async with self._computing.setdefault(run.owner, asyncio.Lock()):
            return await computed(work)

    def _not_taken_in(self, run: Run, problem: Exception) -> None:
        _log.exception("masking_failed", integration=run.integration)
        self._end(run, sound.fault(sound.raised(problem)))

    def _end(self, run: Run, outcomes: Any) -> None:
        if run.ended:
            return
        run.ended = True
        run.outcomes = sound.outcomes_of(outcomes, run.events)
        for key, value in run.remember:
            self._keep(run.integration, key, value)
        try:
            run.plan.close()
        except BaseException:
            # It would not end; it is not asked any more.
            _log.debug("plan_not_closed", integration=run.integration, exc_info=True)
        run.done(run)
        for place in run.places:
            place.give_back()

    async def _answer(self, run: Run, step: Any) -> None:
        reply: Any
        try:
            if isinstance(step, Recall):
                reply = await self._deliveries.recall(run.integration, step.key)
                # While this was read, another run may have remembered something newer.
                if (run.integration, step.key) not in self._values:
                    self._keep(run.integration, step.key, reply)
                reply = self._values[run.integration, step.key]
            elif isinstance(step, About):
                reply = run.about[step.device] = await self._about(step.device)
            elif isinstance(step, Granted):
                reply = await self._may(run.integration, step.permission)
            elif isinstance(step, Compute):
                reply = await self._computed(run, step.work)
            else:
                reply = await self._token(run, step)
        except TokenRefused as refused:
            self._end(run, refused.outcome)
            return
        except Exception as problem:
            why = sound.raised(problem)
            self._faults.warning("plan_look_up_failed", why=why, integration=run.integration, exc_info=True)
            self._end(run, sound.fault(sound.raised(problem)))
            return
        self._advance(run, reply)

    def _cached(self, run: Run, step: Token) -> Any:
        token = self._tokens.get((run.integration, step.key))
        if token is not None and token[1] > self._clock.monotonic() and token[0] != step.instead_of:
            return token[0]
        return _NOT_AT_HAND

    async def _token(self, run: Run, step: Token) -> str:
        key = (run.integration, step.key)
        # Another one may have made it since this was asked for.
        cached = self._cached(run, step)
        if cached is not _NOT_AT_HAND:
            return str(cached)
        making = self._making.get(key)
        if making is not None:
            return await asyncio.shield(making)
        making = self._making[key] = asyncio.get_running_loop().create_future()
        try:
            token, lifetime = await self._perform(run, step)
            until = self._clock.monotonic() + float(lifetime) - TOKEN_MARGIN_S
        except Exception as problem:
            making.set_exception(problem)
            making.exception()  # those who wait get it; if nobody does, it was raised here
            raise
        finally:
            del self._making[key]
        if len(self._tokens) >= MAX_CACHED_TOKENS:
            self._tokens.clear()
        self._tokens[key] = (token, until)
        making.set_result(token)
        return token

    async def _perform(self, run: Run, token: Token) -> tuple[str, float]:
        plan: Generator[Any, Any, Any] | None = None
        reply: Any = None
        secrets: tuple[str, ...] = ()
        for _ in range(MAX_STEPS):
            if self._under_way is not None:
                self._under_way.runs(run.slot)
            try:
                plan = plan or token.plan()
                step = plan.send(reply)
            except StopIteration as stop:
                if isinstance(stop.value, tuple):
                    return stop.value
                raise TokenRefused(told(stop.value, secrets)) from None
            except Exception:
                raise
            except BaseException as problem:
                # Nothing was awaited: it is the kind's own.
                raise TokenRefused(sound.fault(sound.raised(problem))) from None
            finally:
                if self._under_way is not None:
                    self._under_way.rests()
            if isinstance(step, Call):
                unsound = sound.request_problem(step.request)
                if unsound is not None:
                    raise TokenRefused(sound.fault(unsound))
                exchange = taken_in(await self._outbound.exchange(step.request, run.owner))
                if exchange.place is not None:
                    run.places.append(exchange.place)
                # The plan must see the token; nobody else may.
                run.exchanges.append(untold(exchange))
                secrets += step.request.secrets
                reply = exchange.reply
            elif isinstance(step, Recall):
                reply = await self._deliveries.recall(run.integration, step.key)
            elif isinstance(step, Compute):
                reply = await computed(step.work)
            else:
                raise TokenRefused(Refused("a token's plan may only call, recall and compute"))
        raise TokenRefused(Refused(f"the token's plan took more than {MAX_STEPS} steps"))


class Bucket:
    """How often something was done lately (a token bucket).

    Args:
        full: What it holds at first, and at most.
        now: Milliseconds of a clock that never goes back.
    """

    __slots__ = ("_at", "_left")

    def __init__(self, full: float, now: int) -> None:
        self._left = full
        self._at = now

    def take(self, step: Allow, now: int) -> float:
        """Takes one and returns 0.0, or says in how many seconds there will be one."""
        per_ms = step.per_minute / 60_000
        self._left = min(float(step.burst), self._left + max(0, now - self._at) * per_ms)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / per_ms / 1000


class TokenRefused(Exception):
    """The plan for a token ended with an outcome in place of a token."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome
