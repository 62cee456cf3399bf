"""Which equations can make a NaN or an infinity, and how that is told from passing one on.

A birth is a NaN where no operand has one, or an infinity that comes from no infinity and no NaN.
Attention masks make -inf a part of ordinary data, so a flag for each array would be too coarse:
where elements of the output come from elements of the operands, these are compared one by one.
Everything else, an unknown primitive included, goes by whole arrays.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges.derive import MOVEMENT
from jax_ranges.keys import is_float, real_dtype


class Check(enum.Enum):
    """How births are told at an output."""

    NEVER = "it holds what its operands hold, or numbers"
    EACH = "element by element"
    WHOLE = "by whether anything in an operand is NaN or infinite"
    ALL = "it has no operands: whatever it holds was not there before"


# Of finite operands a finite number, of NaN a NaN; an infinity only where an operand has one.
_NEVER = frozenset(
    {
        *MOVEMENT,
        *("abs", "all_gather", "all_to_all", "atan", "clamp", "collapse", "complex", "concatenate"),
        *("conj", "const", "cummax", "cummin", "dynamic_slice", "dynamic_update_slice", "erf"),
        *("erfc", "ceil", "floor", "imag", "iota", "logistic", "max", "min", "neg", "pad"),
        *("pbroadcast", "pmax", "pmin", "ppermute", "real", "reduce_max", "reduce_min"),
        *("reduce_window_max", "reduce_window_min", "round", "scatter", "scatter_max"),
        *("scatter_min", "select_and_gather_add", "select_n", "sign", "slice", "split", "tanh"),
        *("tie_in", "tile", "top_k"),
    }
)

_EACH = frozenset(
    {
        *("acos", "acosh", "add", "add_any", "asin", "asinh", "atan2", "atanh", "bessel_i0e"),
        *("bessel_i1e", "bitcast_convert_type", "cbrt", "convert_element_type", "cos", "cosh"),
        *("digamma", "div", "erf_inv", "exp", "exp2", "expm1", "igamma", "igamma_grad_a"),
        *("igammac", "integer_pow", "lgamma", "log", "log1p", "mul", "nextafter", "polygamma"),
        *("pow", "random_gamma_grad", "reduce_precision", "regularized_incomplete_beta", "rem"),
        *("rsqrt", "sin", "sinh", "sqrt", "square", "sub", "tan", "zeta"),
    }
)


def check_of(primitive: str, params: Mapping[str, Any], operands: Sequence[Any], out: Any) -> Check:
    """How births are told at an output like `out`; of operands and it only types matter."""
    if not has_specials(out.dtype):
        return Check.NEVER
    if primitive == "input":
        return Check.ALL
    if primitive in _NEVER and not jnp.issubdtype(out.dtype, jnp.complexfloating):
        return Check.NEVER
    if primitive in _LESS_OFTEN and _LESS_OFTEN[primitive](params, operands, out):
        return Check.NEVER
    shapes = {np.shape(x) for x in operands} - {()}
    return Check.EACH if primitive in _EACH and shapes <= {out.shape} else Check.WHOLE


def has_specials(dtype: Any) -> bool:
    """Whether it is a floating-point or complex dtype."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return False
    return is_float(dtype) or bool(jnp.issubdtype(dtype, jnp.complexfloating))


def _holds_all(params: Mapping[str, Any], operands: Sequence[Any], out: Any) -> bool:
    """Converting to a dtype that reaches as far as the operand's."""
    del params
    return _largest(out.dtype) >= _largest(jnp.result_type(operands[0]))


def _largest(dtype: Any) -> float:
    if has_specials(dtype):
        return float(jnp.finfo(real_dtype(np.dtype(dtype))).max)
    return 1.0 if dtype == np.dtype(bool) else float(jnp.iinfo(dtype).max)


def _fills_nothing(params: Mapping[str, Any], operands: Sequence[Any], out: Any) -> bool:
    """A gather that puts no NaN where an index is out of bounds."""
    del operands, out
    return params.get("mode") is not lax.GatherScatterMode.FILL_OR_DROP


_LESS_OFTEN = {"convert_element_type": _holds_all, "gather": _fills_nothing}
