"""What is known before a program runs: arrays that it captured, and what becomes of them.

All of it is computed by numpy. A JAX operation would be a part of whatever the caller traces, be
placed in the caller's mesh, be of the types that the caller's settings give it, and move data that
a guard may forbid to move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jax_ranges import compat
from jax_ranges.derive import converts_in_order
from jax_ranges.keys import carrier_dtype

Params = Mapping[str, Any]


def is_readable(array: Any) -> bool:
    """Whether this process can read an array's values now."""
    if compat.is_traced(array):
        return False
    if not isinstance(array, jax.Array):
        return True
    return array.is_fully_addressable or array.is_fully_replicated


def host_array(array: Any, dtype: Any) -> np.ndarray:
    """A readable array of a program in which it has this dtype (a float64 may be float32 there)."""
    with jax.transfer_guard("allow"):  # which is about the user's own transfers
        return np.asarray(np.asarray(array), dtype)


def folded(primitive: str, params: Params, operands: Sequence[Any], out: Any) -> Any:
    """What an equation makes of known arrays, of the aval `out`; None if numpy does not tell.

    Of data movement only, of negation, and of conversions that round as XLA does.
    """
    fold = _FOLDS.get(primitive)
    return None if fold is None else fold(params, operands, out)


Fold = Callable[[Params, Sequence[np.ndarray], Any], Any]


def _reshaped(params: Params, operands: Sequence[np.ndarray], out: Any) -> Any:
    return operands[0].reshape(out.shape) if params.get("dimensions") is None else None


def _broadcast(params: Params, operands: Sequence[np.ndarray], out: Any) -> Any:
    shape = [1] * len(out.shape)
    for axis, size in zip(params["broadcast_dimensions"], operands[0].shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(operands[0].reshape(shape), out.shape)


def _sliced(params: Params, operands: Sequence[np.ndarray], out: Any) -> Any:
    start, limit = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(out.shape)
    return operands[0][tuple(map(slice, start, limit, strides))]


def _converted(params: Params, operands: Sequence[np.ndarray], out: Any) -> Any:
    del params
    (x,) = operands
    if x.dtype != out.dtype and not converts_in_order(x.dtype, np.dtype(out.dtype)):
        return None
    with np.errstate(all="ignore"):
        return x.astype(carrier_dtype(x.dtype)).astype(out.dtype)


_FOLDS: dict[str, Fold] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda params, xs, out: np.concatenate(xs, params["dimension"]),
    "convert_element_type": _converted,
    "expand_dims": _reshaped,
    "neg": lambda params, xs, out: -xs[0],
    "reshape": _reshaped,
    "rev": lambda params, xs, out: np.flip(xs[0], params["dimensions"]),
    "slice": _sliced,
    "squeeze": _reshaped,
    "stop_gradient": lambda params, xs, out: xs[0],
    "transpose": lambda params, xs, out: xs[0].transpose(params["permutation"]),
}
