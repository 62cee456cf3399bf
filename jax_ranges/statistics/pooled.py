"""Statistics that pool many states at once, rather than two by two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jax_ranges.statistics.counts import MOST_TERMS
from jax_ranges.stats import TOGETHER, State, Statistic, stacked


class Over(NamedTuple):
    """How to add, and how to take the largest, over the states that are pooled.

    What they return may be put next to a state again: it has its shape, or the first axis is of
    length one.
    """

    add: Callable[[Any], Any]
    largest: Callable[[Any], Any]


class Pooled(Statistic):
    """A statistic of which `pool` merges all states along an axis, or of all devices."""

    positional: ClassVar[bool] = False

    def pool(self, state: State, over: Over) -> State:
        """The merged state."""
        raise NotImplementedError

    def begin(self, value: jax.Array) -> Any:
        return value if 0 < value.size <= TOGETHER else super().begin(value)

    def finish(self, begun: Sequence[Any]) -> State:
        if isinstance(begun[0], tuple):
            return super().finish(begun)
        # The barrier makes one copy of them; without it each pass would begin with making one.
        return jax.vmap(self.measure)(lax.optimization_barrier(stacked(begun)))

    def reduce(self, state: State, axes: int) -> State:
        if not axes:
            return state
        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), state)
        count = jax.tree.leaves(rows)[0].shape[0]
        if count <= MOST_TERMS:
            return jax.tree.map(lambda leaf: leaf[0], self.pool(rows, _FIRST_AXIS))
        parts = [
            self.reduce(jax.tree.map(lambda leaf, i=i: leaf[i : i + MOST_TERMS], rows), 1)
            for i in range(0, count, MOST_TERMS)
        ]
        return self.reduce(jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts), 1)

    def all_reduce(self, state: State, axis_names: Sequence[str]) -> State:
        names = tuple(axis_names)
        return self.pool(state, Over(lambda x: lax.psum(x, names), lambda x: lax.pmax(x, names)))


_FIRST_AXIS = Over(
    lambda x: jnp.sum(x, 0, dtype=x.dtype, keepdims=True), lambda x: jnp.max(x, 0, keepdims=True)
)
