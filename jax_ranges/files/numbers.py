"""Numbers and dtypes in files: from a number to its shortest text, and back with suspicion."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_ranges import keys


def number_text(value: bool | int | float, dtype: np.dtype) -> str:
    """The shortest text that is read back as the same number; booleans are 0 and 1.

    Example:
      >>> tenth = float(np.float32(0.1))  # 0.10000000149011612
      >>> number_text(tenth, np.dtype("float32")), number_text(tenth, np.dtype("float64"))
      ('0.1', '0.10000000149011612')
    """
    if not isinstance(value, float):
        return str(int(value))
    carrier = _carrier(dtype)
    text = str(carrier(value))
    # Most programs, and `number`, read a float64 and round that to a float32. Of 7.038531e-26,
    # the shortest text of a certain float32, that makes its neighbour.
    return text if carrier(float(text)) == value else repr(value)


def number(value: Any, dtype: np.dtype) -> bool | int | float:
    """A number of `dtype` from a Python number or its text; ValueError if it is none.

    Example:
      >>> number("0.5", np.dtype("float16")), number("-inf", np.dtype("float32"))
      (0.5, -inf)
      >>> number(300, np.dtype("int8"))
      Traceback (most recent call last):
      ...
      ValueError: 300 is no int8
    """
    dtype = keys.real_dtype(dtype)
    try:
        return _float(value, dtype) if keys.is_float(dtype) else _integer(value, dtype)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{value} is no {dtype}") from error


def extremes(least: str, most: str, dtype: np.dtype) -> tuple[Any, Any]:
    """A min and a max from their texts; ValueError if they are none or the wrong way round."""
    lo, hi = number(least, dtype), number(most, dtype)
    if lo > hi:
        raise ValueError(f"the min {least} is above the max {most}")
    return lo, hi


def dtype_of(name: Any) -> np.dtype:
    """The dtype of that name; ValueError if there is none that a site can have."""
    try:
        dtype = jnp.dtype(name)
    except TypeError as error:
        raise ValueError(f"{name} is no dtype") from error
    if not (jnp.issubdtype(dtype, jnp.number) or dtype == np.dtype(bool)):
        raise ValueError(f"{name} is no dtype of numbers")
    return dtype


def _carrier(dtype: np.dtype) -> Any:
    return keys.carrier_dtype(keys.real_dtype(dtype)).type


def _float(value: Any, dtype: np.dtype) -> float:
    exact, carrier = float(value), _carrier(dtype)
    with np.errstate(all="ignore"):
        carried = carrier(exact)
        held = carried.astype(dtype).astype(carrier)
    if np.isnan(held) or np.isinf(held) != np.isinf(exact):  # NaN, or beyond what dtype holds
        raise ValueError
    return carried.item()


def _integer(value: Any, dtype: np.dtype) -> int | bool:
    least, most = keys.limits(dtype)
    if isinstance(value, float) or not least <= int(value) <= most:
        raise ValueError
    return type(least)(int(value))
