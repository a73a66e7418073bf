"""`wirechamber token`: what programs log in with."""

from __future__ import annotations

from typing import Annotated

import typer

from wirechamber.cli import complete
from wirechamber.cli.files import read_line
from wirechamber.cli.folder import Folder, in_folder
from wirechamber.cli.output import Exit, done, fail, show_json, show_table
from wirechamber.cli.user import Data, Json
from wirechamber.model.accounts import ALL_SCOPES
from wirechamber.model.times import iso, iso_or_none

User = Annotated[
    str,
    typer.Option("--user", help="Name of the user that the token acts for.", autocompletion=complete.users),
]


def app() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(help="Tokens: create, list, revoke.", no_args_is_help=True)
    group.command("create")(create)
    group.command("list")(listed)
    group.command("revoke")(revoke)
    return group


def create(
    user: User,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="May be given several times, such as events:send; all if absent."),
    ] = None,
    expires_in: Annotated[
        int | None, typer.Option("--expires-in", help="Seconds; 0 for never. Default 90 days.")
    ] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Make a token and print it: it is shown only this once."""

    async def work(folder: Folder) -> None:
        owner = await folder.access.named(user)
        scopes = scope or [ALL_SCOPES]
        issued = await folder.access.issue(owner, client="wirechamber", scopes=scopes, expires_in=expires_in)
        if json:
            show_json({"token": issued.secret, "expires_at": iso_or_none(issued.token.expires_at)})
        else:
            typer.echo(issued.secret)

    in_folder(work, data=data)


def listed(user: User, data: Data = None, json: Json = False) -> None:
    """List a user's tokens by their first 6 characters."""

    async def work(folder: Folder) -> None:
        tokens = await folder.access.tokens_of((await folder.access.named(user)).id)
        if json:
            show_json(
                [
                    {
                        "hint": token.hint,
                        "client": token.client,
                        "scopes": list(token.scopes),
                        "created_at": iso(token.created_at),
                        "expires_at": iso_or_none(token.expires_at),
                    }
                    for token in tokens
                ]
            )
            return
        rows = [
            (token.hint + "…", token.client, " ".join(token.scopes), iso(token.created_at), _end(token.expires_at))
            for token in tokens
        ]
        show_table(("TOKEN", "CLIENT", "SCOPES", "CREATED", "EXPIRES"), rows, empty="there are no tokens")

    in_folder(work, data=data)


def revoke(
    user: Annotated[str | None, typer.Option("--user", help="With --all: whose tokens.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Revoke all tokens of --user.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Revoke the token given on standard input, or all of a user's."""
    if everything != (user is not None):
        fail("give both --user NAME and --all, or neither and the token on standard input", Exit.USAGE)
    secret = "" if everything else read_line().strip()

    async def work(folder: Folder) -> None:
        if user is not None:
            count = await folder.access.revoke_all((await folder.access.named(user)).id)
            done(f"{count} tokens were revoked", json, revoked=count)
        elif await folder.access.revoke(secret):
            done("the token was revoked", json, revoked=1)
        else:
            fail("there is no such token", Exit.NOT_FOUND)

    in_folder(work, data=data)


def _end(expires_at: int | None) -> str:
    return iso_or_none(expires_at) or "never"
