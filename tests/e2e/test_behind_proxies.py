"""The configurations of docs/reverse-proxy.md, as they stand there, before a real cloud."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.cloud import Cloud, cloud
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


def test_a_stream_is_told_to_come_back_while_the_cloud_is_away_and_nothing_else_is_taken_for_done(
    live: Cloud, token: str, proxies: dict[str, Proxy]
) -> None:
    named = [each for name, each in proxies.items() if name != BARE]
    if not named:
        pytest.skip("no proxy is installed here")
    live.stop()
    try:
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
    finally:
        live.start()
    for each in named:
        with through(each, token) as client, client.stream("GET", "/v1/events") as back:
            assert (next(back.iter_lines()), back.status_code) == (":ok", 200), each.name
