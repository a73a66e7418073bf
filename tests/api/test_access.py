"""Who may call what: one walk over every route."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.cloud import Cloud
from wirechamber.api import absent
from wirechamber.api.application import ROUTES
from wirechamber.api.routing import ANYONE, FULL, PASSWORD, TOKEN, Route
from wirechamber.services.access import SCOPES

GUARDED = [route for route in ROUTES if route.requires not in (ANYONE, PASSWORD)]
OWNED = [route for route in ROUTES if route.owned]
DEVICE = "a" * 24


def by_name(route: Route) -> str:
    return route.name


def path_of(route: Route, **values: str) -> str:
    return re.sub(r"{(\w+)(?::[^}]*)?}", lambda found: values.get(found[1], "x"), route.path)


def call(client: httpx.Client, route: Route, path: str) -> httpx.Response:
    body: Any = None if route.method == "GET" else {"name": "x", "event": "x", "url": "http://x/", "id": "b" * 24}
    with client.stream(route.method, path, json=body) as answer:
        if answer.status_code != 200:
            answer.read()
        return answer


@pytest.mark.parametrize("route", ROUTES, ids=by_name)
def test_every_route_says_who_may_call_it(route: Route) -> None:
    assert route.requires in {ANYONE, FULL, PASSWORD, TOKEN} | SCOPES
    assert route.summary
    assert route.answers


@pytest.mark.parametrize("route", GUARDED, ids=by_name)
def test_a_guarded_route_refuses_a_call_without_a_good_token(live_shared: tuple[Cloud, str], route: Route) -> None:
    cloud, _ = live_shared
    with httpx.Client(base_url=cloud.url) as client:
        assert call(client, route, path_of(route)).status_code == 400
    with cloud.client("f" * 40) as client:
        assert call(client, route, path_of(route)).status_code == 401


@pytest.fixture(scope="module")
def narrow(live_shared: tuple[Cloud, str]) -> str:
    """A token that holds one scope which no route but publishing needs."""
    cloud, _ = live_shared
    return cloud.command("token", "create", "--user", "shared", "--scope", "events:send").strip()


@pytest.mark.parametrize("route", [route for route in GUARDED if route.scope], ids=by_name)
def test_a_token_without_the_scope_is_refused(live_shared: tuple[Cloud, str], narrow: str, route: Route) -> None:
    with live_shared[0].client(narrow) as client:
        answer = call(client, route, path_of(route))
    if route.scope == "events:send":
        assert answer.status_code != 403
    else:
        assert answer.status_code == 403
        assert answer.json()["error"] == "unauthorized"


# What anybody, or any token, may ask for although it is no GET: each with the reason.
MAY_CHANGE = {
    "POST /oauth/token": "shows the password",
    "POST /v1/users": "refuses everybody",
    "POST /v1/user/password-reset": "refuses everybody",
    "PUT /v1/user/password-reset": "refuses everybody",
    "DELETE /v1/access_tokens/current": "ends the token that asks, and nothing else",
    "DELETE /v1/access_tokens/{token}": "ends the token that it names, and whoever has it may",
}


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method != "GET"], ids=by_name)
def test_what_changes_something_needs_a_scope_of_its_own_or_all_of_them(route: Route) -> None:
    if route.scope is None and route.handler is not absent.no_product:
        assert route.name in MAY_CHANGE


def test_a_narrow_token_changes_nothing_of_its_users(live_shared: tuple[Cloud, str], narrow: str) -> None:
    live, wide = live_shared
    with live.client(narrow) as client:
        for answer in (
            client.delete("/v1/access_tokens"),
            client.put("/v1/user", json={"account_info": {"first_name": "Eve"}}),
            client.put("/v1/user", json={"password": "another one", "current_password": "correct horse"}),
        ):
            assert answer.status_code == 403
            assert answer.json()["scope"] == "*"
    with live.client(wide) as client:
        assert client.get("/v1/user").json()["account_info"]["first_name"] == ""


class Two:
    """Two users of one cloud: what belongs to the first, and the client of the second."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.owner = cloud.client(cloud.user("owner"))
        self.stranger = cloud.client(cloud.user("stranger"))
        cloud.command("device", "add", DEVICE, "--owner", "owner", "--name", "kitchen")
        settings = {"integration_type": "Webhook", "event": "x", "url": "http://127.0.0.1:1/"}
        self.hook = self.owner.post("/v1/integrations", json=settings).json()["id"]


@pytest.fixture(scope="module")
def two(live_shared: tuple[Cloud, str]) -> Two:
    return Two(live_shared[0])


def everything_of(client: httpx.Client, hook: str) -> tuple[Any, Any, Any]:
    return (
        client.get("/v1/devices").json(),
        client.get(f"/v1/devices/{DEVICE}").json(),
        {k: v for k, v in client.get(f"/v1/integrations/{hook}").json()["integration"].items() if k != "logs"},
    )


@pytest.mark.parametrize("route", OWNED, ids=by_name)
@pytest.mark.parametrize("device", [DEVICE, DEVICE.upper(), "kitchen"])
def test_nobody_reaches_what_another_owns(two: Two, route: Route, device: str) -> None:
    before = everything_of(two.owner, two.hook)
    of_device = any(area in route.path for area in ("/devices/", "/provisioning/", "/diagnostics/"))
    values = {"id": device if of_device else two.hook}
    answer = call(two.stranger, route, path_of(route, **values))
    assert answer.status_code in (403, 404), answer.text
    # Nor does the answer tell that there is something.
    other = call(two.stranger, route, path_of(route, id="c" * 24))
    assert (answer.status_code, answer.json()) == (other.status_code, other.json())
    assert everything_of(two.owner, two.hook) == before


def test_lists_and_streams_show_nothing_of_another(two: Two) -> None:
    two.owner.post("/v1/devices/events", json={"name": "secret", "data": "mine"})
    assert two.stranger.get("/v1/devices").json() == []
    assert two.stranger.get("/v1/integrations").json() == []
    with two.stranger.stream("GET", "/v1/devices/events?last_event_id=0") as answer:
        two.stranger.post("/v1/devices/events", json={"name": "end"})
        text = ""
        for part in answer.iter_text():
            text += part
            if "event: end" in text:
                break
    assert "secret" not in text


def test_claiming_anothers_device_is_refused_in_the_words_that_clients_look_for(two: Two) -> None:
    answer = two.stranger.post("/v1/devices", json={"id": DEVICE})
    assert answer.status_code == 403
    assert "That belongs to someone else." in answer.json()["error"]


def test_a_webhook_of_one_sees_no_event_of_another(two: Two) -> None:
    two.stranger.post("/v1/devices/events", json={"name": "x"})
    shown = two.owner.get(f"/v1/integrations/{two.hook}").json()["integration"]
    assert shown["logs"] == shown["errors"] == []


def test_every_route_is_in_the_openapi_document(live_shared: tuple[Cloud, str]) -> None:
    document = httpx.get(live_shared[0].url + "/v1/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for route in ROUTES:
        path = re.sub(r"{(\w+)(?::[^}]*)?}", r"{\1}", route.path)
        operation = document["paths"][path][route.method.lower()]
        described = {(each["name"], each["in"]) for each in operation["parameters"]}
        assert described >= {(each.name, each.where) for each in route.parameters}
        assert described >= {(name, "path") for name in re.findall(r"{(\w+)", path)}
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(ids)) == len(ids)
    made = document["paths"]["/v1/integrations"]["post"]
    assert set(made["responses"]) == {"201", "default"}
    assert "POST" in httpx.get(live_shared[0].url + "/docs").text
