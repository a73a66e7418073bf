"""Streams under pressure: how many, how slow, how long, and how they end."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.cloud import Cloud, Target, cloud, eventually, running
from tests.sse import stream, take


def test_the_streams_of_one_address_are_bounded(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", streams_per_address="3") as live, ExitStack() as stack:
        client = live.client(live.user("ann"))
        for _ in range(3):
            stack.enter_context(stream(client))
        refused = client.get("/v1/devices/events")
        assert refused.status_code == 429
        assert "streams" in refused.json()["error_description"]
        # Other requests go on, and one stream that ends makes room.
        assert client.get("/v1/devices").status_code == 200
        stack.pop_all().close()
        eventually(lambda: _opens(client), what="room for another stream")


def test_streams_leave_room_for_everybody_else(tmp_path: Path, target: Target) -> None:
    made = Cloud(tmp_path / "data", streams_per_address="10000")
    made.open_files = (100, 400)
    with running(made) as live, ExitStack() as stack:
        # As far as it may: half of it is for streams then.
        assert _metric(live, "wirechamber_process_max_fds") == 400
        token, other_token = live.user("ann"), live.user("bob")
        other = live.client(other_token)
        other.post("/v1/webhooks", json={"event": "n", "url": target.url})
        # Of these, one user may have three quarters.
        streams = [stack.enter_context(_connect(live, token)) for _ in range(150)]
        assert all(b"200 OK" in each.recv(100) for each in streams)
        refused = live.client(token).get("/v1/devices/events")
        assert (refused.status_code, refused.json()["error"]) == (429, "rate_limited")
        assert int(refused.headers["Retry-After"]) > 0
        streams += [stack.enter_context(_connect(live, other_token)) for _ in range(50)]
        assert all(b"200 OK" in each.recv(100) for each in streams[150:])
        refused = other.get("/v1/devices/events")
        assert (refused.status_code, refused.json()["error"]) == (503, "unavailable")
        assert other.post("/v1/devices/events", json={"name": "n"}).status_code == 200
        eventually(lambda: target.requests, what="the webhook")
        streams[0].close()
        eventually(lambda: _opens(other), what="room for another stream")


def test_connections_that_ask_nothing_shut_nobody_out(tmp_path: Path) -> None:
    made = Cloud(tmp_path / "data")
    made.open_files = (100, 400)
    with running(made) as live, ExitStack() as stack:
        client = live.client(live.user("ann"))
        host, port = live.url.removeprefix("http://").split(":")
        for _ in range(500):
            connection = stack.enter_context(socket.create_connection((host, int(port)), 20))
            with suppress(ConnectionError):
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        assert client.post("/v1/devices/events", json={"name": "n"}).status_code == 200
        assert _metric(live, 'wirechamber_input_refused_total{reason="no_request"}') >= 400 - 100


def _opens(client: httpx.Client) -> bool:
    with client.stream("GET", "/v1/devices/events") as response:
        return response.status_code == 200


def _connect(live: Cloud, token: str, after: str = "") -> socket.socket:
    host, port = live.url.removeprefix("http://").split(":")
    made = socket.socket()
    # As little as possible waits in the kernel.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(20)
    made.connect((host, int(port)))
    path = f"/v1/devices/events?last_event_id={after}"
    made.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    return made


def test_who_catches_up_is_not_taken_for_slow(tmp_path: Path) -> None:
    count, data = 1_500, "x" * 16_000
    with cloud(tmp_path / "data", stream_buffer_kb="64") as live:
        token = live.user("ann")
        publisher = live.client(token)
        for _ in range(count):
            publisher.post("/v1/devices/events", json={"name": "past", "data": data})
        # All of it is in memory still, and many times what may wait for a reader.
        with _connect(live, token, after="0") as reading:
            got = reading.recv(1000)
            assert b"200 OK" in got
            publisher.post("/v1/devices/events", json={"name": "live"})
            publisher.post("/v1/devices/events", json={"name": "last"})
            parts = [got]
            while b"event: last" not in b"".join(parts[-2:]):
                part = reading.recv(1 << 20)
                assert part, "the stream has ended"
                parts.append(part)
        seen = b"".join(parts)
        assert [seen.count(b"event: " + name) for name in (b"past", b"live", b"last")] == [count, 1, 1]
        assert _metric(live, "wirechamber_streams_let_go_total") == 0


def test_a_slow_reader_is_let_go_and_the_others_go_on(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", stream_buffer_kb="64") as live:
        token = live.user("ann")
        client, publisher = live.client(token), live.client(token)
        with _connect(live, token) as slow, stream(client) as source:
            assert b"200 OK" in slow.recv(1000)
            data = "x" * 16_000
            sent = 0
            # The kernel's buffers take some megabytes of it first.
            while True:
                publisher.post("/v1/devices/events", json={"name": "n", "data": data})
                sent += 1
                (seen,) = take(source, 1)
                assert seen.name == "n"
                if sent % 20 == 0 and _metric(live, "wirechamber_streams_let_go_total") >= 1:
                    break
                assert sent < 3_000
            # What was under way still comes, and then the end, so the client knows to connect again.
            assert _is_broken_off(slow)
            assert publisher.post("/v1/devices/events", json={"name": "last"}).status_code == 200
            assert take(source, 1)[0].name == "last"


def _is_broken_off(connection: socket.socket) -> bool:
    last = b""
    try:
        while part := connection.recv(65536):
            last = (last + part)[-16:]
    except ConnectionError:
        return True
    # The last chunk (RFC 9112, section 7.1) would say that this is all.
    return not last.endswith(b"\r\n0\r\n\r\n")


def _metric(live: Cloud, name: str) -> float:
    for line in httpx.get(f"{live.url}/metrics").text.splitlines():
        if line.startswith(name):
            return float(line.split()[-1])
    return 0.0


def test_silence_is_broken_and_a_revoked_token_ends_the_stream(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", keep_alive="0.2") as live:
        token = live.user("ann")
        client = live.client(token)
        with client.stream("GET", "/v1/devices/events") as response:
            lines = response.iter_lines()
            assert next(lines) == ":ok"
            assert [next(lines)[:7], next(lines)[:4]] == ["retry: ", "id: "]
            # A comment each time, which every reader skips; a blank line would be an event without data to some.
            assert [next(lines) for _ in range(3)] == [":", ":", ":"]
            assert httpx.delete(f"{live.url}/v1/access_tokens/{token}").json()["ok"] is True
            # A proper end: httpx would raise otherwise.
            assert all(line == ":" for line in lines)
        assert client.get("/v1/devices").status_code == 401


def test_another_authorization_beside_the_tokens_own_place_is_ignored(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", keep_alive="0.1") as live:
        token = live.user("ann")
        headers = {"Authorization": "Basic YTpi"}
        with (
            httpx.Client(base_url=live.url, headers=headers, timeout=10) as client,
            client.stream("GET", f"/v1/devices/events?access_token={token}") as response,
        ):
            lines = response.iter_lines()
            assert next(lines) == ":ok"
            # It outlives several looks at its token.
            assert [next(lines) for _ in range(8)].count(":") == 6
        with httpx.Client(base_url=live.url, headers=headers, timeout=10) as client:
            assert client.delete(f"/v1/access_tokens/current?access_token={token}").json()["ok"] is True
            assert client.get(f"/v1/user?access_token={token}").status_code == 401


def test_stopping_ends_streams_properly_and_soon(live: Cloud) -> None:
    client = live.client(live.user("ann"))
    with ExitStack() as stack:
        sources = [stack.enter_context(client.stream("GET", "/v1/devices/events")) for _ in range(5)]
        assert live.stop() == 0
        for source in sources:
            # The last chunk arrives, so that clients do not take it for a broken connection.
            assert [line.partition(": ")[0] for line in source.iter_lines()] == [":ok", "retry", "id"]


@pytest.mark.parametrize("given", ["x", "-1", "1.0", "99999999999999999999", "%00"])
def test_what_is_no_cursor_is_refused(live_shared: tuple[Cloud, str], given: str) -> None:
    live, token = live_shared
    client = live.client(token)
    refused = client.get(f"/v1/devices/events?last_event_id={given}")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")


def test_the_header_wins_over_the_query(live: Cloud) -> None:
    client = live.client(live.user("ann"))
    for number in range(4):
        client.post("/v1/devices/events", json={"name": f"n{number}"})
    with stream(client, "/v1/devices/events?last_event_id=0") as source:
        cursors = [event.cursor for event in take(source, 4)]
    with stream(client, "/v1/devices/events?last_event_id=0", last_event_id=cursors[2]) as source:
        assert take(source, 1)[0].name == "n3"
        # Opaque to clients; here the next number.
        assert source.response.headers["Wirechamber-Stream-Start"] == str(int(cursors[2]) + 1)
    assert client.get("/v1/devices/events?last_event_id=0", headers={"Last-Event-ID": "x"}).status_code == 400


TRIM = """
import asyncio, sys
from pathlib import Path
from wirechamber.clock import SystemClock
from wirechamber.eventlog.sqlite import open_sqlite_log

