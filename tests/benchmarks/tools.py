"""What else can be taken of a function than ranges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

import jax_ranges as jr
from tests.benchmarks.measure import Fun
from tests.benchmarks.stored import storing

Tool = Callable[[Fun, Sequence[Any], dict[str, Any]], Fun]
"""Makes the function to be measured of one, of arguments for it, and of options of `jr.ranges`."""


def _taking(*stats: jr.Statistic) -> Tool:
    return lambda fun, args, how: jr.ranges(fun, stats=stats, **how)


def _births(fun: Fun, args: Sequence[Any], how: dict[str, Any]) -> Fun:
    return jr.find_nonfinite(fun, select=how["select"])


def _guard(fun: Fun, args: Sequence[Any], how: dict[str, Any]) -> Fun:
    _, expected = jax.jit(jr.ranges(fun, **how))(*args)
    return jr.guard(fun, expected, select=how["select"])


TOOLS: dict[str, Tool] = {
    "stored": storing,
    "guard": _guard,
    "births": _births,
    "Health": _taking(jr.MinMax(), jr.Health()),
    "Moments": _taking(jr.MinMax(), jr.Moments()),
    "Exponents": _taking(jr.MinMax(), jr.Exponents()),
    "Histogram": _taking(jr.MinMax(), jr.Histogram()),
}

LEGEND = {
    "stored": "every measured value stored, and nothing reduced",
    "guard": "jr.guard with the ranges that there are",
    "births": "jr.find_nonfinite",
    "Health": "ranges, and counts of NaN, inf, zeros and subnormals",
    "Moments": "ranges, and mean and variance",
    "Exponents": "ranges, and how many values there are of each power of two",
    "Histogram": "ranges, and histograms of 2,048 bins",
}
