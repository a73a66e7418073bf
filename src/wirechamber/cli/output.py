"""What commands print: tables for people, JSON for programs, one clear line for errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wirechamber.errors import CloudError, Conflict, Forbidden, InvalidToken, NotFound, Unavailable


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNREACHABLE = 5


# Without a terminal, a table is as wide as it needs to be: scripts read whole cells.
UNBOUND_WIDTH = 10_000


def console() -> Console:
    """Where results go."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else UNBOUND_WIDTH)


def done(text: str, as_json: bool, **told: Any) -> None:
    """Says that something was done, in words or as a JSON object."""
    if as_json:
        show_json({"ok": True, **told})
    else:
        typer.echo(text)


def show_json(value: Any) -> None:
    """Prints JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """Prints rows, or says that there are none."""
    if not rows:
        typer.echo(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # As plain text: brackets in a cell are no markup.
        table.add_row(*(Text("-" if cell in (None, "") else str(cell)) for cell in row))
    console().print(table)


def fail(text: str, code: Exit = Exit.FAILED) -> NoReturn:
    """Ends the command with one line that says what to do."""
    typer.echo(f"wirechamber: {text}", err=True)
    raise typer.Exit(code)


def exit_code(problem: CloudError) -> Exit:
    """The exit code of an error."""
    if isinstance(problem, NotFound):
        return Exit.NOT_FOUND
    if isinstance(problem, InvalidToken | Forbidden):
        return Exit.NOT_ALLOWED
    if isinstance(problem, Unavailable):
        return Exit.UNREACHABLE
    return Exit.FAILED if isinstance(problem, Conflict) or problem.status != 400 else Exit.USAGE
