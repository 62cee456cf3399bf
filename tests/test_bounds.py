"""`jr.bounds`: nothing that runs leaves what was proven, and what is proven is of use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jax_ranges as jr
from jax_ranges.bounds.elementwise import inverse_erf
from jax_ranges.bounds.interval import Interval, everything, exactly, hull, kind_of, outward
from jax_ranges.report.bounds_table import bounds_table
from jax_ranges.report.tables import plain
from tests.programs import random_program
from tests.values import INTS, NARROW, cast, random_array

INF, NAN = math.inf, math.nan
F32 = np.dtype(np.float32)
FLOATS = [F32, np.dtype(np.float64), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]


def assert_held(bounds: jr.Bounds, seen: jr.Ranges, about: Any = "") -> None:
    """Every range that was observed is within what was proven."""
    assert [site.name for site in bounds.sites] == [site.name for site in seen.sites]
    left = [
        f"{name}: saw {r}, proven {bounds[name]}"
        for name, r in seen.items()
        if not bounds[name].holds(r.min, r.max, r.nan)
    ]
    assert not left, f"{left}\n{about}"


def check(fun: Callable[..., Any], *args: Any, how: str = "both", **options: Any) -> jr.Bounds:
    """The bounds of a program for the ranges of its arguments, which hold when it is run."""
    found = jr.bounds(fun, observed=False, **options)(*args)
    measured = jr.ranges(fun)
    if how != "jit":
        assert_held(found, measured(*args)[1], args)
    if how != "eager":
        assert_held(found, jax.jit(measured)(*args)[1], args)
    return found


# -- intervals --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [d for d in NARROW if jnp.issubdtype(d, jnp.floating)], ids=str)
@given(data=st.data())
def test_rounding_is_outwards(dtype, data):
    x = data.draw(st.floats(allow_nan=False))
    found = exactly(x, x, dtype)
    kind = kind_of(dtype)
    if math.isfinite(x) and kind.least <= x <= kind.largest:
        assert found.lo <= x <= found.hi
        # Both are numbers of the dtype, and there is none between.
        assert all(float(cast(np.float64(end), dtype)) == end for end in found[:2])
        if found.lo != found.hi:
            middle = (found.lo + found.hi) / 2
            assert float(cast(np.float32(middle), dtype)) in (found.lo, found.hi, middle)
    elif not math.isinf(x):
        assert found.nan or found.infinite


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_a_hull_has_both(a, b):
    x, y = Interval(a, a), Interval(b, b, True)
    assert x.within(hull(x, y)) and y.within(hull(x, y))
    assert hull(x, y) == hull(y, x)


def test_subnormals_reach_to_zero():
    assert outward(1e-40, 1.0, F32).lo == 0
    assert outward(-1.0, -1e-40, F32).hi == 0
    assert outward(0.0, 1.0, F32) == Interval(0.0, math.nextafter(1.0, 2) and 1.0000001192092896)
    assert not outward(1.0, 2.0, F32, False, 4).holds(0.99999)


def test_an_overflow_leaves_the_largest_number_in():
    assert exactly(1e39, 1e39, F32) == Interval(float(np.finfo(F32).max), INF)
    assert exactly(500.0, 500.0, np.dtype(ml_dtypes.float8_e4m3fn)).nan


# -- every rule: what runs stays inside -------------------------------------------------------

UNARY: dict[str, Callable[[Any], Any]] = {
    **{
        name: getattr(lax, name)
        for name in (
            *("exp", "exp2", "expm1", "log", "log1p", "sqrt", "cbrt", "rsqrt", "tanh", "logistic"),
            *("erf", "erfc", "erf_inv", "sin", "cos", "asin", "acos", "atan", "sinh", "cosh"),
            *("asinh", "neg", "abs", "square", "sign", "floor", "ceil", "round", "is_finite"),
        )
    },
    "powers": lambda x: [lax.integer_pow(x, n) for n in (3, 4, 7, -1, -2)],
    "casts": lambda x: [
        lax.convert_element_type(x, to)
        for to in (jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, jnp.int8, jnp.uint32, bool)
    ],
    "sums": lambda x: [lax.reduce_sum(x, (0,)), lax.cumsum(x, 0), jnp.sum(x), lax.dot(x, x)],
    "products": lambda x: [lax.reduce_prod(x, (0,)), lax.cumprod(x, 0)],
    "extrema": lambda x: [x.max(), x.min(), lax.cummax(x, 0), lax.argmax(x, 0, np.int32)],
    "same": lambda x: [x * x, x - x, x / x, x * x - x],
    "softmax": lambda x: [jax.nn.softmax(x), jax.nn.logsumexp(x), jax.nn.log_softmax(x)],
    "activations": lambda x: [jax.nn.gelu(x), jax.nn.silu(x), jax.nn.softplus(x)],
    "norm": lambda x: (x - x.mean()) * lax.rsqrt(jnp.var(x) + jnp.asarray(1e-3, x.dtype)),
    "folded": lambda x: x * 0.3 * 7.1 / 3,
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "arithmetic": lambda a, b: [a + b, a - b, a * b, a / b, lax.rem(a, b), lax.pow(a, b)],
    "order": lambda a, b: [lax.max(a, b), lax.min(a, b), lax.clamp(a, b, a), a < b, a >= b, a == b],
    "others": lambda a, b: [lax.atan2(a, b), lax.nextafter(a, b), jnp.where(a > b, a, b)],
    "contracted": lambda a, b: [a * b + a, a - b * b, (a + b) * (a - b)],
    "rewritten": lambda a, b: [a / (a / b), (a / b) / a, jnp.exp(a) * jnp.exp(b), a / jnp.exp(b)],
}
SPECIALS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    INF,
    -INF,
    NAN,
    1e-40,
    -1e-45,
    3e38,
    -6.5e4,
    88.7,
    -104,
    0.9999999,
)


def drawn(dtype: np.dtype, rng: np.random.Generator, count: int = 6) -> np.ndarray:
    """Specials, bit patterns, numbers of all sizes, or numbers close to one another."""
    ways = (
        lambda: rng.choice(SPECIALS, count),
        lambda: rng.normal(size=count) * 10.0 ** rng.integers(-6, 4),
        lambda: rng.uniform(-1, 1, count) * 10.0 ** rng.uniform(-40, 38, count),
        lambda: rng.uniform(0.1, 9) * (1 + rng.uniform(size=count) * 10.0 ** -rng.integers(0, 6)),
        lambda: random_array(dtype, (count,), rng),
    )
    return cast(np.asarray(ways[rng.integers(len(ways))]()), dtype)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_floats(name, dtype, x64):
    rng = np.random.default_rng([len(name), dtype.itemsize, ord(dtype.name[0])])
    fun = UNARY.get(name) or BINARY[name]
    for n in range(3):
        args = [drawn(dtype, rng) for _ in range(1 + (name in BINARY))]
        check(fun, *map(jnp.asarray, args), how="both" if n == 0 else "eager")


INTEGER: dict[str, Callable[[Any, Any], Any]] = {
    "arithmetic": lambda a, b: [a + b, a - b, a * b, lax.div(a, b), lax.rem(a, b), a * a, a - a],
    "unary": lambda a, b: [lax.neg(a), jnp.abs(a), lax.sign(b), lax.integer_pow(a, 3)],
    "bits": lambda a, b: [a & b, a | b, a ^ b, ~a, lax.population_count(a), lax.clz(b)],
    "shifts": lambda a, b: [
        lax.shift_right_logical(a, b),
        lax.shift_right_arithmetic(a, b),
        lax.shift_left(a, b),
    ],
    "order": lambda a, b: [lax.max(a, b), lax.min(a, b), a < b, a != b, lax.clamp(a, b, a)],
    "sums": lambda a, b: [lax.reduce_sum(a, (0,)), lax.cumsum(b, 0), lax.dot(a, b)],
    "casts": lambda a, b: [
        lax.convert_element_type(a, to) for to in (jnp.int8, jnp.uint16, jnp.float16, bool)
    ],
}


@pytest.mark.parametrize("dtype", [d for d in INTS if d.itemsize > 1 or d.kind in "iu"], ids=str)
@pytest.mark.parametrize("name", INTEGER)
def test_integers_wrap(name, dtype):
    rng = np.random.default_rng([len(name), dtype.itemsize])
    for n in range(4):
        a, b = (random_array(dtype, (4,), rng) for _ in range(2))
        if n % 2:
            a, b = a % 7, b % 5
        check(INTEGER[name], jnp.asarray(a), jnp.asarray(b), how="jit" if n == 0 else "eager")


def test_booleans():
    x, y = jnp.array([True, False]), jnp.array([True, True])
    for a in (x, y):
        found = check(lambda a, b: [a & b, a | b, a ^ b, ~a, a.all(), a.any(), a * 2.5], a, y)
        assert found["or"].lo is True


MOVES: dict[str, Callable[[Any], Any]] = {
    "indexed": lambda x: [x[1:], x[::-1], x[jnp.array([0, 9])], x.at[1].set(7), x.at[1].add(2.5)],
    "filled": lambda x: x.at[jnp.array([9])].get(mode="fill"),
    "put together": lambda x: [jnp.concatenate([x, x * 2]), jnp.pad(x, 1, constant_values=-9)],
    "sorted": lambda x: [jnp.sort(x), jnp.argsort(x), lax.top_k(x, 2)],
    "sliced": lambda x: lax.dynamic_update_slice(x, x[:2] + 100, (jnp.int32(x[0]),)),
    "windows": lambda x: [
        lax.reduce_window(x, 0.0, lax.add, (2,), (1,), "SAME"),
        lax.reduce_window(x, -INF, lax.max, (2,), (1,), "SAME"),
    ],
    "bits": lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, np.int32), F32),
    "complex": lambda x: [jnp.abs(x + 1j), (x * 2j).real],
    "made": lambda x: [x + jnp.arange(4.0), jax.random.normal(jax.random.key(0), (4,))],
    "scattered": lambda x: x.at[jnp.array([0, 0, 0])].add(x[:3]),
    "nothing": lambda x: [x[:0].sum(), x[:0] * 2, jnp.concatenate([x[:0], x])],
}


@pytest.mark.parametrize("name", MOVES)
def test_movement(name):
    for values in ([1.0, -2.5, 3.0, 0.5], [INF, 1.0, NAN, -0.0]):
        check(MOVES[name], jnp.array(values))


@pytest.mark.parametrize(
    "dtype", [F32, np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)], ids=str
)
def test_known_weights_bound_a_contraction_row_by_row(dtype):
    rng = np.random.default_rng(3)
    w = jnp.asarray(rng.normal(size=(32, 5)), dtype)
    found = jr.bounds(lambda x: x @ w, bounds={"x": (-1, 1)}, observed=False)
    proven = found(jax.ShapeDtypeStruct((2, 32), dtype))["dot_general"]
    exact = np.abs(np.asarray(w, np.float64)).sum(0).max()
    assert exact <= proven.hi <= exact * (1.01 if dtype == F32 else 1.3)
    worst = jnp.sign(w[:, jnp.argmax(jnp.abs(w).sum(0))])[None]
    assert proven.holds(*(2 * [(worst @ w).max().astype(float)]), False)
    loose = jr.bounds(lambda x, w: x @ w, bounds={"x": (-1, 1)}, observed=False)
    fixed = jr.bounds(lambda x, w: x @ w, bounds={"x": (-1, 1)}, fixed="w", observed=False)
    args = (jax.ShapeDtypeStruct((2, 32), dtype), w)
    assert fixed(*args)["dot_general"] == proven
    assert loose(*args)["dot_general"].hi > 1.5 * proven.hi


def test_known_kernels_and_padding():
    rng = np.random.default_rng(4)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 2, 4)), F32)

    def conv(x):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    for lo, hi in ((-1, 1), (2, 3), (-3, -2)):
        x = jnp.asarray(rng.uniform(lo, hi, (2, 6, 6, 2)), F32)
        found = check(conv, x, bounds={"x": (lo, hi)})
        most = np.abs(np.asarray(kernel)).sum((0, 1, 2)).max() * max(abs(lo), abs(hi))
        assert found["conv_general_dilated"].hi <= most * 1.001


# -- whole programs ---------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [range(15), range(15, 30)], ids=str)
def test_random_programs(seeds):
    for seed in seeds:
        program = random_program(seed)
        with program.mode():
            check(program.fun, *program.args, how="eager")


@pytest.mark.slow
@pytest.mark.parametrize("start", range(30, 430, 50))
def test_more_random_programs(start):
    for seed in range(start, start + 50):
        program = random_program(seed)
        with program.mode():
            check(program.fun, *program.args, how="jit" if seed % 4 == 0 else "eager")
    jax.clear_caches()


LOOPS: dict[str, Callable[..., Any]] = {
    "counted": lambda x: lax.fori_loop(0, 5, lambda i, c: c * 2 + i, x),
    "long": lambda x: lax.fori_loop(0, 100_000, lambda i, c: jnp.tanh(c + i), x),
    "growing": lambda x: lax.fori_loop(0, 3000, lambda i, c: c + 1, x),
    "traced": lambda x: lax.fori_loop(0, x.astype(int).sum(), lambda i, c: c / 2 - i, x),
    "scan": lambda x: lax.scan(lambda c, x: (jnp.tanh(c + x), c * x), 0.5, x),
    "nested": lambda x: lax.scan(
        lambda c, x: (lax.fori_loop(0, 3, lambda i, d: d * 0.5 + x, c), c), 0.5, x
    ),
    "while": lambda x: lax.while_loop(lambda c: c.sum() < 100, lambda c: c * 1.5 + 1, x),
    "batched": jax.vmap(lambda x: lax.while_loop(lambda c: c < 9, lambda c: c + 1, x)),
    "cond": lambda x: lax.cond(x[0] > 100, jnp.exp, jnp.log1p, x),
    "switch": lambda x: lax.switch(x[0].astype(int), [jnp.sin, jnp.exp, lambda x: x * 9], x),
    "gradient": jax.grad(lambda x: jnp.sum(jax.nn.softplus(x) ** 2)),
    "remat": jax.grad(lambda x: jnp.sum(jax.checkpoint(lambda x: jnp.tanh(x) * x)(x))),
    "relu": jax.grad(lambda x: jax.nn.relu6(x).sum()),
    "no trips": lambda x: lax.scan(lambda c, x: (c + x, c), 0.5, x[:0]),
}


@pytest.mark.parametrize("name", LOOPS)
def test_inner_programs(name):
    check(LOOPS[name], jnp.array([0.5, 1.5, 2.0]))


def test_known_trips_are_followed_and_others_are_not():
    found = check(LOOPS["counted"], jnp.array([0.0, 1.0]))
    assert found["while/body/add.1" if "while/body/add.1" in found else "scan/add.1"].hi == 58
    assert found["scan/add"].hi == 5
    found = check(LOOPS["traced"], jnp.array([1.0]))
    assert found["while/body/sub"].may_inf or found["while/body/sub"].finite


def test_a_branch_that_cannot_be_taken():
    found = check(LOOPS["cond"], jnp.array([0.5, 1.5]))
    assert found["cond/branch_0/log1p"].finite
    never = found["cond/branch_1/exp"]
    assert never.never and not never.may_inf
    assert {row.verdict for row in found.rows if row.proven.never} == {"never runs, proven"}


def test_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("i",))

    def body(x):
        return lax.psum(x, "i"), x * lax.axis_index("i")

    spec = jax.sharding.PartitionSpec
    fun = jax.shard_map(body, mesh=mesh, in_specs=spec("i"), out_specs=(spec(), spec("i")))
    found = check(fun, jnp.array([1.0, 2.0]))
    assert all(found[name].finite for name in found)


# -- usefulness -------------------------------------------------------------------------------


def _mlp(x: Any) -> Any:
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = jnp.tanh(x @ rng.normal(size=(32, 32)).astype(np.float32) * 0.2 + 0.1)
    return x


def _attention(x: Any) -> Any:
    rng = np.random.default_rng(1)
    q, k, v = (x @ rng.normal(size=(32, 32)).astype(np.float32) for _ in range(3))
    scores = jnp.where(jnp.tril(jnp.ones((16, 16), bool)), q @ k.T / 32**0.5, -1e30)
    return jax.nn.softmax(scores) @ v


def _layernorm(x: Any) -> Any:
    x = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * 1.5 + 0.5


def _convnet(x: Any) -> Any:
    rng = np.random.default_rng(2)
    x = x.reshape(1, 16, 32, 1)
    for features in ((1, 4), (4, 8)):
        kernel = rng.normal(size=(3, 3, *features)).astype(np.float32) * 0.2
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        x = lax.reduce_window(jax.nn.relu(x), -INF, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return jax.nn.log_softmax(x.reshape(1, -1) @ rng.normal(size=(256, 10)).astype(np.float32))


def _loss(x: Any) -> Any:
    return jax.value_and_grad(lambda x: -jax.nn.log_softmax(_mlp(x))[:, 0].mean())(x)


# Sites of which it is not proven that they are finite: of the variance, which is NaN of nothing.
UNPROVEN = {_mlp: 0, _attention: 0, _layernorm: 2, _convnet: 0, _loss: 0}


@pytest.mark.parametrize("model", UNPROVEN, ids=lambda model: model.__name__[1:])
def test_models_are_provable(model):
    x = jnp.asarray(np.random.default_rng(5).uniform(-3, 3, (16, 32)), F32)
    found = check(model, x, bounds={"x": (-3, 3)})
    assert sum(not found[name].finite for name in found) == UNPROVEN[model], found.unproven


def test_a_softmax_stays_within_0_and_1():
    x = jax.ShapeDtypeStruct((4, 9), F32)
    proven = jr.bounds(jax.nn.softmax, bounds={"x": (-1e30, 1e30)})(x)["div"]
    assert proven.lo == 0 and 1 <= proven.hi < 1.001 and proven.finite
    # Without the maximum subtracted nothing of the kind holds.
    naive = jr.bounds(lambda x: jnp.exp(x) / jnp.exp(x).sum(), bounds={"x": (-200, 200)})(x)
    assert naive["div"].may_nan and naive["exp"].may_inf


# -- inputs, verdicts, texts ------------------------------------------------------------------


def test_what_is_assumed_of_inputs():
    def fun(p, x):
        return p["w"] * x

    p, x = {"w": jnp.array([2.0, 3.0])}, jax.ShapeDtypeStruct((2,), F32)
    found = jr.bounds(fun)(p, x)
    assert (found.assumed["input/p/w"].lo, found.assumed["input/p/w"].hi) == (2, 3)
    assert found.assumed["input/x"].hi == float(np.finfo(F32).max)
    assert found.observed is None and found["mul"].may_inf and not found["mul"].may_nan
    found = jr.bounds(fun, bounds={"p/*": (0, 1), "input/x": (-0.1, 0.1)}, inputs=True)(p, x)
    # 0.1 is no float32: both of its neighbours are within.
    assert found["mul"].hi == found["input/x"].hi == float(np.float32(0.1))
    seen = jr.ranges(fun, inputs=True)(p, jnp.array([1.0, 5.0]))[1]
    assert jr.bounds(fun, bounds=seen)(p, x)["mul"] == jr.Proven(2.0, 15.0, False, False)


def test_verdicts():
    def fun(x):
        y = x.astype(jnp.float16) * 400
        return y, jnp.exp(y), (x > 0).astype(jnp.int32), jnp.sqrt(x)

    found = jr.bounds(fun, bounds={"x": (-1, 100)})(jnp.array([1.0, 65.5]))
    verdicts = {row.site.name: row.verdict for row in found.rows}
    assert verdicts["convert_element_type"] == "cannot overflow, proven: at most 0.2% of float16"
    assert verdicts["mul"] == "cannot overflow, proven: at most 61% of float16"
    assert verdicts["exp"].startswith("observed inf")
    assert verdicts["gt"] == "may be any bool"
    assert verdicts["convert_element_type.1"] == "stays between 0 and 1, proven"
    assert verdicts["sqrt"].endswith("of float32; NaN is not excluded")
    formats = {row.site.name: row.format for row in found.rows}
    assert formats["mul"] == "float8_e5m2" and formats["convert_element_type.1"] == "int8"
    wide = jr.bounds(fun, bounds={"x": (-1, 300)})(jnp.array([1.0, 65.5]))
    (row,) = [row for row in wide.rows if row.site.name == "mul"]
    assert row.verdict == "observed 40% of float16, not provable"
    assert row.overflow == "possible" and row.share == pytest.approx(0.4, abs=0.01)


def test_errors():
    x = jnp.ones(3)
    with pytest.raises(TypeError, match="jr.bounds takes a function"):
        jr.bounds(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="bounds for 'y' fit no input; the inputs are x"):
        jr.bounds(jnp.sin, bounds={"y": (0, 1)})(x)
    with pytest.raises(ValueError, match=r"lo is not below hi in \(1, 0\)"):
        jr.bounds(jnp.sin, bounds={"x": (1, 0)})(x)
    with pytest.raises(TypeError, match=r"are a pair \(lo, hi\); got 3"):
        jr.bounds(jnp.sin, bounds={"x": 3})(x)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="globs of their paths"):
        jr.bounds(jnp.sin, fixed=lambda site: True)(x)
    with pytest.raises(ValueError, match="have no inputs among their sites"):
        jr.bounds(jnp.sin, bounds=jr.ranges(jnp.sin)(x)[1])(x)
    with pytest.raises(TypeError, match="was called inside jit"):
        jax.jit(lambda x: jr.bounds(jnp.sin)(x)["sin"].hi)(x)
    with pytest.raises(jr.UnknownSiteError, match="the nearest are 'sin'"):
        jr.bounds(jnp.sin)(x)["sine"]


def test_texts():
    found = jr.bounds(lambda x: jnp.exp(x) - 1, bounds={"x": (0, 100)})(jnp.array([1.0, 2.0]))
    head, titles, _, first, *_ = repr(found).split("\n")
    assert head == "Bounds: 0 of 2 sites finite, proven · 2 may overflow"
    assert titles.split()[:3] == ["site", "type", "proven"] or "proven" in titles
    assert "exp" in first and "inf" in first
    assert "… 1 more" in plain(bounds_table(found, limit=1))
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values["assumed"]["input/x"]["hi"] == 100
    assert values["sites"][0]["hi"] == "inf"


@pytest.mark.parametrize("width", [*range(1, 60, 7), 80, 160])
def test_the_table_fits_any_width(width):
    found = jr.bounds(_layernorm)(jnp.ones((2, 4)))
    lines = plain(found, width).split("\n")
    assert max(map(len, lines)) <= max(width, 20)


@given(st.floats(-1, 1))
def test_the_inverse_of_erf(x):
    y = inverse_erf(np.float64(x))
    if abs(x) < 1:
        assert math.erf(y) == pytest.approx(x, rel=1e-13, abs=1e-300)


@settings(max_examples=20)
@given(st.sampled_from(["tanh", "erf", "logistic", "sin", "cos"]), st.floats(-90, 90, width=32))
def test_functions_do_not_leave_their_images(name, x):
    near = np.float32(x) + np.arange(-2000, 2000, dtype=np.float32) * np.float32(1e-4)
    values = np.asarray(jax.jit(getattr(lax, name))(near))
    assert values.max() <= 1 and values.min() >= (0 if name == "logistic" else -1)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_functions_of_all_halves(dtype):
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    for name in ("tanh", "erf", "logistic", "sin", "cos"):
        values = np.asarray(jax.jit(getattr(lax, name))(every)).astype(np.float32)
        assert np.nanmax(values) <= 1
        assert np.nanmin(values) >= (0 if name == "logistic" else -1)


def test_what_nobody_knows_may_be_anything():
    found = jr.bounds(lambda x: lax.lgamma(x))(jnp.ones(3))
    proven = found["lgamma"]
    assert (proven.lo, proven.hi, proven.may_nan) == everything(F32)
