"""A template: parsed and compiled once, rendered often.

Only keys of objects and indexes of lists are ever looked up: no Python attribute, no call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wirechamber.integrations.templates.errors import OutputTooLarge
from wirechamber.integrations.templates.operations import (
    BEGIN,
    MAX_OUTPUT,
    MAX_STEPS,
    Body,
    Operation,
    Outer,
    Rendering,
    Room,
    compiled,
)
from wirechamber.integrations.templates.parser import Allowance, Node, indented, names, parse

# Data of at most so many keys is merged with the names that go before it: one look-up finds both.
MAX_MERGED = 64

Loader = Callable[[str], str | None]


class Template:
    """A template, parsed. Make one with `compile`.

    Attributes:
        constant: It holds no tags: it renders to itself.
        names: The first part of every name that it looks up (not those of partials).
    """

    __slots__ = ("_body", "_loader", "_nodes", "_partials", "_perform", "_steps", "_text", "constant", "names")

    def __init__(self, nodes: list[Node], loader: Loader | None) -> None:
        self._nodes = nodes
        self._loader = loader
        self._body: Body | None = None
        # Of the body, at hand, and the most steps that are left once it is paid.
        self._perform: Operation | None = None
        self._steps = 0
        self._partials: dict[tuple[str, str], Template] = {}
        self.names = frozenset(names(nodes))
        self.constant = all(isinstance(node, str) for node in nodes)
        self._text = "".join(node for node in nodes if isinstance(node, str)) if self.constant else ""

    def render(self, *frames: Any, room: Room | None = None) -> str:
        """The text that the template makes of data.

        Args:
            frames: JSON values in which names are looked up, the last first. With several, the last is consulted
                before all others at any depth of sections: predefined names win over the data's own.
            room: What may be printed and done; what this takes is taken from it. None for the most.

        Raises:
            OutputTooLarge: There is not that much room.
        """
        if self.constant:
            if len(self._text) > (MAX_OUTPUT if room is None else room.left):
                raise OutputTooLarge("more characters are printed than is allowed")
            if room is not None:
                room.left -= len(self._text)
            return self._text
        over: dict[str, Any] | None = None
        if len(frames) > 1 and isinstance(frames[-1], Mapping):
            over = dict(frames[-1]) or None
            frames = frames[:-1]
        data = top = frames[0] if frames else None
        outer: Outer = None
        for frame in frames[1:]:
            outer = (top, outer)
            top = frame
        if over is not None:
            # One look-up finds both. Where merging would cost more, they are two frames.
            if isinstance(top, dict) and len(top) <= MAX_MERGED:
                top = {**top, **over}
            else:
                top, outer = over, (top, outer)
        perform = self._perform or self.body().perform
        if room is None:
            rendering = Rendering(over, data, top, [], MAX_OUTPUT, self._steps)
        else:
            rendering = Rendering(over, data, top, [], room.left, room.steps - (MAX_STEPS - self._steps))
        if rendering.steps < 0:
            raise rendering.too_large()
        perform(rendering, top, outer)
        if room is not None:
            room.left, room.steps = rendering.left, rendering.steps
        out = rendering.out
        return out[0] if len(out) == 1 else "".join(out)

    def body(self) -> Body:
        """What renders it; made when it is first needed."""
        if self._body is None:
            self._body = compiled(self._nodes, self._partial)
            self._perform = self._body.perform
            self._steps = MAX_STEPS - BEGIN - self._body.cost
        return self._body

    def _partial(self, name: str, indent: str) -> Body | None:
        if self._loader is None:
            return None
        found = self._partials.get((name, indent))
        if found is None:
            source = self._loader(name)
            if source is None:
                return None
            found = Template(parse(indented(source, indent)), self._loader)
            # One cache for all, so that a partial which includes itself is parsed once for each indent.
            found._partials = self._partials
            self._partials[name, indent] = found
        return found.body()


def compile(source: str, *, partials: Loader | None = None, allowance: Allowance | None = None) -> Template:
    """A template, parsed once to be rendered often.

    Args:
        partials: Gives the text of a partial by its name, or None; without it partials render empty.
        allowance: What it may hold, together with others; None for the most.

    Raises:
        TemplateError: It is malformed, or holds too much; with line and column.
    """
    return Template(parse(source, allowance), partials)


def plain(text: str) -> Template:
    """A template that prints a text as it is, whatever stands in it."""
    return Template([text], None)
