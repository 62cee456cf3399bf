"""Random programs: what `ranges` finds in them is what the slow oracle finds.

A failure names the seed and shows the program. To look at one again:

    from tests.programs import random_program
    print(random_program(1234, "wild"))

CI takes a share of the seeds of each kind; `-m slow` takes the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.extend.core import jaxprs_in_params

import jax_ranges as jr
from tests.compare import assert_same_ranges
from tests.oracle import oracle
from tests.programs import Program, other_args, random_program

# What XLA rewrites in that which it compiles as a whole, and the oracle does not: it leaves out
# narrow-then-wide conversions, so that a bfloat16 chain is rounded once, not at each step; and
# it simplifies, so that NaN * mask.astype(float) is 0 where the mask is False, not NaN.
ROUNDED = {"xla_allow_excess_precision": False}
# The last resort only: without its simplifier XLA sometimes crashes (at seed 1706).
LITERALLY = {**ROUNDED, "xla_disable_hlo_passes": "algsimp"}
# What two compilations of one program may differ by: a last bit in a transcendental function
# (vector and scalar code differ) or in the order of a sum, amplified by what follows.
LAST_BITS = 1e-5

CHUNK = 25


def chunks(count: int, in_ci: int) -> Callable[[Any], Any]:
    """Parametrize a test by ranges of seeds, of which CI runs the first few."""
    params = []
    for start in range(0, count, CHUNK):
        marks = () if start < in_ci else pytest.mark.slow
        seeds = range(start, min(start + CHUNK, count))
        params.append(pytest.param(seeds, id=f"{seeds[0]}-{seeds[-1]}", marks=marks))
    return pytest.mark.parametrize("seeds", params)


def on_each(flavour: str) -> Callable[[Any], Any]:
    """A check of one program becomes a test of many that names the seeds for which it fails."""

    def decorate(check: Callable[[Program], None]) -> Callable[[Any], None]:
        def test(seeds: range) -> None:
            failed: dict[int, Exception] = {}
            for seed in seeds:
                program = random_program(seed, flavour)
                try:
                    with program.mode():
                        check(program)
                except Exception as error:
                    failed[seed] = error
            if failed:
                seed, error = next(iter(failed.items()))
                text = f"{random_program(seed, flavour)}\n{type(error).__name__}: {error}"
                raise AssertionError(f"seeds {list(failed)} of {seeds} fail; {text}") from error
            # Thousands of small executables would use up the memory maps of the process.
            if seeds[-1] % 200 == 199:
                jax.clear_caches()

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        test.__module__, test.__qualname__ = check.__module__, check.__qualname__
        return test

    return decorate


# -- comparing --------------------------------------------------------------------------------


def assert_same_outputs(got: Any, expected: Any, rtol: float = 0.0) -> None:
    """The same tree of the same types, weak ones included, and the same bits (NaN is NaN)."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for n, (a, b) in enumerate(zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)):
        assert type(a) is type(b), f"output {n}: got {type(a)}, expected {type(b)}"
        types = [(jax.typeof(x), getattr(x, "weak_type", None)) for x in (a, b)]
        assert types[0] == types[1], f"output {n}: got {types[0]}, expected {types[1]}"
        same = np.array_equal(_bits(a), _bits(b)) if not rtol else _close(a, b, rtol)
        assert same, f"output {n}: got {a!r}, expected {b!r}"


def _bits(x: Any) -> np.ndarray:
    """As integers, so that -0 is not 0; every NaN becomes the same one."""
    x = np.asarray(x)
    if x.dtype.kind == "c":
        x = np.stack([x.real, x.imag])
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = np.where(np.isnan(x), np.asarray(np.nan, x.dtype), x)
    return x.view(f"u{x.dtype.itemsize}") if x.ndim else x[None].view(f"u{x.dtype.itemsize}")


def _close(a: Any, b: Any, rtol: float) -> bool:
    """Relative to the largest magnitude: cancellation makes small elements of large ones."""
    a, b = (np.asarray(x) for x in (a, b))
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return np.array_equal(a, b)
    wide = complex if a.dtype.kind == "c" else float
    a, b = a.astype(wide), b.astype(wide)
    scale = np.max(np.abs(b), initial=0.0, where=np.isfinite(b))
    return np.allclose(a, b, rtol=rtol, atol=rtol * max(scale, 1.0), equal_nan=True)


def compiled_dtypes(jaxpr: Any, inside: bool = False) -> set[np.dtype]:
    """The dtypes that occur in those parts of the program that are compiled as a whole."""
    found = set()
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if inside:
            found |= {getattr(var.aval, "dtype", np.dtype(bool)) for var in eqn.outvars}
        for inner in jaxprs_in_params(eqn.params):
            found |= compiled_dtypes(inner, True)
    return found


def is_narrow(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating)) and dtype.itemsize < 4


# -- eagerly, against the oracle --------------------------------------------------------------


