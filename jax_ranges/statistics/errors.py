"""Errors: how far the values of a rounded run are from those of an exact one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges.statistics import counts
from jax_ranges.statistics.counts import Count
from jax_ranges.statistics.passes import folded
from jax_ranges.statistics.pooled import Over, Pooled
from jax_ranges.statistics.words import (
    DOUBLE,
    SINGLE,
    bits_of,
    exponent_above,
    float_of,
    least_exponent,
    magnitude_of,
    power_of_two,
    real_parts,
)
from jax_ranges.stats import of_rank, size_of


class Seen(NamedTuple):
    """One value of a site in both runs, and what lies between.

    Attributes:
      exact: in the exact run.
      before: what the operation gives, unrounded, for the operands of the rounded run.
      rounded: in the rounded run.
    """

    exact: Any
    before: Any
    rounded: Any


EXACT, BEFORE, LOCAL, INHERITED, TOTAL = range(5)
"""Of what there are norms: two signals; rounded - before, before - exact, rounded - exact."""


class ErrorState(NamedTuple):
    """Counts, in the order of `ErrorValues`, and for each of the five norms three numbers.

    `largest` magnitude and sum of `squares` are those of values divided by 2**exponent, so that
    squares neither overflow nor underflow; float32 whatever the values are.
    """

    counts: Count
    exponent: Any
    largest: Any
    squares: Any


@dataclass(frozen=True, eq=False)
class ErrorValues:
    """Counts of elements, and norms of those that are finite on all sides.

    Numbers of numpy, or arrays of the leading axes; of `norms` and `largest` the last axis is
    for the five.

    Attributes:
      elements: how many elements were seen.
      compared: how many of them were finite in both runs, and in between.
      introduced: how many became NaN or infinite by the rounding alone (or finite by it).
      inherited: how many did by the operands alone.
      differing: how many are finite in one of the two runs only.
      norms: roots of the sums of squares, in float64.
      largest: the largest magnitudes.
    """

    elements: Any
    compared: Any
    introduced: Any
    inherited: Any
    differing: Any
    norms: Any
    largest: Any


@dataclass(frozen=True)
class Errors(Pooled):
    """Norms of the errors that an operation introduces and inherits; measures `Seen`.

    Sums of squares are float32, of values scaled by a power of two (as LAPACK's `lassq` scales).
    A sum of n squares is off by less than n * 2**-24 of itself, as no term is negative. Of more
    than 4096 elements rows are summed first, and n is the length of a row plus the number of
    rows. Merging adds 2**-24 each time. So the decibels of 1e5 merges are still right to 0.03.
    Differences are exact in all but the last bit, but for those below twice the smallest normal
    number, which count as zeros where the backend flushes subnormals.
    Integers and booleans count as floats. Complex values count by their parts.
    """

    positional: ClassVar[bool] = True
    kept: ClassVar[int] = 1 << 20

    def identity(self, dtype: np.dtype) -> ErrorState:
        del dtype
        zeros = np.zeros(5, np.float32)
        least = np.full(5, least_exponent(DOUBLE), np.int32)
        return ErrorState(counts.nothing((5,)), least, zeros, zeros)

    def measure(self, value: Any) -> ErrorState:
        return self._measure(value, 0)

    def alike(self, shape: tuple[int, ...], repeats: bool) -> Hashable:
        # Its two reductions take long to compile: so they are of all values of a size at once.
        elements = size_of(shape)
        several = 0 < elements <= self.kept // 2 and jax.device_count() == 1
        return ("value", elements) if several else None

    def begin(self, value: Any) -> Any:
        return Seen(*map(jnp.ravel, value))

    def finish(self, begun: Sequence[Any]) -> ErrorState:
        return self._measure(jax.tree.map(lambda *parts: jnp.stack(parts), *begun), 1)

    def _measure(self, value: Any, lead: int) -> ErrorState:
        # The barrier makes one copy of them: else they are computed again in each reduction.
        values = lax.optimization_barrier(tuple(value))
        exact, before, rounded = map(real_parts, values)
        parts = zip(exact, before, rounded, strict=True)
        states = [_measured(e, b, r, lead) for e, b, r in parts]
        return states[0] if len(states) == 1 else self.merge(*states)

    def merge(self, a: ErrorState, b: ErrorState) -> ErrorState:
        xp = np if all(isinstance(x, np.ndarray | np.generic) for x in jax.tree.leaves(a)) else jnp
        exponent = xp.maximum(a.exponent, b.exponent)
        a, b = (_rescaled(state, exponent, xp) for state in (a, b))
        largest, squares = xp.maximum(a.largest, b.largest), a.squares + b.squares
        return ErrorState(counts.add(a.counts, b.counts), exponent, largest, squares)

    def pool(self, state: ErrorState, over: Over) -> ErrorState:
        exponent = over.largest(state.exponent)
        state = _rescaled(state, exponent, jnp)
        count = counts.total(state.counts, over.add)
        return ErrorState(count, exponent, over.largest(state.largest), over.add(state.squares))

    def read_state(self, state: ErrorState, dtype: np.dtype) -> ErrorValues:
        found = np.moveaxis(np.asarray(counts.as_integers(state.counts)), -1, 0)
        scale = np.ldexp(1.0, state.exponent)
        norms = np.sqrt(np.asarray(state.squares, np.float64)) * scale
        largest = np.asarray(state.largest, np.float64) * scale
        elements, *others = (x if x.ndim else int(x) for x in found)
        return ErrorValues(elements, *others, norms=norms, largest=largest)


def _measured(exact: jax.Array, before: jax.Array, rounded: jax.Array, lead: int) -> ErrorState:
    """Of real numbers; the first `lead` axes stay."""
    wide = any(float_of(x.dtype) is DOUBLE for x in (exact, before, rounded))
    kind = DOUBLE if wide else SINGLE
    values = [x.astype(kind.dtype) for x in (exact, before, rounded)]
    a, b, c = (magnitude_of(bits_of(x)) < kind.infinity for x in values)
    compared = a & b & c
    numbers = [x.astype(np.uint32) for x in (jnp.ones_like(a), compared, b ^ c, a ^ b, a ^ c)]
    exact, before, rounded = (jnp.where(compared, x, 0) for x in values)
    # Of halves, because the difference of two large numbers may overflow.
    e, b, r = (x * kind.dtype.type(0.5) for x in (exact, before, rounded))
    five = [exact, before, r - b, b - e, r - e]
    ops = [lax.add] * 5 + [lax.max] * 5
    found = folded(ops, [*numbers, *map(jnp.abs, five)], lead)
    count, most = (jnp.stack(part, -1) for part in (found[:5], found[5:]))
    exponent = exponent_above(bits_of(most), kind)
    scale = power_of_two(-exponent, kind)
    axes = range(lead, exact.ndim)
    scaled = [x * jnp.expand_dims(scale[..., i], axes) for i, x in enumerate(five)]
    squares = folded([lax.add] * 5, [x.astype(np.float32) ** 2 for x in scaled], lead)
    return ErrorState(
        counts.counted(count),
        exponent + of_rank(np.array([0, 0, 1, 1, 1], np.int32), exponent.ndim),
        (most * scale).astype(np.float32),
        jnp.stack(squares, -1),
    )


def _rescaled(state: ErrorState, exponent: Any, xp: Any) -> ErrorState:
    factor = power_of_two(state.exponent - exponent, SINGLE, xp)
    squares = state.squares * factor * factor
    return state._replace(exponent=exponent, largest=state.largest * factor, squares=squares)
