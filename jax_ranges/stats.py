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
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges import keys
from jax_ranges.range import Range

State = Any


class Form(NamedTuple):
    """What the identity of a statistic may depend on at a site.

    Attributes:
      dtype, shape: of the values.
      loops: how many loops are around it.
      wide: whether the program has values of 64 bits.
    """

    dtype: np.dtype
    shape: tuple[int, ...] = ()
    loops: int = 0
    wide: bool = False


class Context(NamedTuple):
    """What an equation did to get a value.

    Attributes:
      primitive, params: of the equation; "input" or "const" for what is not of an equation.
      operands: their values.
      form: that of the site.
    """

    primitive: str
    params: Mapping[str, Any]
    operands: Sequence[Any]
    form: Form


@dataclass(frozen=True)
class Statistic:
    """The protocol: a frozen, hashable dataclass with three methods, and more that may be better.

    `merge` works elementwise on states with any leading axes (those of packing, of stacked
    loops and of vmap). Methods are traced and may not look at concrete values, but for
    `read_state`; `merge` is given numpy arrays too.

    Attributes:
      positional: whether a state depends on where in an array its values are. If not, an array
        and its reshapes and transposes are measured once, and its axes may come in another order.
      kept: how many elements are kept at most until they are measured at once (see `begin`).

    Example:
      >>> from dataclasses import dataclass
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> import jax_ranges as jr
      >>> @dataclass(frozen=True)
      ... class Zeros(jr.Statistic):
      ...     def identity(self, dtype):
      ...         return np.zeros((), np.int32)
      ...     def measure(self, value):
      ...         return jnp.sum(value == 0, dtype=jnp.int32)
      ...     def merge(self, a, b):
      ...         return a + b
      >>> relu = jr.ranges(lambda x: jnp.maximum(x, 0), stats=(jr.MinMax(), Zeros()))
      >>> _, ranges = relu(jnp.array([-1.0, 0.0, 2.0]))
      >>> ranges.of("max", Zeros())
      array(2, dtype=int32)
    """

    positional: ClassVar[bool] = True
    kept: ClassVar[int] = 1 << 16
    contextual: ClassVar[bool] = False
    """Whether it sees more than values: what the methods named `..._in`, and `at`, are told."""

    def identity(self, dtype: np.dtype) -> State:
        """The state of a site of this dtype at which no value was seen, as numpy arrays."""
        raise NotImplementedError

    def identity_for(self, dtype: np.dtype, shape: tuple[int, ...]) -> State:
        """The same for a site of this shape, of those whose states' shapes depend on it.

        The number of their axes must not. Sizes are integers, or symbolic (see `Site.shape`).
        """
        del shape
        return self.identity(dtype)

    def identity_in(self, form: Form) -> State:
        """The same for a contextual statistic."""
        return self.identity_for(form.dtype, form.shape)

    def measure(self, value: jax.Array) -> State:
        """The state of one value, of any shape (empty ones too) and of any numeric dtype."""
        raise NotImplementedError

    def measure_in(self, value: jax.Array, context: Context) -> State:
        """The same for a contextual statistic."""
        del context
        return self.measure(value)

    def at(self, state: State, loop: int, tick: Any) -> State:
        """The state, told in which iteration (from 0) of the n-th loop around it it was."""
        del loop, tick
        return state

    def merge(self, a: State, b: State) -> State:
        """The state of what was seen in `a` and in `b`."""
        raise NotImplementedError

    def alike(self, shape: tuple[int, ...], repeats: bool) -> Hashable:
        """What values must have in common to be measured at once; None for those that are not.

        ("value", ...) where they are kept as they are, of which there may be no more than `kept`.
        `repeats`: it is in a loop.
        """
        return together(shape, repeats)

    def begin(self, value: jax.Array) -> Any:
        """The first part of measuring: what is to be kept of a value for `finish`."""
        return _measure_of(self)(value)

    def begin_in(self, value: jax.Array, context: Context) -> Any:
        """The same for a contextual statistic."""
        del context
        return self.begin(value)

    def finish_in(self, begun: Sequence[Any], form: Form) -> State:
        """The second part for a contextual statistic."""
        del form
        return self.finish(begun)

    def finish(self, begun: Sequence[Any]) -> State:
        """The second part: the states of several values for which `alike` says the same."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *begun)

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
        for name in axis_names:
            gathered = jax.tree.map(functools.partial(lax.all_gather, axis_name=name), state)
            merged = self.reduce(gathered, 1)
            state = jax.tree.map(functools.partial(_from_first, axis_name=name), merged)
        return state

    def merge_unlike(self, a: State, b: State, axes: int) -> State:
        """Merge states of one site whose shapes differ, after `axes` leading axes.

        Raises:
          ValueError: there is no such thing.
        """
        del axes
        shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(state)] for state in (a, b)]
        raise ValueError(f"states of {self!r} with shapes {shapes[0]} and {shapes[1]} do not merge")

    def convert(self, state: State, dtype: np.dtype, to: np.dtype) -> State:
        """The state that the values would have in another dtype, which holds them all.

        For merging sites of one name that have different dtypes in different programs.
        """
        del dtype, to
        return state

    def read_state(self, state: State, dtype: np.dtype) -> Any:
        """What is shown of a state at a site of `dtype`: something readable, of numpy arrays."""
        del dtype
        return state


def of_rank(constant: np.ndarray, ndim: int) -> np.ndarray:
    """A constant with axes of length one in front, so many that it has `ndim` of them.

    Operands of arithmetic in the graph have the same rank, or are scalars, and the same dtype:
    `jax_numpy_rank_promotion` and `jax_numpy_dtype_promotion` may forbid everything else.
    """
    return constant.reshape((1,) * (ndim - constant.ndim) + constant.shape)


@functools.lru_cache(maxsize=64)
def _measure_of(stat: Statistic) -> Any:
    """Its `measure`, traced once for all values of a type."""
    return jax.jit(lambda value: stat.measure(lax.stop_gradient(value)))


def _from_first(leaf: jax.Array, axis_name: str) -> jax.Array:
    """What the first device has, which JAX then knows to be the same on all of them."""
    numeric = leaf.astype(jnp.int32) if leaf.dtype == bool else leaf
    mine = jnp.where(lax.axis_index(axis_name) == 0, numeric, jnp.zeros_like(numeric))
    return lax.psum(mine, axis_name).astype(leaf.dtype)


class Extrema(NamedTuple):
    """The state of MinMax: keys (see `keys`) of the extrema, and the largest magnitude.

    `top` is the largest of the values' bits without the sign, above infinity's if one is NaN.
    """

    min: Any
    max: Any
    top: Any


@dataclass(frozen=True)
class MinMax(Statistic):
    """Smallest and largest value that is not NaN (±inf are values), and whether a NaN was seen.

    Every value is exact, in every dtype. Complex values count by their real and imaginary parts.
    A site that never ran has the identity, which reads as (+inf, -inf, False), or for integers as
    (largest, smallest, False).

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.log, stats=[jr.MinMax()])(jnp.array([-1.0, 0.0, 1.0]))
      >>> ranges["log"]
      Range(min=-inf, max=0.0, nan=True)
    """

    positional: ClassVar[bool] = False

    def identity(self, dtype: np.dtype) -> Extrema:
        word = keys.key_dtype(keys.real_dtype(dtype))
        info = np.iinfo(word)
        return Extrema(np.array(info.max, word), np.array(info.min, word), np.array(0, word))

    def measure(self, value: jax.Array) -> Extrema:
        return self._measure(value, _stages(value))

    def begin(self, value: jax.Array) -> jax.Array | Extrema:
        return value if value.size <= TOGETHER else _rows(value)

    def finish(self, begun: Sequence[Any]) -> Extrema:
        # The barrier makes one copy of them; without it they would be computed again inside the
        # reduction, which takes longer to compile and to run.
        if isinstance(begun[0], Extrema):
            rows = jax.tree.map(lambda *leaves: jnp.stack(leaves), *begun)
            if rows.min.shape[1] == 1:
                return Extrema(*(leaf[:, 0] for leaf in rows))
            least, most, top = lax.optimization_barrier(rows)
            return Extrema(*extrema([(1,)], least, most, top))
        rows = lax.optimization_barrier(stacked(begun))
        return self._measure(rows, [(1,)])

    def _measure(self, value: jax.Array, stages: Stages) -> Extrema:
        if jnp.issubdtype(value.dtype, jnp.complexfloating):
            parts = (self._measure(part, stages) for part in (value.real, value.imag))
            return self.merge(*parts)
        word = keys.key_dtype(value.dtype)
        if keys.is_float(value.dtype):
            least, most, top = extrema(stages, *_masked_keys(value))
        else:
            least, most = extrema(stages, *[keys.integer_key(value)] * 2)
            top = jnp.zeros(least.shape, word)
        return Extrema(least.astype(word), most.astype(word), top.astype(word))

    def merge(self, a: Extrema, b: Extrema) -> Extrema:
        # On the host numpy: it needs no device, and no leave to move data to one.
        xp = np if all(isinstance(leaf, np.ndarray | np.generic) for leaf in (*a, *b)) else jnp
        return Extrema(xp.minimum(a.min, b.min), xp.maximum(a.max, b.max), xp.maximum(a.top, b.top))

    def reduce(self, state: Extrema, axes: int) -> Extrema:
        over = tuple(range(axes))
        return Extrema(state.min.min(over), state.max.max(over), state.top.max(over))

    def all_reduce(self, state: Extrema, axis_names: Sequence[str]) -> Extrema:
        names = tuple(axis_names)
        return Extrema(
            lax.pmin(state.min, names), lax.pmax(state.max, names), lax.pmax(state.top, names)
        )

    def convert(self, state: Extrema, dtype: np.dtype, to: np.dtype) -> Extrema:
        xp = np if isinstance(state.min, np.ndarray | np.generic) else jnp
        lo, hi, nan = self.read(state, dtype, xp)
        if xp is np:
            lo, hi = _outward(lo, hi, to)
        return self.state(lo, hi, nan, to, xp)

    def read_state(self, state: Extrema, dtype: np.dtype) -> Range:
        return Range(*self.read(state, dtype, np))

    def read(self, state: Extrema, dtype: np.dtype, xp: Any) -> tuple[Any, Any, Any]:
        """(min, max, nan) in the carrier dtype; `xp` is numpy, or jax.numpy while tracing."""
        dtype = keys.real_dtype(dtype)
        carrier = keys.carrier_dtype(dtype)
        # Of their dtype: a plain int that is no int32 is no operand.
        least, most = map(carrier.type, keys.limits(carrier))
        unseen = state.min > state.max
        lo = xp.where(unseen, most, keys.value_of(state.min, dtype, xp)).astype(carrier)
        hi = xp.where(unseen, least, keys.value_of(state.max, dtype, xp)).astype(carrier)
        nan = state.top > (keys.infinity(dtype) if keys.is_float(dtype) else 0)
        return lo, hi, nan

    def state(self, lo: Any, hi: Any, nan: Any, dtype: np.dtype, xp: Any) -> Extrema:
        """The state that reads as (lo, hi, nan) at a site of `dtype`."""
        dtype = keys.real_dtype(dtype)
        empty = self.identity(dtype)
        unseen = lo > hi
        lo, hi = (xp.where(unseen, xp.zeros_like(x), x).astype(dtype) for x in (lo, hi))
        top = xp.where(nan, np.iinfo(empty.top.dtype).max, 0).astype(empty.top.dtype)
        return Extrema(
            xp.where(unseen, empty.min, keys.key_of(lo, xp)),
            xp.where(unseen, empty.max, keys.key_of(hi, xp)),
            top,
        )


def stacked(values: Sequence[jax.Array]) -> jax.Array:
    """Values with the same number of elements as rows.

    Not jnp.stack, which takes four operations a value: most values of a group are of one shape.
    """
    shape = values[0].shape or (1,)
    alike = [x if x.shape == shape else lax.reshape(x, shape) for x in values]
    return lax.reshape(lax.concatenate(alike, 0), (len(values), math.prod(shape)))


def _outward(lo: Any, hi: Any, dtype: np.dtype) -> tuple[Any, Any]:
    """A range in another dtype; where that does not have a number, the next one outwards."""
    if lo.dtype.kind not in "iu" or lo.dtype.itemsize < 8 or dtype != np.float64:
        return lo, hi
    low, high = lo.astype(np.float64), hi.astype(np.float64)
    # Not cast back to compare: 2**63 as a float is no int64. Python's integers compare exactly.
    too_high = [int(x) > int(y) for x, y in zip(low.flat, lo.flat, strict=True)]
    too_low = [int(x) < int(y) for x, y in zip(high.flat, hi.flat, strict=True)]
    low = np.where(np.reshape(too_high, lo.shape), np.nextafter(low, -np.inf), low)
    high = np.where(np.reshape(too_low, hi.shape), np.nextafter(high, np.inf), high)
    unseen = lo > hi
    return np.where(unseen, np.inf, low), np.where(unseen, -np.inf, high)


def extrema_of(array: Any) -> Extrema:
    """The state of MinMax of a concrete array, computed by numpy."""
    x: Any = np.asarray(array).ravel()
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = np.concatenate([x.real, x.imag])
    carrier = keys.carrier_dtype(x.dtype)
    least, most = keys.limits(carrier)
    values = x.astype(carrier)
    lo, hi = np.fmin.reduce(values, initial=most), np.fmax.reduce(values, initial=least)
    if keys.is_float(carrier) and 0 in (lo, hi):  # numpy takes the two zeros for the same
        negative = np.signbit(values[values == 0])
        lo = carrier.type(-0.0) if lo == 0 and negative.any() else lo
        hi = carrier.type(0.0) if hi == 0 and not negative.all() else hi
    nan = np.isnan(values).any() if keys.is_float(carrier) else False
    return MinMax().state(np.asarray(lo), np.asarray(hi), np.asarray(nan), x.dtype, np)


# -- measuring: the one place where it is decided how -----------------------------------------


def is_known(shape: Sequence[Any]) -> bool:
    """Whether all sizes are numbers: in a program that is exported with symbolic shapes
    (`jax.export`) they need not be."""
    return all(isinstance(size, int) for size in shape)


def size_of(shape: Sequence[Any]) -> float:
    """How many elements an array of this shape has; infinity if that is not known.

    So what is not known is measured as what is large.
    """
    return math.prod(shape) if is_known(shape) else math.inf


def as_scalar(size: Any, dtype: Any) -> Any:
    """A number of elements in a dtype: of numpy, or if it is symbolic of the program."""
    dtype = np.dtype(dtype)
    return dtype.type(size) if isinstance(size, int) else jnp.asarray(size).astype(dtype)


def _masked_keys(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys with every NaN out of the way of the least, of the largest; and the magnitudes."""
    _, word = keys.float_word(x.dtype)
    info = np.iinfo(word)
    bits = keys.float_bits(x)
    magnitude = bits & word.type(info.max)
    nan = magnitude > word.type(keys.infinity(x.dtype))
    key = keys.flip(bits, word)
    return (
        lax.select(nan, lax.full_like(key, info.max), key),
        lax.select(nan, lax.full_like(key, info.min), key),
        magnitude,
    )


