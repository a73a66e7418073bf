"""From an event to the request: the tables of integrations.md, section 5."""

from __future__ import annotations

import base64
import contextlib
import re
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit

import msgspec

from wirechamber.integrations.base import MAX_ANSWER_BYTES, MIN_ECHOED, Context, Request
from wirechamber.integrations.templates import OutputTooLarge, Room, Template
from wirechamber.integrations.variables import NUMBERS
from wirechamber.integrations.webhook.encoding import FORM, QUERY, URL, Encoding
from wirechamber.integrations.webhook.prepared import Pairs, Prepared, Scene, basic
from wirechamber.jsontext import trouble
from wirechamber.model.events import Event
from wirechamber.model.times import iso

MAX_REQUEST_BYTES = 1_000_000
# Names and values of all headers; servers take far less.
MAX_HEADERS_BYTES = 65_536
# Secrets among them, which are looked for in the answer in many forms.
MAX_SECRETS_BYTES = 16_384
# Of a request that has more, no large answer is read: each is a pass over it.
MAX_SECRETS_OF_LARGE = 8
# Parts of a cookie.
MAX_PARTS = 8
# A URL before its query; and a host, as DNS knows it (RFC 1035, section 2.3.4), with some room for other spellings.
MAX_RENDERED_URL = 65_536
MAX_HOST = 512
# A body that says it is JSON is looked at if it has no more characters.
MAX_LOOKED_AT = 50_000
# So many characters of JSON are read in one step of a template.
JSON_PER_STEP = 16
FORM_TYPE = "application/x-www-form-urlencoded"
JSON = "application/json"

# Stands for what is not known while a template is rendered: no text holds this character (Unicode, section 23.7).
_UNKNOWN = "\ufdd0"
# Quotes of JSON, and what a backslash makes none.
_QUOTES = re.compile(r'\\.|"', re.DOTALL)
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
# One that encodes nothing, such as that of `50%`.
_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_encode = msgspec.json.Encoder().encode
_PORTS = {"http": 80, "https": 443}


class Unsendable(Exception):
    """This event can't become a request; the text says why."""


def build(event: Event, prepared: Prepared, context: Context) -> Request:
    """The request for an event.

    Raises:
        Unsendable: What the templates made of it is no request.
    """
    config = prepared.config
    scene = request_scene(event, prepared, context)
    try:
        defaults = {} if config.no_defaults else _defaults(event)
        query = _rendered(prepared.query, scene)
        body, kind = _body(prepared, scene, query, defaults)
        if config.request_type != "GET":
            defaults = {}
        headers, secrets, hidden = _headers(prepared, scene, kind, context)
        url = _with_query(url_of(prepared, scene)[0], query, defaults, scene)
    except OutputTooLarge as problem:
        raise Unsendable(problem.description) from None
    if len(url) + len(body or b"") > MAX_REQUEST_BYTES:
        raise Unsendable(f"the request is larger than {MAX_REQUEST_BYTES} bytes")
    return Request(
        config.request_type, url, headers, body, config.reject_unauthorized, secrets, hidden=hidden,
        answer_bytes=prepared.answer_bytes if len(secrets) <= MAX_SECRETS_OF_LARGE else MAX_ANSWER_BYTES,
    )  # fmt: skip


def request_scene(event: Event, prepared: Prepared, context: Context) -> Scene:
    """What the request's templates are rendered with."""
    names = prepared.names
    predefined = names.predefined(event, context.extra, context.device)
    return Scene((names.data(event.data), predefined), Room(MAX_REQUEST_BYTES))


def url_of(prepared: Prepared, scene: Scene) -> tuple[str, str]:
    """The rendered URL, percent-encoded, and its `host:port`.

    Raises:
        Unsendable: It is no http or https URL.
    """
    if prepared.constant_url is not None:
        return prepared.constant_url
    url = scene.render(prepared.url).strip()
    if len(url) > MAX_RENDERED_URL:
        raise Unsendable(f"the URL is longer than {MAX_RENDERED_URL} characters")
    scene.pay(URL.cost(url))
    if not _SCHEME.match(url):
        raise Unsendable("the URL does not begin with http:// or https://")
    try:
        found = _encoded(url)
    except (ValueError, UnicodeError):
        raise Unsendable("the URL can't be read; check its host and port") from None
    if prepared.url.constant:
        prepared.constant_url = found
    return found


