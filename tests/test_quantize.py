"""`jr.quantize`: products of codes against integers in numpy, models against `jr.simulate`."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jax_ranges as jr

FLOAT32 = 2e-6  # a few roundings of float32


# -- what is done where -----------------------------------------------------------------------


def equations(jaxpr):
    """All equations of a program, inner ones included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def products(fun, *args):
    """The products in a program: the dtypes of the operands and of the result."""
    jaxpr = jax.make_jaxpr(fun)(*args)
    return [
        (*(str(atom.aval.dtype) for atom in eqn.invars), str(eqn.outvars[0].aval.dtype))
        for eqn in equations(jaxpr.jaxpr)
        if eqn.primitive.name in ("dot_general", "conv_general_dilated")
    ]


INT8 = ("int8", "int8", "int32")


def assert_as_simulated(fun, recipe, *args, rtol=FLOAT32):
    """Quantized and simulated give the same, within `rtol` of the largest number."""
    got = jax.jit(jr.quantize(fun, recipe))(*args)
    expected = jax.jit(jr.simulate(fun, recipe))(*args)
    assert_close(got, expected, rtol)
    return got


def assert_close(got, expected, rtol=FLOAT32):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.max(np.abs(b), initial=1e-30))


def random(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), dtype)


# -- products of integers, against numpy's int64 ----------------------------------------------

INTEGERS = ["int8", "uint8", "int4", "uint4", "int2", "q3.4", "ufixed8.3", "q1.2"]


