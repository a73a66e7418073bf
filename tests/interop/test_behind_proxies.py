"""The configurations of docs/reverse-proxy.md, as they stand there, before a real cloud."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser import browser, installed
from tests.cloud import Cloud, cloud, eventually
from tests.interop.readers import Node, Reader, Said, in_node
from tests.proxies import BARE, MAKERS, Proxy, program, proxy

STREAMS = ("/v1/devices/events", "/v1/events/door", "/v1/devices/kitchen/events/x%2Fy", "//v1/events", "/v1/events?a=1")
OTHERS = ("/v1/devices", "/v1/user", "/v1/devices/events-of-mine", "/healthz")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("proxies") / "data"
    with cloud(folder, trusted_proxies="127.0.0.1/32", keep_alive="0.3") as running:
        yield running


@pytest.fixture(scope="module")
def token(live: Cloud) -> str:
    return live.user("ann")


@pytest.fixture(scope="module")
def proxies(live: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Proxy]]:
    """Those that are installed here, in front of the one cloud."""
    folder = tmp_path_factory.mktemp("before")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(proxy(name, folder / str(number), live.url))
            for number, name in enumerate(MAKERS)
            if program(name) is not None
        }


@pytest.fixture(params=list(MAKERS))
def before(request: pytest.FixtureRequest, proxies: dict[str, Proxy]) -> Proxy:
    if request.param not in proxies:
        pytest.skip(f"{MAKERS[request.param][0]} is not installed here")
    return proxies[request.param]


@contextmanager
def through(before: Proxy, token: str) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=before.ca) if before.ca else True
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=before.url, verify=context, headers=headers, timeout=20, trust_env=False) as client:
        yield client


def test_streams_and_answers_pass_as_they_come(before: Proxy, token: str) -> None:
    with through(before, token) as client:
        made = client.post("/v1/webhooks", json={"event": "x", "url": "http://127.0.0.1:1/"}).json()
        if before.name != BARE:
            # The proxy's word about how it was reached; the defaults of nginx say nothing.
            assert made["hookUrl"].startswith("https://127.0.0.1")
        with client.stream("GET", "/v1/devices/events/through") as stream:
            assert stream.status_code == 200
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            assert next(lines) == ":ok"
            client.post("/v1/devices/events", json={"name": "through", "data": before.name})
            seen: list[str] = []
            # It arrives while the stream stays open, and so do keep-alives.
            while not (any("through" in line for line in seen) and seen.count(":") > 4):
                seen.append(next(lines))
        # Refusals are the cloud's own.
        refused = client.get("/v1/devices/nobody/events")
        assert (refused.status_code, refused.json()["ok"]) == (403, False)


def test_browsers_have_http_2(before: Proxy, token: str) -> None:
    if before.name == BARE:
        pytest.skip("not over plain http")
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.run([curl, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("no curl with HTTP/2 is installed here")
    said = subprocess.run(
        [
            curl, "-sS", "--noproxy", "*", "--cacert", str(before.ca), "-H", f"Authorization: Bearer {token}",
            "-o", "/dev/null", "-w", "%{http_version} %{http_code}", f"{before.url}/v1/user",
        ],
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    assert said == "2 200"


def published(client: httpx.Client, name: str) -> int:
    return client.post("/v1/devices/events", json={"name": name, "data": "1"}).status_code


def test_while_the_cloud_is_away_streams_are_told_to_come_back_and_nothing_else_is_taken_for_done(
    live: Cloud, token: str, proxies: dict[str, Proxy], node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = [each for name, each in proxies.items() if name != BARE]
    if not named:
        pytest.skip("no proxy is installed here")
    with ExitStack() as stack:
        readers = []
        for each in named:
            # The name of the event is the prefix, and a number.
            monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(each.ca))
            started = in_node(node, "eventsource", each.url, token, each.name, "positions=events")
            readers.append(Reader(each.name, stack.enter_context(started)))
        if installed():
            said = stack.enter_context(browser(tmp_path / "chromium", in_browser(named, token)))
            readers += [Reader(each.name, View(said, each.name)) for each in named]
        eventually(lambda: all(each.opens for each in readers), 60, "opening")
        live.stop()
        for each in named:
            with through(each, token) as client:
                for path in STREAMS:
                    away = client.get(each.url + path)
                    assert (away.status_code, away.text) == (200, "retry: 2000\n"), (each.name, path)
                    assert away.headers["Content-Type"].startswith("text/event-stream"), each.name
                    assert away.headers["Access-Control-Allow-Origin"] == "*", each.name
                answers = [client.get(path) for path in OTHERS]
                answers.append(client.post("/v1/devices/events", json={"name": "n"}))
                answers.append(client.put("/v1/devices/kitchen/events", json={"name": "n"}))
                for away in answers:
                    assert (away.status_code, away.json()["error"]) == (503, "unavailable"), each.name
                    assert away.json()["error_description"]
                    assert away.headers["Content-Type"] == "application/json"
                    assert away.headers["Access-Control-Allow-Origin"] == "*", each.name
        # Each comes back to the proxy, and once more after what that says.
        eventually(lambda: all(each.opens > 2 for each in readers), 60, "coming back in vain")
        live.start()
        for each in named:
            with through(each, token) as client:
                assert published(client, f"{each.name}/1") == httpx.codes.OK
        for reader in readers:
            eventually(lambda reader=reader: reader.events, 40, f"coming back: {reader.name}: {reader.said}")
            assert reader.events == [(f"{reader.name}/1", "1")]


class View(Said):
    """What a page said of one of its streams."""

    def __init__(self, said: Said, of: str) -> None:
        super().__init__()
        self._said = said
        self._of = of

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter([each for each in self._said if each["of"] == self._of])


def in_browser(those: list[Proxy], token: str) -> str:
    """One page with a stream through each."""
    return "\n".join(
        f"""{{
            const of = '{each.name}', name = of + '/1';
            const source = new EventSource('{each.url}/v1/devices/events/{each.name}?access_token={token}');
            source.onopen = () => say({{ of, open: true }});
            source.onerror = () => say({{ of, error: source.readyState }});
            source.addEventListener(name, (event) => say({{ of, name, data: JSON.parse(event.data).data }}));
        }}"""
        for each in those
    )
