"""`wirechamber integration create`: from a file, or from flags that each kind's declaration gives."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup

from wirechamber.cli.files import read_text
from wirechamber.cli.output import Exit, fail
from wirechamber.cli.remote import Server, speaks
from wirechamber.integrations.base import Integration
from wirechamber.integrations.declaration import Field
from wirechamber.integrations.registry import Registry
from wirechamber.suggest import did_you_mean

FILE = "FILE"
# Sends the configuration: settings, server, as JSON or not.
Send = Callable[[dict[str, Any], Server, bool], None]

HELP = """
Make an integration. It sees events from now on.

From a file, such as an export of the console: `create hook.json` (`-` for standard input). Or by its kind and flags:
`create GoogleMaps --api-key @key.txt`. What is required and not given is asked for on a terminal.
"""
# Flags that a field has beside the one that its name gives.
ALSO = {"deviceID": ("--device",)}
# The flags of every other command say where the server is, not where an integration's events go.
RENAMED = {"url": "--target"}
# Fields of names that may be given with their values, which belong into another field.
VALUED = {"secretHeaders": "headers"}
# What every command that speaks to a server has, and no field may be called.
TAKEN = frozenset(("--url", "--token-file", "--cacert", "--help"))
AS_JSON, AS_JSON_TOO = "--json", "--print-json"
# Forms whose value may be JSON, or a file that holds it.
_STRUCTURED = ("json", "texts", "names", "credentials")
_REPEATED = ("texts", "names")


def group(kinds: Registry, from_file: Callable[..., None], send: Send) -> typer.Typer:
    """The command with a sub-command for each kind."""
    names = {kind.kind.lower(): kind.kind for kind in kinds}

    class Create(TyperGroup):
        """Takes a kind, in any letter case, or else a file."""

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Puts the kind first, or the command that reads a file."""
            for place, argument in enumerate(args):
                kind = names.get(argument.lower())
                if kind is not None:
                    return super().parse_args(ctx, [kind, *args[:place], *args[place + 1 :]])
            if not args or args == ["--help"]:
                return super().parse_args(ctx, ["--help"])
            if args[0] == FILE:
                return super().parse_args(ctx, args)
            _check_file(args[0], names.values())
            return super().parse_args(ctx, [FILE, *args])

    made = typer.Typer(cls=Create, help=HELP)
    made.command(FILE)(from_file)
    for kind in kinds:
        made.command(kind.kind)(_command(kind, send))
    return made


def _check_file(named: str, kinds: Iterable[str]) -> None:
    """Ends the command when what should be a file looks like a kind that there is not."""
    if named.startswith("-") or set(named) & set("./\\") or Path(named).exists():
        return
    kinds = list(kinds)
    meant = did_you_mean(named, kinds)
    fail(f"{named} is no kind of integration{meant}, and no file; the kinds are {', '.join(kinds)}", Exit.USAGE)


def _command(kind: Integration[Any, Any], send: Send) -> Callable[..., None]:
    flags = _flags(kind)
    as_json = AS_JSON_TOO if any(AS_JSON in names for names in flags.values()) else AS_JSON

    def create(server: Server, print_json: bool, **given: Any) -> None:
        if kind.unavailable is not None:
            typer.echo(f"note: {kind.unavailable} (needed where the server runs)", err=True)
        settings: dict[str, Any] = {"integration_type": kind.kind}
        for each in kind.declaration.all:
            value = _value(each, flags[each.name][0], given[f"field_{each.attribute}"])
            if each.name in VALUED and isinstance(value, dict):
                _add(settings, VALUED[each.name], {name: text for name, text in value.items() if text is not None})
                value = list(value)
            if value is not None:
                settings[each.name] = value
        send(settings, server, print_json)

    lines = [kind.summary]
    if kind.unavailable is not None:
        lines.append(kind.unavailable)
    if any(each.secret or each.form == "credentials" for each in kind.declaration.all):
        lines.append("A secret can be given as @FILE, so that it does not stand in the list of processes.")
    create.__doc__ = "\n\n".join(lines)
    option = Annotated[bool, typer.Option(as_json, help="Print JSON.")]
    own = [_parameter("server", Server, inspect.Parameter.empty), _parameter("print_json", option, False)]
    fields = [_flag(each, flags[each.name]) for each in kind.declaration.all]
    create.__signature__ = inspect.Signature([*fields, *own])  # type: ignore[attr-defined]
    create.__annotations__ = {each.name: each.annotation for each in (*fields, *own)}
    return speaks(create)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flags(kind: Integration[Any, Any]) -> dict[str, tuple[str, ...]]:
    """The names of each field's option, by the field's name: none of them twice."""
    found: dict[str, tuple[str, ...]] = {}
    seen = set(TAKEN)
    for each in kind.declaration.all:
        flag = RENAMED.get(each.name, each.flag)
        if flag in seen:
            flag = f"--{kind.kind.lower()}{flag[1:]}"
        also = tuple(name for name in ALSO.get(each.name, ()) if name not in seen)
        found[each.name] = (flag, *also)
        seen.update(found[each.name])
    return found