def _encoded(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or len(host) > MAX_HOST:
        raise ValueError("no host")
    port = parts.port or _PORTS[parts.scheme]
    if not url.isascii() and not host.isascii():
        # Internationalised names go as their ASCII form (RFC 5891).
        plain = host.encode("idna").decode()
        url = url.replace(parts.netloc, plain if parts.port is None else f"{plain}:{port}", 1)
        host = plain
    return URL.encode(_STRAY_PERCENT.sub("%25", url) if "%" in url else url), f"{host}:{port}"


def _defaults(event: Event) -> dict[str, str]:
    return {
        "event": event.name,
        "data": event.data or "",
        "published_at": iso(event.published_at),
        "coreid": event.coreid,
    }


def _body(
    prepared: Prepared, scene: Scene, query: dict[str, str], defaults: dict[str, str]
) -> tuple[bytes | None, str | None]:
    """The body and its type. On GET, the fields of a form join the query, as the defaults do later."""
    config = prepared.config
    if prepared.body is not None:
        return scene.render(prepared.body).encode("utf-8", "replace"), None
    if config.json is not None:
        return _json_body(prepared, scene, {} if config.request_type == "GET" else defaults), JSON
    form = _rendered(prepared.form, scene)
    if config.request_type == "GET":
        for name, value in form.items():
            query.setdefault(name, value)
        return None, None
    if prepared.form is None:
        if config.request_type == "DELETE":
            return None, None
        if not defaults:
            return b"", None
    return _form_encoded({**defaults, **form}, scene), FORM_TYPE


def _json_body(prepared: Prepared, scene: Scene, defaults: dict[str, str]) -> bytes:
    value: Any = {}
    if prepared.json_tree is not None:
        value = prepared.json_tree.render(scene)
    elif prepared.json_text is not None:
        text = scene.render(prepared.json_text)
        scene.pay(len(text) // JSON_PER_STEP)
        try:
            value = msgspec.json.decode(text.encode("utf-8", "replace"))
        except (msgspec.DecodeError, RecursionError) as problem:
            mended = _with_nulls(prepared.json_text, scene)
            try:
                value = msgspec.json.decode(mended.encode("utf-8", "replace"))
            except (msgspec.DecodeError, RecursionError):
                raise Unsendable(f"the json template does not render to JSON: {trouble(text, problem)}") from None
            text = mended
        if not isinstance(value, dict) or not defaults:
            # As it was written: parsing was only to make sure.
            return text.encode("utf-8", "replace")
    return _encode({**defaults, **value} if isinstance(value, dict) else value)


def no_json_in_body(event: Event, prepared: Prepared, context: Context) -> str | None:
    """What is wrong with a body that says it is JSON, if it is none. Of a very long one nothing is said."""
    assert prepared.body is not None
    try:
        text = request_scene(event, prepared, context).render(prepared.body)
    except OutputTooLarge:
        return None
    if len(text) > MAX_LOOKED_AT:
        return None
    try:
        msgspec.json.decode(text.encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError) as problem:
        return f"the body says that it is JSON, and it is none: {trouble(text, problem)}"
    return None


def _with_nulls(template: Template, scene: Scene) -> str:
    """What the template makes with `null` for numbers that are not known, where they stand outside of quotes."""
    *frames, predefined = scene.frames
    unknown = dict.fromkeys((name for name in NUMBERS if predefined.get(name) == ""), _UNKNOWN)
    if not unknown:
        return ""
    text = Scene((*frames, {**predefined, **unknown}), scene.room).render(template)
    scene.pay(len(text) // JSON_PER_STEP)
    out: list[str] = []
    inside = False
    for number, part in enumerate(text.split(_UNKNOWN)):
        if number:
            out.append("" if inside else "null")
        out.append(part)
        for found in _QUOTES.finditer(part):
            inside ^= found[0] == '"'
    return "".join(out)


def _headers(
    prepared: Prepared, scene: Scene, kind: str | None, context: Context
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...], tuple[str, ...]]:
    """The headers, the secrets in them, and the places of those."""
    given = _rendered(prepared.headers, scene)
    secrets: list[str] = []
    parts: list[str] = []
    hidden: list[str] = []
    names = set()
    size = 0
    for name, value in given.items():
        if "\r" in value or "\n" in value or "\0" in value or not name:
            raise Unsendable(f"the header {name[:40]!r} is empty or holds a line break")
        size += len(name) + len(value)
        lower = name.lower()
        names.add(lower)
        if lower in prepared.secret_headers:
            hidden.append(f"headers.{name}")
            secrets.append(value)
            parts += _credentials_in(value)
    if size > MAX_HEADERS_BYTES:
        raise Unsendable(f"the headers are longer than {MAX_HEADERS_BYTES} characters")
    headers = list(given.items())
    if "user-agent" not in names:
        headers.append(("User-Agent", context.user_agent))
    if kind is not None and "content-type" not in names:
        headers.append(("Content-Type", kind))
    if kind == JSON and "accept" not in names:
        headers.append(("Accept", JSON))
    if prepared.username is not None and prepared.password is not None and "authorization" not in names:
        password = scene.render(prepared.password)
        credentials = basic(scene.render(prepared.username), password)
        headers.append(("Authorization", f"Basic {credentials}"))
        secrets += [credentials, password, quote(password, safe="", errors="replace")]
        hidden.append("headers.Authorization")
    if sum(len(secret.encode("utf-8", "replace")) for secret in secrets) > MAX_SECRETS_BYTES:
        raise Unsendable(f"the secret headers are longer than {MAX_SECRETS_BYTES} bytes")
    return tuple(headers), tuple(secret for secret in secrets + parts if secret), tuple(hidden)


def _credentials_in(value: str) -> list[str]:
    """What in a secret header is the secret, by the usual forms: the target may echo it without the rest."""
    scheme, blank, rest = value.partition(" ")
    found = [value.rpartition(" ")[2]]
    if blank and scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            found.append(base64.b64decode(rest, validate=True).decode().partition(":")[2])
    # `session=abc; theme=dark`, as in cookies.
    if "=" in value:
        found += [part.partition("=")[2].strip(' "') for part in value.split(";")[:MAX_PARTS]]
    return [part for part in found if MIN_ECHOED <= len(part) < len(value)]


def _rendered(pairs: Pairs | None, scene: Scene) -> dict[str, str]:
    if pairs is None:
        return {}
    return {scene.render(name): scene.render(value) for name, value in pairs}


def _with_query(url: str, query: dict[str, str], defaults: dict[str, str], scene: Scene) -> str:
    """The URL with fields added to its query. Those of `query` take the place of its own of the same name; of the
    defaults only those are added that nobody has given."""
    if not query and not defaults:
        return url
    url, _, fragment = url.partition("#")
    url, _, given = url.partition("?")
    parts: list[str] = []
    names: set[str] = set()
    for part in given.split("&"):
        name = part.partition("=")[0]
        name = unquote_plus(name) if "%" in name or "+" in name else name
        if part and name not in query:
            parts.append(part)
            names.add(name)
    added = {name: value for name, value in defaults.items() if name not in names}
    # In their own order, before what was configured, as in a form.
    fields = {**added, **query} if added else query
    if fields:
        parts.append(_fields_encoded(fields, QUERY, scene))
    joined = f"{url}?{'&'.join(parts)}"
    return f"{joined}#{fragment}" if fragment else joined


def _form_encoded(fields: dict[str, str], scene: Scene) -> bytes:
    return _fields_encoded(fields, FORM, scene).encode()


def _fields_encoded(fields: dict[str, str], encoding: Encoding, scene: Scene) -> str:
    scene.pay(sum(encoding.cost(name) + encoding.cost(value) for name, value in fields.items()))
    return "&".join(f"{encoding.encode(name)}={encoding.encode(value)}" for name, value in fields.items())
