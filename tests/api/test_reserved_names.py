"""Nobody but this cloud and devices' firmware makes events under `spark/`, `particle/` and `wirechamber/`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from typing import Any

import httpx
import pytest

from tests.cloud import Cloud, Target
from tests.sse import stream, take

NAMES = [
    "spark/status",
    " spark/status",
    "particle/device/x",
    "wirechamber/gap",
    "SPARK/status",
    "Wirechamber/gap",
    "spark/",
]


@pytest.fixture(scope="module")
def client(live_shared: tuple[Cloud, str]) -> httpx.Client:
    return live_shared[0].client(live_shared[1])


@pytest.mark.parametrize("name", NAMES)
def test_publishing_one_is_refused(client: httpx.Client, name: str) -> None:
    answer = client.post("/v1/devices/events", json={"name": name, "data": "online"})
    assert answer.status_code == 400
    assert "reserved" in answer.json()["error_description"]


@pytest.mark.parametrize(
    "name", ["spark", "sparkling/water", "particles/pm10", "mine/spark/x", "wirechambers", "hook-x"]
)
def test_what_only_looks_like_one_is_taken(client: httpx.Client, name: str) -> None:
    assert client.post("/v1/devices/events", json={"name": name}).json() == {"ok": True}


def test_the_command_refuses_it_too(live_shared: tuple[Cloud, str]) -> None:
    live, token = live_shared
    done = subprocess.run(
        [sys.executable, "-m", "wirechamber", "publish", "spark/status", "online"],
        env=live.environment | {"WIRECHAMBER_URL": live.url, "WIRECHAMBER_TOKEN": token},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "reserved" in done.stderr


@pytest.mark.parametrize("path", ["integrations", "webhooks"])
@pytest.mark.parametrize("field", ["responseTopic", "errorResponseTopic", "responseEvent", "errorTopic"])
@pytest.mark.parametrize("topic", ["spark/status", "wirechamber/gap", "Particle/{{coreid}}"])
def test_a_topic_is_refused_on_saving(client: httpx.Client, path: str, field: str, topic: str) -> None:
    hook = {"event": "x", "url": "http://127.0.0.1:1/"}
    refused = client.post(f"/v1/{path}", json=hook | {field: topic})
    assert refused.status_code == 400
    assert "reserved" in refused.json()["error_description"]
    made = client.post(f"/v1/{path}", json=hook).json()
    assert client.put(f"/v1/{path}/{made['id']}", json=hook | {field: topic}).status_code == 400
    assert client.delete(f"/v1/{path}/{made['id']}").is_success


def test_one_that_was_saved_before_can_still_be_changed(
    client: httpx.Client, live_shared: tuple[Cloud, str], target: Target
) -> None:
    target.answer = lambda method, path, body: (200, {}, b"online")
    hook = {"event": "saved-before", "url": target.url, "responseTopic": "mine/status"}
    made = client.post("/v1/webhooks", json=hook).json()
    with sqlite3.connect(live_shared[0].folder / "state.db") as db:
        query = "update integration set record = replace(record, 'mine/status', 'spark/status') where id = ?"
        assert db.execute(query, (made["id"],)).rowcount == 1
    db.close()
    path = f"/v1/webhooks/{made['id']}"
    assert client.put(path, json={"disabled": True}).json()["disabled"] is True
    shown = client.get(path).json()["webhook"]
    assert shown["responseTopic"] == "spark/status"
    assert client.put(path, json=shown | {"disabled": False}).json()["disabled"] is False
    with stream(client, "/v1/devices/events") as events:
        client.post("/v1/devices/events", json={"name": "saved-before"})
        names = [event.name for event in take(events, 3)]
    assert names == ["saved-before", "hook-sent/saved-before", "hook-response/saved-before/0"]
    client.delete(path)


def test_a_topic_that_becomes_one_gets_the_usual_name(client: httpx.Client, target: Target) -> None:
    """What is published decides what a template makes of the topic."""
    target.answer = lambda method, path, body: (200, {}, b"online") if b"good" in body else (400, {}, b"")
    hook: dict[str, Any] = {
        "event": "made-topic", "url": target.url, "json": {"v": "{{{v}}}"}, "responseTopic": "{{{t}}}/status",
        "errorResponseTopic": "{{{t}}}/gap",
    }  # fmt: skip
    made = client.post("/v1/webhooks", json=hook).json()
    with stream(client, "/v1/devices/events") as events:
        for topic in ("spark", "mine"):
            for value in ("good", "bad"):
                client.post(
                    "/v1/devices/events", json={"name": "made-topic", "data": f'{{"t":"{topic}","v":"{value}"}}'}
                )
        names = [event.name for event in take(events, 10)]
    assert [name for name in names if name.startswith("spark/")] == []
    assert sorted(name for name in names if "made-topic" not in name) == ["mine/gap/0", "mine/status/0"]
    assert {"hook-response/made-topic/0", "hook-error/made-topic/0"} <= set(names)
    client.delete(f"/v1/webhooks/{made['id']}")
