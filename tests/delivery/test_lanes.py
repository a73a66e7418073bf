from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.delivery.builders import an_event, an_integration
from wirechamber.delivery.index import Trigger
from wirechamber.delivery.job import Job
from wirechamber.delivery.lanes import FIRST_PLACES, SILENT_S, Lanes
from wirechamber.eventlog.base import Cursor
from wirechamber.integrations.base import Batch
from wirechamber.integrations.webhook import Webhook


def a_job(owner: str, integration: str, target: str = "t", created_at: int = 0) -> Job:
    trigger = Trigger(an_integration(id=integration, owner=owner), None, 0)
    job = Job(trigger, an_event(), Cursor("1"), None, created_at, 0)
    job.lane = (integration, target, "")
    return job


def test_a_full_lane_waits_and_others_go_on() -> None:
    lanes = Lanes(per_lane=1, total=10)
    slow, waiting, other = a_job("a", "one"), a_job("a", "one"), a_job("a", "two")
    for job in (slow, waiting, other):
        lanes.put(job)
    assert lanes.take() == [slow]
    assert lanes.take() == [other]
    assert lanes.take() is None
    lanes.release([slow])
    assert lanes.take() == [waiting]


def test_owners_are_served_in_turn_however_much_one_has() -> None:
    lanes = Lanes(per_lane=100, total=100)
    for number in range(50):
        lanes.put(a_job("busy", f"hook-{number % 5}"))
    lanes.put(a_job("quiet", "hook"))
    first_three = [jobs[0].owner for jobs in (lanes.take(), lanes.take(), lanes.take()) if jobs]
    assert "quiet" in first_three


def test_the_total_bounds_all_lanes_together() -> None:
    lanes = Lanes(per_lane=5, total=3)
    for number in range(10):
        lanes.put(a_job(f"owner-{number}", f"hook-{number}"))
    assert [lanes.take() is not None for _ in range(4)] == [True, True, True, False]


def test_an_owner_leaves_places_for_others_however_many_lanes_it_has() -> None:
    lanes = Lanes(per_lane=10, total=16)
    for number in range(40):
        lanes.put(a_job("first", f"hook-{number % 8}"))
    assert len(_all(lanes)) == 8
    for number in range(40):
        lanes.put(a_job("second", f"other-{number % 8}"))
    assert len(_all(lanes)) == 4
    lanes.put(a_job("third", "third"))
    (job,) = _all(lanes)
    assert job.owner == "third"
    # What one gives back may be taken again.
    lanes.release([job])
    assert len(_all(lanes)) == 0


def _all(lanes: Lanes) -> list[Job]:
    return [job for jobs in iter(lanes.take, None) for job in jobs]


def test_old_jobs_without_a_row_are_drawn_and_leave_no_empty_turn() -> None:
    lanes = Lanes(per_lane=1, total=10)
    running, old, kept = a_job("a", "one"), a_job("a", "one", created_at=1), a_job("b", "two", created_at=9)
    for job in (running, old, kept):
        lanes.put(job)
    assert lanes.take() == [running]
    assert lanes.draw(before=5) == [old]
    lanes.release([running])
    assert lanes.take() == [kept]
    assert lanes.take() is None
    assert lanes.waiting == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.booleans()), max_size=80),
    st.integers(1, 3),
    st.integers(1, 5),
)
def test_every_job_runs_once_and_no_bound_is_ever_passed(
    steps: list[tuple[str, str, bool]], per_lane: int, total: int
) -> None:
    lanes = Lanes(per_lane, total)
    running: list[Job] = []
    put = done = 0
    for owner, hook, take in steps:
        lanes.put(a_job(owner, owner + hook))
        put += 1
        if take:
            jobs = lanes.take()
            if jobs is not None:
                running.append(*jobs)
        assert len(running) <= total
        assert max(Counter(job.lane for job in running).values(), default=0) <= per_lane
        if len(running) > 2:
            lanes.release([running.pop(0)])
            done += 1
    while True:
        jobs = lanes.take()
        if jobs is not None:
            running.append(*jobs)
        elif running:
            lanes.release([running.pop()])
            done += 1
        else:
            break
    assert done == put
    assert lanes.running == lanes.waiting == 0
    assert not lanes.integrations_holding(1)


class Together(Webhook):
    batch = Batch(events=3, bytes=10, plans=1)


def a_batched(data: str, order: str = "") -> Job:
    trigger = Trigger(an_integration(id="one", owner="a"), Together(), 0)
    job = Job(trigger, an_event(data=data), Cursor("1"), None, 0, 0)
    job.lane = ("one", "t", order)
    return job


def test_what_waits_in_a_lane_goes_together_within_bounds() -> None:
    lanes = Lanes(per_lane=10, total=10)
    small, large, more = a_batched("1234"), a_batched("1234567890"), [a_batched("1") for _ in range(4)]
    for job in (small, large, *more):
        lanes.put(job)
    # The second is within the bytes, the third is not; and one plan of the lane at a time.
    assert lanes.take() == [small, large]
    assert lanes.take() is None
    assert (lanes.running, lanes.waiting, lanes.held("one")) == (1, 4, 6)
    lanes.release([small, large])
    assert lanes.take() == more[:3]
    lanes.release(more[:3])
    assert lanes.take() == more[3:]
    lanes.release(more[3:])
    assert (lanes.running, lanes.waiting, lanes.held("one")) == (0, 0, 0)


def test_what_is_kept_in_order_runs_one_after_the_other() -> None:
    lanes = Lanes(per_lane=10, total=16)
    first, second, other = a_batched("1" * 11, "x"), a_batched("1" * 11, "x"), a_batched("1", "y")
    for job in (first, second, other):
        lanes.put(job)
    assert _all(lanes) == [first, other]
    lanes.release([first])
    assert _all(lanes) == [second]


