"""The time, as something that is handed in, so that tests can drive it by hand.

Two kinds of time are told. *Wall time* is what the world calls it now, right or wrong: what people, signatures and
tokens go by. *Steady time* looks the same, and is the same unless somebody set the clock: it passes as the monotonic
clock does, follows what NTP slews, and ignores steps until they have lasted. What must not come early or late because a
clock was set (retries, times to live, deadlines that outlive the process) is stored in it, and nothing is deleted
before it says so.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Protocol

import msgspec
import structlog
from msgspec import Struct

_log = structlog.get_logger("wirechamber.clock")

# By so much wall and steady time may differ before it counts as a step. NTP slews what is under 0.128 s, and may step
# further at the start of a machine; nothing here is hurt by seconds.
STEP_MS = 5_000
# What is under it is made up for at this part of the time that passes, faster than any NTP slews (chrony: 10 %).
SLEW = 0.1
# While no server ran and the machine was off, only its wall clock can tell how long. Up to a day it is believed.
AWAY_MS = 86_400_000
STATE_FILE = "clock.json"
CONFIRMED_FILE = "clock.confirmed"
WRITE_EVERY_S = 10.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> int:
        """Wall time: milliseconds since 1970-01-01 UTC."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""


class SteadyClock(Clock, Protocol):
    """Tells the time that nobody can set, too."""

    def steady(self) -> int:
        """Steady time: milliseconds, those of wall time unless that was stepped."""

    def ahead(self) -> int:
        """By how many milliseconds wall time is ahead of steady time, in doubt about which is right; usually 0."""


