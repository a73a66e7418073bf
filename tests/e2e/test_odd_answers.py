"""Answers whose errors hold bytes that are no text: told, and nobody else's delivery notices."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cloud import Target, cloud, eventually
from tests.sse import stream, take


@contextmanager
def saying(raw: bytes) -> Iterator[str]:
    """A target that answers everything with the same bytes."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.recv(65_536)
                client.sendall(raw)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, \xc3(\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, \xff\xfe\r\n\r\nx",
        b"HTTP/1.1 404 \xff\r\nX-\xff: \xfe\r\nContent-Length: 1\r\n\r\n\xff",
    ],
)
def test_an_error_that_quotes_no_text_is_told(tmp_path: Path, raw: bytes) -> None:
    settings = {"retry_schedule": "0,0.1"}
    with saying(raw) as odd, Target() as target, cloud(tmp_path / "data", **settings) as live:
        client = live.client(live.user("ann"))
        made = client.post("/v1/integrations", json={"event": "odd", "url": odd}).json()["id"]
        client.post("/v1/integrations", json={"event": "good", "url": target.url})
        with stream(client, "/v1/devices/events/hook-") as source:
            client.post("/v1/devices/events", json={"name": "odd", "data": "1"})
            (told,) = take(source, 1)
            assert told.name == "hook-error/odd/0"
            client.post("/v1/devices/events", json={"name": "good", "data": "1"})
            (sent,) = take(source, 1)
            assert sent.name == "hook-sent/good"
        logs = eventually(lambda: client.get(f"/v1/integrations/{made}/logs").json()["logs"])
        assert logs[0]["error"] == told.data
        assert len(target.requests) == 1
