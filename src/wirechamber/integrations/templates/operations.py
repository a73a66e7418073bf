"""A template's nodes as nested functions.

Most of a template is runs of text and plain names, and most data has those names: a run takes its values by one
`itemgetter` and prints them by one format. Whatever is not as plain takes the longer way and gives the same.

Rendering is bounded in output and in steps, so that nested lists or partials that include themselves end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from msgspec import Struct

from wirechamber.integrations.templates.errors import OutputTooLarge
from wirechamber.integrations.templates.parser import Node, Partial, Section, Variable
from wirechamber.integrations.templates.values import escape, is_false, text_of

# Characters that may be printed.
MAX_OUTPUT = 1_000_000
# Operations that rendering may perform: sections that print nothing must end too, and soon, since the loop waits. An
# answer of 100 KB that is one list of numbers takes about 150,000.
MAX_STEPS = 200_000
# Sections and partials within each other: each is a level or two of Python's own stack.
MAX_LEVELS = 200

# The frames around the innermost one: `(frame, the ones around it)`, None at the end.
Outer = tuple[Any, Any] | None
Operation = Callable[["Rendering", Any, Outer], None]
Partials = Callable[[str, str], Operation | None]
Path = tuple[str, ...]


class _Missing:
    __slots__ = ()


_MISSING = _Missing()


class Room(Struct, gc=False):
    """What several templates may print and do together, such as those of one request.

    Attributes:
        left: Characters that may still be printed.
        steps: Operations that may still be performed.
    """

    left: int = MAX_OUTPUT
    steps: int = MAX_STEPS


class Rendering(Struct, gc=False):
    """One rendering under way.

    Attributes:
        over: Names that go before all others, at any depth.
        data: What `.` is outside of every section.
        top: The innermost frame outside of every section.
        out: What has been printed.
        left: Characters that may still be printed.
        steps: Operations that may still be performed.
        levels: Sections and partials that may still be entered.
    """

    over: dict[str, Any] | None
    data: Any
    top: Any
    out: list[str]
    left: int = MAX_OUTPUT
    steps: int = MAX_STEPS
    levels: int = MAX_LEVELS

    def too_large(self) -> OutputTooLarge:
        """Which bound was passed."""
        if self.left < 0:
            return OutputTooLarge("more characters are printed than is allowed")
        return OutputTooLarge(f"it takes more than {MAX_STEPS} steps")

    def enter(self, steps: int) -> None:
        """A section or partial begins."""
        self.levels -= 1
        if self.levels < 0:
            raise OutputTooLarge(f"sections and partials are more than {MAX_LEVELS} deep")
        self.steps -= steps
        if self.steps < 0:
            raise self.too_large()


def compiled(nodes: Sequence[Node], partials: Partials) -> Operation:
    """What renders the nodes.

    Args:
        partials: Gives what renders a partial, by its name and indent.
    """
    operations: list[Operation] = []
    run: list[str | Variable] = []
    for node in nodes:
        if isinstance(node, str | Variable):
            run.append(node)
            continue
        if run:
            operations.append(_run(run))
            run = []
        operations.append(_section(node, partials) if isinstance(node, Section) else _partial(node, partials))
    if run or not operations:
        operations.append(_run(run))
    return operations[0] if len(operations) == 1 else _sequence(operations)


def _sequence(operations: Sequence[Operation]) -> Operation:
    def perform(rendering: Rendering, inner: Any, outer: Outer) -> None:
        for operation in operations:
            operation(rendering, inner, outer)

    return perform


def _run(parts: Sequence[str | Variable]) -> Operation:
    variables = [part for part in parts if isinstance(part, Variable)]
    form = "".join("%s" if isinstance(part, Variable) else part.replace("%", "%%") for part in parts)
    if not variables:
        return _constant(form.replace("%%", "%"))
    looks = [_look(variable.path) for variable in variables]
    escaped = [variable.escape for variable in variables]
    some_escaped = any(escaped)
    plain = all(_is_plain(variable.path) for variable in variables)
    first_names = [variable.path[0] for variable in variables]
    single = first_names[0] if len(first_names) == 1 else None
    get = itemgetter(*first_names)

    def perform(rendering: Rendering, inner: Any, outer: Outer) -> None:
        values: tuple[Any, ...]
        if plain and inner.__class__ is dict and (rendering.over is None or inner is rendering.top):
            try:
                values = get(inner) if single is None else (inner[single],)
            except KeyError:
                values = tuple([look(rendering, inner, outer) for look in looks])
        else:
            values = tuple([look(rendering, inner, outer) for look in looks])
        try:
            together = "".join(values)
        except TypeError:
            values = tuple(["" if value is _MISSING else text_of(value) for value in values])
            together = "".join(values)
        if some_escaped and (
            "&" in together or "<" in together or ">" in together or '"' in together or "'" in together
        ):
            pairs = zip(values, escaped, strict=True)
            values = tuple([escape(value) if special else value for value, special in pairs])
        text = form % values
        rendering.out.append(text)
        rendering.left -= len(text)
        if rendering.left < 0:
            raise rendering.too_large()

    return perform


def _constant(text: str) -> Operation:
    length = len(text)

    def perform(rendering: Rendering, _inner: Any, _outer: Outer) -> None:
        rendering.out.append(text)
        rendering.left -= length
        if rendering.left < 0:
            raise rendering.too_large()

    return perform


def _section(node: Section, partials: Partials) -> Operation:
    look, cost = _look(node.path), 1 + len(node.children)
    body = compiled(node.children, partials)

    def perform(rendering: Rendering, inner: Any, outer: Outer) -> None:
        value = look(rendering, inner, outer)
        if value.__class__ is list:
            rendering.enter(cost * len(value))
            outer = (inner, outer)
            for item in value:
                body(rendering, item, outer)
            rendering.levels += 1
        elif value.__class__ is dict or not (value is _MISSING or is_false(value)):
            rendering.enter(cost)
            body(rendering, value, (inner, outer))
            rendering.levels += 1

    def perform_inverted(rendering: Rendering, inner: Any, outer: Outer) -> None:
        value = look(rendering, inner, outer)
        if value is _MISSING or is_false(value):
            rendering.enter(cost)
            body(rendering, inner, outer)
            rendering.levels += 1

    return perform_inverted if node.inverted else perform


def _partial(node: Partial, partials: Partials) -> Operation:
    def perform(rendering: Rendering, inner: Any, outer: Outer) -> None:
        body = partials(node.name, node.indent)
        if body is not None:
            rendering.enter(1)
            body(rendering, inner, outer)
            rendering.levels += 1

    return perform


def _is_plain(path: Path) -> bool:
    return len(path) == 1 and path[0] != "."


def _look(path: Path) -> Callable[[Rendering, Any, Outer], Any]:
    """What finds the value of a name, `_MISSING` if there is none."""
    first, rest = path[0], path[1:]
    if path == (".",):
        return lambda rendering, inner, _outer: rendering.data if inner is rendering.top else inner

    def look(rendering: Rendering, inner: Any, outer: Outer) -> Any:
        value: Any = _MISSING
        # The names over all others are part of the top frame.
        if rendering.over is not None and inner is not rendering.top:
            value = rendering.over.get(first, _MISSING)
        if value is _MISSING:
            value = inner.get(first, _MISSING) if inner.__class__ is dict else _child(inner, first)
            while value is _MISSING and outer is not None:
                frame, outer = outer
                value = frame.get(first, _MISSING) if frame.__class__ is dict else _child(frame, first)
        for part in rest:
            value = value.get(part, _MISSING) if value.__class__ is dict else _child(value, part)
        return value

    return look


def _child(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return value.get(name, _MISSING)
    if isinstance(value, list) and name.isdecimal() and len(name) < 10 and int(name) < len(value):
        return value[int(name)]
    return _MISSING
