"""PerChannel: a statistic for each index of an axis, or for each block along it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges.stats import MinMax, State, Statistic, is_known


@dataclass(frozen=True)
class PerChannel(Statistic):
    """A statistic for each index of an axis; with `block`, for each block of elements along it.

    What is read has an axis of channels, after the leading axes of vmap and stacked loops.

    Without `block` the elements of a channel are those of one index of the axis. With it they
    are `block` consecutive elements along the axis, at one index of all others, as in the MX
    formats (32 of them) and in group-wise quantized weights; a last block may be shorter. These
    are many: `tiles` says the shape that they would have as an array, of which the axis of
    channels holds the elements in row-major order.

    A value that has no such axis is one channel, and so is one whose number of channels is not
    known (in a program that is exported with symbolic shapes). Where the same site has different
    numbers of channels (in the programs of a `jr.Net` that was called with different shapes),
    merging makes one channel of all.

    Args:
      axis: which; negative ones count from the end.
      of: the statistic of a channel.
      block: how many elements make a block; None for one channel an index.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> per_column = jr.PerChannel(axis=-1)
      >>> _, ranges = jr.ranges(jnp.negative, stats=per_column)(jnp.array([[1.0, 2.0], [3.0, 5.0]]))
      >>> ranges.of("neg", per_column)
      Range(min=[-3. -5.], max=[-1. -2.], nan=[False False])
    """

    axis: int = -1
    of: Statistic = MinMax()  # noqa: RUF009, it is frozen
    block: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.of, Statistic) or isinstance(self.of, PerChannel):
            raise TypeError(f"of takes a statistic other than PerChannel, got {self.of!r}")
        if not isinstance(self.axis, int):
            raise TypeError(f"axis is one integer, got {self.axis!r}")
        if self.block is not None and (not isinstance(self.block, int) or self.block < 1):
            raise ValueError(f"block counts elements: 1 or more, or None; got {self.block!r}")

    def tiles(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the channels of a value of this shape: (n,) without `block`."""
        axis = self._axis_of(shape)
        if axis is None:
            return (1,)
        if self.block is None:
            return (shape[axis],)
        return (*shape[:axis], -(-shape[axis] // self.block), *shape[axis + 1 :])

    def _axis_of(self, shape: Sequence[int]) -> int | None:
        rank = len(shape)
        if not -rank <= self.axis < rank:
            return None
        counted = [shape[self.axis]] if self.block is None else shape
        return self.axis % rank if is_known(counted) else None

    def identity(self, dtype: np.dtype) -> State:
        raise TypeError(f"{self!r} depends on the shape of what it measures: use identity_for")

    def identity_for(self, dtype: np.dtype, shape: tuple[int, ...]) -> State:
        count = math.prod(self.tiles(shape))
        empty = self.of.identity(dtype)
        return jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), empty)

    def measure(self, value: jax.Array) -> State:
        axis = self._axis_of(value.shape)
        if axis is None:
            return jax.vmap(self.of.measure)(value[None])
        if self.block is None:
            return jax.vmap(self.of.measure, in_axes=axis)(value)
        return self._of_blocks(jnp.moveaxis(value, axis, -1), self.block, axis)

    def _of_blocks(self, value: jax.Array, block: int, axis: int) -> State:
        """The blocks of the last axis; their places are those of before it was moved from `axis`"""
        *others, length = value.shape
        whole = length - length % block
        parts = [value[..., :whole].reshape(*others, whole // block, block)]
        if whole < length:
            parts.append(value[..., whole:].reshape(*others, 1, length - whole))
        states = [_over_all_but_last(self.of, part) for part in parts if part.shape[-2]]
        if not states:
            return jax.tree.map(jnp.asarray, self.identity_for(value.dtype, (0,)))
        rank = len(others)
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, rank), *states)
        moved = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, rank, axis), joined)
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[rank + 1 :]), moved)

    def merge(self, a: State, b: State) -> State:
        return self.of.merge(a, b)

    def reduce(self, state: State, axes: int) -> State:
        return self.of.reduce(state, axes)

    def all_reduce(self, state: State, axis_names: Sequence[str]) -> State:
        return self.of.all_reduce(state, axis_names)

    def merge_unlike(self, a: State, b: State, axes: int) -> State:
        joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axes), a, b)
        first = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, axes, 0), joined)
        return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, axes), self.of.reduce(first, 1))

    def convert(self, state: State, dtype: np.dtype, to: np.dtype) -> State:
        return self.of.convert(state, dtype, to)

    def read_state(self, state: State, dtype: np.dtype) -> Any:
        return self.of.read_state(state, dtype)


def _over_all_but_last(stat: Statistic, value: jax.Array) -> State:
    measure = stat.measure
    for _ in range(value.ndim - 1):
        measure = jax.vmap(measure)
    return measure(value)
