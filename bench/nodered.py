"""Node-RED, the counterpart of events to webhooks: an HTTP endpoint, a template, an HTTP request. It stores nothing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.harness import SERVER_CORE, Size, cpu_seconds, load, use_core

VERSION = "5.0.7"
CACHE = Path(__file__).parent / ".cache" / "node-red"
START_TIMEOUT_S = 60.0


@dataclass
class Counterpart:
    """What Node-RED took; no seconds when it could not be run."""

    seconds: float | None
    text: str


def cpu_per_event(events: int, size: Size) -> Counterpart:
    """What an event takes; Node-RED is installed for it, where figures in full are wanted."""
    if not _installed(install=size == "full"):
        return Counterpart(None, "Node-RED is not installed")
    from bench import webhooks

    folder = Path(tempfile.mkdtemp(prefix="bench-nodered-"))
    try:
        with load("webhooks") as loaded:
            sink = int(loaded.said("its port"))
            port = _free_port()
            (folder / "flows.json").write_text(json.dumps(_flow(sink)))
            (folder / "settings.js").write_text(
                f"module.exports = {{ uiPort: {port}, uiHost: '127.0.0.1', flowFile: 'flows.json',"
                " httpAdminRoot: false, logging: { console: { level: 'error' } } };"
            )
            started = subprocess.Popen(
                [str(_bin("node")), str(CACHE / "node_modules/node-red/red.js"), "-u", str(folder),
                 "-s", str(folder / "settings.js")],
                preexec_fn=use_core(SERVER_CORE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                _wait(port)
                head = f"POST /event HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
                body = json.dumps({"name": "temperature", "data": {"reading": "STAMP", "padding": "x" * 100}})
                webhooks.start(loaded, port, head, body)
                loaded.ask("the first events of Node-RED", events=events // 3)
                cost, _ = webhooks.median_cost(started.pid, loaded, events)
                assert cpu_seconds(started.pid) > 0
                return Counterpart(cost, f"Node-RED {VERSION} {cost * 1e6:.0f}")
            finally:
                started.terminate()
                started.wait(10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flow(sink: int) -> list[dict[str, object]]:
    return [
        {"id": "tab", "type": "tab", "label": "bench"},
        {"id": "in", "type": "http in", "z": "tab", "url": "/event", "method": "post", "wires": [["t", "r"]]},
        {"id": "r", "type": "http response", "z": "tab", "statusCode": "200", "wires": []},
        {
            "id": "t", "type": "template", "z": "tab", "field": "payload", "fieldType": "msg", "syntax": "mustache",
            "template": '{"reading":"{{{payload.data.reading}}}","device":"api"}', "output": "str", "wires": [["q"]],
        },
        {
            "id": "q", "type": "http request", "z": "tab", "method": "POST", "ret": "txt", "paytoqs": "ignore",
            "url": f"http://127.0.0.1:{sink}/in", "persist": True, "wires": [[]],
        },
    ]  # fmt: skip


def _installed(*, install: bool) -> bool:
    if install and not (CACHE / "node_modules/node-red/red.js").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        path = f"{_bin('node').parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            [str(_bin("npm")), "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock",
             f"node-red@{VERSION}"],
            cwd=CACHE, env=os.environ | {"PATH": path}, capture_output=True, check=False,
        )  # fmt: skip
    return (CACHE / "node_modules/node-red/red.js").exists()


def _bin(name: str) -> Path:
    return Path(sys.executable).parent / name


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _wait(port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            # The flow comes up a moment after the port.
            time.sleep(1.0)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
