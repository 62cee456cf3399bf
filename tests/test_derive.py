"""What is derived is what measuring gives, bit for bit, special values included.

Every program below returns all its intermediate values, so the oracle is numpy on what the
program itself computed, under jit, where XLA may do what it likes with the arithmetic.
"""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Literal

import jax_ranges as jr
from values import HALVES, INTS, SMALL_FLOATS, cast, is_float, numpy_range, random_array, specials

FLOAT32 = np.dtype(np.float32)
WIDE = [*HALVES, FLOAT32]
SIZE = 24
DRAWS = 40


def draws(dtype, seed=0):
    """Arrays of one shape: a few of the special values, ordinary numbers, any bit pattern."""
    rng = np.random.default_rng(seed)
    pool = specials(dtype) if is_float(dtype) else random_array(dtype, (40,), rng)
    for i in range(DRAWS):
        ordinary = cast(rng.normal(size=SIZE) * 10.0 ** rng.integers(-3, 4), dtype)
        x = random_array(dtype, (SIZE,), rng) if i % 4 == 3 else ordinary
        count = rng.integers(0, 4)
        x[rng.choice(SIZE, count, replace=False)] = rng.choice(pool, count)
        yield x


def flushed(dtype, value):
    """Zero for subnormals: whether arithmetic keeps them differs between backends."""
    if value is None or not is_float(dtype):
        return value
    return 0.0 if abs(value) < float(ml_dtypes.finfo(dtype).tiny) else float(value)


def everything(fun, dtype):
    """The function that returns all intermediate values of `fun`, in program order."""
    jaxpr = jax.make_jaxpr(fun)(jax.ShapeDtypeStruct((SIZE,), dtype)).jaxpr

    def run(x):
        env = {jaxpr.invars[0]: x}
        for eqn in jaxpr.eqns:
            values = [v.val if isinstance(v, Literal) else env[v] for v in eqn.invars]
            out = eqn.primitive.bind(*values, **eqn.params)
            env.update(
                zip(eqn.outvars, out if eqn.primitive.multiple_results else [out], strict=False)
            )
        return [env[v] for eqn in jaxpr.eqns for v in eqn.outvars]

    return run


def check(fun, dtype, expected=("derived",), seed=0, ulps=0):
    """`ulps`: by how many units in the last place the ends may differ."""
    rtol = ulps * float(ml_dtypes.finfo(dtype).eps) if ulps else 0.0
    fun = everything(fun, dtype)
    plan = jr.plan(fun)(jax.ShapeDtypeStruct((SIZE,), dtype))
    run = jax.jit(jr.ranges(fun))
    assert set(expected) <= set(hows(plan)), plan
    for x in draws(dtype, seed):
        outs, ranges = run(x)
        for site, out in zip(ranges.sites, outs, strict=True):
            lo, hi, nan, observed = numpy_range(np.asarray(out))
            found = ranges[site.name]
            message = f"{site.name} of {x!r}: {found} but {(lo, hi, nan, observed)}"
            assert bool(found.observed) == observed, message
            assert bool(found.nan) == nan, message
            if lo is not None:
                for got, wanted in ((found.min, lo), (found.max, hi)):
                    a, b = flushed(site.dtype, got), flushed(site.dtype, wanted)
                    assert a == b or abs(a - b) <= rtol * max(abs(b), 1.0), message
    return plan


