"""The required part of the Mustache specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wirechamber.integrations.templates import compile

CACHE = Path(__file__).parents[2] / "vectors" / ".cache" / "mustache"
CASES = [
    pytest.param(case, id=f"{file.stem}: {case['name']}")
    for file in sorted(CACHE.glob("*.json"))
    for case in json.loads(file.read_text())["tests"]
]
REQUIRED = 133


def test_all_required_cases_are_here() -> None:
    assert len(CASES) >= REQUIRED, "the specification's cases are missing: run `make test`, which fetches them"


@pytest.mark.parametrize("case", CASES)
def test_a_case_of_the_specification(case: dict[str, Any]) -> None:
    template = compile(case["template"], partials=case.get("partials", {}).get)
    # hogan.js, whose flavour this is, escapes the apostrophe too.
    expected = case["expected"]
    assert template.render(case["data"]) == expected
