"""What every measurement needs: processes on cores of their own, and the CPU time they take.

Servers run on core 0, everything that loads them on core 1, so figures are per second of the server's own CPU time.
Whatever is waited for has a deadline, and an error that says what did not come.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wirechamber.cli.folder import Folder, in_folder

SERVER_CORE, LOAD_CORE = 0, 1
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 120.0
# linux/posix-timers.h: the clock of a process's CPU time, all threads, also those that have ended, in nanoseconds.
CPUCLOCK_SCHED = 2
# Below the range of ports that systems give to whoever asks for any (Linux: from 32768 on; RFC 6335: from 49152 on).
OUR_PORTS = (20_000, 32_000)
# What the server says once it listens.
SERVING = re.compile(r'^\{.*"event": "serving".*\}$', re.M)
SERVE = ("-m", "wirechamber", "serve")


# What a program is called with: its figures in full, or the least that shows that it runs.
Size = Literal["full", "quick"]


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


class NoAnswer(Exception):
    """What was asked for did not come; the text says which."""


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children so far."""
    total = 0.0
    for each in _tree(pid):
        try:
            total += time.clock_gettime((~each << 3) | CPUCLOCK_SCHED)
        except OSError:
            continue
    return total


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
        self.folder = folder
        clean = {key: value for key, value in os.environ.items() if not key.startswith("WIRECHAMBER_")}
        self.environment = clean | {
            "WIRECHAMBER_DATA": str(folder),
            # The ports stay the same over restarts, as behind a real address.
            "WIRECHAMBER_HTTP_PORT": str(_free_port(socket.SOCK_STREAM)),
            "WIRECHAMBER_UDP_PORT": str(_free_port(socket.SOCK_DGRAM)),
            "WIRECHAMBER_UDP_HOST": "127.0.0.1",
            "WIRECHAMBER_OUTBOUND_ALLOW": "127.0.0.0/8",
            "WIRECHAMBER_STREAMS_PER_ADDRESS": "100000",
            "WIRECHAMBER_LOG_FORMAT": "json",
            "WIRECHAMBER_DISK_FLOOR_MB": "1",
            **{f"WIRECHAMBER_{key.upper()}": value for key, value in settings.items()},
        }
        self.owner, self.token = in_folder(_user, data=folder, create=True)
        self.start(folder / "server.log")

    def start(self, log: Path) -> None:
        """Starts the server; what it says goes to the file, which begins anew."""
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self._program],
                env=self.environment, stdout=output, stderr=output, preexec_fn=use_core(SERVER_CORE),
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while (announced := SERVING.search(text := log.read_text())) is None:
            if self.process.poll() is not None:
                raise NoAnswer(f"the server ended at its start with {self.process.returncode}:\n{text[-2000:]}")
            if time.monotonic() > deadline:
                raise NoAnswer(f"the server did not start within {START_TIMEOUT_S:.0f} s:\n{text[-2000:]}")
            time.sleep(0.005)
        said = json.loads(announced[0])
        self.url, self.udp_port = str(said["url"]), int(said["udp"])
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """As an operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a power cut for the process."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise NoAnswer(f"the server did not end within {STOP_TIMEOUT_S:.0f} s") from None

    @contextmanager
    def stopped(self) -> Iterator[Path]:
        """Stops it, for something to be done to its data folder, and starts it again."""
        self.stop()
        yield self.folder
        self.restart()

    def spent(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.pid)

    def restart(self) -> float:
        """Starts it again; returns the seconds until it was ready."""
        started = time.monotonic()
        self.start(self.folder / "server.log")
        return time.monotonic() - started

    @property
    def pid(self) -> int:
        return self.process.pid

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.url + path, data=body, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as problem:
            raise NoAnswer(f"{method} {path} was answered {problem.code} {problem.read()[:300]!r}") from None
        except OSError as problem:
            raise NoAnswer(f"{method} {path} got no answer: {problem}") from None

    def metric(self, name: str) -> float:
        """The value of a metric, its labels as Prometheus writes them; 0 when there is none of it."""
        found = re.search(rf"^wirechamber_{re.escape(name)} (\S+)", self.request("GET", "/metrics").decode(), re.M)
        return 0.0 if found is None else float(found[1])


def _free_port(kind: int) -> int:
    """Of those that the system gives nobody by itself, so that it is still free when a server starts again."""
    while True:
        port = random.randrange(*OUR_PORTS)
        with socket.socket(socket.AF_INET, kind) as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


async def _user(folder: Folder) -> tuple[str, str]:
    """Makes a user who is called as we are, if there is none; returns the user's id and a token."""
    user = await folder.access.ensure_user("bench", "bench password")
    return user.id, (await folder.access.issue(user, client="bench")).secret


