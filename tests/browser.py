"""A real browser for tests: Chromium without a window, which shows one page and tells what that says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium-headless-shell", "chromium")
# What it would do by itself, each of which is a request to somebody else's servers.
LEFT_OUT = (
    "background-networking",
    "component-update",
    "default-apps",
    "domain-reliability",
    "extensions",
    "quic",
    "sync",
)
# What a page of ours may use.
HEAD = "<script>const say = (what) => fetch('/said', { method: 'POST', body: JSON.stringify(what) });\n"


def installed() -> str | None:
    """The browser that is installed here, if one is."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def browser(folder: Path, script: str) -> Iterator[list[Any]]:
    """Runs a script in a page of its own; gives what it has said with `say` so far."""
    program = installed()
    assert program is not None
    said: list[Any] = []
    page = f"<!doctype html><meta charset=utf-8>{HEAD}{script}\n</script>".encode()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(page)

        def do_POST(self) -> None:
            said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    # Certificates are made by the tests; no proxy stands between this machine and itself.
    options += ["--ignore-certificate-errors", "--no-proxy-server", f"--user-data-dir={folder}"]
    options += [f"--disable-{what}" for what in LEFT_OUT]
    options.append("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost")
    # Without it the page would be left as soon as it is there.
    options.append("--remote-debugging-port=0")
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *options, f"http://127.0.0.1:{server.server_port}/"],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield said
    finally:
        # With the processes that it started, and those of a script that starts it.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        server.shutdown()
        server.server_close()
