"""The loop's lateness is measured, and what held it is told."""

from __future__ import annotations

import asyncio
import time

import structlog
from structlog.testing import capture_logs

from wirechamber.observe.watchdog import BEAT_S, HELD_S, Watchdog

HOLD_S = HELD_S + 4 * BEAT_S


def hold_the_loop() -> None:
    # Not a sleep to wait: this is the fault that is looked for, and Python code as a fault would be.
    until = time.monotonic() + HOLD_S
    while time.monotonic() < until:
        sum(range(1000))


async def beats(watchdog: Watchdog, count: int) -> None:
    for _ in range(1_000):
        if sum(watchdog.lags) >= count:
            return
        await asyncio.sleep(BEAT_S / 5)
    raise AssertionError("the watchdog does not beat")


def test_what_holds_the_loop_is_measured_and_named() -> None:
    async def scenario() -> None:
        watchdog = Watchdog()
        async with asyncio.timeout(20), watchdog.watching():
            hold_the_loop()
            await beats(watchdog, 2)
        assert watchdog.longest_s >= HELD_S
        assert watchdog.late_s >= HELD_S

    structlog.reset_defaults()
    with capture_logs() as logs:
        asyncio.run(scenario())
    (held,) = [entry for entry in logs if entry["event"] == "loop_held"]
    assert held["longest_s"] >= HELD_S
    assert "hold_the_loop" in held["where"]
    assert held["times"] == 1


def test_a_loop_that_is_free_is_not_late() -> None:
    async def scenario() -> Watchdog:
        watchdog = Watchdog()
        async with asyncio.timeout(20), watchdog.watching():
            await beats(watchdog, 3)
        return watchdog

    with capture_logs() as logs:
        watchdog = asyncio.run(scenario())
    if watchdog.longest_s < HELD_S:
        # Otherwise this machine was busy, and the loop was late indeed.
        assert logs == []
