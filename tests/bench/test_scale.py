"""The programs that measure how cost grows run, in their smallest form; and their table says what it must."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.runner import ROOT
from bench.scale.curves import CURVES, Curve
from bench.scale.table import markdown, values
from bench.soak import flat


# The cheapest of each kind: streams, the store, and what is filled in straight.
@pytest.mark.parametrize("program", ["streams:prefixes", "integrations", "removed"])
def test_a_program_runs_to_its_end_in_its_smallest_form(program: str, tmp_path: Path) -> None:
    results = tmp_path / "now.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "scale", "--quick", "--results", str(results), program],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = values(json.loads(results.read_text()))
    assert found
    assert all(curve in CURVES and len(sizes) == 3 for curve, sizes in found.items())


def test_a_curve_is_met_by_its_largest_size_and_its_growth() -> None:
    bounded = Curve("a", "ms", "<= 3", growth=2.0)
    assert bounded.met({1: 1.0, 10: 2.0}) is True
    assert bounded.met({1: 0.5, 10: 2.0}) is False
    assert bounded.met({1: 2.0, 10: 3.5}) is False
    assert bounded.met({}) is None
    assert Curve("b", "ms").met({1: 1.0}) is None
    assert bounded.wanted() == "≤ 3, ≤ 2 × from first to last"


def test_the_table_has_before_and_now_side_by_side() -> None:
    before = {"prefixes": {100: 0.5, 10_000: 2.0}}
    now = {"prefixes": {100: 0.5, 10_000: 0.55}}
    assert markdown(before, now).splitlines()[2] == (
        "| streams with n different prefixes of one owner, publish | 100 / 10 k | 0.5 / 2 ms CPU | 0.5 / 0.55 ms CPU "
        "| 1.1 × for 100 × | ≤ 1.2 × from first to last | yes |"
    )


def test_what_levels_off_is_flat_and_what_goes_on_growing_is_not() -> None:
    assert flat([1, 5, 9, 10, 9, 10, 10, 9, 10])
    assert not flat([1, 2, 3, 4, 5, 6, 7, 8, 9])
