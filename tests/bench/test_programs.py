"""Every measurement runs to its end, in its smallest form; one that does not is ended, and says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.harness import NoAnswer, load, wirechamber
from bench.link import SETTINGS, fleet_of
from bench.runner import PROGRAMS, ROOT, run_program, write_whole
from tests.cloud import eventually


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_runs_to_its_end_in_its_smallest_form(program: str, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--results", str(results), program],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(results.read_text())
    assert found
    assert all(row["program"] == program and row["figure"] > 0 for row in found)


def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    rows: list[dict[str, Any]] = []
    seen: list[Any] = []

    def came(row: dict[str, Any]) -> None:
        rows.append(row)
        write_whole(file, rows)
        seen.append(json.loads(file.read_text()))

    ended = run_program("tests.bench.hangs", "quick", 8, came)
    assert ended.error is not None
    assert "did not end within 8 s" in ended.error
    assert "waiting for what does not come" in ended.error
    # What it found before is kept, and was written while it ran.
    assert seen == [[ended.rows[0]]]
    eventually(lambda: not running(int(ended.rows[0]["figure"])), what="the end of its process")


def running(pid: int) -> bool:
    try:
        # A process that has ended and was not asked yet how is none any more.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_load_program_that_says_nothing_is_named_with_what_was_asked() -> None:
    with load("webhooks") as loaded:
        loaded.said("its port")
        with pytest.raises(NoAnswer, match="load program webhooks: the moon: no answer within 0 s"):
            loaded.said("the moon", timeout_s=0.01)


def test_devices_without_an_answer_are_named() -> None:
    with wirechamber(**SETTINGS) as server, fleet_of(server, 3) as fleet:
        fleet.connect(3)
        server.kill()
        with pytest.raises(NoAnswer, match="3 devices got no answer to its event: 0, 1, 2"):
            fleet.ask(range(3), lambda number, id: b"\x40\x02\0\0", "its event", repeat_s=0.1, silence_s=0.3)


def test_more_devices_than_sockets_all_say_hello() -> None:
    with wirechamber(**SETTINGS) as server, fleet_of(server, 4) as fleet:
        fleet.connect(30)
        assert server.metric("devices_online") == 30
        fleet.speak()
        assert server.metric('events_total{origin="device"}') == 30