async def main():
    async with open_sqlite_log(Path(sys.argv[1]), durability="full", clock=SystemClock()) as log:
        await log.trim(before_time=2**53, not_after=log.parse(sys.argv[2]), owner_bytes=None)

asyncio.run(main())
"""


def test_a_stream_says_what_is_gone(live: Cloud) -> None:
    token = live.user("ann")
    client = live.client(token)
    for number in range(6):
        client.post("/v1/devices/events", json={"name": f"n{number}"})
    with stream(client, "/v1/devices/events?last_event_id=0") as source:
        cursors = [event.cursor for event in take(source, 6)]
    with client.stream("GET", "/v1/events/rare?positions=blocks") as response:
        beside = next(line.removeprefix("id: ") for line in response.iter_lines() if line.startswith("id: "))
    assert live.stop() == 0
    subprocess.run(
        [sys.executable, "-c", TRIM, str(live.folder), cursors[3]], check=True, cwd=Path(__file__).parents[2]
    )
    live.start()
    client = live.client(token)
    lines: list[str] = []
    with client.stream("GET", "/v1/devices/events", headers={"Last-Event-ID": cursors[0]}) as response:
        for line in response.iter_lines():
            lines.append(line)
            if "n5" in line:
                break
    start = lines.index("event: wirechamber/gap")
    (data,) = [line for line in lines[start : start + 3] if line.startswith("data: ")]
    assert f'"{cursors[1]}"' in data
    assert f'"{cursors[3]}"' in data
    assert [line for line in lines if line.startswith("event: n")] == ["event: n4", "event: n5"]
    # Who has come past it is told of none, nor is one for whom there was nothing in it, and who was told so.
    with stream(client, last_event_id=cursors[3]) as source:
        assert [event.name for event in take(source, 2)] == ["n4", "n5"]
    client.post("/v1/devices/events", json={"name": "rare/1"})
    for position, first in ((cursors[0], "wirechamber/gap"), (beside, "rare/1")):
        with client.stream("GET", "/v1/events/rare", headers={"Last-Event-ID": position}) as response:
            assert next(line for line in response.iter_lines() if line.startswith("event: ")) == f"event: {first}"


def test_addresses_are_told_apart_as_a_trusted_proxy_says(tmp_path: Path) -> None:
    settings = {"streams_per_address": "1", "trusted_proxies": "127.0.0.0/8"}
    with cloud(tmp_path / "data", **settings) as live, ExitStack() as stack:
        client = live.client(live.user("ann"))
        for address in ("203.0.113.1", "203.0.113.2", "2001:db8::1"):
            stack.enter_context(stream(client, X_Forwarded_For=f"10.9.9.9, {address}"))
        # What the client itself says before the proxy's word makes no new address of it.
        refused = client.get("/v1/devices/events", headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.2"})
        assert (refused.status_code, refused.json()["error"]) == (429, "rate_limited")
        assert _metric(live, 'wirechamber_input_refused_total{reason="rate_limited"}') == 1
        # One host has a whole /64.
        refused = client.get("/v1/devices/events", headers={"X-Forwarded-For": "2001:db8::ffff:1"})
        assert refused.status_code == 429
        assert _metric(live, "wirechamber_streams_open") == 3


def _fill(live: Cloud, token: str, connection: socket.socket) -> int:
    """Publishes until the reader, who does not read, has more waiting than the kernel takes; returns how many."""
    assert b"200 OK" in connection.recv(1000)
    client = live.client(token)
    for number in range(1_000):
        answer = client.post("/v1/devices/events", json={"name": f"n{number}", "data": "x" * 16_000})
        assert answer.status_code == 200
        if number % 20 == 19 and _metric(live, "wirechamber_streams_let_go_total") >= 1:
            return number + 1
    raise AssertionError("the reader was not let go")


def test_who_was_let_go_resumes_where_it_was(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", stream_buffer_kb="16") as live:
        token = live.user("ann")
        with _connect(live, token) as slow:
            count = _fill(live, token, slow)
            got = b""
            with suppress(ConnectionError):
                while part := slow.recv(65536):
                    got += part
        # Only what ends with its empty line is an event; the last one may be cut in the middle.
        whole = re.findall(rb"id: (\d+)\nevent: (\w+)\ndata: [^\n]*\n\n", got)
        assert 0 < len(whole) < count
        with stream(live.client(token), Last_Event_ID=whole[-1][0].decode()) as source:
            names = [name.decode() for _, name in whole] + [seen.name for seen in take(source, count - len(whole))]
        assert names == [f"n{number}" for number in range(count)]


def test_who_does_not_read_holds_no_stop_up(tmp_path: Path) -> None:
    # More waits for it than the kernel takes, and not so much that it is let go.
    with cloud(tmp_path / "data", stream_buffer_kb=str(1024 * 64), shutdown_grace="1") as live:
        token = live.user("ann")
        with _connect(live, token) as stuck, stream(live.client(token)) as source:
            assert b"200 OK" in stuck.recv(1000)
            publisher = live.client(token)
            for _ in range(500):
                publisher.post("/v1/devices/events", json={"name": "n", "data": "x" * 16_000})
            take(source, 500)
            assert live.stop() == 0
            # The one that reads gets its last chunk: httpx would raise otherwise. The other one is cut.
            assert take(source, 1) == []
            assert _is_broken_off(stuck)


def test_a_position_from_another_log_is_a_gap_and_the_stream_goes_on(live: Cloud) -> None:
    client = live.client(live.user("ann"))
    client.post("/v1/devices/events", json={"name": "old"})
    with stream(client, "/v1/devices/events?last_event_id=0") as source:
        (old,) = take(source, 1)
    ahead = str(int(old.cursor) + 1_000)
    with client.stream("GET", "/v1/devices/events", headers={"Last-Event-ID": ahead}) as response:
        lines = response.iter_lines()
        assert [next(lines), next(lines)[:6]] == [":ok", "retry:"]
        assert [next(lines) for _ in range(3)] == [
            f"id: {old.cursor}",
            "event: wirechamber/gap",
            f'data: {{"first":"{int(old.cursor) + 1}","last":"{ahead}"}}',
        ]
        client.post("/v1/devices/events", json={"name": "new"})
        assert next(line for line in lines if line.startswith("event: ")) == "event: new"
    # The gap's own position is one to go on from.
    with stream(client, Last_Event_ID=old.cursor) as source:
        assert [event.name for event in take(source, 1)] == ["new"]
