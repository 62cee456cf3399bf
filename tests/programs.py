"""Random JAX programs: what nobody thinks of, from a seed.

    program = random_program(17)
    program.fun(*program.args)
    print(program)              # the seed and the jaxpr

A program is a sequence of random steps on a pool of values. Steps are operations of all sorts,
and nests (jit, scan, while, cond, custom derivatives, checkpoint, vmap, grad, ...) whose bodies
are again such sequences. Decisions are drawn while the function is being traced and depend on
nothing but the seed and the types of the values. Each body has a seed of its own, so that it is
the same program however often JAX calls it.

A flavour says which operations may occur:

- "wild": all of them, on NaN, infinities, subnormals and everything else.
- "exact": those whose results are the same however XLA fuses them: data movement, integer
  arithmetic, selection, min and max. Floats neither add nor multiply (a fused multiply-add
  rounds once instead of twice), and are not narrowed (XLA may leave narrow-then-wide out).
- "smooth": float32 (or float64) on moderate values, differentiable in reverse.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MAX_DEPTH = 3
MAX_ELEMENTS = 12
SHAPES = ((), (3,), (2, 4), (0, 3))
# What is made in other shapes is summed up in a scalar: each new shape is another compilation
# of each operation.
KEPT_SHAPES = frozenset({*SHAPES, (1,), (2,), (4,), (8,)})
WILD = (*["float32"] * 6, "bfloat16", "float16", "int32", "uint8", "bool", "complex64")
WIDE = ("float64", "float64", "int64")
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-45, 3e38, -6e4, 1e-30, 0.1, 1.0, -1.0)

Pool = list[Any]


@dataclass(frozen=True)
class Program:
    """A function and arguments for it. Trace and run it inside `with program.mode():`."""

    seed: int
    flavour: str
    fun: Callable[..., Any]
    args: tuple[Any, ...]
    x64: bool

    def mode(self) -> Any:
        return jax.enable_x64(self.x64)

    def __str__(self) -> str:
        with self.mode():
            jaxpr = jax.make_jaxpr(self.fun)(*self.args)
        return f"random_program({self.seed}, {self.flavour!r})\nargs = {self.args}\n{jaxpr}"


def random_program(seed: int, flavour: str = "wild") -> Program:
    draw = Draw.of_seed(seed, flavour, (), bans=_bans(flavour))
    x64 = draw.chance(0.2)
    with jax.enable_x64(x64):
        dtypes = {"smooth": ["float32"], "exact": ["float32", *WILD]}.get(flavour, [*WILD])
        dtypes += WIDE if x64 and flavour != "smooth" else ["float64"] * x64
        args = [draw.array(draw.pick(SHAPES), draw.pick(dtypes)) for _ in range(1 + draw.below(3))]
        if flavour == "wild" and draw.chance(0.1):
            args.append(draw.pick((0.5, -2.0, 1j)))  # weakly typed
        captures = [draw.array(draw.pick(SHAPES), draw.pick(dtypes)) for _ in range(2)]
        captures[0] = np.asarray(captures[0])
    body = functools.partial(_outputs, draw.seed(), flavour, tuple(captures))
    return Program(seed, flavour, body, tuple(args), x64)


def _bans(flavour: str) -> frozenset[str]:
    """Smooth programs are made to be differentiated, in reverse."""
    return frozenset({"while"} if flavour == "smooth" else ())


def other_args(program: Program, seed: int) -> tuple[Any, ...]:
    """Arguments of the same types, with other values."""
    draw = Draw.of_seed([program.seed, seed], program.flavour, ())
    with program.mode():
        return tuple(
            draw.array(x.shape, x.dtype) if isinstance(x, jax.Array) else x for x in program.args
        )


def _outputs(seed: int, flavour: str, captures: tuple[Any, ...], *args: Any) -> Any:
    draw = Draw.of_seed(seed, flavour, captures, bans=_bans(flavour))
    pool = block(draw, args)
    outs = {"last": pool[-1], "others": [draw.pick(pool) for _ in range(draw.below(3))]}
    if draw.chance(0.1):
        outs["none"] = None
    return jax.tree.map(jnp.asarray, outs)


# -- decisions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """Random decisions, at some depth of nesting.

    Attributes:
      captures: concrete arrays that bodies may close over.
      bans: nests that may not occur, because something around them refuses them.
    """

    rng: np.random.Generator
    flavour: str
    captures: tuple[Any, ...]
    depth: int = 0
    bans: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of_seed(cls, seed: Any, flavour: str, captures: tuple[Any, ...], **kwargs: Any) -> Draw:
        return cls(np.random.default_rng(seed), flavour, captures, **kwargs)

    def below(self, n: int) -> int:
        return int(self.rng.integers(n))

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def seed(self) -> int:
        return int(self.rng.integers(2**62))

    def body(self, *bans: str) -> Callable[..., Pool]:
        """A function from values to a pool: a program inside the program."""
        options = {"depth": self.depth + 1, "bans": self.bans | frozenset(bans)}
        seed, flavour, captures = self.seed(), self.flavour, self.captures
        return lambda *values: block(Draw.of_seed(seed, flavour, captures, **options), values)

    def array(self, shape: Sequence[int], dtype: Any) -> Any:
        """A concrete array with special values among ordinary ones."""
        count, dtype = math.prod(shape), np.dtype(dtype)
        if dtype.kind in "iub":
            values = self.rng.integers(-4, 9, count)
            values = np.where(self.rng.random(count) < 0.1, 2**31 - 1, values)
            return jnp.asarray(values.astype(dtype).reshape(shape))
        values = self.floats(count)
        if dtype.kind == "c":  # not x + 1j * y, which makes NaN of infinities
            values = np.stack([values, self.floats(count)], 1).view(complex)
        with np.errstate(all="ignore"):
            return jnp.asarray(values.astype(dtype).reshape(shape))

    def floats(self, count: int) -> np.ndarray:
        if self.flavour == "smooth":
            return self.rng.uniform(-2, 2, count)
        values = self.rng.normal(size=count) * 3
        special = self.rng.random(count) < (0.3 if self.chance(0.4) else 0.0)
        return np.where(special, self.rng.choice(SPECIAL, count), values)

    def literal(self, dtype: Any) -> Any:
        """A Python or numpy scalar that an operation may take beside a value of `dtype`."""
        if jnp.issubdtype(dtype, jnp.bool_):
            return self.chance(0.5)
        if jnp.issubdtype(dtype, jnp.integer):
            return dtype.type(self.pick((0, 1, 2, 3, 7, 100)))
        if self.flavour == "smooth":
            return self.pick((0.5, 1.0, -1.5, 0.1))
        huge = 6e4 if dtype == np.float16 else 1e30
        return self.pick((0.0, -0.0, 1.0, -1.5, 0.1, 2.0, 6.0, huge, -1e-3, np.inf, np.nan))

    def typed_literal(self, dtype: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(self.literal(dtype), dtype)[()]


# -- types ------------------------------------------------------------------------------------


def is_float(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def is_int(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def is_bool(x: Any) -> bool:
    return x.dtype == np.dtype(bool)


def is_complex(x: Any) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.complexfloating))


def is_ordered(x: Any) -> bool:
    return not is_complex(x)


def has_rows(x: Any) -> bool:
    return x.ndim > 0 and x.shape[0] > 0


def is_full(x: Any) -> bool:
    return x.size > 0


def converted(x: Any, dtype: Any) -> Any:
    if is_complex(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        x = lax.real(x)
    return lax.convert_element_type(x, np.dtype(dtype))


def scalar(x: Any) -> Any:
    """One number that depends on all of `x`."""
    if not x.size:
        return np.ones((), x.dtype)
    if not x.ndim:
        return x
    if is_complex(x):
        return lax.complex(scalar(lax.real(x)), scalar(lax.imag(x)))
    return lax.reduce_max(x, tuple(range(x.ndim)))


def shaped(x: Any, shape: Sequence[int]) -> Any:
    """Something of another shape that depends on `x`."""
    if x.shape == tuple(shape):
        return x
    if x.size == math.prod(shape):
        return lax.reshape(x, shape)
    return lax.broadcast_in_dim(scalar(x), shape, ())


def like(x: Any, other: Any) -> Any:
    return converted(shaped(x, other.shape), other.dtype)


def find(draw: Draw, pool: Pool, *accept: Callable[[Any], bool]) -> Any:
    """A value that all of `accept` say yes to, rather a late one; made from another if needed."""
    fit = [x for x in pool if all(test(x) for test in accept)]
    if fit:
        return draw.pick(fit[-3:]) if draw.chance(0.6) else draw.pick(fit)
    return next(x for x in _made(draw.pick(pool)) if all(test(x) for test in accept))


def _made(x: Any) -> Any:
    for shape in (x.shape, (3,), (2, 4)):
        for dtype in (x.dtype, "float32", "int32", "bool"):
            yield converted(shaped(x, shape), dtype)


def _twins(x: Any, pool: Pool) -> Pool:
    """`x`, and the values of its type."""
    return [x, *[y for y in pool if y.shape == x.shape and y.dtype == x.dtype]]


# -- operations -------------------------------------------------------------------------------

SMOOTH_UNARY = (lax.sin, lax.cos, lax.tanh, lax.logistic, lax.neg, lax.atan, lax.erf)
EXACT_UNARY = (lax.neg, lax.abs, lax.sign, lax.floor, lax.ceil, lax.is_finite)
FLOAT_UNARY = (
    *SMOOTH_UNARY,
    *EXACT_UNARY,
    *(lax.exp, lax.log, lax.sqrt, lax.rsqrt, lax.expm1, lax.log1p, lax.square, lax.cbrt),
    lambda x: lax.integer_pow(x, 3),
    lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    lambda x: lax.reduce_precision(x, 5, 2),
)
COMPLEX_UNARY = (lax.neg, lax.real, lax.imag, lax.conj, lax.abs, lax.exp, lax.sin)
INT_UNARY = (lax.bitwise_not, lax.sign, lax.population_count, lax.clz, lax.neg)
COMPARE = (lax.eq, lax.ne, lax.lt, lax.le, lax.gt, lax.ge)
FLOAT_BINARY = (lax.add, lax.sub, lax.mul, lax.div, lax.rem, lax.pow, lax.atan2, lax.nextafter)
INT_BINARY = (lax.add, lax.sub, lax.mul, lax.div, lax.rem, lax.bitwise_xor, lax.shift_left)
PYTHONIC = (operator.add, operator.sub, operator.mul, operator.mul, jnp.maximum, jnp.minimum)
LOGIC = (lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor)


def unary(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool)
    if is_bool(x):
        return [lax.bitwise_not(x)]
    if is_int(x):
        return [draw.pick(INT_UNARY)(x)]
    if is_complex(x):
        return [draw.pick(COMPLEX_UNARY[: 4 if draw.flavour == "exact" else None])(x)]
    table = {"smooth": SMOOTH_UNARY, "exact": EXACT_UNARY}.get(draw.flavour, FLOAT_UNARY)
    return [draw.pick(table)(x)]


def _binary_table(draw: Draw, x: Any) -> tuple[Any, ...]:
    if is_bool(x):
        return (*LOGIC, lax.eq, lax.max, lax.lt)
    if is_int(x):
        return (*INT_BINARY, *COMPARE, lax.max, lax.min)
    if draw.flavour == "smooth":
        return (lax.add, lax.sub, lax.mul, lax.max, lax.min)
    if is_complex(x):
        return (lax.eq,) if draw.flavour == "exact" else (lax.add, lax.mul, lax.sub, lax.eq)
    exact = (lax.max, lax.min, *COMPARE)
    if draw.flavour == "exact":
        return exact
    floats = FLOAT_BINARY[: -1 if draw.bans else None]  # nextafter has no derivative
    return (*exact, *floats, *floats)


def binary(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool)
    other = like(find(draw, pool), x)
    if draw.flavour == "exact" and is_float(x):
        other = draw.pick(_twins(x, pool))
    return [draw.pick(_binary_table(draw, x))(x, other)]


def with_literal(draw: Draw, pool: Pool) -> Pool:
    """With a literal: strongly typed, or a Python scalar that takes the value's type."""
    x = find(draw, pool, is_ordered)
    table, other = _binary_table(draw, x), draw.typed_literal(x.dtype)
    if draw.flavour != "exact" and is_float(x) and draw.chance(0.5):
        table, other = PYTHONIC, draw.literal(x.dtype)
    pair = [x, other] if draw.chance(0.7) else [other, x]
    return [draw.pick(table)(*pair)]


