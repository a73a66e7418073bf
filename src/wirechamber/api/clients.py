"""Programs that a user registered: OAuth clients (cloud-api.md, section 2; particle-api-js calls these routes)."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from msgspec import Struct

from wirechamber.api.http import Call, answer, no_content
from wirechamber.api.routing import FULL, Route
from wirechamber.model.accounts import OAuthClient


class ClientBody(Struct):
    """A client."""

    name: str
    type: str = "installed"
    redirect_uri: str | None = None
    scope: str | None = None


class ClientChange(Struct):
    """What can be changed of one."""

    name: str | None = None
    scope: str | None = None


def view(client: OAuthClient, **more: str) -> dict[str, Any]:
    """The client as the API shows it, without its secret."""
    shown: dict[str, Any] = {"id": client.id, "name": client.name, "type": client.type}
    if client.redirect_uri is not None:
        shown["redirect_uri"] = client.redirect_uri
    return shown | {"scope": " ".join(client.scopes)} | more


async def listed(call: Call) -> web.Response:
    """The caller's clients, oldest first."""
    clients = await call.parts.grants.clients_of(call.owner)
    return answer({"ok": True, "clients": [view(client) for client in clients]})


async def create(call: Call) -> web.Response:
    """Registers a client; its secret is told this once."""
    body = await call.body()
    client, secret = await call.parts.grants.register(
        call.owner, body.get("name"), body.get("type") or "installed", body.get("redirect_uri"), body.get("scope")
    )
    return answer({"ok": True, "client": view(client, secret=secret)})


async def change(call: Call) -> web.Response:
    """Changes name or scope."""
    body = await call.body()
    client = await call.parts.grants.change(call.owner, call.path("id"), body.get("name"), body.get("scope"))
    return answer({"ok": True, "client": view(client)})


async def remove(call: Call) -> web.Response:
    """Removes a client; its tokens end."""
    await call.parts.grants.unregister(call.owner, call.path("id"))
    return no_content()


ROUTES = (
    Route(
        method="GET", path="/v1/clients", handler=listed, requires=FULL,
        summary="List your OAuth clients", answers="{ok, clients: [{id, name, type, scope}]}",
    ),
    Route(
        method="POST", path="/v1/clients", handler=create, requires=FULL, body=ClientBody,
        summary="Register an OAuth client; its secret is shown this once",
        answers="{ok, client: {id, name, type, scope, secret}}",
    ),
    Route(
        method="PUT", path="/v1/clients/{id}", handler=change, requires=FULL, owned=("id",), body=ClientChange,
        summary="Change an OAuth client's name, or what its tokens may do", answers="{ok, client}",
    ),
    Route(
        method="DELETE", path="/v1/clients/{id}", handler=remove, requires=FULL, owned=("id",),
        summary="Remove an OAuth client; the tokens that were got through it end", answers="204",
    ),
)  # fmt: skip
