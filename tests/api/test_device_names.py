"""A device's name stands in paths of URLs as clients write it: every door that sets one keeps it to what works."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import unicodedata
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.cloud import Cloud

DEVICE, OTHER = "e1" * 12, "e2" * 12
BAD = ["a/b", "a?b", "a#b", "50%", "a\\b", "{a}", "/", "%2F", ".", "..", " x", "x ", "Events", "ping",
       OTHER, OTHER.upper(), "0123456789abcdef01234567", "a\nb", "", " ", "x" * 129]  # fmt: skip
GOOD = ["Küche 2", "温度", "😀", "a;b:c@d&e=f+g,h!i'j(k)l*m~n$o", "a.b", "x" * 128, DEVICE, '|^`<>"[]']


@pytest.fixture(scope="module")
def client(live_shared: tuple[Cloud, str]) -> httpx.Client:
    live, token = live_shared
    for device in (DEVICE, OTHER):
        live.command("device", "add", device, "--owner", "shared")
    return live.client(token)


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_no_url_carries_is_refused(client: httpx.Client, name: str) -> None:
    answer = client.put(f"/v1/devices/{DEVICE}", json={"name": name})
    assert answer.status_code == 400, answer.text
    assert "name" in answer.json()["error_description"] or "reserved" in answer.json()["error_description"]


@pytest.mark.parametrize("name", GOOD)
def test_any_other_name_works_in_every_path(client: httpx.Client, name: str) -> None:
    assert client.put(f"/v1/devices/{DEVICE}", json={"name": name}).json()["name"] == name
    # As curl and particle-cli put it there, and escaped as much as can be.
    for written in (quote(name, safe="!$&'()*+,;=:@~"), "".join(f"%{byte:02X}" for byte in name.encode())):
        assert client.get(f"/v1/devices/{written}").json()["id"] == DEVICE
        called = client.post(f"/v1/devices/{written}/led", json={"args": "on"})
        assert called.json()["error"] == "timed out", called.text


def test_accents_may_be_written_in_either_way(client: httpx.Client) -> None:
    composed, apart = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    # A Mac's keyboard and its file system write them differently.
    assert client.put(f"/v1/devices/{DEVICE}", json={"name": apart}).json()["name"] == apart
    assert client.get(f"/v1/devices/{quote(composed)}").json()["id"] == DEVICE
    assert client.get(f"/v1/devices/{quote(apart.upper())}").json()["id"] == DEVICE
    assert client.put(f"/v1/devices/{OTHER}", json={"name": composed}).status_code == 400


@pytest.mark.parametrize("name", ["old/name", "old?", "100%"])
def test_a_name_of_before_works_where_it_is_escaped(
    client: httpx.Client, live_shared: tuple[Cloud, str], name: str
) -> None:
    with sqlite3.connect(live_shared[0].folder / "state.db") as db:
        query = "update device set name = ?1, name_key = ?1, record = json_set(record, '$.name', ?1) where id = ?2"
        db.execute(query, (name, OTHER))
    db.close()
    written = quote(name, safe="")
    assert client.get(f"/v1/devices/{written}").json()["id"] == OTHER
    assert client.post(f"/v1/devices/{written}/led", json={"args": "on"}).json()["error"] == "timed out"
    assert client.put(f"/v1/devices/{written}", json={"notes": "kept"}).json()["notes"] == "kept"
    assert client.put(f"/v1/devices/{written}", json={"name": "renamed"}).json()["name"] == "renamed"


@pytest.mark.parametrize("name", ["a/b", "50%", OTHER])
@pytest.mark.parametrize("door", ["add", "provision", "import"])
def test_the_commands_refuse_them_too(
    client: httpx.Client, live_shared: tuple[Cloud, str], tmp_path: Path, door: str, name: str
) -> None:
    live = live_shared[0]
    device = "e3" * 12
    listing = tmp_path / "devices.csv"
    listing.write_text(f"id,name\n{device},{name}\n")
    arguments = {
        "add": ["device", "add", device, "--owner", "shared", "--name", name],
        "provision": [
            "device",
            "provision",
            device,
            "--out",
            str(tmp_path / "out"),
            "--owner",
            "shared",
            "--name",
            name,
        ],
        "import": ["device", "import", str(listing), "--owner", "shared"],
    }[door]
    done = subprocess.run(
        [sys.executable, "-m", "wirechamber", *arguments],
        env=live.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "name" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert device not in [each["id"] for each in client.get("/v1/devices").json()]