def with_capture(draw: Draw, pool: Pool) -> Pool:
    x = draw.pick(draw.captures)
    other = draw.pick(_twins(x, pool)[1:] or [None])
    if other is None:
        return [lax.rev(x, tuple(range(x.ndim)))]
    return [draw.pick(_binary_table(draw, x))(x, other)]


def convert(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool)
    if draw.flavour == "exact":
        options = ("complex64", "bool") if is_float(x) else ("int32", "uint8", "bool")
        return [converted(x, draw.pick(("float64", "bool") if x.dtype == np.float64 else options))]
    return [converted(x, draw.pick((*WILD, *(WIDE if jax.config.jax_enable_x64 else ()))))]


def bitcast(draw: Draw, pool: Pool) -> Pool:
    """Of floats to integers only where they are exact: the last bit becomes a whole number."""
    x = find(draw, pool)
    others = {"int32": np.uint32, "uint32": np.float32, "int64": np.uint64}
    if draw.flavour == "exact":
        others["float32"] = np.int32
    return [lax.bitcast_convert_type(x, others.get(x.dtype.name, x.dtype))]


def clamp(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool, is_ordered)
    return [lax.clamp(draw.typed_literal(x.dtype), x, draw.typed_literal(x.dtype))]


def select(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool)
    mask = shaped(find(draw, pool, is_bool), x.shape)
    return [lax.select_n(mask, x, draw.pick(_twins(x, pool)))]


