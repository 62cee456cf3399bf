"""Passes over a value: how counts and sums are taken of it, in the fastest way that was found.

Measured on XLA's CPU backend (jax 0.10.2 and 0.12.0.1, float32 of [1536, 384], two cores):

- A sum of floats, or their largest, is run by a library, and so is what is added, subtracted,
  multiplied, squared or converted right before it (not what is selected or taken as bits): 0.1 ms,
  and nothing to compile.
- Several reductions of integers at once take 0.1 ms; a single one 0.4 ms, because XLA makes of it
  a tree of slow ones.
- A scatter-add into a table takes 0.6 ms, one-hot matrix products 20 ms, sorting 24 ms. To compare
  with one exponent after another and add up bytes takes 0.01 ms each and as much again to widen
  the sums: too much for the some 50 that values have, of both signs. Pairs of values in tables of
  64 x 64 take 0.4 ms, but 64 exponents are not enough for all, and it pays for large values only.
- The places in the table are stored before it is written to, and large values wait for memory: two
  dozen of a million elements take 39 ms with places of 32 bits, 26 ms with places of 16 (jax
  0.12.0.1). Small values gain nothing by that, and lose the time that packing takes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges import keys
from jax_ranges.statistics import counts
from jax_ranges.statistics.counts import Count
from jax_ranges.stats import SHARED, TWO_STAGES, in_one_reduction, size_of

# On a GPU additions to the same count wait for one another, and most values are in a few counts.
# So there are several tables there, which neighbours use in turn (chosen without measuring).
TABLES = 32
_PLACES = lax.ScatterDimensionNumbers((), (0,), (0,))


def tally(codes: Sequence[jax.Array], size: int) -> Count:
    """How often each of the numbers 0 to `size` - 1 occurs among these arrays of int32."""
    tables = 1 if jax.default_backend() == "cpu" else TABLES
    table = jnp.zeros(size * tables, np.uint32)
    for each in codes:
        if tables > 1 and each.ndim:
            turn = lax.broadcasted_iota(np.int32, each.shape, each.ndim - 1) % tables
            each = each + size * turn
        if size_of(each.shape) >= SHARED and table.size <= 1 << 16:
            each = each.astype(np.uint16)
        ones = jnp.ones(each.shape, np.uint32)
        table = lax.scatter_add(table, each[..., None], ones, _PLACES, mode="promise_in_bounds")
    return counts.counted(jnp.sum(table.reshape(tables, size), 0, dtype=np.uint32))


def occurrences(*conditions: jax.Array) -> jax.Array:
    """How many elements satisfy each of these conditions, which have one shape."""
    ones = [condition.astype(np.int32) for condition in conditions]
    return jnp.stack(folded([lax.add] * len(ones), ones))


def largest(x: jax.Array) -> jax.Array:
    """The largest of non-negative integers, 0 of none."""
    # Twice: of a reduction of a single array XLA makes a tree of slow ones.
    return lax.max(*folded([lax.max, lax.max], [x, x]))


def summed(x: jax.Array) -> jax.Array:
    """The sum of floats, by rows first: their errors do not add up, and all cores take part."""
    if x.ndim > 1:
        x = jnp.sum(x, -1, dtype=x.dtype)
    return jnp.sum(x, dtype=x.dtype)


Op = Callable[[Any, Any], Any]


def folded(ops: Sequence[Op], arrays: Sequence[jax.Array], lead: int = 0) -> list[jax.Array]:
    """Several arrays of one shape, each summed up or its largest (`lax.add`, `lax.max`).

    Of numbers that are not negative. The first `lead` axes stay; of more than 4096 floats the
    last axis goes first, so that errors of sums do not add up. In a single reduction where XLA
    does not fuse them: not as fast as one for each can be, but with less to compile.
    """
    exact = not any(keys.is_float(x.dtype) for x in arrays)
    if in_one_reduction() or not exact:  # else they may be sharded, and need not be gathered
        arrays = [_as_rows(x, lead) for x in arrays]
    axes = tuple(range(lead, arrays[0].ndim))
    small = size_of(arrays[0].shape[lead:]) <= (TWO_STAGES if exact else ROW)
    for over in [axes] if small else [axes[-1:], axes[:-1]]:
        starts = [x.dtype.type(0) for x in arrays]
        if in_one_reduction():
            arrays = lax.reduce(arrays, starts, functools.partial(_each, ops), over)
        else:
            each = zip(arrays, starts, ops, strict=True)
            arrays = [lax.reduce(x, start, op, over) for x, start, op in each]
    return list(arrays)


ROW = 1 << 12


def _each(ops: Sequence[Op], a: Sequence[jax.Array], b: Sequence[jax.Array]) -> list[Any]:
    return [op(x, y) for op, x, y in zip(ops, a, b, strict=True)]


def _as_rows(x: jax.Array, lead: int) -> jax.Array:
    """A long vector is cut in pieces."""
    if x.ndim != lead + 1 or not ROW < size_of(x.shape[-1:]) < math.inf:
        return x
    rows = math.gcd(x.shape[-1], 1024)
    return x.reshape(*x.shape[:-1], rows, x.shape[-1] // rows)
