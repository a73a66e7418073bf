"""A small forward proxy: CONNECT and plain requests, signed with `Via` or not, with a password or not."""

from __future__ import annotations

import base64
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

Mode = Callable[[str, str], bytes | None]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that cuts its connection: expected here."""


class ForwardProxy:
    """The proxy.

    Args:
        who: `user:password` that it wants, if any.
        signs: It adds `Via` to what it forwards, as RFC 9110 demands.

    Attributes:
        mode: Asked first, with method and target; the bytes that it gives are the answer, and the connection ends.
        asked: What was asked of it, by method and target.
    """

    def __init__(self, who: str = "", *, signs: bool = True) -> None:
        self.mode: Mode | None = None
        self.asked: list[tuple[str, str]] = []
        self.signs = signs
        self.wanted = f"basic {base64.b64encode(who.encode()).decode()}" if who else ""
        proxy = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while proxy.take(self.rfile, self.connection):
                    pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def take(self, asked: Any, client: socket.socket) -> bool:
        """One request of a connection; whether another may follow."""
        head = [line for line in iter(asked.readline, b"\r\n") if line]
        if not head:
            return False
        method, target, _ = head[0].decode().split()
        fields = {name.lower(): value.strip() for name, _, value in (line.decode().partition(":") for line in head[1:])}
        body = asked.read(int(fields.get("content-length", 0)))
        self.asked.append((method, target))
        said = None if self.mode is None else self.mode(method, target)
        if said is None and self.wanted and fields.get("proxy-authorization", "").lower() != self.wanted.lower():
            said = answer(407, ("Proxy-Authenticate", 'Basic realm="here"'))
        if said is not None:
            client.sendall(said)
            return False
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port)), 10) as there:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _both_ways(client, there)
            return False
        client.sendall(self._forwarded(method, target, fields, body))
        return False

    def _forwarded(self, method: str, target: str, fields: dict[str, str], body: bytes) -> bytes:
        parts = urlsplit(target)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kept = {name: value for name, value in fields.items() if not name.startswith("proxy-")} | {
            "connection": "close"
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in kept.items())
        with socket.create_connection((parts.hostname or "", parts.port or 80), 10) as there:
            there.sendall(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
            got = b"".join(iter(lambda: there.recv(65536), b""))
        status, _, rest = got.partition(b"\r\n")
        return status + b"\r\n" + (b"Via: 1.1 proxy\r\n" if self.signs else b"") + rest

    def __enter__(self) -> ForwardProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(status: int, *headers: tuple[str, str], body: bytes = b"<h1>no</h1>") -> bytes:
    """What a proxy says in the target's place."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} No\r\n{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def _both_ways(one: socket.socket, other: socket.socket) -> None:
    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=copy, args=(other, one), daemon=True)
    back.start()
    copy(one, other)
    back.join(10)