def _flag(each: Field, names: tuple[str, ...]) -> inspect.Parameter:
    plain: Any = {"boolean": bool, "whole": int, "number": float}.get(each.form, str)
    notes = "[required]" if each.required else "" if each.default is None else f"[default: {_text(each.default)}]"
    if plain is bool:
        names = (f"{names[0]}/{_negated(each, names[0])}", *names[1:])
    option = typer.Option(
        *names, help=f"{each.help} {_how(each)}{notes}".strip(), show_default=False, metavar=_metavar(each)
    )
    kind = list[str] if each.form in _REPEATED else plain
    return _parameter(f"field_{each.attribute}", Annotated[kind | None, option], None)


def _negated(each: Field, flag: str) -> str:
    if each.name == "disabled":
        return "--enabled"
    return f"--{flag[5:]}" if flag.startswith("--no-") else f"--no-{flag[2:]}"


def _how(each: Field) -> str:
    """How the value of an option is written."""
    must = f"Must be {each.may_be}."
    match each.form:
        case "texts":
            return f"{must} Here 'NAME: VALUE', repeated for several; or JSON, or @FILE. "
        case "names":
            valued = f"; with `: VALUE`, {VALUED[each.name]} gets it, too" if each.name in VALUED else ""
            return f"{must} Here NAME, repeated for several{valued}. "
        case "credentials":
            return f"{must} Here USER:PASSWORD; or JSON, or @FILE. "
    return f"{must} "


def _metavar(each: Field) -> str | None:
    match each.form:
        case "texts":
            return "'NAME: VALUE'"
        case "names":
            return "NAME"
        case "credentials":
            return "USER:PASSWORD"
        case "choice":
            return "|".join(each.choices)
    return None


def _value(each: Field, flag: str, given: Any) -> Any:
    """What to send for a field: as given, read from a file, or asked for."""
    if given is None and each.required:
        if not sys.stdin.isatty():
            fail(f"{flag} is required: {each.help}", Exit.USAGE)
        given = typer.prompt(f"{each.name} ({each.help})", hide_input=each.secret)
    if each.form in _REPEATED:
        return _pairs(each, flag, given) if given else None
    if not isinstance(given, str):
        return given
    if given.startswith("@") and (each.secret or each.form in _STRUCTURED):
        given = read_text(given[1:]).strip()
    if each.form == "credentials" and not given.lstrip().startswith("{"):
        return _credentials(flag, given)
    return _structured(given) if each.form in _STRUCTURED else given


def _structured(text: str) -> Any:
    """The JSON that a text is, if it is an object or a list; otherwise the text."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            # It may be a template of JSON; the server decides.
            return text
    return text


def _credentials(flag: str, text: str) -> dict[str, str]:
    user, colon, password = text.partition(":")
    if not user:
        fail(f"{flag} must be USER:PASSWORD", Exit.USAGE)
    if not colon:
        if not sys.stdin.isatty():
            fail(f"{flag} must be USER:PASSWORD; there is no terminal to ask for the password on", Exit.USAGE)
        password = str(typer.prompt(f"password of {user}", hide_input=True))
    return {"username": user, "password": password}


def _pairs(each: Field, flag: str, given: list[str]) -> Any:
    """Names with their values, or names alone, of an option that may be repeated."""
    found: dict[str, Any] = {}
    for item in given:
        text = read_text(item[1:]).strip() if item.startswith("@") else item
        value = _structured(text)
        if isinstance(value, list) and each.form == "names":
            found |= dict.fromkeys(map(str, value))
        elif isinstance(value, dict):
            found |= value
        else:
            # A file may hold a line for each.
            for line in filter(None, map(str.strip, text.splitlines())):
                found |= _pair(each, flag, line)
    return found if each.form == "texts" or any(value is not None for value in found.values()) else list(found)


def _pair(each: Field, flag: str, line: str) -> dict[str, str | None]:
    name, mark, rest = _parted(line)
    if each.form == "names" and (not mark or each.name not in VALUED):
        return dict.fromkeys(part.strip() for part in line.split(","))
    if not name or not mark:
        fail(f"{flag} must be 'NAME: VALUE' or NAME=VALUE, or a JSON object", Exit.USAGE)
    return {name: rest}


def _add(settings: dict[str, Any], field: str, more: dict[str, Any]) -> None:
    there = settings.get(field, {})
    if not isinstance(there, dict):
        fail(f"{field} can't be given as a text together with single ones", Exit.USAGE)
    if more:
        settings[field] = there | more


def _parted(line: str) -> tuple[str, str, str]:
    """A name and its value, at the first colon or equals sign."""
    at = min((place for place in (line.find(":"), line.find("=")) if place >= 0), default=-1)
    if at < 0:
        return line, "", ""
    return line[:at].strip(), line[at], line[at + 1 :].strip()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