class SystemClock:
    """The clock of this machine, as it is: for commands, which end before anybody sets it."""

    def now(self) -> int:
        """Wall time: milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds since the machine was started, including those for which it was suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def steady(self) -> int:
        """The same as wall time."""
        return self.now()

    def ahead(self) -> int:
        """Nothing."""
        return 0


class _State(Struct, frozen=True):
    """What outlives the process.

    Attributes:
        wall: Wall time when it was written.
        steady: Steady time at the same moment.
        deletes: What has been deleted by, at the same moment.
        monotonic: The monotonic clock at the same moment, of the boot that `boot` names.
        doubted_ms: For how long the difference between wall and steady time has lasted.
        step: That difference, as it was recognised; 0 when there is no doubt.
        went_back: By how much steady time went back and nobody had taken note yet.
    """

    wall: int
    steady: int
    deletes: int
    monotonic: float
    boot: str
    doubted_ms: int = 0
    step: int = 0
    went_back: int = 0


class Timekeeper:
    """The one clock of a server: compares the wall clock with the monotonic one, and recognises steps.

    A step is in doubt until it has lasted for `settle_s`, or is taken back, or an operator confirms it. Then steady
    time steps as well. What is deleted by (`deletes_by`) never runs ahead of either of them, and comes after a step
    forward no faster than `catch_up` times the time that passes.

    Args:
        source: The machine's clock.
        settle_s: Seconds for which a step must have lasted before it is believed.
        catch_up: Days by which deleting comes nearer to a time that was believed, per day.
        boot: Names the boot that the monotonic clock counts from; empty when it is not known.
    """

    def __init__(self, source: Clock, *, settle_s: float, catch_up: float = 7.0, boot: str = "") -> None:
        self._source = source
        self._settle_ms = int(settle_s * 1000)
        self._catch_up = catch_up
        self._boot = boot
        self._folder: Path | None = None
        self._looked_at = source.monotonic()
        self._base = source.now() - self._elapsed()
        self._deletes = self.steady()
        self._deletes_at = self._elapsed()
        self._step = 0
        self._doubted_ms = 0
        # For which step and way back the state was written down, and when it is to be written next if nothing happens.
        self._written_for = (0, 0)
        self._write_at = 0.0
        # How many steps were seen.
        self.steps = 0
        # Milliseconds by which steady time went back when a step was believed and nobody has taken note yet.
        self.went_back = 0

    # --- telling the time ---

    def now(self) -> int:
        """Wall time: milliseconds since 1970-01-01 UTC."""
        return self._source.now()

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return self._source.monotonic()

    def steady(self) -> int:
        """Steady time, in milliseconds."""
        return self._base + int(self._source.monotonic() * 1000)

    def ahead(self) -> int:
        """By how many milliseconds wall time is ahead of steady time, in doubt about which is right."""
        return max(0, self._step)

    def deletes_by(self) -> int:
        """The time (milliseconds since 1970) by which the age of what is deleted must be judged."""
        self.observe()
        return min(self._deletes, self.now())

    @property
    def doubt_s(self) -> float:
        """By how many seconds wall time differs from steady time in a step that is not believed yet."""
        return self._step / 1000

    # --- comparing ---

    def observe(self) -> None:
        """Compares the clocks. Call it every second or so; it takes microseconds."""
        at = self._source.monotonic()
        passed, self._looked_at = int((at - self._looked_at) * 1000), at
        difference = self.now() - self.steady()
        if abs(difference) <= STEP_MS:
            if self._step:
                _log.info("clock_back", difference_ms=difference)
            self._step = self._doubted_ms = 0
            most = int(passed * SLEW)
            self._base += max(-most, min(most, difference))
        elif abs(difference - self._step) > STEP_MS:
            self._stepped(difference)
        else:
            self._doubted_ms += passed
            if self._doubted_ms >= self._settle_ms:
                self._believe(difference)
        self._let_deleting_follow()

    def confirm(self) -> None:
        """An operator says that the wall clock is right: everything goes by it at once."""
        difference = self.now() - self.steady()
        if abs(difference) > STEP_MS:
            self._believe(difference)
        self._deletes = self.steady()

    def _stepped(self, difference: int) -> None:
        self.steps += 1
        self._step, self._doubted_ms = difference, 0
        _log.warning(
            "clock_stepped",
            **{"from": _readable(self.steady()), "to": _readable(self.now())},
            seconds=difference / 1000,
            believed_after_s=self._settle_ms / 1000,
        )
        if not self._settle_ms:
            self._believe(difference)

    def _believe(self, difference: int) -> None:
        _log.info("clock_believed", now=_readable(self.now()), seconds=difference / 1000)
        self._step = self._doubted_ms = 0
        self._base += difference
        if difference < 0:
            self.went_back -= difference

    def _let_deleting_follow(self) -> None:
        at = self._elapsed()
        passed, self._deletes_at = at - self._deletes_at, at
        self._deletes = min(self.steady(), self._deletes + int(passed * (1 + self._catch_up)))

    def _elapsed(self) -> int:
        return int(self._source.monotonic() * 1000)

    # --- outliving the process ---

    def keep_in(self, folder: Path) -> None:
        """Goes on from what the last process on this data folder wrote down, and writes down there from now on."""
        self._folder = folder
        with contextlib.suppress(OSError, msgspec.DecodeError):
            self._go_on(msgspec.json.decode((folder / STATE_FILE).read_bytes(), type=_State))
        self.tend()

    def tend(self) -> None:
        """Compares the clocks, sees whether an operator confirmed the time, and writes down where it stands.

        Raises:
            OSError: It can't be written.
        """
        self.observe()
        if self._folder is None:
            return
        confirmed = self._folder / CONFIRMED_FILE
        if told := confirmed.exists():
            self.confirm()
        stands = (self._step, self.went_back)
        if not told and self._written_for == stands and self.monotonic() < self._write_at:
            return
        state = _State(
            wall=self.now(), steady=self.steady(), deletes=self._deletes, monotonic=self.monotonic(), boot=self._boot,
            doubted_ms=self._doubted_ms, step=self._step, went_back=self.went_back,
        )  # fmt: skip
        draft = self._folder / f"{STATE_FILE}.new"
        draft.write_bytes(msgspec.json.encode(state))
        draft.replace(self._folder / STATE_FILE)
        self._written_for, self._write_at = stands, self.monotonic() + WRITE_EVERY_S
        # Only now: should the process end in between, it is confirmed again.
        confirmed.unlink(missing_ok=True)

    def _go_on(self, last: _State) -> None:
        wall, at = self.now(), self.monotonic()
        if self._boot and last.boot == self._boot and at >= last.monotonic:
            # The same boot: the monotonic clock tells how long it was.
            away = int((at - last.monotonic) * 1000)
        elif 0 <= wall - last.steady <= AWAY_MS:
            away = wall - last.steady
        elif 0 <= wall - last.wall <= AWAY_MS:
            # As wrong, or as right, as it was.
            away = wall - last.wall
        else:
            away = 0
        self._base = last.steady + away - self._elapsed()
        self._deletes = min(last.deletes + away, self.steady())
        self.went_back = last.went_back
        self._step = last.step
        self._doubted_ms = last.doubted_ms + away if last.step else 0


def boot_id() -> str:
    """Names this boot of the machine; empty where that is not told."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def confirm_time(folder: Path) -> None:
    """Has the server on a data folder, or the next one, believe the wall clock."""
    os.close(os.open(folder / CONFIRMED_FILE, os.O_WRONLY | os.O_CREAT, 0o600))


def _readable(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03d}Z"
    except (ValueError, OverflowError):
        return str(ms)