def _compare(program: Program, loops: str) -> None:
    """Exactly, but for the last bits of what is compiled as a whole."""
    fun, args = program.fun, program.args
    measured = jr.ranges(fun, loops=loops)
    compiled = compiled_dtypes(jax.make_jaxpr(fun)(*args))
    found = oracle(fun, *args, loops=loops)
    if not compiled:
        assert_found(measured(*args), found)
        return
    ways = [jax.jit(measured, compiler_options=options) for options in (ROUNDED, LITERALLY)]
    for run in ways if any(map(is_narrow, compiled)) else [measured, *ways]:
        try:
            assert_found(run(*args), found, LAST_BITS)
            return
        except AssertionError as error:
            last = error
    raise last


def assert_found(got: Any, found: Any, rtol: float = 0.0) -> None:
    """What `ranges` returned is what the oracle did, and no two sites have one name."""
    (out, ranges), (leaves, sites) = got, found
    assert_same_ranges(ranges, sites, rtol)
    assert_same_outputs(jax.tree.leaves(out), jax.tree.map(jnp.asarray, leaves), rtol)
    assert len(set(ranges)) == len(ranges.sites), "names are not unique"


@chunks(2000, in_ci=150)
@on_each("wild")
def test_ranges_are_those_that_the_oracle_finds(program):
    _compare(program, "merge" if program.seed % 4 else "stack")


@chunks(200, in_ci=25)
@on_each("wild")
def test_outputs_are_bit_for_bit_those_of_the_function(program):
    out, _ = jr.ranges(program.fun)(*program.args)
    assert_same_outputs(out, program.fun(*program.args))


# -- under transformations --------------------------------------------------------------------


@chunks(200, in_ci=25)
@on_each("exact")
def test_under_jit_outputs_and_ranges_stay_the_same(program):
    got = jax.jit(jr.ranges(program.fun))(*program.args)
    assert_found(got, oracle(program.fun, *program.args))


@chunks(100, in_ci=25)
@on_each("smooth")
def test_under_jit_floats_differ_in_last_bits_only(program):
    got = jax.jit(jr.ranges(program.fun))(*program.args)
    assert_found(got, oracle(program.fun, *program.args), LAST_BITS)


@chunks(200, in_ci=25)
@on_each("exact")
def test_exported_with_a_symbolic_batch_they_are_the_oracle_s_for_any_size(program):
    fun, count = jax.vmap(program.fun), 2
    examples = [other_args(program, n) for n in range(count)]
    batch = jax.tree.map(lambda *xs: np.stack(list(map(np.asarray, xs))), *examples)
    (n,) = export.symbolic_shape("n")
    shapes = [jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype) for x in batch]
    loops = "merge" if program.seed % 4 else "stack"
    exported = export.export(jax.jit(jr.ranges(fun, loops=loops)))(*shapes)
    for size in (1, count):
        args = [x[:size] for x in batch]
        out, ranges = exported.call(*args)
        leaves, sites = oracle(fun, *args, loops=loops)
        assert_same_ranges(ranges, sites, sizes={"n": size})
        assert_same_outputs(jax.tree.leaves(out), jax.tree.map(jnp.asarray, leaves))


@chunks(100, in_ci=25)
@on_each("exact")
def test_vmap_gives_each_example_its_own_range(program):
    examples = [program.args, *(other_args(program, n) for n in range(2))]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *examples)
    measured = jr.ranges(program.fun)
    _, together = jax.jit(jax.vmap(measured))(*stacked)
    for i, args in enumerate(examples):
        _, sites = oracle(program.fun, *args)
        assert_same_ranges(jax.tree.map(lambda leaf, i=i: leaf[i], together), sites)


@chunks(100, in_ci=25)
@on_each("exact")
def test_ranges_of_two_inputs_merge_to_the_range_over_both(program):
    measured = jax.jit(jr.ranges(program.fun))
    first, second = measured(*program.args)[1], measured(*other_args(program, 0))[1]
    both = first | second
    assert list(both) == list(first)
    for name, merged in both.items():
        a, b = first[name], second[name]
        expected = np.minimum(a.min, b.min), np.maximum(a.max, b.max), a.nan | b.nan
        assert (merged.min, merged.max, merged.nan) == expected, name
    assert_same_outputs(list(jax.tree.leaves(second | first)), list(jax.tree.leaves(both)))


@chunks(200, in_ci=25)
@on_each("smooth")
def test_gradients_are_those_of_the_function(program):
    """Of a scalar made of all float outputs; integers and while loops have no gradient."""

    def loss(fun: Callable[..., Any], *args: Any) -> Any:
        leaves = [x for x in jax.tree.leaves(fun(*args)) if jnp.issubdtype(x.dtype, jnp.floating)]
        return functools.reduce(jnp.add, [jnp.sum(x) for x in leaves], jnp.zeros(()))

    def gradients(fun: Callable[..., Any]) -> Any:
        everything = tuple(range(len(program.args)))
        return jax.jit(jax.grad(functools.partial(loss, fun), everything))(*program.args)

    measured = gradients(lambda *args: jr.ranges(program.fun)(*args)[0])
    assert_same_outputs(measured, gradients(program.fun), rtol=LAST_BITS)
