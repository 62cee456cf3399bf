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
from jax_ranges.qparams import target_of

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


@settings(max_examples=150)
@given(dots())
def test_matrix_products_are_those_of_integers(case):
    sides, numbers, labels = case
    (a, qa, ints_a, scale_a), (b, qb, ints_b, scale_b) = sides

    def f(a, b):
        return lax.dot_general(a, b, numbers)

    low = jr.quantize(f, {"dot_general": (qa, qb)})
    assert products(low, a, b) == [INT8]
    scaled = [ints_a * np.float64(scale_a), ints_b * np.float64(scale_b)]
    exact = einsum(scaled, labels)
    # The integers are summed up exactly, however large the terms are against their sum.
    np.testing.assert_allclose(jax.jit(low)(a, b), exact, rtol=1e-6, atol=0)
    size = einsum(list(map(np.abs, scaled)), labels)
    np.testing.assert_allclose(
        jr.simulate(f, {"dot_general": (qa, qb)})(a, b),
        exact,
        rtol=1e-6,
        atol=1e-6 * size.max(initial=0),
    )