def reduction(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool, is_ordered, is_full)
    axes = draw.pick([tuple(range(x.ndim)), *[(i,) for i in range(x.ndim)]])
    if is_bool(x):
        return [draw.pick((lax.reduce_and, lax.reduce_or, lax.reduce_max))(x, axes)]
    options = [lax.reduce_max, lax.reduce_min]
    if draw.flavour != "exact" or is_int(x):
        options += [lax.reduce_sum, lax.reduce_prod]
    if x.ndim and draw.flavour != "smooth":
        options.append(lambda x, axes: lax.argmax(x, axes[0], np.dtype("int32")))
    return [draw.pick(options)(x, axes)]


def cumulative(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool, is_ordered, has_rows, lambda x: not is_bool(x))
    exact = draw.flavour == "exact" and not is_int(x)
    options = (lax.cummax, lax.cummin) if exact else (lax.cumsum, lax.cummax, lax.cumprod)
    return [draw.pick(options)(x, axis=draw.below(x.ndim), reverse=draw.chance(0.5))]


def dot(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool, lambda x: x.ndim > 0 and not is_bool(x))
    if draw.flavour == "exact" and not is_int(x):
        return []
    return [lax.dot_general(x, x, (((x.ndim - 1,), (x.ndim - 1,)), ((), ())))]


