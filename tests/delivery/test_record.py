import json

from wirechamber.delivery.flight import Exchange
from wirechamber.delivery.record import KEPT_BODY_BYTES, detail
from wirechamber.integrations.base import MASK, NoResponse, Request, Response

SECRET = "s3cret"


def test_request_and_response_are_kept_masked_wherever_the_secret_occurs() -> None:
    request = Request(
        "POST", f"http://x/?key={SECRET}", (("Authorization", f"Bearer {SECRET}"),), f"a={SECRET}".encode(),
        secrets=(SECRET, ""),
    )  # fmt: skip
    reply = Response(200, (("X-Echo", SECRET),), f"you sent {SECRET}".encode(), 15)
    kept = detail([Exchange(request, reply, 1, 7, "127.0.0.1")])
    assert SECRET.encode() not in kept
    said = json.loads(kept)
    assert said["request"]["url"] == f"http://x/?key={MASK}"
    assert said["request"]["headers"] == [["Authorization", f"Bearer {MASK}"]]
    assert said["response"]["body"] == f"you sent {MASK}"
    assert said["duration_ms"] == 7


def test_long_bodies_are_cut_and_their_true_length_stays() -> None:
    reply = Response(200, (), b"y" * 30_000, 90_000)
    said = json.loads(detail([Exchange(Request("POST", "http://x/", (), b"x" * 20_000), reply, 1, 1, None)]))
    assert (len(said["request"]["body"]), said["request"]["body_length"]) == (KEPT_BODY_BYTES, 20_000)
    assert (len(said["response"]["body"]), said["response"]["body_length"]) == (KEPT_BODY_BYTES, 90_000)


def test_a_secret_at_the_edge_of_the_cut_leaves_no_half() -> None:
    body = b"x" * (KEPT_BODY_BYTES - 3) + SECRET.encode()
    request = Request("POST", "http://x/", (), body, secrets=(SECRET,))
    assert b"s3c" not in detail([Exchange(request, NoResponse("ETIMEDOUT"), 1, 1, None)])


def test_no_request_keeps_the_reason_and_several_keep_their_order() -> None:
    assert json.loads(detail([], "no url")) == {"error": "no url"}
    steps = [Exchange(Request("POST", f"http://{n}/"), Response(200), 1, 1, None) for n in "abc"]
    said = json.loads(detail(steps))
    assert [step["request"]["url"] for step in [*said["earlier"], said]] == ["http://a/", "http://b/", "http://c/"]
