"""`user`, `token` and `device`: they open the data folder, also beside a running server."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import Run
from tests.cloud import Cloud

DEVICE = "0123456789abcdef01234567"


def test_a_folder_from_nothing(run: Run, tmp_path: Path) -> None:
    made = run("user", "create", "ann@example.com", "--password-stdin", stdin="correct horse\n")
    assert made.returncode == 0, made.stderr
    assert "ann@example.com" in made.stdout
    assert "correct horse" not in made.stdout
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    token = run("token", "create", "--user", "ann@example.com")
    # Only the token: `TOKEN=$(wirechamber token create …)` works.
    assert token.stdout.strip().isalnum()
    assert token.stdout.count("\n") == 1
    assert token.stderr == ""
    listed = run("token", "list", "--user", "ann@example.com")
    assert token.stdout[:6] in listed.stdout
    assert token.stdout.strip() not in listed.stdout
    added = run("device", "add", DEVICE.upper(), "--owner", "ann@example.com", "--name", "lamp", "--platform", "12")
    assert added.returncode == 0, added.stderr
    shown = json.loads(run("device", "show", DEVICE).stdout)
    assert (shown["id"], shown["name"], shown["platform_id"]) == (DEVICE, "lamp", 12)
    assert DEVICE in run("device", "list").stdout


def test_json_everywhere(run: Run) -> None:
    def said(*arguments: str, stdin: str = "") -> Any:
        done = run(*arguments, "--json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    user = said("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    assert user["name"] == "ann"
    assert [each["name"] for each in said("user", "list")] == ["ann"]
    token = said("token", "create", "--user", "ann", "--scope", "events:send", "--scope", "devices:list")
    (listed,) = said("token", "list", "--user", "ann")
    assert sorted(listed["scopes"]) == ["devices:list", "events:send"]
    assert said("token", "revoke", stdin=token["token"]) == {"ok": True, "revoked": 1}
    assert said("token", "revoke", "--user", "ann", "--all") == {"ok": True, "revoked": 0}
    device = said("device", "add", DEVICE, "--owner", "ann")
    assert device["id"] == DEVICE
    assert [each["id"] for each in said("device", "list", "--owner", "ann")] == [DEVICE]
    assert said("device", "remove", DEVICE, "--yes") == {"ok": True, "id": DEVICE}
    assert said("user", "password", "ann", "--password-stdin", stdin="another one\n") == {"ok": True, "name": "ann"}
    assert said("user", "delete", "ann", "--yes") == {"ok": True, "id": user["id"], "name": "ann"}
    assert said("user", "list") == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("token", "create", "--user", "nobody"), 3, "nobody"),
        (("device", "add", DEVICE, "--owner", "nobody"), 3, "nobody"),
        (("device", "add", "lamp"), 2, "24 hex digits"),
        (("device", "show", "f" * 24), 3, "f" * 24),
        (("device", "remove", "f" * 24, "--yes"), 3, "f" * 24),
        (("token", "create"), 2, "--user"),
        (("token", "create", "--user", "ann", "--scope", "everything:do"), 2, "everything:do"),
        (("token", "create", "--user", "ann", "--expires-in", "soon"), 2, "--expires-in"),
        (("token", "revoke"), 3, "no such token"),
        (("token", "revoke", "--all"), 2, "--user"),
        (("user", "create", "ann", "--password-stdin"), 1, "ann already"),
        (("user", "create", "a b", "--password-stdin"), 2, "blanks"),
        (("user", "create", "bob", "--password-stdin"), 2, "password"),
        (("user", "create", "bob"), 2, "--password-stdin"),
        (("user", "delete", "nobody", "--yes"), 3, "nobody"),
        (("nonsense",), 2, "nonsense"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_what_goes_wrong_is_said_in_a_line(
    run: Run, folder_with_ann: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    stdin = "x\n" if "bob" in arguments else "correct horse\n"
    done = run(*arguments, stdin=stdin, WIRECHAMBER_DATA=str(folder_with_ann))
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stderr
    assert done.stdout == ""


def test_what_would_be_lost_is_asked_about(run: Run) -> None:
    run("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    run("device", "add", DEVICE, "--owner", "ann")
    assert run("user", "delete", "ann", stdin="n\n").returncode == 1
    assert run("device", "remove", DEVICE, stdin="\n").returncode == 1
    assert "ann" in run("user", "list").stdout
    assert DEVICE in run("device", "list").stdout
    assert run("user", "delete", "ann", stdin="y\n").returncode == 0
    # Its devices stay, free to be claimed.
    (device,) = json.loads(run("device", "list", "--json").stdout)
    assert device["id"] == DEVICE


def test_a_folder_that_is_not_there_is_not_made_by_looking(run: Run, tmp_path: Path) -> None:
    done = run("user", "list")
    assert done.returncode != 0
    assert str(tmp_path / "data") in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_running_server_sees_changes_on_its_next_request(live: Cloud) -> None:
    live.command("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    token = live.command("token", "create", "--user", "ann").strip()
    with live.client(token) as client:
        for _ in range(3):
            assert client.get("/v1/devices").json() == []
            live.command("device", "add", DEVICE, "--owner", "ann")
            assert [each["id"] for each in client.get("/v1/devices").json()] == [DEVICE]
            live.command("device", "remove", DEVICE, "--yes")
        other = live.command("token", "create", "--user", "ann").strip()
        assert client.get("/v1/devices", headers={"Authorization": f"Bearer {other}"}).status_code == 200
        live.command("token", "revoke", stdin=other)
        assert client.get("/v1/devices", headers={"Authorization": f"Bearer {other}"}).status_code == 401
        form = {"grant_type": "password", "username": "ann", "password": "correct horse"}
        basic = httpx.BasicAuth("particle", "particle")
        assert httpx.post(f"{live.url}/oauth/token", data=form, auth=basic).status_code == 200
        live.command("user", "password", "ann", "--password-stdin", stdin="battery staple\n")
        assert client.get("/v1/devices").status_code == 401
        assert httpx.post(f"{live.url}/oauth/token", data=form, auth=basic).status_code == 400


def test_scopes_and_expiry_of_a_token(live: Cloud) -> None:
    live.command("user", "create", "ann", "--password-stdin", stdin="correct horse\n")
    token = live.command("token", "create", "--user", "ann", "--scope", "devices:list", "--expires-in", "0").strip()
    with live.client(token) as client:
        assert client.get("/v1/devices").status_code == 200
        refused = client.post("/v1/devices/events", json={"name": "x"})
        assert refused.status_code == 403
        assert "events:send" in refused.text
        said = client.get("/v1/access_tokens/current").json()
        assert said["expires_at"] is None
        assert said["scopes"] == ["devices:list"]
