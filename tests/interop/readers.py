"""Clients of event streams at work in other processes, and what they told."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Node = Callable[..., "subprocess.Popen[str]"]
Said = list[dict[str, Any]]


class Reader:
    """A client at work.

    Attributes:
        said: What it told: that its stream is open, or an event.
    """

    def __init__(self, name: str, said: Said) -> None:
        self.name = name
        self.said = said

    @property
    def opens(self) -> int:
        return sum(1 for each in self.said if "open" in each)

    @property
    def events(self) -> list[tuple[str, Any]]:
        return [(each["name"], each["data"]) for each in self.said if "name" in each]


@contextmanager
def in_node(node: Node, name: str, *arguments: str) -> Iterator[Said]:
    process = node("stream_clients.mjs", name, *arguments)
    said: Said = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(ValueError):
                said.append(json.loads(line))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    # Its pipes are closed on leaving, and it is waited for.
    with process:
        try:
            yield said
        finally:
            process.kill()
            reader.join(10)