def integer_operand(draw, shape, summed):
    """A value, its parameters, and (by numpy) the integers less zero points, and the scales."""
    fmt = jr.format_of(draw(st.sampled_from(INTEGERS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    qmin, qmax = fmt.codes
    differs = [draw(st.booleans()) and i not in summed for i in range(len(shape))]
    per = tuple(n if d else 1 for n, d in zip(shape, differs, strict=True)) if any(differs) else ()
    scale = rng.uniform(0.01, 2, per).astype(np.float32)
    zero_point = draw(st.sampled_from(["none", "one", "any"]))
    zero_points = {
        "none": np.zeros(per, np.int32),
        "one": np.full(per, rng.integers(qmin, qmax + 1), np.int32),
        "any": rng.integers(qmin, qmax + 1, per).astype(np.int32),
    }[zero_point]
    if qmin > 0 or not qmin <= 0 <= qmax:
        zero_points = np.clip(zero_points, qmin, qmax)
    # Some are beyond the ends; none is near the middle of two codes.
    codes = rng.integers(qmin - 3, qmax + 4, shape)
    steps = codes - zero_points + rng.choice([-0.25, 0, 0.25], shape)
    x = (steps * fmt.step * scale).astype(np.float32)
    q = jr.QParams(scale, zero_points, qmin, qmax, fmt)
    return x, q, np.clip(codes, qmin, qmax).astype(np.int64) - zero_points, scale * fmt.step


@st.composite
def dots(draw):
    """Two operands of a dot_general, with their dimension numbers."""
    sizes = st.integers(1, 4)
    batch, left, right, inner = (draw(st.lists(sizes, max_size=2)) for _ in range(4))
    inner = inner or [draw(st.integers(0, 40))]
    sides, axes = [], []
    for own in (left, right):
        labels = [("b", i) for i in range(len(batch))] + [("k", i) for i in range(len(inner))]
        labels += [("o", i) for i in range(len(own))]
        labels = draw(st.permutations(labels))
        size = {"b": batch, "k": inner, "o": own}
        shape = tuple(size[kind][i] for kind, i in labels)
        summed = tuple(labels.index(("k", i)) for i in range(len(inner)))
        axes.append((summed, tuple(labels.index(("b", i)) for i in range(len(batch))), labels))
        sides.append(integer_operand(draw, shape, summed))
    numbers = (axes[0][0], axes[1][0]), (axes[0][1], axes[1][1])
    return sides, numbers, [labels for *_, labels in axes]


def einsum(parts, labels):
    """batch, left, right: by numpy, of numbers of any kind."""
    names = {}

    def name(side, label):
        key = label if label[0] != "o" else (side, *label)
        return names.setdefault(key, chr(ord("a") + len(names)))

    ins = ["".join(name(side, label) for label in labels[side]) for side in (0, 1)]
    batch = sorted(label for label in labels[0] if label[0] == "b")
    own = [
        "".join(name(side, label) for label in labels[side] if label[0] == "o") for side in (0, 1)
    ]
    out = "".join(name(0, label) for label in batch) + own[0] + own[1]
    return np.einsum(f"{ins[0]},{ins[1]}->{out}", *parts)


@settings(max_examples=40)
@given(dots())
def test_matrix_products_are_those_of_integers(case):
    sides, numbers, labels = case
    (a, qa, ints_a, scale_a), (b, qb, ints_b, scale_b) = sides
    low = jr.quantize(lambda a, b: lax.dot_general(a, b, numbers), {"dot_general": (qa, qb)})
    assert products(low, a, b) == [INT8]
    exact = einsum([ints_a * np.float64(scale_a), ints_b * np.float64(scale_b)], labels)
    # Integers are summed up exactly, however large the terms are against their sum.
    np.testing.assert_allclose(jax.jit(low)(a, b), exact, rtol=1e-6, atol=0)


# -- convolutions of integers -----------------------------------------------------------------


def convolved(lhs, rhs, strides, padding, lhs_dilation, rhs_dilation, groups, batch_groups):
    """NC..., OI... -> NC...: the definition, in loops, for numbers of any kind."""
    spread = np.zeros(
        (
            *lhs.shape[:2],
            *((n - 1) * d + 1 for n, d in zip(lhs.shape[2:], lhs_dilation, strict=True)),
        ),
        lhs.dtype,
    )
    spread[(..., *(slice(None, None, d) for d in lhs_dilation))] = lhs
    kernel = np.zeros(
        (
            *rhs.shape[:2],
            *((n - 1) * d + 1 for n, d in zip(rhs.shape[2:], rhs_dilation, strict=True)),
        ),
        rhs.dtype,
    )
    kernel[(..., *(slice(None, None, d) for d in rhs_dilation))] = rhs
    for axis, (low, high) in enumerate(padding, 2):
        keep = slice(max(-low, 0), spread.shape[axis] - max(-high, 0))
        spread = spread[(slice(None),) * axis + (keep,)]
        widths = [(0, 0)] * spread.ndim
        widths[axis] = max(low, 0), max(high, 0)
        spread = np.pad(spread, widths)
    rows, features, size = len(lhs) // batch_groups, len(rhs), kernel.shape[2:]
    counts = [
        max((n - k) // s + 1, 0) for n, k, s in zip(spread.shape[2:], size, strides, strict=True)
    ]
    out = np.zeros((rows, features, *counts), np.result_type(lhs, rhs))
    for o in range(features):
        group, batch = o * groups // features, o * batch_groups // features
        channels = slice(group * rhs.shape[1], (group + 1) * rhs.shape[1])
        part = spread[batch * rows : (batch + 1) * rows, channels]
        for at in np.ndindex(*counts):
            window = tuple(
                slice(i * s, i * s + k) for i, s, k in zip(at, strides, size, strict=True)
            )
            out[(slice(None), o, *at)] = (part[(..., *window)] * kernel[o]).reshape(rows, -1).sum(1)
    return out


@st.composite
def convolutions(draw):
    """Two operands of a convolution in its usual layout, with its parameters."""
    spatial = draw(st.integers(0, 2))
    groups, batch_groups = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]))

    def some(strategy):
        return tuple(draw(strategy) for _ in range(spatial))

    inputs, rows = draw(st.integers(1, 3)), draw(st.integers(1, 2)) * batch_groups
    features = draw(st.integers(1, 2)) * groups * batch_groups
    lhs = integer_operand(draw, (rows, inputs * groups, *some(st.integers(1, 6))), {1, 2, 3})
    rhs = integer_operand(draw, (features, inputs, *some(st.integers(1, 3))), {1, 2, 3})
    params = {
        "window_strides": some(st.integers(1, 2)),
        "padding": some(st.tuples(st.integers(-1, 3), st.integers(-1, 3))),
        "lhs_dilation": some(st.integers(1, 3)),
        "rhs_dilation": some(st.integers(1, 2)),
        "feature_group_count": groups,
        "batch_group_count": batch_groups,
    }
    orders = [draw(st.permutations(range(spatial + 2))) for _ in range(3)]
    return lhs, rhs, params, orders


def spread_over(scale, shape):
    return np.broadcast_to(np.float64(scale), shape)


@settings(max_examples=60)
@given(convolutions())
def test_convolutions_are_those_of_integers(case):
    (a, qa, ints_a, scale_a), (b, qb, ints_b, scale_b), params, orders = case
    numbers = lax.ConvDimensionNumbers(*(tuple(np.argsort(order)) for order in orders))

    def f(a, b):
        return lax.conv_general_dilated(a, b, dimension_numbers=numbers, **params)

    def laid(q, order):
        parts = (p.transpose(order) if np.ndim(p) else p for p in (q.scale, q.zero_point))
        return jr.QParams(*parts, q.qmin, q.qmax, q.format)

    args = a.transpose(orders[0]), b.transpose(orders[1])
    low = jr.quantize(f, {"conv_general_dilated": (laid(qa, orders[0]), laid(qb, orders[1]))})
    windows = [
        (n - 1) * d + 1 + sum(p) >= (k - 1) * e + 1
        for n, d, p, k, e in zip(
            a.shape[2:],
            params["lhs_dilation"],
            params["padding"],
            b.shape[2:],
            params["rhs_dilation"],
            strict=True,
        )
    ]
    if not all(windows):  # XLA's and numpy's ideas of an empty result differ
        return
    assert set(products(low, *args)) == {INT8}
    exact = convolved(
        ints_a * spread_over(scale_a, a.shape),
        ints_b * spread_over(scale_b, b.shape),
        *params.values(),
    )
    np.testing.assert_allclose(
        jax.jit(low)(*args), exact.transpose(orders[2]), rtol=1e-6, atol=1e-30
    )


@pytest.mark.parametrize("out", ["NCW", "CNW"])
def test_rows_in_groups_of_the_batch_have_their_own_scales_and_zero_points(out):
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 1, (4, 1, 1)).astype(np.float32)
    zero_point = rng.integers(-100, 100, (4, 1, 1)).astype(np.int32)
    rows = jr.QParams(scale, zero_point, -128, 127, jr.format_of("int8"))
    a, b = rng.integers(-128, 128, (4, 3, 5)), rng.integers(-128, 128, (4, 3, 2))
    x = ((a - zero_point) * scale).astype(np.float32)

    def f(x, w):
        numbers = lax.conv_dimension_numbers(x.shape, w.shape, ("NCW", "OIW", out))
        return lax.conv_general_dilated(
            x, w, (1,), ((2, 1),), dimension_numbers=numbers, batch_group_count=2
        )

    low = jr.quantize(f, {"conv_general_dilated": (rows, fixed("int8", 1.0))})
    exact = convolved(
        (a - zero_point) * np.float64(scale),
        b.astype(np.float64),
        (1,),
        ((2, 1),),
        (1,),
        (1,),
        1,
        2,
    )
    exact = exact if out == "NCW" else exact.swapaxes(0, 1)
    np.testing.assert_allclose(jax.jit(low)(x, b.astype(np.float32)), exact, rtol=1e-6)


