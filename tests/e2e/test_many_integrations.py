"""Lists of integrations in pages, bounds on what they take, and attempts that count against their owner."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.cloud import Cloud, Target, cloud, eventually
from tests.e2e.test_delivery_outcomes import attempts, hook, publish


def test_lists_come_in_pages_and_whole(live_shared: tuple[Cloud, str], target: Target) -> None:
    live, _ = live_shared
    token = live.user("many")
    client = live.client(token)
    made = [hook(client, target, f"event{number}", body="x" * 12_000) for number in range(60)]
    whole = client.get("/v1/integrations")
    assert [each["id"] for each in whole.json()] == made
    assert whole.headers["X-Total-Count"] == "60"
    assert [each["id"] for each in client.get("/v1/webhooks").json()] == made
    pages: list[str] = []
    while page := client.get("/v1/integrations", params={"per_page": 7, "after": pages[-1] if pages else ""}).json():
        assert len(page) <= 7
        pages += [each["id"] for each in page]
    assert pages == made
    third = client.get("/v1/webhooks", params={"page": 3, "per_page": 25})
    assert [each["id"] for each in third.json()] == made[50:]
    assert third.headers["X-Total-Count"] == "60"
    assert len(client.get("/v1/integrations", params={"page": 1}).json()) == 25
    assert client.get("/v1/integrations", params={"after": "no id"}).status_code == 400
    live.environment |= {"WIRECHAMBER_URL": live.url, "WIRECHAMBER_TOKEN": token}
    listed = json.loads(live.command("integration", "list", "--json"))
    assert [each["id"] for each in listed] == made
    # Whoever reads slowly has a page waiting, not everything.
    with client.stream("GET", "/v1/integrations") as answer:
        assert answer.headers.get("Transfer-Encoding") == "chunked"
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert json.loads(b"".join(answer.iter_bytes())) == whole.json()


def test_integrations_are_bounded_in_bytes(tmp_path: Path, target: Target) -> None:
    with cloud(tmp_path / "data", owner_integrations_mb="1", integrations_per_owner="4") as live:
        client = live.client(live.user("ann"))
        first = hook(client, target, "a", body="x" * 250_000)
        for number in range(3):
            hook(client, target, f"b{number}", body="x" * 245_000)
        wider = {"event": "b", "url": target.url, "body": "x" * 262_000}
        hooks = [each["id"] for each in client.get("/v1/integrations").json()]
        answers = [client.put(f"/v1/integrations/{each}", json=wider) for each in reversed(hooks)]
        refused = answers[-1]
        assert refused.status_code == 400, [each.status_code for each in answers]
        assert "1 MB" in refused.json()["error_description"]
        # Another owner has room of his own, and what was removed makes room.
        hook(live.client(live.user("bob")), target, "b", body="x" * 250_000)
        assert client.delete(f"/v1/integrations/{first}").status_code == 204
        assert client.get(f"/v1/integrations/{first}").status_code == 404
        hook(client, target, "small")
        refused = client.post("/v1/webhooks", json={"event": "c", "url": target.url})
        assert refused.status_code == 400
        assert "4 integrations" in refused.json()["error_description"]


def test_attempts_count_against_their_owner(tmp_path: Path, target: Target) -> None:
    target.answer = lambda method, path, body: (200, {}, b"a" * 100_000 if path == "/flood" else b"ok")
    with cloud(tmp_path / "data", owner_attempts_mb="1") as live:
        ann, bob = live.client(live.user("ann")), live.client(live.user("bob"))
        innocent = bob.post("/v1/webhooks", json={"event": "temp", "url": f"{target.url}/bob"}).json()["id"]
        publish(bob)
        eventually(lambda: len(attempts(bob, innocent)) == 1)
        flood = [
            ann.post("/v1/webhooks", json={"event": "temp", "url": f"{target.url}/flood"}).json()["id"]
            for _ in range(30)
        ]
        for _ in range(5):
            publish(ann, data="x" * 16_000)
        eventually(lambda: len(target.requests) == 151, 30)

        def kept() -> int:
            return sum(len(json.dumps(each)) for hook_id in flood for each in attempts(ann, hook_id))

        def crowded_out() -> float:
            lines = httpx.get(f"{live.url}/metrics").text.splitlines()
            counted = "wirechamber_attempts_crowded_out_total"
            return float(next(line.split()[1] for line in lines if line.startswith(counted)))

        eventually(lambda: crowded_out() > 0, 20, "crowding out")
        eventually(lambda: kept() < 2_000_000, 20, "shrinking")
        # The newest are told of still, and others are not concerned.
        assert sum(len(attempts(ann, hook_id)) for hook_id in flood) > 100
        assert "request" in attempts(bob, innocent)[0]