def test_a_lane_can_be_emptied_while_it_runs() -> None:
    lanes = Lanes(per_lane=1, total=10)
    running, waiting = a_job("a", "one"), a_job("a", "one")
    lanes.put(running)
    assert lanes.take() == [running]
    lanes.put(waiting)
    assert lanes.empty(running.lane) == [waiting]
    assert lanes.empty(running.lane) == []
    assert lanes.take() is None
    lanes.release([running])
    assert lanes.waiting == 0


def test_what_failed_goes_back_to_the_front_and_waits_there() -> None:
    lanes = Lanes(per_lane=10, total=16)
    first, second, third = (a_batched("1" * 11, "x") for _ in range(3))
    lanes.put(first)
    lanes.put(second)
    assert lanes.take() == [first]
    lanes.put_back([first])
    lanes.release([first])
    lanes.put(third)
    assert lanes.take() is None
    assert (lanes.waiting, lanes.held("one"), lanes.running) == (3, 3, 0)
    lanes.go_on(first.lane)
    lanes.go_on(first.lane)
    for job in (first, second, third):
        assert lanes.take() == [job]
        lanes.release([job])
    assert (lanes.waiting, lanes.held("one")) == (0, 0)
    lanes.go_on(first.lane)


class HandDriven:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_target_that_answers_is_given_more_places_one_by_one() -> None:
    lanes = Lanes(per_lane=8, total=64)
    for _ in range(40):
        lanes.put(a_job("a", "one"))
    running = _all(lanes)
    assert len(running) == FIRST_PLACES
    for more in range(1, 10):
        lanes.release([running.pop(0)])
        running += _all(lanes)
        assert len(running) == min(8, FIRST_PLACES + more)


def test_a_target_that_hangs_is_left_one_place_and_gets_more_when_it_answers() -> None:
    clock = HandDriven()
    lanes = Lanes(per_lane=8, total=64, clock=clock)
    for _ in range(40):
        lanes.put(a_job("a", "one"))
    running = _all(lanes)
    clock.time = 20.0
    for job in running:
        lanes.release([job], answered=False)
    (probe,) = _all(lanes)
    lanes.release([probe], answered=False)
    (probe,) = _all(lanes)
    lanes.release([probe], answered=True)
    assert len(_all(lanes)) == 2


def test_silence_is_noticed_before_anything_times_out() -> None:
    clock = HandDriven()
    lanes = Lanes(per_lane=8, total=64, clock=clock)
    for _ in range(20):
        lanes.put(a_job("a", "one"))
    running = _all(lanes)
    for job in running[:4]:
        lanes.release([job])
    running = running[4:] + _all(lanes)
    assert len(running) == 8
    # It hangs from now on: what ends by and by is not replaced.
    clock.time = SILENT_S + 0.1
    lanes.release([running.pop()], answered=False)
    assert _all(lanes) == []


def test_lanes_that_hang_leave_places_to_those_that_answer() -> None:
    clock = HandDriven()
    lanes = Lanes(per_lane=32, total=256, clock=clock)
    hanging = [f"hangs-{number}" for number in range(200)]
    for integration in hanging:
        for _ in range(40):
            lanes.put(a_job("a", integration))
    stuck = _all(lanes)
    clock.time = 20.0
    for job in stuck:
        lanes.release([job], answered=False)
    stuck = _all(lanes)
    clock.time = 40.0
    for job in stuck:
        lanes.release([job], answered=False)
    _all(lanes)
    # Whatever they hold, one that answers goes at once, and grows.
    for turn in range(20):
        for _ in range(40):
            lanes.put(a_job("a", "good"))
        good = [job for job in _all(lanes) if job.integration == "good"]
        assert len(good) == min(32, FIRST_PLACES << turn)
        for job in good:
            lanes.release([job])
        lanes.empty(("good", "t", ""))


def test_all_targets_of_an_owner_that_begin_to_hang_at_once_leave_the_last_places_to_others() -> None:
    lanes = Lanes(per_lane=32, total=256)
    warm = []
    for number in range(20):
        for _ in range(40):
            lanes.put(a_job("a", f"was-good-{number}"))
    # All of them were good, so each has all of its places; now none of them ends.
    for _ in range(40):
        warm = _all(lanes)
        for job in warm:
            lanes.release([job])
        for number in range(20):
            for _ in range(40):
                lanes.put(a_job("a", f"was-good-{number}"))
    held = _all(lanes)
    assert len(held) <= 128
    for number in range(10):
        lanes.put(a_job("a", f"fresh-{number}"))
    fresh = [job.integration for job in _all(lanes)]
    assert len([each for each in fresh if each.startswith("fresh")]) >= 5
    # And others are not concerned.
    lanes.put(a_job("b", "other"))
    assert [job.owner for job in _all(lanes)] == ["b"]


def test_what_a_lane_learned_is_kept_while_it_is_idle() -> None:
    lanes = Lanes(per_lane=8, total=64)
    lanes.put(a_job("a", "one"))
    for _ in range(10):
        (job,) = _all(lanes)
        lanes.release([job])
        lanes.put(a_job("a", "one"))
    for _ in range(20):
        lanes.put(a_job("a", "one"))
    assert len(_all(lanes)) == 8


def test_suspected_integrations_send_nothing_together() -> None:
    lanes = Lanes(per_lane=10, total=10, single={"one"})
    first, second = a_batched("1"), a_batched("1")
    lanes.put(first)
    lanes.put(second)
    assert lanes.take() == [first]
