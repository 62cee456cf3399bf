"""Rounding to a number format, by numpy and by jax alike.

A float is rounded on its bits: they are an integer that grows with the magnitude, so rounding to
fewer mantissa bits is rounding that integer to a multiple of a power of two, a larger one for
what is subnormal in the format, and a carry into the exponent is right as it is. Casting to the
format's dtype and back would not do: XLA may drop such a pair of conversions, `reduce_precision`
flushes subnormals, and no backend has all of the dtypes. Arithmetic would flush subnormals.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges import keys

if TYPE_CHECKING:
    from jax_ranges.formats import Format

Codes = tuple[int, int]


def exponent_of(value: float) -> int:
    """floor(log2(value)) of a positive number, exactly."""
    return math.frexp(value)[1] - 1


def round_to(
    fmt: Format, x: Any, scale: Any = 1.0, zero_point: Any = 0, codes: Codes | None = None
) -> Any:
    """What x becomes; see `Format.round`. `codes`: fewer of them than a uniform format has."""
    xp = jnp if any(isinstance(a, jax.Array) for a in (x, scale, zero_point)) else np
    x = xp.asarray(x)
    dtype = _carrier(x.dtype, xp)
    with np.errstate(all="ignore"):
        values = _rounded(fmt, x.astype(dtype), scale, zero_point, codes, xp)
        # [()]: a scalar in, a scalar out, as numpy's functions do.
        return values.astype(x.dtype if keys.is_float(x.dtype) else dtype)[()]


def cast_to(fmt: Format, x: Any) -> Any:
    """What x becomes when it is converted; see `Format.cast`."""
    xp = jnp if isinstance(x, jax.Array) else np
    x = xp.asarray(x)
    dtype = _carrier(x.dtype, xp)
    word, stored, bias = _layout(dtype)
    alike = fmt.kind == "float" and fmt.has_inf and fmt.min_exponent == 1 - bias
    if xp is jnp and alike and fmt.mantissa_bits < stored:
        # Of bfloat16, whose exponents are float32's: nothing is flushed, and it is one operation.
        return lax.reduce_precision(
            x.astype(dtype), dtype.itemsize * 8 - 1 - stored, fmt.mantissa_bits
        ).astype(x.dtype)
    rounded = round_to(fmt, x)
    if fmt.kind != "float" or fmt.saturating:
        return rounded
    bits = _bits(x.astype(dtype), word, xp)
    beyond = (bits & word.type(np.iinfo(word).max)) > _magnitude(_last_inside(fmt, dtype), dtype)
    end = xp.where(bits < 0, dtype.type(-math.inf), dtype.type(math.inf))
    end = end if fmt.has_inf else dtype.type(math.nan)
    return xp.where(beyond & ~xp.isnan(x), end.astype(rounded.dtype), rounded)[()]


def _last_inside(fmt: Format, dtype: np.dtype) -> Any:
    """The largest number of a dtype that rounds to the format's largest number.

    Up to half a step beyond that, which is a tie: inside if the largest number is even.
    """
    step = math.ldexp(1.0, fmt.max_exponent - fmt.mantissa_bits)
    with np.errstate(over="ignore"):  # of a format as wide as the dtype
        tie = np.asarray(fmt.largest + step / 2).astype(dtype)
    return tie if int(fmt.largest / step) % 2 == 0 else np.nextafter(tie, dtype.type(0))


def _carrier(dtype: np.dtype, xp: Any) -> np.dtype:
    if not keys.is_float(dtype):
        return np.dtype(np.float64) if xp is np else jnp.asarray(0.0).dtype
    return keys.carrier_dtype(dtype)


def _rounded(fmt: Format, x: Any, scale: Any, zero_point: Any, codes: Codes | None, xp: Any) -> Any:
    if not fmt.uniform and not _is(zero_point, 0):
        raise ValueError(f"only integers and fixed point have a zero point, not {fmt.name}")
    if _is(scale, 1):  # not even divided: XLA flushes subnormals in arithmetic
        return _unscaled(fmt, x, zero_point, codes, xp)
    scale = xp.asarray(scale).astype(x.dtype)
    return _unscaled(fmt, x / scale, zero_point, codes, xp) * scale


def _is(value: Any, number: int) -> bool:
    return not isinstance(value, jax.Array) and bool(np.all(np.equal(value, number)))


def _unscaled(fmt: Format, y: Any, zero_point: Any, codes: Codes | None, xp: Any) -> Any:
    if fmt.element is not None:
        return _in_blocks(fmt, y, xp)
    if fmt.uniform:
        return _to_steps(fmt, y, zero_point, codes or fmt.codes, xp)
    return _to_float(fmt, y, xp)


# -- integers and fixed point -----------------------------------------------------------------


def _to_steps(fmt: Format, y: Any, zero_point: Any, codes: Codes, xp: Any) -> Any:
    step = y.dtype.type(fmt.step)
    zero_point = xp.asarray(zero_point).astype(y.dtype)
    y = xp.where(xp.isnan(y), y.dtype.type(0), y)
    least, largest = (y.dtype.type(code) - zero_point for code in codes)
    return xp.clip(xp.rint(y / step), least, largest) * step


# -- floats -----------------------------------------------------------------------------------


def _to_float(fmt: Format, y: Any, xp: Any) -> Any:
    word, stored, bias = _layout(y.dtype)
    if fmt.mantissa_bits >= stored:
        return y
    bits = _bits(y, word, xp)
    negative, magnitude = bits < 0, bits & word.type(np.iinfo(word).max)
    nan = magnitude > _magnitude(math.inf, y.dtype)
    clipped = _clipped(fmt, magnitude, negative, y.dtype, xp)
    rounded = _round_bits(fmt, clipped, word, stored, bias, xp)
    rounded = _clipped(fmt, rounded, negative, y.dtype, xp)  # of float8_e8m0fnu: not to zero
    value = _value(rounded, y.dtype, xp)
    value = xp.where(negative, -value, value) if fmt.signed else value
    return xp.where(nan, y.dtype.type(math.nan if fmt.has_nan else 0), value)


def _layout(dtype: np.dtype) -> tuple[np.dtype, int, int]:
    """Of float32 or float64: the integer of its size, its mantissa bits, its exponent's bias."""
    info = np.finfo(dtype)
    return np.dtype(f"int{info.bits}"), int(info.nmant), 1 - int(info.minexp)


