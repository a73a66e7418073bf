"""The kind itself: an identity for each device, made at its first event, and each event as a message on it."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Struct, structs

from wirechamber.integrations.answers import clock_apart, clock_words, host_and_port, retry_after
from wirechamber.integrations.azure_iot_hub.sas import read_key, sign
from wirechamber.integrations.base import (
    About,
    Allow,
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
    Token,
    TryLater,
)
from wirechamber.integrations.declaration import Declaration, Secret, setting
from wirechamber.model.events import Event
from wirechamber.model.times import DAY_MS, iso

API_VERSION = "2021-04-12"
# The largest device-to-cloud message (IoT Hub quotas and throttling), less what our headers may take.
MAX_MESSAGE_BYTES = 256 * 1024 - 1024
TOKEN_LIFE_S = 3600
# A token is renewed when this part of its life is over.
TOKEN_USED = 0.8
# Identity operations of one unit of the small tiers (IoT Hub quotas and throttling): 100 a minute, twin reads and
# writes apart. A fleet that meets a new integration waits for its turn here and not in the hub's refusals.
IDENTITIES_PER_MINUTE = 90.0
IDENTITIES_AT_ONCE = 20
THROTTLED_S = 10.0
IDENTITY_THROTTLED_S = 60.0
# A device that the hub refuses is tried so often at once and once in so many seconds: its events wait, and those of
# others go on.
REFUSED_AT_ONCE = 5
REFUSED_S = 60.0
# A token is signed for an hour from our time on; a clock that is off by this much may be why the hub does not take it.
CLOCK_APART_S = 600.0
MAX_WHY = 200
# Devices whose messages the hub took are remembered, to ask by them whether it lets the policy in.
WITNESSES = 2

_encode = msgspec.json.Encoder().encode
# What a property's value may hold over HTTPS is less than an event's name may; the rest is percent-encoded.
_PROPERTY_SAFE = "!#$&'*+-.^_`|~"
_NAME = re.compile(r"ErrorCode:(\w+);?\s*")


def _key(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    read_key(value.strip())
    return value.strip()


class AzureIotHubConfig(Struct, frozen=True, kw_only=True):
    """Send each event to an Azure IoT Hub."""

    hub_name: Annotated[
        str,
        setting(
            "Name of the hub, or its host name.",
            example="my-hub",
            pattern=r"[A-Za-z0-9](?:[A-Za-z0-9-]{1,48}[A-Za-z0-9])(?:\.azure-devices\.(?:net|us|cn))?",
            allowed="the hub's name (3 to 50 letters, digits and hyphens) or its host name that ends in "
            ".azure-devices.net, .azure-devices.us or .azure-devices.cn",
            endpoint=True,
        ),
    ]
    policy_name: Annotated[
        str,
        setting(
            "Shared access policy with registry read, registry write, service connect and device connect.",
            example="iothubowner",
            pattern=r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,64}",
            allowed="a policy's name, 1 to 64 letters, digits and punctuation",
        ),
    ]
    policy_key: Annotated[
        Secret,
        setting(
            "Primary or secondary key of that policy.",
            parse=_key,
            allowed="a key as the portal shows it, in Base64",
        ),
    ]


class Hub:
    """A configuration with what every delivery would otherwise repeat.

    Args:
        url: Where an operator wants calls to go instead of the hub's own host; empty for that.
    """

    __slots__ = ("base", "config", "host", "key", "target")

    def __init__(self, config: AzureIotHubConfig, url: str) -> None:
        name = config.hub_name.lower()
        self.config = config
        # Tokens are signed for the hub's own name, wherever the calls go.
        self.host = name if "." in name else f"{name}.azure-devices.net"
        self.base = (url or f"https://{self.host}").rstrip("/")
        self.target = host_and_port(self.base)[1]
        self.key = read_key(config.policy_key)


class Known(Struct, frozen=True):
    """What was done for a device at a hub.

    Attributes:
        named: Its name was written to its twin, or never will be.
        made: It has an identity there.
        refused: The hub did not take what came of it last.
    """

    named: bool
    made: bool = True
    refused: bool = False


class AzureIotHub(Integration[AzureIotHubConfig, Hub]):
    """Send each event to an Azure IoT Hub, as a message of the device that published it.

    Args:
        url: Where calls go instead of the hub's own host, for tests and clouds of other names; empty for the host.
    """

    kind = "AzureIotHub"
    declaration = Declaration(AzureIotHubConfig)

    def __init__(self, url: str) -> None:
        self._url = url

    def prepare(self, config: AzureIotHubConfig) -> Hub:
        """The hub's host and the key's bytes."""
        return Hub(config, self._url)

    def target(self, event: Event, prepared: Hub, context: Context) -> str:
        """The hub's host."""
        return prepared.target

    def describe_target(self, config: AzureIotHubConfig) -> str:
        """The hub."""
        return f"Azure IoT Hub {config.hub_name}"

    def deliver(self, events: Any, prepared: Hub, context: Context) -> Plan:
        """Makes the identity if it is not known, sends the message, and makes the identity if the hub lost it."""
        (event,) = events
        return [(yield from self._send(event, Talk(prepared, event.device or event.coreid, context)))]

    def _send(self, event: Event, talk: Talk) -> Steps:
        body = message(event, (yield About(event.device)) if event.device else None)
        if len(body) > MAX_MESSAGE_BYTES:
            return Refused(f"the event is too large: a message of {len(body)} bytes, the hub takes {MAX_MESSAGE_BYTES}")
        stored = yield Recall(talk.memory)
        known = Known(named=False, made=False) if stored is None else msgspec.convert(stored, Known)
        if known.refused and not talk.context.trial:
            wait = yield Allow(f"refused/{talk.memory}", 60.0 / REFUSED_S, REFUSED_AT_ONCE)
            if wait:
                return TryLater(f"waits: the hub refuses the device {talk.plain_device}", wait, throttled=True)
        if not known.made:
            failed = yield from self._introduce(event, talk)
            if failed is not None:
                return failed
        elif not known.named:
            yield from self._name(event, talk)
        reply = yield from talk.send(event, body)
        if known.made and isinstance(reply, Response) and reply.status == 404:
            # Somebody removed the identity; it is made again, once.
            failed = yield from self._introduce(event, talk)
            if failed is not None:
                return failed
            reply = yield from talk.send(event, body)
        if talk.is_refused(reply):
            own = talk.plain_device
            return (yield from self._refused(reply, talk, known, own, "send messages (device connect)"))
        if isinstance(reply, Response) and 200 <= reply.status < 300 and (known.refused or not known.made):
            yield from self._taken(talk, known)
        return talk.outcome(reply, "send messages (device connect)", THROTTLED_S, rest=True)

    def _introduce(self, event: Event, talk: Talk) -> Steps:
        """Makes the device's identity and writes its name; None when that is done."""
        wait = yield Allow(f"identities/{talk.hub.host}", IDENTITIES_PER_MINUTE, IDENTITIES_AT_ONCE)
        if wait:
            return TryLater("waits for its turn: a hub takes few new devices a minute", wait, throttled=True)
        identity = {"deviceId": talk.plain_device, "status": "enabled", "authentication": _AUTHENTICATION}
        reply = yield from talk.call("PUT", f"devices/{talk.device}", _encode(identity), _IN_JSON)
        if talk.is_refused(reply):
            known = Known(named=False, made=False)
            return (yield from self._refused(reply, talk, known, None, "create devices (registry write)"))
        # 409: another one made it meanwhile.
        if not (isinstance(reply, Response) and reply.status in (200, 201, 409)):
            # Only this device waits: messages of the known ones go on.
            return talk.outcome(reply, "create devices (registry write)", IDENTITY_THROTTLED_S, rest=False)
        yield Remember(talk.memory, msgspec.to_builtins(Known(named=False)))
        yield from self._name(event, talk)
        return None

    def _taken(self, talk: Talk, known: Known) -> Steps:
        """The hub took a message of a device that was new to it or refused: two such devices are remembered."""
        if known.refused:
            now = yield Recall(talk.memory)
            yield Remember(talk.memory, {**(now or {}), "refused": False})
        before = (yield Recall(talk.taken)) or []
        if len(before) < WITNESSES and talk.plain_device not in before:
            yield Remember(talk.taken, [*before, talk.plain_device])

    def _refused(self, reply: Response, talk: Talk, known: Known, own: str | None, what: str) -> Steps:
        """The outcome of a 401 or 403: is it this device that the hub refuses, or all that comes from here?

        The hub is asked for the identity of another device, one whose messages it took. If that is not refused, the
        policy is let in, and the refusal is this device's.

        Args:
            own: The device itself, if it has an identity to ask for where no other is known.
        """
        others = [each for each in (yield Recall(talk.taken)) or [] if each != talk.plain_device]
        witness = others[0] if others else own
        if witness is None:
            return talk.refusal(reply, what)
        seen = yield from talk.call("GET", f"devices/{quote(witness, safe='')}", None, ())
        if talk.is_refused(seen):
            return talk.refusal(reply, what)
        stored = yield Recall(talk.memory)
        now = known if stored is None else msgspec.convert(stored, Known)
        yield Remember(talk.memory, msgspec.to_builtins(structs.replace(now, refused=True)))
        return TryLater(talk.device_refused(reply, what, disabled=witness == own and _disabled(seen)))

    def _name(self, event: Event, talk: Talk) -> Steps:
        """Writes the device's name to its twin, once. That it can't be done stops no event."""
        info = (yield About(event.device)) if event.device else None
        if info is not None and info.name:
            body = _encode({"properties": {"desired": {"deviceName": info.name}}})
            reply = yield from talk.call("PATCH", f"twins/{talk.device}", body, _IN_JSON)
            if isinstance(reply, NoResponse) or reply.status == 429 or reply.status >= 500:
                # The next event tries again.
                return
        yield Remember(talk.memory, msgspec.to_builtins(Known(named=True)))