# -- formats ----------------------------------------------------------------------------------

FLOATS = {
    "float8_e4m3fn": "float8_e4m3fn",
    "float8_e5m2": "float8_e5m2",
    "float8_e4m3": "float8_e4m3",
    "float8_e3m4": "float8_e3m4",
    "float8_e4m3b11fnuz": "float8_e4m3b11fnuz",
    "float8_e4m3fnuz": "float8_e4m3fnuz",
    "float8_e5m2fnuz": "float8_e5m2fnuz",
    "float4_e2m1fn": "float8_e4m3fn",
    "float6_e2m3fn": "float8_e4m3fn",
    "float6_e3m2fn": "float8_e4m3fn",
    "float16": "float16",
}


@pytest.mark.parametrize("scaled", ["given", "channels"])
@pytest.mark.parametrize("name", FLOATS)
def test_float_products_are_those_of_the_formats_numbers(name, scaled):
    x, w = random(5, 24) * 3, random(24, 7, seed=1)
    fmt = jr.format_of(name)
    q = jr.QParams(np.float32(6 / fmt.largest), np.int32(0), fmt.least, fmt.largest, fmt)
    rule = (q, q) if scaled == "given" else (jr.Dynamic(name, channels=True),) * 2
    low = jr.quantize(jnp.dot, {"dot_general": rule})
    assert products(low, x, w) == [(FLOATS[name], FLOATS[name], "float32")]
    assert_as_simulated(jnp.dot, {"dot_general": rule}, x, w)
    if scaled == "given":  # and they are numpy's, in float64
        a, b = (np.asarray(fmt.round(np.asarray(v), q.scale), np.float64) for v in (x, w))
        np.testing.assert_allclose(jax.jit(low)(x, w), a @ b, rtol=0, atol=1e-5)


MIXED = [
    ("float8_e4m3fn", "float8_e5m2", ("float8_e4m3fn", "float8_e5m2"), "float16"),
    ("float8_e5m2", "float8_e5m2fnuz", ("float16", "float16"), "float16"),
    ("float8_e4m3fn", "float4_e2m1fn", ("float8_e4m3fn", "float8_e4m3fn"), "float8_e4m3fn"),
    ("float16", "float8_e4m3fn", ("float16", "float16"), "float16"),
    ("bfloat16", "bfloat16", ("bfloat16", "bfloat16"), "bfloat16"),
    ("bfloat16", "float16", ("float32", "float32"), "float32"),
]


@pytest.mark.parametrize(("lhs", "rhs", "dtypes", "in_conv"), MIXED)
def test_two_float_formats_are_multiplied_as_they_are_or_in_one_that_has_both(
    lhs, rhs, dtypes, in_conv
):
    rule = (lhs, rhs)
    x, w = random(5, 24), random(24, 7, seed=1)
    assert products(jr.quantize(jnp.dot, {"dot_general": rule}), x, w) == [(*dtypes, "float32")]
    assert_as_simulated(jnp.dot, {"dot_general": rule}, x, w)

    image, kernel = random(2, 3, 8, 8), random(4, 3, 3, 3, seed=1)
    recipe = {"conv_general_dilated": rule}
    assert products(jr.quantize(conv, recipe), image, kernel) == [(in_conv, in_conv, "float32")]
    assert_as_simulated(conv, recipe, image, kernel)


def conv(x, w):
    return lax.conv_general_dilated(x, w, (2, 1), "SAME")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("rule", [("int8", "int8"), ("float8_e4m3fn", "float8_e4m3fn")], ids=str)
def test_results_have_the_dtype_that_they_had(dtype, rule):
    x, w = random(5, 24, dtype=dtype), random(24, 7, seed=1, dtype=dtype)
    # The simulation rounds operands to the dtype once more, so it differs by that.
    rtol = max(FLOAT32, 4 * float(jnp.finfo(dtype).eps))
    assert assert_as_simulated(jnp.dot, {"dot_general": rule}, x, w, rtol=rtol).dtype == dtype


def test_64_bit_values_have_64_bit_scales(x64):
    x, w = random(5, 24, dtype=np.float64), random(24, 7, seed=1, dtype=np.float64)
    assert_as_simulated(jnp.dot, {"dot_general": ("int8", "int8")}, x, w, rtol=1e-14)


def test_what_is_not_finite_becomes_what_the_simulation_makes_of_it():
    x = jnp.array([[np.inf, 1.0, np.nan], [-np.inf, -2.0, 0.0]])
    w = jnp.eye(3)
    for rule in [("int8", "int8"), ("float8_e4m3fn",) * 2, ("float4_e2m1fn",) * 2]:
        got = jax.jit(jr.quantize(jnp.dot, {"dot_general": rule}))(x, w)
        np.testing.assert_array_equal(got, jr.simulate(jnp.dot, {"dot_general": rule})(x, w))


def test_results_are_rounded_too():
    x, w = random(5, 24), random(24, 7, seed=1)
    recipe = {"dot_general": jr.QRule(("int8", "int8"), output="bfloat16"), "tanh": "int4"}
    got = assert_as_simulated(lambda x, w: jnp.tanh(x @ w), recipe, x, w)
    assert len(np.unique(got)) <= 16


