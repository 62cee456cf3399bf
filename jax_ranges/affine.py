"""From an interval of values to a scale and a zero point.

Uniform formats: `fbgemm::ChooseQuantizationParams` (github.com/pytorch/FBGEMM,
src/QuantUtils.cc). The interval is extended to have zero in it; the zero point is computed from
the end that adds the smaller terms, and nudged to the nearest code, so that zero is exact.
Symmetric (its `preserve_sparsity`): the zero point is the middle code, and the scale the least
that covers both ends, so one end may have a code more (-128 of int8; `narrow` leaves it unused,
as TensorRT does). Where no value is below zero and the format is unsigned, the zero point is 0.
A zero interval has the scale 0.1, as there.

Floats: scale = amax / largest * 2**margin, the inverse of TransformerEngine's
`compute_scale_from_amax` (there x is multiplied by the scale), and 1 for a zero interval.

Differences: the scale is never less than the smallest normal number of its dtype (FBGEMM has 0.1
if the reciprocal is infinite), nor infinite, and symmetric is symmetric also for ranges on one
side of zero of signed formats, whose zero point FBGEMM puts at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_ranges.formats import Format

ZERO_WIDTH = 0.1


@dataclass(frozen=True)
class Target:
    """What parameters are for.

    Attributes:
      format: the format.
      symmetric: zero is to be in the middle of its codes.
      qmin, qmax: its ends, as codes for uniform formats.
    """

    format: Format
    symmetric: bool
    qmin: float
    qmax: float

    @property
    def levels(self) -> int:
        """How many codes a uniform format has."""
        return int(self.qmax) - int(self.qmin) + 1


def affine(
    target: Target, lo: Any, hi: Any, xp: Any = np, power_of_two: bool = False, margin: int = 0
) -> tuple[Any, Any]:
    """The scale and the zero point for values from lo to hi; arrays elementwise."""
    lo, hi = xp.minimum(lo, 0.0), xp.maximum(hi, 0.0)
    if target.format.kind in ("fixed", "block"):  # which carry their scale
        return xp.ones_like(lo), xp.zeros_like(lo, int)
    if not target.format.uniform:
        scale = xp.maximum(-lo, hi) / min(target.qmax, float(jnp.finfo(lo.dtype).max))
        scale = xp.where(scale > 0, scale, 1.0) * 2.0**margin
        return (_power_of_two(scale, xp) if power_of_two else scale), xp.zeros_like(lo, int)
    middle = _middle(target, lo, xp)
    step = _symmetric_scale if target.symmetric else _scale
    scale = step(target, lo, hi, middle, xp)
    scale = xp.where((lo == 0) & (hi == 0), ZERO_WIDTH, scale)
    scale = _power_of_two(scale, xp) if power_of_two else scale
    zero_point = middle if target.symmetric else _nudged(target, lo, hi, scale, xp)
    return scale, zero_point.astype(int)


def _middle(target: Target, lo: Any, xp: Any) -> Any:
    """The zero point of symmetric parameters: that of unsigned codes is 0 if none is needed."""
    middle = np.rint((target.qmin + target.qmax) / 2)
    return xp.where((target.qmin == 0) & (lo >= 0), 0.0, middle)


def _scale(target: Target, lo: Any, hi: Any, middle: Any, xp: Any) -> Any:
    del middle
    steps = target.qmax - target.qmin
    width = hi - lo
    return xp.where(xp.isinf(width), hi / steps - lo / steps, width / steps)


def _symmetric_scale(target: Target, lo: Any, hi: Any, middle: Any, xp: Any) -> Any:
    below = xp.maximum(middle - target.qmin, 0.5)  # no division by zero where lo is zero
    return xp.maximum(-lo / below, hi / (target.qmax - middle))


def _nudged(target: Target, lo: Any, hi: Any, scale: Any, xp: Any) -> Any:
    qmin, qmax = target.qmin, target.qmax
    from_lo, from_hi = qmin - lo / scale, qmax - hi / scale
    lo_error, hi_error = abs(qmin) + abs(lo / scale), abs(qmax) + abs(hi / scale)
    return xp.rint(xp.clip(xp.where(lo_error < hi_error, from_lo, from_hi), qmin, qmax))


def _power_of_two(scale: Any, xp: Any) -> Any:
    """The next power of two, exactly: rounded up, as FBGEMM's force_scale_power_of_two."""
    mantissa, exponent = xp.frexp(scale)
    return xp.ldexp(xp.ones_like(scale), exponent - (mantissa == 0.5))


def stored(scale: Any, dtype: np.dtype, xp: Any = np) -> Any:
    """The scale in the dtype in which it is kept, neither zero nor subnormal nor infinite."""
    info = jnp.finfo(dtype)
    clipped = xp.clip(scale, float(info.smallest_normal), float(info.max))
    return clipped.astype(dtype)
