"""Integrations, and their legacy twins, webhooks: the same objects under two paths (cloud-api.md, section 6)."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from msgspec import Struct

from wirechamber.api.http import Call, answer, listing, no_content
from wirechamber.api.routing import TOKEN, Parameter, Route
from wirechamber.errors import BadInput
from wirechamber.integrations.webhook import Webhook, WebhookConfig
from wirechamber.model.ids import is_device_id
from wirechamber.services.integrations import MAX_LOGS
from wirechamber.store.base import AttemptFilter

# As lists of devices have it.
PER_PAGE = 25
MAX_PER_PAGE = 1_000


class IntegrationBody(Struct, frozen=True, kw_only=True):
    """What every integration has, flat beside the settings of its kind: `GET /v1/integrations/kinds` has them all."""

    event: str
    integration_type: str = "Webhook"
    name: str | None = None
    deviceID: str | None = None  # noqa: N815
    disabled: bool = False


class WebhookBody(WebhookConfig, frozen=True, kw_only=True, rename="camel"):
    """A webhook: what every integration has, and its own settings."""

    event: str
    name: str | None = None
    deviceID: str | None = None  # noqa: N815
    disabled: bool = False


class Sample(Struct):
    """An event to test with; both may be left out."""

    name: str | None = None
    data: str | None = None


async def listed(call: Call) -> web.StreamResponse:
    """All of the caller's, a bare array; or a page of them."""
    return await _list(call, None)


async def listed_webhooks(call: Call) -> web.StreamResponse:
    """The caller's webhooks, a bare array; or a page of them."""
    return await _list(call, Webhook.kind)


async def _list(call: Call, kind: str | None) -> web.StreamResponse:
    """Answers page by page: what waits for a slow reader is one page, however much there is."""
    integrations = call.parts.integrations
    limit, number = call.number("per_page", "perPage"), call.number("page")
    if limit is not None or number is not None:
        limit = min(limit or PER_PAGE, MAX_PER_PAGE)
    offset = ((number or 1) - 1) * (limit or 0)
    pages = integrations.pages(call.owner, kind, after=call.query("after"), limit=limit, offset=offset)
    count = await integrations.count(call.owner, kind)
    return await listing(call, pages, headers={"X-Total-Count": str(count)})


async def kinds(call: Call) -> web.Response:
    """The kinds of integration that there are."""
    return answer({"kinds": call.parts.integrations.kinds()})


async def create(call: Call) -> web.Response:
    """Makes an integration."""
    return _made(call, await call.parts.integrations.create(call.owner, await call.body()))


async def create_webhook(call: Call) -> web.Response:
    """Makes a webhook."""
    return _made(call, await call.parts.integrations.create(call.owner, await call.body(), Webhook.kind))


async def show(call: Call) -> web.Response:
    """One, wrapped as clients read it."""
    return answer({"integration": await call.parts.integrations.show(call.owner, call.path("id"))})


async def show_webhook(call: Call) -> web.Response:
    """One, wrapped as clients read it."""
    return answer({"webhook": await call.parts.integrations.show(call.owner, call.path("id"))})


async def replace(call: Call) -> web.Response:
    """Replaces the whole configuration."""
    shown = await call.parts.integrations.replace(call.owner, call.path("id"), await call.body())
    return answer({"ok": True, **shown, "hookUrl": _hook_url(call, shown)})


async def remove(call: Call) -> web.Response:
    """Removes an integration."""
    await call.parts.integrations.remove(call.owner, call.path("id"))
    return no_content()


async def remove_webhook(call: Call) -> web.Response:
    """Removes a webhook; particle-cli wants a body."""
    return answer({"ok": True, "id": await call.parts.integrations.remove(call.owner, call.path("id"))})


async def test(call: Call) -> web.Response:
    """Sends a sample event through it."""
    body = await call.body()
    return answer(await call.parts.integrations.test(call.owner, call.path("id"), body.get("name"), body.get("data")))


async def logs(call: Call) -> web.Response:
    """The attempts, newest first; `before` pages back."""
    status = call.query("status")
    if status not in (None, "success", "error"):
        raise BadInput("status must be success or error")
    per_page = min(call.number("per_page", "perPage") or 25, MAX_LOGS)
    device = call.query("device")
    if device is not None and not is_device_id(device.lower()):
        device = (await call.parts.devices.get(call.owner, device)).id
    where = AttemptFilter(
        ok=None if status is None else status == "success",
        device=None if device is None else device.lower(),
        before=call.query("before"),
    )
    found = await call.parts.integrations.attempts(call.owner, call.path("id"), where, per_page)
    # Fewer than asked for are not always the last ones: large ones go in smaller pages.
    last = found[-1]["id"] if found and (len(found) == per_page or await _more(call, where, found)) else None
    unfiltered = where == AttemptFilter()
    told = await call.parts.integrations.hint(call.owner, call.path("id")) if not found and unfiltered else {}
    return answer({"logs": found, "meta": {"per_page": per_page, "before": last}, **told})