# -- what is not executed on codes ------------------------------------------------------------


def fixed(name, scale=0.1, zero_point=0, **kwargs):
    fmt = jr.format_of(name)
    codes = fmt.codes if fmt.uniform else (fmt.least, fmt.largest)
    return jr.QParams(np.float32(scale), np.int32(zero_point), *codes, fmt, **kwargs)


SIMULATED = [
    ((None, "int8"), "operand 0 is not quantized"),
    (("int16", "int8"), "operand 0: int16 has 16 bits, more than 8"),
    (("mxfp8_e4m3", "int8"), "operand 0: each block of mxfp8_e4m3 has a scale"),
    (("int8", "float8_e4m3fn"), "there is no product of int8 and float8_e4m3fn"),
    (("float32", "float32"), "operand 0: float32 has 32 bits, more than 16"),
    ((jr.Dynamic("bfloat16"),) * 2, "the numbers of bfloat16 and bfloat16 have products beyond"),
    ((fixed("int8", zero_point=300), "int8"), "operand 0: its zero point is none of its codes"),
    (
        ("int8", jr.QParams(np.full((4, 1), 0.1, np.float32), np.int32(0), -128, 127, "int8")),
        "operand 1: its scale differs along axes that are summed over",
    ),
]


@pytest.mark.parametrize(("rule", "why"), SIMULATED, ids=[why for _, why in SIMULATED])
def test_what_cannot_be_run_on_codes_is_simulated_and_says_why(rule, why):
    if isinstance(rule[1], jr.QParams):
        rule = (rule[0], jr.QParams(*jax.tree.leaves(rule[1]), -128, 127, jr.format_of("int8")))
    recipe = {"dot_general": rule}
    x, w = random(3, 4), random(4, 2)
    (row,) = jr.quantize(jnp.dot, recipe).plan(x, w).rows
    assert (row.how, row.product) == ("simulated", "")
    assert row.why.startswith(why)
    assert_as_simulated(jnp.dot, recipe, x, w)


@pytest.mark.parametrize(
    ("specs", "length"),
    [
        (("int8", "int8"), 2**17 - 1),
        ((jr.Dynamic("int8", symmetric=False), "int8"), 65_793),
        ((jr.Dynamic("uint8", symmetric=False),) * 2, 33_025),
        (("int4", "int4"), 2**25 - 1),
    ],
)
def test_sums_that_may_leave_int32_are_simulated(specs, length):
    low = jr.quantize(jnp.dot, {"dot_general": specs})

    def how(n):
        x = jax.ShapeDtypeStruct((n,), np.float32)
        return low.plan(x, x).rows[0]

    assert how(length).how == "codes"
    row = how(length + 1)
    assert row.how == "simulated"
    assert row.why == f"a sum of {length + 1:,} products may be beyond int32"


def test_the_longest_sum_of_the_largest_codes_is_exact():
    length = 33_025
    spec = fixed("uint8", scale=1, zero_point=0)
    x = jnp.full(length, 255.0)
    got = jax.jit(jr.quantize(jnp.dot, {"dot_general": (spec, spec)}))(x, x)
    assert float(got) == np.float32(length * 255**2)


# -- weights that are stored as codes ---------------------------------------------------------

W8A8 = {"dot_general": (jr.Dynamic("int8", symmetric=False), jr.Dynamic("int8", channels=True))}
W4 = {"dot_general": (None, jr.Dynamic("int4", channels=True))}
FP8 = {"dot_general": ("float8_e4m3fn", jr.Dynamic("float8_e4m3fn", channels=True))}
RECIPES = {"W8A8": W8A8, "W4": W4, "FP8": FP8}


def mlp(params, x):
    for layer in params:
        x = jax.nn.gelu(x @ layer["kernel"] + layer["bias"])
    return x


def mlp_params(*sizes):
    return [
        {"kernel": random(n, m, seed=n) / math.sqrt(n), "bias": random(m, seed=m) / 10}
        for n, m in itertools.pairwise(sizes)
    ]


def stored(tree):
    """Which leaves are stored as codes, by path."""
    is_leaf = lambda x: isinstance(x, jr.QuantizedArray)  # noqa: E731
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in flat
        if is_leaf(leaf)
    }


def assert_prepared_is_the_same(fun, recipe, *args, paths, rtol=FLOAT32):
    """Prepared arguments give what plain ones do, bit for bit, which is what is simulated."""
    low = jr.quantize(fun, recipe)
    prepared, kwargs = low.prepare(*args)
    assert kwargs == {}
    assert set(stored(prepared)) == set(paths)
    expected = assert_as_simulated(fun, recipe, *args, rtol=rtol)
    jax.tree.map(assert_same, jax.jit(low)(*prepared), expected)
    return prepared


def assert_same(got, expected):
    assert (got.dtype, got.weak_type) == (expected.dtype, expected.weak_type)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_prepared_weights_give_the_same(recipe):
    params, x = mlp_params(64, 32, 16), random(8, 64)
    paths = ["0/0/kernel", "0/1/kernel"]
    params8, _ = assert_prepared_is_the_same(mlp, recipe, params, x, paths=paths)
    fun = jr.quantize(mlp, recipe)
    assert_close(fun(params8, x), fun(params, x))  # not jitted
    weights = stored(params8)["0/kernel"]
    low = jr.format_of(recipe["dot_general"][1].format)
    assert (weights.shape, weights.ndim, weights.dtype) == ((64, 32), 2, np.float32)
    assert weights.codes.dtype == low.dtype
    expected = low.round(np.asarray(params[0]["kernel"]), np.asarray(weights.scale))
    np.testing.assert_array_equal(weights.dequantize(), expected)


