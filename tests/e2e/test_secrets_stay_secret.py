"""A target that echoes what it was sent: the secret is in no attempt, no event and no answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cloud import Cloud, Target, eventually
from tests.sse import stream, take

SECRET = "s3cr3t/w0rd"


@pytest.mark.parametrize(
    "more", [{}, {"responseTemplate": "{{{got}}} {{got}}"}, {"responseTemplate": {"a": "{{got}}"}},
             {"unchunked": True}, {"dataUrlResponseEvent": True}],
)  # fmt: skip
def test_an_echo_reaches_nobody(live_shared: tuple[Cloud, str], target: Target, more: dict[str, Any]) -> None:
    live, token = live_shared

    def echo(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = target.requests[-1][2]
        return 200, {"X-Echo": headers["X-Api-Key"]}, json.dumps({"got": headers["X-Api-Key"]}).encode()

    target.answer = echo
    client = live.client(token)
    settings = {"event": "echoed", "url": target.url, "headers": {"X-Api-Key": SECRET}, "secretHeaders": "x-api-key"}
    hook = client.post("/v1/integrations", json=settings | more).raise_for_status().json()["id"]
    with stream(client, "/v1/devices/events/hook-response/echoed") as source:
        client.post("/v1/devices/events", json={"name": "echoed"}).raise_for_status()
        (told,) = take(source, 1)
    logs = eventually(lambda: client.get(f"/v1/integrations/{hook}/logs").json()["logs"])
    tried = client.post(f"/v1/integrations/{hook}/test").json()
    assert target.requests[0][2]["X-Api-Key"] == SECRET
    assert "SENSITIVE" in told.data or told.data.startswith("data:")
    for text in (told.data, json.dumps(logs), json.dumps(tried)):
        assert "w0rd" not in text
        assert "dzByZA" not in text
    client.delete(f"/v1/integrations/{hook}")
