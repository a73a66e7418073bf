"""Logins that go on by refresh tokens, programs that log in by themselves, and what ends all of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.cloud import Cloud, cloud, eventually
from tests.sse import stream

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    # Whether a stream's token is still good is looked at with every keep-alive.
    with cloud(tmp_path_factory.mktemp("grants") / "data", keep_alive="0.5") as running:
        for name in ("gina", "gus"):
            running.user(name, PASSWORD)
        yield running


@pytest.fixture
def oauth(live: Cloud) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=30) as client:
        yield client


def ask(oauth: httpx.Client, grant: str, **fields: Any) -> httpx.Response:
    auth = fields.pop("auth", None)
    return oauth.post("/oauth/token", data={"grant_type": grant, **fields}, **({"auth": auth} if auth else {}))


def log_in(oauth: httpx.Client, name: str = "gina", **fields: Any) -> dict[str, Any]:
    answer = ask(oauth, "password", username=name, password=PASSWORD, **fields)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def good(oauth: httpx.Client, token: str) -> bool:
    return oauth.get("/v1/access_tokens/current", headers={"Authorization": f"Bearer {token}"}).status_code == 200


# --- refresh tokens ---


def test_a_login_goes_on_and_each_refresh_token_is_good_once(oauth: httpx.Client) -> None:
    said = log_in(oauth, expires_in=3600)
    seen = {said["access_token"]}
    for _ in range(3):
        answer = ask(oauth, "refresh_token", refresh_token=said["refresh_token"])
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert (said["token_type"], said["expires_in"]) == ("bearer", 3600)
        assert len(said["access_token"]) == len(said["refresh_token"]) == 40
        seen.add(said["access_token"])
    assert len(seen) == 4
    # What was handed out before goes on until it ends by itself: a stream may be open with it.
    assert all(good(oauth, token) for token in seen)


def test_one_that_is_shown_again_ends_all_of_that_login_and_nothing_else(live: Cloud, oauth: httpx.Client) -> None:
    other, first = log_in(oauth), log_in(oauth)
    second = ask(oauth, "refresh_token", refresh_token=first["refresh_token"]).json()
    with stream(live.client(second["access_token"]), "/v1/devices/events") as events:
        again = ask(oauth, "refresh_token", refresh_token=first["refresh_token"])
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        # Whoever had copied it has nothing any more, and neither has who is right.
        assert not any(good(oauth, said["access_token"]) for said in (first, second))
        assert ask(oauth, "refresh_token", refresh_token=second["refresh_token"]).json()["error"] == "invalid_grant"
        # The stream ends, too.
        assert list(events) == []
    assert good(oauth, other["access_token"])
    assert ask(oauth, "refresh_token", refresh_token=other["refresh_token"]).status_code == 200
    assert '"refresh_token_reused"' in live.log_file.read_text()
    assert first["refresh_token"] not in live.log_file.read_text()


def test_of_many_at_once_one_is_answered_and_then_all_ends(oauth: httpx.Client) -> None:
    said = log_in(oauth)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(oauth, "refresh_token", refresh_token=said["refresh_token"]), range(8)))
    won = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(won) <= 1
    assert {answer.json()["error"] for answer in answers if answer.status_code != 200} == {"invalid_grant"}
    assert not any(good(oauth, each["access_token"]) for each in (said, *won))


def test_only_its_digest_is_stored(live: Cloud, oauth: httpx.Client) -> None:
    said = log_in(oauth)
    said = ask(oauth, "refresh_token", refresh_token=said["refresh_token"]).json()
    for file in live.folder.glob("state.db*"):
        assert said["refresh_token"].encode() not in file.read_bytes()
        assert bytes.fromhex(said["refresh_token"]) not in file.read_bytes()


@pytest.mark.parametrize("shown", ["", "x", "f" * 40, "é", "x" * 5000])
def test_what_is_none_is_refused(oauth: httpx.Client, shown: str) -> None:
    answer = ask(oauth, "refresh_token", refresh_token=shown)
    assert answer.status_code == 400
    assert answer.json()["error"] == ("invalid_grant" if shown else "invalid_request")
    assert oauth.post("/oauth/token", json={"grant_type": "refresh_token", "refresh_token": 5}).status_code == 400
    assert oauth.post("/oauth/token", json={"grant_type": ["password"]}).json()["error"] == "unsupported_grant_type"


def test_an_access_token_is_no_refresh_token_nor_the_other_way_round(oauth: httpx.Client) -> None:
    said = log_in(oauth)
    assert ask(oauth, "refresh_token", refresh_token=said["access_token"]).json()["error"] == "invalid_grant"
    assert not good(oauth, said["refresh_token"])


def test_it_brings_what_the_login_asked_for_and_no_more(oauth: httpx.Client) -> None:
    said = log_in(oauth, scope="events:send devices:*")
    for wanted in ("events:get", "*", "customer=ann@example.com"):
        wider = ask(oauth, "refresh_token", refresh_token=said["refresh_token"], scope=wanted)
        assert (wider.status_code, wider.json()["error"]) == (400, "invalid_scope")
    narrow = ask(oauth, "refresh_token", refresh_token=said["refresh_token"], scope="events:send").json()
    wide = ask(oauth, "refresh_token", refresh_token=narrow["refresh_token"]).json()

    def scopes(token: str) -> list[str]:
        headers = {"Authorization": f"Bearer {token}"}
        return list(oauth.get("/v1/access_tokens/current", headers=headers).json()["scopes"])

    assert scopes(narrow["access_token"]) == ["events:send"]
    assert scopes(wide["access_token"]) == ["devices:*", "events:send"]


def test_another_client_can_not_use_it_and_does_no_harm(oauth: httpx.Client) -> None:
    said = log_in(oauth, client_id="particle-cli", client_secret="particle-cli")
    refused = ask(oauth, "refresh_token", refresh_token=said["refresh_token"], client_id="another")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    basic = ask(oauth, "refresh_token", refresh_token=said["refresh_token"], auth=("particle-cli", "particle-cli"))
    assert basic.status_code == 200


def test_logging_out_ends_the_login(oauth: httpx.Client) -> None:
    first = log_in(oauth)
    second = ask(oauth, "refresh_token", refresh_token=first["refresh_token"]).json()
    # One that was replaced may be given back by a tidy client, which goes on with the newer.
    assert oauth.delete(f"/v1/access_tokens/{first['access_token']}").json() == {"ok": True}
    assert not good(oauth, first["access_token"])
    third = ask(oauth, "refresh_token", refresh_token=second["refresh_token"]).json()
    headers = {"Authorization": f"Bearer {third['access_token']}"}
    assert oauth.delete("/v1/access_tokens/current", headers=headers).json() == {"ok": True}
    assert not any(good(oauth, said["access_token"]) for said in (second, third))
    assert ask(oauth, "refresh_token", refresh_token=third["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_refresh_token_can_be_given_back_itself(oauth: httpx.Client) -> None:
    said = log_in(oauth)
    assert oauth.delete(f"/v1/access_tokens/{said['refresh_token']}").json() == {"ok": True}
    assert not good(oauth, said["access_token"])
    assert ask(oauth, "refresh_token", refresh_token=said["refresh_token"]).status_code == 400


def test_it_ends_with_its_time(live: Cloud, oauth: httpx.Client) -> None:
    said = log_in(oauth, expires_in=1)
    with sqlite3.connect(live.folder / "state.db") as db:
        # As if 14 days and a second had gone by.
        assert db.execute("update refresh_token set expires_at = 1 where used_at is null").rowcount > 0
    db.close()
    answer = ask(oauth, "refresh_token", refresh_token=said["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


# --- what ends tokens ---


@pytest.mark.parametrize(
    ("flag", "change"), [(True, {"password": PASSWORD}), ("true", {"username": "gus"}), (1, {})], ids=str
)
def test_invalidating_tokens_ends_the_one_that_asks_and_its_streams(
    live: Cloud, oauth: httpx.Client, flag: Any, change: dict[str, str]
) -> None:
    mine, other = log_in(oauth, "gus"), log_in(oauth, "gus")
    client = live.client(mine["access_token"])
    with stream(client, "/v1/devices/events") as events:
        body = {**change, "current_password": PASSWORD, "invalidate_tokens": flag}
        assert client.put("/v1/user", json=body).json()["ok"] is True
        assert not any(good(oauth, said["access_token"]) for said in (mine, other))
        for said in (mine, other):
            assert ask(oauth, "refresh_token", refresh_token=said["refresh_token"]).json()["error"] == "invalid_grant"
        assert list(events) == []
    assert log_in(oauth, "gus")


def test_a_new_password_alone_ends_the_others(live: Cloud, oauth: httpx.Client) -> None:
    mine, other = log_in(oauth, "gus"), log_in(oauth, "gus")
    body = {"password": PASSWORD, "current_password": PASSWORD}
    assert live.client(mine["access_token"]).put("/v1/user", json=body).status_code == 200
    assert good(oauth, mine["access_token"])
    assert not good(oauth, other["access_token"])
    assert ask(oauth, "refresh_token", refresh_token=other["refresh_token"]).status_code == 400
    assert ask(oauth, "refresh_token", refresh_token=mine["refresh_token"]).status_code == 200


def test_a_flag_that_is_none_changes_nothing(live: Cloud, oauth: httpx.Client) -> None:
    mine = log_in(oauth, "gus")
    body = {"password": "another one", "current_password": PASSWORD, "invalidate_tokens": "perhaps"}
    assert live.client(mine["access_token"]).put("/v1/user", json=body).status_code == 400
    assert log_in(oauth, "gus")


@pytest.mark.parametrize("door", ["api", "password", "revoke"])
def test_every_door_that_ends_all_tokens_ends_refresh_tokens(live: Cloud, oauth: httpx.Client, door: str) -> None:
    mine = log_in(oauth, "gus")
    if door == "api":
        headers = {"Authorization": f"Bearer {mine['access_token']}"}
        assert oauth.delete("/v1/access_tokens", headers=headers).json() == {"ok": True}
    elif door == "password":
        live.command("user", "password", "gus", "--password-stdin", stdin=PASSWORD + "\n")
    else:
        live.command("token", "revoke", "--user", "gus", "--all")
    assert not good(oauth, mine["access_token"])
    assert ask(oauth, "refresh_token", refresh_token=mine["refresh_token"]).json()["error"] == "invalid_grant"


# --- clients ---


@pytest.fixture
def gina(live: Cloud, oauth: httpx.Client) -> httpx.Client:
    return live.client(log_in(oauth)["access_token"])


def test_a_client_logs_in_as_who_registered_it(live: Cloud, oauth: httpx.Client, gina: httpx.Client) -> None:
    made = gina.post("/v1/clients", json={"name": "dashboard", "type": "installed"}).json()
    assert made["ok"] is True
    client = made["client"]
    assert len(client["secret"]) == 40
    (listed,) = [each for each in gina.get("/v1/clients").json()["clients"] if each["id"] == client["id"]]
    assert listed == {"id": client["id"], "name": "dashboard", "type": "installed", "scope": "*"}
    by_form = ask(oauth, "client_credentials", client_id=client["id"], client_secret=client["secret"])
    by_basic = ask(oauth, "client_credentials", auth=(client["id"], client["secret"]), expires_in=60)
    for answer in (by_form, by_basic):
        said = answer.json()
        # There is nothing to refresh: the client logs in again (RFC 6749, section 4.4.3).
        assert said.keys() == {"token_type", "access_token", "expires_in"}
        me = oauth.get("/v1/user", headers={"Authorization": f"Bearer {said['access_token']}"}).json()
        assert me["username"] == "gina"
    assert by_basic.json()["expires_in"] == 60
    removed = gina.delete(f"/v1/clients/{client['id']}")
    assert (removed.status_code, removed.content) == (204, b"")
    assert not any(good(oauth, answer.json()["access_token"]) for answer in (by_form, by_basic))
    gone = ask(oauth, "client_credentials", client_id=client["id"], client_secret=client["secret"])
    assert (gone.status_code, gone.json()["error"]) == (400, "invalid_client")


def test_its_secret_is_looked_at_wherever_it_names_itself(oauth: httpx.Client, gina: httpx.Client) -> None:
    client = gina.post("/v1/clients", json={"name": "app", "type": "installed"}).json()["client"]
    good_one, bad_one = (client["id"], client["secret"]), (client["id"], "wrong")
    for secret in ("wrong", ""):
        answer = ask(oauth, "client_credentials", client_id=client["id"], client_secret=secret)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client")
    assert ask(oauth, "client_credentials", auth=bad_one).status_code == 401
    refused = ask(oauth, "password", username="gina", password=PASSWORD, auth=bad_one)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    said = log_in(oauth, auth=good_one)
    # What was given to it is not for whoever does not know its secret.
    assert ask(oauth, "refresh_token", refresh_token=said["refresh_token"]).json()["error"] == "invalid_client"
    assert ask(oauth, "refresh_token", refresh_token=said["refresh_token"], auth=bad_one).status_code == 401
    said = ask(oauth, "refresh_token", refresh_token=said["refresh_token"], auth=good_one).json()
    gina.delete(f"/v1/clients/{client['id']}")
    assert not good(oauth, said["access_token"])
    assert ask(oauth, "refresh_token", refresh_token=said["refresh_token"]).json()["error"] == "invalid_grant"


def test_its_tokens_may_do_what_it_may(oauth: httpx.Client, gina: httpx.Client) -> None:
    body = {
        "name": "reporter",
        "type": "web",
        "redirect_uri": "https://example.com/back",
        "scope": "events:send devices:*",
    }
    client = gina.post("/v1/clients", json=body).json()["client"]
    assert client["redirect_uri"] == "https://example.com/back"
    keys = (client["id"], client["secret"])
    for grant in (
        {"grant_type": "client_credentials"},
        {"grant_type": "password", "username": "gina", "password": PASSWORD},
    ):
        token = oauth.post("/oauth/token", data=grant, auth=keys).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert oauth.get("/v1/access_tokens/current", headers=headers).json()["scopes"] == ["devices:*", "events:send"]
        assert oauth.get("/v1/devices", headers=headers).status_code == 200
        # It makes no clients that may do more.
        assert oauth.post("/v1/clients", headers=headers, json={"name": "x"}).status_code == 403
        assert oauth.post("/oauth/token", data=grant | {"scope": "*"}, auth=keys).json()["error"] == "invalid_scope"
        narrow = oauth.post("/oauth/token", data=grant | {"scope": "devices:list"}, auth=keys)
        assert narrow.status_code == 200
    said = log_in(oauth, auth=keys)
    changed = gina.put(f"/v1/clients/{client['id']}", json={"name": "lister", "scope": "devices:list"}).json()["client"]
    assert (changed["name"], changed["scope"]) == ("lister", "devices:list")
    assert "secret" not in changed
    token = ask(oauth, "refresh_token", refresh_token=said["refresh_token"], auth=keys).json()["access_token"]
    current = oauth.get("/v1/access_tokens/current", headers={"Authorization": f"Bearer {token}"}).json()
    assert current["scopes"] == ["devices:list"]
    gina.delete(f"/v1/clients/{client['id']}")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"), ({"name": " "}, "name"), ({"name": "x" * 129}, "name"), ({"name": 5}, "name"),
        ({"name": "x", "type": "mobile"}, "type"), ({"name": "x", "type": "web"}, "redirect_uri"),
        ({"name": "x", "type": "web", "redirect_uri": "javascript:alert(1)"}, "redirect_uri"),
        ({"name": "x", "redirect_uri": "https://x/" + "y" * 2048}, "redirect_uri"),
        ({"name": "x", "scope": "create_customer"}, "scope"), ({"name": "x", "scope": {"a": 1}}, "scope"),
    ],
)  # fmt: skip
def test_what_can_not_be_registered_is_refused(gina: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = gina.post("/v1/clients", json=body)
    assert answer.status_code == 400
    assert field in answer.json()["error_description"]


def test_nobody_sees_or_touches_anothers(live: Cloud, oauth: httpx.Client, gina: httpx.Client) -> None:
    client = gina.post("/v1/clients", json={"name": "mine"}).json()["client"]
    gus = live.client(log_in(oauth, "gus")["access_token"])
    assert gus.get("/v1/clients").json()["clients"] == []
    for answer in (
        gus.put(f"/v1/clients/{client['id']}", json={"name": "his"}),
        gus.delete(f"/v1/clients/{client['id']}"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (404, "Client not found")
    assert gina.delete(f"/v1/clients/{client['id']}").status_code == 204


def test_there_are_so_many_for_a_user(live: Cloud, oauth: httpx.Client, gina: httpx.Client) -> None:
    made = list[str]()
    while (answer := gina.post("/v1/clients", json={"name": f"number {len(made)}"})).status_code == 200:
        made.append(answer.json()["client"]["id"])
        assert len(made) <= 100
    assert (answer.status_code, len(made)) == (400, 100)
    assert "100" in answer.json()["error_description"]
    gus = live.client(log_in(oauth, "gus")["access_token"])
    other = gus.post("/v1/clients", json={"name": "x"}).json()["client"]["id"]
    for client, ids in ((gina, made), (gus, [other])):
        for each in ids:
            client.delete(f"/v1/clients/{each}")


def test_clients_by_the_command_line(live: Cloud, oauth: httpx.Client) -> None:
    made, secret = live.command("client", "create", "by hand", "--user", "gina", "--scope", "events:send").split()
    assert f"{made}  by hand  installed  events:send" in live.command("client", "list", "--user", "gina")
    assert ask(oauth, "client_credentials", client_id=made, client_secret=secret).status_code == 200
    live.command("client", "edit", made, "--user", "gina", "--scope", "events:get")
    said = ask(oauth, "client_credentials", client_id=made, client_secret=secret).json()
    assert good(oauth, said["access_token"])
    live.command("client", "delete", made, "--user", "gina", "--yes")
    eventually(lambda: not good(oauth, said["access_token"]), what="the end of its token")
    assert made not in live.command("client", "list", "--user", "gina", "--json")


def test_everything_may_be_asked_for_in_both_spellings(oauth: httpx.Client) -> None:
    for scope in ("*", "*:*", "*:* devices:list"):
        made = log_in(oauth, scope=scope)
        shown = oauth.get("/v1/access_tokens/current", headers={"Authorization": f"Bearer {made['access_token']}"})
        assert "*" in shown.json()["scopes"]
