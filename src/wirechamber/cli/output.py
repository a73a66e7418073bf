"""What commands print: tables for people, JSON for programs, one clear line for errors."""

from __future__ import annotations

import json
import re
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


# Control characters but the line break and the tabulator, lone surrogates, and what turns the direction of writing.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Without a terminal, a table is as wide as it needs to be: scripts read whole cells.
UNBOUND_WIDTH = 10_000
# A table of so many is readable on any terminal, folded.
FEW_COLUMNS = 4


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
    typer.echo(json_text(value, indent=2))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON to be read by people, too. Others may have written any character: those a terminal obeys are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def harmless(text: str) -> str:
    """A text that others wrote, with nothing in it that a terminal would obey."""
    return _OBEYED.sub(lambda found: ascii(found[0])[1:-1], text)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """Prints rows, or says that there are none."""
    if not rows:
        typer.echo(empty)
        return
    cells = [["-" if cell in (None, "") else harmless(str(cell)) for cell in row] for row in rows]
    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        # As plain text: brackets in a cell are no markup.
        table.add_row(*map(Text, row))
    if len(columns) > FEW_COLUMNS and table.__rich_measure__(out, out.options).minimum > out.width:
        _show_records(columns, cells)
        return
    out.print(table)


def _show_records(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The rows one below the other, on a terminal where not even their longest words have room beside each other."""
    width = max(map(len, columns))
    for place, row in enumerate(rows):
        if place:
            typer.echo("")
        for column, cell in zip(columns, row, strict=True):
            typer.echo(f"{column:{width}}  {cell}")


def fail(text: str, code: Exit = Exit.FAILED) -> NoReturn:
    """Ends the command with one line that says what to do."""
    typer.echo(f"wirechamber: {harmless(text)}", err=True)
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
