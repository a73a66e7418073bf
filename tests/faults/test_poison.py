"""Deliveries that end the process: found out at the next start, set aside, and everything else goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest

from tests.cloud import Cloud, Target, cloud, eventually, running
from tests.delivery.builders import NOW
from tests.e2e.test_delivery_outcomes import attempts
from tests.plugin import plug_in
from tests.sse import stream, take
from wirechamber.delivery.underway import FILE, REMEMBERED_MS, SPARE, UnderWay

KIND = '''
import os
import signal
from typing import Annotated

from msgspec import Struct

from wirechamber.integrations.base import Batch, Call, Delivered, Integration, NoResponse, Request, TryLater
from wirechamber.integrations.declaration import Declaration, setting


class Config(Struct, frozen=True, kw_only=True):
    where: Annotated[str, setting("Where it ends the process.", example="deliver")]
    url: Annotated[str, setting("Where to.", example="http://a")]


class Deadly(Integration):
    """Ends the process when it sees an event whose data is poison."""

    kind = "Deadly"
    declaration = Declaration(Config)
    batch = Batch(events=10, plans=1)

    def prepare(self, config):
        return config

    def describe_target(self, config):
        return config.where

    def target(self, event, prepared, context):
        self.maybe("target", prepared, [event])
        return "deadly:80"

    def topics(self, event, prepared, context):
        self.maybe("topics", prepared, [event])
        return super().topics(event, prepared, context)

    def maybe(self, where, prepared, events):
        if prepared.where == where and any(event.data == "poison" for event in events):
            os.kill(os.getpid(), signal.SIGKILL)

    def deliver(self, events, prepared, context):
        self.maybe("deliver", prepared, events)
        outcomes = []
        for event in events:
            reply = yield Call(Request("POST", prepared.url, (), (event.data or "").encode()))
            outcomes.append(TryLater(reply.why) if isinstance(reply, NoResponse) else Delivered())
        return outcomes
'''


@pytest.mark.parametrize("where", ["target", "deliver", "topics"])
def test_a_delivery_that_ends_the_process_twice_is_set_aside(tmp_path: Path, target: Target, where: str) -> None:
    deadly = Cloud(tmp_path / "data", retry_schedule="0,0.1", answer_deadline="60")
    deadly.environment |= plug_in(tmp_path / "package", KIND, deadly="Deadly")
    with running(deadly) as live:
        token, other = live.user("ann"), live.user("bob")
        ann, bob = live.client(token), live.client(other)
        made = ann.post(
            "/v1/integrations",
            json={"integration_type": "Deadly", "event": "temp", "where": where, "url": f"{target.url}/deadly"},
        )
        hook = made.json()["id"]
        bob.post("/v1/webhooks", json={"event": "temp", "url": f"{target.url}/bob", "body": "{{PARTICLE_EVENT_VALUE}}"})
        for number in range(5):
            bob.post("/v1/devices/events", json={"name": "temp", "data": str(number)})
        for data in ("before", "poison", "after"):
            try:
                ann.post("/v1/devices/events", json={"name": "temp", "data": data})
            except httpx.HTTPError:
                # Acknowledged or not, it may be in the log; what is not is published again below.
                break
        live.ended()
        live.spawn()
        live.ended()
        live.start()
        ann, bob = live.client(token), live.client(other)
        ann.post("/v1/devices/events", json={"name": "temp", "data": "later"})
        bob.post("/v1/devices/events", json={"name": "temp", "data": "later"})
        eventually(lambda: {"later"} <= bodies(target, "/deadly"), 20, "what comes after it")
        eventually(lambda: {"0", "1", "2", "3", "4", "later"} <= bodies(target, "/bob"), 20, "Bob's")
        found = eventually(
            lambda: [each for each in attempts(ann, hook) if (each["error"] or "").startswith("set aside")]
        )
        assert len(found) == 1
        assert found[0]["final"]
        assert "2 times" in found[0]["error"]
        assert ("poison" in bodies(target, "/deadly")) == (where == "topics")
        shown = ann.get(f"/v1/integrations/{hook}").json()["integration"]
        assert (shown["paused"], shown["waiting"]) == (None, 0)
        eventually(lambda: "dispatch_lag_positions 0.0" in httpx.get(f"{live.url}/metrics").text)
        # Its device was told, as by any other failure.
        with stream(ann, "/v1/events/hook-error", Last_Event_ID="0") as told:
            (error,) = take(told, 1)
        assert error.name == "hook-error/temp/0"
        assert "set aside" in error.data


def bodies(target: Target, path: str) -> set[str]:
    return {body.decode() for _, at, _, body in target.requests if at == path}


def test_who_only_waits_for_an_answer_is_not_to_blame(tmp_path: Path, target: Target) -> None:
    over = threading.Event()

    def hang(method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if not over.is_set():
            over.wait(20)
        return 200, {}, b""

    target.answer = hang
    with cloud(tmp_path / "data", retry_schedule="0,0.1", answer_deadline="60") as live:
        token = live.user("ann")
        client = live.client(token)
        hook = client.post("/v1/webhooks", json={"event": "temp", "url": target.url}).json()["id"]
        client.post("/v1/devices/events", json={"name": "temp"})
        for ends in range(1, 4):
            eventually(lambda ends=ends: len(target.requests) == ends, 20, "the request")
            live.kill()
            if ends == 3:
                over.set()
            live.start()
        client = live.client(token)
        found = eventually(lambda: attempts(client, hook))
        assert [each["ok"] for each in found] == [True]


def test_an_integration_that_ends_the_process_with_each_event_is_paused(tmp_path: Path) -> None:
    notes = UnderWay(tmp_path, 4, NOW)
    for number in range(2):
        for _ in range(2):
            slot = notes.begin("hook", [f"delivery-{number}"])
            notes.runs(slot)
            # The process ends here.
            notes = UnderWay(tmp_path, 4, NOW)
        assert notes.verdict(f"delivery-{number}") is not None
        notes.through(f"delivery-{number}")
    assert UnderWay(tmp_path, 4, NOW).hopeless == {"hook"}
    notes = UnderWay(tmp_path, 4, NOW)
    notes.forget(["hook"])
    assert not UnderWay(tmp_path, 4, NOW).hopeless
    # What happened long ago does not count.
    assert not UnderWay(tmp_path, 4, NOW + 2 * REMEMBERED_MS).any


def test_notes_tell_who_is_suspected(tmp_path: Path) -> None:
    notes = UnderWay(tmp_path, 4, NOW)
    together = [f"together-{number}" for number in range(40)]
    waiting, busy, done = notes.begin("a", ["waits"]), notes.begin("b", together), notes.begin("c", ["done"])
    notes.end(done)
    notes.runs(busy)
    notes = UnderWay(tmp_path, 4, NOW)
    assert notes.cautious == {"b"}
    assert all(notes.verdict(each) is None for each in ["waits", "done", *together])
    # Those whose code did not run are blamed for nothing, those that get through are not suspected any more.
    notes.through("together-0")
    waiting, busy = notes.begin("a", ["waits"]), notes.begin("b", ["together-1"])
    notes.runs(busy)
    notes = UnderWay(tmp_path, 4, NOW)
    assert [each for each in ["waits", *together] if notes.verdict(each)] == ["together-1"]
    # Two that take turns are found out all the same.
    notes.runs(notes.begin("b", ["together-2"]))
    notes = UnderWay(tmp_path, 4, NOW)
    assert [each for each in together if notes.verdict(each)] == ["together-1", "together-2"]
    # An end in order blames nobody.
    notes.runs(notes.begin("b", ["together-3"]))
    notes.close()
    notes = UnderWay(tmp_path, 4, NOW)
    assert notes.verdict("together-3") is None
    assert waiting


def test_notes_that_are_damaged_are_no_trouble(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff" * 100_000)
    notes = UnderWay(tmp_path, 4, NOW)
    assert not notes.any
    whole = (tmp_path / FILE).read_bytes()
    notes.close()
    (tmp_path / FILE).write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    assert isinstance(UnderWay(tmp_path, 4, NOW).any, bool)


def test_more_plans_than_notes_have_none(tmp_path: Path) -> None:
    notes = UnderWay(tmp_path, 1, NOW)
    slots = [notes.begin("a", ["x"]) for _ in range(SPARE + 3)]
    assert slots.count(0) == 2
    for slot in slots:
        notes.end(slot)
    assert notes.begin("a", ["x"])
