"""What Particle's cloud has and this one has not: empty lists where clients look, and refusals that say so."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.cloud import Cloud

DEVICE = "d" * 24
# Longer than any body that is read.
FIRMWARE = b"\x00\x20\xff\r\n--" * 200_000


@pytest.fixture(scope="module")
def client(live_shared: tuple[Cloud, str]) -> httpx.Client:
    live, token = live_shared
    live.command("device", "add", DEVICE, "--owner", "shared", "--name", "flashed")
    return live.client(token)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/products", "products"), ("/v1/user/products", "products"), ("/v1/orgs", "organizations"),
        ("/v1/sims", "sims"), ("/v1/networks", "networks"), ("/v1/libraries", "data"), ("/v1/secrets", "secrets"),
        ("/v1/ledgers?scope=Owner", "ledger_definitions"), ("/v1/logic/functions", "logic_functions"),
        ("/v1/device-os/versions", None), ("/v1/build_targets", "targets"), ("/v1/products/", "products"),
    ],
)  # fmt: skip
def test_lists_of_what_is_not_there_are_empty(client: httpx.Client, path: str, field: str | None) -> None:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    said: Any = answer.json()
    assert (said if field is None else said[field]) == []


def test_environment_variables_are_none(client: httpx.Client) -> None:
    said = client.get("/v1/env").json()
    assert said["last_snapshot"] is None
    assert said["latest"]["own"] == said["latest"]["inherited"] == {}


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("POST", "/v1/binaries", "compiling"), ("GET", "/v1/serial_numbers/P046", "serial numbers"),
        ("GET", "/v1/sims/89", "SIM cards"), ("GET", "/v1/libraries/neopixel", "libraries"),
        ("GET", "/v1/user/mfa-enable", "second factor"), ("GET", "/v1/ledgers/x/instances", "ledgers"),
    ],
)  # fmt: skip
def test_one_of_them_is_refused_in_words(client: httpx.Client, method: str, path: str, what: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 404
    assert what in answer.json()["error_description"]
    assert "not offered" in answer.json()["error_description"]


def test_nothing_is_made_of_a_product(client: httpx.Client) -> None:
    for path in ("/v1/products", "/v1/user/products", "/v1/products/1/customers"):
        assert client.post(path, json={"product": {"name": "x"}}).json()["error"] == "Product not found."


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"file": ("fw.bin", b"\x00\x01\r\n--x\xff" * 100)}, "data": {"latest": "true"}},
        {"files": {"file": ("fw.bin", b"x"), "file2": ("src/a.ino", b"y")}, "data": {"name": "another"}},
        {"files": {"file": ("fw.bin", FIRMWARE)}},
        {"json": {"app_id": "5f0b"}},
        {"json": {"firmware_updates_forced": True}},
        {"data": {"desired_firmware_version": "3"}},
    ],
    ids=["file", "files", "large", "app", "forced", "version"],
)
def test_firmware_is_not_sent_and_nobody_is_told_that_it_was(client: httpx.Client, change: dict[str, Any]) -> None:
    answer = client.put(f"/v1/devices/{DEVICE}", **change)
    assert answer.status_code == 400
    said = answer.json()
    assert said["error"] == "not_offered"
    assert "firmware updates are not offered yet" in said["error_description"]
    # particle-cli takes either for a success.
    assert said.keys().isdisjoint({"status", "message"})
    assert client.get(f"/v1/devices/{DEVICE}").json()["name"] == "flashed"


def test_a_form_of_parts_without_a_file_changes_a_device(client: httpx.Client) -> None:
    answer = client.put(f"/v1/devices/{DEVICE}", files={"notes": (None, "by the door")})
    assert answer.json()["notes"] == "by the door"


def test_a_forgotten_password_is_the_operators_to_set(live_shared: tuple[Cloud, str]) -> None:
    answer = httpx.post(f"{live_shared[0].url}/v1/user/password-reset", json={"username": "shared"})
    assert answer.status_code == 403
    assert "wirechamber user password" in answer.json()["error_description"]
