"""AbsMax: the largest magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from jax_ranges import keys
from jax_ranges.stats import Extrema, MinMax, Statistic

_EXTREMA = MinMax()


@dataclass(frozen=True, eq=False)
class Amax:
    """The largest magnitude: numbers of numpy, or arrays of the leading axes.

    Attributes:
      amax: float64 for that dtype, float32 for other floats; of integers unsigned. 0 where
        nothing was observed.
      nan: whether some value was NaN.
      observed: whether any value was seen.
    """

    amax: Any
    nan: Any
    observed: Any


@dataclass(frozen=True)
class AbsMax(Statistic):
    """The largest magnitude of all values that are not NaN; infinite if one is.

    Exact in every dtype, also for the least integer, whose magnitude only an unsigned one holds.
    It is measured as `MinMax` is: taking both costs no more than one of them.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = jr.ranges(jnp.negative, stats=jr.AbsMax())
      >>> _, ranges = f(jnp.array([1.0, -3.0, jnp.nan]))
      >>> ranges.of("neg", jr.AbsMax())
      Amax(amax=np.float32(3.0), nan=np.True_, observed=np.True_)
    """

    positional: ClassVar[bool] = False

    def identity(self, dtype: np.dtype) -> Extrema:
        return _EXTREMA.identity(dtype)

    def measure(self, value: jax.Array) -> Extrema:
        return _EXTREMA.measure(value)

    def merge(self, a: Extrema, b: Extrema) -> Extrema:
        return _EXTREMA.merge(a, b)

    def begin(self, value: jax.Array) -> Any:
        return _EXTREMA.begin(value)

    def finish(self, begun: Sequence[Any]) -> Extrema:
        return _EXTREMA.finish(begun)

    def reduce(self, state: Extrema, axes: int) -> Extrema:
        return _EXTREMA.reduce(state, axes)

    def all_reduce(self, state: Extrema, axis_names: Sequence[str]) -> Extrema:
        return _EXTREMA.all_reduce(state, axis_names)

    def convert(self, state: Extrema, dtype: np.dtype, to: np.dtype) -> Extrema:
        return _EXTREMA.convert(state, dtype, to)

    def read_state(self, state: Extrema, dtype: np.dtype) -> Amax:
        lo, hi, nan = _EXTREMA.read(state, dtype, np)
        seen = lo <= hi
        amax = np.where(seen, np.maximum(_magnitude(lo), _magnitude(hi)), 0)
        return Amax(amax.astype(_magnitude(lo).dtype)[()], nan, seen | nan)


def _magnitude(x: Any) -> Any:
    """|x|, unsigned if it is an integer."""
    if keys.is_float(x.dtype):
        return np.abs(x)
    if x.dtype == np.dtype(bool) or x.dtype.kind == "V":  # int4 and the like
        return np.abs(x.astype(np.int16)).astype(np.uint8)
    if x.dtype.kind == "u":
        return x
    # Negated as an unsigned number: the least integer has no negative of its own.
    unsigned = x.astype(f"u{x.dtype.itemsize}")
    with np.errstate(over="ignore"):  # of zero, which is not taken
        return np.where(x < 0, ~unsigned + unsigned.dtype.type(1), unsigned)
