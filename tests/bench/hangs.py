"""A program that finds one thing, starts a process of its own, and then hangs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

from bench.harness import Result, Size


def run(size: Size) -> Iterator[Result]:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    yield Result("a process", started.pid, "", "", None)
    print("waiting for what does not come", file=sys.stderr)
    threading.Event().wait()