async def attempt(call: Call) -> web.Response:
    """One attempt, with what was sent and answered."""
    found = await call.parts.integrations.attempt(call.owner, call.path("id"), call.path("attempt"))
    return answer({"log": found})


async def _more(call: Call, where: AttemptFilter, found: list[dict[str, Any]]) -> bool:
    older = AttemptFilter(ok=where.ok, device=where.device, before=found[-1]["id"])
    return bool(await call.parts.integrations.attempts(call.owner, call.path("id"), older, 1))


def _made(call: Call, shown: dict[str, Any]) -> web.Response:
    return answer({"ok": True, **shown, "hookUrl": _hook_url(call, shown)}, 201)


def _hook_url(call: Call, shown: dict[str, Any]) -> str:
    return f"{call.parts.base_url(call.host(), call.scheme())}/v1/webhooks/{shown['id']}"


def _routes(area: str, handlers: dict[str, Any]) -> tuple[Route, ...]:
    one, noun = f"/v1/{area}/{{id}}", area[:-1]
    a_noun = f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
    return (
        Route(
            method="GET", path=f"/v1/{area}", handler=handlers["listed"], requires="integrations:list",
            summary=f"List your {area} with today's counts, oldest first", answers=f"[{noun}]",
            parameters=(
                Parameter("page", "From 1; all in one answer if neither this nor `per_page` is said.", "integer"),
                Parameter(
                    "per_page", "At most 1,000; 25 if only `page` is said.", "integer", spellings=("perPage",)
                ),
                Parameter("after", "The id of the last one of the page before; cheaper than `page`."),
            ),
        ),
        Route(
            method="POST", path=f"/v1/{area}", handler=handlers["create"], requires="integrations:create",
            body=handlers["body"], summary=f"Make {a_noun}; unknown fields are kept and named in warnings",
            answers=f"201 {{ok, id, …, hookUrl, warnings}}: the {noun}",
        ),
        Route(
            method="GET", path=one, handler=handlers["show"], requires="integrations:get", owned=("id",),
            summary=f"Show {a_noun} with its newest logs", answers=f"{{{noun}: {{…, logs, errors, counters}}}}",
        ),
        Route(
            method="PUT", path=one, handler=replace, requires="integrations:update", owned=("id",),
            body=handlers["body"], answers="{ok, id, …, warnings}",
            summary=f"Replace {a_noun}'s whole configuration; only {{disabled}} switches it",
        ),
        Route(
            method="DELETE", path=one, handler=handlers["remove"], requires="integrations:remove", owned=("id",),
            summary=f"Remove {a_noun} and what waits to be delivered", answers=handlers["removed"],
        ),
        Route(
            method="POST", path=f"{one}/test", handler=test, requires="integrations:test", owned=("id",), body=Sample,
            summary="Send a sample event through it",
            answers="{ok, status_code, request, response, error, warnings, …}",
        ),
        Route(
            method="GET", path=f"{one}/logs", handler=logs, requires="integrations:get", owned=("id",),
            summary="Page through its attempts, newest first", answers="{logs, meta}",
            parameters=(
                Parameter("status", "Only `success` or only `error`."),
                Parameter("device", "Only attempts for events of this device, by id or name."),
                Parameter("before", "`meta.before` of the page before."),
                Parameter("per_page", "At most 100; 25 if not said.", "integer", spellings=("perPage",)),
            ),
        ),
        Route(
            method="GET", path=f"{one}/logs/{{attempt}}", handler=attempt, requires="integrations:get", owned=("id",),
            summary="Show one attempt: what was sent and answered, and when the next one is", answers="{log}",
        ),
    )  # fmt: skip


ROUTES = (
    # Before the routes of one integration: the first that fits is taken.
    Route(
        method="GET",
        path="/v1/integrations/kinds",
        handler=kinds,
        requires=TOKEN,
        summary="List the kinds of integration: fields as JSON Schema, secrets, a sample event",
        answers="{kinds: [{integration_type, description, installed, schema, …}]}",
    ),
    *_routes(
        "integrations",
        {"listed": listed, "create": create, "show": show, "remove": remove, "removed": "204", "body": IntegrationBody},
    ),
    *_routes(
        "webhooks",
        {
            "listed": listed_webhooks,
            "create": create_webhook,
            "show": show_webhook,
            "remove": remove_webhook,
            "removed": "{ok, id}",
            "body": WebhookBody,
        },
    ),
)
