"""`make bench`: runs the programs, prints one table, writes bench/results.json.

python -m bench                     all of them
python -m bench fanout webhooks     some of them
python -m bench --quick             each in its smallest form: whether it runs, not how fast it is

python -m bench scale               how cost grows with devices, streams, integrations and events
python -m bench soak                minutes under load: what grows, and what does not
python -m bench chaos               kill -9 at random moments under load: what gets lost
python -m bench compare             two checkouts, in turn

Each of these says more with --help.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.harness import Size
from bench.runner import PROGRAMS, run_program, write_whole

RESULTS = Path(__file__).parent / "results.json"


# Each is a module with a `main` of its own.
COMMANDS = {"scale": "bench.scale.table", "soak": "bench.soak", "chaos": "bench.chaos", "compare": "bench.compare"}


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        return int(importlib.import_module(COMMANDS[arguments[0]]).main(arguments[1:]))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=_Format)
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=", ".join(PROGRAMS))
    parser.add_argument("--quick", action="store_true", help="each in its smallest form")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are written")
    given = parser.parse_args(arguments)
    if unknown := set(given.programs) - set(PROGRAMS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    size: Size = "quick" if given.quick else "full"
    rows: list[dict[str, Any]] = []
    write_whole(given.results, rows)
    failed = 0
    for name in given.programs or PROGRAMS:
        print(f"{name} ...", flush=True)

        def came(row: dict[str, Any], name: str = name) -> None:
            rows.append({"program": name, **row})
            write_whole(given.results, rows)
            print(f"  {row['name']}: {row['figure']} {row['unit']}", flush=True)

        ended = run_program(f"bench.{name}", size, PROGRAMS[name][size == "quick"], came)
        if ended.error is not None:
            failed += 1
            rows.append({"program": name, "error": ended.error})
            write_whole(given.results, rows)
            print(f"  {ended.error}", file=sys.stderr, flush=True)
        print(f"{name}: {ended.seconds:.0f} s", flush=True)
    _show(rows)
    return 1 if failed else 0


class _Format(argparse.RawDescriptionHelpFormatter):
    """The description as it is."""


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Wirechamber, measured")
    columns = ("name", "figure", "unit", "counterpart", "ratio", "goal")
    for column in (*columns, "met"):
        table.add_column(column, overflow="fold")
    for row in rows:
        if "error" in row:
            table.add_row(row["program"], *["-"] * 5, row["error"].partition("\n")[0])
        else:
            met = {True: "yes", False: "NO", None: "-"}[row["met"]]
            table.add_row(*(str("-" if row[key] is None else row[key]) for key in columns), met)
    Console(width=None if sys.stdout.isatty() else 150).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
