"""The kind itself: one question to the Geolocation API for each scan, and its answer back to the device."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from wirechamber.integrations.answers import host_and_port, outcome_by_status
from wirechamber.integrations.base import (
    Answer,
    Call,
    Context,
    Delivered,
    Integration,
    Misconfigured,
    NoJson,
    NoResponse,
    Outcome,
    Plan,
    Recall,
    Refused,
    Remember,
    Request,
    Response,
    Topics,
    TryLater,
)
from wirechamber.integrations.declaration import Declaration, Secret, setting
from wirechamber.integrations.google import Problem, problem_in, wait_asked
from wirechamber.integrations.google_maps.scan import BadScan, is_wide, question, read, same_place, sights, too_little
from wirechamber.integrations.templates import compile
from wirechamber.model.events import Event

EVENT = "deviceLocator"
DAY_S = 86_400
# A quota by the minute is full again by then.
QUOTA_REST_S = 60.0
# 403 with one of these is a matter of time (Geolocation API, "Errors").
OVER_QUOTA = frozenset(("userRateLimitExceeded", "rateLimitExceeded", "dailyLimitExceeded", "quotaExceeded"))
_ANSWER = compile("{{location.lat}},{{location.lng}},{{accuracy}}")
_encode = msgspec.json.Encoder().encode


class GoogleMapsConfig(Struct, frozen=True, kw_only=True):
    """Find a device by the Wi-Fi networks or cell towers that it sees."""

    api_key: Annotated[
        Secret,
        setting(
            "Key of a Google Cloud project with the Geolocation API and billing enabled.",
            example="AIzaSyExampleExampleExampleExampleExampl",
            pattern=r"[\x21-\x7e]{8,200}",
            allowed="an API key as Google shows it, without blanks",
        ),
    ]
    cache_seconds: Annotated[
        int,
        setting(
            "For so long a device that has not moved gets the place of its last look-up, which costs nothing; 0 asks "
            "every time.",
            example="3600",
            least=0,
            most=30 * DAY_S,
        ),
    ] = 0


class Place(Struct, frozen=True):
    """Where a device was found last: what it saw there, the answer, and until when that counts (ms since 1970)."""

    sights: list[str]
    answer: str
    until: int


class GoogleMaps(Integration[GoogleMapsConfig, GoogleMapsConfig]):
    """Find a device by the Wi-Fi networks or cell towers that it sees, and tell it where it is.

    Args:
        url: Where to ask.
    """

    kind = "GoogleMaps"
    declaration = Declaration(GoogleMapsConfig, event=EVENT)
    # Networks that Google's own examples use.
    sample = (
        '{"w":{"a":[{"m":"3c:37:86:5d:75:d4","s":-35,"c":11},{"m":"94:b4:0f:fd:c1:40","s":-35,"c":36},'
        '{"m":"94:b4:0f:fc:e5:d0","s":-60,"c":1}]}}'
    )

    def __init__(self, url: str) -> None:
        self._url = url
        self._host, self._target = host_and_port(url)

    def prepare(self, config: GoogleMapsConfig) -> GoogleMapsConfig:
        """There is nothing to do beforehand."""
        return config

    def target(self, event: Event, prepared: GoogleMapsConfig, context: Context) -> str:
        """Google's host."""
        return self._target

    def topics(self, event: Event, prepared: GoogleMapsConfig, context: Context) -> Topics:
        """The library on the device subscribes to its own id behind the event's name (integrations.md, section 12)."""
        names = super().topics(event, prepared, context)
        return Topics(names.sent, f"{names.response}/{event.device or event.coreid}", names.error)

    def describe_target(self, config: GoogleMapsConfig) -> str:
        """As people call it."""
        return "Google Maps"

    def deliver(self, events: Any, prepared: GoogleMapsConfig, context: Context) -> Plan:
        """Asks where the device is, or remembers."""
        (event,) = events
        return [(yield from self._locate(event, prepared, context))]

    def _locate(self, event: Event, config: GoogleMapsConfig, context: Context) -> Any:
        try:
            scan = read(event.data)
        except BadScan as bad:
            return Refused(str(bad))
        problem = too_little(scan)
        if problem is not None:
            # As when Google knows none of the networks: nothing has failed.
            return Delivered(no_answer=problem)
        seen, key = sights(scan), f"place/{event.device or event.coreid}"
        if config.cache_seconds and not context.trial:
            before = yield Recall(key)
            if before is not None:
                place = msgspec.convert(before, Place)
                if context.now < place.until and same_place(seen, place.sights):
                    return Delivered(Answer(place.answer))
        reply = yield Call(self._request(config, _encode(question(scan)), context))
        if isinstance(reply, Response) and reply.status == 404 and is_wide(scan):
            # Ids of both have 28 bits; most such towers are LTE's.
            reply = yield Call(self._request(config, _encode(question(scan, "wcdma")), context))
        if isinstance(reply, NoResponse):
            return Refused(reply.why) if reply.final else TryLater(reply.why)
        outcome = self._outcome(reply, context)
        if config.cache_seconds and isinstance(outcome, Delivered) and outcome.answer is not None:
            until = context.now + config.cache_seconds * 1000
            yield Remember(key, msgspec.to_builtins(Place(seen, outcome.answer.data, until)))
        return outcome

    def _request(self, config: GoogleMapsConfig, body: bytes, context: Context) -> Request:
        key = quote(config.api_key, safe="")
        headers = (("Content-Type", "application/json"), ("User-Agent", context.user_agent))
        url = f"{self._url}?key={key}"
        return Request("POST", url, headers, body, secrets=(config.api_key, key), hidden=("query.key",))

    def _outcome(self, response: Response, context: Context) -> Outcome:
        if response.status == 200:
            return _found(response, self._host)
        problem = problem_in(response)
        why = f"error status {response.status} from {self._host}: {_sentence(response.status, problem)}"
        if response.status == 404:
            return Delivered(no_answer=why)
        after = wait_asked(response, problem, context.now)
        if response.status == 403 and problem.reasons & OVER_QUOTA:
            return TryLater(why, QUOTA_REST_S if after is None else after, throttled=True, rest=True)
        if response.status in (401, 403) or "keyInvalid" in problem.reasons or "API_KEY_INVALID" in problem.reasons:
            return Misconfigured(why)
        if response.status == 429:
            return TryLater(why, QUOTA_REST_S if after is None else after, throttled=True, rest=True)
        by_status = outcome_by_status(response, self._host, context.now)
        if isinstance(by_status, TryLater):
            return TryLater(why, after)
        return Refused(why)


def _found(response: Response, host: str) -> Outcome:
    try:
        value = response.json()
        location = value["location"]
        for number in (location["lat"], location["lng"], value["accuracy"]):
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError
    except (NoJson, LookupError, TypeError):
        return TryLater(f"{host} answered 200 with something that is no location")
    return Delivered(Answer(_ANSWER.render(value)))


def _sentence(status: int, problem: Problem) -> str:
    said = f" ({problem.message})" if problem.message else ""
    reasons = problem.reasons
    if status == 404:
        return "the location is unknown: none of the networks in the scan is known to Google"
    if reasons & OVER_QUOTA:
        return f"the project's quota is used up{said}"
    if "keyInvalid" in reasons or "API_KEY_INVALID" in reasons:
        return f"the API key is not valid; copy it from the Google Cloud console, Credentials{said}"
    if status in (401, 403):
        return (
            "the key may not use the Geolocation API; enable the API and billing for its project, and check the "
            f"restrictions of the key{said}"
        )
    if status == 400:
        return f"Google could not read the scan{said}"
    if status == 429:
        return f"too many look-ups at a time{said}"
    return problem.message or "no reason given"
