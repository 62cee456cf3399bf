"""What statistics read off the bits of numbers: exact for every value, subnormals included.

XLA's CPU backend, and others, take subnormals for zero in arithmetic and in comparisons; as
integers they are what they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges import keys


class Float(NamedTuple):
    """The layout of a float's bits, in a signed integer of its width."""

    dtype: np.dtype
    word: np.dtype
    fraction: int  # bits of the significand that are stored
    bias: int

    @property
    def infinity(self) -> int:
        """The bits of +inf."""
        return keys.infinity(self.dtype)

    @property
    def lowest(self) -> int:
        """The exponent of the smallest subnormal."""
        return 1 - self.bias - self.fraction

    @property
    def exponents(self) -> int:
        """How many values the exponents of finite numbers have."""
        return self.bias + 1 - self.lowest


SINGLE = Float(np.dtype(np.float32), np.dtype(np.int32), 23, 127)
DOUBLE = Float(np.dtype(np.float64), np.dtype(np.int64), 52, 1023)


def float_of(dtype: Any) -> Float:
    """The float in which a statistic treats numbers of this dtype: float32 or, of 64 bits, float64.

    Integers of 64 bits are treated in float64 too.
    """
    return DOUBLE if keys.real_dtype(np.dtype(dtype)).itemsize == 8 else SINGLE


def real_parts(value: jax.Array) -> list[jax.Array]:
    """The value, or the two parts of a complex one."""
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        return [value.real, value.imag]
    return [value]


def bits_of(x: jax.Array) -> jax.Array:
    """The bits of floats, as those of the float32 or float64 of the same value."""
    if x.dtype == jnp.bfloat16:  # not converted: that may flush subnormals
        return keys.float_bits(x).astype(SINGLE.word) << 16
    kind = float_of(x.dtype)
    return lax.bitcast_convert_type(x.astype(kind.dtype), kind.word)


def magnitude_of(bits: jax.Array) -> jax.Array:
    """The bits without the sign."""
    return bits & np.iinfo(bits.dtype).max


def sign_and_magnitude(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of integers or booleans: whether they are negative, and |x|, unsigned."""
    wide = np.dtype(x.dtype).itemsize == 8
    unsigned = np.dtype(np.uint64 if wide else np.uint32)
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger) or x.dtype == np.dtype(bool):
        return jnp.zeros(x.shape, bool), x.astype(unsigned)
    signed = x.astype(np.int64 if wide else np.int32)
    negative = signed < 0
    # Negated as unsigned numbers, because the least integer has no negative of its own.
    magnitude = lax.bitcast_convert_type(signed, unsigned)
    return negative, jnp.where(negative, ~magnitude + unsigned.type(1), magnitude)


def floor_log2(magnitude: jax.Array) -> jax.Array:
    """Of positive integers, as an int32; -1 of zero."""
    width = 8 * np.dtype(magnitude.dtype).itemsize - 1
    return width - lax.clz(magnitude).astype(np.int32)


def least_exponent(kind: Float) -> int:
    """The least to scale by: its negative is that of a normal number, with room to spare."""
    return -100 if kind is SINGLE else -1000


def exponent_above(most: jax.Array, kind: Float) -> jax.Array:
    """Of the power of two not below a magnitude (its bits), as far as that can be divided by."""
    up = (most + kind.word.type((1 << kind.fraction) - 1)) >> kind.fraction
    return jnp.clip(up.astype(np.int32) - kind.bias, least_exponent(kind), kind.bias - 1)


def power_of_two(exponent: Any, kind: Float, xp: Any = jnp) -> Any:
    """2**exponent in a float dtype; for exponents of normal numbers, others are clamped."""
    exponent = xp.clip(exponent, 1 - kind.bias, kind.bias).astype(kind.word)
    bits = (exponent + kind.word.type(kind.bias)) << kind.word.type(kind.fraction)
    return bits.view(kind.dtype) if xp is np else lax.bitcast_convert_type(bits, kind.dtype)
