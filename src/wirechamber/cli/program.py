"""The program: every command in its place."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import structlog
import typer

from wirechamber import __version__
from wirechamber.cli import (
    backup,
    client,
    completion,
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
from wirechamber.cli.output import Exit, harmless
from wirechamber.settings import unknown_in

# Set, it shows where an error that no command foresaw comes from.
TRACEBACK = "WIRECHAMBER_TRACEBACK"
HELP = """
A device cloud that you run yourself.

Start with `wirechamber demo`, or with `wirechamber user create NAME` and `wirechamber serve`.

`user`, `token`, `client`, `device`, `server`, `usage`, `backup` and `restore` open the data folder (WIRECHAMBER_DATA,
./data by default), also beside a running server.
`publish`, `subscribe`, `integration` and `status` speak to a server (WIRECHAMBER_URL) with a token (WIRECHAMBER_TOKEN).

Exit codes: 0 done, 1 failed, 2 wrong use, 3 not found, 4 not allowed or not logged in, 5 the server is not there.
"""

SERVER, FOLDER, CLIENT, TOOLS = "Run a cloud", "Its data folder", "Talk to a cloud", "Tools"


def program() -> typer.Typer:
    """The command line, built."""
    app = typer.Typer(
        name=completion.NAME, cls=completion.Completed, help=HELP, no_args_is_help=True, rich_markup_mode=None,
        pretty_exceptions_enable=False, add_completion=False,
    )  # fmt: skip
    completion.prepare()
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not every terminal can show every character; that ends no command.
            stream.reconfigure(errors="backslashreplace")
    try:
        program()()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            _abandoned()
        _flush(end)
    except Exception as problem:
        _end_by(problem)


def _flush(end: SystemExit) -> None:
    """Writes what is left of the output, and goes on to end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _abandoned()
    except (OSError, ValueError) as problem:
        _end_by(problem)
    raise end


def _abandoned() -> None:
    """Ends: the reader of our output went away (`… | head`), which is no error."""
    _silence()
    sys.exit(0)


def _end_by(problem: Exception) -> None:
    """Ends by something that no command foresaw, in one line, since nobody but us can make anything of more."""
    if os.environ.get(TRACEBACK):
        raise problem
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EIO, errno.EBADF):
        text = f"what is to be printed can't be written: {problem.strerror}"
    else:
        place = traceback.extract_tb(problem.__traceback__)[-1]
        what = harmless(f"{type(problem).__name__}: {problem}".splitlines()[0])[:300]
        text = (
            f"this should not happen, and is a fault of ours: {what} ({Path(place.filename).name}, line "
            f"{place.lineno}); {TRACEBACK}=1 shows more"
        )
    with contextlib.suppress(OSError, ValueError):
        typer.echo(f"wirechamber: {text}", err=True)
    _silence()
    sys.exit(Exit.FAILED)


def _silence() -> None:
    """What could not be written is not tried again at the end of the process."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    install_completion: completion.Install = None,
    show_completion: completion.Show = None,
) -> None:
    for warning in unknown_in(os.environ):
        typer.echo(f"wirechamber: {harmless(warning)}", err=True)
