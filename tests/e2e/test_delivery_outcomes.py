"""What becomes of a delivery: when it is tried again, when the device is told, and what its owner can look up."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from tests.cloud import Cloud, Target, cloud, eventually
from tests.sse import Seen, Stream, stream, take
from wirechamber.clock import SystemClock
from wirechamber.secrets import Vault
from wirechamber.store.sqlite import open_sqlite_store


def hook(client: httpx.Client, target: Target, event: str = "temp", **rest: Any) -> str:
    made = client.post("/v1/webhooks", json={"event": event, "url": target.url, **rest})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def publish(client: httpx.Client, name: str = "temp", data: str | None = None) -> None:
    answer = client.post("/v1/devices/events", json={"name": name, "data": data})
    assert answer.status_code == 200, answer.text


def until(source: Stream, name: str) -> list[Seen]:
    """The events up to and with the first one of that name."""
    seen: list[Seen] = []
    for event in source:
        seen.append(event)
        if event.name == name:
            return seen
    raise AssertionError(f"the stream ended without {name}: {seen}")


def attempts(client: httpx.Client, hook_id: str) -> list[dict[str, Any]]:
    """Newest first."""
    answer = client.get(f"/v1/integrations/{hook_id}/logs")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["logs"])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_these_are_tried_again(live_shared: tuple[Cloud, str], target: Target, status: int) -> None:
    live, token = live_shared
    answers: Iterator[int] = iter([status, status, 200])
    target.answer = lambda method, path, body: (next(answers), {}, b"")
    name = f"again{status}"
    with live.client(token) as client:
        made = hook(client, target, name)
        with stream(client, f"/v1/devices/events/hook-sent/{name}") as source:
            publish(client, name)
            take(source, 1)
        assert len(target.requests) == 3
        found = eventually(lambda: (logs := attempts(client, made)) and len(logs) == 3 and logs)
        assert [each["ok"] for each in found] == [True, False, False]
        client.delete(f"/v1/webhooks/{made}")


@pytest.mark.parametrize("status", [301, 304, 307, 400, 401, 404, 409, 410, 422])
def test_these_are_the_last_word(live_shared: tuple[Cloud, str], target: Target, status: int) -> None:
    live, token = live_shared
    target.answer = lambda method, path, body: (status, {"Location": target.url + "/else"}, b"")
    name = f"final{status}"
    with live.client(token) as client:
        made = hook(client, target, name)
        with stream(client, "/v1/devices/events/hook-") as source:
            publish(client, name)
            (error,) = take(source, 1)
            assert error.name == f"hook-error/{name}/0"
            assert f"error status {status} from" in error.data
        # Not by following it either.
        (found,) = eventually(lambda: attempts(client, made))
        assert found["ok"] is False
        assert [path for _, path, _, _ in target.requests] == ["/"]
        client.delete(f"/v1/webhooks/{made}")


def test_the_device_is_told_once_by_its_deadline_and_delivery_goes_on(tmp_path: Path, target: Target) -> None:
    answers: Iterator[int] = iter([500, 500, 500, 200])
    target.answer = lambda method, path, body: (next(answers), {}, b"late")
    settings = {"retry_schedule": "0,0.1,0.1,1.5", "answer_deadline": "0.5"}
    with cloud(tmp_path / "data", **settings) as live, live.client(live.user("ann")) as client:
        made = hook(client, target)
        with stream(client, "/v1/devices/events/hook-") as source:
            publish(client)
            seen = until(source, "hook-response/temp/0")
        assert [event.name for event in seen] == ["hook-error/temp/0", "hook-sent/temp", "hook-response/temp/0"]
        assert "error status 500" in seen[0].data
        assert len(target.requests) == 4
        found = eventually(lambda: (logs := attempts(client, made)) and len(logs) == 4 and logs)
        assert [each["attempt"] for each in found] == [4, 3, 2, 1]


def test_all_attempts_used_up(tmp_path: Path, target: Target) -> None:
    target.answer = lambda method, path, body: (500, {}, b"")
    with cloud(tmp_path / "data", retry_schedule="0,0.05,0.05") as live, live.client(live.user("ann")) as client:
        made = hook(client, target)
        with stream(client, "/v1/devices/events/hook-") as source:
            publish(client)
            (error,) = take(source, 1)
            assert error.name == "hook-error/temp/0"
        found = eventually(lambda: (logs := attempts(client, made)) and len(logs) == 3 and logs)
        assert [each["final"] for each in found] == [True, False, False]
        assert len(target.requests) == 3
        shown = client.get(f"/v1/integrations/{made}").json()["integration"]
        assert shown["waiting"] == 0
        assert shown["todayCounters"]["error"] == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_target_may_ask_for_time(tmp_path: Path, target: Target, form: str) -> None:
    times: list[float] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        times.append(time.time())
        wait = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
        return (429, {"Retry-After": wait}, b"") if len(times) == 1 else (200, {}, b"")

    target.answer = answer
    with cloud(tmp_path / "data", retry_schedule="0,0.05") as live, live.client(live.user("ann")) as client:
        hook(client, target)
        with stream(client, "/v1/devices/events/hook-sent") as source:
            publish(client)
            take(source, 1)
    assert times[1] - times[0] >= 0.95


def test_a_disabled_integration_holds_what_waits(tmp_path: Path, target: Target) -> None:
    target.answer = lambda method, path, body: (500, {}, b"")
    with cloud(tmp_path / "data", retry_schedule="0,0.4,0.4,0.4") as live, live.client(live.user("ann")) as client:
        made = hook(client, target)
        publish(client, data="before")
        eventually(lambda: target.requests)
        assert client.put(f"/v1/integrations/{made}", json={"disabled": True}).json()["disabled"] is True
        publish(client, data="while disabled")
        shown = client.get(f"/v1/integrations/{made}").json()["integration"]
        assert shown["waiting"] == 1
        sent = len(target.requests)
        with stream(client, "/v1/devices/events/hook-sent") as source:
            target.answer = lambda method, path, body: (200, {}, b"")
            assert client.put(f"/v1/integrations/{made}", json={"disabled": False}).json()["disabled"] is False
            publish(client, data="after")
            take(source, 2)
        # What waited is delivered, what came meanwhile is not.
        said = [json.dumps(body.decode()) for _, _, _, body in target.requests[sent:]]
        assert len(said) == 2
        assert any("before" in each for each in said)
        assert any("after" in each for each in said)


def test_an_edit_keeps_the_place_and_the_events(live: Cloud, target: Target) -> None:
    with live.client(live.user("ann")) as client:
        made = hook(client, target, body="old {{{PARTICLE_EVENT_VALUE}}}")
        for number in range(40):
            publish(client, data=f"n{number}")
            if number % 10 == 5:
                edited = {"event": "temp", "url": target.url, "body": "new {{{PARTICLE_EVENT_VALUE}}}"}
                assert client.put(f"/v1/webhooks/{made}", json=edited).status_code == 200
        eventually(lambda: len(target.requests) >= 40, what="forty requests")
        bodies = [body.decode().split() for _, _, _, body in target.requests]
        assert {number for _, number in bodies} == {f"n{number}" for number in range(40)}
        assert ["new", "n39"] in bodies


def test_an_integration_sees_only_what_comes_after_it(live: Cloud, target: Target) -> None:
    with live.client(live.user("ann")) as client:
        publish(client, data="before")
        hook(client, target, body="{{{PARTICLE_EVENT_VALUE}}}")
        publish(client, data="after")
        eventually(lambda: target.requests)
        hook(client, target, "other", body="{{{PARTICLE_EVENT_VALUE}}}")
        publish(client, "other", "last")
        eventually(lambda: len(target.requests) == 2)
        assert [body for _, _, _, body in target.requests] == [b"after", b"last"]


def test_a_removed_integration_delivers_nothing_more(tmp_path: Path, target: Target) -> None:
    target.answer = lambda method, path, body: (500, {}, b"")
    with cloud(tmp_path / "data", retry_schedule="0,0.3,0.3,0.3") as live, live.client(live.user("ann")) as client:
        made = hook(client, target)
        publish(client)
        eventually(lambda: target.requests)
        assert client.delete(f"/v1/integrations/{made}").status_code == 204
        sent = len(target.requests)
        # Another one's four attempts take longer than the next of the removed one would have.
        hook(client, target, "other")
        with stream(client, "/v1/devices/events/hook-error") as source:
            publish(client, "other")
            take(source, 1)
        assert len(target.requests) - sent == 4
        assert client.get(f"/v1/integrations/{made}/logs").status_code == 404


def test_the_log_shows_what_was_sent_without_its_secrets(live: Cloud, target: Target) -> None:
    long = "é" * 20_000
    target.answer = lambda method, path, body: (200, {"Content-Type": "text/plain", "X-Seen": "yes"}, long.encode())
    with live.client(live.user("ann")) as client:
        made = hook(
            client, target, headers={"X-Api-Key": "pink elephants", "X-Plain": "shown"}, secretHeaders=["X-Api-Key"],
            auth={"username": "u", "password": "s3cr3t-word"}, json={"v": "{{{PARTICLE_EVENT_VALUE}}}"},
        )  # fmt: skip
        publish(client, data="x" * 16_000)
        (found,) = eventually(lambda: attempts(client, made))
        (_, _, headers, body) = target.requests[0]
        assert headers["X-Api-Key"] == "pink elephants"
        text = json.dumps(found)
        for secret in ("pink elephants", "s3cr3t-word", headers["Authorization"].split()[1]):
            assert secret not in text
        request, response = found["request"], found["response"]
        assert request["method"] == "POST"
        assert request["url"].startswith(target.url)
        assert ["X-Plain", "shown"] in [list(pair) for pair in request["headers"]]
        # Cut at 16 KB, with the true length.
        assert len(request["body"].encode()) <= 16_384 < request["body_length"] == len(body)
        assert len(response["body"].encode()) <= 16_384 < response["body_length"] == 40_000
        assert found["address"] == "127.0.0.1"
        assert found["status"] == 200


def test_a_sample_is_sent_at_once(live: Cloud, target: Target) -> None:
    target.answer = lambda method, path, body: (404, {}, b"nothing here")
    with live.client(live.user("ann")) as client:
        made = hook(client, target, "temp", body="{{{PARTICLE_EVENT_NAME}}}={{{PARTICLE_EVENT_VALUE}}}", disabled=True)
        answer = client.post(f"/v1/integrations/{made}/test", json={"name": "temp/kitchen", "data": "7"})
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert (said["ok"], said["status_code"]) == (False, 404)
        assert said["response"]["body"] == "nothing here"
        assert [body for _, _, _, body in target.requests] == [b"temp/kitchen=7"]


def test_bodies_of_successes_are_kept_for_the_newest(tmp_path: Path, target: Target) -> None:
    settings = {"attempt_bodies": "2", "attempt_body_hours": "0"}
    with cloud(tmp_path / "data", **settings) as live:
        token = live.user("ann")
        with live.client(token) as client:
            made = hook(client, target)
            for number in range(5):
                publish(client, data=str(number))
            eventually(lambda: len(attempts(client, made)) == 5)
        # Tidying is done at the start, too.
        live.stop()
        live.start()
        with live.client(token) as client:
            found = eventually(lambda: (logs := attempts(client, made)) and logs[-1].get("request") is None and logs)
            assert [each.get("request") is not None for each in found] == [True, True, False, False, False]


def test_a_sample_publishes_nothing_and_is_not_repeated(live: Cloud, target: Target) -> None:
    target.answer = lambda method, path, body: (503, {}, b"busy")
    with live.client(live.user("ann")) as client:
        made = hook(client, target, "sample", responseTopic="sampled")
        with stream(client) as source:
            said = client.post(f"/v1/integrations/{made}/test", json={}).json()
            assert (said["ok"], said["status_code"], said["error"]) == (False, 503, "error status 503 from 127.0.0.1")
            assert "event=sample&data=test-event&" in said["request"]["body"]
            (found,) = eventually(lambda: attempts(client, made))
            # Recorded and counted like any other, and final: nothing waits.
            assert (found["attempt"], found["final"], found["event"]) == (1, True, "sample")
            shown = client.get(f"/v1/integrations/{made}").json()["integration"]
            assert (shown["todayCounters"], shown["waiting"]) == ({"success": 0, "error": 1}, 0)
            target.answer = lambda method, path, body: (200, {}, b"fine")
            assert client.post(f"/v1/integrations/{made}/test").json()["ok"] is True
            # What is published afterwards is the first that the stream shows, and its delivery only the third request.
            publish(client, "sample")
            assert [event.name for event in take(source, 3)] == ["sample", "hook-sent/sample", "sampled/0"]
        assert len(target.requests) == 3


def test_the_device_is_told_once_though_the_server_is_killed_after_it(tmp_path: Path, target: Target) -> None:
    target.answer = lambda method, path, body: (500, {}, b"")
    settings = {"retry_schedule": "0,0.1,1.5,0.2", "answer_deadline": "0.3"}
    with cloud(tmp_path / "data", **settings) as live:
        token = live.user("ann")
        with live.client(token) as client:
            made = hook(client, target)
            with stream(client, "/v1/devices/events/hook-") as source:
                publish(client)
                (error,) = take(source, 1)
                assert error.name == "hook-error/temp/0"
            eventually(lambda: len(attempts(client, made)) == 2)
        live.kill()
        live.start()
        with live.client(token) as client:
            found = eventually(lambda: (logs := attempts(client, made)) and logs[0]["final"] and logs)
            assert [each["attempt"] for each in found] == [4, 3, 2, 1]
            # The final failure would tell the device, had it not been told.
            with stream(client, "/v1/devices/events/hook-", Last_Event_ID="0") as source:
                publish(client, "other")
                target.answer = lambda method, path, body: (200, {}, b"")
                hook(client, target, "end")
                publish(client, "end")
                assert [event.name for event in take(source, 2)] == ["hook-error/temp/0", "hook-sent/end"]


def test_a_secret_that_the_target_echoes_stays_out_of_the_log(live: Cloud, target: Target) -> None:
    def echo(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        sent = target.requests[-1][2]
        return 400, {"X-Echo": sent["Authorization"]}, f"bad key {sent['X-Api-Key']}, {path}".encode()

    target.answer = echo
    with live.client(live.user("ann")) as client:
        made = hook(
            client, target, secretHeaders="X-Api-Key", headers={"X-Api-Key": "pink elephants"},
            auth={"username": "u", "password": "s3cr3t-word"},
        )  # fmt: skip
        publish(client)
        (found,) = eventually(lambda: attempts(client, made))
        assert found["response"]["body"] == "bad key [[SENSITIVE]], /"
        assert ["X-Echo", "Basic [[SENSITIVE]]"] in [list(pair) for pair in found["response"]["headers"]]
        tried = client.post(f"/v1/integrations/{made}/test").json()
        text = json.dumps([found, tried, client.get("/v1/integrations").json()])
        for secret in ("pink elephants", "s3cr3t-word", target.requests[0][2]["Authorization"].split()[1]):
            assert secret not in text


def test_a_token_that_the_target_echoes_without_its_scheme_stays_out_of_the_log(live: Cloud, target: Target) -> None:
    target.answer = lambda method, path, body: (200, {}, b'{"token": "abc-token-def"}')
    with live.client(live.user("ann")) as client:
        made = hook(client, target, headers={"Authorization": "Bearer abc-token-def", "Cookie": "a b"})
        publish(client, "temp", "a b")
        (found,) = eventually(lambda: attempts(client, made))
        assert found["response"]["body"] == '{"token": "[[SENSITIVE]]"}'
        # A part as short as this is none.
        assert "coreid=api" in found["request"]["body"]


def test_what_is_shown_can_be_sent_back(live: Cloud, target: Target) -> None:
    with live.client(live.user("ann")) as client:
        made = hook(client, target, auth={"username": "u", "password": "s3cr3t-word"}, json={"a": "{{b}}"})
        shown = client.get(f"/v1/integrations/{made}").json()["integration"]
        answer = client.put(f"/v1/integrations/{made}", json=shown).json()
        assert answer["warnings"] == []
        again = client.get(f"/v1/integrations/{made}").json()["integration"]
        assert {**again, "updated_at": None} == {**shown, "updated_at": None}
        publish(client)
        assert eventually(lambda: target.requests)[0][2]["Authorization"].startswith("Basic ")


def test_samples_of_one_owner_are_a_few_at_a_time(live: Cloud, target: Target) -> None:
    gate = threading.Event()

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        gate.wait(10)
        return 200, {}, b""

    target.answer = answer
    token, other = live.user("ann"), live.user("bob")

    def test(token: str, made: str) -> int:
        with live.client(token) as client:
            return client.post(f"/v1/integrations/{made}/test").status_code

    with live.client(token) as client, live.client(other) as stranger, ThreadPoolExecutor(8) as threads:
        made, theirs = hook(client, target), hook(stranger, target)
        running = [threads.submit(test, token, made) for _ in range(4)]
        eventually(lambda: len(target.requests) == 4)
        refused = client.post(f"/v1/integrations/{made}/test")
        assert (refused.status_code, refused.json()["error"]) == (429, "rate_limited")
        # Nobody else is told to wait.
        running.append(threads.submit(test, other, theirs))
        eventually(lambda: len(target.requests) == 5)
        gate.set()
        assert {each.result() for each in running} == {200}
        assert client.post(f"/v1/integrations/{made}/test").status_code == 200


def test_the_log_is_paged_and_filtered(live: Cloud, target: Target) -> None:
    target.answer = lambda method, path, body: (200 if int(body) % 2 else 400, {}, b"")
    with live.client(live.user("ann")) as client:
        made = hook(client, target, body="{{{PARTICLE_EVENT_VALUE}}}")
        for number in range(7):
            publish(client, data=str(number))
        eventually(lambda: len(attempts(client, made)) == 7)
        path = f"/v1/integrations/{made}/logs"
        pages: list[list[str]] = []
        before = ""
        while True:
            page = client.get(path, params={"per_page": "3", "before": before}).json()
            pages.append([each["id"] for each in page["logs"]])
            before = page["meta"]["before"]
            if before is None:
                break
            assert before == pages[-1][-1]
        assert [len(page) for page in pages] == [3, 3, 1]
        # Newest first, each once.
        assert [each for page in pages for each in page] == [each["id"] for each in attempts(client, made)]
        for status, count in (("success", 3), ("error", 4)):
            found = client.get(path, params={"status": status}).json()["logs"]
            assert [each["ok"] for each in found] == [status == "success"] * count
        assert client.get(path, params={"device": "0" * 24}).json()["logs"] == []


def test_what_was_held_is_sent_as_soon_as_the_integration_is_enabled(tmp_path: Path, target: Target) -> None:
    target.answer = lambda method, path, body: (500, {}, b"")
    with cloud(tmp_path / "data", retry_schedule="0,0.2,0.2,0.2") as live, live.client(live.user("ann")) as client:
        made = hook(client, target)
        publish(client)
        eventually(lambda: target.requests)
        client.put(f"/v1/integrations/{made}", json={"disabled": True})
        target.answer = lambda method, path, body: (200, {}, b"")
        with stream(client, "/v1/devices/events/hook-sent") as source:
            client.put(f"/v1/integrations/{made}", json={"disabled": False})
            enabled_at = time.monotonic()
            # No other event comes that would wake anybody.
            take(source, 1)
        assert time.monotonic() - enabled_at < 3


def test_what_is_set_aside_while_the_integration_is_being_enabled_is_not_forgotten(
    tmp_path: Path, target: Target
) -> None:
    gate = threading.Event()

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        gate.wait(10)
        return 200, {}, b""

    target.answer = answer
    with cloud(tmp_path / "data", lane_concurrency="1") as live, live.client(live.user("ann")) as client:
        made = hook(client, target, body="{{{PARTICLE_EVENT_VALUE}}}")
        for number in range(5):
            publish(client, data=str(number))
        eventually(lambda: target.requests)
        client.put(f"/v1/integrations/{made}", json={"disabled": True})
        # Delivery learns of the change with the next event.
        publish(client, "another")
        client.put(f"/v1/integrations/{made}", json={"disabled": False})
        gate.set()
        eventually(lambda: len(target.requests) == 5, what="all five requests")
        assert {body for *_, body in target.requests} == {str(number).encode() for number in range(5)}


def test_what_was_held_when_the_server_was_killed_between_saving_and_releasing_is_sent(
    tmp_path: Path, target: Target
) -> None:
    target.answer = lambda method, path, body: (500, {}, b"")
    with cloud(tmp_path / "data", retry_schedule="0,0.2,0.2") as live:
        token = live.user("ann")
        with live.client(token) as client:
            made = hook(client, target)
            publish(client)
            eventually(lambda: target.requests)
            client.put(f"/v1/integrations/{made}", json={"disabled": True})
        live.kill()
        asyncio.run(_enable(tmp_path / "data", made))
        target.answer = lambda method, path, body: (200, {}, b"")
        live.start()
        with live.client(token) as client:
            eventually(lambda: attempts(client, made)[0]["ok"], 5, "the delivery that was held")


async def _enable(folder: Path, integration: str) -> None:
    """What saving does first; the rest is what the kill prevents."""
    async with open_sqlite_store(folder, Vault.open(folder), clock=SystemClock()) as store:
        record = await store.integrations.get(integration)
        assert record is not None
        assert record.disabled
        assert await store.deliveries.open_of(integration) == 1
        await store.integrations.update(structs.replace(record, disabled=False))


def test_the_device_is_told_by_its_deadline_though_the_first_request_still_hangs(
    tmp_path: Path, target: Target
) -> None:
    gate = threading.Event()

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        gate.wait(10)
        return 200, {}, b"late"

    target.answer = answer
    with cloud(tmp_path / "data", answer_deadline="0.5") as live, live.client(live.user("ann")) as client:
        hook(client, target)
        with stream(client, "/v1/devices/events/hook-") as source:
            publish(client)
            (error,) = take(source, 1)
            assert (error.name, error.data) == ("hook-error/temp/0", "ETIMEDOUT")
            gate.set()
            assert [event.name for event in take(source, 2)] == ["hook-sent/temp", "hook-response/temp/0"]
