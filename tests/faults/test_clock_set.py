"""Somebody sets the machine's clock: under a running cloud, and between two."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cloud import Target, eventually
from tests.gateway.inside import HandClock, Inside, inside
from tests.gateway.peer import Peer
from tests.gateway.town import new_device_id
from wirechamber.clock import confirm_time
from wirechamber.eventlog.base import Scope
from wirechamber.protocols.coap.message import Code, ping
from wirechamber.protocols.deviceos.messages import Goodbye, write_goodbye
from wirechamber.services.serverkeys import ServerKeys

HOUR, DAY = 3_600.0, 86_400.0


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tidying and comparing the clocks happen all the time."""
    monkeypatch.setattr("wirechamber.app.TIDY_EVERY_S", 0.02)
    monkeypatch.setattr("wirechamber.app.CLOCK_EVERY_S", 0.02)
    # It sleeps by the real clock.
    monkeypatch.setattr("wirechamber.delivery.backlog.LONGEST_NAP_S", 0.1)


class User:
    """Somebody with a token, over HTTP."""

    def __init__(self, inside: Inside) -> None:
        access = inside.cloud.access
        user = inside.do(lambda: access.ensure_user("ann", "correct horse"))
        self.id = user.id
        self.secret = inside.do(lambda: access.issue(user, client="test", expires_in=3_600)).secret
        self._url = inside.cloud.base_url

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self._url + path, headers={"Authorization": f"Bearer {self.secret}"}, timeout=20)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(self._url + path, headers={"Authorization": f"Bearer {self.secret}"}, timeout=20, **body)

    def publish(self, name: str) -> None:
        answer = self.post("/v1/devices/events", json={"name": name, "data": "x"})
        assert answer.status_code == 200, answer.text


def names(inside: Inside) -> list[str]:
    log = inside.cloud.log

    async def read() -> list[str]:
        found: list[str] = []
        after, more = log.origin, True
        while more:
            page = await log.read(Scope(), after)
            found += [entry.event.name for entry in page.entries]
            after, more = page.after, page.more
        return found

    return inside.do(read)


def tidied(inside: Inside, rounds: int = 5) -> None:
    """Returns after the janitor has gone round some times."""

    async def wait() -> None:
        from wirechamber import app

        for _ in range(rounds * 2):
            await asyncio.sleep(app.TIDY_EVERY_S)

    inside.do(wait)


def test_events_and_tokens_outlive_a_minute_of_a_wrong_clock(tmp_path: Path) -> None:
    clock = HandClock()
    with inside(tmp_path, clock) as cloud:
        user = User(cloud)
        user.publish("before")
        clock.set_by_s = 100 * DAY
        for _ in range(65):
            clock.at += 1
            cloud.look(lambda _: None)
        tidied(cloud)
        assert names(cloud) == ["before"]
        # Its token was good for an hour.
        assert user.get("/v1/user").status_code == 200
        clock.set_by_s = 0
        user.publish("after")
        tidied(cloud)
        assert names(cloud) == ["before", "after"]
        metrics = user.get("/metrics").text
        assert re.search(r"^wirechamber_clock_steps_total 1\.0$", metrics, re.M)
        assert re.search(r"^wirechamber_clock_doubt_seconds 0\.0$", metrics, re.M)


def test_events_of_a_machine_that_started_with_a_clock_that_was_behind_are_kept(tmp_path: Path) -> None:
    clock = HandClock()
    with inside(tmp_path, clock) as cloud:
        User(cloud).publish("before")
    clock.set_by_s = -60 * DAY
    with inside(tmp_path, clock) as cloud:
        user = User(cloud)
        user.publish("one")
        user.publish("two")
        clock.at += 5
        clock.set_by_s = 0
        tidied(cloud)
        assert names(cloud) == ["before", "one", "two"]
        # Not when the time has been right for long, either.
        for _ in range(49):
            clock.at += HOUR
            tidied(cloud, 1)
        assert names(cloud) == ["before", "one", "two"]


def test_a_time_that_was_set_between_two_servers_deletes_nothing_before_it_has_lasted_or_is_confirmed(
    tmp_path: Path,
) -> None:
    clock = HandClock()
    with inside(tmp_path, clock) as cloud:
        User(cloud).publish("old")
    clock.set_by_s = 40 * DAY
    with inside(tmp_path, clock) as cloud:
        user = User(cloud)
        user.publish("new")
        tidied(cloud)
        assert names(cloud) == ["old", "new"]
        confirm_time(tmp_path)
        eventually(lambda: names(cloud) == ["new"], what="trimming after the operator's word")
        clock.at += 25 * DAY
        tidied(cloud)
        assert names(cloud) == ["new"]


