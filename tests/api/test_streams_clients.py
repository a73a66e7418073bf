"""What streams are for clients that differ: in HTTP's version, in how they come back, in what they make of a line."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest

from tests.cloud import Cloud, cloud, eventually
from tests.delivery.builders import OWNER
from tests.sse import stream, take
from tests.streams.test_hub import Wire, an_entry, settle
from wirechamber.api.streams import Stream
from wirechamber.api.wanted import Wanted
from wirechamber.eventlog.base import Cursor, EventLog, Scope
from wirechamber.eventlog.tail import Tail
from wirechamber.protocols import sse
from wirechamber.streams.hub import Hub, Reader
from wirechamber.streams.resume import Start

BROWSER = {
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0",
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("clients") / "data", keep_alive="0.2", streams_per_address="40") as running:
        yield running


@pytest.fixture(scope="module")
def user(live: Cloud) -> str:
    live.user("ann")
    return "ann"


@pytest.fixture
def token(live: Cloud, user: str) -> str:
    """One of the user's that a test may revoke. What tests publish has names of their own."""
    asked = {"grant_type": "password", "username": user, "password": "correct horse"}
    return str(httpx.post(f"{live.url}/oauth/token", data=asked).json()["access_token"])


def publish(client: httpx.Client, *names: str) -> None:
    for name in names:
        assert client.post("/v1/devices/events", json={"name": name, "data": name}).status_code == 200


def positions(client: httpx.Client, prefix: str) -> dict[str, str]:
    """Where each event is whose name begins so, by its name."""
    last = f"{prefix}/the-last"
    publish(client, last)
    found = {}
    with stream(client, f"/v1/events/{prefix}?last_event_id=0") as source:
        for seen in source:
            found[seen.name] = seen.cursor
            if seen.name == last:
                return found
    raise AssertionError("it did not come")


# --- HTTP/1.0 ---


@contextmanager
def raw(live: Cloud, request: str) -> Iterator[socket.socket]:
    host, port = live.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(request.replace("\n", "\r\n").encode())
        yield connection


def until(connection: socket.socket, end: bytes) -> bytes:
    got = b""
    while end not in got:
        part = connection.recv(65536)
        assert part, got
        got += part
    return got


