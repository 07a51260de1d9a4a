"""Runs the parts of the bench that are named, all without a name, and prints one table; see README.md.

Exit code: 0 where every bound is kept within noise, 1 where one is missed, 2 for a part that there is not, 3 where the
machine was too busy to tell.
"""

from __future__ import annotations

import importlib
import sys
import time

from place import made
from rows import Row, table
from runs import Fault

PARTS = ("hit", "cold", "miss", "signing", "search", "list", "growth")


def main(names: list[str]) -> int:
    """Measure, print, judge."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        print(f"bench: there is no part '{unknown[0]}'; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    rows: list[Row] = []
    with made() as place:
        for name in names or PARTS:
            began = time.monotonic()
            try:
                rows += importlib.import_module(f"parts.{name}").measure(place)
            except Fault as fault:
                rows.append(Row(f"{name}: not measured", fault=str(fault)))
            print(f"bench: {name} took {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(table(rows))
    for row in rows:
        if row.fault:
            print(f"{row.name}: {row.fault}")
    return verdict(rows)


def verdict(rows: list[Row]) -> int:
    """Return the exit code, and say in a line what was missed, and what only within noise."""
    missed = [row.name for row in rows if row.verdict == "FAIL"]
    untold = [row.name for row in rows if row.verdict == "unsaid"]
    if missed:
        print(f"bench: {len(missed)} of {len(rows)} missed: {'; '.join(missed)}", file=sys.stderr)
        return 1
    if untold:
        print(f"bench: the machine was too busy to tell: {'; '.join(untold)}", file=sys.stderr)
        return 3
    close = [row.name for row in rows if row.verdict == "close"]
    print("bench: every bound is kept" + (f", within noise: {'; '.join(close)}" if close else ""), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
