"""The command line: one module per command."""

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command that the arguments name."""
    try:
        # Reading all commands takes a moment, in which somebody may think better of it.
        from wirechamber.cli import program
    except KeyboardInterrupt:
        sys.exit(130)
    program.main()
