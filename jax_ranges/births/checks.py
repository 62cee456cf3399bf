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

from jax_ranges.computations import name_of, windows_reach
from jax_ranges.derive import MOVEMENT
from jax_ranges.formats import format_of
from jax_ranges.keys import is_float, real_dtype


class Check(enum.Enum):
    """How births are told at an output."""

    NEVER = "it holds what its operands hold, or numbers"
    EACH = "element by element"
    WHOLE = "by whether anything in an operand is NaN or infinite"
    ALL = "it has no operands: whatever it holds was not there before"


# What operands hold, all of it or some: no operand has an infinity or a NaN, no result has.
_HELD = frozenset(
    {
        *MOVEMENT,
        *("all_gather", "all_to_all", "collapse", "concatenate", "conj", "const"),
        *("convert_element_type", "dynamic_slice", "dynamic_update_slice", "gather", "imag"),
        *("iota", "pad", "pbroadcast", "ppermute", "real", "scatter", "select_n", "slice"),
        *("split", "tie_in", "tile", "top_k"),
    }
)

# Of finite operands a finite number, in arithmetic that is not of small floats: these have no
# infinity to begin an extremum with, and some not the next whole number.
_FINITE = frozenset(
    {
        *("abs", "atan", "ceil", "clamp", "cummax", "cummin", "erf", "erfc", "floor", "logistic"),
        *("max", "min", "neg", "pmax", "pmin", "reduce_max", "reduce_min", "reduce_window_max"),
        *("reduce_window_min", "round", "scatter-max", "scatter-min", "sign", "tanh"),
    }
)

_WIDE = tuple(map(np.dtype, (np.float16, jnp.bfloat16, np.float32, np.float64)))

_EACH = frozenset(
    {
        *("abs", "atan", "ceil", "clamp", "erf", "erfc", "floor", "logistic", "max", "min"),
        *("neg", "round", "sign", "tanh"),
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
    kind = name_of(primitive, params)
    if _makes_nothing(kind, params, operands, out):
        return Check.NEVER
    shapes = {np.shape(x) for x in operands} - {()}
    return Check.EACH if kind in _EACH and shapes <= {out.shape} else Check.WHOLE


def _makes_nothing(kind: str, params: Mapping[str, Any], operands: Sequence[Any], out: Any) -> bool:
    if kind in _IF and not _IF[kind](params, operands, out):
        return False
    if kind in _HELD:
        return not jnp.issubdtype(out.dtype, jnp.complexfloating)
    floats = [dtype for dtype in map(_dtype, (*operands, out)) if has_specials(dtype)]
    return kind in _FINITE and all(dtype in _WIDE for dtype in floats)


def _dtype(x: Any) -> Any:
    return x.dtype if hasattr(x, "dtype") else jnp.result_type(x)


def has_specials(dtype: Any) -> bool:
    """Whether it is a floating-point or complex dtype."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return False
    return is_float(dtype) or bool(jnp.issubdtype(dtype, jnp.complexfloating))


def _holds_all(params: Mapping[str, Any], operands: Sequence[Any], out: Any) -> bool:
    """Converting to a dtype that reaches as far, and has infinities if the operand's has."""
    del params
    to, of = format_of(real_dtype(out.dtype)), _dtype(operands[0])
    if of in (np.dtype(bool), jax.dtypes.float0):  # which holds zeros
        return to.least <= 0
    source = format_of(real_dtype(np.dtype(of)))
    inside = to.least <= source.least and source.largest <= to.largest
    return inside and (to.has_inf or not source.has_inf)


def _fills_nothing(params: Mapping[str, Any], operands: Sequence[Any], out: Any) -> bool:
    """A gather that puts no NaN where an index is out of bounds."""
    del operands, out
    return params.get("mode") is not lax.GatherScatterMode.FILL_OR_DROP


def _ends_inside(params: Mapping[str, Any], operands: Sequence[Any], out: Any) -> bool:
    """Numbers from 0 on, of which the last is one of the dtype."""
    del operands
    size = params["shape"][params["dimension"]]
    return isinstance(size, int) and size - 1 <= format_of(real_dtype(out.dtype)).largest


def _has_elements(params: Mapping[str, Any], operands: Sequence[Any], out: Any) -> bool:
    """The largest of nothing is -inf."""
    del params, out
    return 0 not in np.shape(operands[0])


def _has_elements_in_windows(params: Mapping[str, Any], operands: Sequence[Any], out: Any) -> bool:
    del operands, out
    return windows_reach(params)


_IF = {
    "convert_element_type": _holds_all,
    "gather": _fills_nothing,
    "iota": _ends_inside,
    "reduce_max": _has_elements,
    "reduce_min": _has_elements,
    "reduce_window_max": _has_elements_in_windows,
    "reduce_window_min": _has_elements_in_windows,
}
