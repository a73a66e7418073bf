"""`wirechamber integration`: what happens with events."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from wirechamber.cli import create as creating
from wirechamber.cli.output import Exit, fail, show_json, show_table
from wirechamber.cli.remote import DEFAULT_URL, Remote, TokenFile, Url, with_server
from wirechamber.cli.user import Json
from wirechamber.errors import CloudError
from wirechamber.integrations.declaration import table
from wirechamber.jsontext import trouble
from wirechamber.kinds import registry

Id = Annotated[str, typer.Argument(help="The integration's id.")]
File = Annotated[str, typer.Argument(help="JSON file with the configuration, such as a console export; - for stdin.")]
BASE = "v1/integrations"
PAGE = 200
# Of a list; each is a line.
SHOWN_HINTS = 5


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


def create(file: File, url: Url = DEFAULT_URL, token_file: TokenFile = None, json: Json = False) -> None:
    """Make an integration from a file, such as an export of the console."""
    settings = _read(file)
    if "integration" not in settings:
        settings.setdefault("integration_type", "Webhook")
    _create(settings, url, token_file, json)


def _create(settings: dict[str, Any], url: str, token_file: Path | None, json: bool) -> None:
    made = _call("POST", BASE, settings, url, token_file)
    _say(made, json, f"integration {made['id']} was made: {made['event']} to {made.get('url', made['name'])}")


def kinds(
    markdown: Annotated[
        str | None, typer.Option("--markdown", metavar="KIND", help="Print the table of a kind's fields for the docs.")
    ] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """List the kinds of integration that the server offers."""
    if markdown is not None:
        try:
            typer.echo(table(registry().named(markdown).declaration))
        except CloudError as problem:
            fail(problem.description, Exit.USAGE)
        return
    found = _call("GET", f"{BASE}/kinds", None, url, token_file)["kinds"]
    if json:
        show_json(found)
        return
    rows = [(each["integration_type"], each["description"], _installed(each)) for each in found]
    show_table(("KIND", "WHAT IT DOES", "INSTALLED"), rows, empty="there are none")


def _installed(kind: dict[str, Any]) -> str:
    return "yes" if kind["installed"] else f"no: {kind['install']}"


def listed(url: Url = DEFAULT_URL, token_file: TokenFile = None, json: Json = False) -> None:
    """List your integrations with today's counts."""

    async def work(remote: Remote) -> list[Any]:
        found: list[Any] = []
        while True:
            after = f"&after={found[-1]['id']}" if found else ""
            page = await remote.call("GET", f"{BASE}?per_page={PAGE}{after}")
            found += page
            if len(page) < PAGE:
                return found

    found = with_server(work, url=url, token_file=token_file)
    if json:
        show_json(found)
        return
    rows = [
        (
            each["id"],
            each["integration_type"],
            each["event"],
            each.get("url", each["name"]),
            _state(each),
            each["todayCounters"]["success"],
            each["todayCounters"]["error"],
        )
        for each in found
    ]
    show_table(("ID", "TYPE", "EVENT", "TARGET", "STATE", "OK", "ERRORS"), rows, empty="there are no integrations yet")
    hints = [f"hint: {each['id']}: {each['hint']}" for each in found if "hint" in each]
    for line in hints[:SHOWN_HINTS]:
        typer.echo(line, err=True)
    if len(hints) > SHOWN_HINTS:
        typer.echo(f"hint: and {len(hints) - SHOWN_HINTS} others; `integration show ID` has each", err=True)


def show(integration_id: Id, url: Url = DEFAULT_URL, token_file: TokenFile = None, json: Json = False) -> None:
    """Show an integration, always as JSON, with its newest attempts."""
    show_json(_call("GET", _path(integration_id), None, url, token_file)["integration"])


def edit(
    integration_id: Id, file: File, url: Url = DEFAULT_URL, token_file: TokenFile = None, json: Json = False
) -> None:
    """Replace an integration's whole configuration by a file's.

    Prints the old one, from which `edit ID -` brings it back (masked secrets stay as they are); with --json the new.
    """
    settings = _read(file)
    old = _call("GET", _path(integration_id), None, url, token_file)["integration"]
    made = _call("PUT", _path(integration_id), settings, url, token_file)
    if not json:
        show_json(_configuration(old))
    _say(made, json, f"integration {integration_id} was replaced", err=True)


def enable(integration_id: Id, url: Url = DEFAULT_URL, token_file: TokenFile = None, json: Json = False) -> None:
    """Let an integration work again; it sees events from now on."""
    made = _call("PUT", _path(integration_id), {"disabled": False}, url, token_file)
    _say(made, json, f"integration {integration_id} is enabled")


