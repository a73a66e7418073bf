"""From a template's text to its nodes, in one pass and in linear time.

Follows the required part of the Mustache specification: interpolation, sections, inverted sections, comments, partials,
set delimiters, and the rule that a tag other than interpolation which stands alone on its line takes the line with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from wirechamber.integrations.templates.errors import TemplateError

MAX_SOURCE = 256 * 1024
# Nesting of sections; each level is a level of Python's own stack at render.
MAX_DEPTH = 64
# A tag's content: a name, or a comment.
MAX_TAG = 32 * 1024
# Parts of one name, as in `a.b.c`.
MAX_PATH = 32
# Of all templates of one integration: reading them, and rendering what stands outside of every section, stay short.
MAX_TAGS = 3_000
MAX_PARTS = 6_000

_STANDALONE = frozenset("#^/!>=")


class Allowance(Struct, gc=False):
    """What several templates, such as those of one integration, may hold together.

    Attributes:
        tags: Tags of every kind, comments among them.
        parts: Parts of names.
    """

    tags: int = MAX_TAGS
    parts: int = MAX_PARTS


class Variable:
    """Prints a value."""

    __slots__ = ("escape", "path")

    def __init__(self, path: tuple[str, ...], escape: bool) -> None:
        self.path = path
        self.escape = escape


class Section:
    """Repeats, or skips, what it holds. `start` is where its opening tag is, for messages."""

    __slots__ = ("children", "inverted", "path", "start")

    def __init__(self, path: tuple[str, ...], inverted: bool, start: int) -> None:
        self.path = path
        self.inverted = inverted
        self.start = start
        self.children: list[Node] = []


class Partial:
    """Another template, each line indented."""

    __slots__ = ("indent", "name")

    def __init__(self, name: str, indent: str) -> None:
        self.name = name
        self.indent = indent


Node = str | Variable | Section | Partial


def parse(source: str, allowance: Allowance | None = None) -> list[Node]:
    """The nodes of a template.

    Args:
        allowance: What it may hold; what it does hold is taken from it. None for the most.

    Raises:
        TemplateError: It is malformed, too long, holds too much, or is nested too deeply.
    """
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"the template is longer than {MAX_SOURCE} characters", 1, 1)
    return _Parser(source, Allowance() if allowance is None else allowance).run()


def names(nodes: list[Node]) -> Iterator[str]:
    """The first part of every name that the nodes look up."""
    for node in nodes:
        if isinstance(node, Variable):
            yield node.path[0]
        elif isinstance(node, Section):
            yield node.path[0]
            yield from names(node.children)


def indented(source: str, indent: str) -> str:
    """A partial's text with every line indented."""
    if not indent or not source:
        return source
    body, end = (source[:-1], "\n") if source.endswith("\n") else (source, "")
    return indent + body.replace("\n", "\n" + indent) + end


