"""`make bench`: runs the programs, prints one table, writes bench/results.json.

python -m bench                 all of them
python -m bench fanout webhooks some of them
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.harness import Result

PROGRAMS = (
    "templates",
    "eventlog",
    "outbound",
    "webhooks",
    "services",
    "fanout",
    "streams_idle",
    "link",
    "https_bytes",
)
RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    wanted = sys.argv[1:] or PROGRAMS
    unknown = set(wanted) - set(PROGRAMS)
    if unknown:
        print(f"there is no {', '.join(unknown)}; there are {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    results: list[Result] = []
    for name in wanted:
        print(f"{name} ...", flush=True)
        started = time.monotonic()
        results += importlib.import_module(f"bench.{name}").run()
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    RESULTS.write_text(json.dumps([result.row() for result in results], indent=2) + "\n")
    table = Table(title="Wirechamber, measured")
    for column in ("name", "figure", "unit", "counterpart", "ratio", "goal", "met"):
        table.add_column(column, overflow="fold")
    for result in results:
        row = result.row()
        met = {True: "yes", False: "NO", None: "-"}[row["met"]]
        table.add_row(*(str("-" if row[key] is None else row[key]) for key in list(row)[:-1]), met)
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
