"""The kind itself: waiting events go to their topic in one call, and each is settled by itself."""

from __future__ import annotations

import base64
from collections.abc import Generator, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from wirechamber.integrations.answers import clock_apart, clock_words, host_and_port
from wirechamber.integrations.base import (
    Answer,
    Batch,
    Call,
    Context,
    Delivered,
    Granted,
    Integration,
    Misconfigured,
    Needs,
    NoJson,
    NoResponse,
    Outcome,
    Plan,
    Refused,
    Request,
    Response,
    Token,
    TryLater,
)
from wirechamber.integrations.declaration import Declaration, Secret, setting
from wirechamber.integrations.google import Problem, about_time, problem_in, wait_asked
from wirechamber.integrations.google_pubsub.credentials import (
    CLOCK_APART_S,
    CLOCK_DIFFERS,
    Identity,
    KeyIdentity,
    ambient,
    key_text,
)
from wirechamber.model.accounts import GOOGLE_IDENTITY
from wirechamber.model.events import Event
from wirechamber.model.times import iso

# Pub/Sub quotas and limits. A request may have 1,000 messages and 10 MB, as Base64 in JSON.
MAX_DATA_BYTES = 7_000_000
MAX_ATTRIBUTES = 100
MAX_KEY_BYTES = 256
MAX_VALUE_BYTES = 1_024
# A call that has some hundred messages costs hardly more for each than one of a thousand, and repeats less.
BATCH = Batch(events=500, bytes=4_000_000, plans=4)
# Calls that one plan may make to find the messages which spoil the others'; each may need two steps.
MAX_CALLS = 20
THROTTLED_S = 10.0
NOT_GRANTED = (
    "none are given, and the server's own identity at Google is not yours to use; give a service account's key, or ask "
    "the operator for `wirechamber user grant NAME google-identity`"
)
PROJECT = r"[a-z][a-z0-9.:-]{2,100}[a-z0-9]"
# 3 to 255 characters, a letter first, not "goog" (Pub/Sub, "Create a topic").
TOPIC = r"(?!goog)[A-Za-z][A-Za-z0-9\-_.~+%]{2,254}"

_encode = msgspec.json.Encoder().encode


class GoogleCloudPubSubConfig(Struct, frozen=True, kw_only=True):
    """Publish each event to a Google Cloud Pub/Sub topic."""

    topic: Annotated[
        str,
        setting(
            "Full name of the topic.",
            example="projects/my-project/topics/my-topic",
            pattern=f"projects/{PROJECT}/topics/{TOPIC}",
            allowed="a full name such as projects/my-project/topics/my-topic",
        ),
    ]
    credentials: Annotated[
        Secret | None,
        setting(
            "Key of a service account with the role Pub/Sub Publisher on the topic: the JSON file as text or object. "
            "When absent, the server's own identity is used, if it has one and its operator granted you that.",
            parse=key_text,
            allowed="the JSON of a service account's key",
        ),
    ] = None
    ordering: Annotated[
        bool,
        setting("Messages of one device carry its id as ordering key and are published one call after the other."),
    ] = False


class Publisher:
    """A configuration, ready to publish.

    Attributes:
        identity: Who publishes; None at an emulator, which asks nobody.
        permission: What its owner must have been granted.
    """

    __slots__ = ("config", "host", "identity", "permission", "target", "url")

    def __init__(
        self, config: GoogleCloudPubSubConfig, base: str, identity: Identity | None, permission: str | None
    ) -> None:
        self.config = config
        self.permission = permission
        self.identity = identity
        self.url = f"{base}/v1/{quote(config.topic)}:publish"
        self.host, self.target = host_and_port(base)


