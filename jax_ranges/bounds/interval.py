"""Intervals: outer bounds of what a value can be, in the arithmetic that is executed.

An interval holds numbers from `lo` to `hi`, infinities included, and says whether NaN can occur.
Its ends are Python integers for integers and booleans, and float64 for floats of all kinds; those
of a narrower float are numbers of that dtype. Intervals are joined, never refined by guesses.

Why the ends are what they are, and not what real arithmetic says:

- A result is rounded, so ends are rounded outwards to the dtype, from a float64 computation
  whose own last bit is given away too. Rounding keeps the order, so this holds for values that
  the compiler keeps in more bits than the dtype has (XLA does, for float16 and bfloat16) as well:
  an end that overflows is [largest finite, inf], never [inf, inf].
- XLA's CPU backend flushes subnormals to zero, in operands and in results, so an interval that
  ends at a subnormal reaches to zero as well (`flushed`). Rules of functions that are erratic
  among subnormals ask whether there may be some (`has_subnormals`).
- Transcendental functions are some units in the last place off (`ULPS` of `elementwise`).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_ranges import keys
from jax_ranges.formats import format_of

Number = int | float


class Interval(NamedTuple):
    """Numbers from lo to hi, none if lo > hi; and NaN, if `nan`."""

    lo: Number
    hi: Number
    nan: bool = False

    @property
    def empty(self) -> bool:
        """No number is in it."""
        return self.lo > self.hi

    @property
    def infinite(self) -> bool:
        """An infinity is in it."""
        return not self.empty and (self.lo == -math.inf or self.hi == math.inf)

    @property
    def magnitude(self) -> Number:
        return 0 if self.empty else max(abs(self.lo), abs(self.hi))

    def holds(self, number: Number) -> bool:
        return self.lo <= number <= self.hi

    def within(self, other: Interval) -> bool:
        """Whether `other` has all that is in it."""
        inside = self.empty or (other.lo <= self.lo and self.hi <= other.hi)
        return inside and other.nan >= self.nan


NOTHING = Interval(math.inf, -math.inf)
"""What a value can be in a program that never runs."""


def hull(*intervals: Interval) -> Interval:
    """The smallest interval that has all that is in any of them."""
    return Interval(
        min(x.lo for x in intervals), max(x.hi for x in intervals), any(x.nan for x in intervals)
    )


@dataclass(frozen=True)
class Kind:
    """What a dtype can hold.

    Attributes:
      least, largest: its finite ends.
      tiny: the smallest normal number.
      eps: the distance from 1 to the next number, of the dtype in which it is computed: XLA
        takes float32 for float16 and bfloat16.
      own_eps: the same of the dtype itself.
      below: numbers nearer to zero than this may be taken as zero while it is computed: the
        smallest normal one of the dtype in which that is.
      infinities: it has them; if not, what is too large is NaN, or the largest.
      is_float: if not, it is of integers or booleans.
      computed: arithmetic in it follows the rules here; that of smaller floats need not.
    """

    dtype: np.dtype
    least: Number
    largest: Number
    tiny: float
    eps: float
    own_eps: float
    below: float
    infinities: bool
    is_float: bool
    computed: bool

    @property
    def ties(self) -> bool:
        """Its numbers are compared in a wider dtype, which takes subnormals of both as zero."""
        return self.is_float and self.eps != self.own_eps and self.below == self.tiny


_COMPUTED = tuple(map(np.dtype, (np.float16, jnp.bfloat16, np.float32, np.float64)))


@functools.cache
def kind_of(dtype: np.dtype) -> Kind:
    dtype = keys.real_dtype(dtype)
    if dtype == np.dtype(bool):
        return Kind(dtype, 0, 1, 1.0, 0.0, 0.0, 0.0, False, False, True)
    found = format_of(dtype)
    if not keys.is_float(dtype):
        return Kind(dtype, int(found.least), int(found.largest), 1.0, 0, 0, 0.0, False, False, True)
    computing = jnp.finfo(np.float64 if dtype == np.float64 else np.float32)
    eps, below = float(computing.eps), float(computing.tiny)
    own = float(jnp.finfo(dtype).eps)
    return Kind(
        *(dtype, found.least, found.largest, found.smallest_normal, eps, own, below),
        *(found.has_inf, True, dtype in _COMPUTED),
    )


def everything(dtype: np.dtype) -> Interval:
    """All that a dtype has."""
    kind = kind_of(dtype)
    if kind.infinities:
        return Interval(-math.inf, math.inf, True)
    return Interval(kind.least, kind.largest, kind.is_float)


def numbers(dtype: np.dtype) -> Interval:
    """All finite numbers of a dtype."""
    kind = kind_of(dtype)
    return Interval(kind.least, kind.largest)


def of_array(array: Any) -> Interval:
    """The interval of the values in a concrete array."""
    x: Any = np.asarray(array).ravel()
    if x.dtype.kind == "c":
        x = np.concatenate([x.real, x.imag])
    if not keys.is_float(x.dtype):
        x = x.astype(np.int64) if x.dtype.kind == "V" else x
        return Interval(int(x.min()), int(x.max())) if x.size else NOTHING
    with np.errstate(invalid="ignore"):  # which the conversion of a NaN is, for small floats
        x = x.astype(np.float64)
    nan = np.isnan(x)
    kept = x[~nan]
    if not kept.size:
        return NOTHING._replace(nan=bool(nan.any()))
    return Interval(float(kept.min()), float(kept.max()), bool(nan.any()))


def outward(
    lo: float, hi: float, dtype: np.dtype, nan: bool = False, ulps: float = 0.0
) -> Interval:
    """The numbers of a float dtype that a result from lo to hi can be rounded to.

    lo, hi: computed in float64, with an error of one unit in the last place at most.
    ulps: by how many units in the last place the result may be off besides.
    """
    slack = ulps * kind_of(dtype).eps
    # A zero is exact: sums do not underflow, and what does in float64 does so in the program.
    ends = (_farther(lo, -math.inf, slack), _farther(hi, math.inf, slack))
    return flushed(exactly(*ends, dtype, nan), dtype)


def _farther(end: float, to: float, slack: float) -> float:
    if end == 0 or end == to:
        return end
    return math.nextafter(end, to) + (math.copysign(slack * abs(end), to) if slack else 0.0)


def exactly(lo: float, hi: float, dtype: np.dtype, nan: bool = False) -> Interval:
    """The same where lo and hi are bounds, and nothing but rounding happens."""
    kind = kind_of(dtype)
    beyond = not kind.infinities and (lo < kind.least or hi > kind.largest)
    return Interval(_rounded_down(lo, kind), _rounded_up(hi, kind), nan or beyond)


def _rounded_down(x: float, kind: Kind) -> float:
    """The largest number of the dtype that is not above x."""
    if x > kind.largest:
        return kind.largest if x < math.inf or not kind.infinities else math.inf
    if x < kind.least:
        near = x > kind.least * (1 + 2.0**-50)  # the last bit of float64, given away
        return -math.inf if kind.infinities and not near else kind.least
    if kind.dtype == np.float64:
        return x
    rounded = np.asarray(x, keys.carrier_dtype(kind.dtype)).astype(kind.dtype)
    if float(rounded) > x:
        rounded = np.nextafter(rounded, np.asarray(kind.least, np.float32).astype(kind.dtype))
    return float(rounded)


def _rounded_up(x: float, kind: Kind) -> float:
    """The smallest number of the dtype that is not below x."""
    if kind.least < 0:
        return -_rounded_down(-x, kind)
    # float8_e8m0fnu has no number below zero.
    if not kind.least <= x <= kind.largest:
        return min(max(x, kind.least), kind.largest)
    rounded = np.asarray(x, keys.carrier_dtype(kind.dtype)).astype(kind.dtype)
    if float(rounded) < x:
        rounded = np.nextafter(rounded, np.asarray(kind.largest, np.float32).astype(kind.dtype))
    return float(rounded)


def flushed(x: Interval, dtype: np.dtype) -> Interval:
    """With zero, if it ends at a subnormal, for backends that take these as zero."""
    kind = kind_of(dtype)
    if not kind.is_float:
        return x
    lo = 0.0 if 0 < x.lo < kind.tiny else x.lo
    hi = 0.0 if -kind.tiny < x.hi < 0 else x.hi
    return Interval(lo, hi, x.nan)


def has_subnormals(x: Interval, dtype: np.dtype) -> bool:
    """Whether a number is in it, besides zero, that may be taken as zero where it is computed."""
    below = kind_of(dtype).below
    return x.lo < below and x.hi > -below and (x.lo, x.hi) != (0, 0)


def wrapped(lo: int, hi: int, dtype: np.dtype) -> Interval:
    """Integers from lo to hi; anything, if some are beyond the dtype's ends and wrap round."""
    kind = kind_of(dtype)
    if kind.least <= lo and hi <= kind.largest:
        return Interval(lo, hi)
    return everything(dtype)
