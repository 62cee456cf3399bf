"""What is expensive is computed as often as without the reductions."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_ranges as jr
from jax_ranges.stored import stored

OPERATIONS = {
    "acosh": lambda x: lax.acosh(x + 1),
    **{name: getattr(lax, name) for name in ("asinh", "bessel_i0e", "bessel_i1e", "cos")},
    **{name: getattr(lax, name) for name in ("digamma", "erf_inv", "erfc", "lgamma")},
    **{name: getattr(lax, name) for name in ("sin", "sinh", "tan")},
}
# Operations of which there are several in what XLA expands (a lgamma reads tables), and none in
# a reduction.
EXPENSIVE = re.compile(r" (exponential|gather|log|log-plus-one|cosine|sine|tan|rsqrt|sqrt|tanh)\(")


def counted(f, x):
    return len(EXPENSIVE.findall(jax.jit(f).lower(x).compile().as_text()))


def barriers_hold():
    """Whether XLA fuses nothing across a barrier (that of jax 0.10.2 removes them first)."""

    def f(x):
        y = lax.optimization_barrier(jnp.sin(x))
        return y * x, jnp.max(y)

    return counted(f, jnp.ones((300, 400))) == 1


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_xla_expands_is_computed_once(name):
    if not barriers_hold():
        pytest.skip("this release of XLA removes barriers before it fuses")

    def f(x):
        return OPERATIONS[name](x) * x + x

    x = jnp.linspace(0.1, 0.9, 300 * 400).reshape(300, 400)
    once = counted(f, x)
    assert once
    assert counted(jr.ranges(f), x) == once
    assert np.array_equal(jax.jit(jr.ranges(f))(x)[0], jax.jit(f)(x))


def test_nothing_is_stored_of_what_nobody_measures():
    def f(x):
        return jnp.exp(jnp.sin(x))

    def barriers(**kwargs):
        return str(jax.make_jaxpr(jr.ranges(f, **kwargs))(jnp.ones((300, 400)))).count("_barrier")

    assert barriers(select="sin") > barriers(select="exp")


def test_what_is_there_is_left_as_it_is():
    x = jnp.ones(3)
    assert stored("sin", [x])[0] is x
