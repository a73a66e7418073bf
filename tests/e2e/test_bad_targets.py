"""Targets that answer rubbish: each costs its own delivery only, and its log says what happened."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cloud import Target, cloud, eventually
from tests.e2e.test_delivery_outcomes import attempts, hook, publish
from wirechamber.integrations.response import MAX_ANSWER_BYTES

Behaviour = Callable[[socket.socket, threading.Event], None]


@contextmanager
def rubbish(behaviour: Behaviour) -> Iterator[str]:
    """A server that takes each connection's first bytes and then does what the behaviour says."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def serve() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threads.append(threading.Thread(target=handle, args=(connection,), daemon=True))
            threads[-1].start()

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(5)
            connection.recv(65536)
            behaviour(connection, over)

    threads = [threading.Thread(target=serve, daemon=True)]
    threads[0].start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        for thread in threads:
            thread.join(5)
        listener.close()


HEAD = b"HTTP/1.1 200 OK\r\n"


def _no_http(connection: socket.socket, _over: threading.Event) -> None:
    connection.sendall(b"\x16\x03\x01 SSH-2.0 nonsense\r\n\r\n\0\0\0")


def _at_once_gone(connection: socket.socket, _over: threading.Event) -> None:
    connection.close()


def _silent(_connection: socket.socket, over: threading.Event) -> None:
    over.wait(10)


def _endless(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(HEAD + b"\r\n")
    while not over.is_set():
        connection.sendall(b"y" * 65536)


def _dripping(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
    while not over.wait(0.05):
        connection.sendall(b"z")


def _dripping_headers(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(HEAD)
    while not over.wait(0.05):
        connection.sendall(b"X-More: y\r\n")


def _huge_headers(connection: socket.socket, _over: threading.Event) -> None:
    connection.sendall(HEAD + b"".join(b"X-%d: %s\r\n" % (number, b"v" * 1000) for number in range(2000)))


def _short_body(connection: socket.socket, _over: threading.Event) -> None:
    connection.sendall(HEAD + b"Content-Length: 100\r\n\r\nonly this")


def _bad_length(connection: socket.socket, _over: threading.Event) -> None:
    connection.sendall(HEAD + b"Content-Length: -5\r\n\r\nx")


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (_no_http, ("EPROTO", "ECONNRESET")),
        (_at_once_gone, ("ECONNRESET",)),
        (_silent, ("ESOCKETTIMEDOUT",)),
        (_dripping, ("ESOCKETTIMEDOUT",)),
        (_dripping_headers, ("ESOCKETTIMEDOUT",)),
        (_huge_headers, ("EPROTO",)),
        (_short_body, ("ECONNRESET",)),
        (_bad_length, ("EPROTO", "ECONNRESET")),
    ],
)
def test_rubbish_costs_its_own_delivery_only(
    tmp_path: Path, target: Target, behaviour: Behaviour, says: tuple[str, ...]
) -> None:
    settings = {"retry_schedule": "0", "request_timeout": "1"}
    with (
        rubbish(behaviour) as url,
        cloud(tmp_path / "data", **settings) as live,
        live.client(live.user("ann")) as client,
    ):
        bad = client.post("/v1/webhooks", json={"event": "temp", "url": url}).json()["id"]
        hook(client, target)
        for number in range(5):
            publish(client, data=str(number))
        eventually(lambda: len(target.requests) == 5, 5, "the good target's requests")
        found = eventually(lambda: (logs := attempts(client, bad)) and len(logs) == 5 and logs)
        for each in found:
            assert each["ok"] is False
            assert any(word in each["error"] for word in says), each["error"]
        assert client.get("/readyz").status_code == 200


def test_an_endless_answer_is_read_as_far_as_allowed(tmp_path: Path) -> None:
    with (
        rubbish(_endless) as url,
        cloud(tmp_path / "data", retry_schedule="0", request_timeout="5") as live,
        live.client(live.user("ann")) as client,
    ):
        made = client.post("/v1/webhooks", json={"event": "temp", "url": url, "unchunked": True}).json()["id"]
        publish(client)
        (found,) = eventually(lambda: attempts(client, made), 10)
        assert found["ok"] is True
        assert len(found["response"]["body"]) == 16_384
        assert found["response"]["body_length"] >= 100_000


def test_a_closed_port_and_an_unknown_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with cloud(tmp_path / "data", retry_schedule="0") as live, live.client(live.user("ann")) as client:
        for url, says in (
            (f"http://127.0.0.1:{port}/", "ECONNREFUSED"),
            ("http://nothing.invalid/", "ENOTFOUND"),
            ("http://169.254.169.254/latest", "EFORBIDDEN"),
            (f"https://127.0.0.1:{live.url.rpartition(':')[2]}/", "EPROTO"),
        ):
            made = client.post("/v1/webhooks", json={"event": "temp", "url": url}).json()["id"]
            publish(client)
            (found,) = eventually(lambda made=made: attempts(client, made))
            assert says in found["error"], url
            client.delete(f"/v1/webhooks/{made}")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_what_is_compressed_is_not_blown_up(tmp_path: Path, encoding: str) -> None:
    bomb = zlib.compress(b"\0" * 50_000_000, 9)
    with Target() as target:
        target.answer = lambda method, path, body: (200, {"Content-Encoding": encoding}, bomb)
        with cloud(tmp_path / "data", retry_schedule="0") as live, live.client(live.user("ann")) as client:
            made = hook(client, target)
            publish(client)
            (found,) = eventually(lambda: attempts(client, made))
            # Undone although nobody asked for compression, to where any answer is cut.
            assert found["response"]["body_length"] == MAX_ANSWER_BYTES + 1
            assert "Accept-Encoding" not in target.requests[0][2]


def test_targets_of_one_owner_that_hang_leave_room_for_the_deliveries_of_others(tmp_path: Path, target: Target) -> None:
    def hang(connection: socket.socket, over: threading.Event) -> None:
        over.wait(10)

    settings = {"outbound_concurrency": "8", "lane_concurrency": "4"}
    with cloud(tmp_path / "data", **settings) as live, rubbish(hang) as url:
        ann, bob = live.client(live.user("ann")), live.client(live.user("bob"))
        for _ in range(3):
            ann.post("/v1/webhooks", json={"event": "temp", "url": url})
        hook(bob, target)
        for _ in range(4):
            publish(ann)
        publish(bob)
        # Without a share of their own they would wait for the time-out of ann's, 20 s.
        eventually(lambda: target.requests, 5, "the other's delivery")
