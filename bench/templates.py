"""Rendering compiled templates, against chevron, which parses at each render: a server would do the same with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import chevron

from bench.harness import Result, Size, median
from wirechamber.integrations.templates import compile

SMALL = '{"temperature":"{{t}}","device":"{{{id}}}","at":"{{at}}"}'
NESTED = "{{#a}}{{#b}}{{name}}: {{c.d.e}} {{^f}}none{{/f}}{{#g}}{{h}}{{/g}}{{/b}}{{/a}} {{{x.y.z}}}"
LIST = "{{#items}}{{name}}={{value}};{{/items}}"
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "small": (SMALL, {"t": "21.5", "id": "0123456789abcdef01234567", "at": "2026-01-02T03:04:05.678Z"}, ">= 10"),
    "nested": (
        NESTED,
        {"a": {"b": {"name": "n", "c": {"d": {"e": "deep"}}, "g": {"h": "in"}}}, "x": {"y": {"z": "<raw>"}}},
        ">= 6",
    ),
    "list of 100": (LIST, {"items": [{"name": f"n{i}", "value": str(i)} for i in range(100)]}, ">= 3"),
}


# CPU seconds of one measurement.
SECONDS: dict[Size, float] = {"full": 0.25, "quick": 0.01}


def run(size: Size) -> Iterator[Result]:
    seconds = SECONDS[size]
    for name, (source, data, goal) in CASES.items():
        template = compile(source)
        assert template.render(data) == chevron.render(source, data)
        ours = median(partial(_each, seconds, partial(template.render, data)))
        theirs = median(partial(_each, seconds, partial(chevron.render, source, data)))
        figure = f"chevron {theirs * 1e6:.1f}"
        yield Result(f"template render, {name}", ours * 1e6, "µs", figure, theirs / ours, goal)


def _each(seconds: float, work: Callable[[], Any]) -> float:
    work()
    count, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        for _ in range(20):
            work()
        count += 20
    return (time.process_time() - started) / count
