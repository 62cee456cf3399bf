"""What observing costs, measured.

python -m tests.benchmarks [--only NAME...] [--peer] [--tools] [--quick]
                           [--select GLOB] [--seconds S] [--json FILE]

prints for each function of a set what `jr.ranges` of it takes, in proportion to the function
itself. README.md beside this file says what the columns and the rows mean.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

# Measurements of alternatives are processes beside this one, which must leave them memory on
# the device; to be said before JAX is imported.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

from rich.console import Console

import jax_ranges as jr
from tests.benchmarks import nets, peers, table, tools
from tests.benchmarks.cases import SELECTED, SET, Case
from tests.benchmarks.measure import Comparison, Fun, compare
from tests.benchmarks.nets import NetRow
from tests.benchmarks.table import Row

T = TypeVar("T")
SECONDS, QUICK_SECONDS = 6.0, 0.7
# Of one measurement of an alternative, with the start of its process.
LIMIT, QUICK_LIMIT = 90.0, 30.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status says whether everything that was there could be."""
    options = _options(argv)
    run = Run(options)
    try:
        run.all()
    except KeyboardInterrupt:
        run.notes.append("interrupted: what follows was not measured")
    # Where nobody sees it (a file, CI) the width is a guess of 80, and the tables need more.
    run.show(Console(width=None if sys.stdout.isatty() else 140))
    if options.json is not None:
        Path(options.json).write_text(json.dumps(run.record(), indent=1) + "\n")
    return 1 if run.failed else 0


class Run:
    """One run over the set: what was found so far."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.rows: list[Row] = []
        self.selected: list[Row] = []
        self.nets: list[NetRow] = []
        self.notes: list[str] = []
        self.failed = False
        self.environment = table.environment()

    def all(self) -> None:
        for case in self._chosen(SET):
            self.rows += self._tried(case.name, lambda case=case: self._row(case))
        for case in self._chosen(SELECTED):
            self.selected += self._tried(case.name, lambda case=case: self._row(case))
        for name, measure in nets.rows(self.options.seconds, self.options.quick).items():
            if self._wanted(name):
                self.nets += self._tried(name, measure)

    def _chosen(self, cases: Sequence[Case]) -> Iterator[Case]:
        return (case for case in cases if self._wanted(case.name))

    def _wanted(self, name: str) -> bool:
        only = self.options.only
        return not only or any(part.lower() in name.lower() for part in only)

    def _tried(self, name: str, measure: Callable[[], T]) -> list[T]:
        """What was measured, or nothing and a note why."""
        start = time.perf_counter()
        print(f"{name} ... ", end="", file=sys.stderr, flush=True)
        try:
            return [measure()]
        except ModuleNotFoundError as error:
            self.notes.append(f"{name} is left out: {error}")
        except Exception as error:  # one function that fails must not end the others
            self.failed = True
            self.notes.append(f"{name} failed: {type(error).__name__}: {error}")
        finally:
            print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        return []

    def _row(self, case: Case) -> Row:
        options = self.options
        how: dict[str, Any] = {"select": case.select or options.select, "loops": case.loops}
        fun, args = case.made(options.quick)
        plan = jr.plan(fun, **how)(*args)
        found = compare(lambda: fun, lambda: jr.ranges(fun, **how), args, options.seconds)
        others = self._peers(case) if options.peer and case.peers else {}
        more = self._tools(fun, args, how) if options.tools and case.peers else {}
        return Row(case.name, len(plan.sites), plan.reductions, found, others, more)

    def _tools(self, fun: Fun, args: Sequence[Any], how: dict[str, Any]) -> dict[str, Comparison]:
        def measured(tool: tools.Tool) -> Comparison:
            return compare(lambda: fun, lambda: tool(fun, args, how), args, self.options.seconds)

        return {name: measured(tool) for name, tool in tools.TOOLS.items()}

    def _peers(self, case: Case) -> dict[str, dict[str, Any]]:
        options = self.options
        limit = QUICK_LIMIT if options.quick else LIMIT
        return {
            name: peers.measured(case, name, options.seconds, options.quick, limit)
            for name in peers.PEERS
        }

    # -- showing --------------------------------------------------------------------------

    def show(self, console: Console) -> None:
        console.print(table.main_table(self.rows, self.selected))
        if self.rows:
            mean = table.geometric_mean(self.rows)
            console.print(f"geometric mean of {len(self.rows)} run ratios: {mean:.3f}\n")
        if self.nets:
            console.print(table.net_table(self.nets))
        if any(row.peers for row in self.rows):
            console.print(table.peer_table(self.rows))
            for name, meaning in peers.LEGEND.items():
                console.print(f"  {name}: {meaning}", highlight=False)
        if any(row.tools for row in self.rows):
            console.print(table.tools_table(self.rows))
            for name, meaning in tools.LEGEND.items():
                console.print(f"  {name}: {meaning}", highlight=False)
        for note in (*self.notes, *table.reasons(self.rows)):
            console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
        versions = ", ".join(f"{name} {value}" for name, value in self.environment.items())
        console.print(f"{versions}, at the end {table.load()}", highlight=False, soft_wrap=True)

    def record(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "environment": self.environment,
            "quick": self.options.quick,
            "select": self.options.select,
            "geometric mean": table.geometric_mean(self.rows) if self.rows else None,
            "rows": [asdict(row) for row in self.rows],
            "selected": [asdict(row) for row in self.selected],
            "nets": [asdict(row) for row in self.nets],
            "notes": self.notes,
        }


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="What observing costs, measured."
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="rows whose names contain one of these"
    )
    parser.add_argument("--peer", action="store_true", help="measure the alternatives too")
    parser.add_argument("--tools", action="store_true", help="measure what else can be taken, too")
    parser.add_argument("--quick", action="store_true", help="small and few: under two minutes")
    parser.add_argument("--select", metavar="GLOB", help="measure these operations only")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"for the builds of a row, and for its runs; {SECONDS:g}, or {QUICK_SECONDS:g} with "
        f"--quick",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to a file")
    options = parser.parse_args(argv)
    if options.seconds is None:
        options.seconds = QUICK_SECONDS if options.quick else SECONDS
    return options


if __name__ == "__main__":
    sys.exit(main())
