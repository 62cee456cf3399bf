"""Moments: count, mean and variance, by the pooled formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges import keys
from jax_ranges.statistics import counts
from jax_ranges.statistics.counts import Count
from jax_ranges.statistics.passes import folded, summed
from jax_ranges.statistics.pooled import Over, Pooled
from jax_ranges.statistics.words import (
    bits_of,
    exponent_above,
    float_of,
    least_exponent,
    magnitude_of,
    power_of_two,
    real_parts,
)
from jax_ranges.stats import TOGETHER, as_scalar, in_one_reduction, size_of


class MomentState(NamedTuple):
    """Counts of finite and of other values; mean and sum of squared deviations, scaled.

    They are those of values divided by 2**exponent, so that squares neither overflow nor
    underflow.
    """

    counts: Count
    exponent: Any
    mean: Any
    m2: Any


@dataclass(frozen=True, eq=False)
class MomentValues:
    """Moments of the finite values: numbers of numpy, or arrays of the leading axes.

    Attributes:
      count: how many finite values there were.
      mean: their mean, in float64; NaN if there were none.
      variance: the mean of squared deviations from it (of the population, not of a sample).
      nonfinite: how many values were left out: NaN and ±inf.
    """

    count: Any
    mean: Any
    variance: Any
    nonfinite: Any

    @property
    def std(self) -> Any:
        """The standard deviation."""
        return np.sqrt(self.variance)


@dataclass(frozen=True)
class Moments(Pooled):
    """Count, mean and variance of the finite values; NaN and ±inf are counted apart.

    Computed in float32 (float64 for dtypes of 64 bits), of values scaled by a power of two where
    they would overflow or underflow, in two passes: the mean, then squared deviations from it.
    States merge by the pooled formula (Chan, Golub and LeVeque 1979, "Updating formulae and a
    pairwise algorithm for computing sample variances"), so there is no difference of large sums.
    Merging is associative but for rounding. Complex values count by their parts, subnormals as
    zeros where the backend's arithmetic flushes them.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.square, stats=jr.Moments())(jnp.array([1.0, 2.0, jnp.nan]))
      >>> found = ranges.of("square", jr.Moments())
      >>> found.count, float(found.mean), float(found.variance), found.nonfinite
      (2, 2.5, 2.25, 1)
    """

    def identity(self, dtype: np.dtype) -> MomentState:
        kind = float_of(dtype)
        zero = np.zeros((), kind.dtype)
        return MomentState(
            counts.nothing((2,)), np.array(least_exponent(kind), np.int32), zero, zero
        )

    def measure(self, value: jax.Array) -> MomentState:
        states = [_moments(part) for part in real_parts(value)]
        return states[0] if len(states) == 1 else self.merge(*states)

    def merge(self, a: MomentState, b: MomentState) -> MomentState:
        xp = np if all(isinstance(x, np.ndarray | np.generic) for x in jax.tree.leaves(a)) else jnp
        exponent = xp.maximum(a.exponent, b.exponent)
        a, b = (_rescaled(state, exponent, xp) for state in (a, b))
        count = counts.add(a.counts, b.counts)
        of_a, of_b = (_finite(state.counts, a.mean.dtype) for state in (a, b))
        # Not divided by the sum of both, which may be rounded: the shares must not exceed 1.
        share = of_b / xp.maximum(of_a + of_b, 1)
        delta = b.mean - a.mean
        # Symmetric, so that merging commutes: the mean of the two, and what is more of one.
        mean = a.mean * (1 - share) + b.mean * share
        m2 = a.m2 + b.m2 + delta * delta * (share * (1 - share)) * (of_a + of_b)
        return MomentState(count, exponent, mean, m2)

    def pool(self, state: MomentState, over: Over) -> MomentState:
        exponent = over.largest(state.exponent)
        state = _rescaled(state, exponent, jnp)
        count = _finite(state.counts, state.mean.dtype)
        mean = over.add(state.mean * (count / jnp.maximum(over.add(count), 1)))
        delta = state.mean - mean
        m2 = over.add(state.m2 + delta * delta * count)
        return MomentState(counts.total(state.counts, over.add), exponent, mean, m2)

    def convert(self, state: MomentState, dtype: np.dtype, to: np.dtype) -> MomentState:
        wide = float_of(to).dtype
        return state._replace(mean=state.mean.astype(wide), m2=state.m2.astype(wide))

    def read_state(self, state: MomentState, dtype: np.dtype) -> MomentValues:
        found = np.asarray(counts.as_integers(state.counts))
        count, nonfinite = (x if x.ndim else int(x) for x in np.moveaxis(found, -1, 0))
        scale = np.ldexp(1.0, state.exponent)
        with np.errstate(all="ignore"):
            mean = np.where(count, np.asarray(state.mean, np.float64) * scale, np.nan)
            scaled = np.asarray(state.m2, np.float64) / np.asarray(count, np.float64)
            variance = scaled * scale * scale
        return MomentValues(count, mean[()], variance[()], nonfinite)


def _moments(x: jax.Array) -> MomentState:
    """Of real numbers."""
    values = x if keys.is_float(x.dtype) else x.astype(float_of(x.dtype).dtype)
    if size_of(x.shape) <= TOGETHER or not in_one_reduction():
        return _of_any(values)
    mean, m2 = _plainly(values)
    # No magnitude is above the sum of these two.
    above = bits_of(jnp.abs(mean) + jnp.sqrt(m2))
    exponent = exponent_above(above, float_of(values.dtype))
    count = _counted(x.size, jnp.zeros_like(m2, np.uint32))
    found = _rescaled(MomentState(count, np.int32(0), mean, m2), exponent, jnp)
    # Nothing was infinite or NaN; and squares that underflow, below 2**-126 each, do not count.
    fine = (m2 <= 2.0**120) & (m2 >= as_scalar(x.size, m2.dtype) * 2.0**-106)
    return lax.cond(fine, lambda _: found, _of_any, values)


def _plainly(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and sum of squared deviations, where all is finite: two runs of a library (`passes`)."""
    values = values.astype(float_of(values.dtype).dtype)
    mean = summed(values) / as_scalar(values.size, values.dtype)
    return mean, summed(jnp.square(values - mean))


def _of_any(values: jax.Array) -> MomentState:
    """Of floats, finite or not, and as large or small as they may be."""
    kind = float_of(values.dtype)
    bits = bits_of(values)
    magnitude = magnitude_of(bits)
    finite = magnitude < kind.infinity
    ones = (~finite).astype(np.uint32)
    left_out, most = folded([lax.add, lax.max], [ones, jnp.where(finite, magnitude, 0)])
    count = jnp.maximum(as_scalar(values.size, np.uint32) - left_out, 1).astype(kind.dtype)
    exponent = exponent_above(most, kind)
    scaled = lax.bitcast_convert_type(bits, kind.dtype) * power_of_two(-exponent, kind)
    mean = summed(jnp.where(finite, scaled, 0)) / count
    m2 = summed(jnp.square(jnp.where(finite, scaled - mean, 0)))
    return MomentState(_counted(values.size, left_out), exponent, mean, m2)


def _counted(size: Any, left_out: jax.Array) -> Count:
    """The counts of a state, of so many values."""
    return counts.counted(jnp.stack([as_scalar(size, np.uint32) - left_out, left_out]))


def _rescaled(state: MomentState, exponent: Any, xp: Any) -> MomentState:
    kind = float_of(state.mean.dtype)
    factor = power_of_two(state.exponent - exponent, kind, xp)
    return MomentState(state.counts, exponent, state.mean * factor, state.m2 * factor * factor)


def _finite(count: Count, dtype: Any) -> Any:
    """The counts of finite values, as floats."""
    return counts.as_float(Count(*(limb[..., 0] for limb in count)), np.dtype(dtype))
