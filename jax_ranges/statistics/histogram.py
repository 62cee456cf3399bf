"""Histogram: value bins whose range grows without losing counts."""

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
from jax_ranges.statistics.passes import largest, tally
from jax_ranges.statistics.pooled import Over, Pooled
from jax_ranges.statistics.words import (
    bits_of,
    float_of,
    floor_log2,
    magnitude_of,
    power_of_two,
    real_parts,
    sign_and_magnitude,
)

LEAST, MOST = -100, 1023
"""The exponents of a histogram's range: below, bins would be too small; above is no float64."""


class HistogramState(NamedTuple):
    """The exponent k of the range; counts of positive values by |x|, of negative ones, specials.

    The specials are +inf, -inf, NaN.
    """

    exponent: Any
    counts: Count


@dataclass(frozen=True, eq=False)
class HistogramCounts:
    """How many values there were in each bin.

    Attributes:
      edges: of the bins, ascending, as exact float64: one more than bins.
      counts: how many values there were between them, as int64; leading axes come first.
      pos_inf, neg_inf, nan: how many values are in no bin; integers, or arrays of the leading
        axes.
    """

    edges: np.ndarray
    counts: np.ndarray
    pos_inf: Any
    neg_inf: Any
    nan: Any

    @property
    def total(self) -> Any:
        """How many values there were."""
        return self.counts.sum(-1) + self.pos_inf + self.neg_inf + self.nan

    def __repr__(self) -> str:
        others = {k: getattr(self, k) for k in ("pos_inf", "neg_inf", "nan")}
        counts = ", ".join(f"{k}={np.sum(v)}" for k, v in others.items())
        bins = f"{self.counts.shape[-1]} bins from {self.edges.min():g} to {self.edges.max():g}"
        return f"HistogramCounts({self.counts.sum()} values in {bins}, {counts})"


@dataclass(frozen=True)
class Histogram(Pooled):
    """How many values there were in each of `bins` equal bins, and how many were ±inf or NaN.

    The bins cover [-2**k, 2**k], with the smallest k for which that holds all finite values seen,
    and not less than -100 (nor, for float64, more than 1023: what is larger is in the outermost
    bins). When histograms of different k merge, neighbouring bins of the finer
    one are added pairwise until the ranges agree. So merging is integer arithmetic: exact,
    associative, commutative, and the histogram of several values is the merge of theirs.

    Each bin holds its outer edge, the one further from zero, and not its inner one; zero is in
    the first bin above zero. (Hence values in [-1, 1], which reach 1 often, have k = 0; with
    numpy's half-open bins they would need k = 1 and use half of them.) Complex values count by
    their parts.

    Args:
      bins: a power of two, from 2 to 65536.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = jr.ranges(jnp.sin, stats=jr.Histogram(bins=8))
      >>> _, ranges = f(jnp.linspace(-1.5, 1.5, 100))
      >>> found = ranges.of("sin", jr.Histogram(bins=8))
      >>> found.edges.tolist()
      [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0]
      >>> found.counts.tolist()
      [22, 11, 9, 8, 8, 9, 11, 22]
    """

    bins: int = 2048

    def __post_init__(self) -> None:
        bins = self.bins
        if not isinstance(bins, int) or bins & (bins - 1) or not 2 <= bins <= 1 << 16:
            raise ValueError(f"bins must be a power of two from 2 to 65536, got {bins!r}")

    @property
    def half(self) -> int:
        """How many bins there are on each side of zero."""
        return self.bins // 2

    @property
    def resolution(self) -> int:
        """The width of bins is 2**(k - resolution)."""
        return self.half.bit_length() - 1

    def identity(self, dtype: np.dtype) -> HistogramState:
        return HistogramState(np.array(LEAST, np.int32), counts.nothing((self.bins + 3,)))

    def measure(self, value: jax.Array) -> HistogramState:
        parts = real_parts(value)
        exponents = [_exponent(part) for part in parts]
        k = exponents[0] if len(parts) == 1 else jnp.maximum(*exponents)
        return HistogramState(k, tally([self._codes(part, k) for part in parts], self.bins + 3))

    def _codes(self, x: jax.Array, k: jax.Array) -> jax.Array:
        """Where in the counts each value belongs."""
        if not keys.is_float(x.dtype):
            negative, magnitude = sign_and_magnitude(x)
            bin_ = _bin_of_integer(magnitude, k - self.resolution)
            return jnp.where(negative, bin_ + self.half, bin_)
        bits, kind = bits_of(x), float_of(x.dtype)
        magnitude, negative = magnitude_of(bits), bits < 0
        # A multiplication by a power of two is exact, but for what is flushed to zero; which is
        # in the first bin anyway, and on the side that the bits say.
        scale = power_of_two(self.resolution - k, kind)
        scaled = lax.bitcast_convert_type(magnitude, kind.dtype) * scale
        bin_ = jnp.clip(jnp.ceil(scaled).astype(np.int32) - 1, 0, self.half - 1)
        bin_ = jnp.where(negative & (magnitude != 0), bin_ + self.half, bin_)
        bin_ = jnp.where(magnitude < kind.infinity, bin_, self.bins + 2)
        infinite = jnp.where(negative, self.bins + 1, self.bins)
        return jnp.where(magnitude == kind.infinity, infinite, bin_)

    def merge(self, a: HistogramState, b: HistogramState) -> HistogramState:
        xp = np if all(isinstance(x, np.ndarray | np.generic) for x in jax.tree.leaves(a)) else jnp
        k = xp.maximum(a.exponent, b.exponent)
        parts = (self._coarser(state.counts, k - state.exponent) for state in (a, b))
        return HistogramState(k, counts.add(*parts))

    def pool(self, state: HistogramState, over: Over) -> HistogramState:
        k = over.largest(state.exponent)
        coarser = self._coarser(state.counts, k - state.exponent)
        return HistogramState(k, counts.total(coarser, over.add))

    def _coarser(self, count: Count, times: Any) -> Count:
        """The counts for a range that is 2**times as large; `times` may have leading axes."""
        if isinstance(times, np.ndarray | np.generic) and isinstance(count.low, np.ndarray):
            return self._added_pairwise(count, times) if np.any(times) else count
        # Hardly ever needed once the range has settled, and not quite free.
        return lax.cond(
            jnp.any(jnp.asarray(times) > 0),
            self._added_pairwise,
            lambda count, times: count,
            count,
            times,
        )

    def _added_pairwise(self, count: Count, times: Any) -> Count:
        xp = np if isinstance(count.low, np.ndarray) else jnp
        bins = Count(*(limb[..., : self.bins] for limb in count))
        bins = Count(*(limb.reshape(*limb.shape[:-1], 2, self.half) for limb in bins))
        # Bit by bit of `times`: at most all bins of a side become one.
        times = xp.minimum(times, self.resolution)[..., None, None]
        for bit in range(self.resolution.bit_length()):
            joined = _joined(bins, 1 << bit, xp) if (1 << bit) <= self.resolution else bins
            chosen = (times >> bit) & 1 == 1
            pairs = zip(joined, bins, strict=True)
            bins = Count(*(xp.where(chosen, new, old) for new, old in pairs))
        flat = (limb.reshape(*limb.shape[:-2], self.bins) for limb in bins)
        pairs = zip(flat, count, strict=True)
        return Count(*(xp.concatenate([new, old[..., self.bins :]], -1) for new, old in pairs))

    def read_state(self, state: HistogramState, dtype: np.dtype) -> HistogramCounts:
        found = np.asarray(counts.as_integers(state.counts))
        positive, negative = found[..., : self.half], found[..., self.half : self.bins]
        width = np.ldexp(1.0, np.asarray(state.exponent) - self.resolution)[..., None]
        pos_inf, neg_inf, nan = (
            one if one.ndim else int(one) for one in np.moveaxis(found[..., self.bins :], -1, 0)
        )
        edges = np.arange(-self.half, self.half + 1) * width
        in_order = np.concatenate([negative[..., ::-1], positive], -1)
        return HistogramCounts(edges, in_order, pos_inf, neg_inf, nan)


