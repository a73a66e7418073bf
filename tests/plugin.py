"""A package with kinds of integration, made by a test: found by its entry points, as an installed one is."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path


def plug_in(folder: Path, source: str, **kinds: str) -> dict[str, str]:
    """Writes a package down.

    Args:
        source: Its module.
        kinds: Classes of the module, by the name of their entry point.

    Returns:
        The environment in which it is installed.
    """
    about = folder / "plugged_in-1.0.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (folder / "plugged_in.py").write_text(textwrap.dedent(source))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1.0\n")
    points = "".join(f"{name} = plugged_in:{kind}\n" for name, kind in kinds.items())
    (about / "entry_points.txt").write_text(f"[wirechamber.integrations]\n{points}")
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *([before] if before else [])])}
