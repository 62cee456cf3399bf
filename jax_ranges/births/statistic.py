"""`Births`: the statistic that finds where NaNs and infinities are born."""

from __future__ import annotations

import functools
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
from jax_ranges.births.watch import Watch
from jax_ranges.stats import TOGETHER, TWO_STAGES, Context, Form, Statistic, as_rows

NAN, POSITIVE, NEGATIVE = range(3)
KINDS = ("nan", "+inf", "-inf")


class RowCounts(NamedTuple):
    """The counts of the rows of a large value, for each kind: `[rows, kinds]`."""

    counts: Any


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
        staged = marks.size >= TWO_STAGES and marks.ndim > 1
        stages = [every[-1:], every[:-1]] if staged else [every]
        return self._raw(jnp.stack(_counts(marks, self.kinds, stages)), context.form)

    def begin_in(self, value: jax.Array, context: Context) -> Any:
        marks = self._marks(value, context)
        if marks is None:
            marks = jnp.zeros(value.shape, np.int8)
        if value.size <= TOGETHER:
            return marks
        rows, row = as_rows(value.shape)
        axes = tuple(range(len(rows), len(rows) + len(row)))
        planes = _counts(marks.reshape(*rows, *row), self.kinds, [axes])
        return RowCounts(jnp.stack([plane.ravel() for plane in planes], -1))

    def finish_in(self, begun: Sequence[Any], form: Form) -> First:
        if isinstance(begun[0], RowCounts):
            return self._raw(jnp.stack([jnp.sum(each.counts, 0) for each in begun]), form)
        marks = lax.optimization_barrier(jnp.stack([each.ravel() for each in begun]))
        return self._raw(jnp.stack(_counts(marks, self.kinds, [(1,)]), -1), form)

    def merge(self, a: First, b: First) -> First:
        return earlier(First(*a), First(*b))

    def at(self, state: First, loop: int, tick: Any) -> First:
        return stamped(First(*state), 1 + loop, tick)

    def _marks(self, value: Any, context: Context) -> Any:
        """For each element bits that say which kinds of birth it is; None if it cannot be any."""
        check = check_of(context.primitive, context.params, context.operands, value)
        if check is Check.NEVER:
            return None
        held = context.operands if check is Check.EACH else ()
        held = [x for x in held if has_specials(jnp.result_type(x))]
        return _marks(context.primitive, self.watches, value, held)

    def _raw(self, counts: jax.Array, form: Form) -> First:
        """Of these counts `[..., kinds]`, and nothing else known."""
        counts = counts.astype(np.int32)
        rest = never(self.kinds, form.loops, form.wide)[1:]
        lead = counts.shape[:-1]
        return First(counts, *(jnp.broadcast_to(leaf, (*lead, *leaf.shape)) for leaf in rest))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _marks(primitive: str, watches: tuple[Watch, ...], value: Any, held: Sequence[Any]) -> Any:
    value, held = lax.stop_gradient((value, list(held)))
    nan, positive, negative = _specials(value)
    for operand in held:
        is_nan, *is_infinite = _specials(operand)
        bad = functools.reduce(jnp.logical_or, is_infinite, is_nan)
        nan, positive, negative = nan & ~is_nan, positive & ~bad, negative & ~bad
    found = [nan, positive, negative, *(w.marks(primitive, value, held) for w in watches)]
    word = np.int8 if len(found) < 8 else np.int32
    return functools.reduce(
        jnp.bitwise_or, (m.astype(word) << word(k) for k, m in enumerate(found))
    )


def _specials(x: Any) -> list[Any]:
    """Whether an element is (or in complex numbers has) NaN, +inf, -inf."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.complexfloating):
        return _real_specials(x)
    pairs = zip(_real_specials(x.real), _real_specials(x.imag), strict=True)
    return [a | b for a, b in pairs]


def _real_specials(x: Any) -> list[Any]:
    """On bits: no backend takes these comparisons apart."""
    _, word = keys.float_word(x.dtype)
    bits = keys.float_bits(x)
    infinity = word.type(keys.infinity(x.dtype))
    magnitude = bits & word.type(np.iinfo(word).max)
    return [magnitude > infinity, bits == infinity, (magnitude == infinity) & (bits < 0)]


def _counts(marks: jax.Array, kinds: int, stages: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """How many marks have each bit, over the axes of the stages, one stage after another."""
    planes = [(marks >> marks.dtype.type(k)) & marks.dtype.type(1) for k in range(kinds)]
    planes = [plane.astype(np.int32) for plane in planes]
    for axes in stages:
        planes = _sums(planes, axes)
    return planes


def _sums(planes: Sequence[jax.Array], axes: tuple[int, ...]) -> list[jax.Array]:
    """As `stats.extrema`: on one CPU all at once, elsewhere each by itself."""
    if jax.default_backend() == "cpu" and jax.device_count() == 1:
        zeros = (np.int32(0),) * len(planes)
        return list(lax.reduce(tuple(planes), zeros, _add_each, axes))
    return [jnp.sum(plane, axes, dtype=np.int32) for plane in planes]


def _add_each(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))
