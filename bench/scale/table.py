"""`python -m bench scale`: runs the programs of the curves and prints one table.

python -m bench scale                      all of them: half an hour
python -m bench scale devices log          some of them
python -m bench scale --source CHECKOUT    of the product in another checkout
python -m bench scale --markdown FILE      as docs/performance.md has it, of results that are there already

Results are written as they come, to bench/scale/now.json; those of earlier programs that are not run again are kept.
The column `before` is from bench/scale/before.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.harness import Size
from bench.runner import ROOT, run_program, write_whole
from bench.scale.curves import CURVES

# Seconds that each may take, and what it measures.
PROGRAMS: Mapping[str, float] = {
    "devices": 600,
    "devices:registering": 600,
    "sessions": 900,
    "sessions:subscribed": 1200,
    "streams": 300,
    "streams:prefixes": 300,
    "streams:owners": 300,
    "streams:quiet": 300,
    "streams:storm": 600,
    "integrations": 600,
    "integrations:matches": 300,
    "log": 900,
    "attempts": 900,
    "removed": 300,
}
QUICK_S = 240.0
HERE = Path(__file__).parent
BEFORE, NOW = HERE / "before.json", HERE / "now.json"

Values = dict[str, dict[int, float]]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(PROGRAMS))
    parser.add_argument("--quick", action="store_true", help="each in its smallest form")
    parser.add_argument("--source", type=Path, default=ROOT, help="the checkout whose product is measured")
    parser.add_argument("--results", type=Path, default=NOW, help="where results are written")
    parser.add_argument("--before", type=Path, default=BEFORE, help="results to compare with")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="only write these results as a table")
    given = parser.parse_args(arguments)
    if given.markdown is not None:
        print(markdown(values(read(given.before)), values(read(given.markdown))))
        return 0
    if unknown := set(given.programs) - set(PROGRAMS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    size: Size = "quick" if given.quick else "full"
    chosen = given.programs or list(PROGRAMS)
    rows = [row for row in read(given.results) if row["program"] not in chosen]
    failed = 0
    for name in chosen:
        print(f"{name} ...", flush=True)

        def came(row: dict[str, Any], name: str = name) -> None:
            rows.append({"program": name, **row})
            write_whole(given.results, rows)
            curve = CURVES[row["curve"]]
            print(f"  {row['size']:>9,}  {row['value']:>9,} {curve.unit:7} {curve.title}", flush=True)

        deadline_s = QUICK_S if given.quick else PROGRAMS[name]
        ended = run_program(f"bench.scale.{name}", size, deadline_s, came, given.source.resolve())
        if ended.error is not None:
            failed += 1
            rows.append({"program": name, "error": ended.error})
            write_whole(given.results, rows)
            print(f"  {ended.error}", file=sys.stderr, flush=True)
        print(f"{name}: {ended.seconds:.0f} s", flush=True)
    _show(values(read(given.before)), values(rows))
    return 1 if failed else 0


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a file of results; none when there is no such file."""
    return list(json.loads(file.read_text())) if file.exists() else []


def values(rows: list[dict[str, Any]]) -> Values:
    """By curve and size."""
    found: Values = {}
    for row in rows:
        if "curve" in row:
            found.setdefault(row["curve"], {})[row["size"]] = row["value"]
    return found


def markdown(before: Values, now: Values) -> str:
    """The table of docs/performance.md."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "| --- | --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(cells)} |" for cells in _cells(before, now)]
    return "\n".join(lines)


_COLUMNS = ("curve", "sizes", "before", "now", "growth", "wanted", "met")


def _cells(before: Values, now: Values) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, curve in CURVES.items():
        was, is_now = before.get(key, {}), now.get(key, {})
        sizes = sorted(set(was) | set(is_now))
        if sizes:
            growth = "" if not is_now else _growth(is_now)
            met = {True: "yes", False: "no", None: ""}[curve.met(is_now)]
            found.append(
                (
                    curve.title,
                    " / ".join(_short(each) for each in sizes),
                    _line(was, sizes, curve.unit),
                    _line(is_now, sizes, curve.unit),
                    growth,
                    curve.wanted(),
                    met,
                )
            )
    return found


def _growth(found: Mapping[int, float]) -> str:
    """How much larger, for how many times the size."""
    first, last = min(found), max(found)
    if first == last or not found[first]:
        return ""
    return f"{_times(found[last] / found[first])} × for {_times(last / first)} ×"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _line(found: Mapping[int, float], sizes: list[int], unit: str) -> str:
    return f"{' / '.join(f'{found[each]:,g}' if each in found else '-' for each in sizes)} {unit}" if found else "-"


def _short(size: int) -> str:
    for number, letter in ((1_000_000, " M"), (1_000, " k")):
        if size >= number and size % number == 0:
            return f"{size // number}{letter}"
    return str(size)


def _show(before: Values, now: Values) -> None:
    table = Table(title="How cost grows")
    for column in _COLUMNS:
        table.add_column(column, overflow="fold")
    for cells in _cells(before, now):
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 170).print(table)