def test_prepared_weights_take_a_quarter_of_the_memory():
    params, x = mlp_params(1024, 512), random(8, 1024)
    (params8, _), _ = jr.quantize(mlp, FP8).prepare(params, x)
    weights = params8[0]["kernel"]
    assert weights.nbytes == 1024 * 512 + 512 * 4  # codes, and a scale for each channel
    (params8, _), _ = jr.quantize(mlp, W8A8).prepare(params, x)
    # The sums of the codes, which the activations' zero point is multiplied with.
    assert params8[0]["kernel"].nbytes == 1024 * 512 + 512 * 4 + 512 * 4
    low = jax.jit(jr.quantize(mlp, W8A8))
    sizes = [low.lower(p, x).compile().memory_analysis() for p in (params8, params)]
    arguments = [size.argument_size_in_bytes - x.nbytes - 512 * 4 for size in sizes]
    assert arguments == [1024 * 512 + 512 * 8, 1024 * 512 * 4]


def test_stored_weights_reach_the_product_as_codes():
    params, x = mlp_params(64, 32, 16), random(8, 64)
    low = jr.quantize(mlp, W8A8)
    (params8, _), _ = low.prepare(params, x)
    jaxpr = jax.make_jaxpr(low)(params8, x)
    weights = {jaxpr.jaxpr.invars[i] for i, v in enumerate(jaxpr.in_avals) if v.dtype == np.int8}
    used = {eqn.invars[1] for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "dot_general"}
    assert len(weights) == 2 and used == weights
    assert products(low, params8, x) == [INT8, INT8]


def test_captured_weights_are_stored_when_traced():
    params, x = mlp_params(64, 32, 16), random(8, 64)
    low = jr.quantize(lambda x: mlp(params, x), W8A8)
    jaxpr = jax.make_jaxpr(low)(x)
    consts = {(c.dtype.name, c.shape) for c in jaxpr.consts if np.ndim(c) == 2}
    assert ("int8", (64, 32)) in consts and ("int8", (32, 16)) in consts
    assert ("float32", (64, 32)) not in consts
    assert_same(jax.jit(low)(x), jax.jit(jr.quantize(mlp, W8A8))(params, x))


def test_dequantizing_captured_weights_is_left_to_the_run():
    w, x = random(64, 32), random(8, 64)
    low = jax.jit(jr.quantize(lambda x: x @ w, W4))
    text = low.lower(x).compile().as_text()
    assert not [line for line in text.splitlines() if "f32[64,32]" in line and " constant(" in line]


def test_what_is_done_to_a_weight_on_the_way_is_done_ahead():
    def f(params, x):
        w = params["w"].T.astype(jnp.bfloat16)
        return lax.dot_general(
            x.astype(jnp.bfloat16), w.transpose(1, 2, 0), (((1,), (0,)), ((), ()))
        )

    params, x = {"w": random(4, 16, 3)}, random(5, 16)
    recipe = {**FP8, "*": "bfloat16"}
    params8, _ = assert_prepared_is_the_same(f, recipe, params, x, paths=["0/w"], rtol=2**-7)
    weights = stored(params8)["w"]
    assert (weights.shape, weights.scale.shape, weights.dtype) == ((4, 16, 3), (4, 1, 3), "float32")
    rounded = params["w"].astype(jnp.bfloat16).astype(np.float32)
    assert float(jnp.abs(weights.dequantize() - rounded).max()) < 0.1


def stack(params, x):
    """Layers stacked along a leading axis."""
    return lax.scan(lambda x, w: (jnp.tanh(x @ w["kernel"] + w["bias"]), x.sum()), x, params)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_weights_of_stacked_layers(recipe):
    params = {"kernel": random(3, 16, 16), "bias": random(3, 16)}
    x = random(8, 16)
    params8, _ = assert_prepared_is_the_same(stack, recipe, params, x, paths=["0/kernel"])
    assert params8["kernel"].scale.shape == (3, 1, 16)


def test_one_scale_for_a_stack_is_one_for_each_layer():
    params = {"kernel": random(3, 16, 16), "bias": random(3, 16)}
    recipe = {"dot_general": (fixed("int8", 0.05, 5), fixed("uint8", 0.03, 120))}
    (params8, _) = assert_prepared_is_the_same(
        stack, recipe, params, random(8, 16), paths=["0/kernel"]
    )
    assert params8["kernel"].scale.shape == (3, 1, 1)
    assert params8["kernel"].dequantize().shape == (3, 16, 16)


@jax.custom_jvp
def scaled_product(x, w):
    return 2 * (x @ w)


scaled_product.defjvps(lambda t, y, x, w: y, lambda t, y, x, w: y)