def hows(plan):
    return [row.how for row in plan.rows]


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_operations_that_do_not_round_are_derived(dtype):
    c = dtype.type

    def f(x):
        y = lax.tanh(x)
        return [
            *(lax.neg(x), lax.max(x, c(0.0)), lax.min(x, c(1.5)), lax.clamp(c(-1), x, c(2))),
            *(lax.rev(x, (0,)), y, lax.neg(y), lax.max(y, c(0.25))),
        ]

    plan = check(f, dtype)
    assert hows(plan) == ["measured"] + ["derived"] * 7


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_what_makes_ones_of_subnormals_is_measured(dtype):
    plan = check(lambda x: [lax.floor(x), lax.ceil(x), lax.sign(x)], dtype, expected=())
    assert hows(plan) == ["measured"] * 3


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_scaling_by_a_literal_is_derived(dtype):
    c = dtype.type

    def f(x):
        y = lax.exp(x)
        return [
            *(lax.mul(x, c(0.1)), lax.mul(x, c(-3.0)), lax.mul(x, c(1024.0)), lax.div(x, c(8.0))),
            *(y, lax.mul(y, c(0.7)), lax.div(y, c(-0.5))),
        ]

    plan = check(f, dtype)
    assert hows(plan) == ["measured"] + ["derived"] * 6


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_adding_a_literal_is_derived_from_what_is_stored(dtype):
    c = dtype.type

    def f(x):
        y = lax.max(x, c(0.0))
        z = lax.add(y, c(1e-3))
        return [lax.add(x, c(0.1)), lax.sub(x, c(2.5)), y, z, lax.mul(z, c(0.3))]

    assert hows(check(f, dtype)) == ["derived"] * 5


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_what_compilers_rearrange_is_measured(dtype):
    c = dtype.type

    def f(x):
        product = lax.mul(x, x)
        scaled = lax.mul(x, c(0.3))
        shifted = lax.add(x, c(0.7))
        return [
            lax.add(product, c(0.1)),  # fused into one operation
            *(lax.mul(scaled, c(0.3)), lax.add(scaled, c(0.1)), lax.add(shifted, c(-0.2))),
            lax.div(x, c(3.0)),
        ]

    # XLA computes a value once for each fusion that needs it, and rounds differently in these: the
    # product is rounded where it is stored, but not where an addition is fused with it.
    plan = check(f, dtype, ulps=2)
    assert hows(plan) == ["measured", "derived", "derived"] + ["measured"] * 5


