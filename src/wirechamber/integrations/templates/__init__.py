"""Mustache templates, JavaScript flavour: parsed once, rendered often (integrations.md, section 6)."""

from wirechamber.integrations.templates.errors import OutputTooLarge, TemplateError
from wirechamber.integrations.templates.operations import MAX_OUTPUT, MAX_STEPS, Room
from wirechamber.integrations.templates.parser import MAX_DEPTH, MAX_SOURCE
from wirechamber.integrations.templates.template import Template, compile

__all__ = [
    "MAX_DEPTH",
    "MAX_OUTPUT",
    "MAX_SOURCE",
    "MAX_STEPS",
    "OutputTooLarge",
    "Room",
    "Template",
    "TemplateError",
    "compile",
]
