"""The tables that a run prints, and what says on which machine it ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from tests.benchmarks.measure import Comparison, Spread
from tests.benchmarks.nets import NetRow
from tests.benchmarks.peers import LEGEND
from tests.benchmarks.tools import TOOLS

# A ratio to less memory than that says nothing; what is added is shown instead.
LITTLE = 16 << 10


@dataclass(frozen=True)
class Row:
    """What was found for one case; `peers` and `tools` by their names."""

    name: str
    sites: int
    reductions: int
    found: Comparison
    peers: dict[str, dict[str, Any]]
    tools: dict[str, Comparison]


def _table(title: str, first: str, heads: Iterable[str]) -> Table:
    """An empty one: names in its first column, numbers in the others."""
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def main_table(rows: Sequence[Row], selected: Sequence[Row]) -> Table:
    """Ratios to `jax.jit(f)`."""
    heads = ("sites", "reductions", "f, ms", "run", "quartiles", "compile", "trace", "memory")
    table = _table("jr.ranges(f) to f, both under jax.jit", "function", heads)
    for row in rows:
        table.add_row(*_cells(row))
    table.add_section()
    for row in selected:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    found = row.found
    return [
        row.name,
        f"{row.sites}",
        f"{row.reductions}",
        f"{1e3 * found.seconds:.3g}",
        f"{found.run.median:.2f}",
        f"{found.run.low:.2f}–{found.run.high:.2f}",
        f"{found.compile[1] / found.compile[0]:.1f}",
        f"{found.trace[1] / found.trace[0]:.1f}",
        memory(*found.temporary),
    ]


def memory(plain: int | None, other: int | None) -> str:
    """The ratio of temporary memory, or how much more it is than next to nothing."""
    if plain is None or other is None:
        return "-"
    if plain >= LITTLE:
        return f"{other / plain:.2f}"
    added = (other - plain) / 1024
    return f"{added:+.0f} KiB" if abs(added) < 1024 else f"{added / 1024:+.1f} MiB"


def geometric_mean(rows: Iterable[Row]) -> float:
    return float(np.exp(np.mean([np.log(row.found.run.median) for row in rows])))


def net_table(rows: Sequence[NetRow]) -> Table:
    """What `jr.Net` costs."""
    table = _table("jr.Net", "what", ("figure", "quartiles", "samples"))
    for row in rows:
        digits = 3 if row.unit == "ratio" else 1
        unit = "" if row.unit == "ratio" else f" {row.unit}"
        spread = f"{row.value.low:.{digits}f}–{row.value.high:.{digits}f}"
        table.add_row(row.name, f"{row.value.median:.{digits}f}{unit}", spread, str(row.samples))
    return table


# -- alternatives -----------------------------------------------------------------------------


def peer_table(rows: Sequence[Row]) -> Table:
    """Run ratio, and compile ratio in parentheses, of each alternative beside this package's."""
    title = "against the alternatives: run (compile), to jax.jit(f)"
    table = _table(title, "function", ("jr.ranges", *LEGEND))
    for row in rows:
        if row.peers:
            table.add_row(
                row.name, _found(row.found), *(_peer_cell(row.peers[name]) for name in LEGEND)
            )
    return table


def _peer_cell(found: dict[str, Any]) -> str:
    if "run" not in found:
        return f"- {found['short']}"
    return _pair(Spread(*found["run"]).median, found["compile"])


def tools_table(rows: Sequence[Row]) -> Table:
    """Run ratio, and compile ratio in parentheses, of what else can be taken."""
    title = "what else can be taken: run (compile), to jax.jit(f)"
    table = _table(title, "function", ("ranges", *TOOLS))
    for row in rows:
        if row.tools:
            table.add_row(row.name, *map(_found, (row.found, *row.tools.values())))
    return table


def _found(found: Comparison) -> str:
    return _pair(found.run.median, found.compile[1] / found.compile[0])


def _pair(run: float, compiled: float) -> str:
    return f"{run:.2f} ({compiled:.1f})"


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why there is a dash in the table."""
    return [
        f"{row.name}, {name}: {found['why']}"
        for row in rows
        for name, found in row.peers.items()
        if "run" not in found and found["short"] != "n/a"
    ]


# -- the machine ------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """What figures depend on."""
    packages = ("jax", "jaxlib", "numpy", "flax")
    versions = {name: _version(name) for name in packages}
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        **{name: version for name, version in versions.items() if version},
        "Python": platform.python_version(),
        "backend": f"{jax.default_backend()} ({device.device_kind} x {jax.device_count()})",
        "cores": f"{cores} ({_processor()})",
        "load": load(),
    }


def load() -> str:
    """How many processes wanted to run in the last minute, these included."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