@pytest.mark.parametrize("dtype", [FLOAT32, np.dtype(np.int8), np.dtype(bool)], ids=str)
def test_data_movement_is_derived(dtype):
    def f(x):
        square = lax.reshape(x, (4, SIZE // 4))
        turned = lax.transpose(square, (1, 0))
        wide = lax.broadcast_in_dim(x, (2, SIZE), (1,))
        joined = lax.concatenate([x, lax.rev(x, (0,))], 0)
        return [square, turned, wide, lax.rev(x, (0,)), joined, lax.sort(x)]

    assert hows(check(f, dtype)) == ["derived"] * 7


def test_a_concatenation_is_the_union_of_its_parts():
    def f(x):
        parts = [lax.sin(x), lax.neg(lax.exp(x))]
        return [lax.concatenate(parts, 0), jnp.stack(parts)]

    hows_of = hows(check(f, FLOAT32))
    assert (hows_of[:2], set(hows_of[2:])) == (["measured"] * 2, {"derived"})


def test_what_is_split_is_the_union_of_its_parts():
    def f(x):
        whole = lax.sin(x)
        return [*lax.split(whole, [4, 0, 12, 8]), lax.mul(whole, np.float32(3.0))]

    plan = check(f, FLOAT32)
    assert hows(plan) == ["derived", "measured", "constant", "measured", "measured", "derived"]


def test_parts_that_are_split_again_are_followed_to_the_last():
    def f(x):
        first, second = lax.split(lax.exp(x), [8, 16])
        return [*lax.split(second, [4, 12]), first]

    assert hows(check(f, FLOAT32)) == ["derived", "measured", "derived", "measured", "measured"]


def test_what_is_split_is_measured_where_not_all_of_its_parts_are():
    def f(x):
        return lax.split(lax.exp(x), [8, 16])

    plan = jr.plan(f, select=["exp", "split"])(jnp.ones(24))
    assert hows(plan) == ["derived", "measured", "measured"]
    plan = jr.plan(f, select=lambda site: site.name != "split[1]")(jnp.ones(24))
    assert hows(plan) == ["measured", "measured"]


def test_what_a_branch_or_a_loop_splits_is_measured_outside_of_it():
    def f(x):
        whole = lax.exp(x)
        chosen = lax.cond(x[0] > 0, lambda y: sum(lax.split(y, [12, 12])), lambda y: y[:12], whole)
        carried = lax.fori_loop(0, 0, lambda _, y: jnp.concatenate(lax.split(y, [12, 12])), whole)
        return chosen, carried

    _, ranges = jax.jit(jr.ranges(f))(jnp.linspace(-1.0, 1.0, 24))
    assert ranges["exp"].max == jnp.exp(jnp.float32(1.0)) and ranges["exp"].observed
    parts = [name for name in ranges if name.endswith("split")]
    assert len(parts) == 2 and not any(ranges[name].observed for name in parts)


def test_a_stacked_loop_derives_what_its_iterations_split_for_each_of_them():
    def f(x):
        def body(carry, row):
            first, second = lax.split(jnp.exp(row), [2, 4])
            return carry + first.sum(), second

        return lax.scan(body, 0.0, x)

    x = np.random.default_rng(5).normal(size=(7, 6)).astype(np.float32)
    _, ranges = jr.ranges(f, loops="stack")(x)
    (name,) = (name for name in ranges if name.endswith("exp"))
    assert np.allclose(ranges[name].max, np.exp(x).max(1), rtol=1e-6)
    assert ranges[name].max.shape == (7,)


def test_a_cube_is_derived_but_of_a_product():
    def f(x):
        y = lax.tanh(x)
        return [
            *(lax.integer_pow(x, 3), y, lax.integer_pow(y, 3), lax.neg(lax.integer_pow(x, 3))),
            *(lax.integer_pow(x, 2), lax.integer_pow(lax.mul(x, x), 3)),
        ]

    plan = check(f, FLOAT32)
    assert hows(plan) == ["measured", *["derived"] * 4, *["measured"] * 3]
    half = jr.plan(lambda x: x**3)(jnp.ones(3, jnp.bfloat16))
    assert hows(half) == ["measured"]


@pytest.mark.parametrize("dtype", [*INTS, np.dtype(bool)], ids=str)
def test_conversions_of_integers_are_exact(dtype):
    targets = [*WIDE, np.dtype(np.int32), np.dtype(np.uint8), np.dtype(bool)]

    def f(x):
        return [lax.convert_element_type(x, t) for t in targets if t != dtype]

    check(f, dtype, expected=())


@pytest.mark.parametrize("dtype", [*SMALL_FLOATS, *WIDE], ids=str)
def test_conversions_of_floats_are_exact(dtype):
    targets = [*SMALL_FLOATS, *WIDE, np.dtype(np.int32), np.dtype(bool)]

    def f(x):
        return [lax.convert_element_type(x, t) for t in targets if t != dtype]

    check(f, dtype, expected=())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_arithmetic_that_xla_keeps_in_float32_is_measured(dtype):
    def f(x):
        return lax.convert_element_type(lax.mul(x, lax.rev(x, (0,))), np.float32)

    assert hows(check(f, dtype)) == ["derived", "measured", "measured"]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.dtype(np.float64), np.dtype(np.int64)], ids=str)
def test_64_bit_values_are_derived_exactly(dtype):
    def f(x):
        outs = [lax.rev(x, (0,)), lax.max(x, dtype.type(3)), lax.convert_element_type(x, "float32")]
        if dtype == np.float64:
            outs += [lax.mul(x, 0.1), lax.neg(x), lax.convert_element_type(x, np.float16)]
        return outs

    check(f, dtype)


def test_what_never_ran_stays_not_observed_through_every_step():
    def f(x):
        def branch():
            y = lax.sin(x)
            return lax.convert_element_type(lax.max(lax.neg(y) * 0.5, 0.0), jnp.bfloat16)

        return lax.cond(x[0] > 0, branch, lambda: jnp.zeros_like(x, jnp.bfloat16))

    _, ranges = jr.ranges(f)(-jnp.ones(3))
    names = [name for name in ranges if "branch_1" in name]
    assert len(names) == 5
    assert not any(ranges[name].observed for name in names)


def test_an_all_nan_value_is_seen_as_nan_through_every_step():
    _, ranges = jr.ranges(lambda x: jnp.maximum(-x * 0.5, 0.0))(jnp.full(3, jnp.nan))
    for found in ranges.values():
        assert (found.min, found.max, found.nan) == (np.inf, -np.inf, True)


def test_long_chains_of_literals_are_measured_now_and_then():
    def f(x):
        for _ in range(30):
            x = lax.neg(x)
        return x

    plan = jr.plan(f)(jnp.ones(3))
    assert 2 <= plan.reductions <= 5
