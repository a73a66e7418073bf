"""What every stand-in of a service is made of: a real HTTP server on a free port of loopback."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")


class Said(NamedTuple):
    """An answer. `drop`: the connection is reset in place of it."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    drop: bool = False


def in_json(status: int, value: Any, *headers: tuple[str, str]) -> Said:
    return Said(status, json.dumps(value).encode(), (("Content-Type", "application/json; charset=UTF-8"), *headers))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """Cuts connections that are kept open for the next request."""
        for request in list(self._open):
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed cuts its connections: expected here."""


class Standin:
    """A service. A subclass answers; `mode`, when set, is asked first and may answer in its place.

    Args:
        port: A free one if 0.
        tls: Certificate and key, as an SSL context, for https.
    """

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.mode: Callable[[Asked], Said | None] | None = None
        self._lock = threading.Lock()
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body in one segment: a delayed acknowledgement would cost 40 ms.
            wbufsize = -1
            disable_nagle_algorithm = True

            def whole_body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                chunks = []
                while size := int(self.rfile.readline().partition(b";")[0], 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def handle_any(self) -> None:
                body = self.whole_body()
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query, keep_blank_values=True))
                asked = Asked(self.command, parts.path, query, dict(self.headers.items()), body)
                said = standin.take(asked)
                if said.drop:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(said.status)
                for name, value in said.headers:
                    self.send_header(name, value)
                if said.status != 204:
                    self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                self.wfile.write(said.body)
                self.wfile.flush()

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                pass

        self._handler = Handler
        self._tls = tls
        self._server = self._opened(port)
        self.port = self._server.server_port
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"

    def _opened(self, port: int) -> _Server:
        server = _Server(("127.0.0.1", port), self._handler)
        if self._tls is not None:
            server.socket = self._tls.wrap_socket(server.socket, server_side=True)
        return server

    def down(self) -> None:
        """Ends the service: connections are refused from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()

    def up(self) -> None:
        """The service is there again, on the same port."""
        self._server = self._opened(self.port)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, asked: Asked) -> Said:
        """Keeps a request and answers it."""
        self.asked.append(asked)
        if self.mode is not None:
            said = self.mode(asked)
            if said is not None:
                return said
        with self._lock:
            return self.answer(asked)

    def answer(self, asked: Asked) -> Said:
        raise NotImplementedError

    def __enter__(self) -> Any:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def times(count: int, said: Said) -> Callable[[Asked], Said | None]:
    """A mode that says something so many times, and then lets the service answer."""
    left = iter(range(count))
    return lambda _asked: said if next(left, None) is not None else None