def test_one_event_that_is_stamped_ahead_does_not_keep_those_behind_it(tmp_path: Path) -> None:
    clock = HandClock()
    with inside(tmp_path, clock) as cloud:
        user = User(cloud)
        user.publish("ahead")
        user.publish("behind it")
    # As versions before this one stamped an event while the clock was wrong.
    with sqlite3.connect(tmp_path / "events.db") as db:
        db.execute("update event set received_at = received_at + ? where name = 'ahead'", (3650 * DAY * 1000,))
    db.close()
    with inside(tmp_path, clock) as cloud:
        for _ in range(31):
            clock.at += DAY
            tidied(cloud, 1)
        User(cloud).publish("young")
        eventually(lambda: names(cloud) in (["ahead", "young"], ["young"]), what="trimming behind it")


@pytest.fixture
def failing() -> Iterator[Target]:
    with Target() as target:
        target.answer = lambda method, path, body: (500, {}, b"")
        yield target


def test_a_clock_that_is_set_back_delays_no_retry(tmp_path: Path, failing: Target) -> None:
    clock = HandClock()
    settings: dict[str, Any] = {"retry_schedule": (0.0, 60.0, 60.0), "outbound_allow": ("127.0.0.0/8",)}
    hook = {"integration_type": "Webhook", "event": "e", "url": failing.url, "requestType": "POST"}

    def passed(tries: int) -> None:
        # The wait begins when the failed try was concluded, which is some time after the target saw it.
        until = clock.at + HOUR / 2

        def look() -> bool:
            clock.at = min(until, clock.at + 1)
            return len(failing.requests) >= tries

        eventually(look, what=f"try {tries}")

    with inside(tmp_path, clock, **settings) as cloud:
        user = User(cloud)
        assert user.post("/v1/integrations", json=hook).status_code in (200, 201)
        user.publish("e")
        eventually(lambda: len(failing.requests) == 1)
        clock.set_by_s = -HOUR
        passed(2)
    # And not when it is set back between two servers.
    clock.set_by_s = -2 * HOUR
    with inside(tmp_path, clock, **settings):
        passed(3)


def test_a_clock_that_is_set_back_does_not_lengthen_a_full_disk_or_a_login_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    with inside(tmp_path, clock, disk_floor_mb=1, login_failures=1, login_block=60.0) as cloud:
        user = User(cloud)
        user.publish("stored")
        import shutil

        usage = shutil.disk_usage
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=0))
        clock.at += 2
        assert user.post("/v1/devices/events", json={"name": "x"}).status_code == 503
        monkeypatch.setattr(shutil, "disk_usage", usage)
        form = {"grant_type": "password", "username": "ann", "client_id": "c", "client_secret": "s"}
        assert user.post("/oauth/token", data=form | {"password": "wrong horse"}).status_code == 400
        clock.set_by_s = -HOUR
        clock.at += 2
        user.publish("there is room again")
        assert user.post("/oauth/token", data=form | {"password": "correct horse"}).status_code == 429
        clock.at += 60
        assert user.post("/oauth/token", data=form | {"password": "correct horse"}).status_code == 200


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_the_life_of_an_event_for_a_device_is_as_long_as_it_should_be(tmp_path: Path, step: float) -> None:
    clock = HandClock()
    with inside(tmp_path, clock) as cloud:
        user = User(cloud)
        key = ServerKeys(cloud.folder).ec().public_key()
        with contextlib.closing(Peer(cloud.udp_port, key, new_device_id())) as peer:
            peer.start()
            assert user.post("/v1/devices", json={"id": peer.device}).status_code == 200
            cloud.do(cloud.cloud.gateway.roster.refresh)
            peer.subscribe("to/")
            assert peer.ask(write_goodbye(Goodbye(cloud=2), peer.next_id())).code == Code.EMPTY
            for name, ttl in (("short", 30), ("long", 300)):
                body = {"name": f"to/{name}", "data": name, "ttl": ttl}
                assert user.post("/v1/devices/events", json=body).status_code == 200
            clock.set_by_s = step
            clock.at += 60
            tidied(cloud)
            id = peer.next_id()
            peer.send(ping(id))
            peer.answer(id)
            assert peer.request().payload == b"long"
