"""Secrets in what is kept and told: hidden where they were put, and where targets echo them."""

from __future__ import annotations

import base64
import html
import json
import time
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.delivery.builders import NOW, an_event
from wirechamber.delivery.flight import Exchange
from wirechamber.delivery.masks import MAX_SECRETS, Echoes, echoes, masked, untold
from wirechamber.delivery.record import detail
from wirechamber.integrations.base import MASK, MIN_ECHOED, Context, NoResponse, Request, Response
from wirechamber.integrations.webhook import Webhook

HOOK = Webhook()
AGENT = "Wirechamber/0.1.0 (webhooks)"
SECRET = 'pink "elephants" & <ü>/1'


def sent(**fields: Any) -> Request:
    prepared = HOOK.prepare(HOOK.read({"url": "https://example.com/k/in?k=k"} | fields, {}).config)
    made = HOOK.request(an_event("k", "k k"), prepared, Context(NOW, AGENT))
    assert isinstance(made, Request), made
    return made


def kept(request: Request, reply: Response | NoResponse | None = None) -> Any:
    return json.loads(detail([Exchange(request, reply or Response(200), 1, 1, None)]))


@pytest.mark.parametrize("secret", ["k", "0", "e", "s3cr3t-word"])
def test_a_secret_is_hidden_in_its_header_and_leaves_the_others_alone(secret: str) -> None:
    request = sent(
        headers={"X-Key": secret, "X-Open": "k"}, secretHeaders=["x-key"], auth={"username": "u", "password": secret}
    )
    said = kept(request)["request"]
    found = dict(said["headers"])
    assert (found["X-Key"], found["Authorization"]) == (MASK, f"Basic {MASK}")
    assert (found["User-Agent"], found["X-Open"]) == (AGENT, "k")
    assert said["url"] == "https://example.com/k/in?k=k"
    assert said["body"].startswith("event=k&data=k+k&")


def test_a_short_secret_is_not_looked_for_in_answers() -> None:
    reply = Response(200, (("X-Unit", "k"),), b'{"unit": "k"}', 13)
    found = kept(sent(headers={"Authorization": "k"}), reply)["response"]
    assert (found["headers"], found["body"]) == ([["X-Unit", "k"]], '{"unit": "k"}')


@pytest.mark.parametrize(
    "echo",
    [
        SECRET,
        quote(SECRET, safe=""), quote(SECRET), quote_plus(SECRET), quote(SECRET, safe="").lower(),
        json.dumps(SECRET)[1:-1], json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
        html.escape(SECRET), html.escape(SECRET, quote=False),
    ],
)  # fmt: skip
def test_an_echo_is_hidden_however_it_is_encoded(echo: str) -> None:
    reply = Response(200, (("X-Echo", f"<{echo}>"),), f"you sent {echo}.".encode(), 500)
    request = Request("POST", "http://x/", (("X-Key", SECRET),), b"", secrets=(SECRET,), hidden=("headers.X-Key",))
    found = masked(Exchange(request, reply, 1, 1, None)).reply
    assert isinstance(found, Response)
    assert found.body == f"you sent {MASK}.".encode()
    assert dict(found.headers)["X-Echo"] == f"<{MASK}>"
    told = masked(Exchange(request, NoResponse(f"bad header {echo}"), 1, 1, None)).reply
    assert told == NoResponse(f"bad header {MASK}")


@pytest.mark.parametrize(
    ("headers", "echo"),
    [
        ({"Authorization": "Bearer abc-token-def"}, "abc-token-def"),
        ({"Authorization": "Basic " + base64.b64encode(b"user:s3cr3t-word").decode()}, "s3cr3t-word"),
        ({"Cookie": "theme=dark; session=s3cr3t-word"}, "s3cr3t-word"),
        ({"Proxy-Authorization": "s3cr3t-word"}, "s3cr3t-word"),
    ],
)
def test_the_part_of_a_header_that_is_the_secret_is_hidden(headers: dict[str, str], echo: str) -> None:
    found = kept(sent(headers=headers), Response(200, (), f'{{"got":"{echo}"}}'.encode(), 100))
    assert found["response"]["body"] == f'{{"got":"{MASK}"}}'


def test_the_password_of_basic_authentication_is_hidden_in_each_of_its_forms() -> None:
    request = sent(auth={"username": "u", "password": "pä ss-wort"})
    encoded = base64.b64encode("u:pä ss-wort".encode()).decode()
    for echo in ("pä ss-wort", encoded, "p%C3%A4%20ss-wort", "p\\u00e4 ss-wort"):
        assert kept(request, Response(200, (), echo.encode(), 50))["response"]["body"] == MASK


