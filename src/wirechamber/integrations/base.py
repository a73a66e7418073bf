"""The kit that a kind of integration is written with.

An integration is a *plan*: a generator that yields the steps it needs and is sent the reply of each. It opens no
socket and reads no clock, so the courier can give every kind the same time-outs, outbound guard, attempt records,
masking and retries, and a test can play it by hand. The simple kinds are two pure functions (`SingleRequest`).

`Response` and what belongs to it are part of the kit, and imported from here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from msgspec import Struct

from wirechamber.errors import BadInput
from wirechamber.integrations.response import MAX_ANSWER_BYTES as MAX_ANSWER_BYTES
from wirechamber.integrations.response import MAX_LARGE_ANSWER_BYTES as MAX_LARGE_ANSWER_BYTES
from wirechamber.integrations.response import NoJson as NoJson
from wirechamber.integrations.response import Response as Response
from wirechamber.model.events import Event

if TYPE_CHECKING:
    from wirechamber.integrations.declaration import Declaration

Config = TypeVar("Config")
Prepared = TypeVar("Prepared")

# What stands for a secret in answers, logs and attempt records (integrations.md, section 4).
MASK = "[[SENSITIVE]]"

# A shorter secret can't be told from other text: it is hidden where it was put, and not looked for in answers.
MIN_ECHOED = 6


class InvalidConfig(BadInput):
    """A setting is missing, of a wrong type, or contradicts another. The text names the field and what is allowed."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}", error=f"{field}: {problem}", field=field)
        self.field = field


# --- steps and replies ---


