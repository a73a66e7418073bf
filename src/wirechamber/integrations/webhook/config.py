"""The configuration of a webhook: every field of integrations.md, section 4, in all its spellings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from msgspec import Meta, Struct

from wirechamber.integrations import fields
from wirechamber.integrations.base import MASK, InvalidConfig, Reading
from wirechamber.integrations.declaration import Secret
from wirechamber.integrations.variables import PREDEFINED

MAX_URL = 8_192
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
# Headers whose values are secrets whatever the configuration says.
SECRET_HEADERS = frozenset(("authorization", "proxy-authorization", "cookie"))
# What names of headers and fields that hold keys end with, without dashes. Others have keys that are none, such as
# `Idempotency-Key`.
_KEY = re.compile(
    r"(?:^x?|api|access|auth|app|account|subscription|functions|sas|insert|license|write|read|secret|private|aio)key$"
    r"|token$|secret$|passw(?:or)?d$"
)
# The name that a tag prints.
_PRINTED = re.compile(r"\{\{[{&]?\s{0,8}([^\s#^/!>=&{}]{1,64})\s{0,8}\}\}")
# Each is looked for in every answer.
MAX_SECRET_HEADERS = 16
# What may stand between a tag and a user in a URL.
_SCHEME_BEHIND_TAG = re.compile(r"\}\}(?:https?)?:?//", re.IGNORECASE)
# Every name under which something is taken.
_SPELLINGS = (
    "event", "eventName", "deviceID", "coreID", "name", "disabled", "url", "requestType", "method", "json", "form",
    "body", "query", "headers", "secretHeaders", "auth", "noDefaults", "rejectUnauthorized", "responseTopic",
    "responseEvent", "errorResponseTopic", "errorResponseEvent", "errorTopic", "responseTemplate", "unchunked",
    "dataUrlResponseEvent", "dataUriResponseEvent",
)  # fmt: skip
_TCHAR = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _doc(text: str) -> Meta:
    return Meta(description=text)


class Credentials(Struct, frozen=True):
    """HTTP Basic authentication (RFC 7617)."""

    username: str
    password: Secret


class WebhookConfig(Struct, frozen=True, kw_only=True, rename="camel"):
    """Send each event to a URL."""

    url: Annotated[str, _doc("Where each event is sent; http or https, may hold templates and a query.")]
    request_type: Annotated[Method, _doc("HTTP method.")] = "POST"
    json: Annotated[
        dict[str, Any] | list[Any] | str | bool | None,
        _doc("JSON body: an object or a list, a template of one, or true for the defaults."),
    ] = None
    form: Annotated[dict[str, str] | None, _doc("Form body; on GET it goes to the query.")] = None
    body: Annotated[str | None, _doc("Raw body; no Content-Type is set for it.")] = None
    query: Annotated[dict[str, str] | None, _doc("Added to the URL's query.")] = None
    headers: Annotated[dict[str, str] | None, _doc("Sent with every request; they win over ours.")] = None
    secret_headers: Annotated[
        tuple[str, ...], _doc("Names of headers whose values are kept encrypted and never shown again.")
    ] = ()
    auth: Annotated[Credentials | None, _doc("HTTP Basic authentication; the password is a secret.")] = None
    no_defaults: Annotated[bool, _doc("Do not add event, data, published_at and coreid.")] = False
    reject_unauthorized: Annotated[bool, _doc("Check the target's certificate.")] = True
    response_topic: Annotated[str | None, _doc("Name of the answer's events, without index.")] = None
    error_response_topic: Annotated[str | None, _doc("Name of the error's event, without index.")] = None
    response_template: Annotated[str | dict[str, Any] | list[Any] | None, _doc("Shape of the answer's data.")] = None
    unchunked: Annotated[
        bool,
        _doc(
            "One event for the answer, without index, however long; devices get it up to 1,024 bytes, streams always."
        ),
    ] = False
    data_url_response_event: Annotated[bool, _doc("The answer's bytes as a data URL.")] = False


def read(settings: Mapping[str, Any], secrets: Mapping[str, str]) -> Reading[WebhookConfig]:
    """Validates what the user sent.

    Raises:
        InvalidConfig: Names the field and what is allowed.
    """
    rest = dict(settings)
    url = _url(fields.text(rest, "url"))
    method = _method(fields.text(rest, "requestType", "method"))
    bodies = _bodies(rest, method)
    query, headers = fields.texts(rest, "query"), fields.texts(rest, "headers")
    url, auth, warnings = _credentials(url, _auth(rest))
    template = _response_template(rest)
    secret_headers = _secret_headers(rest)
    revealed = _Revealed(secrets)
    config = WebhookConfig(
        url=url,
        request_type=method,
        query=query,
        headers=_headers(headers, secret_headers, revealed),
        secret_headers=secret_headers,
        auth=None if auth is None else Credentials(auth[0], revealed.value("auth.password", auth[1])),
        no_defaults=fields.boolean(rest, "noDefaults", default=False),
        reject_unauthorized=fields.boolean(rest, "rejectUnauthorized", default=True),
        response_topic=fields.text(rest, "responseTopic", "responseEvent"),
        error_response_topic=fields.text(rest, "errorResponseTopic", "errorResponseEvent", "errorTopic"),
        response_template=template,
        unchunked=fields.boolean(rest, "unchunked", default=False),
        data_url_response_event=fields.boolean(
            rest, "dataUrlResponseEvent", "dataUriResponseEvent", "data_url_response_event", default=False
        ),
        **bodies,
    )
    warnings += _readable_keys(config) + _bare_data(url)
    if method == "GET" and config.json is not None:
        warnings.append("json: is sent as the body of a GET, which many targets ignore or refuse; use query, or POST")
    kept = {name: rest.pop(name) for name in ("mydevices", "template") if name in rest}
    warnings += fields.unknown(rest, _SPELLINGS)
    shown = _shown(config) | kept | rest
    return Reading(config, shown, revealed.secrets, tuple(warnings))


class _Revealed:
    """Takes secrets out of what the user sent; a mask that came back stands for the stored value."""

    def __init__(self, stored: Mapping[str, str]) -> None:
        self._stored = stored
        self.secrets: dict[str, str] = {}

    def value(self, path: str, given: str) -> str:
        if given == MASK:
            if path not in self._stored:
                raise InvalidConfig(path, f"is {MASK}, but no value is stored for it; send the value itself")
            given = self._stored[path]
        self.secrets[path] = given
        return given


def _url(url: str | None) -> str:
    if url is None:
        raise InvalidConfig("url", "is required: where the events go, such as https://example.com/in")
    url = url.strip()
    if len(url) > MAX_URL:
        raise InvalidConfig("url", f"may have at most {MAX_URL} characters, not {len(url)}")
    if any(ord(character) < 32 for character in url):
        raise InvalidConfig("url", "may not hold line breaks or control characters")
    if not url.lower().startswith(("http://", "https://", "{{")):
        raise InvalidConfig("url", "must begin with http:// or https://")
    return url


def _method(method: str | None) -> Method:
    if method is None:
        return "POST"
    for known in METHODS:
        if method.upper() == known:
            return known  # type: ignore[return-value]
    raise InvalidConfig("requestType", f"must be one of {', '.join(METHODS)}")


def _bodies(rest: dict[str, Any], method: Method) -> dict[str, Any]:
    form = fields.texts(rest, "form")
    json = _json(fields.take(rest, "json"))
    body = fields.take(rest, "body")
    if isinstance(body, dict | list):
        body = msgspec.json.encode(body).decode()
    if body is not None and not isinstance(body, str):
        raise InvalidConfig("body", f"must be a text, not {fields.kind_of(body)}")
    if _is_empty(json) and (method == "GET" or form is not None or body is not None):
        # It says that a body would be JSON, and there is none; or another one.
        json = None
    given = [name for name, value in (("json", json), ("form", form), ("body", body)) if value is not None]
    if len(given) > 1:
        raise InvalidConfig(given[1], f"can't be combined with {given[0]}: give only one of json, form and body")
    if method == "GET" and body is not None:
        raise InvalidConfig("body", "can't be used with requestType GET, which sends no body; use query or form")
    return {"json": json, "form": form, "body": body}


def _is_empty(json: Any) -> bool:
    """Whether a `json` says no more than that there would be some."""
    return json in (True, {}, []) or (isinstance(json, str) and json.strip() in ("{}", "[]", "null"))


def _json(value: Any) -> dict[str, Any] | list[Any] | str | bool | None:
    if value is None or value is False:
        return None
    if isinstance(value, str) and value.strip().lower() == "true":
        return True
    if isinstance(value, dict | list | str) or value is True:
        return value
    raise InvalidConfig("json", f"must be an object, a list, a template of one, or true, not {fields.kind_of(value)}")


def _auth(rest: dict[str, Any]) -> tuple[str, str] | None:
    auth = fields.texts(rest, "auth")
    if auth is None or not any(auth.values()):
        return None
    unknown = set(auth) - {"username", "password"}
    if unknown or not auth.get("username"):
        raise InvalidConfig("auth", "must be an object with username and password")
    return auth["username"], auth.get("password", "")


def _credentials(url: str, auth: tuple[str, str] | None) -> tuple[str, tuple[str, str] | None, list[str]]:
    """Moves user and password out of the URL: there they would be stored and shown readable."""
    found = _users_in(url)
    if not found:
        return url, auth, []
    if auth is not None:
        raise InvalidConfig("url", "holds a user name although auth is given; give only one of them")
    if len(found) > 1 or any(mark in url for mark in ("{{#", "{{^", "{{=")):
        # In one of several URLs, or in a part that is sometimes left out, they are not for every request.
        raise InvalidConfig("url", "holds a password within a template, where it can't be hidden; give it in auth")
    ((begin, end),) = found
    username, _, password = url[begin:end].partition(":")
    if not username:
        raise InvalidConfig("url", "holds a password whose user name can't be told; give both in auth")
    plain = url[:begin] + url[end + 1 :]
    try:
        urlsplit(plain)
    except ValueError:
        raise InvalidConfig("url", "can't be read; check its host and port") from None
    return plain, (unquote(username), unquote(password)), ["url: its user name and password were moved to auth"]


def _users_in(url: str) -> list[tuple[int, int]]:
    """Where users stand in the URLs of a template, from the first character to the `@` (RFC 3986, section 3.2.1).

    That is behind the scheme; in a URL that begins with tags, also behind those, which may print the scheme, and behind
    each scheme that follows a tag.
    """
    begins = {url.find("//") + 2}
    if url.startswith("{{"):
        begins = {found.end() for found in _SCHEME_BEHIND_TAG.finditer(url)}
        leading = 0
        while url.startswith("{{", leading):
            leading = _behind(url, leading)
            begins.add(leading)
    found: dict[int, int] = {}
    at, begin = 0, None
    while at < len(url):
        if at in begins:
            begin = at
        if url.startswith("{{", at):
            at = _behind(url, at)
            continue
        if url[at] in "/?#":
            begin = None
        elif url[at] == "@" and begin is not None:
            found[begin] = at
        at += 1
    return list(found.items())


def _behind(url: str, tag: int) -> int:
    end = url.find("}}", tag)
    if end < 0:
        return len(url)
    return end + 3 if url.startswith("}}}", end) else end + 2


def _secret_headers(rest: dict[str, Any]) -> tuple[str, ...]:
    value = fields.take(rest, "secretHeaders")
    if value is None:
        return ()
    names = value.split(",") if isinstance(value, str) else value
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or len(names) > fields.MAX_FIELDS
    ):
        raise InvalidConfig("secretHeaders", "must be a list of header names")
    return tuple(name.strip() for name in names)


def secret_headers(config: WebhookConfig) -> frozenset[str]:
    """The headers whose values are secrets, in lower case: always, because it says so, or by what their names say."""
    return _secret_names(config.headers or {}, config.secret_headers)


def _secret_names(headers: Iterable[str], named: Iterable[str]) -> frozenset[str]:
    told = {name.lower() for name in headers if _names_a_key(name)}
    return frozenset(told | {name.lower() for name in named} | SECRET_HEADERS)


def _names_a_key(name: str) -> bool:
    return _KEY.search(name.lower().replace("-", "").replace("_", "")) is not None


def _readable_keys(config: WebhookConfig) -> list[str]:
    """Says where keys stand that everybody sees who sees the webhook."""
    in_url = dict(parse_qsl(config.url.partition("?")[2].partition("#")[0]))
    places = (("url", in_url), ("query", config.query), ("form", config.form), ("json", config.json))
    return [
        f"{place}.{name}"[:100]
        + ": looks like a key, and only those in headers or auth are kept encrypted and hidden; if "
        "the target takes it in a header, give it there"
        for place, fields in places
        if isinstance(fields, dict)
        for name, value in fields.items()
        if isinstance(value, str) and value and "{{" not in value and _names_a_key(name)
    ]


def _bare_data(url: str) -> list[str]:
    """Says that what a device sends may change the address. The cloud's own names are no such data."""
    # Who has the host, or all of it, in the data means to.
    behind_host = re.split("[/?#]", url.partition("//")[2], maxsplit=1)[1:]
    printed = _PRINTED.findall(behind_host[0]) if behind_host else []
    names = dict.fromkeys(name for name in printed if name.partition(".")[0] not in PREDEFINED)
    if not names or url.startswith("{{"):
        return []
    return [
        f"url: what {', '.join(list(names)[:3])[:100]} holds is printed as it is: a #, ?, & or / in it changes the "
        "address; in query, values are encoded"
    ]


