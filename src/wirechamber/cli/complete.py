"""Completion of names and ids at the shell: it asks the server, for a moment only, and is silent when that fails."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import ssl
import urllib.request
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from wirechamber.cli.completion import VARIABLE
from wirechamber.cli.remote import DEFAULT_URL, TOKEN
from wirechamber.datafolder.files import STATE
from wirechamber.kinds import registry

# Whoever presses the tabulator waits for it.
TIMEOUT_S = 1.0
MOST = 100
MAX_BYTES = 4 * 1024 * 1024
# What bash may take for something else than a letter.
_SPECIAL = re.compile(r"[^\w@%+=:,./-]")

Found = list[tuple[str, str]]


def kinds(incomplete: str) -> Found:
    """Kinds of integration."""
    return _fitting(((kind.kind, kind.summary) for kind in registry()), incomplete)


def integrations(incomplete: str) -> Found:
    """Ids and names of integrations on the server."""
    found: Found = []
    for each in _asked(f"v1/integrations?per_page={MOST}"):
        text = f"{each.get('event')} to {each.get('url') or each.get('name')}"
        found += [(str(each.get("id") or ""), text), (str(each.get("name") or ""), text)]
    return _fitting(found, incomplete)


def devices_of_server(incomplete: str) -> Found:
    """Ids and names of devices on the server."""
    found: Found = []
    for each in _asked(f"v1/devices?per_page={MOST}"):
        found += [(str(each.get("id") or ""), str(each.get("name") or "")), (str(each.get("name") or ""), "")]
    return _fitting(found, incomplete)


def devices(incomplete: str) -> Found:
    """Ids and names of devices in the data folder, or else on the server."""
    query = "select id, name from device where id like ?1 || '%' or name_key like ?1 || '%' limit ?2"
    rows = _looked_up(query, incomplete.casefold())
    if not rows:
        return devices_of_server(incomplete)
    found = [(str(device), str(name or "")) for device, name in rows]
    return _fitting([*found, *((name, device) for device, name in found)], incomplete)


def users(incomplete: str) -> Found:
    """Names of users in the data folder."""
    return _fitting(((str(row[0]), "") for row in _looked_up("select name from user limit ?2", "")), incomplete)


def _fitting(found: Iterable[tuple[str, str]], incomplete: str) -> Found:
    word = incomplete.casefold()
    fitting = [each for each in found if each[0].isprintable() and each[0].casefold().startswith(word)]
    return [(_as_typed(text), about) for text, about in fitting if text][:MOST]


def _as_typed(text: str) -> str:
    """The text as bash needs it, which puts it into the line as it is: with blanks it would be several words."""
    if os.environ.get(VARIABLE) != "complete_bash":
        return text
    words, at = os.environ.get("COMP_WORDS", "").split("\n"), os.environ.get("COMP_CWORD", "")
    begun = words[int(at)] if at.isdecimal() and int(at) < len(words) else ""
    return text if begun.startswith(("'", '"')) else _SPECIAL.sub(r"\\\g<0>", text)


def _asked(path: str) -> list[dict[str, Any]]:
    url, token = os.environ.get("WIRECHAMBER_URL") or DEFAULT_URL, os.environ.get(TOKEN, "").strip()
    if not token or not url.startswith(("http://", "https://")):
        return []
    try:
        trust = ssl.create_default_context(cafile=os.environ.get("WIRECHAMBER_CACERT") or None)
        request = urllib.request.Request(f"{url.rstrip('/')}/{path}", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=trust) as answer:  # noqa: S310
            value = json.loads(answer.read(MAX_BYTES))
    except Exception:
        # Whatever it is: at the tabulator nobody wants to read it.
        return []
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _looked_up(query: str, word: str) -> list[Any]:
    file = Path(os.environ.get("WIRECHAMBER_DATA") or "data") / STATE
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)) as db:
            return db.execute(query, (word, MOST)).fetchall()
    except Exception:
        return []
