"""The real clients at what is beside the main job: lists of what is not there, OAuth clients, passwords, firmware."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cloud import Cloud, cloud
from tests.interop.test_particle_cli import Cli

Node = Callable[..., "subprocess.Popen[str]"]
USER, PASSWORD = "ann@example.com", "correct horse"
DEVICE = "0123456789abcdef01234567"


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("account") / "data") as live:
        live.user(USER, PASSWORD)
        live.command("device", "add", DEVICE, "--owner", USER, "--name", "kitchen")
        yield live


def test_particle_api_js(ann: Cloud, node: Node) -> None:
    done = node("api_js_account.mjs", ann.url, USER, PASSWORD, DEVICE)
    out, err = done.communicate(timeout=90)
    assert done.returncode == 0, out + err
    said = {line["what"]: line["value"] for line in map(json.loads, out.strip().split("\n"))}
    for what in ("products", "orgs", "own products", "sims", "libraries", "ledgers", "logic", "versions", "targets"):
        assert said[what] == [], what
    assert said["variables"] == {}
    assert said["identity"] == USER
    assert said["product"]["status"] == 404
    assert said["flash"]["status"] == 400
    assert "firmware updates are not offered yet" in said["flash"]["text"]
    assert said["reset"]["status"] == 403
    assert said["made"] == ["id", "name", "scope", "secret", "type"]
    assert said["listed"] == [[True, "dashboard", None]]
    assert said["updated"] == "another"
    assert said["as owner"] == [DEVICE]
    assert said["as owner, more"]["status"] == 403
    assert said["refreshed"] == 3600
    assert said["deleted"] == 204
    invalid = {"status": 401, "text": "The access token provided is invalid."}
    assert said["after"] == invalid
    assert said["changed"] is True
    assert said["own token"] == invalid
    assert said["again"] is True


@pytest.mark.timeout(240)
def test_particle_cli_says_that_there_are_no_firmware_updates(ann: Cloud, node: Node, tmp_path: Path) -> None:
    cli = Cli(node, tmp_path / "home", ann.url)
    cli("login", "--username", USER, "--password", PASSWORD)
    firmware = tmp_path / "fw.bin"
    firmware.write_bytes(bytes(range(256)) * 64)
    for device in (DEVICE, "kitchen"):
        done = cli.start("cloud", "flash", device, str(firmware))
        out, err = done.communicate(timeout=90)
        assert done.returncode != 0, out + err
        assert "firmware updates are not offered yet" in out + err
        assert "Flash success" not in out + err
