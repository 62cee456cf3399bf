"""Health: how many values are NaN, infinite, zero, negative, positive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import keys
from jax_ranges.statistics import counts
from jax_ranges.statistics.counts import Count
from jax_ranges.statistics.passes import occurrences
from jax_ranges.statistics.pooled import Over, Pooled
from jax_ranges.statistics.words import (
    bits_of,
    float_of,
    magnitude_of,
    real_parts,
    sign_and_magnitude,
)
from jax_ranges.stats import as_scalar


class HealthState(NamedTuple):
    """The counts, in the order of `HealthCounts`."""

    counts: Count


@dataclass(frozen=True, eq=False)
class HealthCounts:
    """How many values of each kind there were: integers, or arrays of the leading axes.

    Every value is of exactly one kind; `negative` and `positive` are those that are finite.
    """

    nan: Any
    pos_inf: Any
    neg_inf: Any
    zero: Any
    negative: Any
    positive: Any

    @property
    def total(self) -> Any:
        """How many values there were."""
        infinite = self.pos_inf + self.neg_inf
        return self.nan + infinite + self.zero + self.negative + self.positive


@dataclass(frozen=True)
class Health(Pooled):
    """How many values are NaN, +inf, -inf, zero (of either sign), negative, positive.

    Counts are exact. Subnormals are no zeros. Complex values count by their parts.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.log, stats=jr.Health())(jnp.array([-1.0, 0.0, 1.0, 2.0]))
      >>> ranges.of("log", jr.Health())
      HealthCounts(nan=1, pos_inf=0, neg_inf=1, zero=1, negative=0, positive=1)
    """

    def identity(self, dtype: np.dtype) -> HealthState:
        return HealthState(counts.nothing((6,)))

    def measure(self, value: jax.Array) -> HealthState:
        parts = [counts.counted(_kinds(part)) for part in real_parts(value)]
        first, *others = parts
        return HealthState(counts.add(first, others[0]) if others else first)

    def merge(self, a: HealthState, b: HealthState) -> HealthState:
        return HealthState(counts.add(a.counts, b.counts))

    def pool(self, state: HealthState, over: Over) -> HealthState:
        return HealthState(counts.total(state.counts, over.add))

    def read_state(self, state: HealthState, dtype: np.dtype) -> HealthCounts:
        found = np.moveaxis(np.asarray(counts.as_integers(state.counts)), -1, 0)
        return HealthCounts(*(each if each.ndim else int(each) for each in found))


def _kinds(x: jax.Array) -> jax.Array:
    """The six counts of real numbers."""
    if keys.is_float(x.dtype):
        bits, infinity = bits_of(x), float_of(x.dtype).infinity
        magnitude, negative = magnitude_of(bits), bits < 0
        finite = magnitude < infinity
        infinite = magnitude == infinity
        special = [magnitude > infinity, infinite & ~negative, infinite & negative]
    else:
        negative, magnitude = sign_and_magnitude(x)
        finite = jnp.ones(x.shape, bool)
        special = []
    zero = magnitude == 0
    found = occurrences(*special, zero, negative & finite & ~zero)
    if not special:
        found = jnp.concatenate([jnp.zeros(3, found.dtype), found])
    # What is none of these is positive. Unsigned, because arrays may have 2**31 elements.
    found = found.astype(np.uint32)
    size = as_scalar(x.size, np.uint32)
    return jnp.concatenate([found, size - jnp.sum(found, dtype=np.uint32)[None]])
