"""Inputs that were worth keeping, such as those that found something once, are taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import dtls

CORPUS = Path(__file__).parent / "corpus" / "dtls"


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_dtls(path: Path) -> None:
    dtls.one(path.read_bytes())
