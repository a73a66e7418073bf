"""How a device keeps in touch with its cloud, in virtual time: what it costs, what it learns of a NAT, and that the
cloud can reach it. The wire is that of bench/device_day.py, which is compared with a real cloud here."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from bench.device_day import DATA, DAY_S, GOAL_BYTES, NAME, Bytes, Day, a_day, first_day
from tests.cloud import eventually
from tests.device.conftest import Bench, run
from wirechamber.device import Device
from wirechamber.device.core import Phase
from wirechamber.device.keepalive import LATE_S, LEAST_S, MOST_S, Learned, bounds_of
from wirechamber.device.session_file import StoredSession
from wirechamber.protocols.deviceos.keepalive import KeepAlive

NATS_S = [26.0, 60.0, 120.0, 300.0, 1800.0]
PING_BYTES = 61
LOOK_S = 5.0
PROFILES = [False, True]


def silent(**how: Any) -> Day:
    """A device that wants events and says nothing, connected."""
    day = Day(subscribes=True, **how)
    day.connect()
    return day


def learned(day: Day) -> Learned:
    assert day.kept is not None
    assert day.kept.learned is not None
    return day.kept.learned


def shut_s(day: Day, until: float) -> float:
    """For how many seconds, until then, the cloud could not have reached the device."""
    seconds = 0.0
    while day.now < until:
        day.advance(day.now + LOOK_S)
        seconds += LOOK_S * (not day.reaches())
    return seconds


def test_a_day_with_defaults_and_a_reading_every_10_minutes_takes_28_kb() -> None:
    assert first_day().used.total <= GOAL_BYTES
    day = a_day()
    assert day.used.total <= GOAL_BYTES
    assert (day.used.pings, day.tells) == (0, [KeepAlive(86_400, queue=True)])


@pytest.mark.parametrize("plain", PROFILES)
@pytest.mark.parametrize("nat_s", NATS_S)
def test_no_nat_makes_learning_dearer_than_a_ping_every_25_seconds(nat_s: float, plain: bool) -> None:
    def used(keepalive: float | None) -> Bytes:
        day = silent(nat_s=nat_s, plain=plain, keepalive=keepalive)
        day.used = Bytes()
        # On the second and third day what was too long is tried again.
        day.advance(day.now + 3 * DAY_S)
        return day.used

    learning, fixed = used(None), used(LEAST_S)
    assert learning.total <= fixed.total
    # What the cloud sends to find out, and no NAT lets in: a ping and its repetitions, once a day.
    assert learning.void <= 3 * 4 * PING_BYTES or learning.total + learning.void < fixed.total


@pytest.mark.parametrize("nat_s", NATS_S)
def test_what_is_learned_is_good_and_does_not_swing(nat_s: float) -> None:
    day = silent(nat_s=nat_s)
    # One attempt that is too long, before twice the NAT's time is over and the device speaks up.
    assert shut_s(day, day.now + DAY_S / 4) <= nat_s + 3 * LOOK_S
    good = learned(day).good
    assert min(nat_s / 2, MOST_S) <= good <= min(nat_s, MOST_S) or good == LEAST_S
    tells = len(day.tells)
    assert tells <= 8
    day.advance(day.now + DAY_S / 2)
    assert len(day.tells) == tells
    assert learned(day).good == good
    day.advance(day.now + DAY_S * 3)
    # What was too long is tried once a day.
    assert len(day.tells) <= tells + 2 * 4
    assert learned(day).good == good


@pytest.mark.parametrize("nat_s", [60.0, 300.0, 3600.0])
def test_a_bad_network_teaches_nothing_wrong(nat_s: float) -> None:
    day = silent(nat_s=nat_s, loss=0.2)
    fixed = silent(nat_s=nat_s, loss=0.2, keepalive=LEAST_S)
    for each in (day, fixed):
        each.used = Bytes()
        each.advance(each.now + DAY_S)
    assert day.used.total + day.used.void < fixed.used.total + fixed.used.void
    assert len(day.tells) < 60
    assert learned(day).good <= nat_s


def test_what_was_learned_is_where_the_next_run_begins() -> None:
    day = silent(nat_s=300.0)
    day.advance(day.now + DAY_S / 4)
    assert (learned(day).good, learned(day).shut) == (200.0, 400.0)
    tells = len(day.tells)
    day.restart()
    assert shut_s(day, day.now + DAY_S / 4) == 0
    assert len(day.tells) == tells
    # It learns it anew where it has another address.
    day.where = "198.51.100.9"
    day.restart()
    day.advance(day.now + 1.0)
    assert learned(day).good == LEAST_S
    day.advance(day.now + DAY_S / 4)
    assert learned(day).good == 200.0


def test_a_session_of_an_earlier_version_is_gone_on_with() -> None:
    day = silent()
    assert day.kept is not None
    fields = msgspec.json.decode(msgspec.json.encode(day.kept))
    del fields["learned"], fields["told"]["keep_alive"]
    day.stored = msgspec.json.decode(msgspec.json.encode(fields), type=StoredSession)
    day.kept = day.stored
    day.restart()
    assert day.core.handshakes == 0
    day.advance(day.now + 4 * LEAST_S)
    assert day.tells[-1].ping is not None


def test_a_nat_that_becomes_worse_is_learned_anew() -> None:
    day = silent(nat_s=3600.0)
    day.advance(day.now + DAY_S / 4)
    assert learned(day).good == MOST_S
    day.nat_s = 200.0
    day.advance(day.now + DAY_S / 4)
    assert 100.0 <= learned(day).good <= 200.0


def test_a_cloud_that_is_away_says_nothing_about_nats() -> None:
    day = silent(nat_s=3600.0)
    day.advance(day.now + DAY_S / 4)
    before = learned(day)
    for _ in range(5):
        day.cut = True
        day.advance(day.now + MOST_S + 600.0)
        day.cut = False
        day.advance(day.now + 3600.0)
        assert day.core.phase is Phase.ONLINE
    assert (learned(day).good, learned(day).shut) == (before.good, before.shut)


def test_a_device_that_was_stopped_learns_nothing_from_that() -> None:
    day = silent(nat_s=3600.0)
    day.advance(day.now + DAY_S / 4)
    # Its process stands still for an hour; what the cloud sends then is lost.
    day.cut = True
    day.now += 3600.0
    day.cut = False
    day.advance(day.now + 3600.0)
    assert (learned(day).good, learned(day).shut) == (MOST_S, 0.0)


def test_words_of_its_own_that_come_before_it_asks_show_as_much() -> None:
    """Each comes after the cloud's ping was due, and before the device would ask why it did not come."""
    day = silent(nat_s=30.0)
    day.advance(day.now + LEAST_S + 1)
    assert day.tells == [KeepAlive(ping=50)]
    for _ in range(4):
        day.advance(day.now + 50.0 + LATE_S + 1)
        day.publish()
    assert learned(day).shut == 50.0
    assert day.tells[-1] == KeepAlive()


