"""How attempts are shown: in a line of the log, and whole. What targets answered is shown as text, never obeyed."""

from __future__ import annotations

import json
import re

import typer

from wirechamber.cli.answers import Attempt, Request, Response
from wirechamber.cli.output import harmless

# What short names of errors mean (docs/webhooks.md has all).
MEANINGS = {
    "ENOTFOUND": "the host's name is not known",
    "ECONNREFUSED": "nobody listens on the target's port",
    "read ECONNRESET": "the target closed the connection",
    "ETIMEDOUT": "no connection within the time",
    "ESOCKETTIMEDOUT": "no answer within the time",
    "EHOSTUNREACH": "there is no way to the target",
    "ENETUNREACH": "there is no way to the target's network",
}
# So much of an answer's first line is shown in the log.
BEGIN = 120
# An attempt is told from others by the end of its id.
ENDING = 8
_TAGS = re.compile(r"<(?:(?:script|style)\b.*?</(?:script|style)\s*>|[^<>]{0,2000}>)", re.DOTALL | re.IGNORECASE)


def outcome(attempt: Attempt, most: int) -> str:
    """What came of an attempt, and what follows: `error status 400 from H: no such field; final`."""
    if attempt["ok"]:
        return f"ok, but {attempt['error']}" if attempt["error"] else "ok"
    said = first_line(attempt.get("response"), most)
    why = explained(attempt["error"] or "failed") + (f": {said}" if said else "")
    if attempt["final"]:
        return f"{why}; final"
    next_try = attempt["next_try_at"]
    return f"{why}; {'was tried again' if next_try is None else f'next try {next_try[:19]}Z'}"


def explained(error: str) -> str:
    """An error with what its short name means, where it has one."""
    meaning = MEANINGS.get(error)
    return error if meaning is None else f"{error}: {meaning}"


def first_line(response: Response | None, most: int) -> str:
    """The first line of an answer that says something, without the tags of a page."""
    body = "" if response is None else response.get("body") or ""
    if body.lstrip()[:1] == "<":
        body = _TAGS.sub("\n", body)
    line = next((line.strip() for line in body.splitlines() if line.strip(" \t\r{[")), "")
    if body.lstrip()[:1] in ("{", "["):
        # JSON over several lines says nothing in its first one.
        line = " ".join(body.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def show_attempt(attempt: Attempt) -> None:
    """Prints an attempt whole."""
    rows = {
        "attempt": f"{attempt['id']} (try {attempt['attempt']})",
        "event": f"{attempt['event']} ({attempt['event_id']}) from {attempt['coreid']}",
        "time": f"{attempt['time']}, {attempt['duration_ms']} ms",
        "result": outcome(attempt, BEGIN),
    }
    for name, value in rows.items():
        typer.echo(f"{name:8} {harmless(value)}")
    if attempt.get("together", 1) > 1:
        typer.echo(f"{'sent':8} together with other events, {attempt['together']} in one request")
    for step in attempt.get("earlier") or ():
        typer.echo("")
        show_exchange(step.get("request"), step.get("response"))
        if step.get("error"):
            typer.echo(f"error: {harmless(str(step['error']))}")
    typer.echo("")
    if attempt.get("request") is None:
        typer.echo("what was sent and answered is not kept any more, or nothing was sent")
    show_exchange(attempt.get("request"), attempt.get("response"))


def show_exchange(request: Request | None, response: Response | None) -> None:
    """Prints what was sent and what was answered."""
    if request:
        typer.echo(harmless(f"{request['method']} {request['url']}"))
        _show_headers(request["headers"])
        _show_body(request.get("body"), request.get("body_length", 0))
    if response:
        typer.echo(f"status {response['status']}")
        _show_headers(response["headers"] if request is None else [])
        _show_body(response.get("body"), response.get("body_length", 0))


def _show_headers(headers: list[tuple[str, str]]) -> None:
    for name, value in headers:
        typer.echo(harmless(f"  {name}: {value}"))


def _show_body(body: str | None, length: int) -> None:
    if not body:
        return
    text = _indented(body)
    for line in text.splitlines():
        typer.echo(f"  {harmless(line)}")
    kept = len(body.encode("utf-8", "replace"))
    if length > kept:
        typer.echo(f"  … {length - kept} more bytes, which are not kept")


def _indented(body: str) -> str:
    """JSON in a readable form; anything else as it is."""
    if body.lstrip()[:1] not in ("{", "[") or len(body) < SHORT:
        return body
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body


# JSON up to this length is read well in one line.
SHORT = 100