Steps = Generator[Any, Any, Any]
_IN_JSON = (("Content-Type", "application/json; charset=utf-8"),)
_AUTHENTICATION = {"type": "sas", "symmetricKey": {"primaryKey": "", "secondaryKey": ""}}


class Talk:
    """Calls to a hub about one device."""

    __slots__ = ("context", "device", "hub", "memory", "plain_device", "taken")

    def __init__(self, hub: Hub, device: str, context: Context) -> None:
        self.hub = hub
        self.plain_device = device
        self.device = quote(device, safe="")
        self.context = context
        self.memory = f"{hub.host}/devices/{device}"
        self.taken = f"{hub.host}/taken"

    def send(self, event: Event, body: bytes) -> Steps:
        """Sends a message."""
        return self.call("POST", f"devices/{self.device}/messages/events", body, self.message_headers(event))

    def call(self, method: str, path: str, body: bytes | None, headers: tuple[tuple[str, str], ...]) -> Steps:
        """Makes a call with a token; with a new one, once, when the hub refuses the token. The reply, or an outcome."""
        token = yield Token("sas", self._token)
        reply = yield Call(self._request(method, path, body, headers, token))
        if isinstance(reply, Response) and reply.status == 401:
            token = yield Token("sas", self._token, instead_of=token)
            reply = yield Call(self._request(method, path, body, headers, token))
        return reply

    def _token(self) -> Steps:
        expiry = self.context.now // 1000 + TOKEN_LIFE_S
        # For the whole hub: registry, twins and all devices.
        token = sign(self.hub.host, self.hub.config.policy_name, self.hub.key, expiry)
        yield from ()
        return token, TOKEN_LIFE_S * TOKEN_USED

    def _request(
        self, method: str, path: str, body: bytes | None, headers: tuple[tuple[str, str], ...], token: str
    ) -> Request:
        signature = token.partition("sig=")[2].partition("&")[0]
        own = (("Authorization", token), ("User-Agent", self.context.user_agent))
        url = f"{self.hub.base}/{path}?api-version={API_VERSION}"
        hidden = ("headers.Authorization",)
        return Request(method, url, (*own, *headers), body, secrets=(token, signature), hidden=hidden)

    def message_headers(self, event: Event) -> tuple[tuple[str, str], ...]:
        """Without type and encoding, the hub takes a body for binary, and routes can't look into it."""
        return (
            ("Content-Type", "application/json; charset=utf-8"),
            ("iothub-to", f"/devices/{self.device}/messages/events"),
            ("iothub-contenttype", "application/json"),
            ("iothub-contentencoding", "utf-8"),
            ("IoTHub-MessageId", event.id),
            ("iothub-app-event", quote(event.name, safe=_PROPERTY_SAFE)),
        )

    def outcome(self, reply: Response | NoResponse, what: str, throttled_s: float, *, rest: bool) -> Outcome:
        """What an answer means.

        Args:
            what: What was tried, and the right that it needs.
            throttled_s: How long to wait when the hub has too much to do and does not say how long.
            rest: Everything for this hub waits then.
        """
        if isinstance(reply, NoResponse):
            return Refused(reply.why) if reply.final else TryLater(reply.why)
        status = reply.status
        if 200 <= status < 300:
            return Delivered()
        if self.is_refused(reply):
            return self.refusal(reply, what)
        why, said = self._why(reply), _said(reply)
        after = retry_after(reply.header("Retry-After"), self.context.now)
        if status == 403:
            midnight = (self.context.now // DAY_MS + 1) * DAY_MS
            text = "the hub's messages of today are used up; they are sent from midnight UTC on, or add units"
            return TryLater(f"{why}{text}{said}", (midnight - self.context.now) / 1000, throttled=True, rest=True)
        if status == 404:
            # Its identity was made just before; a hub takes a moment to know it everywhere.
            return TryLater(f"{why}the hub does not know the device {self.plain_device} yet{said}", after)
        if status == 429:
            wait = throttled_s if after is None else after
            return TryLater(f"{why}the hub is throttling{said}", wait, throttled=True, rest=rest)
        if status in (408, 412) or status >= 500:
            return TryLater(f"{why}the hub has trouble{said}", after)
        return Refused(f"{why}the hub can't take it{said}")

    def is_refused(self, reply: Response | NoResponse) -> bool:
        """Whether the hub refuses somebody; what is used up for today is no refusal."""
        return isinstance(reply, Response) and (reply.status == 401 or (reply.status == 403 and not _used_up(reply)))

    def refusal(self, reply: Response, what: str) -> Outcome:
        """All that comes from here is refused."""
        why, said = self._why(reply), _said(reply)
        if reply.status == 403:
            return Misconfigured(f"{why}the hub refuses the call; check its tier and network access{said}")
        apart = clock_apart(reply, self.context.now)
        if abs(apart) > CLOCK_APART_S:
            # Heals when the clock is set: nothing is asked of the user.
            return TryLater(f"{why}{clock_words(apart)}{said}", rest=True)
        return Misconfigured(
            f"{why}the hub does not let the policy {self.hub.config.policy_name} {what}; check the policy's name, "
            f"key and rights, and this machine's clock{said}"
        )

    def device_refused(self, reply: Response, what: str, *, disabled: bool) -> str:
        """Why one device's message is not taken, while the policy is let in."""
        device = f"the device {self.plain_device}"
        if disabled:
            reason = f"{device} is disabled there"
        else:
            reason = f"{device} may be disabled there, or the policy {self.hub.config.policy_name} may not {what}"
        return f"{self._why(reply)}the hub refuses {device}, and its events wait: {reason}{_said(reply)}"

    def _why(self, reply: Response) -> str:
        return f"error status {reply.status} from {self.hub.host}: "


def message(event: Event, info: Any) -> bytes:
    """The body of a message (integrations.md, section 13)."""
    body = {
        "data": event.data or "",
        "device_id": event.device or event.coreid,
        "event": event.name,
        "published_at": iso(event.published_at),
    }
    if info is not None and info.firmware is not None:
        body["fw_version"] = info.firmware
    return _encode(body)


def _used_up(reply: Response) -> bool:
    """Whether a 403 is about the messages of the day (error 403002); the name or the number stands in either place."""
    told = (reply.header("iothub-errorcode") or "") + reply.text()
    return "403002" in told or "IotHubQuotaExceeded" in told


def _disabled(seen: Response | NoResponse) -> bool:
    """Whether an identity is one that somebody has disabled."""
    return isinstance(seen, Response) and _told(seen).get("status") == "disabled"


def _said(reply: Response) -> str:
    """The hub's own words for the error, in brackets; read softly, their form differs between hubs.

    The name stands in a header or in front of the sentence (`ErrorCode:<name>;<sentence>`), or both are inside a JSON
    text that is the message.
    """
    told = _told(reply)
    name = reply.header("iothub-errorcode") or ""
    sentence = _text(told, "Message") or _text(told, "message")
    inner = _inner(sentence) if sentence.startswith("{") else {}
    if inner:
        name = name if name.isidentifier() else str(inner.get("errorCode", name))
        sentence = _text(inner, "message")
    found = _NAME.match(sentence)
    if found is not None:
        name = name if name.isidentifier() else found[1]
        sentence = sentence[found.end() :]
    sentence = " ".join(sentence.split())
    parts = [each for each in (name, sentence if sentence != name else "") if each]
    return f" ({': '.join(parts)[:MAX_WHY]})" if parts else ""


def _told(reply: Response) -> dict[str, Any]:
    try:
        found = reply.json()
    except NoJson:
        return {}
    return found if isinstance(found, dict) else {}


def _inner(sentence: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(sentence)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    return value if isinstance(value, str) else ""
