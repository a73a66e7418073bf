"""Kinds with faults of their own: each fault is a failed attempt with a name, and nobody else's trouble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.cloud import Cloud, Target, eventually, running
from tests.e2e.test_delivery_outcomes import attempts, publish
from tests.plugin import plug_in

KIND = '''
"""A kind that does what its setting says, and it is always wrong."""

import asyncio
from typing import Annotated

from msgspec import Struct

from wirechamber.integrations.base import (
    Answer, Call, Delivered, Integration, Recall, Refused, Remember, Request, Token, Topics, TryLater,
)
from wirechamber.integrations.declaration import Declaration, setting


class Config(Struct, frozen=True, kw_only=True):
    slip: Annotated[str, setting("What goes wrong.", example="x")]
    url: Annotated[str, setting("Where to.", example="http://a")]


class Wayward(Integration):
    """Goes wrong."""

    kind = "Wayward"
    declaration = Declaration(Config)

    def prepare(self, config):
        if config.slip == "prepare":
            Wayward.prepared += 1
            if Wayward.prepared > 1:
                raise ZeroDivisionError("prepare")
        return config

    prepared = 0

    def describe_target(self, config):
        return config.slip

    def target(self, event, prepared, context):
        if prepared.slip == "target":
            raise StopIteration("target")
        return ["no", "text"] if prepared.slip == "target list" else "wayward:80"

    def order(self, event, prepared):
        if prepared.slip == "order":
            raise KeyError("order")
        return {} if prepared.slip == "order dict" else ""

    def topics(self, event, prepared, context):
        if prepared.slip == "topics":
            raise asyncio.CancelledError
        if prepared.slip == "topics none":
            return None
        if prepared.slip == "topics numbers":
            return Topics(1, 2, 3)
        return super().topics(event, prepared, context)

    def deliver(self, events, prepared, context):
        slip = prepared.slip
        if slip == "no generator":
            return None
        if slip == "raises at once":
            raise SystemExit(3)
        return self.plan(slip, prepared.url, len(events))

    def plan(self, slip, url, count):
        def post(**rest):
            return Request(**({"method": "POST", "url": url, "body": b"x"} | rest))

        if slip == "headers dict":
            yield Call(post(headers={"X-One": "1"}))
        if slip == "headers bytes":
            yield Call(post(headers=((b"X-One", 1),)))
        if slip == "body text":
            yield Call(post(body="text"))
        if slip == "url none":
            yield Call(post(url=None))
        if slip == "no request":
            yield Call("http://somewhere")
        if slip == "no step":
            yield "a step"
        if slip == "never ends":
            while True:
                yield Remember("key", 1)
        if slip == "remember an object":
            yield Remember("key", object())
        if slip == "recall a list":
            yield Recall([])
        if slip == "token of nothing":
            yield Token("key", lambda: None)
        if slip == "token's life a text":
            def made():
                yield from ()
                return "token", "long"
            yield Token("life", made)
        if slip == "stop iteration":
            next(iter(()))
        if slip == "exit":
            raise SystemExit(1)
        if slip == "cancelled":
            raise asyncio.CancelledError
        if slip == "can't be closed":
            try:
                yield from ()
                while True:
                    yield Remember("key", 1)
            finally:
                yield Remember("more", 1)
        if slip == "forgotten return":
            return None
        if slip == "a number":
            return 7
        if slip == "strange outcomes":
            return ["done"] * count
        if slip == "too many":
            return [Delivered()] * (count + 1)
        if slip == "why is none":
            return [TryLater(None)] * count
        if slip == "after is a text":
            return [TryLater("later", after="soon")] * count
        if slip == "after is no number":
            return [TryLater("later", after=float("nan"))] * count
        if slip == "answer of bytes":
            return [Delivered(Answer(b"bytes"))] * count
        if slip == "answer of half a character":
            return [Delivered(Answer("\\ud800", chunked=False))] * count
        if slip == "why of half a character":
            return [Refused("\\ud800")] * count
        reply = yield Call(post())
        return [Delivered()] * count
'''

EVENTS = 8
# What the kind does, and what its owner reads of it in the log.
SLIPS = {
    "prepare": "ZeroDivisionError",
    "target": "StopIteration",
    "target list": "list",
    "order": "KeyError",
    "order dict": "dict",
    "no generator": "NoneType",
    "raises at once": "SystemExit",
    "headers dict": "headers",
    "headers bytes": "headers",
    "body text": "body",
    "url none": "url",
    "no request": "str",
    "no step": "str",
    "never ends": "steps",
    "remember an object": "remember",
    "recall a list": "internal error",
    "token of nothing": "internal error",
    "token's life a text": "internal error",
    "stop iteration": "internal error",
    "exit": "SystemExit",
    "cancelled": "CancelledError",
    "can't be closed": "steps",
    "forgotten return": "NoneType",
    "a number": "int",
    "strange outcomes": "str",
    "too many": "lost count",
    "why is none": "TryLater",
    "after is a text": "TryLater",
    "after is no number": "TryLater",
    "answer of bytes": "Answer",
}
# Here something of it can be done.
HARMLESS = ("topics", "topics none", "topics numbers", "answer of half a character", "why of half a character")


def made(client: httpx.Client, kind: str, **settings: Any) -> str:
    answer = client.post("/v1/integrations", json={"integration_type": kind, "event": "temp", **settings})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_whatever_a_kind_does_wrong_is_a_failed_attempt_with_a_name(tmp_path: Path, target: Target) -> None:
    wrong = Cloud(tmp_path / "data", retry_schedule="0", answer_deadline="60")
    wrong.environment |= plug_in(tmp_path / "package", KIND, wayward="Wayward")
    with running(wrong) as live:
        innocent = live.client(live.user("bob"))
        made(innocent, "Webhook", url=f"{target.url}/innocent")
        client = live.client(live.user("ann"))
        hooks = {slip: made(client, "Wayward", slip=slip, url=target.url) for slip in (*SLIPS, *HARMLESS)}
        for number in range(EVENTS):
            publish(client, data=str(number))
            publish(innocent, data=str(number))
        eventually(lambda: sum(path == "/innocent" for _, path, *_ in target.requests) >= EVENTS, 20, "the innocent's")
        for slip, hook in hooks.items():
            if slip == "prepare":
                # That is a matter of the configuration: nothing more is tried.
                shown = eventually(lambda hook=hook: (s := client.get(f"/v1/integrations/{hook}").json()["integration"])
                                   and s["paused"] and s)  # fmt: skip
                assert SLIPS[slip] in shown["paused"]
                continue
            logs = eventually(lambda hook=hook: len(found := attempts(client, hook)) == EVENTS and found, 20, slip)
            if slip in SLIPS:
                assert all(SLIPS[slip] in each["error"] and not each["ok"] for each in logs), (slip, logs[0])
            elif slip != "why of half a character":
                assert all(each["ok"] for each in logs), (slip, logs[0])
        # Every job ended, and its place is free again.
        eventually(lambda: _metric(live, "deliveries_waiting") == _metric(live, "deliveries_running") == 0)
        eventually(lambda: _metric(live, "dispatch_lag_positions") == 0)
        count = len(target.requests)
        assert sum(path == "/innocent" for _, path, *_ in target.requests) == EVENTS
        # Also after a restart nothing is left over.
        live.stop()
        live.start()
        innocent = live.client(live.user("eve"))
        made(innocent, "Webhook", url=f"{target.url}/later")
        publish(innocent)
        eventually(lambda: any(path == "/later" for _, path, *_ in target.requests))
        assert len(target.requests) == count + 1


def _metric(live: Cloud, name: str) -> float:
    lines = httpx.get(f"{live.url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"wirechamber_{name} ")))


def test_a_kind_that_comes_back_goes_on_where_it_was(tmp_path: Path, target: Target) -> None:
    there = Cloud(tmp_path / "data", retry_schedule="0,0.1", answer_deadline="60")
    package = plug_in(tmp_path / "package", KIND, wayward="Wayward")
    bare = {"PYTHONPATH": there.environment.get("PYTHONPATH", "")}
    there.environment |= package
    with running(there) as live:
        token = live.user("ann")
        client = live.client(token)
        hook = made(client, "Wayward", slip="none", url=target.url)
        publish(client, data="1")
        eventually(lambda: len(target.requests) == 1)
        live.stop()
        live.environment |= bare
        live.start()
        client = live.client(token)
        publish(client, data="2")
        publish(client, data="3")
        shown = eventually(lambda: (s := client.get(f"/v1/integrations/{hook}").json()["integration"])["waiting"] == 2
                           and s)  # fmt: skip
        assert "Wayward" in shown["paused"]
        assert len(target.requests) == 1
        live.stop()
        live.environment |= package
        live.start()
        client = live.client(token)
        eventually(lambda: len(target.requests) == 3, 20, "what came meanwhile")
        shown = eventually(lambda: (s := client.get(f"/v1/integrations/{hook}").json()["integration"])["waiting"] == 0
                           and s)  # fmt: skip
        assert shown["paused"] is None
