"""Mustache templates, JavaScript flavour: parsed once, rendered often (integrations.md, section 6)."""

from wirechamber.integrations.templates.errors import OutputTooLarge, TemplateError
from wirechamber.integrations.templates.operations import MAX_OUTPUT, MAX_STEPS, Room
from wirechamber.integrations.templates.parser import MAX_DEPTH, MAX_PARTS, MAX_PATH, MAX_SOURCE, MAX_TAGS, Allowance
from wirechamber.integrations.templates.template import Template, compile, plain
from wirechamber.integrations.templates.values import MAX_VALUE_DEPTH

__all__ = [
    "MAX_DEPTH",
    "MAX_OUTPUT",
    "MAX_PARTS",
    "MAX_PATH",
    "MAX_SOURCE",
    "MAX_STEPS",
    "MAX_TAGS",
    "MAX_VALUE_DEPTH",
    "Allowance",
    "OutputTooLarge",
    "Room",
    "Template",
    "TemplateError",
    "compile",
    "plain",
]
