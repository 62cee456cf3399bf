"""What else can be taken of a function than ranges, and the least that anything can cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax

import jax_ranges as jr
from jax_ranges import keys
from jax_ranges.stats import TOGETHER, Extrema, MinMax, Stages, as_rows
from tests.benchmarks.measure import Fun

Tool = Callable[[Fun, Sequence[Any], dict[str, Any]], Fun]
"""Makes the function to be measured of one, of arguments for it, and of options of `jr.ranges`."""


@dataclass(frozen=True)
class Read(MinMax):
    """A floor: of every value that MinMax measures each element is read, once, and no more.

    Of its bits the largest is taken, which is the cheapest exact reduction there is; which values
    are read, in how many stages, and which of them together, is as for MinMax.
    """

    def begin(self, value: jax.Array) -> jax.Array | Extrema:
        if value.size <= TOGETHER:
            return value
        rows, row = as_rows(value.shape)
        axes = tuple(range(len(rows), len(rows) + len(row)))
        state = self._measure(value.reshape(*rows, *row), [axes])
        return Extrema(*(leaf.ravel() for leaf in state))

    def _measure(self, value: jax.Array, stages: Stages) -> Extrema:
        bits = keys.float_bits(value) if keys.is_float(value.dtype) else keys.integer_key(value)
        for axes in stages:
            bits = lax.reduce_max(bits, axes)
        word = keys.key_dtype(keys.real_dtype(value.dtype))
        return Extrema(*[bits.astype(word)] * 3)


def _taking(*stats: jr.Statistic) -> Tool:
    return lambda fun, args, how: jr.ranges(fun, stats=stats, **how)


def _births(fun: Fun, args: Sequence[Any], how: dict[str, Any]) -> Fun:
    return jr.find_nonfinite(fun, select=how["select"])


def _guard(fun: Fun, args: Sequence[Any], how: dict[str, Any]) -> Fun:
    _, expected = jax.jit(jr.ranges(fun, **how))(*args)
    return jr.guard(fun, expected, select=how["select"])


TOOLS: dict[str, Tool] = {
    "read only": _taking(Read()),
    "guard": _guard,
    "births": _births,
    "Health": _taking(jr.MinMax(), jr.Health()),
    "Moments": _taking(jr.MinMax(), jr.Moments()),
    "Exponents": _taking(jr.MinMax(), jr.Exponents()),
    "Histogram": _taking(jr.MinMax(), jr.Histogram()),
}

LEGEND = {
    "read only": "no tool, a floor: every value that jr.ranges measures, read once",
    "guard": "jr.guard with the ranges that there are",
    "births": "jr.find_nonfinite",
    "Health": "ranges, and counts of NaN, inf, zeros and subnormals",
    "Moments": "ranges, and mean and variance",
    "Exponents": "ranges, and how many values there are of each power of two",
    "Histogram": "ranges, and histograms of 2,048 bins",
}
