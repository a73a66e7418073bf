from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from tests.cloud import Cloud, Target

Node = Callable[..., "subprocess.Popen[str]"]
PASSWORD = "correct horse"


def test_particle_api_js_does_the_main_job(live: Cloud, target: Target, node: Node) -> None:
    target.answer = lambda method, path, body: (200, {}, b"thanks")
    live.user("ann@example.com", PASSWORD)
    done = node("api_js.mjs", live.url, "ann@example.com", PASSWORD, target.url)
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, out + err
    said = {line["what"]: line["value"] for line in map(json.loads, out.strip().split("\n"))}
    assert said["login"] == {"type": "bearer", "life": 7_776_000}
    assert said["user"] == "ann@example.com"
    assert said["devices"] == []
    assert said["webhook"]["ok"] is True
    assert said["webhooks"] == [said["webhook"]["id"]]
    assert said["edited"] == "another"
    assert said["integrations"] == ["Webhook", "Webhook"]
    assert said["deleted"] == 204
    assert said["published"]["ok"] is True
    assert [(event["name"], event["data"]) for event in said["stream"]][0::2] == [
        ("temperature", "21.5 °C"),
        ("hook-response/temperature/0", "thanks"),
    ]
    assert said["unhooked"]["ok"] is True
    assert said["badToken"] == {"status": 401, "text": "The access token provided is invalid."}
    assert said["badPassword"] == {"status": 400, "text": "User credentials are invalid"}
    assert said["badStream"]["status"] == 401
    assert "The access token provided is invalid" in said["badStream"]["text"]
    assert said["unknownDevice"]["status"] == 403
    assert said["product"]["status"] == 404
    assert said["logout"]["ok"] is True
    body = json.loads(target.requests[0][3])
    assert body["celsius"] == "21.5 °C"
    assert body["coreid"] == "api"
