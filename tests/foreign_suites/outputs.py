"""Whether what was measured can be true: ranges by themselves, and beside a function's output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jax_ranges as jr

# Equations of one inner program whose outputs are the program's.
CALLS = frozenset(
    {"jit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "checkpoint"}
    | {"remat2", "composite", "eval_jaxpr"}
)

# Where XLA computes a value twice, for the output and for its range, it may round differently.
LAST_BITS = 16


@dataclass(frozen=True)
class Exit:
    """The site that makes an output, and whether all that it makes is in the output."""

    site: str
    whole: bool


def exits_of(frame: Any) -> list[Exit | None]:
    """For each output of a planned program the site that makes it, if one does."""
    return [_exit_of(frame, variable) for variable in frame.jaxpr.outvars]


def _exit_of(frame: Any, variable: Any) -> Exit | None:
    for equation in frame.equations:
        for i, made in enumerate(equation.eqn.outvars):
            if made is variable:
                return _made_by(equation, i)
    return None


def _made_by(equation: Any, i: int) -> Exit | None:
    if i in equation.sites:
        return Exit(equation.sites[i], True)
    name = equation.eqn.primitive.name
    if len(equation.frames) != 1 or name not in CALLS | {"scan"}:
        return None
    (inner,) = equation.frames
    found = _exit_of(inner, inner.jaxpr.outvars[i]) if i < len(inner.jaxpr.outvars) else None
    if found is None or name in CALLS:
        return found
    # Of a scan's iterations the output may hold the last only.
    return Exit(found.site, False) if equation.eqn.params["length"] else None


def check_ranges(ranges: Mapping[str, jr.Range]) -> None:
    """AssertionError if one of them is no range: a NaN as an end, or min > max."""
    for name, seen in ranges.items():
        low, high = np.asarray(seen.min), np.asarray(seen.max)
        assert not _is_nan(low).any() and not _is_nan(high).any(), f"{name}: {seen} ends in NaN"
        least, largest = _identity(low.dtype)
        wrong = (low > high) & ~((low == least) & (high == largest))
        assert not wrong.any(), f"{name}: {seen} is neither observed nor the identity"


def _identity(dtype: np.dtype) -> tuple[Any, Any]:
    if dtype == np.bool_:
        return True, False
    if jnp.issubdtype(dtype, np.integer):
        info = jnp.iinfo(dtype)
        return info.max, info.min
    return np.inf, -np.inf


def check_outputs(ranges: jr.Ranges, exits: list[Exit | None], out: Any) -> None:
    """AssertionError if an output holds what the range of the site that makes it does not."""
    leaves = [x for x in jax.tree.leaves(out) if isinstance(x, jax.Array)]
    if len(leaves) != len(exits):  # it wrote into its arguments
        return
    for leaf, made in zip(leaves, exits, strict=True):
        if made is not None and made.site in ranges and is_readable(leaf):
            _check_output(numbers_in(leaf), ranges[made.site], made)


def _check_output(values: np.ndarray, seen: jr.Range, made: Exit) -> None:
    is_nan = _is_nan(values)
    numbers, has_nan = values[~is_nan], bool(is_nan.any())
    what = f"{made.site}: the range {seen} of the output {values.ravel()[:8]}"
    nan = bool(np.any(seen.nan))
    assert nan or not has_nan, f"{what} knows of no NaN"
    assert has_nan or not nan or not made.whole, f"{what} knows of a NaN"
    if not numbers.size:
        return
    least, largest = numbers.min(), numbers.max()
    low, high = np.min(seen.min), np.max(seen.max)
    assert _at_most(low, least) and _at_most(largest, high), f"{what} leaves some out"
    if made.whole:
        assert _at_most(least, low) and _at_most(high, largest), f"{what} is too wide"


def _at_most(a: Any, b: Any) -> bool:
    """Whether a <= b, but for the last bits of a float."""
    if np.asarray(a).dtype.kind in "biu":
        return bool(a <= b)
    eps = LAST_BITS * float(jnp.finfo(np.asarray(b).dtype).eps)
    a, b = float(a), float(b)
    return a <= b or a - b <= eps * max(abs(a), abs(b)) + 1e-37


def is_readable(value: Any) -> bool:
    """Whether it is an array of numbers that this process holds, and that is not traced."""
    if not isinstance(value, jax.Array) or isinstance(value, jax.core.Tracer):
        return False
    is_number = jnp.issubdtype(value.dtype, np.number) or value.dtype == np.bool_
    return is_number and value.is_fully_addressable and not value.is_deleted()


def numbers_in(value: Any) -> np.ndarray:
    """The numbers of an array; real and imaginary parts of a complex one; narrow ones widened."""
    x = np.asarray(value).ravel()
    if x.dtype.kind == "c":
        return x.view(x.real.dtype)
    if x.dtype.kind in "biuf" and x.dtype.itemsize > 1:
        return x
    return x.astype(np.float32 if jnp.issubdtype(x.dtype, np.inexact) else np.int32)


def _is_nan(x: np.ndarray) -> np.ndarray:
    return np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)


def nonfinite_leaves(tree: Any) -> Iterator[Any]:
    """The arrays in a pytree, and Python's floats, that hold a NaN or an infinity."""
    for leaf in jax.tree.leaves(tree):
        array = jnp.asarray(leaf) if isinstance(leaf, (float, complex, np.ndarray)) else leaf
        is_float = is_readable(array) and jnp.issubdtype(array.dtype, np.inexact)
        if is_float and not np.isfinite(numbers_in(array)).all():
            yield leaf
