"""GoogleCloudPubSub on a running cloud; Google's emulator and client library where they are, and a strict stand-in."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cloud import Cloud, cloud, eventually
from tests.sse import Seen, stream, take
from tests.standins.pubsub import EMAIL, TOPIC, Account, PubSub, emulator, emulator_jar, problem, pure_emulator
from tests.standins.server import Said, times

needs_emulator = pytest.mark.skipif(
    emulator_jar() is None or shutil.which("java") is None,
    reason="Google's Pub/Sub emulator (component of the Google Cloud CLI) and Java are not installed",
)


@pytest.fixture(scope="module")
def account() -> Account:
    return Account()


@pytest.fixture
def google(account: Account) -> Iterator[PubSub]:
    with PubSub(account) as service:
        yield service


@pytest.fixture
def live(tmp_path: Path, google: PubSub) -> Iterator[Cloud]:
    with cloud(tmp_path / "data", pubsub_url=google.url, retry_schedule="0,0.1,0.2,0.2,0.2") as running:
        yield running


@pytest.fixture
def client(live: Cloud) -> httpx.Client:
    return live.client(live.user("ann"))


def make(client: httpx.Client, account: Account | None, **rest: Any) -> str:
    settings: dict[str, Any] = {"integration_type": "GoogleCloudPubSub", "event": "temp", "topic": TOPIC}
    if account is not None:
        settings["credentials"] = account.text
    made = client.post("/v1/integrations", json=settings | rest)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def results(client: httpx.Client, *data: str | None, count: int | None = None, name: str = "temp") -> list[Seen]:
    with stream(client, "/v1/devices/events/hook-") as source:
        for each in data:
            assert client.post("/v1/devices/events", json={"name": name, "data": each}).status_code == 200
        return take(source, 2 * len(data) if count is None else count)


def attempts(client: httpx.Client, made: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/integrations/{made}/logs?per_page=100").json()["logs"])


def test_an_event_becomes_a_message(client: httpx.Client, google: PubSub, account: Account, live: Cloud) -> None:
    made = make(client, account)
    sent, response = results(client, "21.5", name="temp/kitchen")
    assert (sent.name, response.name, response.data) == ("hook-sent/temp/kitchen", "hook-response/temp/kitchen/0", "1")
    results(client, None)
    first, second = google.messages
    assert google.data == ["21.5", ""]
    assert "data" not in second
    attributes = first["attributes"]
    assert attributes["published_at"].endswith("Z")
    assert len(attributes["event_id"]) == 32
    assert (attributes["device_id"], attributes["event"]) == ("api", "temp/kitchen")
    # One signed statement for both, which no log shows.
    (bearer,) = google.bearers
    text = client.get(f"/v1/integrations/{made}").text + json.dumps(attempts(client, made)) + live.log_file.read_text()
    for secret in (bearer, account.file["private_key"][40:80], "BEGIN PRIVATE KEY"):
        assert secret not in text


def test_tokens_by_exchange_are_shared_and_renewed(tmp_path: Path, google: PubSub, account: Account) -> None:
    settings = {"pubsub_url": google.url, "google_token_url": f"{google.url}/token", "retry_schedule": "0,0.1,0.2"}
    with cloud(tmp_path / "data", **settings) as live:
        client = live.client(live.user("ann"))
        # As an object this time.
        made = make(client, None, credentials=account.file)
        results(client, *map(str, range(40)))
        assert len(google.tokens) == 1
        google.tokens.clear()
        results(client, "expired")
        assert google.data[-1] == "expired"
        assert len(google.tokens) == 1
        google.revoked = True
        google.tokens.clear()
        (told,) = results(client, "revoked", count=1)
        assert told.data == (
            f"error status 400 from Google's token service for the service account {EMAIL}: invalid_grant "
            "Invalid JWT Signature.; the key was revoked, or its account disabled or deleted; make a new key"
        )
        shown = client.get(f"/v1/integrations/{made}").text
        for asked in google.asked:
            assert asked.body.decode().partition("assertion=")[2][:400] not in shown or asked.path != "/token"


def test_waiting_events_share_calls_and_each_is_settled(client: httpx.Client, google: PubSub, account: Account) -> None:
    made = make(client, account)
    slow = iter(range(4))

    def hold(asked: Any) -> Said | None:
        # Four calls hang for a while, and what comes meanwhile gathers.
        if next(slow, None) is not None:
            eventually(lambda: len(published) == 60)
        return None

    published: list[str] = []
    google.mode = hold
    with stream(client, "/v1/devices/events/hook-response") as source:
        for number in range(60):
            client.post("/v1/devices/events", json={"name": "temp", "data": f"n{number}"})
            published.append(f"n{number}")
        seen = take(source, 60)
    assert sorted(google.data) == sorted(published)
    assert len(google.batches) < 15, google.batches
    assert sorted(int(each.data) for each in seen) == list(range(1, 61))
    found = eventually(lambda: len(logs := attempts(client, made)) == 60 and logs)
    assert all(each["ok"] for each in found)
    # Each shows its own message, and with how many others it went.
    together = next(each for each in found if each.get("together", 1) > 1)
    assert json.loads(together["request"]["body"])["attributes"]["event_id"] == together["event_id"]


def test_one_bad_message_spoils_no_other(client: httpx.Client, google: PubSub, account: Account) -> None:
    make(client, account)
    google.poison = "bad"
    gathered = iter(range(4))
    data = [f"n{number}" for number in range(30)] + ["bad"] + [f"m{number}" for number in range(30)]
    done: list[bool] = []

    def hold(asked: Any) -> Said | None:
        if next(gathered, None) is not None:
            eventually(lambda: done)
        return None

    google.mode = hold
    with stream(client, "/v1/devices/events/hook-") as source:
        for each in data:
            client.post("/v1/devices/events", json={"name": "temp", "data": each})
        done.append(True)
        seen = take(source, 121)
    (error,) = [each for each in seen if each.name.startswith("hook-error")]
    assert "Google can't take the message (a message can't be taken)" in error.data
    assert sorted(google.data) == sorted(each for each in data if each != "bad")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (problem(404, "NOT_FOUND", "Resource not found"), f"there is no topic {TOPIC}"),
        (problem(403, "PERMISSION_DENIED", "User not authorized"), f"{EMAIL} may not publish to {TOPIC}"),
        (problem(403, "PERMISSION_DENIED", "off", reason="SERVICE_DISABLED"), "the Pub/Sub API is not enabled"),
        (problem(401, "UNAUTHENTICATED", "invalid"), f"Google does not know {EMAIL} any more"),
        (problem(400, "FAILED_PRECONDITION", "billing"), "without billing"),
    ],
)
def test_a_wrong_setup_is_told_in_words_and_pauses(
    client: httpx.Client, google: PubSub, account: Account, said: Said, says: str
) -> None:
    google.mode = lambda asked: said
    made = make(client, account)
    tried = client.post(f"/v1/integrations/{made}/test", json={}).json()
    assert tried["ok"] is False
    assert says in tried["error"]
    (told,) = results(client, "1", count=1)
    assert (told.name, says in told.data) == ("hook-error/temp/0", True)
    eventually(lambda: client.get(f"/v1/integrations/{made}").json()["integration"]["paused"])
    google.mode = None
    with stream(client, "/v1/devices/events/hook-sent") as source:
        # The mask stands for the key that is stored.
        mended = {"event": "temp", "topic": TOPIC, "credentials": "[[SENSITIVE]]"}
        assert client.put(f"/v1/integrations/{made}", json=mended).status_code == 200
        take(source, 1)
    assert google.data == ["1"]


@pytest.mark.parametrize(
    "said",
    [
        problem(503, "UNAVAILABLE", "try again"), problem(409, "ABORTED", "try again"), Said(499), Said(200, b"{}"),
        problem(429, "RESOURCE_EXHAUSTED", "quota", ("Retry-After", "0")), Said(0, drop=True),
    ],
)  # fmt: skip
def test_what_can_heal_is_tried_again(client: httpx.Client, google: PubSub, account: Account, said: Said) -> None:
    google.mode = times(2, said)
    make(client, account)
    results(client, "1")
    assert google.data == ["1"]


def test_ordered_messages_carry_the_device_and_keep_their_order(
    client: httpx.Client, google: PubSub, account: Account
) -> None:
    make(client, account, ordering=True)
    data = [f"{number:03}" for number in range(80)]
    results(client, *data)
    assert google.data == data
    assert {message["orderingKey"] for message in google.messages} == {"api"}


def test_order_is_kept_while_the_service_is_away(tmp_path: Path, google: PubSub, account: Account) -> None:
    """Far more events than wait in memory, and a service that refuses, comes, and refuses again."""
    settings = {"pubsub_url": google.url, "retry_schedule": ",".join(["0", *["0.5"] * 60])}
    with cloud(tmp_path / "data", **settings) as live:
        client = live.client(live.user("ann"))
        make(client, account, ordering=True)
        calls = iter(range(10_000))
        # Each of the first calls fails; afterwards every third one does.
        google.mode = lambda asked: (
            problem(503, "UNAVAILABLE", "away") if (n := next(calls)) < 4 or n % 3 == 0 else None
        )
        data = [f"{number:04}" for number in range(900)]
        for each in data:
            assert client.post("/v1/devices/events", json={"name": "temp", "data": each}).status_code == 200
        eventually(lambda: len(google.messages) >= len(data), 60, "all messages")
        assert google.data == data


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("topic", "my-topic", "topic: must be a full name such as projects/my-project/topics/my-topic, not 'my-topic'"),
        ("topic", "projects/p-1/topics/google", "topic: must be a full name"),
        ("topic", "", "topic: is required: full name of the topic, such as projects/my-project/topics/my-topic"),
        ("credentials", "{", "credentials: must be the whole JSON file of a service account's key"),
        ("credentials", {"type": "authorized_user"}, "credentials: must be a service account's key; the type of this"),
        ("credentials", {"client_email": "x", "private_key": "y"}, "credentials: its private_key can't be read"),
        ("ordering", "perhaps", "ordering: must be true or false"),
    ],
)
def test_settings_are_checked(live_shared: tuple[Cloud, str], field: str, value: Any, says: str) -> None:
    running, token = live_shared
    sent = {"integration_type": "GoogleCloudPubSub", "event": "t", "topic": TOPIC, field: value}
    answer = running.client(token).post("/v1/integrations", json=sent)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(says)


@needs_emulator
def test_googles_library_reads_what_was_published(
    tmp_path: Path, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Google's emulator, with our credentials checked in front of it, and with the emulator's own setting."""
    from google.cloud import pubsub_v1

    with emulator(tmp_path) as address, PubSub(account, behind=address) as google:
        monkeypatch.setitem(os.environ, "PUBSUB_EMULATOR_HOST", address)
        publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
        try:
            publisher.create_topic(name=TOPIC)
            subscription = subscriber.subscription_path("test-project", "reader")
            subscriber.create_subscription(
                request={"name": subscription, "topic": TOPIC, "enable_message_ordering": True}
            )
            data = [f"é{number}" for number in range(30)]
            os.environ.pop("PUBSUB_EMULATOR_HOST")
            with cloud(tmp_path / "data", pubsub_url=google.url) as live:
                client = live.client(live.user("ann"))
                make(client, account, ordering=True)
                ids = {each.data for each in results(client, *data) if each.name.startswith("hook-response")}
            os.environ["PUBSUB_EMULATOR_HOST"] = address
            found = read_all(subscriber, subscription, 30)
            assert [message.data.decode() for message in found] == data
            assert {message.message_id for message in found} == ids
            assert {message.ordering_key for message in found} == {"api"}
            assert {name: found[0].attributes[name] for name in ("device_id", "event")} == {
                "device_id": "api", "event": "temp",
            }  # fmt: skip
            # The variable that every client of the emulator knows; no credentials at all.
            with cloud(tmp_path / "other") as live:
                client = live.client(live.user("ann"))
                made = make(client, None, topic="projects/test-project/topics/missing")
                tried = client.post(f"/v1/integrations/{made}/test", json={}).json()
                assert "there is no topic projects/test-project/topics/missing" in tried["error"]
                make(client, None, event="other")
                results(client, "direct", name="other")
            (message,) = read_all(subscriber, subscription, 1)
            assert message.data == b"direct"
        finally:
            subscriber.close()
            publisher.stop()