class Request(Struct, frozen=True):
    """An HTTP request, complete: nothing is added to it but `Host`, `Content-Length` and `Connection`.

    Attributes:
        url: Absolute, http or https, already percent-encoded.
        headers: In the order to send; names as the user gave them.
        body: None sends no body at all.
        verify_tls: Check the certificate chain and the host's name.
        secrets: Texts that must never reach a log, an attempt record or a device. They are hidden in whatever comes
            back, plain or encoded, if they have `MIN_ECHOED` characters.
        hidden: The places of the request where they stand: `headers.Authorization`, `query.key`. What stands there is
            never shown, however short it is.
        as_machine: It asks a cloud's metadata service for the identity of the machine that the server runs on. No other
            request gets there, whatever the operator allows.
        parts: Of a request for several events: what of the body is about each, in the order of the plan's events; the
            record of each event's attempt then shows its own part.
        answer_bytes: So much of the answer is read, at most `MAX_LARGE_ANSWER_BYTES`.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    verify_tls: bool = True
    secrets: tuple[str, ...] = ()
    parts: tuple[bytes, ...] = ()
    hidden: tuple[str, ...] = ()
    as_machine: bool = False
    answer_bytes: int = MAX_ANSWER_BYTES


class NoResponse(Struct, frozen=True):
    """The request failed below HTTP.

    Attributes:
        why: As Particle's clients know it (integrations.md, section 9): `ETIMEDOUT` no connection, `ESOCKETTIMEDOUT`
            connected and no answer in time, `read ECONNRESET`, `ECONNREFUSED`, `ENOTFOUND`, …
        final: Trying again can't help: the address is forbidden, or the URL can't be used.
    """

    why: str
    final: bool = False


class Call(Struct, frozen=True):
    """Perform a request. The reply is a `Response` or a `NoResponse`."""

    request: Request


class Token(Struct, frozen=True):
    """Give me a token: cached under `key`, made by `plan` when there is none, once for all who wait.

    `plan` is a generator of calls, recalls and computations (nothing of them is recorded but the hosts, and how calls
    ended) that returns `(token, lifetime in seconds)`, or an outcome when there can be no token: every plan that waits
    for it ends with that. The reply is the token's text.

    Attributes:
        instead_of: A token that the target has refused: it is not given again, a new one is made.
    """

    key: str
    plan: Callable[[], Generator[Step, Any, tuple[str, float] | Outcome]]
    instead_of: str | None = None


class Recall(Struct, frozen=True):
    """The value remembered under `key` for this integration, or None."""

    key: str


class Remember(Struct, frozen=True):
    """Keep a small JSON value durably for this integration. The reply is None."""

    key: str
    value: Any


class About(Struct, frozen=True):
    """What is known of a device. The reply is a `DeviceInfo`, or None for a device that is not known."""

    device: str


class DeviceInfo(Struct, frozen=True):
    """What a plan may know of a device.

    Attributes:
        firmware: Version of its product's firmware, if it is known.
        product: Its product's id, or its platform's while it is in none.
        owner: Id of the user who has it now.
    """

    name: str | None = None
    firmware: str | None = None
    product: int | None = None
    owner: str | None = None


class Allow(Struct, frozen=True):
    """May I do this now? Bounds how often a kind does something that its target allows seldom.

    The reply is 0.0 when it may be done now, and is counted then; else the seconds until it may be.

    Attributes:
        key: What is counted, for this integration.
        per_minute: How often it may be done in the long run.
        burst: How often it may be done at once after a rest.
    """

    key: str
    per_minute: float
    burst: int


class Granted(Struct, frozen=True):
    """May the integration's owner do this, which only the operator can permit? The reply is a boolean.

    Attributes:
        permission: One of `model.accounts.PERMISSIONS`.
    """

    permission: str


class Compute(Struct, frozen=True):
    """Compute this beside the event loop, since it takes longer than others may wait: work with private keys.

    The reply is what it returns.
    """

    work: Callable[[], Any]


Step = Call | Token | Recall | Remember | About | Allow | Granted | Compute
Reply = Any

# --- outcomes ---


class Answer(Struct, frozen=True):
    """What goes back to the device.

    Attributes:
        data: Text, or a data URL.
        chunked: Split into chunks of 512 bytes, each with its index in its name; else one event, no index.
    """

    data: str
    chunked: bool = True


class Delivered(Struct, frozen=True):
    """The target took the event. `answer` None: there is nothing to say but hook-sent.

    Attributes:
        no_answer: The target did its work, and what it found is that there is no answer: the device is told this text
            by a hook-error, and it counts as no failure.
        doubt: What may be wrong all the same. The attempt shows it; the device is not told.
    """

    answer: Answer | None = None
    no_answer: str | None = None
    doubt: str | None = None


class TryLater(Struct, frozen=True):
    """It may work another time.

    Attributes:
        after: Seconds that the target asked to wait, if it did.
        throttled: The target has too much to do, and that says nothing about the event: for a day, this is not counted
            as one of its attempts.
        rest: Nothing else of this integration is sent to this target either until then.
    """

    why: str
    after: float | None = None
    throttled: bool = False
    rest: bool = False


class Refused(Struct, frozen=True):
    """The target will never take this event."""

    why: str


class Misconfigured(Struct, frozen=True):
    """The target will take no event until the configuration is mended: pauses the integration, and says so."""

    why: str


Outcome = Delivered | TryLater | Refused | Misconfigured
Plan = Generator[Step, Reply, Sequence[Outcome]]

# --- kinds ---


class Context(Struct, frozen=True):
    """What a plan may know besides its events and its configuration.

    Attributes:
        now: Milliseconds since 1970.
        user_agent: Name of this cloud for outgoing requests.
        extra: More template variables, by name; predefined ones win.
        trial: Somebody tests the integration and wants to know whether its target answers: no answer from memory.
        device: What is known of the device that published, where the plan has asked for it.
    """

    now: int
    user_agent: str
    extra: Mapping[str, Any] = {}
    trial: bool = False
    device: DeviceInfo | None = None


class Topics(Struct, frozen=True):
    """Names of the events that tell the device, without index."""

    sent: str
    response: str
    error: str


class Reading(Struct, Generic[Config], frozen=True):
    """A configuration as read from what the user sent.

    Attributes:
        config: Validated, with the secrets in place.
        settings: To store and show: canonical spelling, unknown keys kept, the mask where a secret stands.
        secrets: The values behind the masks, by dotted path.
        warnings: What was accepted with doubt, such as unknown keys.
    """

    config: Config
    settings: dict[str, Any]
    secrets: dict[str, str]
    warnings: tuple[str, ...] = ()


class Batch(Struct, frozen=True):
    """How many waiting events of one integration go into one plan.

    Attributes:
        events: At most so many.
        bytes: At most so much event data, beyond the first event.
        plans: So many plans of one integration for one target are performed at a time (never more than the operator
            allows): events that come meanwhile wait, and go together.
    """

    events: int = 1
    bytes: int = 1_000_000
    plans: int = 1_000


class Needs(Struct, frozen=True):
    """A package that a kind can't work without and that is no part of every installation.

    Attributes:
        module: Is importable where it is installed.
        install: The command that installs it.
    """

    module: str
    install: str

    def missing(self) -> bool:
        """Whether it is not installed here."""
        try:
            return find_spec(self.module) is None
        except ModuleNotFoundError:
            return True


class Integration(ABC, Generic[Config, Prepared]):
    """One kind of integration. The first line of a kind's docstring is its description for users.

    Attributes:
        kind: Its name, the API's `integration_type`.
        declaration: Its fields.
        batch: How many events go into one plan.
        needs: What must be installed for it, if anything.
        sample: Data of the event that a test sends unless the user says another.
    """

    kind: ClassVar[str]
    declaration: ClassVar[Declaration[Any]]
    batch: ClassVar[Batch] = Batch()
    needs: ClassVar[Needs | None] = None
    sample: ClassVar[str] = "test-event"

    @property
    def summary(self) -> str:
        """Its description for users, one line."""
        return (type(self).__doc__ or "").partition("\n")[0]

    @property
    def unavailable(self) -> str | None:
        """Why it can't be used here, if it can't: it names the command that mends it."""
        if self.needs is None or not self.needs.missing():
            return None
        return f"{self.kind} is not installed here; install it with: {self.needs.install}"

    def read(self, settings: Mapping[str, Any], secrets: Mapping[str, str]) -> Reading[Config]:
        """Validates what the user sent, `event`, `name`, `deviceID` and `disabled` already taken out.

        Args:
            settings: Flat, any accepted spelling; text from forms where numbers and booleans are meant.
            secrets: Stored values by path; they take the place of a mask that the user sent back.

        Raises:
            InvalidConfig: Names the field and what is allowed.
        """
        return self.declaration.read(settings, secrets)

    def destination(self, config: Config) -> object:
        """Where the secrets of a configuration go, to be compared: a mask keeps them while this stays the same.

        By default: scheme, host and port of every field that is a URL, and the fields declared to be endpoints.
        """
        return self.declaration.destination(config)

    def urls(self, config: Config) -> Sequence[tuple[str, str]]:
        """The URLs that requests go to, by field: one that can't be reached is told when it is saved."""
        return self.declaration.urls(config)

    def permission(self, config: Config) -> str | None:
        """What the operator must have granted the owner of such an integration: one of `model.accounts.PERMISSIONS`.

        Asked when it is saved. That may be long ago when an event comes, so its plan asks, too (`Granted`).
        """
        return None

    @abstractmethod
    def prepare(self, config: Config) -> Prepared:
        """Does once what every delivery would repeat, such as compiling templates. Cached per revision.

        Raises:
            InvalidConfig: A template is malformed; with line and column.
        """

    @abstractmethod
    def target(self, event: Event, prepared: Prepared, context: Context) -> str:
        """Where this event goes, as `host:port`: deliveries to one target share a lane."""

    def topics(self, event: Event, prepared: Prepared, context: Context) -> Topics:
        """Names of the result events."""
        name = event.name
        return Topics(f"hook-sent/{name}", f"hook-response/{name}", f"hook-error/{name}")

    def order(self, event: Event, prepared: Prepared) -> str:
        """Events with the same text are delivered one after the other, as they came; empty: in any order."""
        return ""

    @abstractmethod
    def deliver(self, events: Sequence[Event], prepared: Prepared, context: Context) -> Plan:
        """The plan: yields steps, is sent replies, returns one outcome per event."""

    @abstractmethod
    def describe_target(self, config: Config) -> str:
        """The target as a person names it, for the default name of an integration: the URL's host."""


class SingleRequest(Integration[Config, Prepared]):
    """A kind that sends one request per event: write `request` and `outcome`."""

    @abstractmethod
    def request(self, event: Event, prepared: Prepared, context: Context) -> Request | Refused | Misconfigured:
        """The request for this event, or why there can be none."""

    @abstractmethod
    def outcome(self, event: Event, response: Response, prepared: Prepared, context: Context) -> Outcome:
        """What the target's answer means."""

    def deliver(self, events: Sequence[Event], prepared: Prepared, context: Context) -> Plan:
        """Sends each event by its own request."""
        outcomes: list[Outcome] = []
        for event in events:
            request = self.request(event, prepared, context)
            if not isinstance(request, Request):
                outcomes.append(request)
                continue
            reply = yield Call(request)
            if isinstance(reply, NoResponse):
                outcomes.append(Refused(reply.why) if reply.final else TryLater(reply.why))
            elif len(reply.body) > MAX_ANSWER_BYTES:
                # What is made of so much takes long enough to be felt by others.
                outcomes.append((yield Compute(partial(self.outcome, event, reply, prepared, context))))
            else:
                outcomes.append(self.outcome(event, reply, prepared, context))
        return outcomes
