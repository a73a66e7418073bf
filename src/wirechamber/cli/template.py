"""`wirechamber template`: try a template without a server."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from wirechamber.cli.files import STDIN, read_json, read_text
from wirechamber.cli.output import Exit, fail
from wirechamber.errors import CloudError
from wirechamber.integrations.templates import Template, TemplateError, compile


def app() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(help="Templates: render one with data, or check it.", no_args_is_help=True)
    group.command("render")(render)
    # A group of one command would otherwise swallow the command's name.
    group.callback()(lambda: None)
    return group


def render(
    template_file: Annotated[str, typer.Argument(help="The template; - for standard input.")],
    data: Annotated[str | None, typer.Option("--data", help="JSON file with the data; - for standard input.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the template is well formed.")] = False,
) -> None:
    """Print exactly what a template makes of data, nothing added."""
    if template_file == data == STDIN:
        fail("standard input can be read only once; give the template or the data as a file", Exit.USAGE)
    template = _compiled(template_file)
    if check:
        typer.echo("the template is well formed", err=True)
        return
    try:
        text = template.render(_data(data))
    except CloudError as problem:
        fail(problem.description)
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.buffer.flush()


def _compiled(file: str) -> Template:
    try:
        return compile(read_text(file))
    except TemplateError as problem:
        fail(f"{file}:{problem.line}:{problem.column}: {problem.message}")


def _data(file: str | None) -> Any:
    return {} if file is None else read_json(file)
