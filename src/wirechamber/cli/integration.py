"""`wirechamber integration`: what happens with events."""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, TypeVar, cast

import typer

from wirechamber.cli import complete
from wirechamber.cli import create as creating
from wirechamber.cli.answers import Attempt, Integration, Kind, Kinds, Log, Made, OneLog, Shown, Tested
from wirechamber.cli.attempts import BEGIN, ENDING, explained, outcome, show_attempt, show_exchange
from wirechamber.cli.files import read_json, shown
from wirechamber.cli.output import Exit, fail, harmless, show_json, show_table
from wirechamber.cli.remote import Remote, Server, quoted, speaks, with_server
from wirechamber.cli.user import Json
from wirechamber.errors import CloudError
from wirechamber.integrations.declaration import table
from wirechamber.integrations.fields import READ_ONLY
from wirechamber.kinds import registry

Value = TypeVar("Value")
Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="The integration's id or name.", autocompletion=complete.integrations),
]
File = Annotated[str, typer.Argument(help="JSON file with the configuration, such as a console export; - for stdin.")]
BASE = "v1/integrations"
PAGE = 200
# Of a list; each is a line.
SHOWN_HINTS = 5
# The most attempts in one answer.
MAX_LOGS = 100
# A test waits for its target, for as long as the server's `request_timeout` says.
TEST_TIMEOUT_S = 120.0
COLUMNS = ("ID", "NAME", "TYPE", "EVENT", "TARGET", "STATE", "OK", "ERRORS", "WAITING", "NEXT TRY", "LAST ERROR")
# So many waiting deliveries are counted in a list.
MOST_COUNTED = 1_000


def app() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(help="Integrations: create, list, show, edit, test, log, delete.", no_args_is_help=True)
    group.add_typer(creating.group(registry(), create, _create), name="create")
    group.command("kinds")(kinds)
    group.command("list")(listed)
    group.command("show")(show)
    group.command("edit")(edit)
    group.command("enable")(enable)
    group.command("disable")(disable)
    group.command("test")(try_out)
    group.command("log")(log)
    group.command("delete")(delete)
    return group


@speaks
def create(server: Server, file: File, json: Json = False) -> None:
    """Make an integration from a file, such as an export of the console."""
    settings = _read(file)
    if "integration" not in settings:
        settings.setdefault("integration_type", "Webhook")
    _create(settings, server, json)


def _create(settings: dict[str, Any], server: Server, json: bool) -> None:
    made = _call("POST", BASE, settings, server, Made)
    _say(made, json, f"integration {made['id']} was made: {made['event']} to {made.get('url', made['name'])}")


