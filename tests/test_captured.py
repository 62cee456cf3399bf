"""What a program captures, and what else is known before it runs, is computed by numpy.

Whatever the caller is in the middle of, a JAX operation would become a part of that.

Random programs, JAX's cases and the examples are tried with their arguments captured. CI tries
each with one tool, which the name or the seed of the program chooses; `-m slow` tries all pairs.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ranges as jr
from tests import harnesses
from tests.captured import (
    TOOLS,
    Case,
    PlanningBindsError,
    check_all,
    planning_binds_nothing,
    same_types,
)
from tests.programs import random_program
from tests.test_examples import both_forms, example, needs_minilm
from tests.test_programs import LAST_BITS, assert_same_outputs

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


@pytest.mark.parametrize(
    "weights", [W, W.astype(jnp.bfloat16), np.asarray(W)], ids=["float32", "bfloat16", "numpy"]
)
def test_codes_of_captured_weights_are_made_whatever_a_guard_forbids(weights):
    recipe = {"dot_general": ("int8", jr.Dynamic("int8", symmetric=False, channels=True))}
    low = jr.quantize(lambda x: x @ weights.T.astype(jnp.float32), recipe)
    expected = jax.jit(low)(X)
    np.testing.assert_array_equal(guarded(jax.jit(lambda x: low(x)), X), expected)


def test_planning_that_binds_a_primitive_is_noticed():
    def moved(array, dtype):
        return np.asarray(-array, dtype)

    f = sliced(W)
    with planning_binds_nothing():
        jax.jit(jr.ranges(f))(X)
        with mock.patch("jax_ranges.plan.host_array", moved), pytest.raises(PlanningBindsError):
            jax.jit(jr.ranges(f))(X)


# -- everything that is tried elsewhere, with its arguments captured --------------------------


def tool_of(name: str) -> str:
    """One for each program, the same one on every run."""
    return list(TOOLS)[zlib.crc32(name.encode()) % len(TOOLS)]


SAME = {
    "exact": assert_same_outputs,
    "smooth": functools.partial(assert_same_outputs, rtol=LAST_BITS),
    # Compiled in another way, it may be NaN or not: XLA simplifies NaN * 0.
    "wild": same_types,
}


def random_cases(flavour: str, seeds: Iterable[int], tools: Any = None) -> Iterator[Any]:
    for seed in seeds:
        program = random_program(seed, flavour)
        case = Case(program.fun, program.args, SAME[flavour], flavour == "exact", program.x64)
        for tool in tools or [list(TOOLS)[seed % len(TOOLS)]]:
            yield f"random_program({seed}, {flavour!r})", tool, case


@pytest.mark.parametrize("flavour", SAME)
def test_random_programs_with_captured_arguments(flavour):
    assert check_all(random_cases(flavour, range(len(TOOLS)))) > 10


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("start", range(0, 300, 50))
@pytest.mark.parametrize("flavour", SAME)
def test_all_random_programs_with_captured_arguments(flavour, start, tool):
    assert check_all(random_cases(flavour, range(start, start + 50), [tool])) > 10
    jax.clear_caches()


HARNESSES = {x64: harnesses.groups(x64) for x64 in (False, True)}


def harness_cases(found: Iterable[Any], x64: bool, tools: Any = None) -> Iterator[Any]:
    for harness in found:
        with jax.enable_x64(x64):
            args = harness.dyn_args_maker(np.random.RandomState(0))
        case = Case(harness.dyn_fun, tuple(args), same_types, x64=x64)
        for tool in tools or [tool_of(harness.fullname)]:
            yield harness.fullname, tool, case


def test_primitives_with_captured_arguments():
    """One case of every fourth, and of all that take part of an array."""
    sample = harnesses.sampled(False, cases=1)
    names = [*list(sample)[::4], *(name for name in sample if "slice" in name or "gather" in name)]
    found = [sample[name][0] for name in dict.fromkeys(names) if name not in harnesses.SLOW]
    assert check_all(harness_cases(found, False)) > 25


@pytest.mark.slow
@pytest.mark.parametrize("x64", [False, True], ids=["x32", "x64"])
@pytest.mark.parametrize("tool", TOOLS)
def test_a_case_of_all_primitives_with_captured_arguments(tool, x64):
    found = itertools.chain(*harnesses.sampled(x64, cases=1).values())
    assert check_all(harness_cases(found, x64, [tool])) > 20
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("x64", "group"), [(x64, group) for x64, found in HARNESSES.items() for group in found]
)
def test_all_cases_of_a_primitive_with_captured_arguments(x64, group):
    can = [h for h in HARNESSES[x64][group] if h.filter(jax.default_backend())]
    check_all(harness_cases(can, x64))
    jax.clear_caches()


IMAGES = np.random.default_rng(0).uniform(size=(2, 8, 8)).astype(np.float32)
KEY = jax.random.key(0)


def linen() -> Any:
    model = example("digits_linen").ConvNet()
    variables = model.init(KEY, IMAGES)
    return lambda images: model.apply(variables, images)


def nnx() -> Any:
    from flax import nnx

    model = example("digits_nnx").ConvNet(rngs=nnx.Rngs(0))
    model.eval()
    return model


def minilm(scan: bool) -> Any:
    model = example("calibrate_minilm").load(scan)
    ((ids, mask),) = example("calibrate_minilm").batches(4)
    return lambda scale: model.encode(model.params, ids, mask) * scale.sum()


def of_params(name: str) -> Any:
    module = example(name)
    return functools.partial(module.predict, module.init(KEY))


# With their weights captured.
EXAMPLES: dict[str, Callable[[], Any]] = {
    "digits": lambda: of_params("digits"),
    "digits_conv": lambda: of_params("digits_conv"),
    "digits_linen": linen,
    "digits_nnx": nnx,
    "digits_equinox": lambda: jax.vmap(example("digits_equinox").ConvNet(KEY)),
}


def example_cases(model: Any, tools: Iterable[str]) -> Iterator[Any]:
    same = functools.partial(assert_same_outputs, rtol=LAST_BITS)
    return (("example", tool, Case(model, (jnp.asarray(IMAGES),), same)) for tool in tools)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_with_captured_weights(name):
    assert check_all(example_cases(EXAMPLES[name](), [tool_of(name)])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_with_captured_weights_under_all_tools(name):
    assert check_all(example_cases(EXAMPLES[name](), TOOLS)) == len(TOOLS)


@pytest.mark.slow
@needs_minilm
@both_forms
@pytest.mark.parametrize("tool", TOOLS)
def test_a_transformer_with_captured_weights(scan, tool):
    assert check_all(example_cases(minilm(scan), [tool])) == 1
