"""What targets answer comes back as text, in the encoding that it says, and never as hundreds of pieces of rubbish."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cloud import Target, cloud, eventually
from tests.sse import Seen, stream, take

READINGS = [{"at": f"2026-11-28T{hour:02}:00", "celsius": hour + 0.5} for hour in range(24)] * 120
LARGE = json.dumps({"properties": {"temperature": {"value": 21.5}}, "readings": READINGS}).encode()
PAGE = b"<!doctype html><html><body>" + b"<p>Sorry, we are down for maintenance.</p>" * 1_500
JSON = {"Content-Type": "application/json"}
TEMPLATE = "{{properties.temperature.value}}"
SMALL = b'{"properties":{"temperature":{"value":21.5}},"place":"Z\xc3\xbcrich"}'


class Place:
    """A cloud with one target, shared by the tests here."""

    def __init__(self, client: httpx.Client, target: Target) -> None:
        self.client = client
        self.target = target
        self.made = 0

    def ask(
        self, body: bytes, said: dict[str, str], count: int, status: int = 200, **fields: Any
    ) -> tuple[list[Seen], dict[str, Any]]:
        """What a new webhook's answer brings: so many events, which are all that come, and its attempt."""
        self.made += 1
        name = f"ask{self.made:03}"
        self.target.answer = lambda method, path, sent: (status, said, body)
        wanted = {"event": name, "url": self.target.url, "responseTopic": f"answer/{name}", **fields}
        hook = self.client.post("/v1/integrations", json=wanted).json()["id"]
        # Results of one delivery are stored together: were there more, they would come before those of the next one.
        with stream(self.client) as source:
            self.client.post("/v1/devices/events", json={"name": name, "data": "1"})
            take(source, 1)
            seen = take(source, count)
            self.client.post("/v1/devices/events", json={"name": f"end-of-{name}"})
            (end,) = take(source, 1)
            assert end.name == f"end-of-{name}", f"{seen} and then {end}"
        (attempt,) = eventually(lambda: self.client.get(f"/v1/integrations/{hook}/logs").json()["logs"])
        return seen, attempt


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder: Path = tmp_path_factory.mktemp("answers")
    with Target() as target, cloud(folder / "data", retry_schedule="0") as live:
        yield Place(live.client(live.user("ann")), target)


def test_a_template_has_all_of_a_large_answer(place: Place) -> None:
    assert 122_000 < len(LARGE) < 150_000
    (sent, answer), attempt = place.ask(LARGE, JSON, 2, responseTemplate=TEMPLATE)
    assert sent.name.startswith("hook-sent/")
    assert (answer.name, answer.data) == (f"answer/ask{place.made:03}/0", "21.5")
    assert attempt["response"]["body_length"] == len(LARGE)


def test_an_answer_that_is_too_long_for_a_template_is_one_error_that_says_so(place: Place) -> None:
    body = b'{"properties":{"temperature":{"value":21.5}},"x":"' + b"x" * 1_000_000 + b'"}'
    (error,), attempt = place.ask(body, JSON, 1, responseTemplate=TEMPLATE)
    assert error.name == f"hook-error/ask{place.made:03}/0"
    assert "longer than the 1000000 bytes" in error.data
    assert attempt["error"] == error.data


def test_a_page_in_place_of_json_is_one_error_that_says_so(place: Place) -> None:
    assert len(PAGE) > 60_000
    (error,), attempt = place.ask(PAGE, {"Content-Type": "text/html"}, 1, responseTemplate=TEMPLATE)
    assert error.name == f"hook-error/ask{place.made:03}/0"
    assert "it is no JSON but text/html: " in error.data
    # And the owner can see what it was.
    assert attempt["response"]["body"].startswith("<!doctype html>")
    assert attempt["ok"] is False


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xef\xbb\xbf" + SMALL, JSON),
        (SMALL.decode().encode("latin-1"), {"Content-Type": "application/json; charset=ISO-8859-1"}),
        (SMALL.decode().encode("utf-16"), JSON),
        (gzip.compress(SMALL), {**JSON, "Content-Encoding": "gzip"}),
        (zlib.compress(SMALL), {**JSON, "Content-Encoding": "deflate"}),
        (
            gzip.compress(SMALL.decode().encode("latin-1")),
            {"Content-Type": "text/plain;charset=latin1", "Content-Encoding": "gzip"},
        ),
    ],
)
def test_an_answer_is_read_in_the_encoding_that_it_says(place: Place, body: bytes, headers: dict[str, str]) -> None:
    (_, answer), attempt = place.ask(body, headers, 2, responseTemplate=f"{TEMPLATE} in {{{{place}}}}")
    assert answer.data == "21.5 in Zürich"
    assert attempt["response"]["body"] == SMALL.decode()
    (_, answer), _ = place.ask(body, headers, 2)
    assert answer.data == SMALL.decode()
    # What explains an error is text as well.
    (error,), attempt = place.ask(body, headers, 1, status=404)
    assert attempt["response"]["body"] == SMALL.decode()
    assert error.data == "error status 404 from 127.0.0.1"


