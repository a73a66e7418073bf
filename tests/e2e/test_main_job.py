"""publish → event log → webhook → answer → stream, through the public interface of a real server process."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.cloud import Cloud, Target, eventually
from tests.sse import stream, take


def test_an_event_goes_through_a_webhook_and_its_answer_comes_back_on_the_stream(live: Cloud, target: Target) -> None:
    target.answer = lambda method, path, body: (
        200,
        {"Content-Type": "application/json"},
        b'{"advice":"open a window"}',
    )
    with live.client(live.user("ann")) as client:
        made = client.post(
            "/v1/integrations",
            json={
                "integration_type": "Webhook",
                "event": "temp",
                "url": target.url + "/{{{PARTICLE_EVENT_NAME}}}",
                "json": {"celsius": "{{{c}}}"},
                "responseTemplate": "{{advice}}!",
            },
        )
        assert made.status_code == 201, made.text
        with stream(client) as source:
            answer = client.post("/v1/devices/events", json={"name": "temperature", "data": '{"c":38.50}'})
            assert answer.json()["ok"] is True
            published, sent, response = take(source, 3)
        assert (published.name, published.data, published.body["coreid"]) == ("temperature", '{"c":38.50}', "api")
        assert (sent.name, sent.body["coreid"]) == ("hook-sent/temperature", "particle-internal")
        assert (response.name, response.data) == ("hook-response/temperature/0", "open a window!")
        (method, path, headers, body) = target.requests[0]
        assert (method, path, headers["Content-Type"]) == ("POST", "/temperature", "application/json")
        assert json.loads(body) == {
            "celsius": "38.5",
            "event": "temperature",
            "data": '{"c":38.50}',
            "published_at": published.body["published_at"],
            "coreid": "api",
        }
        hook = made.json()["id"]
        shown = eventually(
            lambda: next(iter(client.get(f"/v1/integrations/{hook}").json()["integration"]["logs"]), None)
        )
        assert shown["status"] == 200 or shown["status_code"] == 200


def test_a_target_that_fails_at_first_is_tried_again_and_told_once_delivered(live: Cloud, target: Target) -> None:
    answers: Iterator[tuple[int, dict[str, str], bytes]] = iter([(503, {}, b"busy"), (200, {}, b"ok")])
    target.answer = lambda method, path, body: next(answers)
    with live.client(live.user("ann")) as client:
        client.post("/v1/webhooks", json={"event": "try", "url": target.url})
        with stream(client, "/v1/devices/events/hook-") as source:
            client.post("/v1/devices/events", json={"name": "try", "data": "x"})
            assert [event.name for event in take(source, 2)] == ["hook-sent/try", "hook-response/try/0"]
    assert len(target.requests) == 2


def test_a_final_failure_tells_one_hook_error(live: Cloud, target: Target) -> None:
    target.answer = lambda method, path, body: (404, {}, b"no")
    with live.client(live.user("ann")) as client:
        client.post("/v1/webhooks", json={"event": "try", "url": target.url})
        with stream(client, "/v1/devices/events/hook-") as source:
            client.post("/v1/devices/events", json={"name": "try"})
            (error,) = take(source, 1)
    assert error.name == "hook-error/try/0"
    assert error.data == "error status 404 from 127.0.0.1"
    assert len(target.requests) == 1


def test_a_loop_ends_because_results_trigger_nothing(live: Cloud, target: Target) -> None:
    target.answer = lambda method, path, body: (200, {}, b"echo")
    with live.client(live.user("ann")) as client:
        client.post("/v1/webhooks", json={"event": "loop", "url": target.url, "responseTopic": "loop"})
        with stream(client) as source:
            client.post("/v1/devices/events", json={"name": "loop"})
            assert [event.name for event in take(source, 3)] == ["loop", "hook-sent/loop", "loop/0"]
            client.post("/v1/devices/events", json={"name": "end"})
            assert take(source, 1)[0].name == "end"
    assert len(target.requests) == 1


def test_restarting_the_server_makes_no_delivery_twice_and_continues_retries(live: Cloud, target: Target) -> None:
    token = live.user("ann")
    with live.client(token) as client:
        client.post("/v1/webhooks", json={"event": "try", "url": target.url})
        for number in range(20):
            client.post("/v1/devices/events", json={"name": "try", "data": str(number)})
        eventually(lambda: len(target.requests) == 20, what="delivery")
    assert live.stop() == 0
    live.start()
    with live.client(token) as client, stream(client, "/v1/devices/events/hook-sent") as source:
        client.post("/v1/devices/events", json={"name": "try", "data": "last"})
        take(source, 1)
    assert len(target.requests) == 21
