"""Runs programs one after the other, each in a process group of its own that has a deadline and leaves nothing behind.

Results are written as they come, and the file is whole at any moment: it is replaced, never written to.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import Size

# Seconds that a program may take, in full and in its smallest form.
PROGRAMS: Mapping[str, tuple[float, float]] = {
    "templates": (60, 30),
    "eventlog": (120, 60),
    "outbound": (120, 60),
    "webhooks": (900, 90),
    "services": (600, 90),
    "fanout": (300, 90),
    "streams_idle": (300, 90),
    "link": (900, 90),
    "https_bytes": (120, 60),
    "device_day": (60, 60),
}
ROOT = Path(__file__).parent.parent
# So much of what a program that failed said last is shown.
LAST_LINES = 20


@dataclass(frozen=True)
class Ended:
    """How a program ended: what it found, and what went wrong, if anything did."""

    rows: Sequence[dict[str, Any]]
    error: str | None
    seconds: float


def run_program(
    module: str, size: Size, deadline_s: float, came: Callable[[dict[str, Any]], None], source: Path = ROOT
) -> Ended:
    """Runs a program until its end or the deadline.

    Args:
        module: Where its `run` is; or another function, after a colon.
        came: Called with each result, as it comes.
        source: The checkout whose product is measured.
    """
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        said = Path(folder) / "said"
        with said.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.runner", module, size],
                cwd=ROOT, env=environment(source) | {"TMPDIR": folder}, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
        try:
            for line in _lines(process, started + deadline_s):
                rows.append(json.loads(line))
                came(rows[-1])
            error = None if process.wait(5) == 0 else f"{module} ended with status {process.returncode}"
        except (TimeoutError, subprocess.TimeoutExpired):
            error = f"{module} did not end within {deadline_s:.0f} s"
        finally:
            end_group(process)
        if error is not None:
            last = said.read_text(errors="replace").splitlines()[-LAST_LINES:]
            error = "\n".join([error, *last])
        elif not rows:
            error = f"{module} found nothing"
    return Ended(rows, error, time.monotonic() - started)


def environment(source: Path) -> dict[str, str]:
    """For processes that use the product of a checkout, and our programs."""
    return os.environ | {"PYTHONPATH": f"{source / 'src'}{os.pathsep}{ROOT}"}


def end_group(process: subprocess.Popen[Any]) -> None:
    """Ends a process that leads a group, and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def write_whole(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Replaces a file of results."""
    made = file.with_name(file.name + ".new")
    made.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    made.replace(file)


def _lines(process: subprocess.Popen[bytes], deadline: float) -> Any:
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    pending = b""
    while True:
        chunk = process.stdout.read()
        if chunk == b"":
            return
        if chunk:
            *whole, pending = (pending + chunk).split(b"\n")
            yield from whole
        elif time.monotonic() > deadline:
            raise TimeoutError
        else:
            time.sleep(0.02)


def main() -> int:
    """One program, in a process that was started for it: a line of JSON for each result."""
    module, _, function = sys.argv[1].partition(":")
    size = sys.argv[2]
    # What a library prints is no result.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for result in getattr(importlib.import_module(module), function or "run")(size):
        print(json.dumps(result.row()), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
