"""The command line: one module per command."""

from wirechamber.cli.program import main

__all__ = ["main"]
