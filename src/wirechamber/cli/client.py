"""`wirechamber client`: programs that log in as the user who registered them."""

from __future__ import annotations

from typing import Annotated

import typer

from wirechamber.cli.folder import Folder, in_folder
from wirechamber.cli.output import done, fail, show_json, show_table
from wirechamber.cli.user import Data, Json
from wirechamber.model.times import iso

User = Annotated[str, typer.Option("--user", help="Name of the user whose client it is.")]
Id = Annotated[str, typer.Argument(help="The client's id, as `client list` shows it.")]
Scope = Annotated[
    list[str] | None,
    typer.Option("--scope", help="What its tokens may do at most, such as events:send; may be given several times."),
]


def app() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(
        help="OAuth clients, programs that log in as a user by a secret of their own: create, list, edit, delete.",
        no_args_is_help=True,
    )
    group.command("create")(create)
    group.command("list")(listed)
    group.command("edit")(edit)
    group.command("delete")(delete)
    return group


def create(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    user: User,
    kind: Annotated[str, typer.Option("--type", help="installed or web.")] = "installed",
    redirect_uri: Annotated[str | None, typer.Option("--redirect-uri", help="URL, for a client of type web.")] = None,
    scope: Scope = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Register a client; prints its id, a blank and its secret, which is shown only this once."""

    async def work(folder: Folder) -> None:
        owner = await folder.access.named(user)
        client, secret = await folder.grants.register(owner.id, name, kind, redirect_uri, scope)
        if json:
            show_json({"id": client.id, "name": client.name, "type": client.type, "secret": secret})
        else:
            typer.echo(f"{client.id} {secret}")

    in_folder(work, data=data)


def listed(user: User, data: Data = None, json: Json = False) -> None:
    """List a user's clients."""

    async def work(folder: Folder) -> None:
        clients = await folder.grants.clients_of((await folder.access.named(user)).id)
        if json:
            show_json(
                [
                    {
                        "id": client.id,
                        "name": client.name,
                        "type": client.type,
                        "redirect_uri": client.redirect_uri,
                        "scopes": list(client.scopes),
                        "created_at": iso(client.created_at),
                    }
                    for client in clients
                ]
            )
            return
        rows = [
            (client.id, client.name, client.type, " ".join(client.scopes), iso(client.created_at)) for client in clients
        ]
        show_table(("ID", "NAME", "TYPE", "SCOPES", "CREATED"), rows, empty="there are no clients")

    in_folder(work, data=data)


def edit(
    client_id: Id,
    user: User,
    name: Annotated[str | None, typer.Option("--name", help="What to call it from now on.")] = None,
    scope: Scope = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Change a client's name, or what its tokens may do from now on."""

    async def work(folder: Folder) -> None:
        owner = await folder.access.named(user)
        client = await folder.grants.change(owner.id, client_id, name, scope or None)
        done(f"client {client.id} is {client.name}, {' '.join(client.scopes)}", json, id=client.id, name=client.name)

    in_folder(work, data=data)


def delete(
    client_id: Id,
    user: User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Remove a client; all tokens that were got through it end."""

    async def work(folder: Folder) -> None:
        owner = await folder.access.named(user)
        if not yes and not typer.confirm(f"remove the client {client_id}, and end its tokens?"):
            fail("nothing was removed")
        await folder.grants.unregister(owner.id, client_id)
        done(f"client {client_id} was removed; its tokens have ended", json, id=client_id)

    in_folder(work, data=data)
