"""Asks a server the same again and again, as another client does, while something else goes on there.

Between the lines `{"begin": true}` and `{"end": true}` it keeps the longest wait, and the most CPU time that the server
took during one: the latter says how long the event loop was held, however busy the machine is.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from pathlib import Path

from bench.harness import ANSWER_TIMEOUT_S


def main() -> None:
    setup = json.loads(sys.stdin.readline())
    request, pid, pause_s = setup["request"].encode(), setup["pid"], setup["pause_s"]
    connection = socket.create_connection(("127.0.0.1", setup["port"]), timeout=ANSWER_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print("ready", flush=True)
    waits: list[float] = []
    held: list[float] = []
    while True:
        if select.select([sys.stdin], [], [], pause_s)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            if "begin" in json.loads(line):
                waits, held = [], []
                print("begun", flush=True)
            else:
                print(json.dumps(_report(sorted(waits), held)), flush=True)
        began, spent = time.perf_counter(), loop_seconds(pid)
        connection.sendall(request)
        _read(connection)
        waits.append(time.perf_counter() - began)
        held.append(loop_seconds(pid) - spent)


def loop_seconds(pid: int) -> float:
    """CPU time of the thread that runs the event loop: the process's first."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def _read(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            raise SystemExit(f"the connection was closed after {data[:200]!r}")
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 2"):
        raise SystemExit(f"was answered {data[:300]!r}")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(65536)


def _report(waits: list[float], held: list[float]) -> dict[str, float]:
    waits = waits or [0.0]
    return {
        "held_ms": max(held, default=0.0) * 1000,
        "longest_ms": waits[-1] * 1000,
        "p50_ms": waits[len(waits) // 2] * 1000,
        "p99_ms": waits[int(len(waits) * 0.99)] * 1000,
        "count": len(waits),
    }


main()
