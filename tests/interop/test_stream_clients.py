"""Real clients of event streams, each of which loses its connection before the first event and comes back after one."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import sseclient
from aiohttp_sse_client2 import client as aiohttp_sse
from httpx_sse import connect_sse

from tests.browser import browser, installed
from tests.cloud import Cloud, cloud, eventually
from tests.interop.cutter import Cutter
from tests.interop.readers import Node, Reader, Said, in_node

POSITION = "wirechamber/position"
# Streams that one user may have.
ROOM = 9


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("clients") / "data", keep_alive="0.3", streams_per_owner=str(ROOM)) as running:
        yield running


@pytest.fixture(scope="module")
def token(live: Cloud) -> str:
    return live.user("ann")


@pytest.fixture
def relay(live: Cloud, cutter: Cutter) -> tuple[Cutter, str]:
    return cutter, cutter.url(live.url)


# --- the clients ---


@contextmanager
def in_thread(work: Callable[[Said], None]) -> Iterator[Said]:
    """A Python client that goes on until its relay is closed."""
    said: Said = []

    def run() -> None:
        with suppress(OSError, httpx.HTTPError, aiohttp.ClientError, ConnectionError):
            work(said)

    threading.Thread(target=run, daemon=True).start()
    yield said


def note(said: Said, name: str | None, data: str) -> None:
    if name != POSITION:
        said.append({"name": name, "data": json.loads(data)["data"]})


def httpx_sse(url: str, token: str) -> Callable[[Said], None]:
    """As docs/streams.md shows."""

    def work(said: Said) -> None:
        since: dict[str, str] = {}
        path = f"{url}/v1/devices/events/httpx?positions=events"
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False) as client:
            for _ in range(2):
                with (
                    suppress(httpx.RemoteProtocolError, httpx.ReadError),
                    connect_sse(client, "GET", path, headers=since) as source,
                ):
                    said.append({"open": True})
                    for event in source.iter_sse():
                        since = {"Last-Event-ID": event.id}
                        note(said, event.event, event.data)

    return work


def sseclient_py(url: str, token: str) -> Callable[[Said], None]:
    def work(said: Said) -> None:
        since: dict[str, str] = {}
        path = f"{url}/v1/devices/events/sseclient-py?positions=events"
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False) as client:
            for _ in range(2):
                with (
                    suppress(httpx.RemoteProtocolError, httpx.ReadError),
                    client.stream("GET", path, headers=since) as response,
                ):
                    said.append({"open": True})
                    for event in sseclient.SSEClient(response.iter_bytes()).events():
                        since = {"Last-Event-ID": event.id or ""}
                        note(said, event.event, event.data)

    return work


def aiohttp_sse_client(url: str, token: str) -> Callable[[Said], None]:
    async def follow(said: Said) -> None:
        path = f"{url}/v1/devices/events/aiohttp"
        headers = {"Authorization": f"Bearer {token}"}
        source = aiohttp_sse.EventSource(path, headers=headers, on_open=lambda: said.append({"open": True}))
        async with source:
            while True:
                with suppress(aiohttp.ClientPayloadError, ConnectionError):
                    async for event in source:
                        note(said, event.type, event.data)
                await source.connect()

    return lambda said: asyncio.run(follow(said))


@contextmanager
def curl(url: str, token: str) -> Iterator[Said]:
    """A script that remembers the last `id:` line that it has read."""

    def work(said: Said) -> None:
        since, name = "", ""
        for _ in range(2):
            with subprocess.Popen(
                [
                    "curl", "-sSN", "--noproxy", "*", "-H", f"Authorization: Bearer {token}", "-H",
                    f"Last-Event-ID: {since}", f"{url}/v1/devices/events/curl",
                ],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            ) as process:  # fmt: skip
                running.append(process)
                assert process.stdout is not None
                for line in process.stdout:
                    field, _, value = line.strip().partition(": ")
                    if field == ":ok":
                        said.append({"open": True})
                    elif field == "id":
                        since = value
                    elif field == "event":
                        name = value
                    elif field == "data":
                        note(said, name, value)

    running: list[subprocess.Popen[str]] = []
    with in_thread(work) as said:
        try:
            yield said
        finally:
            for process in running:
                process.kill()


@contextmanager
def chromium(folder: Path, url: str, token: str) -> Iterator[Said]:
    script = f"""
        const source = new EventSource('{url}/v1/devices/events/chromium?access_token={token}');
        source.onopen = () => say({{ open: true }});
        for (const name of ['message', 'chromium/1', 'chromium/2']) {{
            source.addEventListener(name, (event) => say({{ name, data: JSON.parse(event.data).data }}));
        }}
    """
    with browser(folder, script) as said:
        yield said


# --- what they must see ---


@pytest.mark.timeout(240)
def test_a_client_that_is_cut_before_its_first_event_misses_nothing_and_sees_nothing_else(
    live: Cloud, token: str, relay: tuple[Cutter, str], node: Node, tmp_path: Path
) -> None:
    cutter, url = relay
    with ExitStack() as stack, live.client(token) as publisher:

        def start(name: str, context: Any) -> Reader:
            return Reader(name, stack.enter_context(context))

        readers = [
            start("eventsource", in_node(node, "eventsource", url, token, "eventsource", "positions=events")),
            start("polyfill", in_node(node, "event-source-polyfill", url, token, "polyfill", "positions=events")),
            start("httpx", in_thread(httpx_sse(url, token))),
            start("sseclient-py", in_thread(sseclient_py(url, token))),
            start("aiohttp", in_thread(aiohttp_sse_client(url, token))),
        ]
        if shutil.which("curl"):
            readers.append(start("curl", curl(url, token)))
        if installed():
            readers.append(start("chromium", chromium(tmp_path / "chromium", url, token)))
        # It comes back without a word about where it was, and so sees what is published from then on.
        forgetful = start("particle-api-js", in_node(node, "particle-api-js", url, token, "particle-api-js"))
        everybody = [*readers, forgetful]

        def publish(which: str) -> None:
            for each in everybody:
                for name in (f"{each.name}/{which}", f"other/{which}"):
                    answer = publisher.post("/v1/devices/events", json={"name": name, "data": which})
                    assert answer.status_code == httpx.codes.OK

        def saw(which: str, those: list[Reader]) -> None:
            for each in those:
                wanted = (f"{each.name}/{which}", which)
                eventually(lambda each=each, wanted=wanted: wanted in each.events, 40, f"{wanted}: {each.said}")

        eventually(lambda: all(each.opens for each in everybody), 60, "opening")
        # As when the server is away: nobody is back before the event is there.
        cutter.hold()
        cutter.cut()
        publish("1")
        cutter.release()
        saw("1", readers)
        eventually(lambda: forgetful.opens > 1, 40, "coming back")
        publish("2")
        saw("2", everybody)
        for each in readers:
            assert each.events == [(f"{each.name}/{which}", which) for which in "12"], each.name
        assert forgetful.events == [("particle-api-js/2", "2")]


@pytest.mark.timeout(240)
def test_an_eventsource_that_finds_no_room_comes_back_until_there_is_some(
    live: Cloud, node: Node, tmp_path: Path
) -> None:
    token = live.user("bob")
    with ExitStack() as stack, live.client(token) as client:
        crowd = stack.enter_context(ExitStack())
        for _ in range(ROOM):
            assert crowd.enter_context(client.stream("GET", "/v1/events/nothing")).status_code == httpx.codes.OK
        clients: dict[str, Any] = {
            "eventsource": in_node(node, "eventsource", live.url, token, "eventsource"),
            "polyfill": in_node(node, "event-source-polyfill", live.url, token, "polyfill"),
            "aiohttp": in_thread(aiohttp_sse_client(live.url, token)),
        }
        if installed():
            clients["chromium"] = chromium(tmp_path / "chromium", live.url, token)
        readers = [Reader(name, stack.enter_context(context)) for name, context in clients.items()]
        eventually(lambda: all(each.opens for each in readers), 60, "being refused")
        crowd.close()
        eventually(lambda: _open(live) == len(readers), 60, "room for all")
        for each in readers:
            answer = client.post("/v1/devices/events", json={"name": f"{each.name}/1", "data": "1"})
            assert answer.status_code == httpx.codes.OK
            eventually(lambda each=each: each.events == [(f"{each.name}/1", "1")], 20, each.name)
        # Each ends with its connection.
        client.delete("/v1/access_tokens/current")


def _open(live: Cloud) -> int:
    (line,) = (
        line
        for line in httpx.get(f"{live.url}/metrics").text.splitlines()
        if line.startswith("wirechamber_streams_open ")
    )
    return int(float(line.split()[1]))
