"""The API's description, made from the routes: an OpenAPI 3.1 document, and a page to read."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from wirechamber import __version__
from wirechamber.api.routing import ANYONE, PASSWORD, Route

_STATUS = re.compile(r"(\d{3})\b *")
_PARAMETER = re.compile(r"{(\w+)(?::[^}]*)?}")


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI document."""
    structs = list(dict.fromkeys(route.body for route in routes if route.body is not None))
    schemas, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    bodies = dict(zip(structs, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, bodies)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Wirechamber",
            "version": __version__,
            "description": "A device cloud that you run yourself.",
        },
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
            },
        },
    }


_ERROR = {
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {
        "ok": {"const": False},
        "error": {"type": "string"},
        "error_description": {"type": "string"},
    },
}


def _operation(route: Route, bodies: dict[Any, Any]) -> dict[str, Any]:
    status, text = _answer(route)
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "tags": [_area(route.path)],
        "summary": route.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(route.path)
        ]
        + [
            {"name": each.name, "in": each.where, "description": each.meaning, "schema": {"type": each.kind}}
            for each in route.parameters
        ],
        "responses": {
            status: {"description": text},
            "default": {
                "description": "An error",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
        "security": _security(route),
    }
    if route.body is not None:
        schema = {"schema": bodies[route.body]}
        operation["requestBody"] = {
            "content": {"application/json": schema, "application/x-www-form-urlencoded": schema}
        }
    return operation


def _answer(route: Route) -> tuple[str, str]:
    """The status of a success, or of the one answer there is, and what it holds."""
    found = _STATUS.match(route.answers)
    if found is None:
        return "200", route.answers
    return found[1], route.answers[found.end() :] or "nothing more"


def _operation_id(route: Route) -> str:
    return "_".join([route.method.lower(), *re.findall(r"\w+", _PARAMETER.sub(r"by \1", route.path))])


def _area(path: str) -> str:
    parts = [part for part in path.split("/") if part and part != "v1"]
    return "events" if "events" in parts else parts[0]


def _security(route: Route) -> list[dict[str, list[str]]]:
    if route.requires == ANYONE:
        return []
    if route.requires == PASSWORD:
        return [{"password": []}]
    return [{"token": [] if route.scope is None else [route.scope]}]


def page(routes: Sequence[Route]) -> str:
    """A page that lists every route; it needs nothing from elsewhere."""
    rows = []
    for route in routes:
        path = _PARAMETER.sub(r":\1", route.path)
        takes = ", ".join(route.body.__struct_encode_fields__) if route.body is not None else ""
        asks = ", ".join(each.name for each in route.parameters)
        more = _small("takes", takes) + _small("may ask", asks) + _small("answers", route.answers)
        rows.append(
            f"<tr><td><b class={route.method.lower()}>{route.method}</b></td><td><code>{html.escape(path)}</code></td>"
            f"<td>{html.escape(route.summary)}{more}</td><td>{html.escape(route.requires)}</td></tr>"
        )
    return _PAGE.replace("%ROWS%", "\n".join(rows)).replace("%VERSION%", __version__)


def _small(what: str, text: str) -> str:
    return f"<br><small>{what} <code>{html.escape(text)}</code></small>" if text else ""


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Wirechamber API</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #888; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem .5rem 0; }
tr { border-bottom: 1px solid var(--line); }
code { font-size: .9em; overflow-wrap: anywhere; } small { color: var(--soft); } td:last-child { white-space: nowrap; }
b { font-size: .8em; letter-spacing: .03em; } .get { color: #2a7; } .post { color: #27c; } .put { color: #b70; }
.delete { color: #c33; }
</style></head><body>
<h1>Wirechamber API <small>%VERSION%</small></h1>
<p>Log in with <code>POST /oauth/token</code>, send the token as <code>Authorization: Bearer …</code>. Every route that
takes a body takes JSON and forms alike. Errors are JSON with <code>error</code> and <code>error_description</code>.
The last column says who may call: anyone, any token, or a token with that scope. A program reads
<a href="/v1/openapi.json">openapi.json</a>.</p>
<table><thead><tr><th></th><th>Path</th><th></th><th>Needs</th></tr></thead><tbody>
%ROWS%
</tbody></table></body></html>
"""