def movement(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool)
    axes = tuple(range(x.ndim))
    options: list[Callable[[], Any]] = [
        lambda: lax.reshape(x, (x.size,)),
        lambda: lax.transpose(x, axes[::-1]),
        lambda: lax.rev(x, axes[:1]),
        lambda: lax.expand_dims(x, (0,)),
        lambda: lax.squeeze(x, tuple(i for i in axes if x.shape[i] == 1)),
        lambda: lax.optimization_barrier(x),
    ]
    if x.size <= MAX_ELEMENTS // 2:
        options.append(lambda: lax.broadcast_in_dim(x, (2, *x.shape), tuple(i + 1 for i in axes)))
    return [draw.pick(options)()]


def padded(draw: Draw, pool: Pool) -> Pool:
    """Padding, of a negative width too, which cuts."""
    x = find(draw, pool, has_rows)
    widths = [(draw.pick((1, 0, -1)), 0, 0), *[(0, 0, 0)] * (x.ndim - 1)]
    return [lax.pad(x, draw.typed_literal(x.dtype), widths)]


def joined(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool, lambda x: x.ndim > 0)
    fit = [draw.pick(_twins(x, pool)), x] if x.size <= MAX_ELEMENTS // 2 else [x]
    return [lax.concatenate(fit, draw.below(x.ndim))]


