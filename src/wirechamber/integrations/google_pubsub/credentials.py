"""Who publishes: a service account by its key, or the machine's own identity; and how that becomes a bearer token.

Only what is needed of a key file is kept. Its `token_uri` is not: it is an address that a user could choose.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key
from msgspec import Struct

from wirechamber.integrations.answers import clock_apart, clock_words, retry_after
from wirechamber.integrations.base import (
    Call,
    Compute,
    Context,
    InvalidConfig,
    Misconfigured,
    NoJson,
    NoResponse,
    Request,
    TryLater,
)
from wirechamber.integrations.google import about_time
from wirechamber.model.keysize import TooLong, plain_der
from wirechamber.texts import text_of

AUDIENCE = "https://pubsub.googleapis.com/"
# What Google's own library puts there, whatever the key file says.
TOKEN_AUDIENCE = "https://oauth2.googleapis.com/token"  # noqa: S105
SCOPE = "https://www.googleapis.com/auth/pubsub"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"  # RFC 7523, section 2.1
# The longest that Google takes ("Using OAuth 2.0 for Server to Server Applications").
LIFE_S = 3600
# Clocks differ a little.
BACKDATED_S = 10
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
MAX_WHY = 300
# Google takes no statement from the future; a refusal while the clocks differ by so much is told as the clock's.
CLOCK_APART_S = 60.0
CLOCK_DIFFERS = "the clock of this server differs from Google's; set it right, best by NTP"
# A key's file has 2,400 characters; more is not even read as JSON.
MAX_FILE = 16_384
# Keys that were read: reading one of 4,096 bits takes a quarter of a second.
KEYS_KEPT = 256

Making = Generator[Any, Any, Any]


class ServiceAccount(Struct, frozen=True):
    """What is needed of a service account's key file."""

    client_email: str
    private_key: str
    private_key_id: str = ""
    project_id: str = ""
    type: str = "service_account"


class Identity(Protocol):
    """Somebody who may publish.

    Attributes:
        who: As people know it.
    """

    who: str

    def token(self, context: Context) -> Making:
        """The plan of a bearer token: returns it with its life in seconds, or an outcome."""


def key_text(value: Any) -> str:
    """The canonical text of a service account's key, from its file's text or the object in it.

    Takes up to a quarter of a second: it reads the key, which proves that it is one.

    Raises:
        ValueError: It is none.
    """
    account = _account(value)
    private_key(account.private_key)
    return msgspec.json.encode(account).decode()


