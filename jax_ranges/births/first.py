"""What is kept of births at a site: the first of each kind, where first is first by time.

A commutative monoid: of two births the earlier one is kept, and of two at the same time (of
several elements, or on several devices) their union.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_ranges.stats import Extrema, of_rank

OPERANDS = 4
"""The ranges of how many values are kept of one birth."""

RANKS = LEFT, MOVED, MASKED = range(3)
"""How far a birth gets in the iteration in which it happens: out of it (to the outputs of the
program, if it is in no loop), into the operations that use it, or not that far. One that gets
farther counts as earlier: it is the one that somebody looks for."""

CALL = 1
"""The place of the call's number in a time; the rank is before it, the loops after it."""


class First(NamedTuple):
    """The state, for each kind of birth (the axis of kinds is the last of `count`).

    Attributes:
      count: how many elements were born at that time; 0 if none ever was, and the rest is the
        identity then.
      when: rank, number of the call, iterations of the loops around, outermost first.
      least, most, top: the states of MinMax of (up to `OPERANDS`) values that operands come from,
        at that time.
    """

    count: Any
    when: Any
    least: Any
    most: Any
    top: Any

    @property
    def seen(self) -> Extrema:
        return Extrema(self.least, self.most, self.top)


def never(kinds: int, loops: int, wide: bool) -> First:
    """The identity."""
    word = np.dtype(np.int64 if wide else np.int32)
    info, shape = np.iinfo(word), (kinds, OPERANDS)
    return First(
        np.zeros(kinds, np.int32),
        np.zeros((kinds, 2 + loops), np.int32),
        np.full(shape, info.max, word),
        np.full(shape, info.min, word),
        np.zeros(shape, word),
    )


def earlier(a: First, b: First) -> First:
    """The first of both, with any leading axes."""
    xp = np if all(isinstance(leaf, np.ndarray | np.generic) for leaf in (*a, *b)) else jnp
    less, equal = _compared(a.when, b.when, xp)
    both = (a.count > 0) & (b.count > 0)
    tie = both & equal
    first = (a.count > 0) & ~(both & ~less)

    def chosen(x: Any, y: Any, together: Any) -> Any:
        wide = (..., *[None] * (x.ndim - first.ndim))
        return xp.where(tie[wide], together, xp.where(first[wide], x, y))

    return First(
        chosen(a.count, b.count, a.count + b.count),
        chosen(a.when, b.when, a.when),
        chosen(a.least, b.least, xp.minimum(a.least, b.least)),
        chosen(a.most, b.most, xp.maximum(a.most, b.most)),
        chosen(a.top, b.top, xp.maximum(a.top, b.top)),
    )


def _compared(a: Any, b: Any, xp: Any) -> tuple[Any, Any]:
    """Whether times are earlier, and whether they are equal: along the last axis, as words are."""
    less = xp.zeros(xp.broadcast_shapes(a.shape, b.shape)[:-1], bool)
    for i in reversed(range(a.shape[-1])):
        less = (a[..., i] < b[..., i]) | ((a[..., i] == b[..., i]) & less)
    return less, (a == b).all(-1)


def stamped(state: First, place: int, tick: Any) -> First:
    """The state with this number at this place of its times."""
    here = of_rank(np.arange(state.when.shape[-1]) == place, state.when.ndim)
    happened = (state.count > 0)[..., None]
    return state._replace(when=jnp.where(here & happened, tick, state.when))
