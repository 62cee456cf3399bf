"""Counts that do not stop at 2**31: two 32-bit limbs, because JAX has no 64 bits by default.

The graph adds the low limbs, sees by their wrapping round that there is a carry, and adds that to
the high ones. So counts are exact below 2**64, on every backend and whether or not 64-bit types
are enabled. On the host they are read as int64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

WORD = np.dtype(np.uint32)

MOST_TERMS = 1 << 16
"""How many counts `total` can add at once."""


class Count(NamedTuple):
    """An array of counts, each of them `high * 2**32 + low`."""

    low: Any
    high: Any


def nothing(shape: tuple[int, ...]) -> Count:
    """Counts of zero, as numpy arrays."""
    return Count(np.zeros(shape, WORD), np.zeros(shape, WORD))


def counted(low: jax.Array) -> Count:
    """Counts that were taken of one value, which has fewer than 2**32 elements."""
    low = low.astype(WORD)
    return Count(low, jnp.zeros_like(low))


def add(a: Count, b: Count) -> Count:
    """The sums, element by element; by numpy if all are on the host."""
    with np.errstate(over="ignore"):  # numpy warns when scalars wrap round
        low = a.low + b.low
        return Count(low, a.high + b.high + (low < a.low).astype(WORD))


def total(count: Count, add: Callable[[Any], Any]) -> Count:
    """The sums as `add` forms them: over axes, or over devices; of at most `MOST_TERMS` terms.

    Low limbs are added in halves: so many terms of 16 bits, and the carry, fit into 32.
    """
    first, second = add(count.low & 0xFFFF), add(count.low >> 16)
    second = second + (first >> 16)
    return Count((first & 0xFFFF) | (second << 16), add(count.high) + (second >> 16))


def summed(count: Count, axis: int) -> Count:
    """The sums along one axis of at most `MOST_TERMS` elements; by numpy if on the host."""
    xp = np if isinstance(count.low, np.ndarray) else jnp
    return total(count, lambda limb: xp.sum(limb, axis, dtype=WORD))


def as_float(count: Count, dtype: np.dtype) -> Any:
    """The counts rounded to floats."""
    return count.low.astype(dtype) + count.high.astype(dtype) * dtype.type(2.0**32)


def as_integers(count: Count) -> Any:
    """The counts on the host: an int if there is one, or else an array of int64."""
    low, high = (np.asarray(limb).astype(np.int64) for limb in count)
    integers = (high << 32) + low
    return integers if integers.ndim else int(integers)


def of_integers(integers: Any) -> Count:
    """The counts that read as these."""
    wide = np.asarray(integers, np.int64)
    return Count((wide & 0xFFFFFFFF).astype(WORD), (wide >> 32).astype(WORD))