PATHS = {
    "jit": (lambda p, x: jax.jit(jnp.dot)(x, p["w"]), True),
    "remat": (lambda p, x: jax.checkpoint(jnp.dot)(x, p["w"]), True),
    "cond": (lambda p, x: lax.cond(x[0, 0] > 0, lambda: x @ p["w"], lambda: -x @ p["w"]), True),
    "scan": (lambda p, x: lax.fori_loop(0, 3, lambda i, x: jnp.tanh(x @ p["w"]), x), True),
    "while": (
        lambda p, x: lax.while_loop(
            lambda c: (c[0] < 3) & ((c[1] @ p["w"])[0, 0] < 9),
            lambda c: (c[0] + 1, jnp.tanh(c[1] @ p["w"])),
            (0, x),
        )[1],
        True,
    ),
    "vmap": (lambda p, x: jax.vmap(lambda x: x @ p["w"])(x), True),
    "tied": (lambda p, x: jnp.tanh(x @ p["w"]) @ p["w"], True),
    "nested": (lambda p, x: jax.jit(lambda x: stack(p, x))(x)[0], True),
    "custom_jvp": (lambda p, x: scaled_product(x, p["w"]), False),
    "used otherwise": (lambda p, x: x @ p["w"] + p["w"][0], False),
    "returned": (lambda p, x: (x @ p["w"], p["w"]), False),
    "carried": (
        lambda p, x: lax.fori_loop(0, 3, lambda i, c: (c[0] @ c[1], c[1]), (x, p["w"])),
        False,
    ),
    "two ways": (lambda p, x: x @ p["w"] + x @ p["w"].T, False),
    "cast to integers": (lambda p, x: x @ jnp.round(p["w"].astype(int) + 0.0), False),
    "reshaped": (lambda p, x: x @ p["w"].reshape(16, 4, 4).reshape(16, 16), False),
    "placed": (lambda p, x: jax.jit(jnp.dot, in_shardings=(None, REPLICATED))(x, p["w"]), False),
}
REPLICATED = jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.mark.parametrize("recipe", [W8A8, W4], ids=["W8A8", "W4"])
@pytest.mark.parametrize("path", PATHS)
def test_weights_are_stored_where_all_that_is_done_with_them_is_products(path, recipe):
    fun, is_stored = PATHS[path]
    params = {"w": random(16, 16) / 4}
    if path == "nested":
        params = {"kernel": random(3, 16, 16), "bias": random(3, 16)}
    paths = ["0/kernel" if path == "nested" else "0/w"] if is_stored else []
    assert_prepared_is_the_same(fun, recipe, params, random(8, 16), paths=paths, rtol=1e-5)


@pytest.mark.parametrize("path", [path for path, (_, is_stored) in PATHS.items() if not is_stored])
def test_codes_that_meet_anything_else_are_dequantized(path):
    fun, _ = PATHS[path]
    w, x = random(16, 16) / 4, random(8, 16)
    (params8, _), _ = jr.quantize(lambda p, x: x @ p["w"], W8A8).prepare({"w": w}, x)
    dense = {"w": params8["w"].dequantize()}
    assert_close(
        jax.jit(jr.quantize(fun, W8A8))(params8, x), jax.jit(jr.quantize(fun, W8A8))(dense, x), 1e-5
    )


# -- with JAX's transformations ---------------------------------------------------------------


def attention(params, x):
    """One block: heads, softmax, residual."""
    q, k, v = (jnp.einsum("td,dhk->htk", x, params[name]) for name in ("q", "k", "v"))
    weights = jax.nn.softmax(jnp.einsum("hsk,htk->hst", q, k) / 4)
    mixed = jnp.einsum("hst,htk->shk", weights, v)
    return x + jnp.einsum("shk,hkd->sd", mixed, params["out"])


def attention_params():
    params = {name: random(16, 2, 8, seed=ord(name)) / 4 for name in "qkv"}
    return {**params, "out": random(2, 8, 16) / 4}


def test_attention():
    params, x = attention_params(), random(6, 16)
    recipe = jr.Recipe.from_ranges(jr.ranges(attention, inputs=True)(params, x)[1], "int8")
    paths = [f"0/{name}" for name in ("k", "out", "q", "v")]
    prepared = assert_prepared_is_the_same(attention, recipe, params, x, paths=paths)
    low = jr.quantize(attention, recipe)
    assert products(low, *prepared) == [INT8] * 6
    assert [row.how for row in low.plan(*prepared).rows] == ["codes"] * 6


def test_vmap_quantizes_each_example_for_itself():
    params, x = attention_params(), random(3, 6, 16) * jnp.array([1.0, 10, 100])[:, None, None]
    low = jr.quantize(attention, W8A8)
    (params8, _), _ = low.prepare(params, x[0])
    got = jax.jit(jax.vmap(low, (None, 0)))(params8, x)
    assert_close(got, jnp.stack([jax.jit(low)(params8, each) for each in x]))
    simulated = jr.simulate(attention, W8A8)
    assert_close(got, jax.jit(jax.vmap(simulated, (None, 0)))(params, x))


def test_gradients_through_codes_are_refused():
    params, x = mlp_params(16, 8), random(4, 16)
    low = jr.quantize(mlp, W8A8)
    for fun in (low, jax.jit(low)):
        with pytest.raises(
            TypeError, match="cannot be differentiated through what it rounds.*straight"
        ):
            jax.grad(lambda params, fun=fun: fun(params, x).sum())(params)
        with pytest.raises(TypeError, match="cannot be differentiated"):
            jax.jvp(lambda x, fun=fun: fun(params, x), (x,), (x,))
    half = jr.quantize(mlp, {"tanh": "bfloat16"})
    with pytest.raises(TypeError, match="cannot be differentiated"):
        jax.grad(lambda params: half(params, x).sum())(params)


def test_gradients_of_what_does_not_go_through_codes_are_there():
    params, x = mlp_params(16, 8), random(4, 16)

    def loss(bias, fun):
        return fun([{**params[0], "bias": bias}], x).sum()

    got = jax.jit(jax.grad(lambda bias: loss(bias, jr.quantize(mlp, W8A8))))(params[0]["bias"])
    expected = jax.grad(lambda bias: loss(bias, jr.simulate(mlp, W8A8)))(params[0]["bias"])
    assert np.abs(got).max() > 0
    assert_close(got, expected)


