"""Every switch of JAX that users and test suites turn on, with every tool.

What runs plainly under a switch runs observed under it, and gives the same.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_ranges as jr
from tests.tools import STATS, TOOLS


@contextlib.contextmanager
def switched(**values: Any):
    """Of `jax.config`, for those that are no context managers."""
    before = {name: getattr(jax.config, name) for name in values}
    try:
        for name, value in values.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@contextlib.contextmanager
def all_of(*switches: Any):
    with contextlib.ExitStack() as stack:
        for switch in switches:
            stack.enter_context(switch())
        yield


SWITCHES: dict[str, Any] = {
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "checks": lambda: jax.enable_checks(True),
    "leaks": jax.checking_leaks,
    "nans": lambda: jax.debug_nans(True),
    "infs": lambda: jax.debug_infs(True),
    "key reuse": lambda: jax.debug_key_reuse(True),
    "disallow": lambda: jax.transfer_guard("disallow"),
    "disallow explicit": lambda: jax.transfer_guard("disallow_explicit"),
    "x64": lambda: jax.enable_x64(True),
    "disabled": jax.disable_jit,
    "precision": lambda: jax.default_matmul_precision("highest"),
    "device": lambda: jax.default_device(jax.devices()[0]),
}
MAIN = tuple(SWITCHES)
VALUES: dict[str, Any] = {
    "jax_threefry_partitionable": False,
    "jax_use_shardy_partitioner": False,
    "jax_default_prng_impl": "rbg",
    "jax_enable_custom_prng": True,
    "jax_legacy_prng_key": "error",
    "jax_random_seed_offset": 5,
    "jax_custom_vjp3": True,
    "jax_custom_jvp3": True,
    "jax_scan3": True,
    "jax_remat3": True,
    "jax_refs_to_pins": True,
    "jax_remat_barrier_no_cotangents": True,
    "jax_use_direct_linearize": False,
    "jax_use_simplified_jaxpr_constants": True,
    "jax_softmax_custom_jvp": True,
    "jax_use_hlo_logistic_lowering": True,
    "jax_accurate_erf_inv": True,
    "jax_check_static_indices": True,
    "jax_explicit_x64_dtypes": "error",
    "jax_mutable_array_checks": False,
    "eager_constant_folding": True,
    "jax_traceback_filtering": "off",
    "jax_include_full_tracebacks_in_locations": False,
    "jax_thread_guard": True,
    "jax_disable_bwd_checks": True,
    "jax_embedded_constants_max_bytes": 0,
    "jax_error_checking_behavior_nan": "raise",
    "jax_error_checking_behavior_divide": "raise",
}
SWITCHES |= {
    f"{name}={value}": functools.partial(switched, **{name: value})
    for name, value in VALUES.items()
    if hasattr(jax.config, name)
}
STRICT = ("rank promotion", "dtype promotion", "key reuse", "disallow", "nans", "infs")
SWITCHES["strict"] = lambda: all_of(*map(SWITCHES.get, STRICT))
SWITCHES["disabled, nans"] = lambda: all_of(*(SWITCHES[s] for s in ("disabled", "nans", "infs")))


@jax.custom_vjp
def scaled(x: Any) -> Any:
    return x * np.float32(3)


scaled.defvjp(lambda x: (scaled(x), None), lambda _, g: (g * np.float32(2),))


@jax.custom_jvp
def shifted(x: Any) -> Any:
    return x + np.float32(1)


shifted.defjvp(lambda x, t: (shifted(*x), t[0] * np.float32(2)))


def loops(x: Any) -> Any:
    last, rows = lax.scan(lambda c, row: (c + row, jnp.dot(row, row)), x[0], x)
    turns = lax.while_loop(lambda s: s < 3, lambda s: s + 1, jnp.int32(0))
    return lax.cond(turns > 2, jnp.exp, jnp.negative, last), rows


def gradients(x: Any) -> Any:
    return jax.grad(lambda x: jnp.sum(jax.checkpoint(scaled)(shifted(x)) @ x))(x)


def numbers(x: Any) -> Any:
    """Random ones, integers, and what is not finite on the way."""
    key, other = jax.random.split(jax.random.key(3))
    n = lax.bitwise_and(lax.bitcast_convert_type(x, jnp.uint32), jnp.uint32(3))
    hidden = jnp.where(x > np.float32(0.5), x, np.float32(-np.inf))
    nothing = jnp.where(x > np.float32(0), jnp.sqrt(x), jnp.sqrt(-x))
    return n, jnp.cumsum(n, 0), jnp.exp(hidden), nothing, key, jax.random.uniform(other, (2,)) @ x


X = np.arange(4, dtype=np.float32).reshape(2, 2) / 4
FUNS = {"loops": loops, "gradients": gradients, "numbers": numbers}


def observed(tool: str, fun: Any, x: Any) -> Any:
    return TOOLS[tool](fun, x)(x)


def everything(fun: Any, x: Any) -> Any:
    """All statistics, read on the host."""
    out, found = jr.ranges(fun, stats=STATS, inputs=True, loops="stack")(x)
    both = found.reduce() | found.reduce()
    for name in both:
        for stat in both.stats:
            both.of(name, stat)
    str(jr.advise(both.select("*")))
    return out


def in_jit(fun: Any, x: Any) -> Any:
    """Ranges as values of the program."""

    def measured(x: Any) -> Any:
        out, found = jr.ranges(fun)(x)
        both = found | found.reduce()
        return out, [r.observed & (r.min <= r.max) for r in both.values()]

    return jax.jit(measured)(x)[0]


def net(fun: Any, x: Any) -> Any:
    with jr.Net(fun, stats=(jr.MinMax(), jr.Moments()), inputs=True) as made:
        made(x)
        out = made(x)
        repr(made), made.get_info()
    return out


RUNS = {
    "everything": everything,
    "in jit": in_jit,
    "net": net,
    **{tool: functools.partial(observed, tool) for tool in TOOLS},
}


def assert_same(out: Any, plain: Any) -> None:
    assert jax.tree.structure(out) == jax.tree.structure(plain)
    for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(plain), strict=True):
        assert jax.typeof(a) == jax.typeof(b)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)


def check(switch: str, run: str, fun: Any) -> None:
    with SWITCHES[switch]():
        x = jax.device_put(X)
        try:
            plain = jax.block_until_ready(fun(x))
        except Exception as error:
            pytest.skip(f"does not run plainly: {error}")
        out = RUNS[run](fun, x)
    assert_same(out, plain)


NUMBERS, LOOPS = jax.jit(numbers), jax.jit(loops)


@pytest.mark.parametrize("run", RUNS)
def test_every_tool_under_the_strictest(run):
    check("strict", run, NUMBERS)


@pytest.mark.parametrize("run", ["ranges", "find_nonfinite", "Net"])
@pytest.mark.parametrize("switch", ["disabled", "disabled, nans", "checks", "leaks", "x64"])
def test_some_tools_under_others(switch, run):
    check(switch, run, LOOPS)


def test_a_nan_that_would_stop_the_program_still_stops_it():
    x = jnp.array([-1.0, 1.0])
    with jax.debug_nans(True):
        for run in ("ranges", "find_nonfinite"):
            with pytest.raises(FloatingPointError):
                RUNS[run](lambda x: jnp.sqrt(x) * 2, x)


def test_what_a_lower_precision_makes_infinite_is_reported_and_stops_nothing():
    with jax.debug_infs(True), jax.debug_nans(True):
        _, report = jr.shadow(lambda x: x * x, low="float16")(jnp.float32(300))
    assert [row.nonfinite_introduced for row in report.rows if row.site == "mul"] == [1]


def test_64_bits_may_be_switched_between_calls_and_when_reading():
    net = jr.Net(lambda x: x * 2)
    for on in (True, False):
        with jax.enable_x64(on):
            net(np.array([1.5 + 2**-40, 2.0]))
    assert net.get_info()["mul"].max == 4.0
    with jax.enable_x64(True):
        assert net.get_info(total=True)["mul"].min == 3.0


@pytest.mark.slow
@pytest.mark.parametrize("jitted", [True, False], ids=["jitted", "eager"])
@pytest.mark.parametrize("fun", FUNS)
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("switch", MAIN)
def test_every_tool_under_every_switch(switch, run, fun, jitted):
    check(switch, run, jax.jit(FUNS[fun]) if jitted else FUNS[fun])


@pytest.mark.slow
@pytest.mark.parametrize("fun", FUNS)
@pytest.mark.parametrize("run", ["everything", "find_nonfinite", "shadow", "Net"])
@pytest.mark.parametrize("switch", [name for name in SWITCHES if name not in MAIN])
def test_tools_under_less_usual_switches(switch, run, fun):
    check(switch, run, jax.jit(FUNS[fun]))