def _headers(headers: dict[str, str] | None, secret: tuple[str, ...], revealed: _Revealed) -> dict[str, str] | None:
    if headers is None:
        return None
    secret_names = _secret_names(headers, secret)
    found: dict[str, str] = {}
    for name, value in headers.items():
        if "{{" not in name and (not name or not set(name) <= _TCHAR):
            raise InvalidConfig(f"headers.{name}"[:100], "is no header name (RFC 9110, section 5.1)")
        if any(mark in value for mark in "\r\n\0"):
            raise InvalidConfig(f"headers.{name}"[:100], "may not hold line breaks or null characters")
        found[name] = revealed.value(f"headers.{name}", value) if name.lower() in secret_names else value
    if sum(name.lower() in secret_names for name in found) > MAX_SECRET_HEADERS:
        raise InvalidConfig("headers", f"may hold at most {MAX_SECRET_HEADERS} secret ones")
    return found


def _response_template(rest: dict[str, Any]) -> str | dict[str, Any] | list[Any] | None:
    value = fields.take(rest, "responseTemplate")
    if not value and isinstance(value, dict | list):
        return None
    if value is None or isinstance(value, str | dict | list):
        return value
    raise InvalidConfig("responseTemplate", f"must be a text, an object or a list, not {fields.kind_of(value)}")


def _shown(config: WebhookConfig) -> dict[str, Any]:
    """The configuration as answers show it and files hold it, masked, without what is absent."""
    shown: dict[str, Any] = {
        "url": config.url,
        "requestType": config.request_type,
        "noDefaults": config.no_defaults,
        "rejectUnauthorized": config.reject_unauthorized,
        "unchunked": config.unchunked,
        "dataUrlResponseEvent": config.data_url_response_event,
        "responseTopic": config.response_topic,
        "errorResponseTopic": config.error_response_topic,
        "headers": _masked_headers(config),
        "secretHeaders": list(config.secret_headers) or None,
        "auth": None if config.auth is None else {"username": config.auth.username, "password": MASK},
        "query": config.query,
        "form": config.form,
        "json": config.json,
        "body": config.body,
        "responseTemplate": config.response_template,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _masked_headers(config: WebhookConfig) -> dict[str, str] | None:
    if config.headers is None:
        return None
    secret = secret_headers(config)
    return {name: MASK if name.lower() in secret else value for name, value in config.headers.items()}
