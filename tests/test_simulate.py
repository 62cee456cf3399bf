"""jr.simulate: values are rounded where the recipe says, and nowhere else."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax.experimental import io_callback
from jax.sharding import PartitionSpec

import jax_ranges as jr
from jax_ranges.formats import format_of
from tests.programs import Program
from tests.test_programs import assert_same_outputs, chunks, on_each
from tests.values import float_arrays

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype(np.float32)
W = RNG.normal(size=(4, 3)).astype(np.float32)


def cast(x, dtype):
    """To a narrower float and back; none of these values is beyond its ends."""
    return np.asarray(x).astype(dtype).astype(np.float32)


BF16 = functools.partial(cast, dtype=ml_dtypes.bfloat16)


def to_int8(x, scale, zero_point=0):
    return (np.clip(np.rint(x / scale) + zero_point, -128, 127) - zero_point) * scale


def close(a, b, rtol=1e-6):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-7)


# -- what is rounded --------------------------------------------------------------------------


def test_a_result_is_rounded_and_what_follows_goes_on_from_it():
    out = jr.simulate(lambda x: jnp.exp(x) * 3, {"exp": "bfloat16"})(X)
    np.testing.assert_array_equal(out, BF16(jnp.exp(X)) * np.float32(3))


def test_everything_means_inputs_and_constants_too():
    out = jr.simulate(lambda x: x @ W, {"*": "bfloat16"})(X)
    close(out, BF16(BF16(X) @ BF16(W)), rtol=1e-2)
    exact = jr.simulate(lambda x: x @ W, {"input/*": "bfloat16"})(X)
    close(exact, BF16(X) @ W)
    constant = jr.simulate(lambda x: x @ W, {"const/*": "bfloat16"})(X)
    close(constant, X @ BF16(W))


def test_operands_are_rounded_for_one_operation_alone():
    def f(x):
        return x @ W, x + 1

    q = jr.qparams(jr.Range(np.float32(-2), np.float32(3), np.False_), "int8")
    product, rest = jr.simulate(f, {"dot_general": (q, None)})(X)
    close(product, to_int8(X, q.scale, q.zero_point).astype(np.float32) @ W)
    np.testing.assert_array_equal(rest, X + 1)


@pytest.mark.parametrize("symmetric", [True, False])
def test_dynamic_scales_are_made_of_the_value(symmetric):
    x = X + 2
    lo, hi = min(x.min(), 0), max(x.max(), 0)
    q = jr.qparams(jr.Range(lo, hi, np.False_), "int8", symmetric)
    out = jr.simulate(jnp.copy, {"copy*": jr.Dynamic("int8", symmetric)})(x)
    close(out, to_int8(x, q.scale, q.zero_point))


def test_dynamic_scales_leave_out_what_is_not_finite():
    x = np.array([np.nan, np.inf, -1.0, 0.5], np.float32)
    out = jr.simulate(jnp.copy, {"copy*": jr.Dynamic("float8_e4m3fn")})(x)
    np.testing.assert_array_equal(out, np.array([np.nan, 1.0, -1.0, 0.5], np.float32))
    zeros = jr.simulate(jnp.copy, {"copy*": "int8"})(np.zeros(3, np.float32))
    np.testing.assert_array_equal(zeros, np.zeros(3))
    assert jr.simulate(jnp.copy, {"copy*": "int8"})(np.zeros(0, np.float32)).shape == (0,)


@pytest.mark.parametrize("side", [0, 1])
def test_channels_of_a_product_are_what_is_not_summed_over(side):
    numbers = (((2,), (1,)), ((0,), (0,)))
    a = RNG.normal(size=(2, 5, 4)).astype(np.float32) * 10.0 ** np.arange(5)[:, None]
    b = RNG.normal(size=(2, 4, 3)).astype(np.float32) * 10.0 ** np.arange(3)
    a, b = a.astype(np.float32), b.astype(np.float32)
    rule = tuple(jr.Dynamic("int8", channels=True) if i == side else None for i in range(2))
    out = jr.simulate(lambda a, b: lax.dot_general(a, b, numbers), {"dot_general": rule})(a, b)
    operands = [a, b]
    axis = (2, 1)[side]
    # Of each channel the farther end, in the 127 codes above zero or the 128 below.
    x = operands[side]
    scale = np.maximum(x.max(axis, keepdims=True) / 127, -x.min(axis, keepdims=True) / 128)
    operands[side] = to_int8(x, scale)
    close(out, np.einsum("bij,bjk->bik", *operands), rtol=1e-4)


def test_channels_of_a_convolutions_weights_are_its_output_features():
    x = RNG.normal(size=(2, 6, 6, 3)).astype(np.float32)
    w = (RNG.normal(size=(3, 3, 3, 4)) * 10.0 ** np.arange(4)).astype(np.float32)

    def conv(x, w):
        return lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    weights = jr.Dynamic("int8", channels=True)
    out = jr.simulate(conv, {"conv_general_dilated": (None, weights)})(x, w)
    flat = w.reshape(-1, 4)
    scale = np.maximum(flat.max(0) / 127, -flat.min(0) / 128)
    close(out, conv(x, to_int8(w, scale).astype(np.float32)), rtol=1e-4)


def test_blocks_lie_along_what_is_summed_over():
    a = RNG.normal(size=(3, 64)).astype(np.float32)
    b = RNG.normal(size=(64, 5)).astype(np.float32)
    a[:, :32] *= 1000
    b[32:] *= 1000
    out = jr.simulate(jnp.dot, {"dot_general": ("mxfp8_e4m3", "mxfp8_e4m3")})(a, b)
    mx = format_of("mxfp8_e4m3")
    close(out, mx.round(a) @ mx.round(b.T).T, rtol=1e-5)


@pytest.mark.parametrize("channels", [False, True])
def test_blocks_have_no_scale_besides_their_own_whoever_asks_for_one(channels):
    a, b = (RNG.normal(size=shape).astype(np.float32) for shape in ((3, 64), (64, 5)))
    spec = jr.Dynamic("mxfp4", channels=channels)
    out = jr.simulate(jnp.dot, {"dot_general": (spec, spec)})(a, b)
    plain = jr.simulate(jnp.dot, {"dot_general": ("mxfp4", "mxfp4")})(a, b)
    np.testing.assert_array_equal(out, plain)


def test_integers_booleans_keys_and_complex_numbers_stay_what_they_are():
    def f(x, n, key):
        return x * 2, n * 2, n > 3, jax.random.bits(key), lax.complex(x, x) * 2

    args = (jnp.float32(0.1), jnp.int32(7), jax.random.key(0))
    out = jr.simulate(f, {"*": "float8_e4m3fn"})(*args)
    expected = f(*args)
    assert out[0] == np.float32(0.203125)  # of 0.1015625, which 0.1 becomes
    for a, b in zip(out[1:4], expected[1:4], strict=True):
        np.testing.assert_array_equal(a, b)
    assert out[4] == 2 * (0.1015625 + 0.1015625j)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes_and_weak_types_stay(dtype):
    x = jnp.asarray(0.3, dtype)
    f = jr.simulate(lambda x, y: (x * y, y * 3), {"*": "float8_e5m2"})
    out, weak = f(x, 0.7)
    assert (out.dtype, out.weak_type) == (jnp.dtype(dtype), False)
    assert weak.weak_type
    small = ml_dtypes.float8_e5m2
    expected = cast(cast(x, small) * cast(0.7, small), small)
    np.testing.assert_array_equal(np.asarray(out, np.float32), expected)


@pytest.mark.usefixtures("x64")
def test_float64_is_rounded_in_float64():
    x = jnp.float64(1 + 2**-40)
    assert jr.simulate(jnp.negative, {"neg": "float64"})(x) == -(1 + 2**-40)
    assert jr.simulate(jnp.negative, {"neg": "float32"})(x) == -1
    q = jr.qparams(jr.Range(np.float64(0), np.float64(1), np.False_), "int8")
    assert jr.simulate(jnp.copy, {"copy*": q})(jnp.float64(1.0)) == q.round(np.float64(1.0))


@given(float_arrays(np.dtype(np.float32)), st.sampled_from(["float8_e4m3fn", "float16", "q3.4"]))
def test_rounding_is_that_of_the_format(x, name):
    out = jax.jit(jr.simulate(jnp.negative, {"neg": name}))(x)
    np.testing.assert_array_equal(out, format_of(name).round(-x))


# -- where ------------------------------------------------------------------------------------


def rounds(x):
    """What is done at each step of the loops below."""
    return BF16(np.float32(1.25) * np.float32(x))


def test_in_a_scan():
    def f(x):
        return lax.scan(lambda x, _: (x * 1.25, x), x, length=7)

    out, ys = jax.jit(jr.simulate(f, {"mul": "bfloat16"}))(jnp.float32(1.1))
    steps: list[Any] = [np.float32(1.1)]
    for _ in range(7):
        steps.append(rounds(steps[-1]))
    np.testing.assert_array_equal(ys, np.array(steps[:-1]))
    assert out == steps[-1]


def test_in_a_while_loop_which_the_rounded_values_end():
    def f(x):
        return lax.while_loop(lambda c: c[0] * 1.01 < 9, lambda c: (c[0] * 1.25, c[1] + 1), (x, 0))

    out, trips = jr.simulate(f, {"while/body/mul": "bfloat16"})(jnp.float32(1.1))
    x, n = np.float32(1.1), 0
    while x * np.float32(1.01) < 9:
        x, n = rounds(x), n + 1
    assert (out, trips) == (x, n)


@pytest.mark.parametrize("positive", [True, False])
def test_in_branches(positive):
    def f(c, x):
        return lax.cond(c, lambda x: x * 1.25, lambda x: x - 0.3, x)

    out = jr.simulate(f, {"cond/branch_1/mul": "bfloat16"})(positive, jnp.float32(1.1))
    assert out == (rounds(1.1) if positive else np.float32(1.1) - np.float32(0.3))


def custom_jvp(f):
    wrapped = jax.custom_jvp(f)
    wrapped.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    return wrapped


def custom_vjp(f):
    wrapped = jax.custom_vjp(f)
    wrapped.defvjp(lambda x: (f(x), ()), lambda _, ct: (ct,))
    return wrapped


@pytest.mark.parametrize(
    "wrap",
    [
        jax.jit,
        jax.checkpoint,
        custom_jvp,
        custom_vjp,
        lambda f: lax.composite(f, "my.composite"),
        lambda f: jax.jit(jax.jit(f)),
    ],
    ids=["jit", "checkpoint", "custom_jvp", "custom_vjp", "composite", "nested"],
)
def test_in_called_functions(wrap):
    inner = wrap(lambda x: x * 1.25)
    out = jr.simulate(lambda x: inner(x) + 1, {"mul": "bfloat16"})(jnp.float32(1.1))
    assert out == rounds(1.1) + 1


def test_in_a_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))
    f = jax.shard_map(
        lambda x: x * 1.25, mesh=mesh, in_specs=PartitionSpec("x"), out_specs=PartitionSpec("x")
    )
    out = jax.jit(jr.simulate(f, {"mul": "bfloat16"}))(jnp.full(3, 1.1))
    np.testing.assert_array_equal(out, np.full(3, rounds(1.1)))


def test_layers_that_share_a_jit_have_rules_of_their_own():
    layer = jax.jit(lambda x: x * 1.25)

    def f(x):
        for i in range(3):
            with jax.named_scope(f"layer_{i}"):
                x = layer(x)
        return x

    out = jax.jit(jr.simulate(f, {"layer_1/*": "bfloat16"}))(X)
    np.testing.assert_array_equal(out, rounds(X * np.float32(1.25)) * np.float32(1.25))
    assert (out != f(X)).any()


def test_effects_happen_once_and_in_order():
    seen = []

    def f(x):
        y = io_callback(lambda v: seen.append(float(v)) or v, x, x * 1.25, ordered=True)
        return io_callback(lambda v: seen.append(float(v)) or v, x, y + 1, ordered=True)

    x = jnp.float32(1.1)
    jax.jit(jr.simulate(f, {"mul": "bfloat16"}))(x).block_until_ready()
    assert seen == [float(rounds(1.1)), float(rounds(1.1) + 1)]


# -- transformations --------------------------------------------------------------------------


def mlp(params, x):
    for w in params:
        x = jax.nn.gelu(x @ w)
    return jnp.sum(jax.nn.softmax(x) ** 2)


PARAMS = [RNG.normal(size=(4, 4)).astype(np.float32) for _ in range(2)]
INT8 = {"dot_general": (jr.Dynamic("int8"), jr.Dynamic("int8", channels=True))}


def test_jit_and_vmap_commute_with_it():
    low = jr.simulate(mlp, {**INT8, "*": "bfloat16"})
    one_by_one = [low(PARAMS, x) for x in X[:, None]]
    close(jax.vmap(low, (None, 0))(PARAMS, X[:, None]), one_by_one, rtol=1e-3)
    close(jax.jit(low)(PARAMS, X), low(PARAMS, X), rtol=1e-2)


def test_gradients_stop_at_a_rounding_unless_asked_to_pass():
    def f(x):
        return jnp.sum(jnp.exp(x) * x)

    stopped = jax.grad(jr.simulate(f, {"exp": "bfloat16"}))(X)
    np.testing.assert_array_equal(stopped, BF16(jnp.exp(X)))
    passed = jax.grad(jr.simulate(f, {"exp": "bfloat16"}, straight_through=True))(X)
    close(passed, BF16(jnp.exp(X)) + np.exp(X) * X, rtol=1e-5)


def test_straight_through_gradients_are_none_where_values_are_clipped():
    q = jr.qparams(jr.Range(np.float32(-1), np.float32(1), np.False_), "int8")
    x = jnp.array([-3.0, -1.0, 0.2, 1.0, 1.001, 5.0])
    for spec in (q, "q0.7"):
        f = jr.simulate(lambda x: jnp.sum(jnp.copy(x) * 2), {"copy*": spec}, straight_through=True)
        gradient = jax.grad(f)(x)
        assert gradient.tolist()[:1] + gradient.tolist()[2:] in ([0, 2, 2, 0, 0], [0, 2, 0, 0, 0])
    # -1 and 1 are the ends of the one, and 127/128 that of the other.
    assert gradient.tolist() == [0, 2, 2, 0, 0, 0]


def test_gradients_of_functions_with_rules_of_their_own_are_those_at_the_rounded_values():
    def f(x):
        return jax.nn.silu(x * 1.25)

    x = jnp.float32(1.1)
    gradient = jax.grad(jr.simulate(f, {"mul": "bfloat16"}, straight_through=True))(x)
    close(gradient, 1.25 * jax.grad(jax.nn.silu)(rounds(1.1)))
    value, _ = jax.value_and_grad(jr.simulate(f, {"logistic": "bfloat16"}, straight_through=True))(
        x
    )
    plain = jr.simulate(f, {"logistic": "bfloat16"})(x)
    assert value == plain
    close(value, 1.375 * BF16(jax.nn.sigmoid(1.375)))


def test_the_backward_pass_is_simulated_as_part_of_the_gradient():
    gradient = jax.grad(mlp)
    ranges = jr.ranges(gradient)(PARAMS, X)[1]
    backward = [s.name for s in ranges.sites if s.backward and s.primitive == "dot_general"]
    assert backward
    low = jr.simulate(gradient, dict.fromkeys(backward, ("float8_e5m2", "float8_e4m3fn")))
    a, b = (jax.tree.leaves(g(PARAMS, X)) for g in (gradient, low))
    assert all(np.abs(x - y).max() > 0 for x, y in zip(a, b, strict=True))
    for x, y in zip(a, b, strict=True):
        assert np.sum(x * y) > 0.95 * np.linalg.norm(x) * np.linalg.norm(y)


def test_simulations_of_simulations_and_ranges_of_simulations():
    both = jr.simulate(jr.simulate(jnp.exp, {"exp": "bfloat16"}), {"exp": "float16"})
    assert both(1.0) == BF16(cast(np.exp(np.float32(1)), np.float16))
    out, ranges = jr.ranges(jr.simulate(jnp.exp, {"exp": "bfloat16"}))(1.0)
    assert out == ranges[list(ranges)[-1]].max == 2.71875


def test_a_net_of_a_simulation():
    net = jr.Net(jax.jit(jr.simulate(mlp, INT8)))
    assert net(PARAMS, X) == pytest.approx(float(mlp(PARAMS, X)), rel=0.05)
    assert len(net.get_info()) > len(jr.ranges(mlp)(PARAMS, X)[1])


def test_a_recipe_from_ranges_does_what_it_says():
    _, ranges = jr.ranges(mlp, inputs=True)(PARAMS, X)
    recipe = jr.Recipe.from_ranges(ranges)
    exact, low = mlp(PARAMS, X), jr.simulate(mlp, recipe)(PARAMS, X)
    assert 0 < abs(exact - low) < 0.03 * exact
    better = jr.simulate(mlp, jr.Recipe.from_ranges(ranges, "int16"))(PARAMS, X)
    assert abs(exact - better) < abs(exact - low)


@chunks(200, in_ci=25)
@on_each("wild")
def test_a_format_that_rounds_nothing_changes_nothing(program: Program):
    """Every rule of every loop, branch and custom derivative is on the way."""
    expected, _ = jr.ranges(program.fun)(*program.args)
    if not any(map(_rounded, jr.ranges(program.fun, inputs=True)(*program.args)[1].sites)):
        return
    out = jr.simulate(program.fun, {"*": "float64"})(*program.args)
    assert_same_outputs(out, expected)


def _rounded(site):
    return np.dtype(site.dtype).kind in "fV" and jnp.issubdtype(site.dtype, jnp.floating)


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fun", "recipe", "error", "message"),
    [
        (3, {}, TypeError, "jr.simulate takes a function and a recipe"),
        (jnp.exp, {}, ValueError, "the recipe rounds nothing at any of the 2 sites"),
        (jnp.exp, {"exp": None}, ValueError, "rounds nothing"),
        (jnp.exp, {"log": "int8"}, ValueError, "rounds nothing"),
        (jnp.exp, {"exp": ("int8", "int8")}, ValueError, "2 operands of 'exp', a exp, which has 1"),
        (
            jnp.exp,
            {"exp": jr.Dynamic("int8", channels=True)},
            ValueError,
            "leave channels=True away",
        ),
        (
            jnp.exp,
            {"exp": (jr.Dynamic("int8", channels=True),)},
            ValueError,
            "leave channels=True away",
        ),
        (jnp.exp, "no/such/recipe.json", FileNotFoundError, "no/such"),
    ],
)
def test_what_cannot_be_simulated_is_an_error(fun, recipe, error, message):
    with pytest.raises(error, match=message):
        jr.simulate(fun, recipe)(1.0)


def test_the_wrapper_is_called_like_the_function():
    assert jr.simulate(mlp, INT8).__name__ == "simulate(mlp)"
