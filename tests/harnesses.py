"""JAX's own list of cases, one for every primitive and dtype, crossed with the oracle.

`jax._src.internal_test_util.test_harnesses` is what JAX checks its converters against: more
than five thousand small functions, each with a way to make its arguments. Which there are
depends on whether 64-bit types are on when the list is made, so there are two lists.

    python -m tests.harnesses [--x64] [--jit] [part of a name]

runs all of a list and says how many went how (the table of tests/README.md is made of that).
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib.util
import time
import warnings
import zlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np

import jax_ranges as jr
from tests.compare import assert_same_ranges
from tests.oracle import inner_programs, oracle

# One case takes plain JAX seconds to compile, so a sample has a single one of them.
SLOW = frozenset({"igamma", "igammac", "random_categorical", "random_gamma", "random_randint"})

LAST_BITS = 5e-7  # relative

MODULE = "jax._src.internal_test_util.test_harnesses"


class NotInJax(Exception):
    """Plain JAX cannot run the case on this backend, so there is nothing to compare with."""


@functools.cache
def all_harnesses(x64: bool) -> tuple[Any, ...]:
    """JAX's list as it is with 64-bit types off or on, made anew (it needs absl-py)."""
    from jax._src import test_util

    # `test_util.dtypes` remembers the dtypes of the mode in which it was first asked.
    fresh = mock.patch.object(test_util, "dtypes", type(test_util.dtypes)())
    spec = importlib.util.find_spec(MODULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with jax.enable_x64(x64), fresh:
        spec.loader.exec_module(module)
    return tuple(module.all_harnesses)


def groups(x64: bool) -> dict[str, list[Any]]:
    """JAX's cases by primitive."""
    found: dict[str, list[Any]] = {}
    for harness in all_harnesses(x64):
        found.setdefault(harness.group_name, []).append(harness)
    return found


def sampled(x64: bool, cases: int) -> dict[str, list[Any]]:
    """By primitive, a few cases of those that JAX says it can run; for 64 bits only new ones.

    Which ones depends on nothing but their names: they are the same on every run.
    """
    known = {harness.fullname for harness in all_harnesses(False)} if x64 else set()
    chosen = {}
    for group, harnesses in groups(x64).items():
        can = [h for h in harnesses if h.filter(jax.default_backend()) and h.fullname not in known]
        if can:
            mixed = sorted(can, key=lambda harness: zlib.crc32(harness.fullname.encode()))
            chosen[group] = mixed[: 1 if group in SLOW else cases]
    return chosen


# -- one case ---------------------------------------------------------------------------------


def check(harness: Any, x64: bool) -> None:
    """`ranges(f)` returns what f returns, bit for bit, and the ranges that the oracle finds.

    Raises NotInJax where f itself does not run.
    """
    with jax.enable_x64(x64):
        args, expected = _run_plain(harness, harness.dyn_fun)
        outs, ranges = jr.ranges(harness.dyn_fun)(*args)
        assert_same_outputs(outs, expected)
        rtol = LAST_BITS if _compiles_programs(harness.dyn_fun, args) else 0.0
        assert_same_ranges(ranges, oracle(harness.dyn_fun, *args)[1], rtol)


def _compiles_programs(fun: Callable[..., Any], args: list[Any]) -> bool:
    """Whether there are programs in it that XLA compiles as one, and the oracle does not.

    Then XLA may round a fused multiply-add once, for instance.
    """
    return any(inner_programs(eqn) for eqn in jax.make_jaxpr(fun)(*args).eqns)


def check_jitted(harness: Any, x64: bool) -> None:
    """`jit(ranges(f))` returns what `jit(f)` does. XLA may fuse the two differently."""
    with jax.enable_x64(x64):
        args, expected = _run_plain(harness, jax.jit(harness.dyn_fun))
        outs, _ = jax.jit(jr.ranges(harness.dyn_fun))(*args)
        assert_same_outputs(outs, expected, rtol=1e-5)


def _run_plain(harness: Any, fun: Callable[..., Any]) -> tuple[list[Any], Any]:
    """A harness's arguments, and what plain JAX makes of them."""
    if not harness.filter(jax.default_backend()):
        raise NotInJax("the harness says so")
    args = harness.dyn_args_maker(np.random.RandomState(zlib.crc32(harness.fullname.encode())))
    try:
        return args, jax.block_until_ready(fun(*args))
    except Exception as error:
        raise NotInJax(f"{type(error).__name__} in plain JAX") from error


def assert_same_outputs(got: Any, expected: Any, rtol: float = 0.0) -> None:
    """The same structure, types and values; to the bit (all NaNs being equal) if rtol is 0."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert _kind(a) == _kind(b), f"got {_kind(a)}, expected {_kind(b)}"
        # A function that returns its argument returns numpy arrays for numpy arrays.
        assert isinstance(a, jax.Array) or not isinstance(b, jax.Array), f"got a {type(a)}"
        _assert_same_values(a, b, rtol)


def _kind(x: Any) -> tuple[Any, ...]:
    """Shape, dtype, weak type."""
    return jax.typeof(x), x.dtype


def _assert_same_values(got: Any, expected: Any, rtol: float) -> None:
    a, b = _numpy(got), _numpy(expected)
    if rtol and a.dtype.kind in "fc":
        np.testing.assert_allclose(a, b, rtol=max(rtol, 2 * jax.numpy.finfo(got.dtype).eps))
        return
    same = (_bits(a) == _bits(b)).all(axis=1)
    few = f"{a[~same][:3]}, expected {b[~same][:3]}"
    assert same.all(), f"{np.sum(~same)} of {same.size} numbers differ: got {few}"


def _numpy(x: Any) -> np.ndarray:
    """The numbers in an array, flat; complex ones are two each, narrow floats are float32."""
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    flat = np.asarray(x).ravel()
    if flat.dtype.kind == "c":
        return flat.view(flat.real.dtype)
    narrow = jax.dtypes.issubdtype(flat.dtype, np.floating) and flat.dtype.itemsize < 4
    return flat.astype(np.float32) if narrow else flat


def _bits(x: np.ndarray) -> np.ndarray:
    """A row of bytes for each element, the same one for all NaNs."""
    if x.dtype.kind == "f":
        x = np.where(np.isnan(x), np.array(np.nan, x.dtype), x)
    return x.view(np.uint8).reshape(x.size, x.itemsize)


# -- all of them ------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.harnesses")
    parser.add_argument("--x64", action="store_true", help="JAX's list with 64-bit types on")
    parser.add_argument("--jit", action="store_true", help="compare jit(ranges(f)) with jit(f)")
    parser.add_argument("name", nargs="?", default="", help="only cases whose name has this in it")
    options = parser.parse_args()
    warnings.simplefilter("error")
    started, outcomes = time.perf_counter(), collections.Counter()
    for harness in all_harnesses(options.x64):
        if options.name in harness.fullname:
            outcomes[_outcome(harness, check_jitted if options.jit else check, options.x64)] += 1
    seconds = time.perf_counter() - started
    print(f"jax {jax.__version__}, x64={options.x64}, jit={options.jit}: {seconds:.0f} s")
    for outcome, count in outcomes.most_common():
        print(f"{count:6} {outcome}")


def _outcome(harness: Any, check: Callable[[Any, bool], None], x64: bool) -> str:
    try:
        check(harness, x64)
    except NotInJax as reason:
        return f"not run: {reason}"
    except Exception as error:
        print(f"{harness.fullname}: {type(error).__name__}: {error}", flush=True)
        return "failed"
    return "passed"


if __name__ == "__main__":
    main()
