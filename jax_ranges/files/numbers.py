"""Numbers and dtypes in files: from a number to its shortest text, and back with suspicion."""

from __future__ import annotations

import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_ranges import keys
from jax_ranges.files.reading import plainly, quoted

FLT_MAX = float(np.finfo(np.float32).max)

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf", re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?[0-9]+")


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


def float32_text(value: bool | int | float) -> str:
    """The same for the nearest finite float32, as C++ prints it and `std::istream >>` reads it.

    Example:
      >>> float32_text(2), float32_text(0.1), float32_text(float("-inf"))
      ('2', '0.1', '-3.4028235e+38')
    """
    return number_text(nearest_float32(value), np.dtype(np.float32)).removesuffix(".0")


def nearest_float32(value: bool | int | float) -> float:
    """The finite float32 that is nearest, as a Python float."""
    with np.errstate(over="ignore"):
        return float(np.clip(np.float32(value), -FLT_MAX, FLT_MAX))


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
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{plainly(value)} is no {dtype}") from error


def extremes(least: str, most: str, dtype: np.dtype) -> tuple[Any, Any]:
    """A min and a max from their texts; ValueError if they are none or the wrong way round."""
    lo, hi = number(least, dtype), number(most, dtype)
    if lo > hi:
        raise ValueError(f"the min {plainly(least)} is above the max {plainly(most)}")
    return lo, hi


def index_of(text: str, what: str) -> int:
    """A number from 0 on; ValueError if it is none."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ValueError(f"{what} is {quoted(text)}, not a number from 0 on")
    return int(text)


def size_text(size: int | str) -> str:
    """An axis' size as a text: a symbolic one, which may have an x in it, in brackets."""
    return str(size) if isinstance(size, int) else f"[{size}]"


def shape_of(text: str) -> tuple[int | str, ...]:
    """The shape of such texts with an x between them; ValueError if it is none."""
    if not text:
        return ()
    sizes = re.findall(r"\[[^\]]*\]|[^x]+", text)
    if "x".join(sizes) != text:
        raise ValueError(f"{quoted(text)} is no shape")
    return tuple(
        symbol(n[1:-1]) if n.startswith("[") else index_of(n, "a dimension") for n in sizes
    )


def symbol(text: str) -> str:
    """A symbolic size, `n` or `2*n + 1`; ValueError if it is none."""
    if not re.fullmatch(r"(?=.*[A-Za-z_])[\w+\-*^(), ]{1,200}", text, re.ASCII):
        raise ValueError(f"{quoted(text)} is no size of an axis")
    return text


def dtype_of(name: str) -> np.dtype:
    """The dtype of that name; ValueError if there is none that a site can have."""
    # Not all that numpy takes: it reads a small language, with errors of its own.
    try:
        dtype = jnp.dtype(name) if re.fullmatch("[a-z0-9_]{1,30}", name) else None
    except TypeError:
        dtype = None
    if dtype is None or str(dtype) != name or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise ValueError(f"{plainly(name)} is no dtype")
    if not (jnp.issubdtype(dtype, jnp.number) or dtype == np.dtype(bool)):
        raise ValueError(f"{name} is no dtype of numbers")
    return dtype


def _carrier(dtype: np.dtype) -> Any:
    return keys.carrier_dtype(keys.real_dtype(dtype)).type


def _float(value: Any, dtype: np.dtype) -> float:
    is_number = _NUMBER.fullmatch(value) if isinstance(value, str) else type(value) in (int, float)
    if not is_number:
        raise ValueError
    exact, carrier = float(value), _carrier(dtype)
    if math.isinf(exact) and isinstance(value, str) and "i" not in value.lower():  # 1e400
        raise ValueError
    with np.errstate(all="ignore"):
        carried = carrier(exact)
        held = carried.astype(dtype).astype(carrier)
    if np.isnan(held) or np.isinf(held) != np.isinf(exact):  # NaN, or beyond what dtype holds
        raise ValueError
    return carried.item()


def _integer(value: Any, dtype: np.dtype) -> int | bool:
    least, most = keys.limits(dtype)
    is_integer = _INTEGER.fullmatch(value) if isinstance(value, str) else type(value) is int
    if not (is_integer or (type(value) is bool and type(least) is bool)):
        raise ValueError
    if not least <= int(value) <= most:
        raise ValueError
    return type(least)(int(value))