class GoogleCloudPubSub(Integration[GoogleCloudPubSubConfig, Publisher]):
    """Publish each event to a Google Cloud Pub/Sub topic.

    Args:
        url: Google's, or a regional endpoint.
        token_url: Where signed statements become tokens; empty: they are the tokens.
        emulator: Host and port of an emulator; empty for the real one.
        ambient_key: Path of the key that counts when an integration has none; empty: the machine's own identity.
    """

    kind = "GoogleCloudPubSub"
    declaration = Declaration(GoogleCloudPubSubConfig)
    batch = BATCH
    # As in pyproject.toml; by its own name, since ours is on no index.
    needs = Needs("google.auth", 'pip install "google-auth>=2.40"')

    def __init__(self, url: str, token_url: str = "", emulator: str = "", ambient_key: str = "") -> None:
        self._url = f"http://{emulator}" if emulator else url.rstrip("/")
        self._token_url = token_url
        self._emulated = bool(emulator)
        self._ambient_key = ambient_key

    def permission(self, config: GoogleCloudPubSubConfig) -> str | None:
        """Without a key of its own it acts as the server does."""
        return GOOGLE_IDENTITY if config.credentials is None and not self._emulated else None

    def prepare(self, config: GoogleCloudPubSubConfig) -> Publisher:
        """Whose identity it is."""
        identity: Identity | None = None
        if not self._emulated:
            if config.credentials is None:
                identity = ambient(self._ambient_key, self._token_url)
            else:
                identity = KeyIdentity(config.credentials, self._token_url)
        return Publisher(config, self._url, identity, self.permission(config))

    def target(self, event: Event, prepared: Publisher, context: Context) -> str:
        """Google's host."""
        return prepared.target

    def order(self, event: Event, prepared: Publisher) -> str:
        """The device, if its order is to be kept: then a request holds messages of one device only."""
        return (event.device or event.coreid) if prepared.config.ordering else ""

    def describe_target(self, config: GoogleCloudPubSubConfig) -> str:
        """The topic, as the console shows it."""
        return f"Pub/Sub topic {config.topic.rpartition('/')[2]}"

    def deliver(self, events: Sequence[Event], prepared: Publisher, context: Context) -> Plan:
        """Publishes all in one call; should Google refuse one of them, in fewer and fewer."""
        if prepared.permission is not None and not (yield Granted(prepared.permission)):
            return [Misconfigured(f"credentials: {NOT_GRANTED}")] * len(events)
        outcomes: list[Outcome | None] = [too_much(event) for event in events]
        messages = [message(event, ordering=prepared.config.ordering) for event in events]
        left = [[place for place, outcome in enumerate(outcomes) if outcome is None]]
        calls = 0
        while left:
            places = left.pop()
            if not places:
                continue
            if calls >= MAX_CALLS:
                for place in places:
                    outcomes[place] = TryLater("its batch was refused for the sake of others; it goes in another one")
                continue
            calls += 1
            parts = tuple(messages[place] if place in set(places) else b"" for place in range(len(messages)))
            reply = yield from self._publish(parts, prepared, context)
            if _spoilt(reply) and len(places) > 1:
                middle = len(places) // 2
                left += [places[middle:], places[:middle]]
                continue
            for index, place in enumerate(places):
                outcomes[place] = _outcome(reply, index, len(places), prepared, context)
        return [outcome or Refused("it was left out") for outcome in outcomes]

    def _publish(
        self, parts: tuple[bytes, ...], prepared: Publisher, context: Context
    ) -> Generator[Any, Any, Response | NoResponse]:
        body = b'{"messages":[' + b",".join(part for part in parts if part) + b"]}"
        identity = prepared.identity
        if identity is None:
            reply: Response | NoResponse = yield Call(_request(prepared, body, parts, context, None))
            return reply
        token = yield Token("google", lambda: identity.token(context))
        reply = yield Call(_request(prepared, body, parts, context, token))
        if isinstance(reply, Response) and reply.status == 401:
            token = yield Token("google", lambda: identity.token(context), instead_of=token)
            reply = yield Call(_request(prepared, body, parts, context, token))
        return reply


def message(event: Event, *, ordering: bool) -> bytes:
    """A message as JSON (integrations.md, section 11)."""
    found: dict[str, Any] = {"attributes": attributes(event)}
    if event.data:
        found["data"] = base64.b64encode(event.data.encode("utf-8", "replace")).decode()
    if ordering:
        found["orderingKey"] = event.device or event.coreid
    return _encode(found)


def attributes(event: Event) -> dict[str, str]:
    """What a message tells beside its data. A repeated publish makes a second message: `event_id` tells them."""
    return {
        "device_id": event.device or event.coreid,
        "event": event.name,
        "published_at": iso(event.published_at),
        "event_id": event.id,
    }


def too_much(event: Event) -> Refused | None:
    """Why an event can be no message: Pub/Sub's limits, which its emulator does not check."""
    size = len((event.data or "").encode("utf-8", "replace"))
    if size > MAX_DATA_BYTES:
        return Refused(f"the event's data is too large for one message: {size} bytes, at most {MAX_DATA_BYTES}")
    return limits(attributes(event))