@lru_cache(KEYS_KEPT)
def private_key(text: str) -> RSAPrivateKey:
    """The key of a service account from its PEM; each is read once. Takes up to a quarter of a second.

    Raises:
        ValueError: It is none, or longer than 4,096 bits.
    """
    try:
        key = load_der_private_key(plain_der(text.encode()), None)
    except TooLong as problem:
        raise ValueError(f"its private_key is too long: {problem}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("its private_key can't be read; copy the file as it was downloaded") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("its private_key must be an RSA key")
    return key


def _account(value: Any) -> ServiceAccount:
    """The account in a key's file, its key not looked at."""
    if isinstance(value, str):
        if len(value) > MAX_FILE:
            raise ValueError(f"may have at most {MAX_FILE} characters, not {len(value)}")
        try:
            value = msgspec.json.decode(value.removeprefix("\ufeff"))
        except (msgspec.DecodeError, RecursionError):
            raise ValueError("must be the whole JSON file of a service account's key") from None
    if isinstance(value, dict) and value.get("type", "service_account") != "service_account":
        raise ValueError(f"must be a service account's key; the type of this one is {str(value['type'])[:40]!r}")
    try:
        return msgspec.convert(value, ServiceAccount)
    except msgspec.ValidationError as problem:
        raise ValueError(f"must be the whole JSON file of a service account's key: {problem}") from None


class KeyIdentity:
    """A service account, by its key.

    Args:
        text: The key in its canonical text.
        token_url: Where the signed statement is exchanged for a token; empty: it serves as the token itself, which
            Google takes as well and which needs no further call.
    """

    def __init__(self, text: str, token_url: str) -> None:
        self._account = _account(text)
        self.who = self._account.client_email
        self._token_url = token_url

    def token(self, context: Context) -> Making:
        """Signs a statement; exchanges it, if there is a place for that."""
        now = context.now // 1000 - BACKDATED_S
        claims: dict[str, Any] = {"iss": self.who, "iat": now, "exp": now + LIFE_S}
        if not self._token_url:
            signed = yield Compute(lambda: self._signed(claims | {"sub": self.who, "aud": AUDIENCE}))
            return signed if isinstance(signed, Misconfigured) else (signed, LIFE_S - BACKDATED_S)
        assertion = yield Compute(lambda: self._signed(claims | {"scope": SCOPE, "aud": TOKEN_AUDIENCE}))
        if isinstance(assertion, Misconfigured):
            return assertion
        form = urlencode({"grant_type": GRANT, "assertion": assertion}).encode()
        headers = (("Content-Type", "application/x-www-form-urlencoded"), ("User-Agent", context.user_agent))
        reply = yield Call(Request("POST", self._token_url, headers, form, secrets=_secrets(assertion)))
        return _granted(reply, f"the service account {self.who}", context)

    def _signed(self, claims: dict[str, Any]) -> str | Misconfigured:
        # A third of a second to import, and an extra that not every installation has.
        from google.auth import crypt, jwt

        try:
            key = private_key(self._account.private_key)
        except ValueError as problem:
            # One that was saved when longer ones were taken, or the operator's own.
            return Misconfigured(f"credentials: {problem}")
        # The library's types stop here.
        signer: Any = crypt.RSASigner
        encode: Any = jwt.encode
        return str(encode(signer(key, self._account.private_key_id or None), claims).decode())


class MachineIdentity:
    """The identity that the machine has at Google, by its metadata server."""

    who = "this machine's service account"

    def token(self, context: Context) -> Making:
        """Asks the metadata server."""
        headers = (("Metadata-Flavor", "Google"), ("User-Agent", context.user_agent))
        reply = yield Call(Request("GET", METADATA, headers, as_machine=True))
        if isinstance(reply, NoResponse) and not reply.final and reply.why != "ENOTFOUND":
            return TryLater(f"no token for {self.who}: its metadata server does not answer ({reply.why})")
        if isinstance(reply, NoResponse):
            return Misconfigured(
                "credentials: none are given and this machine has no identity at Google "
                f"(its metadata server can't be reached: {reply.why}); give a service account's key"
            )
        return _granted(reply, self.who, context)


def ambient(file: str, token_url: str) -> Identity:
    """The identity of whoever runs this cloud.

    Args:
        file: Path of a service account's key; empty: the machine's own.

    Raises:
        InvalidConfig: The file can't be used.
    """
    if not file:
        return MachineIdentity()
    try:
        return KeyIdentity(text_of(Path(file).read_bytes()), token_url)
    except (OSError, ValueError) as problem:
        raise InvalidConfig("credentials", f"none are given, and the server's own can't be used: {problem}") from None


def _granted(reply: Any, who: str, context: Context) -> Any:
    """Token and life of a token endpoint's answer, or an outcome."""
    if isinstance(reply, NoResponse):
        return TryLater(f"no token for {who}: {reply.why}")
    try:
        said = reply.json()
    except NoJson:
        said = None
    said = said if isinstance(said, dict) else {}
    if reply.status == 200 and isinstance(said.get("access_token"), str):
        life = said.get("expires_in")
        return said["access_token"], float(life) if isinstance(life, int | float) else LIFE_S
    words = " ".join(str(said.get(name, "")) for name in ("error", "error_description")).strip()[:MAX_WHY]
    why = f"error status {reply.status} from Google's token service for {who}: {words or 'no reason given'}"
    if reply.status == 429 or reply.status >= 500 or reply.status == 200:
        return TryLater(why, retry_after(reply.header("Retry-After"), context.now))
    apart = clock_apart(reply, context.now)
    if abs(apart) > CLOCK_APART_S:
        return TryLater(f"{why}; {clock_words(apart)}", rest=True)
    if about_time(words):
        return TryLater(f"{why}; {CLOCK_DIFFERS}", rest=True)
    return Misconfigured(f"{why}; the key was revoked, or its account disabled or deleted; make a new key")


def _secrets(jwt: str) -> tuple[str, ...]:
    """A signed token in its parts: each alone gives nothing away, but the signature is what makes it one."""
    return (jwt, jwt.rpartition(".")[2])
