"""`wirechamber user`: who may log in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from wirechamber.cli.files import read_line
from wirechamber.cli.folder import Folder, in_folder
from wirechamber.cli.output import Exit, done, fail, show_json, show_table
from wirechamber.model.accounts import PERMISSIONS, User
from wirechamber.model.times import iso

Data = Annotated[Path | None, typer.Option("--data", help="Data folder [env: WIRECHAMBER_DATA]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Name = Annotated[str, typer.Argument(help="Any text without blanks, such as an e-mail address.")]
Permission = Annotated[str, typer.Argument(help="One of: " + "; ".join(f"{k}, {v}" for k, v in PERMISSIONS.items()))]


def app() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(
        help="Users: create, list, change the password, grant what only you may, delete.", no_args_is_help=True
    )
    group.command("create")(create)
    group.command("list")(listed)
    group.command("password")(password)
    group.command("grant")(grant)
    group.command("revoke")(revoke)
    group.command("delete")(delete)
    return group


def create(name: Name, password_stdin: FromStdin = False, data: Data = None, json: Json = False) -> None:
    """Make a user. Asks for the password on a terminal."""
    secret = _password(password_stdin)

    async def work(folder: Folder) -> None:
        user = await folder.access.create_user(name, secret)
        if json:
            show_json({"id": user.id, "name": user.name})
        else:
            typer.echo(f"user {user.name} was made; `wirechamber token create --user {user.name}` gives a token")

    in_folder(work, data=data, create=True)


def listed(data: Data = None, json: Json = False) -> None:
    """List the users."""

    async def work(folder: Folder) -> None:
        users = await folder.store.users.all()
        if json:
            show_json([_shown(user) for user in users])
        else:
            rows = [(user.name, user.id, iso(user.created_at), " ".join(user.permissions)) for user in users]
            show_table(("NAME", "ID", "CREATED", "GRANTED"), rows, empty="there are no users yet")

    in_folder(work, data=data)


def password(name: Name, password_stdin: FromStdin = False, data: Data = None, json: Json = False) -> None:
    """Change a user's password; all its tokens end."""
    secret = _password(password_stdin)

    async def work(folder: Folder) -> None:
        await folder.access.set_password(await folder.access.named(name), secret)
        done(f"the password of {name} was changed; its tokens have ended", json, name=name)

    in_folder(work, data=data)


def grant(name: Name, permission: Permission, data: Data = None, json: Json = False) -> None:
    """Grant a user what nobody has by default, such as google-identity."""

    async def work(folder: Folder) -> None:
        await folder.access.grant(await folder.access.named(name), permission)
        done(f"{name} has {permission}: {PERMISSIONS[permission]}", json, name=name, permission=permission)

    in_folder(work, data=data)


def revoke(name: Name, permission: Permission, data: Data = None, json: Json = False) -> None:
    """Take back what was granted; integrations that need it pause at their next event."""

    async def work(folder: Folder) -> None:
        await folder.access.withdraw(await folder.access.named(name), permission)
        done(f"{name} does not have {permission} any more", json, name=name, permission=permission)

    in_folder(work, data=data)


def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Delete a user with its tokens and integrations. Its devices become free."""

    async def work(folder: Folder) -> None:
        user = await folder.access.named(name)
        count = (await folder.store.integrations.holding(user.id)).integrations
        if not yes and not typer.confirm(f"delete {name} with {count} integrations and what waits to be delivered?"):
            fail("nothing was deleted")
        await folder.store.users.remove(user.id)
        done(f"user {name} was deleted", json, id=user.id, name=user.name)

    in_folder(work, data=data)


def _shown(user: User) -> dict[str, Any]:
    shown = {"id": user.id, "name": user.name, "created_at": iso(user.created_at)}
    return shown | {"permissions": list(user.permissions)}


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return read_line()
    if not sys.stdin.isatty():
        fail("there is no terminal to ask for the password on; use --password-stdin", Exit.USAGE)
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