Stages = Sequence[tuple[int, ...]]
"""The axes over which a value is reduced, one step after another."""

# Elements from which it pays to reduce the last axis first: XLA's CPU backend reduces an array
# to an array on all cores, but to a scalar on one.
TWO_STAGES = 1 << 18

# Elements up to which values of one size are copied together and reduced at once, and in loops.
# Each reduction is a kernel to compile and to start; for more elements the copy costs more.
TOGETHER, TOGETHER_IN_LOOPS = 1 << 12, 1 << 8
# XLA's CPU backend shares a kernel out to threads by a model of its cost, from some 3,600
# elements of such a reduction on. To wake one up takes 25 to 50 us, in which a core reduces 100,000
# elements. So it pays from `SHARED` elements on, below that values are reduced to scalars, where
# there is nothing to share; and a `FEW` times `UNSHARED` elements are not measured together at
# once, but in parts that stay below the threshold. (Of more, the parts cost more to compile.)
SHARED, UNSHARED, FEW = 1 << 16, 3 << 10, 4
# Values above are reduced to rows, at least so many for all cores to take part, and at most so
# many; the rows of several values are then copied together.
ROWS = 8, 1 << 12


def together(shape: tuple[int, ...], repeats: bool) -> Hashable:
    """What values must have in common to be measured together; None for those that are not.

    `repeats`: it is in a loop. On several devices nothing is: values may be sharded each in its
    own way.
    """
    elements = size_of(shape)
    if not 0 < elements < math.inf or jax.device_count() > 1:
        return None
    if elements <= TOGETHER:
        return ("value", elements) if not repeats or elements <= TOGETHER_IN_LOOPS else None
    rows = math.prod(as_rows(shape)[0])
    return ("rows", rows) if elements < SHARED or ROWS[0] <= rows <= ROWS[1] else None


