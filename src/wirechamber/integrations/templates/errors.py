"""What can be wrong with a template, or come of rendering one."""

from __future__ import annotations

from wirechamber.errors import BadInput


class TemplateError(BadInput):
    """The template is malformed.

    Attributes:
        line, column: Where, from 1.
    """

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"{message} (line {line}, column {column})")
        self.message = message
        self.line = line
        self.column = column


class OutputTooLarge(BadInput):
    """Rendering was stopped: the output, the work to make it, or a value's depth passed its bound."""