@contextmanager
def wirechamber(program: Sequence[str] = SERVE, **settings: str) -> Iterator[Wirechamber]:
    with folder() as made_folder:
        made = Wirechamber(made_folder, program, **settings)
        try:
            yield made
        finally:
            made.stop()


@contextmanager
def folder() -> Iterator[Path]:
    """A data folder, removed at the end."""
    made = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


class Client:
    """A connection that is kept, with a token."""

    def __init__(self, server: Wirechamber, token: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_TIMEOUT_S)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"Authorization": f"Bearer {token or server.token}", "Content-Type": "application/json"}

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """The answer's body. Raises NoAnswer when it is not a good one."""
        try:
            data = None if body is None else json.dumps(body)
            self._connection.request(method, path, data, self._headers)
            with self._connection.getresponse() as answer:
                read = answer.read()
        except OSError as problem:
            raise NoAnswer(f"{method} {path} got no answer: {problem!r}") from None
        if answer.status >= 300:
            raise NoAnswer(f"{method} {path} was answered {answer.status} {read[:300]!r}")
        return read

    def publish(self, name: str, data: str = "x" * 100) -> None:
        """Publishes an event and waits for the answer."""
        self.request("POST", "/v1/devices/events", {"name": name, "data": data, "private": True})

    def close(self) -> None:
        self._connection.close()


class Load:
    """A load program, which speaks lines with us: JSON to it, and a line of answer to each."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self._name = name
        self._process = process

    def said(self, what: str, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """Its next line. Raises NoAnswer, which says what was waited for."""
        assert self._process.stdout is not None
        # Not `select`, which ends at 1,024 descriptors: a program has a socket for each of its devices.
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)
        if not poller.poll(timeout_s * 1000):
            raise NoAnswer(f"{self._name}: {what}: no answer within {timeout_s:.0f} s")
        # One line is one answer, so none of the next can be in the buffer.
        line = self._process.stdout.readline()
        if not line:
            raise NoAnswer(f"{self._name}: {what}: it ended with status {self._process.wait(5)}")
        return line

    def ask(self, what: str, timeout_s: float = ANSWER_TIMEOUT_S, **asked: Any) -> Any:
        """Asks for something and returns the answer."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(asked), file=self._process.stdin, flush=True)
        except OSError as problem:
            raise NoAnswer(f"{self._name}: {what}: {problem}") from None
        line = self.said(what, timeout_s)
        return json.loads(line) if line[0] in "{[0123456789" else line.strip()


@contextmanager
def load(module: str, *arguments: str) -> Iterator[Load]:
    """A program of bench.load on the load's core."""
    command = [sys.executable, "-m", f"bench.load.{module}", *arguments]
    with process(command, LOAD_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        yield Load(f"load program {module}", started)


@contextmanager
def process(command: Sequence[str], core: int, **rest: Any) -> Iterator[subprocess.Popen[Any]]:
    started = subprocess.Popen(command, preexec_fn=use_core(core), **rest)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        for pipe in (started.stdin, started.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
