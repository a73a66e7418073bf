"""The steps of plans: tokens made once, values remembered, what is known of a device, and turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.builders import NOW
from wirechamber.delivery.guard import Guard
from wirechamber.delivery.outbound import Outbound
from wirechamber.delivery.runner import MAX_STEPS, Bucket, Run, Runner
from wirechamber.integrations.base import (
    About,
    Allow,
    Delivered,
    DeviceInfo,
    Misconfigured,
    Plan,
    Recall,
    Refused,
    Remember,
    Token,
    TryLater,
)
from wirechamber.model.devices import Device
from wirechamber.observe.tasks import Tasks
from wirechamber.secrets import Vault
from wirechamber.store.sqlite import open_sqlite_store


class HandDriven:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / 1000


Scenario = Callable[["Stage"], Any]


class Stage:
    def __init__(self, runner: Runner, clock: HandDriven, store: Any) -> None:
        self.runner = runner
        self.clock = clock
        self.store = store

    async def run(self, plan: Plan, events: int = 1, integration: str = "hook") -> Run:
        ended: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self.runner.start(integration, plan, events, ended.set_result)
        return await asyncio.wait_for(ended, 10)


def play(folder: Path, scenario: Callable[[Stage], Any]) -> None:
    async def main() -> None:
        clock = HandDriven()
        async with open_sqlite_store(folder, Vault(bytes(32)), clock=clock) as store:
            outbound = Outbound(Guard(()), clock=clock, timeout_s=1)
            try:
                await scenario(Stage(Runner(outbound, store, clock, Tasks()), clock, store))
            finally:
                await outbound.close(0)

    asyncio.run(main())


def steps(*wanted: Any) -> Generator[Any, Any, Any]:
    """A plan that yields these, and keeps the replies in its outcome's text."""
    replies = []
    for step in wanted:
        reply = yield step
        replies += [reply]
    return [Refused(repr(replies))]


def said(run: Run) -> Any:
    (outcome,) = run.outcomes
    assert isinstance(outcome, Refused)
    return eval(outcome.why, {"DeviceInfo": DeviceInfo})


def test_a_token_is_made_once_and_renewed_in_time(tmp_path: Path) -> None:
    made: list[int] = []

    def making() -> Generator[Any, Any, Any]:
        yield Recall("anything")
        made.append(1)
        return f"token-{len(made)}", 120.0

    async def scenario(stage: Stage) -> None:
        runs = await asyncio.gather(*(stage.run(steps(Token("t", making))) for _ in range(20)))
        assert {said(run)[0] for run in runs} == {"token-1"}
        # A minute before its end it is too old.
        stage.clock.time += 59_000
        assert said(await stage.run(steps(Token("t", making)))) == ["token-1"]
        stage.clock.time += 2_000
        assert said(await stage.run(steps(Token("t", making)))) == ["token-2"]
        # Another integration has its own, and a refused one is made anew, once for all that were refused.
        assert said(await stage.run(steps(Token("t", making)), integration="other")) == ["token-3"]
        refused = [stage.run(steps(Token("t", making, instead_of="token-2"))) for _ in range(5)]
        assert {said(run)[0] for run in await asyncio.gather(*refused)} == {"token-4"}
        stage.runner.forget(["hook"])
        assert said(await stage.run(steps(Token("t", making)))) == ["token-5"]

    play(tmp_path, scenario)


def test_a_token_that_needs_no_step_is_made_once_too(tmp_path: Path) -> None:
    made: list[int] = []

    def making() -> Generator[Any, Any, Any]:
        made.append(1)
        yield from ()
        return f"token-{len(made)}", 120.0

    async def scenario(stage: Stage) -> None:
        runs = await asyncio.gather(*(stage.run(steps(Token("t", making))) for _ in range(20)))
        assert {said(run)[0] for run in runs} == {"token-1"}

    play(tmp_path, scenario)


def test_without_a_token_all_who_wait_end_alike(tmp_path: Path) -> None:
    def making() -> Generator[Any, Any, Any]:
        yield Recall("anything")
        return Misconfigured("no such key")

    async def scenario(stage: Stage) -> None:
        runs = await asyncio.gather(*(stage.run(steps(Token("t", making)), events=3) for _ in range(3)))
        assert [run.outcomes for run in runs] == [[Misconfigured("no such key")] * 3] * 3

    play(tmp_path, scenario)


def test_what_is_remembered_is_known_at_once(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        assert said(await stage.run(steps(Recall("k"), Remember("k", [1]), Recall("k")))) == [None, None, [1]]
        assert said(await stage.run(steps(Recall("k")))) == [[1]]
        assert said(await stage.run(steps(Recall("k")), integration="other")) == [None]

    play(tmp_path, scenario)


def test_what_is_known_of_a_device_follows_its_changes(tmp_path: Path) -> None:
    device = "0123456789abcdef01234567"

    async def scenario(stage: Stage) -> None:
        assert said(await stage.run(steps(About(device)))) == [None]
        await stage.store.devices.add(Device(id=device, created_at=0, name="lamp"))
        assert said(await stage.run(steps(About(device), About(device)))) == [DeviceInfo("lamp", product=32)] * 2
        await stage.store.devices.update(Device(id=device, created_at=0, name="lantern"))
        assert said(await stage.run(steps(About(device)))) == [DeviceInfo("lantern", product=32)]

    play(tmp_path, scenario)


def test_turns_come_at_their_rate(tmp_path: Path) -> None:
    allow = Allow("k", per_minute=60, burst=2)

    async def scenario(stage: Stage) -> None:
        assert said(await stage.run(steps(allow, allow, allow))) == [0.0, 0.0, 1.0]
        stage.clock.time += 500
        assert said(await stage.run(steps(allow))) == [0.5]
        stage.clock.time += 60_000
        assert said(await stage.run(steps(allow, allow, allow))) == [0.0, 0.0, 1.0]

    play(tmp_path, scenario)
    # A clock that is set back gives nothing.
    bucket = Bucket(1.0, NOW)
    assert bucket.take(allow, NOW) == 0.0
    assert bucket.take(allow, NOW - 10_000) == 1.0


@pytest.mark.parametrize("outcomes", [[], [Delivered()], [Delivered()] * 3])
def test_a_plan_that_loses_count_loses_no_event(tmp_path: Path, outcomes: list[Any]) -> None:
    def plan() -> Generator[Any, Any, Any]:
        yield Recall("k")
        return outcomes

    async def scenario(stage: Stage) -> None:
        run = await stage.run(plan(), events=2)
        assert [type(each) for each in run.outcomes] == [TryLater, TryLater]

    play(tmp_path, scenario)


def test_a_plan_has_so_many_steps(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        run = await stage.run(steps(*[Recall("k")] * (MAX_STEPS + 3)), events=2)
        assert run.outcomes == [Refused(f"the plan took more than {MAX_STEPS} steps")] * 2

    play(tmp_path, scenario)