def _exponent(x: jax.Array) -> jax.Array:
    """The smallest k for which 2**k holds all finite values, and not less than `LEAST`."""
    if not keys.is_float(x.dtype):
        _, magnitude = sign_and_magnitude(x)
        most = largest(magnitude)
        # Of 2**k itself k, of all above that up to the next power of two k + 1.
        k = floor_log2(jnp.maximum(most, most.dtype.type(1)) - most.dtype.type(1)) + 1
        return jnp.where(most == 0, LEAST, k).astype(np.int32)
    kind = float_of(x.dtype)
    magnitude = magnitude_of(bits_of(x))
    most = largest(jnp.where(magnitude < kind.infinity, magnitude, 0))
    up = (most + kind.word.type((1 << kind.fraction) - 1)) >> kind.fraction
    return jnp.clip(up.astype(np.int32) - kind.bias, LEAST, MOST)


def _bin_of_integer(magnitude: jax.Array, shift: jax.Array) -> jax.Array:
    """ceil(magnitude / 2**shift) - 1, and 0 of 0, for shifts of either sign."""
    one = magnitude.dtype.type(1)
    left, right = (jnp.clip(s, 0, 63).astype(magnitude.dtype) for s in (-shift, shift))
    above = (jnp.maximum(magnitude, one) - one) >> right
    finer = jnp.maximum(magnitude << left, one) - one
    return jnp.where(shift > 0, above, finer).astype(np.int32)


def _joined(bins: Count, times: int, xp: Any) -> Count:
    """The first bins are those of a range 2**times as large, the others empty."""
    *lead, half = bins.low.shape
    several = Count(*(limb.reshape(*lead, half >> times, 1 << times) for limb in bins))
    joined = counts.summed(several, -1)
    pad = [(0, 0)] * len(lead) + [(0, half - (half >> times))]
    return Count(*(xp.pad(limb, pad) for limb in joined))