@speaks
def kinds(
    server: Server,
    markdown: Annotated[
        str | None,
        typer.Option(
            "--markdown", metavar="KIND", help="Print the table of a kind's fields for the docs.",
            autocompletion=complete.kinds,
        ),
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """List the kinds of integration that the server offers."""
    if markdown is not None:
        try:
            typer.echo(table(registry().named(markdown).declaration))
        except CloudError as problem:
            fail(problem.description, Exit.USAGE)
        return
    found = _call("GET", f"{BASE}/kinds", None, server, Kinds)["kinds"]
    if json:
        show_json(found)
        return
    rows = [(each["integration_type"], each["description"], _installed(each)) for each in found]
    show_table(("KIND", "WHAT IT DOES", "INSTALLED"), rows, empty="there are none")


def _installed(kind: Kind) -> str:
    return "yes" if kind["installed"] else f"no: {kind['install']}"


@speaks
def listed(server: Server, json: Json = False) -> None:
    """List your integrations: today's counts, what waits, when it is tried again, and why it failed."""

    async def work(remote: Remote) -> list[Integration]:
        found: list[Integration] = []
        while True:
            after = f"&after={quoted(found[-1]['id'])}" if found else ""
            page = await remote.call("GET", f"{BASE}?per_page={PAGE}{after}", expect=list[Integration])
            found += page
            if len(page) < PAGE:
                return found

    found = with_server(work, server)
    if json:
        show_json(found)
        return
    show_table(COLUMNS, [_row(each) for each in found], empty="there are no integrations yet")
    hints = [f"hint: {each['id']}: {each['hint']}" for each in found if "hint" in each]
    for line in hints[:SHOWN_HINTS]:
        typer.echo(harmless(line), err=True)
    if len(hints) > SHOWN_HINTS:
        typer.echo(f"hint: and {len(hints) - SHOWN_HINTS} others; `integration show ID` has each", err=True)


def _row(each: Integration) -> tuple[Any, ...]:
    counts, waiting = each["todayCounters"], each["waiting"]
    next_try = each["next_try_at"]
    return (
        each["id"],
        each["name"],
        each["integration_type"],
        each["event"],
        each.get("url", each["name"]),
        _state(each),
        counts["success"],
        counts["error"],
        f"{waiting} or more" if waiting >= MOST_COUNTED else waiting,
        None if next_try is None else f"{next_try[:19]}Z",
        each["paused"] or (each["last_error"] and explained(each["last_error"])),
    )


def _state(each: Integration) -> str:
    if each["disabled"]:
        return "disabled"
    return "paused" if each["paused"] else "failing" if each["failing"] else "on"


@speaks
def show(server: Server, integration_id: Id, json: Json = False) -> None:
    """Show an integration, always as JSON: its settings, how it stands, and its newest attempts."""
    show_json(_shown(integration_id, server))


@speaks
def edit(server: Server, integration_id: Id, file: File, json: Json = False) -> None:
    """Replace an integration's whole configuration by a file's.

    Prints the old one, from which `edit ID -` brings it back (masked secrets stay as they are); with --json the new.
    """
    settings = _read(file)
    old = _shown(integration_id, server)
    made = _call("PUT", _path(str(old["id"])), settings, server, Made)
    if not json:
        show_json(_configuration(old))
    _say(made, json, f"integration {made['id']} was replaced", err=True)


@speaks
def enable(server: Server, integration_id: Id, json: Json = False) -> None:
    """Let an integration work again; it sees events from now on."""
    made = _call("PUT", _path(integration_id), {"disabled": False}, server, Made)
    _say(made, json, f"integration {made['id']} is enabled")


@speaks
def disable(server: Server, integration_id: Id, json: Json = False) -> None:
    """Stop an integration; what waits to be delivered is kept."""
    made = _call("PUT", _path(integration_id), {"disabled": True}, server, Made)
    _say(made, json, f"integration {made['id']} is disabled")


@speaks
def try_out(
    server: Server,
    integration_id: Id,
    name: Annotated[str | None, typer.Option("--name", help="The sample event's name.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="The sample event's data.")] = None,
    json: Json = False,
) -> None:
    """Send a sample event through an integration and show what came of it."""
    sample = {"name": name, "data": data}
    done = _call("POST", f"{_path(integration_id)}/test", sample, server, Tested, TEST_TIMEOUT_S)
    if json:
        show_json(done)
    else:
        show_exchange(done["request"], done["response"])
        typer.echo(harmless(f"{_verdict(done)}, {done['duration_ms']} ms"))
        _warn(done.get("warnings", []))
    if not done["ok"]:
        raise typer.Exit(Exit.FAILED)


@speaks
def log(
    server: Server,
    integration_id: Id,
    attempt: Annotated[
        str | None,
        typer.Argument(help="Show this attempt whole: its id, or the end of it that is listed.", show_default=False),
    ] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only failed attempts.")] = False,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Only this device's, by id or name.", autocompletion=complete.devices_of_server),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=MAX_LOGS, help="How many, newest first.")] = 20,
    json: Json = False,
) -> None:
    """Show the attempts of an integration, newest first; or one of them, with what was sent and answered."""
    path = f"{_path(integration_id)}/logs"
    if attempt is not None:
        found = _attempt(path, attempt.lower(), server)
        if json:
            show_json(found)
        else:
            show_attempt(found)
        return
    query = f"per_page={count}" + ("&status=error" if errors else "") + (f"&device={quoted(device)}" if device else "")
    answer = _call("GET", f"{path}?{query}", None, server, Log)
    logs = answer["logs"]
    if json:
        show_json(logs)
        return
    rows = [
        (
            each["id"][-ENDING:],
            each["time"],
            each["event"],
            each["coreid"],
            each["attempt"],
            each["status"],
            each["duration_ms"],
            outcome(each, BEGIN),
        )
        for each in logs
    ]
    columns = ("ATTEMPT", "TIME", "EVENT", "FROM", "TRY", "STATUS", "MS", "RESULT")
    show_table(columns, rows, empty="nothing was attempted yet")
    if "hint" in answer:
        typer.echo(harmless(f"hint: {answer['hint']}"), err=True)


def _attempt(path: str, wanted: str, server: Server) -> Attempt:
    """The attempt of an id, or of the end of one."""

    async def work(remote: Remote) -> Attempt:
        if len(wanted) > ENDING:
            return (await remote.call("GET", f"{path}/{quoted(wanted)}", expect=OneLog))["log"]
        newest = (await remote.call("GET", f"{path}?per_page={MAX_LOGS}", expect=Log))["logs"]
        found = [each for each in newest if each["id"].endswith(wanted)]
        if len(found) != 1:
            what = "several attempts end" if found else f"none of the newest {len(newest)} attempts ends"
            fail(f"{what} with {wanted}; give the whole id, as `log ID --json` shows it", Exit.NOT_FOUND)
        return found[0]

    return with_server(work, server)


@speaks
def delete(
    server: Server,
    integration_id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete an integration.

    Prints its configuration as JSON, from which `create -` makes it again (secrets are masked).
    """
    found = _shown(integration_id, server)
    waiting = found.get("waiting", 0)
    question = f"delete the integration for {harmless(str(found.get('event')))} with {waiting} waiting deliveries?"
    if not yes and not typer.confirm(question):
        fail("nothing was deleted")
    _call("DELETE", _path(str(found["id"])), None, server, NoneType)
    show_json(_configuration(found))


def _shown(integration: str, server: Server) -> dict[str, Any]:
    found = _call("GET", _path(integration), None, server, Shown)["integration"]
    if not isinstance(found.get("id"), str):
        server.foreign("its answer names no integration")
    return found


def _configuration(found: dict[str, Any]) -> dict[str, Any]:
    """What `create` and `edit` take."""
    return {key: value for key, value in found.items() if key not in READ_ONLY and value is not None}


def _call(
    method: str, path: str, body: Any, server: Server, expect: type[Value], patience_s: float | None = None
) -> Value:
    async def work(remote: Remote) -> Value:
        return await remote.call(method, path, body, expect=expect, patience_s=patience_s)

    return with_server(work, server)


def _path(integration: str) -> str:
    return f"{BASE}/{quoted(integration)}"


def _read(file: str) -> dict[str, Any]:
    value = read_json(file)
    if not isinstance(value, dict):
        fail(f"{shown(file)} must hold a JSON object", Exit.USAGE)
    return cast(dict[str, Any], value)


def _say(made: Made, as_json: bool, text: str, *, err: bool = False) -> None:
    if as_json:
        show_json(made)
        return
    typer.echo(harmless(text), err=err)
    _warn(made["warnings"])


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        typer.echo(f"warning: {harmless(warning)}", err=True)


def _verdict(done: Tested) -> str:
    if not done["ok"]:
        return f"failed: {explained(done['error'] or 'no reason was given')}"
    return f"ok, but {done['error']}" if done["error"] else "ok"
