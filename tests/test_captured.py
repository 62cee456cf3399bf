"""What a program captures, and what else is known before it runs, is computed by numpy.

Whatever the caller is in the middle of, a JAX operation would become a part of that.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ranges as jr

X = jnp.linspace(-1.0, 2.0, 32).reshape(4, 8)
W = jnp.arange(64.0).reshape(8, 8)

CAPTURED = {
    "float32": W,
    "bfloat16": W.astype(jnp.bfloat16),
    "float8": W.astype(jnp.float8_e4m3fn),
    "int4": (W % 7).astype(jnp.int4),
    "bool": W > 20,
    "numpy, of a type that becomes another": np.asarray(W, np.float64),
    "numpy": np.asarray(W, np.float32),
    "keys": jax.random.split(jax.random.key(0), (8, 8)),
}

CALLERS = {
    "eager": lambda f: f(X),
    "jit": lambda f: jax.jit(f)(X),
    "vmap": lambda f: jax.vmap(f)(X[None]),
    "grad": lambda f: jax.jit(jax.value_and_grad(lambda x: f(x).sum()))(X),
    "scan": lambda f: jax.lax.scan(lambda carry, x: (carry, f(x)), 0, X[None]),
    "guarded": lambda f: guarded(jax.jit(f), X),
}


def guarded(f, x):
    with jax.transfer_guard("disallow"):
        return f(x)


def sliced(table):
    """Adds a few rows of a table."""

    def f(x):
        rows = jax.lax.slice(jnp.asarray(table), (1, 0), (8, 8), (2, 1))
        if jax.dtypes.issubdtype(rows.dtype, jax.dtypes.prng_key):
            return x + jax.random.uniform(rows[0, 0])
        return x + rows[1:2].astype(jnp.float32)

    return f


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("kind", CAPTURED)
def test_slices_of_captured_arrays_in_any_trace(kind, caller):
    f = sliced(CAPTURED[kind])
    got = CALLERS[caller](lambda x: jr.ranges(f)(x)[0])
    jax.tree.map(np.testing.assert_array_equal, got, CALLERS[caller](f))


def test_the_range_of_a_slice_is_that_of_the_slice():
    measured = jr.ranges(lambda x: x + W[2:7:2, 1:3].T[:1, :1])
    _, ranges = jax.jit(measured)(X)
    assert (ranges["slice"].min, ranges["slice"].max) == (17.0, 50.0)
    plan = jr.plan(lambda x: x + W[2:7:2, 1:3].T[:1, :1])(X)
    assert [(row.site.name, row.how) for row in plan.rows][:2] == [
        ("slice", "constant"),
        ("transpose", "constant"),
    ]
