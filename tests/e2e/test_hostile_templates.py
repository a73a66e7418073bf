"""Templates and data made to take long, or all memory, at a real cloud: the delivery fails by itself and for good."""

from __future__ import annotations

import json

import pytest

from tests.cloud import Cloud, Target, eventually

NUMBERS = '{"a":[' + ",".join("0" * 7_990) + "]}"
LONG = json.dumps({"a": "x" * 16_000})
DEEP = '{"a":' + "[" * 900 + "]" * 900 + "}"


@pytest.mark.parametrize(
    ("name", "body", "data", "why"),
    [
        ("numbers", "{{{a}}}" * 2_900, NUMBERS, "more characters are printed than is allowed"),
        ("long", "{{a}}" * 2_900, LONG, "more characters are printed than is allowed"),
        ("deep", "{{a}}", DEEP, "a value is nested more than 100 deep"),
        ("loops", "{{#a}}" * 20 + "{{/a}}" * 20, '{"a":[1,1,1,1,1]}', "it takes more than 30000 steps"),
    ],
)
def test_what_takes_too_much_is_tried_once_and_told(
    live_shared: tuple[Cloud, str], target: Target, name: str, body: str, data: str, why: str
) -> None:
    live, token = live_shared
    client = live.client(token)
    made = client.post("/v1/integrations", json={"event": f"hostile-{name}", "url": target.url, "body": body})
    assert made.status_code == 201, made.text
    hook = made.json()["id"]
    client.post("/v1/devices/events", json={"name": f"hostile-{name}", "data": data}).raise_for_status()
    (attempt,) = eventually(lambda: client.get(f"/v1/integrations/{hook}/logs").json()["logs"])
    assert (attempt["final"], attempt["ok"], attempt["attempt"]) == (True, False, 1)
    assert attempt["error"] == why
    assert target.requests == []
    client.delete(f"/v1/integrations/{hook}")
    assert "Traceback" not in live.log_file.read_text()


def test_more_tags_than_there_may_be_are_refused_with_the_field(live_shared: tuple[Cloud, str]) -> None:
    live, token = live_shared
    sent = {"event": "hostile", "url": "http://127.0.0.1/", "body": "{{{a}}}" * 10_000}
    refused = live.client(token).post("/v1/integrations", json=sent)
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("body: is no valid template: there are more than 3000 tags")
