"""Inputs that were worth keeping, such as those that found something once, are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import wire

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("path", sorted((CORPUS / "wire").iterdir()), ids=lambda path: path.name)
def test_wire(path: Path) -> None:
    wire.one(path.read_bytes())
