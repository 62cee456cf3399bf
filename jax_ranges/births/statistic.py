"""`Births`: the statistic that finds where NaNs and infinities are born."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges import keys
from jax_ranges.births.checks import Check, check_of, has_specials
from jax_ranges.births.first import First, earlier, never, stamped
from jax_ranges.births.watch import UNDERFLOWS, Watch
from jax_ranges.statistics.words import real_parts
from jax_ranges.stats import (
    TOGETHER,
    TWO_STAGES,
    Context,
    Form,
    Statistic,
    as_rows,
    in_one_reduction,
    size_of,
)

NAN, POSITIVE, NEGATIVE = range(3)
KINDS = ("nan", "+inf", "-inf")


class RowCounts(NamedTuple):
    """The counts of the rows of a large value, for each kind: `[rows, kinds]`."""

    counts: Any


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("values",), meta_fields=("underflows",)
)
@dataclass(frozen=True)
class Compared:
    """A small value and the operands that it is compared with, flat; none of what is never one.

    underflows: see `watch.Watch.marks`.
    """

    values: tuple[Any, ...]
    underflows: bool = False


@dataclass(frozen=True)
class Births(Statistic):
    """The first birth of each kind at a site. See `First`, and `Review` for what else it takes.

    watches: what is looked for besides NaN and infinities.
    """

    watches: tuple[Watch, ...] = ()

    contextual: ClassVar[bool] = True

    @property
    def kinds(self) -> int:
        return len(KINDS) + len(self.watches)

    def identity_in(self, form: Form) -> First:
        return never(self.kinds, form.loops, form.wide)

    def measure_in(self, value: jax.Array, context: Context) -> First:
        marks = self._marks(value, context)
        if marks is None:
            return self.identity_in(context.form)
        every = tuple(range(marks.ndim))
        staged = size_of(marks.shape) >= TWO_STAGES and marks.ndim > 1
        stages = [every[-1:], every[:-1]] if staged else [every]
        return self._raw(jnp.stack(_counts(marks, self.kinds, stages)), context.form)

    def begin_in(self, value: jax.Array, context: Context) -> RowCounts | Compared:
        if value.size <= TOGETHER:
            held = self._held(value, context)
            if held is None:
                return Compared(())
            flat = [jnp.broadcast_to(x, value.shape).ravel() for x in (value, *held)]
            return Compared(tuple(flat), context.primitive in UNDERFLOWS)
        rows, row = as_rows(value.shape)
        marks = self._marks(value, context)
        if marks is None:
            return RowCounts(jnp.zeros((math.prod(rows), self.kinds), np.int32))
        axes = tuple(range(len(rows), len(rows) + len(row)))
        planes = _counts(marks.reshape(*rows, *row), self.kinds, [axes])
        return RowCounts(jnp.stack([plane.ravel() for plane in planes], -1))

    def finish_in(self, begun: Sequence[Any], form: Form) -> First:
        if isinstance(begun[0], RowCounts):
            return self._raw(jnp.stack([jnp.sum(each.counts, 0) for each in begun]), form)
        alike: dict[Any, list[int]] = {}
        for i, each in enumerate(begun):
            alike.setdefault((each.underflows, *(x.dtype for x in each.values)), []).append(i)
        counts = [self._compared([begun[i] for i in those]) for those in alike.values()]
        order = np.argsort([i for those in alike.values() for i in those])
        return self._raw(jnp.concatenate(counts)[order], form)

    def _compared(self, begun: Sequence[Compared]) -> jax.Array:
        """The counts `[values, kinds]` of values that are compared with operands of like types."""
        if not begun[0].values:
            return jnp.zeros((len(begun), self.kinds), np.int32)
        stacks = [jnp.stack(xs) for xs in zip(*(each.values for each in begun), strict=True)]
        value, *held = lax.optimization_barrier(stacks)
        marks = _marks(begun[0].underflows, self.watches, value, held)
        return jnp.stack(_counts(marks, self.kinds, [(1,)]), -1)

    def merge(self, a: First, b: First) -> First:
        return earlier(First(*a), First(*b))

    def at(self, state: First, loop: int, tick: Any) -> First:
        return stamped(First(*state), 1 + loop, tick)

    def _marks(self, value: jax.Array, context: Context) -> Any:
        """For each element bits that say which kinds of birth it is; None if it cannot be any."""
        held = self._held(value, context)
        if held is None:
            return None
        return _marks(context.primitive in UNDERFLOWS, self.watches, value, held)

    def _held(self, value: jax.Array, context: Context) -> list[Any] | None:
        """The operands with which a value is compared; None if nothing can be born."""
        check = check_of(context.primitive, context.params, context.operands, value)
        if check is Check.NEVER:
            return None
        held = context.operands if check is Check.EACH else ()
        return [x for x in held if has_specials(jnp.result_type(x)) and not self._is_plain(x)]

    def _is_plain(self, operand: Any) -> bool:
        """Whether it is a finite literal, which holds nothing."""
        is_scalar = isinstance(operand, float | np.generic) and not np.ndim(operand)
        return is_scalar and not self.watches and bool(np.isfinite(operand))

    def _raw(self, counts: jax.Array, form: Form) -> First:
        """Of these counts `[..., kinds]`, and nothing else known."""
        counts = counts.astype(np.int32)
        rest = never(self.kinds, form.loops, form.wide)[1:]
        lead = counts.shape[:-1]
        return First(counts, *(jnp.broadcast_to(leaf, (*lead, *leaf.shape)) for leaf in rest))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _marks(underflows: bool, watches: tuple[Watch, ...], value: Any, held: Sequence[Any]) -> Any:
    """For each element an int32 with the bits of its kinds."""
    value, held = lax.stop_gradient((value, list(held)))
    has_nan, is_bad = _held_specials(held)
    marks = functools.reduce(
        jnp.bitwise_or, [_part_marks(part, has_nan, is_bad) for part in real_parts(value)]
    )
    for k, watch in enumerate(watches, len(KINDS)):
        marks |= watch.marks(underflows, value, held).astype(np.int32) << np.int32(k)
    return marks


def _part_marks(x: jax.Array, has_nan: Any, is_bad: Any) -> Any:
    """On bits, in few operations: they are compiled for each site."""
    bits, magnitude, infinity = _magnitude(x)
    nan = (magnitude > infinity) & ~has_nan
    infinite = (magnitude == infinity) & ~is_bad
    sign = jnp.where(bits < 0, np.int32(1 << NEGATIVE), np.int32(1 << POSITIVE))
    return jnp.where(nan, np.int32(1 << NAN), jnp.where(infinite, sign, np.int32(0)))


def _held_specials(held: Sequence[Any]) -> tuple[Any, Any]:
    """Whether any operand has a NaN there, and whether any is not finite."""
    largest: dict[Any, Any] = {}
    for bits, magnitude, infinity in (
        _magnitude(p) for x in held for p in real_parts(jnp.asarray(x))
    ):
        key = bits.dtype, int(infinity)
        largest[key] = jnp.maximum(largest[key], magnitude) if key in largest else magnitude
    nan = [magnitude > word.type(infinity) for (word, infinity), magnitude in largest.items()]
    bad = [magnitude >= word.type(infinity) for (word, infinity), magnitude in largest.items()]
    none = np.bool_(False)
    return functools.reduce(jnp.logical_or, nan, none), functools.reduce(jnp.logical_or, bad, none)


def _magnitude(x: jax.Array) -> tuple[Any, Any, Any]:
    """The bits of real numbers, these without the sign, and infinity's."""
    _, word = keys.float_word(x.dtype)
    bits = keys.float_bits(x)
    return bits, bits & word.type(np.iinfo(word).max), word.type(keys.infinity(x.dtype))


