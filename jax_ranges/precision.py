"""Equations computed in another float dtype than the program's own.

A program says in which dtype it computes at two places: in its values, and in the parameters of
its equations (`new_dtype`, `preferred_element_type`, ...). Both are replaced. Where that cannot
be, because an equation holds a program or means the bits of a dtype, or because nobody knows it,
it computes in its own dtypes, and its results are converted.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive, primitives

from jax_ranges import compat, keys
from jax_ranges.computations import holds_computation
from jax_ranges.plan import is_measurable

FIXED = frozenset({"bitcast_convert_type", "custom_call", "ffi_call", "pure_callback"})
"""Known primitives whose types are their own."""

HIGHEST = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


def counterpart(dtype: Any, real: np.dtype) -> Any:
    """What a dtype is replaced with where real floats are to be of dtype `real`."""
    if not isinstance(dtype, np.dtype):
        return dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.dtype(np.complex128 if real == np.float64 else np.complex64)
    return real if keys.is_float(dtype) else dtype


def in_dtype(value: Any, aval: Any, real: np.dtype) -> Any:
    """A value of this type, or of its counterpart, as one of the counterpart."""
    return _converted(value, counterpart(aval.dtype, real)) if is_measurable(aval) else value


def in_own_dtype(value: Any, aval: Any) -> Any:
    """A value as one of the type that it has in the program."""
    return _converted(value, aval.dtype) if is_measurable(aval) else value


def _converted(value: Any, dtype: Any) -> Any:
    if getattr(value, "dtype", None) == dtype:
        return value
    return lax.convert_element_type(value, dtype)


def bind_in(eqn: Any, values: Sequence[Any], real: np.dtype) -> list[Any]:
    """The results of an equation computed in a float dtype, of its counterparts' types.

    Matrix products and convolutions have their full precision: by default that of float32 is
    lower on GPU and TPU.
    """
    if _keeps_its_types(eqn):
        own = [in_own_dtype(x, atom.aval) for x, atom in zip(values, eqn.invars, strict=True)]
        outs = compat.bind(eqn, own)
    else:
        operands = [
            in_dtype(x, atom.aval, real) for x, atom in zip(values, eqn.invars, strict=True)
        ]
        params = {name: counterpart(value, real) for name, value in eqn.params.items()}
        if "precision" in params:
            params["precision"] = HIGHEST
        outs = compat.bind(eqn.replace(params=params), operands)
    return [in_dtype(x, var.aval, real) for x, var in zip(outs, eqn.outvars, strict=True)]


def _keeps_its_types(eqn: Any) -> bool:
    name = eqn.primitive.name
    return name not in _known() or name in FIXED or holds_computation(eqn.params)


@functools.cache
def _known() -> frozenset[str]:
    """The names of JAX's own primitives."""
    return frozenset(p.name for p in vars(primitives).values() if isinstance(p, Primitive))
