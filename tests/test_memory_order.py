"""The order of a value's axes in memory: followed through a program, and measured in."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_ranges as jr
from values import numpy_range, random_array


def orders(f, *args, **kwargs):
    """By site what the plan says of it."""
    plan = jr.plan(f, **kwargs)(*args)
    sources = [source for source in plan.frame.sources if source.label]
    return {source.label[0]: source.order for source in sources}


X = jnp.ones((2, 3, 4))


def test_transposes_turn_the_order_and_elementwise_operations_keep_it():
    def f(x):
        y = jnp.transpose(jnp.sin(x), (2, 0, 1))
        return jnp.exp(y) * 2, jnp.tanh(jnp.transpose(y, (1, 2, 0)))

    found = orders(f, X)
    assert found == {"sin": None, "exp": (1, 2, 0), "tanh": None}


def test_parts_of_a_transposed_value_lie_as_it_does():
    def f(x):
        y = jnp.transpose(jnp.sin(x), (2, 0, 1))  # [4, 2, 3], in memory as [2, 3, 4]
        first, _ = lax.split(y, [1, 3])
        return jnp.exp(lax.squeeze(first, [0])), jnp.cos(y[1:3, :, 0]), lax.tanh(first)

    found = orders(f, X)
    assert found["exp"] is None  # the axis that had moved is gone
    assert found["cos"] == (1, 0)
    assert found["tanh"] == found["split"] == (1, 2, 0)


def test_operands_that_lie_in_different_orders_tell_nothing():
    def f(x, y):
        z = jnp.transpose(x)
        return lax.mul(jnp.exp(z), 2 + y), lax.add(z, z), z @ z, lax.sort(jnp.sin(z))

    found = orders(f, jnp.ones((3, 3)), jnp.ones((3, 3)))
    assert found["exp"] == found["add.1"] == found["sin"] == (1, 0)
    assert found["mul"] is None and found["dot_general"] is None


def test_the_gradient_of_a_kernel_is_measured_in_the_order_of_the_product_that_makes_it():
    def step(kernel, x):
        gradient = jax.grad(lambda kernel: jnp.sum(jnp.tanh(x @ kernel)))(kernel)
        return kernel - jnp.square(gradient)

    kernel, x = jnp.ones((300, 250)), jnp.ones((8, 300))
    found = orders(step, kernel, x)
    assert found["square"] == (1, 0) and found["sub"] is None
    text = jax.jit(jr.ranges(step)).lower(kernel, x).as_text()
    plain = jax.jit(step).lower(kernel, x).as_text()
    assert text.count("stablehlo.transpose") == plain.count("stablehlo.transpose") + 1


def test_slices_of_what_a_scan_goes_over_lie_in_an_order_that_is_not_known():
    def f(x):
        return lax.scan(lambda c, row: (c, jnp.exp(row)), 0, jnp.transpose(x))[1] * 2

    assert set(orders(f, jnp.ones((3, 4))).values()) == {None}


def test_a_statistic_of_positions_sees_values_as_they_look():
    stat = jr.PerChannel(axis=-1)
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    _, ranges = jax.jit(jr.ranges(lambda x: jnp.exp(x.T), stats=[jr.MinMax(), stat]))(x)
    got = ranges.of("exp", stat)
    assert np.allclose(got.max, np.exp(x.T).max(0))
    assert ranges["exp"].max == np.max(got.max)


@dataclass(frozen=True)
class Kept(jr.Statistic):
    """How many values are what the first operand has in the same place."""

    positional = False
    contextual = True

    def identity(self, dtype):
        return np.zeros((), np.int32)

    def begin_in(self, value, context):
        return self.measure_in(value, context)

    def measure_in(self, value, context):
        if not context.operands or np.shape(context.operands[0]) != value.shape:
            return jnp.zeros((), jnp.int32)
        return jnp.sum(value == context.operands[0], dtype=jnp.int32)

    def merge(self, a, b):
        return a + b


def test_a_statistic_that_sees_operands_sees_all_as_they_look():
    def f(x):
        return jnp.minimum(x.T, 0.5 + jnp.exp(x.T))

    x = jnp.linspace(-1.0, 3.0, 12).reshape(3, 4)
    _, ranges = jax.jit(jr.ranges(f, stats=[jr.MinMax(), Kept()]))(x)
    assert ranges.of("min", Kept()) == 12
    assert ranges.of("exp", Kept()) == 0


@pytest.mark.parametrize("shape", [(30, 20, 10), (300, 40, 10), (90, 3, 400)], ids=str)
@pytest.mark.parametrize("loops", ["merge", "stack"])
def test_what_lies_in_another_order_is_measured_exactly(shape, loops):
    def f(x):
        def body(carry, y):
            turned = jnp.transpose(y)
            return carry + 1, lax.add(turned, lax.rev(turned, (0,)))

        return lax.scan(body, 0, x)[1], jnp.sqrt(jnp.transpose(x, (2, 0, 1)))

    x = random_array(np.dtype(np.float32), shape, np.random.default_rng(1))
    (added, root), ranges = jax.jit(jr.ranges(f, loops=loops))(x)
    (name,) = (name for name in ranges if name.endswith("add.1"))
    found = ranges.reduce()[name] if loops == "stack" else ranges[name]
    for site, value in ((found, added), (ranges["sqrt"], root)):
        lo, hi, nan, _ = numpy_range(np.asarray(value))
        assert (site.min, site.max, bool(site.nan)) == (lo, hi, nan)
