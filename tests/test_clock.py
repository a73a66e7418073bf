"""The one clock: what it follows, what it calls a step, and when a step counts."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.inside import HandClock
from wirechamber.clock import CONFIRMED_FILE, Clock, Timekeeper, confirm_time

HOUR, DAY = 3_600.0, 86_400.0


def keeper(clock: Clock, *, settle_s: float = DAY, boot: str = "") -> Timekeeper:
    return Timekeeper(clock, settle_s=settle_s, catch_up=7.0, boot=boot)


def pass_time(clock: HandClock, keeper: Timekeeper, seconds: float, every: float = 60.0) -> None:
    end = clock.at + seconds
    while clock.at < end:
        clock.at = min(end, clock.at + every)
        keeper.observe()


def test_what_ntp_slews_is_followed() -> None:
    clock = HandClock()
    time = keeper(clock)
    for _ in range(1_000):
        clock.at += 1
        # 500 ppm, the most that a kernel slews.
        clock.set_by_s += 0.0005
        time.observe()
    assert abs(time.steady() - time.now()) <= 2
    assert time.steps == 0


def test_steady_time_passes_by_the_monotonic_clock_whatever_is_set() -> None:
    clock = HandClock()
    time = keeper(clock)
    began = time.steady()
    for step in (40 * DAY, -HOUR, -60 * DAY, 3.0):
        clock.set_by_s = step
        time.observe()
        assert time.steady() - began <= 1
    clock.at += 10
    assert 9_999 <= time.steady() - began <= 10_001
    assert time.steps == 3


def test_a_step_that_is_taken_back_changes_nothing() -> None:
    clock = HandClock()
    time = keeper(clock)
    clock.set_by_s = 40 * DAY
    pass_time(clock, time, 65, every=1)
    assert time.doubt_s == 40 * DAY
    assert time.ahead() == 40 * DAY * 1000
    clock.set_by_s = 0
    time.observe()
    assert (time.doubt_s, time.ahead()) == (0, 0)
    assert time.deletes_by() == time.now()


def test_a_step_is_believed_when_it_has_lasted() -> None:
    clock = HandClock()
    time = keeper(clock)
    clock.set_by_s = 40 * DAY
    pass_time(clock, time, DAY - 60)
    assert abs(time.now() - time.steady()) > 39 * DAY * 1000
    pass_time(clock, time, 120)
    assert abs(time.now() - time.steady()) <= 5_000


def test_another_step_begins_the_wait_anew() -> None:
    clock = HandClock()
    time = keeper(clock)
    clock.set_by_s = 40 * DAY
    pass_time(clock, time, 0.9 * DAY)
    clock.set_by_s = 80 * DAY
    pass_time(clock, time, 0.9 * DAY)
    assert time.doubt_s == 80 * DAY
    assert time.steps == 2


def test_deleting_catches_up_by_a_share_each_day() -> None:
    clock = HandClock()
    time = keeper(clock)
    clock.set_by_s = 40 * DAY
    pass_time(clock, time, DAY + 60)
    before = time.deletes_by()
    pass_time(clock, time, DAY)
    moved = (time.deletes_by() - before) / 1000 / DAY
    assert 7.9 < moved < 8.1
    pass_time(clock, time, 5 * DAY)
    assert time.deletes_by() >= time.now() - 5_000


def test_nothing_is_deleted_by_a_time_ahead_of_the_wall_clock() -> None:
    clock = HandClock()
    time = keeper(clock)
    clock.set_by_s = -60 * DAY
    assert time.deletes_by() == time.now()


def test_an_operators_word_counts_at_once(tmp_path: Path) -> None:
    clock = HandClock()
    time = keeper(clock)
    time.keep_in(tmp_path)
    clock.set_by_s = 40 * DAY
    time.tend()
    assert time.doubt_s
    confirm_time(tmp_path)
    time.tend()
    assert time.doubt_s == 0
    assert time.deletes_by() == time.now()
    assert not (tmp_path / CONFIRMED_FILE).exists()


def test_steady_time_goes_on_when_the_machine_starts_with_a_clock_that_is_behind(tmp_path: Path) -> None:
    clock = HandClock()
    time = keeper(clock)
    time.keep_in(tmp_path)
    last = time.steady()
    clock.at, clock.set_by_s = 10.0, -60 * DAY
    time = keeper(clock)
    time.keep_in(tmp_path)
    assert abs(time.steady() - last) <= 1
    assert time.steps == 1
    # NTP has it corrected a little later.
    clock.at += 30
    clock.set_by_s = 1_000.0
    time.observe()
    assert 29_000 <= time.steady() - last <= 31_000
    assert time.deletes_by() <= time.steady()


def test_a_clock_that_was_set_while_the_machine_was_off_is_in_doubt(tmp_path: Path) -> None:
    clock = HandClock()
    time = keeper(clock)
    time.keep_in(tmp_path)
    last = time.deletes_by()
    clock.set_by_s = 40 * DAY
    time = keeper(clock)
    time.keep_in(tmp_path)
    assert time.deletes_by() == last
    # A restart in between does not begin the wait anew, nor end it.
    pass_time(clock, time, DAY / 2)
    time.tend()
    time = keeper(clock)
    time.keep_in(tmp_path)
    assert time.doubt_s
    pass_time(clock, time, DAY / 2 + 120)
    assert time.doubt_s == 0


def test_a_night_without_power_is_no_step(tmp_path: Path) -> None:
    clock = HandClock()
    time = keeper(clock)
    time.keep_in(tmp_path)
    last = time.steady()
    clock.set_by_s = 8 * HOUR
    time = keeper(clock)
    time.keep_in(tmp_path)
    assert time.steps == 0
    assert time.steady() - last == 8 * HOUR * 1000


def test_within_a_boot_the_monotonic_clock_tells_how_long_no_server_ran(tmp_path: Path) -> None:
    clock = HandClock()
    time = keeper(clock, boot="b")
    time.keep_in(tmp_path)
    last = time.steady()
    clock.at += 3 * DAY
    clock.set_by_s = -HOUR
    time = keeper(clock, boot="b")
    time.keep_in(tmp_path)
    assert time.steady() - last == 3 * DAY * 1000
    assert time.steps == 1


def test_a_damaged_state_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "clock.json").write_bytes(b"\x00{")
    clock = HandClock()
    time = keeper(clock)
    time.keep_in(tmp_path)
    assert time.steady() == time.now()


@given(st.lists(st.tuples(st.floats(0, 3 * DAY), st.floats(-100 * DAY, 100 * DAY)), max_size=12))
def test_deleting_runs_ahead_of_neither_time(moves: list[tuple[float, float]]) -> None:
    clock = HandClock()
    time = keeper(clock)
    for passed, set_by in moves:
        clock.set_by_s = set_by
        assert time.deletes_by() <= min(time.steady(), time.now())
        pass_time(clock, time, passed, every=HOUR)
        assert time.deletes_by() <= min(time.steady(), time.now())


def test_that_time_went_back_is_told_until_somebody_has_taken_note(tmp_path: Path) -> None:
    clock = HandClock()
    first = keeper(clock, boot="a")
    first.keep_in(tmp_path)
    clock.set_by_s = -60 * DAY
    confirm_time(tmp_path)
    first.tend()
    assert first.went_back == 60 * DAY * 1000
    # The process is killed here, before what waits was brought forward.
    second = keeper(clock, boot="a")
    second.keep_in(tmp_path)
    assert second.went_back == first.went_back
    second.went_back = 0
    second.tend()
    third = keeper(clock, boot="a")
    third.keep_in(tmp_path)
    assert third.went_back == 0
