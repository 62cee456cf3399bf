"""Order-preserving integer keys: every number as an int32 or int64 that compares the same way.

A float's bits, read as an integer, are ordered like the floats for positive numbers and the
other way round for negative ones; flipping the latter's bits puts all in order:

    -inf < ... < -1.0 < ... < -0.0 < 0.0 < ... < 1.0 < ... < inf

So the extrema of floats are those of their keys. Three things speak for taking them there:

- it is exact for every value, where the floating-point min and max of a backend that flushes
  subnormals (XLA's CPU backend does) call 1e-40 zero;
- a NaN is an integer like others, with a magnitude above infinity's: it is masked and found by
  comparisons, and no backend's min can lose it (XLA's vectorised one on CPU does);
- it is fast: integer min and max have no special cases, so a single pass over the data that
  takes both, and whether there is a NaN, runs at the speed of vector instructions.

Floats of 16 bits have keys of 16 bits while they are reduced. Smaller floats go by float32,
which holds them exactly. Unsigned integers are shifted to begin at the least signed one.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

_WORDS = {2: np.dtype(np.int16), 4: np.dtype(np.int32), 8: np.dtype(np.int64)}
_WIDE_FLOATS = tuple(map(np.dtype, (np.float32, np.float64, np.float16, jnp.bfloat16)))

_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


def is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def carrier_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which extrema of real values of `dtype` are read.

    float32 for floats of up to 32 bits, float64 for that; integers and booleans as they are.
    """
    if not is_float(dtype):
        return np.dtype(dtype)
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def real_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of the parts of a complex number; other dtypes as they are."""
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return np.dtype(dtype)
    return np.dtype(np.float64 if dtype == np.complex128 else np.float32)


def common_dtype(a: np.dtype, b: np.dtype) -> np.dtype:
    """A dtype of real numbers that holds every value of both; of 64-bit integers and floats (or
    of int64 and uint64) float64, which holds them to 53 bits.
    """
    a, b = real_dtype(a), real_dtype(b)
    if a == b:
        return a
    if is_float(a) and is_float(b):
        return np.dtype(np.float64 if np.float64 in (a, b) else np.float32)
    if is_float(a) or is_float(b):
        number, other = (a, b) if is_float(b) else (b, a)
        narrow = number.itemsize <= 2
        return np.dtype(np.float32 if narrow and other != np.float64 else np.float64)
    ends = [int(end) for dtype in (a, b) for end in limits(dtype)]
    for dtype in map(np.dtype, _INTEGERS):
        info = np.iinfo(dtype)
        if info.min <= min(ends) and max(ends) <= info.max:
            return dtype
    return np.dtype(np.float64)


def limits(dtype: np.dtype) -> tuple[Any, Any]:
    """The least and the largest value of a dtype, infinities included."""
    if is_float(dtype):
        return -np.inf, np.inf
    if dtype == np.dtype(bool):
        return False, True
    info = jnp.iinfo(dtype)
    return int(info.min), int(info.max)


def key_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of keys of real values of `dtype`, once reduced: int32 or int64."""
    return np.dtype(np.int64 if np.dtype(dtype).itemsize == 8 else np.int32)


def float_word(dtype: np.dtype) -> tuple[np.dtype, np.dtype]:
    """The float dtype whose bits are taken for values of `dtype`, and the integer they make."""
    carrier = np.dtype(dtype) if dtype in _WIDE_FLOATS else np.dtype(np.float32)
    return carrier, _WORDS[carrier.itemsize]


def infinity(dtype: np.dtype) -> int:
    """The key of +inf, which is its magnitude too."""
    carrier, word = float_word(dtype)
    return int(np.array(np.inf, carrier).view(word))


def flip(bits: Any, word: np.dtype) -> Any:
    """From a float's bits to its key, and back: all bits but the sign of negative numbers."""
    width = word.type(8 * word.itemsize - 1)
    return bits ^ ((bits >> width) & word.type(np.iinfo(word).max))


def integer_key(x: Any, xp: Any = jnp) -> Any:
    """The keys of integers or booleans (traced, or of numpy with `xp=np`)."""
    dtype, word = np.dtype(x.dtype), key_dtype(x.dtype)
    if dtype in (np.dtype(np.uint32), np.dtype(np.uint64)):
        return _bits(x, word, xp) ^ word.type(np.iinfo(word).min)
    return x.astype(word)


def float_bits(x: Any, xp: Any = jnp) -> Any:
    """The bits of floats, as integers of their width (see `float_word`)."""
    carrier, word = float_word(x.dtype)
    return _bits(x.astype(carrier), word, xp)


def key_of(x: Any, xp: Any = jnp) -> Any:
    """The keys of real values that are not NaN, as int32 or int64."""
    if not is_float(x.dtype):
        return integer_key(x, xp)
    _, word = float_word(x.dtype)
    return flip(float_bits(x, xp), word).astype(key_dtype(x.dtype))


def value_of(key: Any, dtype: np.dtype, xp: Any = np) -> Any:
    """The values that keys stand for, in the carrier dtype of `dtype`."""
    if is_float(dtype):
        carrier, word = float_word(dtype)
        return _bits(flip(key.astype(word), word), carrier, xp).astype(carrier_dtype(dtype))
    if dtype in (np.dtype(np.uint32), np.dtype(np.uint64)):
        word = key_dtype(dtype)
        return _bits(key ^ word.type(np.iinfo(word).min), np.dtype(dtype), xp)
    return key.astype(dtype)


def _bits(x: Any, dtype: np.dtype, xp: Any) -> Any:
    return x.view(dtype) if xp is np else lax.bitcast_convert_type(x, dtype)