@pytest.mark.parametrize("plain", PROFILES)
def test_a_subscription_that_is_added_later_switches_pings_on(plain: bool) -> None:
    day = Day(plain=plain)
    day.connect()
    day.advance(day.now + 3600.0)
    assert (day.used.pings, day.tells) == (0, [KeepAlive(86_400, queue=True)])
    day.subscribe("to-me")
    day.advance(day.now + 1.0)
    # The cloud must know at once, or what comes for it would wait for its next word.
    assert day.tells[1:] == [KeepAlive(ping=50)]
    day.advance(day.now + 60.0)
    assert day.used.pings == 1


def test_a_cloud_that_does_not_know_of_this_is_asked_once_and_pinged() -> None:
    day = silent(knows=False)
    day.advance(day.now + 1000.0)
    assert len(day.tells) == 1
    assert day.used.pings == pytest.approx(1000 / LEAST_S, abs=2)


def test_a_number_of_seconds_is_what_the_device_does_and_the_cloud_is_told() -> None:
    for seconds, told in ((20.0, []), (600.0, [KeepAlive(600)])):
        day = silent(keepalive=seconds)
        day.advance(day.now + 6000.0)
        assert day.used.pings == pytest.approx(6000 / seconds, abs=2)
        assert day.tells == told
    never = silent(keepalive=0.0)
    never.advance(never.now + 6000.0)
    assert (never.used.pings, never.tells) == (0, [KeepAlive(86_400, queue=True)])


