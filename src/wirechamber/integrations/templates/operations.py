"""A template's nodes as nested functions.

Most of a template is runs of text and plain names, and most data has those names: a run takes its values by one
`itemgetter` and prints them by one format. Whatever is not as plain takes the longer way and gives the same.

Rendering is bounded in output and in steps, and pays before it does anything: whatever a template and its data are, it
ends within a few milliseconds. What a body always takes is known when it is compiled and paid by whoever enters it;
what depends on data (items, values that become text, levels looked through) is paid where it is met. Lengths are added
up before texts are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from msgspec import Struct

from wirechamber.integrations.templates.errors import OutputTooLarge
from wirechamber.integrations.templates.parser import Node, Partial, Section, Variable
from wirechamber.integrations.templates.values import (
    ESCAPED_PER_STEP,
    escape,
    escaped_length,
    is_false,
    special,
    steps_of,
    text_of,
    text_of_all,
)

# Characters that may be printed.
MAX_OUTPUT = 1_000_000
# Steps that rendering may take, each some 0.1 µs: the loop waits. A tag takes one and one for each part of its name; so
# does, each time, what a section repeats. A list that is printed takes two for each item. All the numbers that an event
# can hold, 8,000, are printed by `{{a}}` in 16,000, and by a section in 24,000.
MAX_STEPS = 30_000
# What it takes to begin.
BEGIN = 8
# Sections and partials within each other: each is a level or two of Python's own stack.
MAX_LEVELS = 200

# The frames around the innermost one: `(frame, the ones around it)`, None at the end.
Outer = tuple[Any, Any] | None
Operation = Callable[["Rendering", Any, Outer], None]
Path = tuple[str, ...]
# A run of no more tags is joined without a look at how long it gets: each of its values is in memory as it is.
_FEW = 4
# And what is longer than this is added up piece by piece.
_LONG = 100_000


class Body(Struct, gc=False):
    """Nodes, compiled.

    Attributes:
        perform: Renders them.
        cost: Steps that this takes, beyond what depends on the data. Whoever performs it pays.
    """

    perform: Operation
    cost: int


Partials = Callable[[str, str], Body | None]


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
        texts: Those of lists and objects that were printed, by identity: the data stays as long as the rendering.
    """

    over: dict[str, Any] | None
    data: Any
    top: Any
    out: list[str]
    left: int = MAX_OUTPUT
    steps: int = MAX_STEPS
    levels: int = MAX_LEVELS
    texts: dict[int, str] | None = None

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

    def pay(self, steps: int) -> None:
        """Takes steps; raises OutputTooLarge when there are not so many left."""
        self.steps -= steps
        if self.steps < 0:
            raise self.too_large()

    def text(self, value: Any, left: int) -> str:
        """The text of a value, of at most so many characters if it has to be made."""
        if value is _MISSING:
            return ""
        if not isinstance(value, list | dict):
            if value.__class__ is int or value.__class__ is float:
                self.pay(steps_of(value))
            return text_of(value)
        if self.texts is None:
            self.texts = {}
        text = self.texts.get(id(value))
        if text is None:
            text, steps = text_of_all(value, left, self.steps)
            self.steps -= steps
            self.texts[id(value)] = text
        return text


def compiled(nodes: Sequence[Node], partials: Partials) -> Body:
    """What renders the nodes.

    Args:
        partials: Gives what renders a partial, by its name and indent.
    """
    bodies: list[Body] = []
    run: list[str | Variable] = []
    for node in nodes:
        if isinstance(node, str | Variable):
            run.append(node)
            continue
        if run:
            bodies.append(_run(run))
            run = []
        bodies.append(_section(node, partials) if isinstance(node, Section) else _partial(node, partials))
    if run or not bodies:
        bodies.append(_run(run))
    return bodies[0] if len(bodies) == 1 else _sequence(bodies)


def _sequence(bodies: Sequence[Body]) -> Body:
    operations = [body.perform for body in bodies]

    def perform(rendering: Rendering, inner: Any, outer: Outer) -> None:
        for operation in operations:
            operation(rendering, inner, outer)

    return Body(perform, sum(body.cost for body in bodies))