def test_an_emulator_that_nobody_here_wrote_reads_what_was_published(tmp_path: Path) -> None:
    """The emulator in Python, over REST: there where Java is not."""
    with pure_emulator(tmp_path) as address, httpx.Client(base_url=f"http://{address}/v1/", timeout=20) as google:
        assert google.put(TOPIC, json={}).status_code == 200
        subscription = "projects/test-project/subscriptions/reader"
        assert google.put(subscription, json={"topic": TOPIC}).status_code == 200
        with cloud(tmp_path / "data", pubsub_emulator_host=address) as live:
            client = live.client(live.user("ann"))
            made = make(client, None, topic="projects/test-project/topics/missing", event="other")
            tried = client.post(f"/v1/integrations/{made}/test", json={}).json()
            assert "there is no topic projects/test-project/topics/missing" in tried["error"]
            make(client, None)
            data = [f"é{number}" for number in range(20)]
            ids = {each.data for each in results(client, *data) if each.name.startswith("hook-response")}
        found: list[dict[str, Any]] = []

        def pull() -> bool:
            answer = google.post(f"{subscription}:pull", json={"maxMessages": 100}).json()
            found.extend(each["message"] for each in answer.get("receivedMessages", []))
            return len(found) >= len(data)

        eventually(pull)
        assert sorted(base64.b64decode(each["data"]).decode() for each in found) == sorted(data)
        assert {each["messageId"] for each in found} == ids
        assert {each["attributes"]["event"] for each in found} == {"temp"}


def read_all(subscriber: Any, subscription: str, count: int) -> list[Any]:
    """Pulls until so many messages have come."""
    found: list[Any] = []

    def pull() -> bool:
        answer = subscriber.pull(request={"subscription": subscription, "max_messages": 100}, timeout=20)
        found.extend(each.message for each in answer.received_messages)
        if answer.received_messages:
            ids = [each.ack_id for each in answer.received_messages]
            subscriber.acknowledge(request={"subscription": subscription, "ack_ids": ids})
        return len(found) >= count

    eventually(pull, 60, "reading")
    return found