class _Parser:
    def __init__(self, source: str, allowance: Allowance) -> None:
        self._source = source
        self._allowance = allowance
        self._open, self._close = "{{", "}}"
        self._top: list[Node] = []
        self._nodes = self._top
        self._sections: list[Section] = []
        # Where the line of the scanner begins, and where its text begins: a tag in between makes them differ.
        self._line = 0
        self._at = 0

    def run(self) -> list[Node]:
        while True:
            start = self._source.find(self._open, self._at)
            if start < 0:
                break
            self._tag(start)
        self._text(len(self._source))
        if self._sections:
            section = self._sections[-1]
            raise self._error(f"the section {'.'.join(section.path)!r} is not closed", section.start)
        return self._top

    def _tag(self, start: int) -> None:
        self._allowance.tags -= 1
        if self._allowance.tags < 0:
            raise self._error(f"there are more than {MAX_TAGS} tags in the templates of one integration", start)
        inside = start + len(self._open)
        kind = self._source[inside : inside + 1]
        closing = self._close
        if kind == "=":
            closing = "=" + closing
        elif kind == "{" and self._open == "{{":
            closing = "}" + closing
        end = self._source.find(closing, inside + 1 if kind in "={" and kind else inside)
        if end < 0:
            raise self._error(f"the tag is not closed by {closing!r}", start)
        if end - start > MAX_TAG:
            raise self._error(f"the tag is longer than {MAX_TAG} characters", start)
        after = end + len(closing)
        sigil = kind if kind and kind in "#^/!>=&{" else ""
        content = self._source[inside + len(sigil) : end]
        alone = self._alone(start, after) if sigil in _STANDALONE and sigil else None
        indent = ""
        if alone is None:
            self._text(start)
            self._next(after, start)
        else:
            indent = self._source[self._line : start] if self._line >= self._at else ""
            self._text(self._line)
            self._next(alone, start)
        self._handle(sigil, content, start, indent)

    def _alone(self, start: int, after: int) -> int | None:
        """Where the next line begins, if the tag is all that its line holds."""
        newline = self._source.rfind("\n", self._at, start)
        if newline >= 0:
            self._line = newline + 1
        if self._line < self._at or self._source[self._line : start].strip(" \t"):
            return None
        end = after
        source, length = self._source, len(self._source)
        while end < length and source[end] in " \t":
            end += 1
        if end == length:
            return end
        if source.startswith("\r\n", end):
            return end + 2
        return end + 1 if source[end] == "\n" else None

    def _text(self, upto: int) -> None:
        if upto > self._at:
            self._nodes.append(self._source[self._at : upto])

    def _next(self, at: int, start: int) -> None:
        newline = self._source.rfind("\n", min(self._at, start), at)
        if newline >= 0:
            self._line = newline + 1
        self._at = at

    def _handle(self, sigil: str, content: str, start: int, indent: str) -> None:
        if sigil == "!":
            return
        if sigil == "=":
            self._set_delimiters(content, start)
            return
        name = content.strip()
        if not name:
            raise self._error("the tag holds no name", start)
        if sigil in ("#", "^"):
            self._enter(Section(self._path(name, start), sigil == "^", start))
        elif sigil == "/":
            self._leave(name, start)
        elif sigil == ">":
            if name.startswith("*"):
                raise self._error(f"dynamic names such as {{{{>{name}}}}} are not supported", start)
            self._nodes.append(Partial(name, indent))
        elif sigil == "" and name[0] == "<":
            raise self._error("inheritance, {{<parent}} and {{$block}}, is not supported", start)
        else:
            self._nodes.append(Variable(self._path(name, start), escape=sigil == ""))

    def _enter(self, section: Section) -> None:
        if len(self._sections) >= MAX_DEPTH:
            raise self._error(f"sections are nested more than {MAX_DEPTH} deep", section.start)
        self._nodes.append(section)
        self._sections.append(section)
        self._nodes = section.children

    def _leave(self, name: str, start: int) -> None:
        if not self._sections:
            raise self._error(f"there is no open section {name!r} to close", start)
        section = self._sections.pop()
        if section.path != self._path(name, start):
            opened = ".".join(section.path) or "."
            raise self._error(f"{name!r} closes the section {opened!r}, which was opened last", start)
        self._nodes = self._sections[-1].children if self._sections else self._top

    def _path(self, name: str, start: int) -> tuple[str, ...]:
        parts = 1 if name == "." else name.count(".") + 1
        if parts > MAX_PATH:
            raise self._error(f"a name has more than {MAX_PATH} parts", start)
        self._allowance.parts -= parts
        if self._allowance.parts < 0:
            raise self._error(f"the names in the templates of one integration have more than {MAX_PARTS} parts", start)
        return (".",) if name == "." else tuple(name.split("."))

    def _set_delimiters(self, content: str, start: int) -> None:
        parts = content.split()
        if len(parts) != 2 or any("=" in part for part in parts):
            raise self._error("delimiters are set by two texts without blanks or =, as in {{=<% %>=}}", start)
        self._open, self._close = parts

    def _error(self, message: str, at: int) -> TemplateError:
        line = self._source.count("\n", 0, at) + 1
        column = at - self._source.rfind("\n", 0, at)
        return TemplateError(message, line, column)
