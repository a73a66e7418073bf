"""Performs the steps that a plan yields. The one place that knows how a step is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any

import structlog

from wirechamber.clock import Clock
from wirechamber.delivery.outbound import Exchange, Outbound
from wirechamber.integrations.base import (
    Call,
    Outcome,
    Plan,
    Recall,
    Refused,
    Remember,
    Token,
    TryLater,
)
from wirechamber.store.base import Deliveries

_log = structlog.get_logger("wirechamber.delivery")

# A plan that never ends would hold its lane for ever.
MAX_STEPS = 32
MAX_CACHED_TOKENS = 10_000
# A token is renewed this long before it ends, so that it lasts for the request it is wanted for.
TOKEN_MARGIN_MS = 60_000


class Run:
    """One plan being performed.

    Attributes:
        exchanges: The requests made and what came of each.
        remember: What the plan asked to keep, by key; stored when the delivery is settled.
        outcome: Set when the plan has ended.
    """

    __slots__ = ("done", "exchanges", "integration", "outcome", "plan", "remember", "steps")

    def __init__(self, integration: str, plan: Plan, done: Callable[[Run], None]) -> None:
        self.integration = integration
        self.plan = plan
        self.done = done
        self.exchanges: list[Exchange] = []
        self.remember: list[tuple[str, Any]] = []
        self.outcome: Outcome | None = None
        self.steps = 0


class Runner:
    """Performs plans.

    Args:
        outbound: Sends requests.
        deliveries: Keeps what plans remember.
    """

    def __init__(self, outbound: Outbound, deliveries: Deliveries, clock: Clock) -> None:
        self._outbound = outbound
        self._deliveries = deliveries
        self._clock = clock
        self._tokens: dict[tuple[str, str], tuple[str, int]] = {}
        self._making: dict[tuple[str, str], asyncio.Future[str]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, integration: str, plan: Plan, done: Callable[[Run], None]) -> None:
        """Performs a plan of one event; `done` is called with the run when it has ended, maybe at once."""
        self._advance(Run(integration, plan, done), None)

    def forget_tokens(self, integrations: Iterable[str]) -> None:
        """Drops the cached tokens of integrations whose configuration has changed."""
        changed = set(integrations)
        for key in [key for key in self._tokens if key[0] in changed]:
            del self._tokens[key]

    def _advance(self, run: Run, reply: Any) -> None:
        try:
            while True:
                run.steps += 1
                if run.steps > MAX_STEPS:
                    return self._end(run, Refused(f"the plan took more than {MAX_STEPS} steps"))
                step = run.plan.send(reply)
                if isinstance(step, Call):
                    self._outbound.send(step.request, partial(self._called, run))
                    return None
                if isinstance(step, Remember):
                    run.remember.append((step.key, step.value))
                    reply = None
                    continue
                self._look_up(run, step)
                return None
        except StopIteration as stop:
            return self._end(run, stop.value[0])
        except Exception as problem:
            # A kind's own fault must cost its delivery a retry, and nobody else anything.
            _log.exception("plan_failed", integration=run.integration)
            return self._end(run, TryLater(f"internal error: {type(problem).__name__}"))

    def _called(self, run: Run, exchange: Exchange) -> None:
        run.exchanges.append(exchange)
        self._advance(run, exchange.reply)

    def _end(self, run: Run, outcome: Outcome) -> None:
        run.outcome = outcome
        run.plan.close()
        run.done(run)

    def _look_up(self, run: Run, step: Token | Recall) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(run, step), name="plan-look-up")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, run: Run, step: Token | Recall) -> None:
        try:
            if isinstance(step, Recall):
                reply = self._remembered(run, step.key)
                if reply is None:
                    reply = await self._deliveries.recall(run.integration, step.key)
            else:
                reply = await self._token(run, step)
        except TokenRefused as refused:
            self._end(run, refused.outcome)
            return
        except Exception as problem:
            _log.exception("plan_look_up_failed", integration=run.integration)
            self._end(run, TryLater(f"internal error: {type(problem).__name__}"))
            return
        self._advance(run, reply)

    @staticmethod
    def _remembered(run: Run, key: str) -> Any:
        return next((value for known, value in reversed(run.remember) if known == key), None)

    async def _token(self, run: Run, step: Token) -> str:
        key = (run.integration, step.key)
        cached = self._tokens.get(key)
        if cached is not None and cached[1] > self._clock.now():
            return cached[0]
        making = self._making.get(key)
        if making is not None:
            return await asyncio.shield(making)
        making = self._making[key] = asyncio.get_running_loop().create_future()
        try:
            token, lifetime = await self._perform(run, step.plan())
        except Exception as problem:
            making.set_exception(problem)
            making.exception()  # those who wait get it; if nobody does, it was raised here
            raise
        finally:
            del self._making[key]
        if len(self._tokens) >= MAX_CACHED_TOKENS:
            self._tokens.clear()
        self._tokens[key] = (token, self._clock.now() + int(lifetime * 1000) - TOKEN_MARGIN_MS)
        making.set_result(token)
        return token

    async def _perform(self, run: Run, plan: Generator[Any, Any, Any]) -> tuple[str, float]:
        reply: Any = None
        for _ in range(MAX_STEPS):
            try:
                step = plan.send(reply)
            except StopIteration as stop:
                if isinstance(stop.value, tuple):
                    return stop.value
                raise TokenRefused(stop.value) from None
            if isinstance(step, Call):
                exchange = await self._outbound.exchange(step.request)
                run.exchanges.append(exchange)
                reply = exchange.reply
            elif isinstance(step, Recall):
                reply = await self._deliveries.recall(run.integration, step.key)
            else:
                raise TokenRefused(Refused("a token's plan may only call and recall"))
        raise TokenRefused(Refused(f"the token's plan took more than {MAX_STEPS} steps"))


class TokenRefused(Exception):
    """The plan for a token ended with an outcome in place of a token."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome
