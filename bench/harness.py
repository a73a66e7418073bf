"""What every measurement needs: processes on cores of their own, and the CPU time they take.

Servers run on core 0, everything that loads them on core 1, so figures are per second of the server's own CPU time.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER_CORE, LOAD_CORE = 0, 1
TICK = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 30.0
SERVE = ("-m", "wirechamber", "serve")


@dataclass
class Result:
    """One line of the table. `goal` reads like `>= 1.2`; it is compared with the ratio, or with the figure."""

    name: str
    figure: float | None
    unit: str
    counterpart: str
    ratio: float | None
    goal: str = ""
    judged: str = "ratio"

    def row(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "figure": _short(self.figure),
            "unit": self.unit,
            "counterpart": self.counterpart,
            "ratio": _short(self.ratio),
            "goal": self.goal,
            "met": self.met(),
        }

    def met(self) -> bool | None:
        value = self.ratio if self.judged == "ratio" else self.figure
        if not self.goal:
            return None
        if value is None:
            return False
        sign, _, number = self.goal.partition(" ")
        return value >= float(number) if sign == ">=" else value <= float(number)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def use_core(core: int) -> Callable[[], None]:
    """For `preexec_fn`: keeps a process on one core, where there are two."""

    def bind() -> None:
        if (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(0, {core})

    return bind


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children so far."""
    total = 0
    for each in _tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def resident_kb(pid: int) -> int:
    """Resident memory of a process and its children; pages that they share are counted once, by their share."""
    total = 0
    for each in _tree(pid):
        for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def _tree(pid: int) -> list[int]:
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    except OSError:
        pass
    return found


def median(work: Callable[[], float], times: int = 3) -> float:
    return statistics.median(work() for _ in range(times))


class Wirechamber:
    """`wirechamber serve` on core 0 with a fresh data folder, a user and a token."""

    def __init__(self, folder: Path, program: Sequence[str] = SERVE, **settings: str) -> None:
        self._program = program
        clean = {key: value for key, value in os.environ.items() if not key.startswith("WIRECHAMBER_")}
        self.environment = clean | {
            "WIRECHAMBER_DATA": str(folder),
            "WIRECHAMBER_HTTP_PORT": "0",
            "WIRECHAMBER_UDP_PORT": "0",
            "WIRECHAMBER_UDP_HOST": "127.0.0.1",
            "WIRECHAMBER_OUTBOUND_ALLOW": "127.0.0.0/8",
            "WIRECHAMBER_STREAMS_PER_ADDRESS": "100000",
            "WIRECHAMBER_LOG_FORMAT": "json",
            "WIRECHAMBER_DISK_FLOOR_MB": "1",
            **{f"WIRECHAMBER_{key.upper()}": value for key, value in settings.items()},
        }
        self._command("user", "create", "bench", "--password-stdin", stdin="bench password\n")
        self.token = self._command("token", "create", "--user", "bench").strip()
        self.start(folder / "server.log")

    def start(self, log: Path) -> None:
        """Starts the server; what it says goes to the file, which begins anew."""
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self._program],
                env=self.environment, stdout=output, stderr=output, preexec_fn=use_core(SERVER_CORE),
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while '"url": "' not in (text := log.read_text()):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"the server did not start:\n{text}")
            time.sleep(0.005)
        self.url = text.partition('"url": "')[2].partition('"')[0]
        self.port = int(self.url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.process.pid

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request) as answer:
            return bytes(answer.read())

    def _command(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [sys.executable, "-m", "wirechamber", *arguments],
            env=self.environment, input=stdin, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout


@contextmanager
def wirechamber(program: Sequence[str] = SERVE, **settings: str) -> Iterator[Wirechamber]:
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    made = Wirechamber(folder, program, **settings)
    try:
        yield made
    finally:
        made.process.terminate()
        made.process.wait(15)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def process(command: Sequence[str], core: int, **rest: Any) -> Iterator[subprocess.Popen[Any]]:
    started = subprocess.Popen(command, preexec_fn=use_core(core), **rest)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(10)
