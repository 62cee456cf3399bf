"""`Range`: what is read of the extrema of one site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Range:
    """The values seen at one site.

    Scalars, or arrays with one element an example (under vmap) or an iteration (stacked
    loops). numpy outside of jit, traced inside.

    Attributes:
      min, max: of all values that are not NaN, ±inf included. Integers and booleans in their
        own dtype, float64 in float64, other floats in float32.
      nan: whether some value was NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.log)(jnp.array([0.0, 1.0, -1.0]))
      >>> ranges["log"]
      Range(min=-inf, max=0.0, nan=True)
    """

    min: Any
    max: Any
    nan: Any

    @property
    def observed(self) -> Any:
        """Whether any value was seen. If not, min > max: the identity of merging."""
        return self.nan | (self.min <= self.max)

    def merge(self, other: Range) -> Range:
        """The range of what was seen in either: least min, largest max, any nan."""
        xp = jnp if compat.is_traced(self.min) or compat.is_traced(other.min) else np
        return Range(
            xp.minimum(self.min, other.min), xp.maximum(self.max, other.max), self.nan | other.nan
        )

    __or__ = merge

    def __eq__(self, other: object) -> Any:
        """Same values of the same dtypes, in arrays all of them; not for traced ranges."""
        if not isinstance(other, Range):
            return NotImplemented
        return all(
            np.asarray(a).dtype == np.asarray(b).dtype and np.array_equal(a, b)
            for a, b in zip(*(jax.tree.leaves(r) for r in (self, other)), strict=True)
        )

    def __repr__(self) -> str:
        if any(compat.is_traced(x) or not isinstance(x, np.generic) for x in (self.min, self.max)):
            return f"Range(min={self.min}, max={self.max}, nan={self.nan})"
        if not self.observed:
            return "Range(not observed)"
        return f"Range(min={self.min!s}, max={self.max!s}, nan={bool(self.nan)})"
