"""A compiled template.

Only keys of objects and indexes of lists are ever looked up: no Python attribute, no call. Rendering is bounded in
output and in steps, so that nested lists or partials that include themselves end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from wirechamber.integrations.templates.errors import OutputTooLarge
from wirechamber.integrations.templates.parser import Node, Partial, Section, Variable, indented, names, parse
from wirechamber.integrations.templates.values import escape, is_false, text_of

# Characters that a template may print.
MAX_OUTPUT = 1_000_000
# Nodes that rendering may visit: sections that print nothing must end too.
MAX_STEPS = 1_000_000
MAX_PARTIALS_DEEP = 32

Loader = Callable[[str], str | None]
_NOTHING: Mapping[str, Any] = {}


class _Missing:
    __slots__ = ()


_MISSING = _Missing()


class Template:
    """A template, parsed. Make one with `compile`.

    Attributes:
        constant: It holds no tags: it renders to itself.
        names: The first part of every name that it looks up (not those of partials).
    """

    __slots__ = ("_loader", "_nodes", "_partials", "_text", "constant", "names")

    def __init__(self, nodes: list[Node], loader: Loader | None) -> None:
        self._nodes = nodes
        self._loader = loader
        self._partials: dict[tuple[str, str], Template] = {}
        self.names = frozenset(names(nodes))
        self.constant = all(isinstance(node, str) for node in nodes)
        self._text = "".join(node for node in nodes if isinstance(node, str)) if self.constant else ""

    def render(self, *frames: Any, limit: int = MAX_OUTPUT) -> str:
        """The text that the template makes of data.

        Args:
            frames: JSON values in which names are looked up, the last first. With several, the last is consulted
                before all others at any depth of sections: predefined names win over the data's own.
            limit: The most characters to print.

        Raises:
            OutputTooLarge: The output would be longer, or the work to make it passes `MAX_STEPS`.
        """
        if self.constant:
            if len(self._text) > limit:
                raise OutputTooLarge(f"the template prints more than {limit} characters")
            return self._text
        over = frames[-1] if len(frames) > 1 and isinstance(frames[-1], Mapping) else _NOTHING
        stack = list(frames[:-1] if over is not _NOTHING else frames)
        rendering = _Rendering(over, stack, limit)
        rendering.walk(self, self._nodes)
        if rendering.size > limit:
            raise OutputTooLarge(f"the template prints more than {limit} characters")
        return "".join(rendering.out)

    def _partial(self, name: str, indent: str) -> Template | None:
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
        return found


class _Rendering:
    __slots__ = ("base", "deep", "limit", "out", "over", "size", "stack", "steps")

    def __init__(self, over: Mapping[str, Any], stack: list[Any], limit: int) -> None:
        self.over = over
        self.stack = stack
        self.base = len(stack)
        self.out: list[str] = []
        self.size = 0
        self.limit = limit
        self.steps = 0
        self.deep = 0

    def walk(self, template: Template, nodes: list[Node]) -> None:
        out, over = self.out, self.over
        size = 0
        for node in nodes:
            if isinstance(node, str):
                out.append(node)
                size += len(node)
            elif isinstance(node, Variable):
                path = node.path
                value = over.get(path[0], _MISSING) if len(path) == 1 else _MISSING
                if value is _MISSING:
                    value = self.look_up(path)
                text = value if isinstance(value, str) else text_of(value)
                if node.escape:
                    text = escape(text)
                out.append(text)
                size += len(text)
            else:
                self.account(size)
                size = 0
                if isinstance(node, Section):
                    self.section(template, node)
                else:
                    self.partial(template, node)
        self.steps += len(nodes)
        self.account(size)

    def account(self, size: int) -> None:
        self.size += size
        if self.size > self.limit:
            raise OutputTooLarge(f"the template prints more than {self.limit} characters")
        if self.steps > MAX_STEPS:
            raise OutputTooLarge(f"the template takes more than {MAX_STEPS} steps")

    def look_up(self, path: tuple[str, ...]) -> Any:
        first = path[0]
        if first == "." and len(path) == 1:
            # Outside of every section, `.` is the data itself.
            stack = self.stack
            return stack[-1] if len(stack) > self.base else stack[0] if stack else None
        value = self.over.get(first, _MISSING)
        if value is _MISSING:
            for frame in reversed(self.stack):
                value = _child(frame, first)
                if value is not _MISSING:
                    break
            else:
                return None
        for part in path[1:]:
            value = _child(value, part)
            if value is _MISSING:
                return None
        return value

    def section(self, template: Template, node: Section) -> None:
        value = self.look_up(node.path)
        if node.inverted:
            if is_false(value):
                self.walk(template, node.children)
            return
        if is_false(value):
            return
        stack, children = self.stack, node.children
        for item in value if isinstance(value, list) else (value,):
            self.steps += 1
            stack.append(item)
            self.walk(template, children)
            stack.pop()

    def partial(self, template: Template, node: Partial) -> None:
        if self.deep >= MAX_PARTIALS_DEEP:
            raise OutputTooLarge(f"partials include each other more than {MAX_PARTIALS_DEEP} deep")
        found = template._partial(node.name, node.indent)
        if found is not None:
            self.deep += 1
            self.walk(found, found._nodes)
            self.deep -= 1


def _child(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name, _MISSING)
    if isinstance(value, list) and name.isdecimal() and len(name) < 10 and int(name) < len(value):
        return value[int(name)]
    return _MISSING


def compile(source: str, *, partials: Loader | None = None) -> Template:
    """A template, parsed once to be rendered often.

    Args:
        partials: Gives the text of a partial by its name, or None; without it partials render empty.

    Raises:
        TemplateError: It is malformed; with line and column.
    """
    return Template(parse(source), partials)
