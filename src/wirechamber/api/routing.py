"""A route is a declaration: who may call it, what it takes, what it answers. OpenAPI and tests read the same list."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog
from aiohttp import web
from msgspec import Struct

from wirechamber.api.bodies import Encoded, check_encoding
from wirechamber.api.http import UNKNOWN, Call, answer, authorise, refusal
from wirechamber.api.parts import Parts
from wirechamber.errors import CloudError
from wirechamber.model.accounts import ALL_SCOPES
from wirechamber.observe.logs import Seldom

_log = structlog.get_logger("wirechamber.api")
_seldom = Seldom(_log)

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

# The ways in besides a token's scope: anyone; any good token, for what changes nothing but that token; a token that may
# do all that its user may; user name and password by HTTP Basic.
ANYONE = "anyone"
TOKEN = "any token"  # noqa: S105
FULL = ALL_SCOPES
PASSWORD = "password"  # noqa: S105


# Taken on every route: the token; particle-api-js's and others' way around caches.
EVERYWHERE = frozenset(("access_token", "nonce", "_"))
# Of those that are not known so many are named, and so much of each name.
MAX_NAMED = 8
MAX_NAMED_LENGTH = 40
_ODD = re.compile(r"[^\w.\[\]-]", re.ASCII)

# Counted for a request whose client did not wait for the answer; never sent.
CLIENT_GONE = 499


class Parameter(Struct, frozen=True):
    """Something that a call may say beside path and body.

    Attributes:
        kind: `string`, `integer` or `boolean`.
        where: `query` or `header`.
        spellings: Other names for it that clients use.
    """

    name: str
    meaning: str
    kind: str = "string"
    where: str = "query"
    spellings: tuple[str, ...] = ()


class Route(Struct, frozen=True, kw_only=True):
    """One method on one path.

    Attributes:
        path: As aiohttp writes it: `{id}`, `{prefix:.+}`.
        requires: `ANYONE`, `TOKEN`, `FULL`, `PASSWORD`, or the scope that a token must hold.
        summary: One line for the API's page.
        body: What the body may hold, as a Struct; None for no body.
        answers: What is answered, in a few words; begins with the status where that is not 200.
        parameters: What the query and headers of its own may say.
        owned: Path parameters that name something with an owner.
        refuse: Answers a refusal where it must look otherwise than everywhere else.
    """

    method: str
    path: str
    handler: Handler
    requires: str
    summary: str
    body: Any = None
    answers: str = ""
    parameters: tuple[Parameter, ...] = ()
    owned: tuple[str, ...] = ()
    refuse: Callable[[Call, CloudError], web.Response] | None = None

    @property
    def scope(self) -> str | None:
        """The scope that a token must hold, if one."""
        return None if self.requires in (ANYONE, TOKEN, PASSWORD) else self.requires

    @property
    def name(self) -> str:
        """Method and pattern, for metrics and messages."""
        return f"{self.method} {self.path}"


def served(route: Route, parts: Parts) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler with everything around it that is the same for all: access, errors, metrics.

    One function per route rather than a chain of middlewares: each of those would cost every request.
    """
    handler, scope, metrics = route.handler, route.scope, parts.metrics
    refuse = route.refuse or refused
    open_to_all = route.requires in (ANYONE, PASSWORD)

    async def handle(request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        call = Call(request, parts, unknown_parameters(request, route.parameters))
        try:
            check_encoding(request)
            if not open_to_all:
                await authorise(call, scope)
            response = await handler(call)
        except CloudError as problem:
            response = refuse(call, problem)
        except (asyncio.CancelledError, ConnectionError):
            # The client went away before it had its answer; it is counted as nginx does.
            metrics.request(route.method, route.path, CLIENT_GONE, time.perf_counter() - started)
            raise
        except Exception:
            response = failed(route.name)
        if call.unknown and not response.prepared:
            response.headers[UNKNOWN] = call.unknown
        metrics.request(route.method, route.path, response.status, time.perf_counter() - started)
        return response

    return handle


def unknown_parameters(request: web.Request, known: Iterable[Parameter]) -> str:
    """The names in a request's query that mean nothing to its route, as one line of plain characters; mostly empty."""
    if not request.rel_url.raw_query_string:
        return ""
    means = {name for each in known if each.where == "query" for name in (each.name, *each.spellings)}
    names = [name for name in dict.fromkeys(request.query) if name not in means and name not in EVERYWHERE]
    some = [_ODD.sub("?", name[:MAX_NAMED_LENGTH]) for name in names[:MAX_NAMED]]
    return ", ".join(some) + (f" and {len(names) - len(some)} more" if len(names) > len(some) else "")


def refused(call: Call, problem: CloudError) -> web.Response:
    """An error that the caller is told; counted, and logged when it is ours."""
    call.parts.metrics.refused(problem.code)
    if problem.status >= 500:
        _seldom.warning("refused", why=problem.description, status=problem.status)
    response = refusal(problem)
    if isinstance(problem, Encoded):
        # What it unpacks to is not known, so what is left of it is not read either.
        response.force_close()
    return response


def failed(where: str) -> web.Response:
    """An error of our own: logged once, told by its id only."""
    request_id = uuid.uuid4().hex
    _log.exception("request_failed", route=where, request_id=request_id)
    text = f"something went wrong here; the server's log knows it as {request_id}"
    return answer({"ok": False, "error": "server_error", "error_description": text}, 500, {"X-Request-Id": request_id})
