"""`python -m bench compare`: programs of `python -m bench` for two checkouts, in turn, and the ratio of their figures.

python -m bench compare --base ../before webhooks fanout link
python -m bench compare --base ../before --rounds 5 --quick eventlog

The programs are ours for both; only the product is another one. What grows on a machine that gets busier meanwhile
grows for both, since they take turns: A B B A …
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.harness import Size
from bench.runner import PROGRAMS, ROOT, run_program

# What hot paths cost.
USUAL = ("eventlog", "webhooks", "fanout", "link")
ROUNDS = 3


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=f"{', '.join(PROGRAMS)} [default: {USUAL}]")
    parser.add_argument("--base", type=Path, required=True, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="each in its smallest form")
    given = parser.parse_args(arguments)
    if unknown := set(given.programs) - set(PROGRAMS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    if not (given.base / "src" / "wirechamber").is_dir():
        parser.error(f"there is no checkout in {given.base}")
    size: Size = "quick" if given.quick else "full"
    sides = {"base": given.base.resolve(), "this": ROOT}
    # By program and figure: what each side had.
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    units: dict[tuple[str, str], str] = {}
    failed = 0
    for number in range(given.rounds):
        for name in given.programs or USUAL:
            for side in sorted(sides, reverse=number % 2 == 1):
                print(f"round {number + 1}: {name}, {side} ...", flush=True)
                ended = run_program(f"bench.{name}", size, PROGRAMS[name][size == "quick"], _nothing, sides[side])
                if ended.error is not None:
                    failed += 1
                    print(f"{side}: {ended.error}", file=sys.stderr, flush=True)
                for row in ended.rows:
                    # Figures in brackets belong to one run.
                    key = (name, row["name"].partition(" (")[0])
                    units[key] = row["unit"]
                    found.setdefault(key, {}).setdefault(side, []).append(row["figure"])
    _show(found, units)
    return 1 if failed else 0


def _nothing(row: dict[str, Any]) -> None:
    """Shown at the end, beside the other's."""


def _show(found: dict[tuple[str, str], dict[str, list[float]]], units: dict[tuple[str, str], str]) -> None:
    table = Table(title="medians; this / base")
    for column in ("program", "figure", "unit", "base", "this", "ratio", "ratios of rounds"):
        table.add_column(column, overflow="fold")
    for key, sides in found.items():
        base, this = sides.get("base", []), sides.get("this", [])
        if base and this:
            ratio = statistics.median(this) / statistics.median(base)
            each = " ".join(f"{b / a:.2f}" for a, b in zip(base, this, strict=False))
            middle = [f"{statistics.median(values):,.4g}" for values in (base, this)]
            table.add_row(*key, units[key], *middle, f"{ratio:.3f}", each)
    Console(width=None if sys.stdout.isatty() else 150).print(table)
