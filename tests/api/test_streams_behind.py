"""Streams that catch up are looked after like those that follow: counted, bounded, ended when they must."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.cloud import Cloud, cloud, eventually
from tests.faults.test_clock_set import User
from tests.gateway.inside import inside
from tests.sse import stream, take

# Of each event, and how many make the past: 6 MB, which no kernel keeps for a reader.
DATA = "x" * 16_000
EVENTS = 400


@contextmanager
def a_past(folder: Path, **settings: str) -> Iterator[tuple[Cloud, str]]:
    with cloud(folder, **settings) as live:
        token = live.user("ann")
        client = live.client(token)
        for number in range(EVENTS):
            assert client.post("/v1/devices/events", json={"name": f"n{number}", "data": DATA}).status_code == 200
        yield live, token


def metric(live: Cloud, name: str) -> float:
    for line in httpx.get(f"{live.url}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    raise AssertionError(name)


def stalled(url: str, token: str) -> socket.socket:
    """A reader of everything that there was, which has read the beginning and then nothing."""
    host, port = url.removeprefix("http://").split(":")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(20)
    made.connect((host, int(port)))
    path = "/v1/devices/events?last_event_id=0"
    made.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    assert b"200 OK" in made.recv(1000)
    return made


def rest(connection: socket.socket) -> int:
    """How many bytes still come."""
    count = 0
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            count += len(part)
    return count


def test_a_reader_who_does_not_read_the_past_is_seen_and_ends_with_its_token(tmp_path: Path) -> None:
    with a_past(tmp_path / "data", keep_alive="0.2") as (live, token), stalled(live.url, token) as reader:
        eventually(lambda: metric(live, "wirechamber_streams_catching_up") == 1, what="catching up")
        assert metric(live, "wirechamber_streams_open") == 1
        assert httpx.delete(f"{live.url}/v1/access_tokens/{token}").json()["ok"] is True
        eventually(lambda: metric(live, "wirechamber_streams_open") == 0, what="the end")
        # What was under way, and nothing of the other megabytes.
        assert rest(reader) < 1024 * 1024


def test_it_holds_no_stop_up(tmp_path: Path) -> None:
    # The grace is for requests: longer than a stop may take here.
    with a_past(tmp_path / "data", shutdown_grace="60") as (live, token), stalled(live.url, token) as reader:
        eventually(lambda: metric(live, "wirechamber_streams_catching_up") == 1, what="catching up")
        assert live.stop() == 0
        assert rest(reader) < 1024 * 1024


def test_it_is_let_go_after_a_while_and_who_reads_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirechamber.api.streams.WRITE_TIMEOUT_S", 3.0)
    with inside(tmp_path) as place:
        user, url = User(place), place.cloud.base_url
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {user.secret}"}, timeout=30) as client:
            for number in range(EVENTS):
                client.post("/v1/devices/events", json={"name": f"n{number}", "data": DATA})
            with stalled(url, user.secret) as reader, stream(client, "/v1/events?last_event_id=0") as source:
                assert [seen.name for seen in take(source, EVENTS)] == [f"n{number}" for number in range(EVENTS)]
                eventually(lambda: "streams_let_go_total 1.0" in httpx.get(f"{url}/metrics").text, what="letting go")
                assert rest(reader) < 1024 * 1024


def test_the_kernel_keeps_little_of_a_stream_that_is_not_read(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", stream_buffer_kb="64") as live:
        token = live.user("ann")
        client = live.client(token)
        host, port = live.url.removeprefix("http://").split(":")
        # The reader's own buffer, in the same kernel here, is small.
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(20)
            reader.connect((host, int(port)))
            head = f"GET /v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
            reader.sendall(head.encode())
            assert b"200 OK" in reader.recv(1000)
            sent = 0
            while metric(live, "wirechamber_streams_let_go_total") == 0:
                client.post("/v1/devices/events", json={"name": "n", "data": DATA})
                sent += 1
                # 64 KB of ours, as much of the kernel's, doubled, and the reader's; it took megabytes.
                assert sent < 40


def test_streams_come_back_each_after_another_while(live_shared: tuple[Cloud, str]) -> None:
    live, token = live_shared
    client = live.client(token)
    told = set()
    for _ in range(12):
        with client.stream("GET", "/v1/devices/events") as response:
            told.add(next(line for line in response.iter_lines() if line.startswith("retry: ")))
    milliseconds = [int(line.partition(" ")[2]) for line in told]
    assert len(milliseconds) >= 10
    assert all(1_000 <= each <= 16_000 for each in milliseconds)


def test_one_user_may_have_so_many(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", streams_per_owner="2") as live:
        ann, bob = live.client(live.user("ann")), live.client(live.user("bob"))
        with stream(ann), stream(ann):
            refused = ann.get("/v1/devices/events")
            assert (refused.status_code, refused.json()["error"]) == (429, "rate_limited")
            with stream(bob) as source:
                assert source.response.status_code == 200
        eventually(lambda: metric(live, "wirechamber_streams_open") == 0, what="leaving")
        with stream(ann) as source:
            assert source.response.status_code == 200