def test_bounds_are_kept() -> None:
    day = silent(keepalive=(40.0, 300.0))
    day.advance(day.now + 39.0)
    assert day.tells == []
    day.advance(day.now + DAY_S / 4)
    assert learned(day).good == 300.0
    assert {told.ping for told in day.tells} == {80, 160, 300}
    for wrong in (-1.0, 1e9, (5.0, 100.0), (100.0, 50.0)):
        with pytest.raises(ValueError, match="keepalive"):
            bounds_of(wrong)
    with pytest.raises(ValueError, match="lifetime"):
        Device("0" * 24, psk=b"x" * 16, host="cloud.example.com", lifetime=1)


def test_a_lifetime_is_told_at_once_and_kept_by_a_sign_of_life() -> None:
    day = Day(lifetime=1800.0)
    day.connect()
    assert day.tells == [KeepAlive(1800, queue=True)]
    silences = []
    for _ in range(5):
        before = day.heard
        while day.heard == before:
            day.advance(day.now + 1.0)
        silences.append(day.heard - before)
    assert max(silences) < 1800.0
    assert day.used.pings == 5


def test_the_bench_s_cloud_is_as_the_real_one_on_the_wire(shared_bench: Bench) -> None:
    async def scenario() -> tuple[int, int]:
        files = shared_bench.provision()
        device = shared_bench.device(files, lifetime=3600)
        async with device:
            await device.settle()
            await device.publish(NAME, DATA)
            return device.traffic.up_bytes, device.traffic.down_bytes

    day = Day(lifetime=3600.0)
    day.connect()
    day.publish()
    # A signature of the handshake has a byte more or less by chance.
    assert run(scenario) == pytest.approx((day.used.up, day.used.down), abs=4)


@pytest.mark.parametrize("options", [(), ("--psk",)])
def test_the_registry_shows_by_when_a_device_is_expected(shared_bench: Bench, options: tuple[str, ...]) -> None:
    async def scenario() -> str:
        files = shared_bench.provision(*options)
        async with shared_bench.device(files, lifetime=3600) as device:
            await device.settle()
            await device.publish("reading", "1")
            return device.identity.id

    id = run(scenario)

    def shown() -> Any:
        found = shared_bench.cloud.command("device", "show", id)
        return msgspec.json.decode(found)

    device = eventually(lambda: (each := shown()) and each["queue_mode"] and each, what="being told")
    assert device["expected_by"][:13] > device["last_heard"][:13]
    # What is heard is written down every few seconds.
    eventually(lambda: shown()["expected_by"] in shared_bench.cloud.command("device", "list"), what="being listed")


# What these need, and cbor2 with what it needs: structured data is CBOR on its way.
ALLOWED = {"wirechamber", "cryptography", "msgspec", "_cffi_backend", "cffi", "cbor2", "typing_extensions"}
LOOK = """
import sys
before = set(sys.modules)
import wirechamber.device
import sysconfig
site = sysconfig.get_paths()["purelib"]
for name, module in sorted(sys.modules.items()):
    file = getattr(module, "__file__", None) or ""
    if name not in before and file.startswith(site):
        print(name.partition(".")[0])
"""


def test_a_device_needs_no_part_of_the_server() -> None:
    found = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) <= ALLOWED