def sliced(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool, has_rows)
    size = draw.pick((1, x.shape[0]))
    rest = tuple(x.shape[1:])
    start = _index(draw, pool)
    starts = (start, *[np.zeros((), start.dtype)] * len(rest))
    options: list[Callable[[], Any]] = [
        lambda: lax.slice(x, (0,) * x.ndim, (size, *rest)),
        lambda: lax.slice(x, (0,) * x.ndim, x.shape, (2,) + (1,) * len(rest)),
        lambda: lax.dynamic_slice(x, starts, (size, *rest)),
        lambda: lax.dynamic_update_slice(x, lax.rev(lax.slice_in_dim(x, 0, size), (0,)), starts),
    ]
    return [draw.pick(options)()]


def _index(draw: Draw, pool: Pool) -> Any:
    """A scalar int32 that depends on data and may be out of bounds."""
    # Not from a boolean: XLA's CPU backend fails to clamp such an index ("PRED").
    return converted(scalar(find(draw, pool, is_ordered, lambda x: not is_bool(x))), "int32")


def gathered(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool, has_rows)
    i = lax.reshape(_index(draw, pool), (1,))
    i = lax.concatenate([i, np.asarray([1], "int32")], 0)
    mode = draw.pick(("fill", "clip"))
    if draw.chance(0.6):
        return [x.at[i].get(mode=mode)] if isinstance(x, jax.Array) else []
    rows = lax.slice_in_dim(x, 0, 1)
    return [getattr(jnp.asarray(x).at[i], draw.pick(("set", "max", "min")))(rows, mode="drop")]


def ordered(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool, is_ordered, has_rows)
    if draw.chance(0.5):
        return [lax.sort(x, dimension=draw.below(x.ndim))]
    keys = find(draw, pool, is_ordered, has_rows)
    keys = shaped(keys, x.shape)
    return list(lax.sort((keys, x), dimension=0, num_keys=1, is_stable=True))


def topped(draw: Draw, pool: Pool) -> Pool:
    x = find(draw, pool, is_float, lambda x: x.ndim > 0 and x.shape[-1] > 1)
    return list(lax.top_k(x, 2))


def made(draw: Draw, pool: Pool) -> Pool:
    """From nothing: iota, filled arrays, keys and random bits."""
    del pool
    dtype = "float32" if draw.flavour == "smooth" else draw.pick(WILD[4:-2])
    options: list[Callable[[], Any]] = [
        lambda: lax.iota(np.dtype(dtype), draw.pick((3, 4))),
        lambda: jnp.full((3,), 0.25, dtype),
        lambda: lax.broadcasted_iota(np.dtype(dtype), (2, 4), 1),
    ]
    if draw.depth and draw.flavour != "smooth":
        options.append(lambda: jax.random.bits(jax.random.key(draw.below(9)), (3,), "uint8"))
    return [draw.pick(options)()]


def library(draw: Draw, pool: Pool) -> Pool:
    """Functions of jax.numpy and jax.nn, which are jitted and have rules of their own."""
    x = find(draw, pool, is_float, is_full)
    smooth = (jax.nn.relu, jax.nn.silu, jax.nn.gelu, jax.nn.softplus, _positive_or_2)
    wild = (jax.nn.relu6, jnp.nan_to_num, lambda x: jnp.clip(x, -1, 1), jax.nn.logsumexp, jnp.std)
    exact = (jax.nn.relu, jax.nn.relu6, _positive_or_2, jnp.isnan)
    table = {"smooth": smooth, "exact": exact}.get(draw.flavour, (*smooth, *wild, *exact))
    return [draw.pick(table)(x)]


def _positive_or_2(x: Any) -> Any:
    return jnp.where(x > 0, x, 2)


# -- nests ------------------------------------------------------------------------------------