def limits(given: dict[str, str]) -> Refused | None:
    """Why attributes can't be sent."""
    if len(given) > MAX_ATTRIBUTES:
        return Refused(f"a message may have {MAX_ATTRIBUTES} attributes, not {len(given)}")
    for key, value in given.items():
        if not key or len(key.encode()) > MAX_KEY_BYTES or key.startswith("goog"):
            return Refused(f"the attribute {key[:40]!r} can't have that name")
        if len(value.encode()) > MAX_VALUE_BYTES:
            return Refused(f"the attribute {key} is longer than {MAX_VALUE_BYTES} bytes")
    return None


def _request(
    prepared: Publisher, body: bytes, parts: tuple[bytes, ...], context: Context, token: str | None
) -> Request:
    headers = [("Content-Type", "application/json"), ("User-Agent", context.user_agent)]
    secrets: tuple[str, ...] = ()
    if token is not None:
        headers.append(("Authorization", f"Bearer {token}"))
        secrets = (token,)
    hidden = ("headers.Authorization",)
    return Request("POST", prepared.url, tuple(headers), body, secrets=secrets, parts=parts, hidden=hidden)


def _spoilt(reply: Response | NoResponse) -> bool:
    """Whether one message among several may be why all were refused."""
    return isinstance(reply, Response) and (
        reply.status == 413 or (reply.status == 400 and problem_in(reply).status in ("INVALID_ARGUMENT", ""))
    )


def _outcome(reply: Response | NoResponse, index: int, count: int, prepared: Publisher, context: Context) -> Outcome:
    """What an answer means for one of the messages."""
    if isinstance(reply, NoResponse):
        return Refused(reply.why) if reply.final else TryLater(reply.why)
    if reply.status == 200:
        ids = _message_ids(reply)
        if len(ids) != count:
            return TryLater(f"{prepared.host} answered 200 without an id for each message; they may be published")
        return Delivered(Answer(ids[index]))
    problem = problem_in(reply)
    said = f" ({problem.message})" if problem.message else ""
    why = f"error status {reply.status} from {prepared.host}: {_sentence(reply.status, problem, prepared)}{said}"
    after = wait_asked(reply, problem, context.now)
    if reply.status == 429:
        return TryLater(why, THROTTLED_S if after is None else after, throttled=True, rest=True)
    if reply.status in (408, 409, 499) or reply.status >= 500:
        return TryLater(why, after)
    apart = clock_apart(reply, context.now)
    if reply.status == 401 and (abs(apart) > CLOCK_APART_S or _ended_at_once(problem)):
        # Heals when the clock is set: nothing is asked of the user.
        words = clock_words(apart) if abs(apart) > CLOCK_APART_S else CLOCK_DIFFERS
        return TryLater(f"error status 401 from {prepared.host}: {words}{said}", rest=True)
    if reply.status in (401, 403, 404) or problem.status == "FAILED_PRECONDITION":
        return Misconfigured(why)
    return Refused(why)


def _ended_at_once(problem: Problem) -> bool:
    """Whether a token that was made a moment ago is refused for its time."""
    return "ACCESS_TOKEN_EXPIRED" in problem.reasons or about_time(problem.message)


def _sentence(status: int, problem: Problem, prepared: Publisher) -> str:
    who = "the server" if prepared.identity is None else prepared.identity.who
    topic = prepared.config.topic
    match status:
        case 401:
            return f"Google does not know {who} any more: its key was revoked or the account deleted; make a new key"
        case 403 if "SERVICE_DISABLED" in problem.reasons:
            return f"the Pub/Sub API is not enabled for the project of {topic}"
        case 403:
            return f"{who} may not publish to {topic}; give it the role Pub/Sub Publisher there"
        case 404:
            return f"there is no topic {topic}; create it, or mend the name"
        case 429:
            return "the project's quota is used up for the moment"
    if problem.status == "FAILED_PRECONDITION":
        return "the project can't take messages at present, such as without billing"
    return "Google can't take the message" if status < 500 else "Google has trouble"


def _message_ids(reply: Response) -> list[str]:
    try:
        found = reply.json()["messageIds"]
    except (NoJson, LookupError, TypeError):
        return []
    return [str(each) for each in found] if isinstance(found, list) else []
