"""`QuantizedArray`: a value as the codes of a number format, with what makes numbers of them.

    value = scale * (code - zero_point)

Codes are made by the rounding of `jax_ranges.rounding` and only then cast, which is exact: a
cast alone may give infinity or NaN for what lies beyond the format's ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat, keys
from jax_ranges.formats import Format, format_of
from jax_ranges.qparams import QParams
from jax_ranges.rounding import round_to


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class QuantizedArray:
    """Codes, and what makes numbers of them; a pytree, so it goes wherever an array goes.

    Made by `jr.quantize(f, recipe).prepare(...)`. It is no `jax.Array`, and only functions made by
    `jr.quantize` take it for one.

    Attributes:
      codes: integers or narrow floats, of the value's shape. On the device they take the bytes
        that JAX gives their dtype (until 0.11 one for an int4).
      scale: floats that broadcast against the codes, with as many axes.
      zero_point: int32, likewise; None if it is 0.
      sums: the sums of the codes over the axes that a product sums over, kept as axes of length
        one; None where no product needs them. An operand with a zero point does, of the other.
      dtype: of the value that it stands for.
      format: the format.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> low = jr.quantize(lambda p, x: x @ p["w"], {"dot_general": (None, jr.Dynamic("int8"))})
      >>> (params, x), _ = low.prepare({"w": jnp.array([[0.5], [-1.28]])}, jnp.ones(2))
      >>> params["w"]
      QuantizedArray(float32[2, 1] as int8, one scale)
      >>> params["w"].codes.ravel(), params["w"].nbytes
      (Array([  50, -128], dtype=int8), 6)
    """

    codes: Any
    scale: Any
    zero_point: Any
    sums: Any
    dtype: np.dtype = field(metadata={"static": True})
    format: Format = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the value."""
        return tuple(self.codes.shape)

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Of everything in it."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))

    def dequantize(self) -> jax.Array:
        """The value."""
        carrier = keys.carrier_dtype(self.dtype)
        codes = self.codes
        if self.zero_point is not None:
            codes = codes.astype(jnp.int32) - self.zero_point
        return (codes.astype(carrier) * self.scale.astype(carrier)).astype(self.dtype)

    def astype(self, dtype: Any) -> QuantizedArray:
        """The same codes, standing for a value of another dtype."""
        return replace(self, dtype=np.dtype(dtype))

    def transpose(self, axes: Sequence[int]) -> QuantizedArray:
        """With its axes, and those of its scales, in another order."""
        return self._map(lambda part: part.transpose(axes))

    def _map(self, fun: Callable[[Any], Any]) -> QuantizedArray:
        return jax.tree.map(fun, self)

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self)
        if not all(hasattr(leaf, "dtype") for leaf in leaves):  # JAX fills trees with marks
            return object.__repr__(self)
        zero_point = "" if self.zero_point is None else ", with zero points"
        shape = list(self.scale.shape)
        scales = f"scales {shape}" if math.prod(shape) > 1 else "one scale"
        return (
            f"QuantizedArray({self.dtype}{list(self.shape)} as {self.format}, {scales}{zero_point})"
        )


def quantized(q: QParams, x: Any) -> QuantizedArray:
    """A value's codes: what `q.round` has the numbers of.

    The parameters are those of a format that `storage` knows.
    """
    x = jnp.asarray(x)
    wide = x.astype(keys.carrier_dtype(x.dtype))
    scale, zero_point = (_along(q, part, x.ndim) for part in (q.scale, q.zero_point))
    scale = scale.astype(wide.dtype)
    scaled = wide if is_all(q.scale, 1) else wide / scale
    if not q.format.uniform:
        codes = round_to(q.format, scaled)
        return QuantizedArray(codes.astype(storage(q.format)), scale, None, None, x.dtype, q.format)
    limits = int(q.qmin), int(q.qmax)
    steps = round_to(q.format, scaled, 1.0, zero_point, limits) / q.format.step
    zero_point = None if is_all(q.zero_point, 0) else zero_point.astype(jnp.int32)
    codes = steps.astype(jnp.int32) + (0 if zero_point is None else zero_point)
    scale = scale * q.format.step  # a power of two, so exact
    codes = codes.astype(storage(q.format))
    return QuantizedArray(codes, scale, zero_point, None, x.dtype, q.format)


def _along(q: QParams, part: Any, ndim: int) -> jax.Array:
    part = jnp.asarray(q.along(part, ndim))
    return part if part.ndim else part.reshape((1,) * ndim)


def is_all(part: Any, number: int) -> bool:
    """Whether it is known to be nothing but this number."""
    return not compat.is_traced(part) and bool(np.all(np.equal(part, number)))


# What JAX has arrays of; for the formats between (float6, 6-bit integers) the next one is taken.
_FLOATS = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16")
_WIDTHS = (2, 4, 8, 16)


def storage(fmt: Format) -> np.dtype | None:
    """The dtype of the codes of a format; None if it has none of at most 8 bits (floats 16)."""
    if fmt.element is not None or fmt.bits > (8 if fmt.uniform else 16):
        return None
    if fmt.dtype is not None and fmt.bits in _WIDTHS:
        return fmt.dtype
    if fmt.uniform:
        return np.dtype(np.int8 if fmt.signed else np.uint8)
    return common_float(fmt, fmt)


def common_float(a: Format, b: Format) -> np.dtype | None:
    """The narrowest of the usual dtypes that has all numbers of both formats; None if none."""
    candidates = map(format_of, (*_FLOATS, "float32"))
    return next((c.dtype for c in candidates if _has(c, a) and _has(c, b)), None)


def _has(wide: Format, narrow: Format) -> bool:
    return (
        wide.mantissa_bits >= narrow.mantissa_bits
        and wide.largest >= narrow.largest
        and wide.smallest_subnormal <= narrow.smallest_subnormal
    )