def test_a_gradient_can_be_quantized():
    params, x = mlp_params(16, 8, 8), random(4, 16)
    gradient = jax.grad(lambda params, x: (mlp(params, x) ** 2).sum())
    recipe = {"dot_general": ("float8_e5m2", "float8_e5m2")}
    assert_as_simulated(gradient, recipe, params, x)
    assert set(products(jr.quantize(gradient, recipe), params, x)) == {
        ("float8_e5m2", "float8_e5m2", "float32")
    }


def test_prepared_arguments_can_be_donated_and_prepared_again():
    params, x = mlp_params(64, 32), random(8, 64)
    low = jr.quantize(mlp, W8A8)
    (params8, _), _ = low.prepare(params, x)
    (again, _), _ = low.prepare(params8, x)
    assert again[0]["kernel"] is params8[0]["kernel"]
    expected = jax.jit(low)(params8, x)
    step = jax.jit(lambda p, x: (p, low(p, x)), donate_argnums=0)
    kept, got = step(params8, x)
    assert_same(got, expected)
    assert_same(step(kept, x)[1], expected)


def test_prepare_and_eval_shape_are_functions_like_others():
    params, x = mlp_params(64, 32), random(8, 64)
    low = jr.quantize(mlp, W8A8)
    (params8, _), _ = low.prepare(params, x)
    (jitted, _), _ = jax.jit(low.prepare)(params, x)
    jax.tree.map(assert_same, jitted, params8)
    (shapes, _), _ = jax.eval_shape(low.prepare, params, x)
    assert jax.tree.structure(shapes) == jax.tree.structure(params8)
    assert jax.eval_shape(low, shapes, x).shape == (8, 32)
    (with_shape, _), _ = low.prepare(params, jax.ShapeDtypeStruct(x.shape, x.dtype))
    jax.tree.map(assert_same, with_shape, params8)


def test_keyword_arguments_are_prepared_too():
    low = jr.quantize(lambda x, *, params: mlp(params, x), W8A8)
    params, x = mlp_params(64, 32), random(8, 64)
    args, kwargs = low.prepare(x, params=params)
    assert list(stored(kwargs)) == ["params/0/kernel"]
    assert_same(jax.jit(low)(*args, **kwargs), jax.jit(low)(x, params=params))


def test_parameters_may_be_made_in_the_same_program():
    w, x = random(16, 8), random(4, 16)

    def f(x):
        return jnp.tanh(x) @ w

    def both(x):
        _, ranges = jr.ranges(f)(x)
        q = jr.qparams(ranges["tanh"], "uint8")
        for rule in [(q, jr.Dynamic("int8", channels=True)), (q, q)]:
            yield jr.quantize(f, {"dot_general": rule})(x)
            yield jr.simulate(f, {"dot_general": rule})(x)

    outs = jax.jit(lambda x: list(both(x)))(x)
    assert_close(outs[0], outs[1])
    assert_close(outs[2], outs[3])


def test_which_inputs_are_weights_can_be_said():
    params, x = mlp_params(64, 32), random(8, 64)
    (params8, x8), _ = jr.quantize(mlp, W8A8, weight_inputs="input/x").prepare(params, x)
    assert stored(params8) == {} and isinstance(x8, jr.QuantizedArray)
    w = random(64, 32)
    low = jr.quantize(lambda x: x @ w, W8A8, weight_inputs="input/*/*")
    assert low.plan(x).rows[0].stored == ()


# -- whole models of the usual frameworks -----------------------------------------------------


def calibrated(fun, *args, weights=...):
    _, ranges = jax.jit(jr.ranges(fun, inputs=True))(*args)
    return jr.Recipe.from_ranges(ranges, "int8", weights)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_flax_linen(weights):
    linen = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.relu(linen.Conv(8, (3, 3), strides=2)(x))
            x = linen.relu(linen.Conv(8, (3, 3), feature_group_count=2)(x))
            x = linen.avg_pool(x, (2, 2)).reshape(len(x), -1)
            x = linen.LayerNorm()(linen.Dense(16)(x))[None]
            return linen.MultiHeadDotProductAttention(2)(x, x)

    net, x = Net(), random(4, 8, 8, 1)
    variables = net.init(jax.random.key(0), x)

    def run(variables, x):
        return net.apply(variables, x)

    recipe = calibrated(run, variables, x, weights=weights)
    names = ["Conv_0", "Conv_1", "Dense_0"]
    names += [f"MultiHeadDotProductAttention_0/{n}" for n in ("key", "out", "query", "value")]
    paths = [f"0/params/{name}/kernel" for name in names]
    prepared = assert_prepared_is_the_same(run, recipe, variables, x, paths=paths, rtol=1e-5)
    assert set(products(jr.quantize(run, recipe), *prepared)) == {INT8}


def test_flax_nnx():
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Conv(1, 8, (3, 3), rngs=rngs)
            self.second = nnx.Linear(8, 8, rngs=rngs)
            self.third = self.second  # tied
            self.norm = nnx.BatchNorm(8, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.first(x)).mean((1, 2))
            return self.third(self.norm(nnx.relu(self.second(x))))

    net, x = Net(nnx.Rngs(0)), random(4, 8, 8, 1)
    net.eval()

    def run(net, x):
        return net(x)

    recipe = calibrated(run, net, x)
    low = jr.quantize(run, recipe)
    (net8, _), _ = low.prepare(net, x)
    assert isinstance(net8.second.kernel.get_value(), jr.QuantizedArray)
    assert net8.third.kernel is net8.second.kernel
    assert net.second.kernel.get_value().dtype == np.float32
    expected = jax.jit(low)(net, x)
    assert_same(jax.jit(low)(net8, x), expected)
    assert_close(expected, jax.jit(jr.simulate(run, recipe))(net, x), 1e-5)


