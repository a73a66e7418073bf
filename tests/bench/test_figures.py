"""Figures that the product and the docs tell are what the bench measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.https_bytes import measure, measure_kept
from wirechamber.services.usage import HTTPS_BYTES, HTTPS_KEPT_BYTES

DOCS = Path(__file__).parents[2] / "docs"


def test_what_a_publish_takes_by_https_is_what_is_measured() -> None:
    # Certificates and signatures have some bytes more or less by chance, and a delayed acknowledgement is a segment.
    assert measure("P-256")[1].total == pytest.approx(HTTPS_BYTES, rel=0.03)
    assert measure_kept().total == pytest.approx(HTTPS_KEPT_BYTES, rel=0.1)


def test_every_page_tells_the_same() -> None:
    for page in ("devices.md", "device-link.md", "python-device.md", "performance.md"):
        text = (DOCS / page).read_text()
        assert f"{HTTPS_BYTES:,}" in text, page
        assert str(HTTPS_KEPT_BYTES) in text, page
    for found in DOCS.rglob("*.md"):
        for old in ("3,656", "4,803", "3,700 to 4,800"):
            assert old not in found.read_text(), found