def jitted(draw: Draw, pool: Pool) -> Pool:
    body, values = draw.body(), _some(draw, pool)
    keep = draw.pick((False, True))

    def fun(*values: Any) -> Pool:
        return body(*values)[-2:]

    fun.__name__ = draw.pick(("layer", "block", "_f"))
    return jax.jit(fun, keep_unused=keep)(*values)


def donating(draw: Draw, pool: Pool) -> Pool:
    """The donated value is nobody else's, and a result can take its place."""
    body, x = draw.body(), find(draw, pool, is_full)
    return [jax.jit(lambda x: like(body(x)[-1], x), donate_argnums=0)(lax.select_n(True, x, x))]


def scanned(draw: Draw, pool: Pool) -> Pool:
    body = draw.body()
    carry, xs = find(draw, pool), find(draw, pool, lambda x: x.ndim > 0)
    if draw.chance(0.15):
        xs = lax.slice_in_dim(xs, 0, min(1, xs.shape[0]))
    fit = [y for y in pool if y.ndim and y.shape[0] == xs.shape[0]]
    xs = [xs, *([draw.pick(fit)] if fit and draw.chance(0.4) else [])]
    closed = _some(draw, pool)[:1] if draw.chance(0.6) else []

    def step(carry: Any, xs: Any) -> tuple[Any, Any]:
        new = body(*closed, *xs, carry)
        return like(new[-1], carry), new[-2:]

    unroll = draw.pick((1, 1, 1, 2))
    out, ys = lax.scan(step, jnp.asarray(carry), xs, reverse=draw.chance(0.3), unroll=unroll)
    return [*ys, out]


def looped(draw: Draw, pool: Pool) -> Pool:
    """fori_loop; differentiated in reverse the number of trips must be known."""
    body, x = draw.body(), find(draw, pool)
    trips = draw.below(4)
    if "while" not in draw.bans and draw.chance(0.6):
        trips = lax.clamp(np.int32(0), _index(draw, pool), np.int32(3))
    return [lax.fori_loop(0, trips, lambda i, x: like(body(converted(i, "float32"), x)[-1], x), x)]


def repeated(draw: Draw, pool: Pool) -> Pool:
    """A while loop whose condition looks at data, and ends after some trips anyway."""
    test, body, x = draw.body(), draw.body(), find(draw, pool)
    most = draw.below(4)

    def go_on(state: Any) -> Any:
        return lax.bitwise_and(lax.lt(state[0], np.int32(most)), _truth(test(state[1])[-1]))

    def step(state: Any) -> Any:
        return lax.add(state[0], np.int32(1)), like(body(state[1])[-1], state[1])

    return list(lax.while_loop(go_on, step, (jnp.zeros((), "int32"), jnp.asarray(x))))[1:]


def _truth(x: Any) -> Any:
    return converted(scalar(x), "bool")


def branched(draw: Draw, pool: Pool) -> Pool:
    operands = _some(draw, pool)
    bodies = [draw.body() for _ in range(2 + draw.chance(0.3))]
    branches = [lambda *xs, body=body: like(body(*xs)[-1], xs[0]) for body in bodies]
    if len(branches) == 2 and draw.chance(0.6):
        return [lax.cond(_truth(find(draw, pool)), *branches, *operands)]
    return [lax.switch(_index(draw, pool), branches, *operands)]


def custom_jvp(draw: Draw, pool: Pool) -> Pool:
    body, x = draw.body("custom_vjp"), find(draw, pool, is_float)
    fun = jax.custom_jvp(lambda x: like(body(x)[-1], x))
    fun.defjvp(lambda primals, tangents: (fun(*primals), tangents[0] * 3))
    return [fun(x)]


def custom_vjp(draw: Draw, pool: Pool) -> Pool:
    body, x = draw.body(), find(draw, pool, is_float)
    fun = jax.custom_vjp(lambda x: like(body(x)[-1], x))
    fun.defvjp(lambda x: (fun(x), lax.tanh(x)), lambda kept, ct: (lax.mul(ct, kept),))
    return [fun(x)]


def checkpointed(draw: Draw, pool: Pool) -> Pool:
    body = draw.body()  # differentiated only where the checkpoint is
    policy = draw.pick((None, jax.checkpoint_policies.dots_saveable))
    return jax.checkpoint(lambda *xs: body(*xs)[-2:], policy=policy)(*_some(draw, pool))