def test_equinox():
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    keys = jax.random.split(jax.random.key(0), 3)
    net = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 4, 3, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(144, 16, key=keys[1]),
            eqx.nn.MLP(16, 4, 8, 2, key=keys[2]),
        ]
    )

    arrays, rest = eqx.partition(net, eqx.is_array)

    def run(arrays, x):
        return jax.vmap(eqx.combine(arrays, rest))(x)

    x = random(4, 1, 8, 8)
    recipe = calibrated(run, arrays, x)
    paths = ["0/layers/0/weight", "0/layers/3/weight"]
    paths += [f"0/layers/4/layers/{i}/weight" for i in range(3)]
    assert_prepared_is_the_same(run, recipe, arrays, x, paths=paths, rtol=1e-5)


def test_haiku():
    hk = pytest.importorskip("haiku", reason="dm-haiku is not installed")

    def forward(x):
        x = jax.nn.relu(hk.Conv2D(8, 3)(x))
        x = hk.Linear(16)(x.reshape(len(x), -1))
        return hk.MultiHeadAttention(2, 4, w_init=hk.initializers.VarianceScaling())(x, x, x)

    net, x = hk.without_apply_rng(hk.transform(forward)), random(4, 8, 8, 1)
    params = net.init(jax.random.key(0), x)
    recipe = calibrated(net.apply, params, x)
    names = [
        "conv2_d",
        "linear",
        *(f"multi_head_attention/{n}" for n in ("key", "linear", "query", "value")),
    ]
    paths = [f"0/{name}/w" for name in names]
    assert_prepared_is_the_same(net.apply, recipe, params, x, paths=paths, rtol=1e-5)


# -- what it says -----------------------------------------------------------------------------


def test_the_plan_says_what_is_run_how():
    def model(params, x):
        with jax.named_scope("hidden"):
            x = jnp.tanh(x @ params["w"])
        with jax.named_scope("logits"):
            return jnp.exp(x @ params["v"] @ params["v"])

    recipe = {
        "hidden/dot_general": ("int8", "int8"),
        "logits/dot_general": (None, "int4"),
        "logits/dot_general.1": ("int16", "int8"),
        "exp": "bfloat16",
    }
    params, x = {"w": random(8, 8), "v": random(8, 8)}, random(4, 8)
    low = jr.quantize(model, recipe)
    assert repr(low.plan(params, x)) == (
        "ExecutionPlan: 3 products, 1 on codes\n"
        "  hidden/dot_general    codes      int8 x int8 -> int32; operand 1 not prepared\n"
        "  logits/dot_general    simulated  operand 0 is not quantized\n"
        "  logits/dot_general.1  simulated  operand 0: int16 has 16 bits, more than 8\n"
        "  logits/exp            simulated  exp is neither dot_general nor a convolution"
    )
    recipe |= {"logits/dot_general.1": ("int16", "int4")}
    low = jr.quantize(model, recipe)
    (params8, _), _ = low.prepare(params, x)
    plan = low.plan(params8, jax.ShapeDtypeStruct((4, 8), np.float32))
    assert repr(plan) == (
        "ExecutionPlan: 3 products, 1 on codes\n"
        "  hidden/dot_general    codes        int8 x int8 -> int32; operand 1 stored as int8\n"
        "  logits/dot_general    weight-only  "
        "operand 0 is not quantized; operand 1 stored as int4\n"
        "  logits/dot_general.1  weight-only  "
        "operand 0: int16 has 16 bits, more than 8; operand 1 stored as int4\n"
        "  logits/exp            simulated    exp is neither dot_general nor a convolution"
    )
    assert plan.rows[1].stored == ((1, "int4"),)
    assert low.plan(params, x).rows[1].preparable == (1,)
    assert_prepared_is_the_same(model, recipe, params, x, paths=["0/v", "0/w"])
    assert repr(low).startswith("jr.quantize(model): Recipe: 4 rules")
    assert low.__name__ == "quantize(model)"


def test_mistakes_are_named():
    with pytest.raises(TypeError, match=r"jr.quantize takes a function and a recipe"):
        jr.quantize(3, W8A8)
    low = jr.quantize(mlp, W8A8)
    with pytest.raises(TypeError, match=r"input/x is the abstract .*eval_shape"):
        low(mlp_params(4, 4), jax.ShapeDtypeStruct((2, 4), np.float32))
    with pytest.raises(ValueError, match="rounds nothing"):
        jr.quantize(jnp.sin, {"dot_general": ("int8", "int8")})(1.0)


def test_codes_of_another_format_are_dequantized_and_quantized():
    params, x = mlp_params(64, 32), random(8, 64)
    (params4, _), _ = jr.quantize(mlp, W4).prepare(params, x)
    dense = [{**params[0], "kernel": params4[0]["kernel"].dequantize()}]
    low = jax.jit(jr.quantize(mlp, W8A8))
    assert_close(low(params4, x), low(dense, x))


def test_the_repr_of_codes_says_what_they_stand_for():
    params, x = mlp_params(64, 32), random(8, 64)
    recipe = {"dot_general": (None, jr.Dynamic("uint8", symmetric=False))}
    (params8, _), _ = jr.quantize(mlp, recipe).prepare(params, x)
    expected = "QuantizedArray(float32[64, 32] as uint8, one scale, with zero points)"
    assert repr(params8[0]["kernel"]) == expected
    empty = jax.tree.map(lambda leaf: object(), params8[0]["kernel"])
    assert "QuantizedArray object" in repr(empty)
