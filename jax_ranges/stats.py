"""Statistics: what is taken of the values at a site.

A statistic is a commutative monoid. `identity` is what nothing has been seen looks like,
`measure` takes one value's state, `merge` joins two states; merging is associative and
commutative, so the order of batches, loop iterations and devices never matters. States are
pytrees of arrays whose shapes do not depend on the value's shape, which is what lets the tracer
carry them through loops and pack those of many sites into a few arrays.

`MinMax` is moreover idempotent: ranges form a join-semilattice, so measuring twice is harmless.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

State = Any


@dataclass(frozen=True)
class Statistic:
    """The protocol: a frozen, hashable dataclass with three methods, and two that may be better.

    `merge` works elementwise on states with any leading axes (those of packing, of stacked
    loops and of vmap). All methods are traced; none may look at concrete values.

    Example:
      >>> from dataclasses import dataclass
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> @dataclass(frozen=True)
      ... class Zeros(jr.Statistic):
      ...     def identity(self, dtype):
      ...         return jnp.zeros((), jnp.int32)
      ...     def measure(self, value):
      ...         return jnp.sum(value == 0, dtype=jnp.int32)
      ...     def merge(self, a, b):
      ...         return a + b
      >>> relu = jr.ranges(lambda x: jnp.maximum(x, 0), stats=(jr.MinMax(), Zeros()))
      >>> _, ranges = relu(jnp.array([-1.0, 0.0, 2.0]))
      >>> ranges.state("max", Zeros())
      array(2, dtype=int32)
    """

    def identity(self, dtype: np.dtype) -> State:
        """The state at which no value was seen.

        `dtype` is the carrier of the site's values: float32 or float64; int32, uint32, int64 or
        uint64 (see `carrier_dtype`).
        """
        raise NotImplementedError

    def measure(self, value: jax.Array) -> State:
        """The state of one value, of any shape (empty ones too) and of any numeric dtype."""
        raise NotImplementedError

    def merge(self, a: State, b: State) -> State:
        """The state of what was seen in `a` and in `b`."""
        raise NotImplementedError

    def reduce(self, state: State, axes: int) -> State:
        """Merge the first `axes` axes of a state (none of them empty)."""
        for _ in range(axes):
            rows = range(jax.tree.leaves(state)[0].shape[0])
            state = functools.reduce(
                self.merge, [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in rows]
            )
        return state

    def all_reduce(self, state: State, axis_names: Sequence[str]) -> State:
        """Merge over the devices along mesh axes, inside shard_map."""
        gathered = state
        for name in axis_names:
            gathered = jax.tree.map(functools.partial(lax.all_gather, axis_name=name), gathered)
        return self.reduce(gathered, len(axis_names))


class Extrema(NamedTuple):
    """The state of MinMax. `nan` is None for dtypes that have no NaN."""

    min: Any
    max: Any
    nan: Any


@dataclass(frozen=True)
class MinMax(Statistic):
    """Smallest and largest value that is not NaN (±inf are values), and whether a NaN was seen.

    The state keeps every value exact: float16, bfloat16 and smaller floats as float32, float64
    as float64, integers and booleans up to 32 bits as int32 or uint32, wider ones as they are.
    Complex values count by their real and imaginary parts. The identity is (+inf, -inf, False),
    or (largest, smallest) for integers: a site that never ran has min > max.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> jr.MinMax().measure(jnp.array([1.0, jnp.nan, -jnp.inf]))
      Extrema(min=Array(-inf, dtype=float32), max=Array(1., dtype=float32), nan=Array(True, dtype=bool))
    """

    def identity(self, dtype: np.dtype) -> Extrema:
        carrier = carrier_dtype(dtype)
        least, most = limits(carrier)
        has_nan = jnp.issubdtype(carrier, jnp.floating)
        return Extrema(
            np.array(most, carrier), np.array(least, carrier), np.array(False) if has_nan else None
        )

    def measure(self, value: jax.Array) -> Extrema:
        if jnp.issubdtype(value.dtype, jnp.complexfloating):
            return self.merge(self.measure(value.real), self.measure(value.imag))
        carrier = carrier_dtype(value.dtype)
        least, most = limits(carrier)
        x = lax.convert_element_type(value, carrier)
        if not jnp.issubdtype(carrier, jnp.floating):
            return Extrema(_fold(lax.min, x, most), _fold(lax.max, x, least), None)
        nan = lax.ne(x, x)
        return Extrema(
            _fold(lax.min, lax.select(nan, lax.full_like(x, most), x), most),
            _fold(lax.max, lax.select(nan, lax.full_like(x, least), x), least),
            _fold(lax.bitwise_or, nan, False),
        )

    def merge(self, a: Extrema, b: Extrema) -> Extrema:
        return Extrema(
            jnp.minimum(a.min, b.min),
            jnp.maximum(a.max, b.max),
            None if a.nan is None else a.nan | b.nan,
        )

    def reduce(self, state: Extrema, axes: int) -> Extrema:
        over = tuple(range(axes))
        return Extrema(
            jnp.min(state.min, over),
            jnp.max(state.max, over),
            None if state.nan is None else jnp.any(state.nan, over),
        )

    def all_reduce(self, state: Extrema, axis_names: Sequence[str]) -> Extrema:
        names = tuple(axis_names)
        nan = state.nan
        if nan is not None:
            nan = lax.pmax(nan.astype(jnp.int32), names).astype(bool)
        return Extrema(lax.pmin(state.min, names), lax.pmax(state.max, names), nan)


def carrier_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype that holds the extrema of values of `dtype` exactly."""
    if jnp.issubdtype(dtype, jnp.inexact):
        wide = dtype in (np.dtype(np.float64), np.dtype(np.complex128))
        return np.dtype(np.float64 if wide else np.float32)
    if dtype == np.dtype(bool) or jnp.iinfo(dtype).bits < 32:
        return np.dtype(np.int32)
    return np.dtype(dtype)


def limits(dtype: np.dtype) -> tuple[Any, Any]:
    """The least and the largest value of a dtype, infinities included."""
    if jnp.issubdtype(dtype, jnp.floating):
        return -np.inf, np.inf
    if dtype == np.dtype(bool):
        return False, True
    info = jnp.iinfo(dtype)
    return int(info.min), int(info.max)


def _fold(op: Any, x: jax.Array, start: Any) -> jax.Array:
    """Reduce all of `x`: the last axis first, then the rest.

    XLA's CPU backend reduces an array to an array on all cores, but to a scalar on one.
    """
    if x.ndim == 0:
        return x
    start = np.array(start, x.dtype)
    if x.ndim > 1:
        x = lax.reduce(x, start, op, (x.ndim - 1,))
    return lax.reduce(x, start, op, tuple(range(x.ndim)))


def extrema_of(array: Any) -> Extrema:
    """The state of MinMax of a concrete array, computed by numpy."""
    x = np.asarray(array).ravel()
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = np.concatenate([x.real, x.imag])
    start = MinMax().identity(x.dtype)
    x = x.astype(start.min.dtype)
    least, most = np.fmin.reduce(x, initial=start.min), np.fmax.reduce(x, initial=start.max)
    nan = None if start.nan is None else np.isnan(x).any()
    return Extrema(*map(np.asarray, (least, most)), None if nan is None else np.asarray(nan))