def to_the_end(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_stream_of_http_1_0_is_what_comes_until_the_connection_ends(live: Cloud, token: str) -> None:
    client = live.client(token)
    publish(client, "v10/past/1", "v10/past/2")
    path = "/v1/devices/events/v10/?last_event_id=0"
    with (
        raw(live, f"GET {path} HTTP/1.0\nAuthorization: Bearer {token}\n\n") as old,
        raw(live, f"GET {path} HTTP/1.1\nHost: x\nAuthorization: Bearer {token}\n\n") as new,
    ):
        got, chunked = until(old, b'"v10/past/2"'), until(new, b'"v10/past/2"')
        assert b"\r\nTransfer-Encoding: chunked\r\n" in chunked
        publish(client, "v10/live/1", "v10/live/2")
        # Keep-alives, too.
        got += until(old, b":\n:\n")
        while b'"v10/live/2"' not in got:
            got += old.recv(65536)
        assert client.delete("/v1/access_tokens/current").status_code == 200
        got += to_the_end(old)
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.split()[1] == b"200"
    assert b"transfer-encoding" not in head.lower()
    names = re.findall(rb"^event: v10/(.*)$", body, re.MULTILINE)
    assert names == [b"past/1", b"past/2", b"live/1", b"live/2"]
    assert re.fullmatch(rb"(?::.*\n|retry: \d+\n|id: \d+\n(?:event: .*\ndata: \{.*\}\n\n)?)*", body)


def test_a_stream_of_http_1_0_ends_for_who_would_keep_the_connection(live: Cloud, token: str) -> None:
    head = f"Connection: keep-alive\nAuthorization: Bearer {token}\n"
    with raw(live, f"GET /v1/events/kept HTTP/1.0\n{head}\n") as connection:
        got = until(connection, b":ok\n")
        live.client(token).delete("/v1/access_tokens/current")
        got += to_the_end(connection)
    assert b"\r\nconnection: keep-alive" not in got.lower()


def test_curl_of_http_1_0_follows_and_ends_well(live: Cloud, token: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed here")
    client = live.client(token)
    url = f"{live.url}/v1/devices/events/curl"
    with subprocess.Popen(
        ["curl", "-0", "-sSN", "--noproxy", "*", "-H", f"Authorization: Bearer {token}", url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as started:  # fmt: skip
        assert started.stdout is not None
        assert started.stderr is not None
        assert started.stdout.readline() == b":ok\n"
        publish(client, "curl")
        while started.stdout.readline() != b"event: curl\n":
            pass
        assert started.stdout.readline().startswith(b'data: {"data":"curl"')
        client.delete("/v1/access_tokens/current")
        started.stdout.read()
        assert started.stderr.read() == b""
        assert started.wait(20) == 0


def test_every_answer_of_http_1_0_has_an_end_and_keeps_the_connection_only_if_asked(live: Cloud, token: str) -> None:
    host = f"Authorization: Bearer {token}\n"
    # Without Host, which 1.0 does not need.
    for path, status in (
        ("/healthz", 200), ("/v1/devices", 200), ("/v1/user", 200), ("/v1/openapi.json", 200), ("/docs", 200),
        ("/v1/webhooks", 200), ("/nothing", 404), ("/v1/devices/events/" + "x" * 65, 400),
    ):  # fmt: skip
        with raw(live, f"GET {path} HTTP/1.0\n{host}\n") as connection:
            head, _, body = to_the_end(connection).partition(b"\r\n\r\n")
            assert int(head.split()[1]) == status, (path, head)
            assert b"chunked" not in head, path
            assert body
    with raw(live, f"GET /v1/user HTTP/1.0\nConnection: keep-alive\n{host}\n") as connection:
        first = until(connection, b"}")
        assert b"connection: keep-alive" in first.lower()
        connection.sendall(f"GET /v1/user HTTP/1.0\n{host}\n".replace("\n", "\r\n").encode())
        assert to_the_end(connection).count(b"200 OK") == 1
    body_text = "name=old&data=1"
    post = f"POST /v1/devices/events HTTP/1.0\n{host}Content-Length: {len(body_text)}\n\n{body_text}"
    with raw(live, post) as connection:
        assert json.loads(to_the_end(connection).partition(b"\r\n\r\n")[2]) == {"ok": True}
    hook = json.dumps({"event": "x", "url": "http://127.0.0.1:1/"})
    made = f"POST /v1/webhooks HTTP/1.0\n{host}Content-Type: application/json\nContent-Length: {len(hook)}\n\n{hook}"
    with raw(live, made) as connection:
        # The address that it reached, since it does not say by what it calls this cloud.
        assert json.loads(to_the_end(connection).partition(b"\r\n\r\n")[2])["hookUrl"].startswith(live.url + "/")
    assert "request_failed" not in live.log_file.read_text()


# --- coming back ---

SPELLINGS = ("lastEventId", "evs_last_event_id", "lastEventID", "Last-Event-ID", "last_event_id")


def first_of(client: httpx.Client, query: str, **headers: str) -> str:
    with stream(client, f"/v1/events/back?{query}", **headers) as source:
        assert "Wirechamber-Unknown-Parameters" not in source.response.headers
        (seen,) = take(source, 1)
        return seen.name[-1]


def test_every_clients_name_for_the_last_event_is_taken_and_the_later_word_counts(live: Cloud, token: str) -> None:
    client = live.client(token)
    publish(client, "back/a", "back/b", "back/c")
    at = {name[-1]: position for name, position in positions(client, "back").items()}
    for name in SPELLINGS:
        assert first_of(client, f"{name}={at['b']}") == "c", name
        assert first_of(client, f"{name}={at['a']}", Last_Event_ID=at["b"]) == "c", name
        # What is empty says nothing.
        assert first_of(client, f"{name}={at['a']}", Last_Event_ID="") == "b", name
        # Added anew, behind what was there.
        assert first_of(client, f"{name}={at['a']}&{name}={at['b']}") == "c", name
    # event-source-polyfill adds its own to an address that already had one.
    for name in SPELLINGS[1:]:
        assert first_of(client, f"{name}={at['a']}&lastEventId={at['b']}") == "c", name
        assert first_of(client, f"lastEventId={at['b']}&{name}={at['a']}") == "c", name
    assert first_of(client, f"last_event_id={at['a']}&evs_last_event_id={at['b']}") == "c"


# --- where it is ---


def lines_of(response: httpx.Response) -> Iterator[str]:
    yield from response.iter_lines()


def next_position(lines: Iterator[str]) -> str:
    for line in lines:
        if line.startswith("id: "):
            return line.removeprefix("id: ")
    raise AssertionError("the stream has ended")


def test_a_browser_knows_where_it_is_before_the_first_event_and_while_others_pass(live: Cloud, token: str) -> None:
    client = live.client(token)
    with client.stream("GET", "/v1/events/rare", headers=BROWSER) as response:
        lines = lines_of(response)
        first = next_position(lines)
        # The blank line makes it the client's own.
        assert next(lines) == ""
        publish(client, "other/1", "other/2")
        moved = next_position(lines)
        assert next(lines) == ""
        assert int(moved) > int(first)
        publish(client, "other/3")
        while int(at := next_position(lines)) == int(moved):
            pass
        # Where nothing moved, comments alone.
        assert next(lines) == ""
    publish(client, "rare/1")
    for position in (first, moved, at):
        with stream(client, "/v1/events/rare", Last_Event_ID=position) as source:
            assert [seen.name for seen in take(source, 1)] == ["rare/1"]


def test_whoever_looked_at_the_past_for_nothing_is_told_so_at_once(live: Cloud, token: str) -> None:
    client = live.client(token)
    publish(client, *(f"other/{number}" for number in range(5)))
    newest = positions(client, "other")["other/the-last"]
    with client.stream("GET", "/v1/events/rarest?last_event_id=0", headers=BROWSER) as response:
        lines = lines_of(response)
        assert next_position(lines) == "0"
        assert int(next_position(lines)) >= int(newest)


def test_a_stream_that_finds_nothing_in_a_long_past_says_how_far_it_has_come() -> None:
    async def scenario() -> None:
        tail = Tail(Cursor("9000"), int)
        hub = Hub(tail, buffer_bytes=100)
        start = Start(cast(EventLog, SimpleNamespace(tail=tail, parse=Cursor, order=int)), "5")
        pipe = Wire()
        form = Wanted("rare", "5", sse.position_block, chunked=False, notes=())
        stream = Stream(cast(asyncio.Transport, pipe), "token", form, start)
        # The greeting has told where it begins.
        stream.breathe(tail.newest)
        # A page without an event for it has been read.
        start.position = Cursor("4005")
        stream.breathe(tail.newest)
        stream.breathe(tail.newest)
        reader = Reader(pipe, stream.end, chunked=False)
        stream.group = hub.join(Scope(owner=OWNER, prefix="rare"), reader)
        stream.breathe(tail.newest)
        # What waits to be written comes first.
        tail.extend([an_entry(9001, "rare/1")])
        stream.breathe(tail.newest)
        await settle()
        stream.breathe(tail.newest)
        hub.close()
        shown = [piece if len(piece) < 20 else piece.split(b"\n")[0] for piece in pipe.writes]
        assert shown == [b":\n", b"id: 4005\n\n", b":\n", b"id: 9000\n\n", b":\n", b"id: 9001", b"id: 9001\n\n"]

    asyncio.run(scenario())


def test_positions_come_as_the_client_asks_for_them(live: Cloud, token: str) -> None:
    client = live.client(token)
    with stream(client, "/v1/events/rare?positions=events") as source:
        (first,) = take(source, 1)
        assert (first.name, first.body) == ("wirechamber/position", {"position": first.cursor})
        publish(client, "other")
        (moved,) = take(source, 1)
        assert (moved.name, int(moved.cursor) > int(first.cursor)) == ("wirechamber/position", True)
        publish(client, "rare/1")
        assert next(seen.name for seen in source if seen.name != "wirechamber/position") == "rare/1"
    with client.stream("GET", "/v1/events/rare?positions=none", headers=BROWSER) as response:
        lines = lines_of(response)
        next_position(lines)
        publish(client, "other")
        assert [next(lines) for _ in range(4)] == [":"] * 4
    with client.stream("GET", "/v1/events/rare?positions=blocks") as response:
        lines = lines_of(response)
        next_position(lines)
        assert next(lines) == ""
    refused = client.get("/v1/events?positions=often")
    assert (refused.status_code, "blocks, events, none" in refused.json()["error_description"]) == (400, True)


def test_positions_come_over_http_1_0_as_well(live: Cloud, token: str) -> None:
    client = live.client(token)
    head = f"Authorization: Bearer {token}\nUser-Agent: curl/7.88.1\n\n"
    with raw(live, f"GET /v1/events/rare HTTP/1.0\n{head}") as connection:
        got = until(connection, b"\n\n")
        publish(client, "other")
        got = until(connection, b"\n\n")
        assert re.search(rb"^id: \d+\n\n", got, re.MULTILINE)


def test_nobody_who_would_make_an_event_of_it_gets_a_blank_line_without_one(live: Cloud, token: str) -> None:
    """httpx-sse makes one of every blank line once it has seen an id; sseclient of every one."""
    client = live.client(token)
    others: tuple[dict[str, str], ...] = (
        {"Accept": "text/event-stream", "Cache-Control": "no-store"},
        {"Accept": "text/event-stream", "Cache-Control": "no-cache", "User-Agent": "python-requests/2.34.2"},
        {"Accept": "text/event-stream", "Cache-Control": "no-cache", "User-Agent": "Go-http-client/1.1"},
        {"Accept": "text/event-stream", "User-Agent": BROWSER["User-Agent"]},
        {},
    )
    for headers in others:
        with client.stream("GET", "/v1/events/rare,x?a=1", headers=headers) as response:
            lines = lines_of(response)
            assert next(lines) == ":ok"
            publish(client, "other", "rare,x")
            before = []
            while not (line := next(lines)).startswith("event: "):
                before.append(line)
            assert "" not in before
            assert [next(lines)[:6], next(lines)] == ["data: ", ""]
            # And no line after it but comments.
            assert [next(lines) for _ in range(4)] == [":"] * 4


def test_httpx_sse_sees_what_was_published_and_nothing_else(live: Cloud, token: str) -> None:
    client = live.client(token)
    with stream(client, "/v1/events/n") as source:
        publish(client, "n1")
        assert [seen.name for seen in take(source, 1)] == ["n1"]
        # Some keep-alives' time, in which another prefix's events pass.
        with client.stream("GET", "/v1/events/n") as other:
            lines = lines_of(other)
            for _ in range(4):
                publish(client, "other")
                assert next(line for line in lines if line == ":")
        publish(client, "n2")
        assert [seen.name for seen in take(source, 1)] == ["n2"]


# --- several prefixes, and what is not known ---


def test_several_prefixes_make_one_stream_past_and_live(live: Cloud, token: str) -> None:
    client = live.client(token)
    publish(client, "a/1", "b/1", "c/1", "ab/2", "A/3", "b,c")

    def seen(path: str, last: str) -> list[str]:
        with stream(client, path + ("&" if "?" in path else "?") + "last_event_id=0") as source:
            publish(client, "c/2", last)
            found: list[str] = []
            while last not in found:
                found += [each.name for each in take(source, 1)]
            return found

    assert seen("/v1/events?prefix=a/&prefix=b/", "b/2") == ["a/1", "b/1", "b/2"]
    assert seen("/v1/devices/events?prefix=a&prefix=b%2F&prefix=A/", "a/2") == [
        "a/1",
        "b/1",
        "ab/2",
        "A/3",
        "b/2",
        "a/2",
    ]
    # The path's is one of them; one that is covered by another, or empty, changes nothing.
    assert seen("/v1/events/b/?prefix=a/&prefix=a/1&prefix=", "b/9") == ["a/1", "b/1", "b/2", "a/2", "b/9"]
    refused = client.get("/v1/events", params=[("prefix", f"n{number}/") for number in range(33)])
    assert (refused.status_code, "at most 32" in refused.json()["error_description"]) == (400, True)
    assert client.get(f"/v1/events?prefix={'x' * 65}").status_code == 400


def greeting(client: httpx.Client, path: str) -> tuple[httpx.Headers, list[str]]:
    with client.stream("GET", path) as response:
        lines = lines_of(response)
        head = []
        while not (line := next(lines)).startswith("id: "):
            head.append(line)
        return response.headers, head


def test_what_is_not_known_is_named_and_nobody_is_refused(live: Cloud, token: str) -> None:
    client = live.client(token)
    headers, lines = greeting(client, "/v1/events?since=yesterday&fo%0d%0ao=1&format=json&nonce=123&_=4")
    assert headers["Wirechamber-Unknown-Parameters"] == "since, fo??o, format"
    (note,) = (line for line in lines if "not known" in line)
    assert note.startswith(": not known here and ignored: since, fo??o, format; known are ")
    _, lines = greeting(client, "/v1/events/a,b")
    assert any("?prefix=a&prefix=b" in line for line in lines if line.startswith(": "))
    _, lines = greeting(client, "/v1/events/a?nonce=123")
    assert [line[:5] for line in lines] == [":ok", "retry"]
    for path, named in (
        ("/v1/devices?pgae=2&online=true&perPage=3&deviceName=x", "pgae"),
        ("/v1/webhooks?limit=3&perPage=2", "limit"),
        ("/v1/usage?since=2026-01-01T00:00:00Z&untill=x", "untill"),
        ("/v1/nothing?x=1", None),
        ("/v1/user?access_token=", None),
        ("/healthz?verbose=1", "verbose"),
    ):
        answered = client.get(path)
        assert answered.headers.get("Wirechamber-Unknown-Parameters") == named, path
    many = client.get("/v1/user?" + "&".join(f"{'x' * 50}{number}=1" for number in range(99)))
    assert len(many.headers["Wirechamber-Unknown-Parameters"]) < 500


def test_parameters_that_are_read_are_declared() -> None:
    """Or what is taken would be named as unknown."""
    from wirechamber.api.application import ROUTES

    declared = {
        name for route in ROUTES for each in route.parameters if each.where == "query"
        for name in (each.name, *each.spellings)
    }  # fmt: skip
    folder = Path(__file__).parents[2] / "src/wirechamber/api"
    read = {
        name
        for file in folder.glob("*.py")
        for call in re.findall(r"call\.(?:query|number)\(([^()]*)\)", file.read_text())
        for name in re.findall(r'"(\w+)"', call)
    }
    assert read
    assert read <= declared


# --- refusals that are over soon ---


def test_an_eventsource_that_is_refused_for_a_moment_is_told_when_to_come_back(tmp_path: Path) -> None:
    with cloud(tmp_path / "data", streams_per_owner="1") as live:
        token = live.user("ann")
        client = live.client(token)
        with stream(client):
            told = set()
            for _ in range(6):
                # A stream that ends at once: any other status would be the end for good.
                answered = client.get("/v1/events", headers=BROWSER)
                assert answered.status_code == 200
                assert answered.headers["Content-Type"].startswith("text/event-stream")
                assert answered.headers["Access-Control-Allow-Origin"] == "*"
                assert int(answered.headers["Retry-After"]) > 0
                comment, retry = answered.text.splitlines()
                assert comment.startswith(": ")
                assert "streams open" in comment
                told.add(int(retry.removeprefix("retry: ")))
            assert len(told) > 1
            assert min(told) >= 5_000
            # Everybody else can read what is wrong, and so can one whose token is.
            for headers in ({}, {"Accept": "text/event-stream", "Cache-Control": "no-store"}):
                refused = client.get("/v1/events", headers=headers)
                assert (refused.status_code, refused.json()["error"]) == (429, "rate_limited")
                assert int(refused.headers["Retry-After"]) > 0
            assert httpx.get(f"{live.url}/v1/events?access_token=x", headers=BROWSER).status_code == 401
            assert client.get("/v1/devices/unknown/events", headers=BROWSER).status_code == 403
        eventually(lambda: "event: n" in _read(client), what="another stream")


def _read(client: httpx.Client) -> str:
    publish(client, "n")
    with client.stream("GET", "/v1/events?last_event_id=0", headers=BROWSER) as response:
        return "".join(line + "\n" for line, _ in zip(response.iter_lines(), range(6), strict=False))