def _counts(marks: jax.Array, kinds: int, stages: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """How many marks have each bit, over the axes of the stages, one stage after another."""
    first, *later = stages
    width = 31 // _half(kinds)
    few = size_of([marks.shape[axis] for axis in first]) < 1 << width
    # So few that the counts of all kinds fit into two words: two sums instead of one for each.
    planes = _fields_sum(marks, kinds, width, first) if few else _sums(_bits(marks, kinds), first)
    for axes in later:
        planes = _sums(planes, axes)
    return planes


def _bits(marks: jax.Array, kinds: int) -> list[jax.Array]:
    return [(marks >> np.int32(k)) & np.int32(1) for k in range(kinds)]


def _fields_sum(marks: jax.Array, kinds: int, width: int, axes: tuple[int, ...]) -> list[jax.Array]:
    """The counts as fields of two words.

    Not of one: XLA's CPU backend rewrites the sum of a single array of integers so that the array
    has to be stored first.
    """
    half = _half(kinds)
    words = [
        functools.reduce(
            jnp.bitwise_or,
            [((marks >> np.int32(k)) & np.int32(1)) << np.int32(k % half * width) for k in these],
        )
        for these in (range(half), range(half, kinds))
    ]
    totals = _sums(words, axes)
    field = np.int32((1 << width) - 1)
    return [(totals[k // half] >> np.int32(k % half * width)) & field for k in range(kinds)]


def _half(kinds: int) -> int:
    return -(-kinds // 2)


def _sums(planes: Sequence[jax.Array], axes: tuple[int, ...]) -> list[jax.Array]:
    """As `stats.extrema`: on one CPU all at once, elsewhere each by itself."""
    if in_one_reduction():
        zeros = (np.int32(0),) * len(planes)
        return list(lax.reduce(tuple(planes), zeros, _add_each, axes))
    return [jnp.sum(plane, axes, dtype=np.int32) for plane in planes]


def _add_each(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))