def _clipped(fmt: Format, magnitude: Any, negative: Any, dtype: np.dtype, xp: Any) -> Any:
    """Comparisons of magnitudes as integers, which flush nothing."""
    ends = [(max(fmt.least, 0.0), fmt.largest), (max(-fmt.largest, 0.0), -fmt.least)]
    if not fmt.signed:
        ends[1] = (fmt.least, fmt.least)  # below all of its numbers, so the least of them
    (low, high), (other_low, other_high) = (
        [_magnitude(end, dtype) for end in pair] for pair in ends
    )
    return xp.clip(
        magnitude, xp.where(negative, other_low, low), xp.where(negative, other_high, high)
    )


def _round_bits(fmt: Format, bits: Any, word: np.dtype, stored: int, bias: int, xp: Any) -> Any:
    """Magnitudes rounded to the nearest number of the format, ties to even."""
    one = word.type(1)
    exponent = xp.maximum(bits >> stored, one) - bias
    missing = xp.maximum(word.type(fmt.min_exponent) - exponent, 0)
    shift = stored - fmt.mantissa_bits + missing
    kept = xp.minimum(shift, stored).astype(word)
    # Where no stored bit is kept, the last one that is kept is the implicit one.
    odd = xp.where(shift == stored, one, (bits >> kept) & one)
    nearest = ((bits + (one << (kept - one)) - one + odd) >> kept) << kept
    # Below the smallest subnormal there is no leading bit to round to: it or zero. Half of it
    # is a tie, and zero is even.
    smallest = _magnitude(fmt.smallest_subnormal, _FLOATS[word])
    half = _magnitude(fmt.smallest_subnormal / 2, _FLOATS[word])
    tiny = xp.where(bits > half, smallest, word.type(0))
    return xp.where(shift > stored, tiny, nearest)


_FLOATS = {np.dtype(f"int{n}"): np.dtype(f"float{n}") for n in (32, 64)}


def _magnitude(value: float, dtype: np.dtype) -> Any:
    word = _layout(dtype)[0]
    return np.asarray(value).astype(dtype).view(word)[()]


def _bits(y: Any, word: np.dtype, xp: Any) -> Any:
    return lax.bitcast_convert_type(y, word) if xp is jnp else np.asarray(y).view(word)


def _value(bits: Any, dtype: np.dtype, xp: Any) -> Any:
    return lax.bitcast_convert_type(bits, dtype) if xp is jnp else np.asarray(bits).view(dtype)


# -- blocks -----------------------------------------------------------------------------------


def _in_blocks(fmt: Format, y: Any, xp: Any) -> Any:
    """Each block of the last axis with its own scale, the last one padded with zeros."""
    assert fmt.block is not None and fmt.element is not None
    flat = y.reshape(*y.shape[:-1], -1) if y.ndim else y.reshape(1)
    *others, length = flat.shape
    count = -(-length // fmt.block)
    padding = [(0, 0)] * (flat.ndim - 1) + [(0, count * fmt.block - length)]
    blocks = xp.pad(flat, padding).reshape(*others, count, fmt.block)
    scale = _shared_scale(fmt.element, blocks, xp)
    rounded = _unscaled(fmt.element, blocks / scale, 0, None, xp) * scale
    return rounded.reshape(*others, count * fmt.block)[..., :length].reshape(y.shape)


def _shared_scale(element: Format, blocks: Any, xp: Any) -> Any:
    """2**(floor(log2(amax)) - the element's largest exponent), section 6.3 of the specification.

    Infinities and NaN do not count: they are for the elements to saturate or to keep.
    """
    word, stored, bias = _layout(blocks.dtype)
    magnitude = _bits(blocks, word, xp) & word.type(np.iinfo(word).max)
    finite = xp.where(magnitude < _magnitude(math.inf, blocks.dtype), magnitude, word.type(0))
    exponent = (xp.max(finite, -1, keepdims=True) >> stored) - bias - element.max_exponent
    # 2**-127, the least that float8_e8m0fnu has, is subnormal in float32: XLA divides by zero.
    exponent = xp.clip(exponent, -126, 127)
    return _value(((exponent + bias) << stored).astype(word), blocks.dtype, xp)