def test_half_a_secret_at_the_end_of_an_answer_that_was_cut_is_hidden() -> None:
    for length in range(MIN_ECHOED, len("s3cr3t-word")):
        body = b"x" * 50 + b"s3cr3t-word"[:length]
        assert echoes(("s3cr3t-word",)).reply(Response(200, (), body, 90_000)) == Response(
            200, (), b"x" * 50 + MASK.encode(), 90_000
        )
        assert echoes(("s3cr3t-word",)).reply(Response(200, (), body, len(body))).body == body  # type: ignore[union-attr]


@pytest.mark.parametrize("length", [127, 128, 129, 500, 5_999])
def test_half_a_long_secret_is_hidden(length: int) -> None:
    secret = "".join(f"{n}/" for n in range(2_000))[:6_000]
    body = b"x" * 50 + secret[:length].encode()
    assert echoes((secret,)).masked(body, cut=True) == b"x" * 50 + MASK.encode()


def test_half_a_secret_is_looked_for_once_and_not_once_for_each_length_it_may_have() -> None:
    # 5 s when it was; now a few milliseconds.
    secret = "€" * 5_000 + "!"
    echoed = echoes((secret,))
    before = time.thread_time()
    for _ in range(10):
        assert echoed.masked(b"a" * 100_000, cut=True) == b"a" * 100_000
    assert time.thread_time() - before < 2


@pytest.mark.parametrize(
    "fields",
    [{"headers": {"X-Key": "€" * 5_500}, "secretHeaders": ["X-Key"]}, {"headers": {"Authorization": "a" * 16_385}}],
)
def test_the_secrets_of_a_request_are_bounded(fields: dict[str, Any]) -> None:
    prepared = HOOK.prepare(HOOK.read({"url": "https://example.com/"} | fields, {}).config)
    refused = HOOK.request(an_event("k", "k"), prepared, Context(NOW, AGENT))
    assert "the secret headers are longer than 16384 bytes" in str(refused)


def test_a_query_s_secret_is_hidden_whatever_its_length() -> None:
    request = Request("POST", "https://x/key=k?a=k&key=k&b=k#k", secrets=("k",), hidden=("query.key",))
    assert kept(request)["request"]["url"] == f"https://x/key=k?a=k&key={MASK}&b=k#k"


def test_a_password_in_a_rendered_url_is_hidden() -> None:
    request = Request("GET", "http://u:PASS@host/a@b")
    assert kept(request)["request"]["url"] == f"http://u:{MASK}@host/a@b"


def test_a_kind_that_does_not_say_where_has_its_short_secrets_hidden_between_marks() -> None:
    headers = (("Authorization", "Bearer k"), ("User-Agent", AGENT))
    found = kept(Request("POST", "http://x/k?key=k&unit=kelvin", headers, secrets=("k",)))["request"]
    assert found["headers"] == [["Authorization", f"Bearer {MASK}"], ["User-Agent", AGENT]]
    assert found["url"] == f"http://x/{MASK}?key={MASK}&unit=kelvin"


def test_of_what_is_said_about_a_token_only_the_host_and_the_status_are_kept() -> None:
    request = Request(
        "POST", "https://u:p@token.example/v1?x=y", (("A", "assertion"),), b"assertion", secrets=("assertion",)
    )
    reply = Response(200, (("Set-Cookie", "token"),), b'{"access_token":"token"}', 24)
    found = untold(Exchange(request, reply, 1, 7, "127.0.0.1"))
    assert (found.request.url, found.request.headers, found.request.body) == (
        f"https://u:{MASK}@token.example",
        (),
        None,
    )
    assert found.reply == Response(200, (), b"", 24)
    assert untold(Exchange(request, NoResponse("ETIMEDOUT"), 1, 7, None)).reply == NoResponse("ETIMEDOUT")


def test_only_so_many_secrets_are_looked_for() -> None:
    many = tuple(f"secret-{number:03}" for number in range(MAX_SECRETS + 1))
    assert Echoes(many).text(" ".join(many)) == " ".join([MASK] * MAX_SECRETS + [many[-1]])


@given(secret=st.text(min_size=MIN_ECHOED, max_size=20), before=st.text(max_size=10), after=st.text(max_size=10))
def test_no_plain_echo_of_a_secret_stays(secret: str, before: str, after: str) -> None:
    secret = secret.encode("utf-8", "replace").decode()
    found = Echoes((secret,)).text(f"{before}{secret}{after}")
    assert secret in MASK or secret not in found.replace(MASK, "\0")