def part_size(count: int, elements: int, kept: int) -> int:
    """How many of `count` small values of that size are measured at once, if `kept` is the most."""
    unshared = max(UNSHARED // elements, 1)
    return unshared if count <= FEW * unshared else max(kept // elements, 1)


def as_rows(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape in two parts: the axes of rows, and those of a row. A vector is cut in pieces.

    What no other thread shall have a share in is a single row.
    """
    if math.prod(shape) < SHARED:
        return (), shape
    if len(shape) == 1:
        rows = math.gcd(shape[0], ROWS[1] // 4)
        return (rows,), (shape[0] // rows,)
    kept = next((i for i in range(1, len(shape)) if math.prod(shape[:i]) >= ROWS[0]), None)
    split = len(shape) - 1 if kept is None else kept
    return shape[:split], shape[split:]


@jax.jit
def _rows(value: jax.Array) -> Extrema:
    """The state of each row of a value, along one axis."""
    rows, row = as_rows(value.shape)
    axes = tuple(range(len(rows), len(rows) + len(row)))
    state = MinMax()._measure(lax.stop_gradient(value).reshape(*rows, *row), [axes])
    return Extrema(*(jnp.ravel(leaf) for leaf in state))


def _stages(value: jax.Array) -> Stages:
    every = tuple(range(value.ndim))
    large = size_of(value.shape) >= TWO_STAGES
    return [every[-1:], every[:-1]] if large and value.ndim > 1 else [every]


def extrema(stages: Stages, *operands: jax.Array) -> tuple[jax.Array, ...]:
    """The least of the first operand, the largest of the second (and of the third).

    On the CPU one reduction of all operands at once: XLA does not fuse reductions there, and
    would read the data (or compute it again, in a fusion) for each. Elsewhere it does fuse
    them. On several devices too it is one for each, because XLA's partitioner gathers the
    operands of a reduction that has several.
    """
    starts = [_start(op, x.dtype) for op, x in zip(_FOLDS, operands, strict=False)]
    for axes in stages:
        if in_one_reduction():
            operands = tuple(lax.reduce(operands, tuple(starts), _FOLD_ALL[len(operands)], axes))
        else:
            operands = tuple(
                lax.reduce(x, start, op, axes)
                for x, start, op in zip(operands, starts, _FOLDS, strict=False)
            )
    return operands


def in_one_reduction() -> bool:
    """Whether several arrays are best reduced in one reduction (see `extrema`)."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1


_FOLDS = (lax.min, lax.max, lax.max)


def _start(op: Any, dtype: np.dtype) -> np.ndarray:
    info = np.iinfo(dtype)
    return np.array(info.max if op is lax.min else info.min, dtype)


def _fold_two(a: Any, b: Any) -> Any:
    return lax.min(a[0], b[0]), lax.max(a[1], b[1])


def _fold_three(a: Any, b: Any) -> Any:
    return lax.min(a[0], b[0]), lax.max(a[1], b[1]), lax.max(a[2], b[2])


_FOLD_ALL = {2: _fold_two, 3: _fold_three}