def mapped(draw: Draw, pool: Pool) -> Pool:
    body, x = draw.body(), find(draw, pool, has_rows)
    return jax.vmap(lambda x, y: body(y, x)[-1:], (0, None))(x, find(draw, pool))


def differentiated(draw: Draw, pool: Pool) -> Pool:
    """In reverse: no while loops inside."""
    body, x = draw.body("while"), jnp.asarray(find(draw, pool, is_float))

    def loss(x: Any) -> Any:
        return lax.reduce_sum(like(body(x)[-1], x), tuple(range(x.ndim)))

    return [jax.checkpoint(jax.grad(loss))(x) if draw.chance(0.1) else jax.grad(loss)(x)]


def pushed(draw: Draw, pool: Pool) -> Pool:
    """Forward: no functions that have a rule for the reverse only."""
    body, x = draw.body("custom_vjp"), jnp.asarray(find(draw, pool, is_float))
    return list(jax.jvp(lambda x: like(body(x)[-1], x), (x,), (x,)))


def linearized(draw: Draw, pool: Pool) -> Pool:
    body, x = draw.body("while"), jnp.asarray(find(draw, pool, is_float))
    y, linear = jax.linearize(lambda x: like(body(x)[-1], x), x)
    return [y, linear(y)]


def scoped(draw: Draw, pool: Pool) -> Pool:
    with jax.named_scope(draw.pick(("layer", "attn", "mlp/up"))):
        return draw.body()(*_some(draw, pool))[-2:]


def _some(draw: Draw, pool: Pool) -> Pool:
    return [find(draw, pool) for _ in range(1 + draw.below(2))]


# -- programs ---------------------------------------------------------------------------------

Step = Callable[[Draw, Pool], Pool]

# Weights. What is compiled as a whole (nests, and library functions, which are jitted) costs
# more time than anything else, so it is rarer than its interest.
PLAIN: dict[Step, int] = {
    unary: 5,
    binary: 4,
    with_literal: 6,
    with_capture: 2,
    convert: 2,
    clamp: 1,
    select: 2,
    reduction: 3,
    cumulative: 1,
    dot: 1,
    movement: 4,
    padded: 1,
    joined: 2,
    sliced: 2,
    gathered: 1,
    ordered: 1,
    topped: 1,
    made: 1,
    bitcast: 1,
    library: 1,
}
NESTS: dict[Step, int] = {
    jitted: 3,
    donating: 1,
    scanned: 5,
    looped: 2,
    repeated: 2,
    branched: 3,
    custom_jvp: 2,
    custom_vjp: 2,
    checkpointed: 2,
    mapped: 2,
    differentiated: 3,
    pushed: 1,
    linearized: 1,
    scoped: 3,
}
NOT_SMOOTH = frozenset({convert, bitcast, gathered, topped, with_capture})
NOT_EXACT = frozenset({differentiated, pushed, linearized})
BANNED = {"while": frozenset({repeated}), "custom_vjp": frozenset({custom_vjp})}


def block(draw: Draw, values: Sequence[Any]) -> Pool:
    """A few random steps; returns the values they were given and made, the newest last."""
    pool = [x if hasattr(x, "dtype") else jnp.asarray(x) for x in values]
    plain, nests = _weighted(draw, PLAIN), _weighted(draw, NESTS)
    for _ in range(1 + draw.below(3) if draw.depth else 2 + draw.below(3)):
        nest = draw.depth < MAX_DEPTH and draw.chance(0.2)
        made = draw.pick(nests if nest else plain)(draw, pool)
        pool += [x if x.shape in KEPT_SHAPES else scalar(x) for x in made]
    return pool


def _weighted(draw: Draw, table: dict[Step, int]) -> list[Step]:
    banned = {"smooth": NOT_SMOOTH, "exact": NOT_EXACT}.get(draw.flavour, frozenset())
    banned = banned.union(*[BANNED[ban] for ban in draw.bans])
    return [step for step, weight in table.items() for _ in range(weight) if step not in banned]
