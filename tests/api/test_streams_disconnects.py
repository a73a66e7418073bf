"""Readers that come and go in every way there is, under load, beside readers who must miss nothing."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.cloud import Cloud, cloud, eventually

LINGER_NOT = struct.pack("ii", 1, 0)


def fin(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    connection.close()


def half(connection: socket.socket) -> None:
    # The reader says that it will send nothing more, and goes away a little later.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.recv(100)
    connection.close()


def torn(connection: socket.socket) -> None:
    # In the middle of what is written to it: it has read a little of an event.
    with suppress(OSError):
        connection.recv(7)
    reset(connection)


WAYS: tuple[Callable[[socket.socket], None], ...] = (fin, reset, half, torn)


class Publisher(threading.Thread):
    """Publishes as fast as it is answered, until it is told to stop."""

    def __init__(self, client: httpx.Client) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._stopping = threading.Event()
        self.names: list[str] = []

    def run(self) -> None:
        while not self._stopping.is_set():
            self.publish(f"n{len(self.names)}")

    def publish(self, name: str) -> None:
        answer = self._client.post("/v1/devices/events", json={"name": name, "data": "x" * 2_000})
        assert answer.status_code == 200, answer.text
        self.names.append(name)

    def stop(self) -> None:
        self._stopping.set()
        self.join(20)
        self.publish("nlast")


class Innocent(threading.Thread):
    """Reads a stream until its publisher's last event."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self._connection = connection
        self.text = b""

    def run(self) -> None:
        with suppress(OSError):
            while b"event: nlast\n" not in self.text[-4_096:]:
                part = self._connection.recv(1 << 20)
                if not part:
                    return
                self.text += part

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def seen(self) -> tuple[list[int], list[str]]:
        found = re.findall(rb"id: (\d+)\nevent: (\w+)\n", self.text)
        return [int(cursor) for cursor, _ in found], [name.decode() for _, name in found]


def test_readers_who_disconnect_cost_the_others_nothing(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", keep_alive="0.05", streams_per_address="10000") as live:
        _churn(live, live.client, rounds=50, at_once=40, tls=None)


def test_over_tls_too(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = {"keep_alive": "0.05", "tls_cert": str(certificate), "tls_key": str(key)}
    context = ssl.create_default_context(cafile=str(certificate))
    with cloud(tmp_path / "data", streams_per_address="10000", **settings) as live:

        def client(token: str) -> httpx.Client:
            headers = {"Authorization": f"Bearer {token}"}
            live.clients.append(httpx.Client(base_url=live.url, headers=headers, verify=context, timeout=30))
            return live.clients[-1]

        _churn(live, client, rounds=20, at_once=15, tls=context)


def _churn(
    live: Cloud, client: Callable[[str], httpx.Client], rounds: int, at_once: int, tls: ssl.SSLContext | None
) -> None:
    tokens = [live.user("ann"), live.user("bob")]
    publishers = [Publisher(client(token)) for token in tokens]
    innocents = [
        [Innocent(_connect(live, token, path, tls)) for path in ("events", "events/n", "events") for _ in range(2)]
        for token in tokens
    ]
    readers = [reader for each in innocents for reader in each]
    for reader in readers:
        reader.start()
        eventually(lambda: reader.text, what="the stream")  # noqa: B023
    for publisher in publishers:
        publisher.start()
    with _seen_to_end(publishers, readers):
        for number in range(rounds):
            # All of one tenant's, in groups of their own and in that of an innocent reader.
            paths = [f"events/n{index % 9}" if index % 2 else "events" for index in range(at_once)]
            opened = [_connect(live, tokens[0], path, tls) for path in paths]
            for index, connection in enumerate(opened):
                if index % 3:
                    connection.recv(12)
                WAYS[(index + number) % len(WAYS)](connection)
    for publisher, audience in zip(publishers, innocents, strict=True):
        for reader in audience:
            cursors, names = reader.seen()
            assert names == publisher.names
            assert cursors == sorted(set(cursors))
    assert '"level": "error"' not in live.log_file.read_text()
    with _connect(live, tokens[1], "events", tls) as late:
        # Comments still come, so the task that writes them is alive, and newcomers are taken in.
        eventually(lambda: b"\r\n:\n\r\n" in late.recv(4_096), what="a keep-alive")


@contextmanager
def _seen_to_end(publishers: list[Publisher], readers: list[Innocent]) -> Iterator[None]:
    try:
        yield
        for publisher in publishers:
            publisher.stop()
        eventually(lambda: not any(reader.is_alive() for reader in readers), what="the last event")
    finally:
        for reader in readers:
            reader.close()


def _connect(live: Cloud, token: str, path: str, tls: ssl.SSLContext | None) -> socket.socket:
    host, port = live.url.partition("://")[2].split(":")
    made = socket.create_connection((host, int(port)), 20)
    if tls is not None:
        made = tls.wrap_socket(made, server_hostname=host)
    head = f"GET /v1/devices/{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    made.sendall(head.encode())
    return made
