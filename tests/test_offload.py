"""Values in the host's memory: measured, rewritten, and left where they are."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import SingleDeviceSharding

import jax_ranges as jr
from tests.compare import assert_same_ranges
from tests.oracle import oracle
from tests.tools import STATS, TOOLS, with_tool

HOST, DEVICE = jax.memory.Space.Host, jax.memory.Space.Device
X = jnp.linspace(-1.0, 1.0, 64).reshape(8, 8)


def to_host(x):
    return jax.device_put(x, SingleDeviceSharding(jax.devices()[0], memory_kind="pinned_host"))


def to_device(x):
    return jax.device_put(x, SingleDeviceSharding(jax.devices()[0], memory_kind="device"))


WEIGHTS = to_host(jnp.stack([X, 2 * X, X - 1]))


def activation(x, w):
    """Kept on the host between two operations."""
    del w
    return jnp.cos(to_device(to_host(jnp.sin(x))))


def layers(x, w):
    """A scan over offloaded weights."""
    return lax.scan(lambda c, w: (jnp.sin(c @ to_device(w)), None), x, w)[0]


def stacked_on_host(x, w):
    """What a scan stacks, and another one takes from there."""
    _, ys = lax.scan(lambda c, w: (jnp.sin(c @ to_device(w)), to_host(c)), x, w)
    return lax.scan(lambda c, y: (c + to_device(y), None), 0 * x, ys, reverse=True)[0], ys


def carried_on_host(x, w):
    del w

    def body(i, c):
        return jax.device_put(jnp.tanh(jax.device_put(c, DEVICE) + i), HOST)

    return lax.fori_loop(0, 3, body, jax.device_put(x, HOST))


def computed_on_host(x, w):
    """Operations whose operands are there are done there, small values and large ones, NaN too."""
    low = w[0] * 0.5 + jnp.log(w[1])
    return jnp.maximum(low, 0.0).sum(), jnp.exp(w), x + 1, w.astype(jnp.bfloat16), (w > 0)


def captured(x, w):
    del w
    return x @ to_device(WEIGHTS)[0], to_device(WEIGHTS * 2)


def remembered(x, w):
    """Rematerialization that offloads its residuals."""
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["kept"],
        offload_src="device",
        offload_dst="pinned_host",
    )

    @functools.partial(jax.checkpoint, policy=policy)
    def layer(x, w):
        return jnp.sin(checkpoint_name(jnp.sin(x @ w), "kept"))

    return jax.grad(lambda x: layer(layer(x, to_device(w)[0]), to_device(w)[1]).sum())(x)


def updated(x, w):
    """An optimizer's state: brought, updated, and put back."""
    momentum = 0.9 * to_device(w) + jnp.sin(x)
    return x - 0.1 * momentum.sum(0), to_host(momentum)


FUNS = (
    *(activation, layers, stacked_on_host, carried_on_host, computed_on_host, captured),
    *(remembered, updated),
)


def kinds(tree):
    return [x.sharding.memory_kind for x in jax.tree.leaves(tree)]


def assert_same(found, expected, rtol=1e-5):
    assert kinds(found) == kinds(expected)
    close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-6)
    jax.tree.map(lambda a, b: close(np.asarray(a, float), np.asarray(b, float)), found, expected)
    assert jax.tree.map(jnp.result_type, found) == jax.tree.map(jnp.result_type, expected)


def training_step(x, w):
    return updated(x, w), stacked_on_host(x, w), computed_on_host(x, w)


def assert_unchanged(f, tool):
    assert_same(with_tool(tool, f, X, WEIGHTS)(X, WEIGHTS), jax.jit(f)(X, WEIGHTS))


@pytest.mark.parametrize("tool", TOOLS)
def test_outputs_are_the_same_and_where_they_were(tool):
    assert_unchanged(training_step, tool)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("f", FUNS)
def test_every_kind_with_every_tool(f, tool):
    assert_unchanged(f, tool)


@pytest.mark.parametrize("loops", ["merge", "stack"])
@pytest.mark.parametrize("f", FUNS)
def test_ranges_are_those_of_the_oracle(f, loops):
    _, sites = oracle(f, X, WEIGHTS, loops=loops)
    _, ranges = jax.jit(jr.ranges(f, loops=loops))(X, WEIGHTS)
    assert_same_ranges(ranges, sites, rtol=1e-5)
    _, ranges = jr.ranges(f, loops=loops)(X, WEIGHTS)
    assert_same_ranges(ranges, sites, rtol=1e-5)


@pytest.mark.parametrize("stat", STATS, ids=lambda stat: type(stat).__name__)
@pytest.mark.parametrize("loops", ["merge", pytest.param("stack", marks=pytest.mark.slow)])
def test_every_statistic_sees_what_it_would_see_on_the_device(stat, loops, monkeypatch):
    def measured(w):
        f = jr.ranges(stacked_on_host, stat, inputs=True, loops=loops)
        return jax.jit(f)(X, w)[1]

    found = measured(WEIGHTS)
    monkeypatch.setattr(sys.modules[__name__], "to_host", to_device)
    expected = measured(to_device(WEIGHTS))
    assert list(found) == list(expected)
    for name in found:
        if found.has(name, stat):
            assert str(found.of(name, stat)) == str(expected.of(name, stat))


def test_transformed_outside():
    def f(x, w):
        return layers(x, w).sum() + to_device((jnp.sin(w) * 2).sum())

    rows = jnp.stack([X, 2 * X])
    cases = {
        "grad": (lambda f: jax.grad(f, (0, 1), has_aux=True), X),
        "vmap": (lambda f: jax.vmap(f, in_axes=(0, None)), rows),
        "scan": (lambda f: lambda xs, w: lax.scan(lambda c, x: (c, f(x, w)), 0, xs)[1], rows),
    }
    for make, given in cases.values():
        plain, _ = jax.jit(make(lambda x, w: (f(x, w), 0)))(given, WEIGHTS)
        out, ranges = jax.jit(make(jr.ranges(f, inputs=True)))(given, WEIGHTS)
        assert_same(out, plain)
        assert all(np.all(r.observed) for r in ranges.values())


def annotations(f, *args):
    lowered = jax.jit(f).trace(*args).lower(lowering_platforms=("tpu",))
    return lowered.as_text().count("annotate_device_placement")


@pytest.mark.parametrize("f", [activation, layers, updated, stacked_on_host])
def test_what_the_program_brings_to_the_device_is_not_brought_twice(f):
    """Weights that a scan takes from the host one by one may be larger than the device's memory."""
    inputs = f in (layers, updated)  # the others leave the weights where they are
    assert annotations(jr.ranges(f, inputs=inputs), X, WEIGHTS) == annotations(f, X, WEIGHTS)


def test_the_plan_says_where_offloaded_weights_are_measured():
    rows = {row.site.name: row for row in jr.plan(layers, inputs=True)(X, WEIGHTS).rows}
    assert rows["scan/device_put"].how == "measured"
    assert rows["input/w"].why == "scan/device_put: the same values"


def test_a_net_keeps_its_accumulators_on_the_device():
    with jr.Net(lambda w: w * 2) as net:  # nothing here is on the device
        for _ in range(3):
            assert kinds(net(WEIGHTS)) == ["pinned_host"]
        assert net.get_info()["mul"].max == 2 * np.asarray(WEIGHTS).max()