def disable(integration_id: Id, url: Url = DEFAULT_URL, token_file: TokenFile = None, json: Json = False) -> None:
    """Stop an integration; what waits to be delivered is kept."""
    made = _call("PUT", _path(integration_id), {"disabled": True}, url, token_file)
    _say(made, json, f"integration {integration_id} is disabled")


def try_out(
    integration_id: Id,
    name: Annotated[str | None, typer.Option("--name", help="The sample event's name.")] = None,
    data: Annotated[str | None, typer.Option("--data", help="The sample event's data.")] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Send a sample event through an integration and show what came of it."""
    done = _call("POST", f"{_path(integration_id)}/test", {"name": name, "data": data}, url, token_file)
    if json:
        show_json(done)
    else:
        _show_exchange(done)
        typer.echo(f"{_verdict(done)}, {done['duration_ms']} ms")
        _warn(done)
    if not done["ok"]:
        raise typer.Exit(Exit.FAILED)


def log(
    integration_id: Id,
    errors: Annotated[bool, typer.Option("--errors", help="Only failed attempts.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="Only this device's, by id.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=100, help="How many, newest first.")] = 20,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Show the attempts of an integration, newest first."""
    query = f"per_page={count}" + ("&status=error" if errors else "") + (f"&device={quote(device)}" if device else "")
    answer = _call("GET", f"{_path(integration_id)}/logs?{query}", None, url, token_file)
    found = answer["logs"]
    if json:
        show_json(found)
        return
    rows = [
        (
            each["time"],
            each["event"],
            each["coreid"],
            each["attempt"],
            each["status"],
            each["error"],
            each["duration_ms"],
        )
        for each in found
    ]
    show_table(("TIME", "EVENT", "FROM", "TRY", "STATUS", "ERROR", "MS"), rows, empty="nothing was attempted yet")
    if "hint" in answer:
        typer.echo(f"hint: {answer['hint']}", err=True)


def delete(
    integration_id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """Delete an integration.

    Prints its configuration as JSON, from which `create -` makes it again (secrets are masked).
    """
    shown = _call("GET", _path(integration_id), None, url, token_file)["integration"]
    waiting = shown.get("waiting", 0)
    if not yes and not typer.confirm(f"delete the integration for {shown['event']} with {waiting} waiting deliveries?"):
        fail("nothing was deleted")
    _call("DELETE", _path(integration_id), None, url, token_file)
    show_json(_configuration(shown))


def _configuration(shown: dict[str, Any]) -> dict[str, Any]:
    """What `create` and `edit` take."""
    return {key: value for key, value in shown.items() if key not in _READ_ONLY and value is not None}


_READ_ONLY = frozenset(
    (
        "id",
        "created_at",
        "updated_at",
        "hookUrl",
        "todayCounters",
        "logs",
        "errors",
        "counters",
        "waiting",
        "paused",
        "hint",
    )
)


def _call(method: str, path: str, body: Any, url: str, token_file: Path | None) -> Any:
    async def work(remote: Remote) -> Any:
        return await remote.call(method, path, body)

    return with_server(work, url=url, token_file=token_file)


def _path(integration_id: str) -> str:
    return f"{BASE}/{quote(integration_id, safe='')}"


def _read(file: str) -> dict[str, Any]:
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        value = msgspec.json.decode(raw)
    except OSError as problem:
        fail(f"{file} can't be read: {problem.strerror}", Exit.USAGE)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as problem:
        fail(f"{file} is no JSON: {trouble(raw, problem)}", Exit.USAGE)
    if not isinstance(value, dict):
        fail(f"{file} must hold a JSON object", Exit.USAGE)
    return value


def _say(made: dict[str, Any], as_json: bool, text: str, *, err: bool = False) -> None:
    if as_json:
        show_json(made)
        return
    typer.echo(text, err=err)
    _warn(made)


def _warn(made: dict[str, Any]) -> None:
    for warning in made.get("warnings", ()):
        typer.echo(f"warning: {warning}", err=True)


def _verdict(done: dict[str, Any]) -> str:
    if not done["ok"]:
        return f"failed: {done['error']}"
    return f"ok, but {done['error']}" if done.get("error") else "ok"


def _state(shown: dict[str, Any]) -> str:
    return "disabled" if shown["disabled"] else "paused" if shown.get("paused") else "on"


def _show_exchange(done: dict[str, Any]) -> None:
    request, response = done.get("request"), done.get("response")
    if request:
        typer.echo(f"{request['method']} {request['url']}")
        for name, value in request["headers"]:
            typer.echo(f"  {name}: {value}")
        if request.get("body"):
            typer.echo(f"  {request['body']}")
    if response:
        typer.echo(f"status {response['status']}")
        if response.get("body"):
            typer.echo(f"  {response['body']}")
