"""A real cloud for tests: `wirechamber serve` as a process of its own, on a free port and a fresh data folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.02


def eventually(look: Any, timeout_s: float = 20.0, what: str = "it") -> Any:
    """Asks until the answer is true, with a deadline; returns the answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        threading.Event().wait(POLL_S)


class Cloud:
    """One data folder and the server that runs on it."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.log_file = folder.parent / f"{folder.name}.log"
        clean = {key: value for key, value in os.environ.items() if not key.startswith("WIRECHAMBER_")}
        self.environment = clean | {
            "WIRECHAMBER_DATA": str(folder),
            "WIRECHAMBER_HTTP_PORT": "0",
            "WIRECHAMBER_UDP_PORT": "0",
            "WIRECHAMBER_UDP_HOST": "127.0.0.1",
            "WIRECHAMBER_OUTBOUND_ALLOW": "127.0.0.0/8,::1/128",
            "WIRECHAMBER_DISK_FLOOR_MB": "0",
            "WIRECHAMBER_LOG_FORMAT": "json",
            **{f"WIRECHAMBER_{key.upper()}": value for key, value in settings.items()},
        }
        # Soft and hard limit of open files that the server starts with; None for this process's own.
        self.open_files: tuple[int, int] | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.udp_port = 0
        self.clients: list[httpx.Client] = []

    def start(self) -> Cloud:
        offset = self.spawn()
        announced = eventually(lambda: self._announced(offset), START_TIMEOUT_S, "starting")
        self.url, self.udp_port = announced["url"], announced["udp"]
        # The ports stay the same over restarts, as behind a real address.
        self.environment["WIRECHAMBER_HTTP_PORT"] = self.url.rpartition(":")[2]
        self.environment["WIRECHAMBER_UDP_PORT"] = str(self.udp_port)
        return self

    def spawn(self) -> int:
        """Starts the process and waits for nothing; returns where in the log it begins."""
        offset = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._limited(), sys.executable, "-m", "wirechamber", "serve"],
                env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip
        return offset

    def ended(self) -> int:
        """Waits until the process has ended by itself; returns its exit status."""
        assert self.process is not None
        return self.process.wait(START_TIMEOUT_S)

    def _limited(self) -> list[str]:
        if self.open_files is None:
            return []
        soft, hard = self.open_files
        return ["sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh"]

    def _announced(self, offset: int) -> dict[str, Any] | None:
        assert self.process is not None
        text = self.log_file.read_bytes()[offset:].decode("utf-8", "replace")
        assert self.process.poll() is None, f"the server ended at once:\n{text}"
        lines = [line for line in text.splitlines() if '"serving"' in line and line.endswith("}")]
        return json.loads(lines[-1]) if lines else None

    def kill(self) -> None:
        """As a power cut for the process: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As an operator does: SIGTERM. Returns the exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def command(self, *arguments: str, stdin: str = "") -> str:
        """Runs a wirechamber command on this cloud's data folder; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "wirechamber", *arguments],
            env=self.environment, input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def user(self, name: str, password: str = "correct horse") -> str:
        """Makes a user; returns a token."""
        self.command("user", "create", name, "--password-stdin", stdin=password + "\n")
        return self.command("token", "create", "--user", name).strip()

    def client(self, token: str) -> httpx.Client:
        """A client with a user's token, closed with the cloud at the latest."""
        made = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        self.clients.append(made)
        return made


@contextmanager
def cloud(folder: Path, **settings: str) -> Iterator[Cloud]:
    """A running cloud, stopped at the end."""
    with running(Cloud(folder, **settings)) as live:
        yield live


@contextmanager
def running(made: Cloud) -> Iterator[Cloud]:
    """The same for one that is made already."""
    try:
        yield made.start()
    finally:
        for client in made.clients:
            client.close()
        if made.process is not None and made.process.poll() is None:
            made.kill()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed cuts its connections: expected here."""


class Target:
    """A real HTTP server for webhooks: keeps every request; `answer` decides what it says."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: Any = lambda method, path, body: (200, {}, b"")
        target = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body in one segment: a delayed acknowledgement would cost 40 ms.
            wbufsize = -1
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                target.requests.append((self.command, self.path, dict(self.headers.items()), body))
                status, headers, payload = target.answer(self.command, self.path, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)
                self.wfile.flush()

            do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Target:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