def test_an_attempt_says_that_the_event_was_no_json(place: Place) -> None:
    place.target.answer = lambda method, path, sent: (200, {}, b"")
    made = place.client.post("/v1/integrations", json={"event": "nan", "url": place.target.url, "json": {"t": "{{t}}"}})
    log = f"/v1/integrations/{made.json()['id']}/logs"
    place.client.post("/v1/devices/events", json={"name": "nan", "data": '{"t":nan}'})
    (attempt,) = eventually(lambda: place.client.get(log).json()["logs"])
    assert (attempt["ok"], attempt["status"]) == (True, 200)
    assert attempt["error"].startswith("the event's data is no JSON: ")
    place.client.post("/v1/devices/events", json={"name": "nan", "data": '{"t":21}'})
    attempt, _ = eventually(lambda: len(logs := place.client.get(log).json()["logs"]) == 2 and logs)
    assert (attempt["ok"], attempt["error"]) == (True, None)
    tested = place.client.post(log.replace("/logs", "/test"), json={}).json()
    assert (tested["ok"], tested["error"].startswith("the event's data is no JSON: ")) == (True, True)


def test_null_is_a_value(place: Place) -> None:
    (_, answer), _ = place.ask(b"null", JSON, 2, responseTemplate="{{#a}}some{{/a}}{{^a}}none{{/a}}")
    assert answer.data == "none"


def test_a_bomb_is_cut_where_any_answer_is(place: Place) -> None:
    bomb = gzip.compress(b"a" * 30_000_000)
    (error,), attempt = place.ask(bomb, {**JSON, "Content-Encoding": "gzip"}, 1, responseTemplate=TEMPLATE)
    assert "longer than the 1000000 bytes" in error.data
    assert attempt["response"]["body_length"] == 1_000_001


def test_a_coding_that_can_t_be_undone_is_one_error_and_no_rubbish(place: Place) -> None:
    (error,), attempt = place.ask(b"\x0b\x02\x80" * 5_000, {**JSON, "Content-Encoding": "br"}, 1)
    assert error.name == f"hook-error/ask{place.made:03}/0"
    assert "Content-Encoding is br" in error.data
    # The target took it: nothing has failed, and nothing is tried again.
    assert attempt["ok"] is True
    assert "body" not in attempt["response"] or attempt["response"]["body"] == ""


@pytest.mark.parametrize("coding", ["gzip", "identity"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_secret_in_an_answer_is_hidden_whatever_it_comes_in(place: Place, coding: str, encoding: str) -> None:
    body = "you sent s3cret-token, Zürich".encode(encoding)
    body = gzip.compress(body) if coding == "gzip" else body
    headers = {"Content-Type": "text/plain", "Content-Encoding": coding}
    (_, answer), attempt = place.ask(body, headers, 2, headers={"Authorization": "Bearer s3cret-token"})
    assert answer.data == "you sent [[SENSITIVE]], Zürich"
    assert "s3cret-token" not in json.dumps(attempt)


@pytest.mark.parametrize("body", [LARGE, gzip.compress(LARGE)], ids=["plain", "gzip"])
def test_places_for_large_answers_are_given_back(place: Place, body: bytes) -> None:
    coding = {"Content-Encoding": "gzip"} if body != LARGE else {}
    place.target.answer = lambda method, path, sent: (200, JSON | coding, body)
    place.made += 1
    name = f"many{place.made:03}"
    wanted = {"event": name, "url": place.target.url, "responseTemplate": TEMPLATE}
    hook = place.client.post("/v1/integrations", json=wanted).json()["id"]
    with stream(place.client, "/v1/devices/events/hook-") as source:
        # More than one owner has places.
        for number in range(40):
            place.client.post("/v1/devices/events", json={"name": name, "data": str(number)})
        seen = take(source, 80)
    assert {each.data for each in seen if each.name != f"hook-sent/{name}"} == {"21.5"}
    assert place.client.delete(f"/v1/integrations/{hook}").status_code == 204
