from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.cloud import Cloud, Target, eventually

Node = Callable[..., "subprocess.Popen[str]"]
PASSWORD = "correct horse"


class Cli:
    """particle-cli with a home of its own, set up for one cloud."""

    def __init__(self, node: Node, home: Path, url: str) -> None:
        self._node = node
        self._home = home
        self("config", "wirechamber")
        self("config", "set", "apiUrl", url)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return self._node("node_modules/particle-cli/src/index.js", *arguments, home=self._home)

    def __call__(self, *arguments: str) -> str:
        done = self.start(*arguments)
        out, err = done.communicate(timeout=60)
        assert done.returncode == 0, f"{arguments}: {out}{err}"
        return out + err


@pytest.mark.timeout(240)
def test_particle_cli_does_the_main_job(live: Cloud, target: Target, node: Node, tmp_path: Path) -> None:
    target.answer = lambda method, path, body: (200, {}, b"thanks")
    live.user("ann@example.com", PASSWORD)
    device = "0123456789abcdef01234567"
    live.command("device", "add", device, "--owner", "ann@example.com", "--name", "kitchen")
    cli = Cli(node, tmp_path / "home", live.url)
    assert "Successfully completed login" in cli("login", "--username", "ann@example.com", "--password", PASSWORD)
    assert "ann@example.com" in cli("whoami")
    assert "kitchen" in cli("list")

    hook_file = tmp_path / "hook.json"
    hook = {
        "event": "temperature", "eventName": "temperature", "url": target.url, "requestType": "POST",
        "mydevices": True, "rejectUnauthorized": "true", "body": "{{PARTICLE_EVENT_VALUE}}", "_": "a comment",
    }  # fmt: skip
    hook_file.write_text(json.dumps(hook))
    created = cli("webhook", "create", str(hook_file))
    assert "Successfully created webhook" in created
    (hook_id,) = re.findall(r"[0-9a-f]{24}", created)
    assert target.url in cli("webhook", "list")

    watching = cli.start("subscribe", "--max", "3")
    assert watching.stdout is not None
    shown = ""
    while "Getting event stream" not in shown and "Subscribing" not in shown:
        line = watching.stdout.readline()
        assert line, "particle subscribe ended"
        shown += line
    eventually(lambda: live_streams(live) > 0, what="the stream")
    cli("publish", "temperature", "21.5")
    out, err = watching.communicate(timeout=60)
    seen = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [event["name"] for event in seen] == [
        "temperature",
        "hook-sent/temperature",
        "hook-response/temperature/0",
    ], err
    assert seen[2]["data"] == "thanks"
    assert target.requests[0][3] == b"21.5"
    assert "deleted" in cli("webhook", "delete", hook_id).lower()
    assert target.url not in cli("webhook", "list")
    cli("logout")


def live_streams(live: Cloud) -> float:
    """How many streams the server says are open."""
    for line in httpx.get(f"{live.url}/metrics").text.splitlines():
        if line.startswith("wirechamber_streams_open"):
            return float(line.split()[-1])
    return 0.0
