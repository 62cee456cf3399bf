"""Exponents: a signed histogram over powers of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import keys
from jax_ranges.statistics import counts
from jax_ranges.statistics.counts import Count
from jax_ranges.statistics.passes import tally
from jax_ranges.statistics.pooled import Over, Pooled
from jax_ranges.statistics.words import (
    DOUBLE,
    SINGLE,
    Float,
    bits_of,
    floor_log2,
    magnitude_of,
    real_parts,
    sign_and_magnitude,
)


class ExponentState(NamedTuple):
    """Counts of positive values by exponent, of negative ones, of 0, +inf, -inf, NaN."""

    counts: Count


@dataclass(frozen=True, eq=False)
class ExponentCounts:
    """How many values there were in each power of two, as numpy arrays of int64.

    Attributes:
      exponents: the values of floor(log2|x|) that are told apart.
      negative, positive: how many values have each of them; leading axes (of vmap and stacked
        loops) come first.
      zero, pos_inf, neg_inf, nan: how many values are none of these; integers, or arrays of the
        leading axes.
    """

    exponents: np.ndarray
    negative: np.ndarray
    positive: np.ndarray
    zero: Any
    pos_inf: Any
    neg_inf: Any
    nan: Any

    @property
    def total(self) -> Any:
        """How many values there were."""
        finite = self.negative.sum(-1) + self.positive.sum(-1)
        return finite + self.zero + self.pos_inf + self.neg_inf + self.nan

    def __repr__(self) -> str:
        of_all = (self.negative + self.positive).reshape(-1, len(self.exponents)).sum(0)
        seen = self.exponents[of_all > 0]
        span = f"2**{seen[0]} to 2**{seen[-1]}" if seen.size else "none"
        others = {k: getattr(self, k) for k in ("zero", "pos_inf", "neg_inf", "nan")}
        counts = ", ".join(f"{k}={np.sum(v)}" for k, v in others.items())
        return f"ExponentCounts({of_all.sum()} values, {span}, {counts})"


@dataclass(frozen=True)
class Exponents(Pooled):
    """How many values there were of each sign and each floor(log2|x|), zeros, ±inf and NaN.

    From it follows for every format how much would overflow, underflow or become subnormal. The
    exponents are those of float32, -149 to 127, for all dtypes but float64 and complex128, which
    have -1074 to 1023: subnormals are told apart by their own exponents, and integers of any size
    fit in. -0.0 counts as zero. Complex values count by their parts. Counts are exact.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(lambda x: x * x, stats=jr.Exponents())(jnp.array([0.0, 1.0, 3.0]))
      >>> found = ranges.of("mul", jr.Exponents())
      >>> {int(e): int(n) for e, n in zip(found.exponents, found.positive) if n}, found.zero
      ({0: 1, 3: 1}, 1)
    """

    def identity(self, dtype: np.dtype) -> ExponentState:
        return ExponentState(counts.nothing((2 * _kind_of(dtype).exponents + 4,)))

    def measure(self, value: jax.Array) -> ExponentState:
        kind = _kind_of(value.dtype)
        codes = [_codes(part, kind) for part in real_parts(value)]
        return ExponentState(tally(codes, 2 * kind.exponents + 4))

    def merge(self, a: ExponentState, b: ExponentState) -> ExponentState:
        return ExponentState(counts.add(a.counts, b.counts))

    def pool(self, state: ExponentState, over: Over) -> ExponentState:
        return ExponentState(counts.total(state.counts, over.add))

    def convert(self, state: ExponentState, dtype: np.dtype, to: np.dtype) -> ExponentState:
        old, new = _kind_of(dtype), _kind_of(to)
        if old == new:
            return state
        assert new is DOUBLE, "numbers are converted to wider dtypes only"
        return ExponentState(Count(*(_widened(limb, old, new) for limb in state.counts)))

    def read_state(self, state: ExponentState, dtype: np.dtype) -> ExponentCounts:
        kind = _kind_of(dtype)
        n = kind.exponents
        found = np.asarray(counts.as_integers(state.counts))
        zero, pos_inf, neg_inf, nan = (
            one if one.ndim else int(one) for one in np.moveaxis(found[..., 2 * n :], -1, 0)
        )
        exponents = np.arange(kind.lowest, kind.lowest + n)
        negative, positive = found[..., n : 2 * n], found[..., :n]
        return ExponentCounts(exponents, negative, positive, zero, pos_inf, neg_inf, nan)


def _kind_of(dtype: Any) -> Float:
    return DOUBLE if keys.real_dtype(np.dtype(dtype)) == np.dtype(np.float64) else SINGLE


def _codes(x: jax.Array, kind: Float) -> jax.Array:
    """Where in the counts each value belongs."""
    n = kind.exponents
    if not keys.is_float(x.dtype):
        negative, magnitude = sign_and_magnitude(x)
        # The exponent of 1 is 0, in the place -lowest.
        place = floor_log2(magnitude) - kind.lowest + jnp.where(negative, n, 0)
        return jnp.where(magnitude == 0, 2 * n, place).astype(np.int32)
    bits = bits_of(x)
    magnitude, negative = magnitude_of(bits), bits < 0
    field = (magnitude >> kind.fraction).astype(np.int32)
    # A subnormal is its bits times the smallest subnormal, which has place 0.
    place = jnp.where(field > 0, field + (kind.fraction - 1), floor_log2(magnitude))
    place = jnp.where(negative, place + n, place)
    infinite = jnp.where(negative, 2 * n + 2, 2 * n + 1)
    place = jnp.where(magnitude < kind.infinity, place, 2 * n + 3)
    place = jnp.where(magnitude == kind.infinity, infinite, place)
    return jnp.where(magnitude == 0, 2 * n, place).astype(np.int32)


def _widened(limb: Any, old: Float, new: Float) -> Any:
    """Counts by the exponents of one float, as those by the exponents of a wider one."""
    xp = np if isinstance(limb, np.ndarray) else jnp
    n, before = old.exponents, old.lowest - new.lowest
    pad = [(0, 0)] * (limb.ndim - 1) + [(before, new.exponents - n - before)]
    parts = [xp.pad(limb[..., i : i + n], pad) for i in (0, n)]
    return xp.concatenate([*parts, limb[..., 2 * n :]], -1)
