"""An integration that does nothing tells why: its prefix is off, or its target may not be reached."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cloud import Cloud, cloud

URL = "http://10.9.0.1/in"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder: Path = tmp_path_factory.mktemp("why")
    settings = {"outbound_allow": "10.9.0.0/16,127.0.0.2/32", "retry_schedule": "0", "request_timeout": "1"}
    with cloud(folder / "data", **settings) as running:
        running.environment |= {"WIRECHAMBER_URL": running.url, "WIRECHAMBER_TOKEN": running.user("ann")}
        yield running


@pytest.fixture
def client(live: Cloud) -> Iterator[httpx.Client]:
    client = live.client(live.environment["WIRECHAMBER_TOKEN"])
    yield client
    for each in client.get("/v1/integrations").json():
        client.delete(f"/v1/integrations/{each['id']}")


def make(client: httpx.Client, **settings: Any) -> dict[str, Any]:
    made = client.post("/v1/integrations", json={"event": "x", "url": URL} | settings)
    assert made.status_code == 201, made.text
    return dict(made.json())


def said(live: Cloud, *arguments: str) -> str:
    """What a command prints for people, wherever."""
    done = subprocess.run(
        [sys.executable, "-m", "wirechamber", *arguments],
        env=live.environment | {"COLUMNS": "200"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:9000/in", "127.0.0.1"),
        ("http://localhost:9000/in", "127.0.0.1"),
        ("http://LOCALHOST./in", "127.0.0.1"),
        ("http://api.localhost/in", "127.0.0.1"),
        ("http://192.168.1.20:8086/write?db={{{db}}}", "192.168.1.20"),
        ("https://user:word@10.0.0.7/", "10.0.0.7"),
        ("http://[::1]/", "::1"),
        ("http://[fe80::1%25eth0]/", "fe80::1"),
        ("http://2130706433/", "127.0.0.1"),
        ("http://0x7f.1/", "127.0.0.1"),
        ("http://169.254.169.254/latest", "169.254.169.254"),
    ],
)
def test_an_address_that_may_not_be_reached_is_told_when_it_is_saved(
    client: httpx.Client, url: str, address: str
) -> None:
    made = make(client, url=url)
    warning = next(each for each in made["warnings"] if address in each)
    assert warning.startswith(f"url: the address {address} is")
    assert ("WIRECHAMBER_OUTBOUND_ALLOW=" in warning) == (not address.startswith("169"))
    again = client.put(f"/v1/integrations/{made['id']}", json={"event": "x", "url": url})
    assert warning in again.json()["warnings"]


@pytest.mark.parametrize(
    "url", [URL, "http://127.0.0.2/", "https://example.com/", "http://8.8.8.8/", "http://{{{host}}}/", "http://1.example/",
            "http://10.9.0.1.example/", "http://[2606:4700::1111]/"],
)  # fmt: skip
def test_one_that_may_or_that_only_a_look_up_can_tell_is_not(client: httpx.Client, url: str) -> None:
    assert make(client, url=url)["warnings"] == []
    assert make(client, url="https://example.com/", body="see http://127.0.0.1/")["warnings"] == []


def test_the_command_line_tells_it(live: Cloud, client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "hook.json").write_text('{"event": "x", "url": "http://localhost:9000/"}')
    told = said(live, "integration", "create", str(tmp_path / "hook.json"))
    assert "warning: url: the address 127.0.0.1 is not allowed here" in told


def publish(client: httpx.Client, *names: str) -> None:
    for name in names:
        assert client.post("/v1/devices/events", json={"name": name, "data": "1"}).status_code == 200


def test_a_prefix_that_no_event_has_is_told_with_the_names_that_came(live: Cloud, client: httpx.Client) -> None:
    publish(client, "door", "temp/kitchen", "temp/bath", "temp/kitchen")
    made = make(client, event="Temp")["id"]
    names = "'temp/kitchen', 'temp/bath', 'door'"
    hint = f"no event that came lately begins with 'Temp'; letter case matters. There were {names}"
    assert client.get(f"/v1/integrations/{made}").json()["integration"]["hint"] == hint
    assert client.get(f"/v1/integrations/{made}/logs").json()["hint"] == hint
    (listed,) = client.get("/v1/integrations").json()
    assert listed["hint"] == hint
    for command in (("log", made), ("list",), ("show", made)):
        assert hint in said(live, "integration", *command), command
    # It is no setting, and may come back with the rest.
    shown = client.get(f"/v1/integrations/{made}").json()["integration"]
    assert client.put(f"/v1/integrations/{made}", json=shown).json()["warnings"] == []


def test_a_test_tells_that_the_name_would_not_match(live: Cloud, client: httpx.Client) -> None:
    publish(client, "temp/kitchen")
    made = make(client, event="Temp", url="http://127.0.0.2:9/")["id"]
    warnings = client.post(f"/v1/integrations/{made}/test", json={"name": "temp/bath"}).json()["warnings"]
    assert warnings[0] == (
        "an event named 'temp/bath' would not trigger it: it does not begin with 'Temp'; letter case matters"
    )
    # Even without a name, for which the prefix stands: no real event has it.
    (warning,) = client.post(f"/v1/integrations/{made}/test", json={}).json()["warnings"]
    assert "'temp/kitchen'" in warning
    told = said(live, "integration", "test", made, "--name", "temp/bath")
    assert "warning: an event named 'temp/bath' would not trigger it" in told


def test_where_events_match_there_is_nothing_to_be_told(client: httpx.Client) -> None:
    publish(client, "fits/x", "other")
    made = make(client, event="fits", url="http://127.0.0.2:9/")["id"]
    assert "hint" not in client.get(f"/v1/integrations/{made}").json()["integration"]
    assert "hint" not in client.get(f"/v1/integrations/{made}/logs").json()
    assert client.post(f"/v1/integrations/{made}/test", json={"name": "fits/y"}).json()["warnings"] == []


def test_the_device_may_be_what_does_not_fit(client: httpx.Client) -> None:
    publish(client, "fits/x")
    made = make(client, event="fits", deviceID="0123456789abcdef01234567")["id"]
    hint = client.get(f"/v1/integrations/{made}").json()["integration"]["hint"]
    assert hint == "events that begin with 'fits' came lately, but none of the device 0123456789abcdef01234567"


def test_one_that_is_disabled_has_no_hint_and_a_test_says_so(client: httpx.Client) -> None:
    publish(client, "temp/kitchen")
    made = make(client, event="Temp", disabled=True, url="http://127.0.0.2:9/")["id"]
    assert "hint" not in client.get(f"/v1/integrations/{made}").json()["integration"]
    assert client.post(f"/v1/integrations/{made}/test", json={}).json()["warnings"] == [
        "it is disabled: no event triggers it"
    ]