def _run(parts: Sequence[str | Variable]) -> Body:
    variables = [part for part in parts if isinstance(part, Variable)]
    form = "".join("%s" if isinstance(part, Variable) else part.replace("%", "%%") for part in parts)
    if not variables:
        return _constant(form.replace("%%", "%"))
    if len(variables) == 1:
        at = parts.index(variables[0])
        return _one(variables[0], "".join(map(str, parts[:at])), "".join(map(str, parts[at + 1 :])))
    looks = [_look(variable.path) for variable in variables]
    escaped = [variable.escape for variable in variables]
    some_escaped = any(escaped)
    plain = all(_is_plain(variable.path) for variable in variables)
    get = itemgetter(*[variable.path[0] for variable in variables])
    join = "".join if len(variables) <= _FEW else _joined
    printed_anyway = sum(len(part) for part in parts if isinstance(part, str))

    def perform(rendering: Rendering, inner: Any, outer: Outer) -> None:
        values: tuple[Any, ...]
        if plain and inner.__class__ is dict and (rendering.over is None or inner is rendering.top):
            try:
                values = get(inner)
            except KeyError:
                values = tuple([look(rendering, inner, outer) for look in looks])
        else:
            values = tuple([look(rendering, inner, outer) for look in looks])
        try:
            together = join(values)
        except TypeError:
            values = _texts(rendering, values, printed_anyway)
            together = "".join(values)
        # As `special` says, which would be a call.
        if some_escaped and (
            "&" in together or "<" in together or ">" in together or '"' in together or "'" in together
        ):
            values = _escaped(rendering, values, escaped, printed_anyway)
        text = form % values
        rendering.out.append(text)
        rendering.left -= len(text)
        if rendering.left < 0:
            raise rendering.too_large()

    return Body(perform, sum(1 + len(variable.path) for variable in variables))


def _one(variable: Variable, before: str, after: str) -> Body:
    """A run of one tag: what most lists are made of, and then its value is often no text."""
    look, name, plain, escaped = _look(variable.path), variable.path[0], _is_plain(variable.path), variable.escape
    printed_anyway = len(before) + len(after)

    def perform(rendering: Rendering, inner: Any, outer: Outer) -> None:
        value: Any = _MISSING
        if plain and inner.__class__ is dict and (rendering.over is None or inner is rendering.top):
            value = inner.get(name, _MISSING)
        if value is _MISSING:
            value = look(rendering, inner, outer)
        if value.__class__ is not str:
            value = rendering.text(value, rendering.left - printed_anyway)
        if escaped and ("&" in value or "<" in value or ">" in value or '"' in value or "'" in value):
            (value,) = _escaped(rendering, (value,), (True,), printed_anyway)
        text = f"{before}{value}{after}"
        rendering.out.append(text)
        rendering.left -= len(text)
        if rendering.left < 0:
            raise rendering.too_large()

    return Body(perform, 1 + len(variable.path))


def _joined(values: Sequence[Any]) -> str:
    """The texts, one after the other; raises TypeError if they are no texts, or too long to be joined unseen."""
    if sum(map(len, values)) > _LONG:
        raise TypeError
    return "".join(values)


def _texts(rendering: Rendering, values: Sequence[Any], printed_anyway: int) -> tuple[str, ...]:
    """The values as texts, if there is room for all of them and what is printed between them."""
    left = rendering.left - printed_anyway
    found = []
    for value in values:
        text = value if value.__class__ is str else rendering.text(value, left)
        left -= len(text)
        if left < 0:
            rendering.left = left
            raise rendering.too_large()
        found.append(text)
    return tuple(found)


def _escaped(
    rendering: Rendering, values: Sequence[str], escaped: Sequence[bool], printed_anyway: int
) -> tuple[str, ...]:
    """The values, those escaped that are to be, if there is room for all of them and what is printed between them."""
    left = rendering.left - printed_anyway
    found = []
    for value, change in zip(values, escaped, strict=True):
        change = change and special(value)
        length = escaped_length(value) if change else len(value)
        left -= length
        if left < 0:
            rendering.left = left
            raise rendering.too_large()
        if change:
            rendering.pay(1 + length // ESCAPED_PER_STEP)
            value = escape(value)
        found.append(value)
    return tuple(found)


def _constant(text: str) -> Body:
    length = len(text)

    def perform(rendering: Rendering, _inner: Any, _outer: Outer) -> None:
        rendering.out.append(text)
        rendering.left -= length
        if rendering.left < 0:
            raise rendering.too_large()

    return Body(perform, 1)


def _section(node: Section, partials: Partials) -> Body:
    look = _look(node.path)
    within = compiled(node.children, partials)
    body, cost = within.perform, 1 + within.cost

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

    return Body(perform_inverted if node.inverted else perform, 1 + len(node.path))


def _partial(node: Partial, partials: Partials) -> Body:
    def perform(rendering: Rendering, inner: Any, outer: Outer) -> None:
        body = partials(node.name, node.indent)
        if body is not None:
            rendering.enter(1 + body.cost)
            body.perform(rendering, inner, outer)
            rendering.levels += 1

    return Body(perform, 2)


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
            if value is _MISSING and outer is not None:
                levels = 0
                while value is _MISSING and outer is not None:
                    frame, outer = outer
                    value = frame.get(first, _MISSING) if frame.__class__ is dict else _child(frame, first)
                    levels += 1
                rendering.pay(levels)
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
