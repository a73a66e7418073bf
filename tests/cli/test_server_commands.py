"""`publish`, `subscribe`, `integration` and `status`: they speak to a server with a token."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.cli.commands import Said
from tests.cli.conftest import Run
from tests.cloud import Cloud, Target, eventually
from tests.interop.cutter import Cutter


@pytest.fixture
def ours(run: Run, live_shared: tuple[Cloud, str]) -> Run:
    """`wirechamber`, set up for a running cloud."""
    live, token = live_shared

    def ours(*arguments: str, stdin: str = "", **env: str) -> Said:
        return run(*arguments, stdin=stdin, **({"WIRECHAMBER_URL": live.url, "WIRECHAMBER_TOKEN": token} | env))

    return ours


def ok(done: Said) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_life_of_an_integration(ours: Run, target: Target, tmp_path: Path) -> None:
    file = tmp_path / "hook.json"
    file.write_text(
        json.dumps(
            {"event": "cli", "url": target.url, "auth": {"username": "u", "password": "s3cr3t"}, "colour": "blue"}
        )
    )
    created = ours("integration", "create", str(file))
    assert "cli" in ok(created)
    assert "colour" in created.stderr
    (hook,) = [each for each in json.loads(ok(ours("integration", "list", "--json"))) if each["event"] == "cli"]
    row = next(line for line in ok(ours("integration", "list")).splitlines() if hook["id"] in line)
    # Not cut, although there is no terminal to be wide enough.
    assert target.url in row

    tested = ours("integration", "test", hook["id"], "--name", "cli/x", "--data", "7")
    assert f"POST {target.url}" in ok(tested)
    assert "status 200" in tested.stdout
    assert "s3cr3t" not in tested.stdout
    target.answer = lambda method, path, body: (404, {}, b"")
    failed = ours("integration", "test", hook["id"], "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["status_code"] == 404

    # The mask stands for the secret that is stored.
    edited = json.dumps({"event": "cli", "url": target.url + "/new", "auth": hook["auth"]})
    # What comes out brings the old one back.
    old = ok(ours("integration", "edit", hook["id"], "-", stdin=edited))
    assert json.loads(ok(ours("integration", "show", hook["id"])))["url"].endswith("/new")
    ok(ours("integration", "edit", hook["id"], "-", stdin=old))
    shown = json.loads(ok(ours("integration", "show", hook["id"], "--json")))
    assert (shown["url"], shown["colour"]) == (target.url, "blue")

    log = json.loads(ok(ours("integration", "log", hook["id"], "--errors", "--json")))
    assert all(each["ok"] is False for each in log)
    assert "is disabled" in ok(ours("integration", "disable", hook["id"]))
    assert json.loads(ok(ours("integration", "enable", hook["id"], "--json")))["disabled"] is False

    assert ours("integration", "delete", hook["id"], stdin="n\n").returncode == 1
    printed = ok(ours("integration", "delete", hook["id"], "--yes"))
    assert ours("integration", "show", hook["id"]).returncode == 3
    refused = ours("integration", "create", "-", stdin=printed)
    assert "auth.password" in refused.stderr
    whole = printed.replace("[[SENSITIVE]]", "s3cr3t")
    again = json.loads(ok(ours("integration", "create", "-", "--json", stdin=whole)))
    assert (again["url"], again["event"]) == (target.url, "cli")
    ok(ours("integration", "delete", again["id"], "--yes"))


def test_publish_and_subscribe(ours: Run, live_shared: tuple[Cloud, str], tmp_path: Path) -> None:
    before = json.loads(ok(ours("publish", "feed/start", "--json")))
    assert before["ok"] is True
    ok(ours("publish", "feed/one", "é1"))
    ok(ours("publish", "feed/two", "-", stdin='{"a":\n1}'))
    (tmp_path / "data.txt").write_text("from a file")
    ok(ours("publish", "feed/three", "--data-file", str(tmp_path / "data.txt"), "--ttl", "5"))
    lines = ok(ours("subscribe", "feed/", "--last-event-id", "0", "--max", "4")).splitlines()
    seen = [json.loads(line) for line in lines]
    assert [each["name"] for each in seen] == ["feed/start", "feed/one", "feed/two", "feed/three"]
    assert [each["data"] for each in seen] == [None, "é1", '{"a":\n1}', "from a file"]
    some = ok(ours("subscribe", "feed/three", "feed/o", "--last-event-id", "0", "--max", "2")).splitlines()
    assert [json.loads(line)["name"] for line in some] == ["feed/one", "feed/three"]
    until = ok(ours("subscribe", "feed/", "--last-event-id", "0", "--until", "é1")).splitlines()
    assert len(until) == 2


def test_subscribe_goes_on_after_the_server_was_away(run: Run, live: Cloud, tmp_path: Path) -> None:
    token = live.user("ann")
    environment = live.environment | {"WIRECHAMBER_URL": live.url, "WIRECHAMBER_TOKEN": token}
    reader = subprocess.Popen(
        [sys.executable, "-m", "wirechamber", "subscribe", "--last-event-id", "0", "--max", "20"],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert reader.stdout is not None
    with live.client(token) as client:
        for number in range(10):
            client.post("/v1/devices/events", json={"name": f"n{number}"})
    seen = [json.loads(reader.stdout.readline())["name"] for _ in range(10)]
    live.kill()
    live.start()
    with live.client(token) as client:
        for number in range(10, 20):
            client.post("/v1/devices/events", json={"name": f"n{number}"})
    out, _ = reader.communicate(timeout=30)
    seen += [json.loads(line)["name"] for line in out.splitlines()]
    assert seen == [f"n{number}" for number in range(20)]
    assert reader.returncode == 0


def test_subscribe_that_is_cut_before_its_first_event_misses_nothing(live_shared: tuple[Cloud, str]) -> None:
    live, token = live_shared
    with ExitStack() as stack:
        cutter = Cutter()
        stack.callback(cutter.close)
        environment = live.environment | {"WIRECHAMBER_URL": cutter.url(live.url), "WIRECHAMBER_TOKEN": token}
        client = stack.enter_context(httpx.Client(base_url=live.url, headers={"Authorization": f"Bearer {token}"}))
        client.post("/v1/devices/events", json={"name": "cut/before"})
        reader = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "wirechamber", "subscribe", "cut/", "--max", "1"],
                env=environment, stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        stack.callback(reader.kill)
        eventually(lambda: b"\nid: " in cutter.answers and cutter.answers.endswith(b"\n\n\r\n"), what="the stream")
        cutter.hold()
        cutter.cut()
        client.post("/v1/devices/events", json={"name": "cut/meanwhile"})
        cutter.release()
        out, _ = reader.communicate(timeout=30)
        assert json.loads(out)["name"] == "cut/meanwhile"


def test_status(ours: Run) -> None:
    assert "http://" in ok(ours("status"))
    said = json.loads(ok(ours("status", "--json")))
    assert (said["healthy"], said["ready"], said["user"]) == (True, True, "shared")


@pytest.mark.parametrize(
    ("arguments", "env", "code", "says"),
    [
        (("publish", "x"), {"WIRECHAMBER_URL": "http://127.0.0.1:9"}, 5, "no server at http://127.0.0.1:9"),
        (("status",), {"WIRECHAMBER_URL": "http://127.0.0.1:9"}, 5, "no server"),
        (("publish", "x"), {"WIRECHAMBER_URL": "nonsense"}, 1, "nonsense"),
        (("publish", "x"), {"WIRECHAMBER_TOKEN": "wrong"}, 4, "invalid"),
        (("subscribe",), {"WIRECHAMBER_TOKEN": "wrong"}, 4, "invalid"),
        (("publish", "x"), {"WIRECHAMBER_TOKEN": ""}, 4, "wirechamber token create"),
        (("publish", "y" * 65), {}, 1, "64"),
        (("publish", "x", "--data-file", "nothing.txt"), {}, 2, "nothing.txt"),
        (("integration", "create", "nothing.json"), {}, 2, "nothing.json"),
        (("integration", "create", "-"), {}, 2, "JSON"),
        (("integration", "show", "nothing"), {}, 3, "no integration"),
        (("integration", "log", "nothing"), {}, 3, "no integration"),
        (("integration", "delete", "nothing", "--yes"), {}, 3, "no integration"),
        (("subscribe", "--last-event-id", "x"), {}, 1, "position"),
        (("integration", "log", "x", "--count", "0"), {}, 2, "--count"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_what_goes_wrong_is_said_in_a_line(
    ours: Run, arguments: tuple[str, ...], env: dict[str, str], code: int, says: str
) -> None:
    done = ours(*arguments, **env)
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stderr
    assert done.stdout == ""


def test_a_malformed_template_names_its_place(ours: Run) -> None:
    settings = json.dumps({"event": "x", "url": "http://127.0.0.1/", "body": "{{#a}}\n {{/b}}"})
    done = ours("integration", "create", "-", stdin=settings)
    assert done.returncode == 1
    assert "body" in done.stderr
    assert "line 2" in done.stderr
