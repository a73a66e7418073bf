"""The program: every command in its place."""

from __future__ import annotations

import sys
from typing import Annotated

import structlog
import typer

from wirechamber import __version__
from wirechamber.cli import (
    backup,
    client,
    config,
    demo,
    device,
    integration,
    publish,
    serve,
    server,
    status,
    subscribe,
    template,
    token,
    usage,
    user,
)

HELP = """
A device cloud that you run yourself.

Start with `wirechamber demo`, or with `wirechamber user create NAME` and `wirechamber serve`.

`user`, `token`, `client`, `device`, `server`, `usage` and `backup` open the data folder (WIRECHAMBER_DATA, ./data by
default), also beside a running server.
`publish`, `subscribe`, `integration` and `status` speak to a server (WIRECHAMBER_URL) with a token (WIRECHAMBER_TOKEN).

Exit codes: 0 done, 1 failed, 2 wrong use, 3 not found, 4 not allowed or not logged in, 5 the server is not there.
"""

SERVER, FOLDER, CLIENT, TOOLS = "Run a cloud", "Its data folder", "Talk to a cloud", "Tools"


def program() -> typer.Typer:
    """The command line, built."""
    app = typer.Typer(
        name="wirechamber", help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback()(_options)
    app.command("serve", rich_help_panel=SERVER)(serve.command())
    app.command("demo", rich_help_panel=SERVER)(demo.command)
    app.command("config", rich_help_panel=SERVER)(config.command())
    app.add_typer(user.app(), name="user", rich_help_panel=FOLDER)
    app.add_typer(token.app(), name="token", rich_help_panel=FOLDER)
    app.add_typer(client.app(), name="client", rich_help_panel=FOLDER)
    app.add_typer(device.app(), name="device", rich_help_panel=FOLDER)
    app.add_typer(server.app(), name="server", rich_help_panel=FOLDER)
    app.command("backup", rich_help_panel=FOLDER)(backup.backup)
    app.command("restore", rich_help_panel=FOLDER)(backup.restore)
    app.command("usage", rich_help_panel=FOLDER)(usage.command)
    app.command("publish", rich_help_panel=CLIENT)(publish.command)
    app.command("subscribe", rich_help_panel=CLIENT)(subscribe.command)
    app.add_typer(integration.app(), name="integration", rich_help_panel=CLIENT)
    app.command("status", rich_help_panel=CLIENT)(status.command)
    app.add_typer(template.app(), name="template", rich_help_panel=TOOLS)
    return app


def main() -> None:
    """Runs the command that the arguments name."""
    # Output is for whoever reads it: what is logged goes beside it. A server sets its log up for itself.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        program()()
    except BrokenPipeError:
        # The reader of our output went away (`… | head`): that is no error.
        sys.stderr.close()
        sys.exit(0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
