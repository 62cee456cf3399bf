"""What a number format makes of values of which the exponents were counted.

The model. Within each binade [2**e, 2**(e+1)) of either sign, which min and max cut where they
are known, the density of values is a power of x, whose exponent is the slope of the density on
logarithmic scales between the neighbouring binades. That is exact for values spread evenly and
for values whose logarithms are; taking all to be spread evenly makes the signal of normal
values 1 dB too strong. Then, for a format and a scale:

- a step d between neighbouring numbers gives an error of mean square d**2 / 12 (W. R. Bennett,
  Spectra of Quantized Signals, Bell System Technical Journal 27, 1948; B. Widrow and I. Kollar,
  Quantization Noise, 2008, chapter 12 on floating point): one d everywhere for integers and
  fixed point, for floats d = 2**(e - mantissa bits), and that of the smallest normal number for
  subnormals;
- what is nearer to zero than to the smallest number becomes zero, and is all error;
- what lies beyond the ends by half a step or more overflows, and as it is clipped the error is
  its distance from the end, for min and max, where they are known, theirs at least;
- of a constant, which min and max tell, all is known exactly;
- values that have steps of their own (a bfloat16 site) are exact in a format with the same or
  finer steps; in a coarser one, of step d, those of step c < d have (d**2 + 2 c**2) / 12, where
  the second part is that of the ties.

Infinities and NaN have no part in it. Zeros are exact. The shares are of the finite values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from jax_ranges import keys
from jax_ranges.formats import Format


class ExponentCounts(Protocol):
    """How often each power of two was seen.

    Attributes:
      exponents: floor(log2(abs(x))), each once.
      negative, positive: how many values of either sign had it.
      zero, pos_inf, neg_inf, nan: how many there were.
    """

    @property
    def exponents(self) -> np.ndarray: ...

    @property
    def negative(self) -> np.ndarray: ...

    @property
    def positive(self) -> np.ndarray: ...

    @property
    def zero(self) -> int: ...

    @property
    def pos_inf(self) -> int: ...

    @property
    def neg_inf(self) -> int: ...

    @property
    def nan(self) -> int: ...


@dataclass(frozen=True)
class Fit:
    """How values fit a format.

    Attributes:
      scale: what they are divided by, a power of two.
      overflow, underflow, subnormal: the shares that are clipped, that become zero, and that
        become subnormal, of the finite values; None where nothing says.
      snr_db: the expected ratio of signal to noise; inf where all is exact.
    """

    scale: float
    overflow: float | None
    underflow: float | None
    subnormal: float | None
    snr_db: float | None


@dataclass(frozen=True)
class Spread:
    """Where values are: pieces of binades, each with a count, in units of 2**top.

    Attributes:
      lo, hi, exponent, counts: of each piece, its ends, the exponent of its binade, and how
        many values it has. Units keep squares of what float64 holds finite.
      negative: whether it is of negative values.
      zeros: how many values are zero.
      top: the exponent of the unit.
      own: the step of the values themselves in each piece.
      power: the density in each piece goes as x**power.
      ends: of either sign, negative first, the largest magnitude, at which there is a value; 0
        if it is not known.
    """

    lo: np.ndarray
    hi: np.ndarray
    exponent: np.ndarray
    counts: np.ndarray
    negative: np.ndarray
    zeros: int
    top: int
    own: np.ndarray
    power: np.ndarray
    ends: tuple[float, float]

    @property
    def total(self) -> float:
        return float(self.counts.sum()) + self.zeros

    def moment(self, k: int, lo: Any, hi: Any) -> Any:
        """The mean of x**k over what of each piece lies between lo and hi, and else of 0."""
        return self._integral(k, lo, hi) / self._integral(0, self.lo, self.hi)

    def _integral(self, k: int, lo: Any, hi: Any) -> Any:
        """Of x**k times the density in units in which that is 1 at the beginning of the piece."""
        q = self.power + k + 1
        start, ratio = lo / self.lo, np.log(hi / lo)
        whole = np.where(np.abs(q) < 1e-6, ratio, np.expm1(q * ratio) / np.where(q == 0, 1, q))
        return start**q * whole * self.lo**k


def spread_of(
    found: ExponentCounts, dtype: np.dtype, lo: float = -math.inf, hi: float = math.inf
) -> Spread:
    """Of counts; `lo` and `hi` are the ends of the values if they are known."""
    exponents = np.asarray(found.exponents, np.int64)
    sides = [np.asarray(side, np.float64) for side in (found.negative, found.positive)]
    counts = np.concatenate(sides)
    kept = counts > 0
    exponent = np.tile(exponents, 2)[kept]
    negative = np.repeat([True, False], len(exponents))[kept]
    top = int(exponent.max(initial=-5000)) if kept.any() else 0
    below = np.ldexp(1.0, exponent - top)
    most = np.where(negative, _unit(-lo, top), _unit(hi, top))
    least = np.where(negative, _unit(-hi, top, 0.0), _unit(lo, top, 0.0))
    start = np.clip(least, below, 2 * below)
    # An end at the very beginning of a binade still has values there.
    above = np.clip(most, start * (1 + 2**-30), np.maximum(2 * below, start * (1 + 2**-30)))
    power = np.zeros(len(exponent))
    for side in (negative, ~negative):
        power[side] = _slopes(start[side], above[side], counts[kept][side])
    return Spread(
        lo=start,
        hi=above,
        exponent=exponent,
        counts=counts[kept],
        negative=negative,
        zeros=int(found.zero),
        top=top,
        own=_own_step(dtype, exponent, top),
        power=power,
        ends=(_unit(-lo, top, 0.0), _unit(hi, top, 0.0)),
    )


STEEPEST = 16.0


def _slopes(lo: np.ndarray, hi: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Of the density on logarithmic scales, each from the binade before to that after."""
    if len(lo) < 2:
        return np.zeros(len(lo))
    # A last piece that is cut very short says little of the density.
    density = np.log(counts / np.maximum(hi - lo, lo / 4))
    where = np.log((lo + hi) / 2)
    before, after = (np.clip(np.arange(len(lo)) + d, 0, len(lo) - 1) for d in (-1, 1))
    slopes = (density[after] - density[before]) / (where[after] - where[before])
    return np.clip(slopes, -STEEPEST, STEEPEST)


def _unit(end: float, top: int, unknown: float = math.inf) -> float:
    return math.ldexp(end, -top) if 0 < end < math.inf else unknown


def _own_step(dtype: np.dtype, exponent: np.ndarray, top: int) -> np.ndarray:
    dtype = keys.real_dtype(dtype)
    if not keys.is_float(dtype):
        return np.full(exponent.shape, np.ldexp(1.0, -top))
    info = ml_dtypes.finfo(dtype)
    return np.ldexp(1.0, np.maximum(exponent, int(info.minexp)) - int(info.nmant) - top)


def constant_fits(value: float, fmt: Format, shifts: np.ndarray) -> list[Fit]:
    """The same for values that all are this one."""
    scale = np.ldexp(1.0, np.asarray(shifts, np.int64))
    scaled = value / scale
    rounded = fmt.round(scaled)
    beyond = (scaled < fmt.least) | (scaled > fmt.largest)
    zero = (rounded == 0) & (scaled != 0)
    small = ~zero & (scaled != 0) & (np.abs(scaled) < fmt.smallest_normal)
    error = (scaled - rounded) / np.where(scaled == 0, 1.0, scaled)
    return [
        Fit(
            scale=float(scale[i]),
            overflow=float(beyond[i]),
            underflow=float(zero[i]),
            subnormal=float(small[i]),
            snr_db=_decibels(1.0, error[i] ** 2),
        )
        for i in range(len(scale))
    ]


def fits(spread: Spread, fmt: Format, shifts: np.ndarray) -> list[Fit]:
    """For scales 2**shift, each of `shifts`: integers, the first axis of all below."""
    shift = np.asarray(shifts, np.int64)[:, None]
    pieces = _Pieces(spread, fmt, shift)
    total = max(spread.total, 1.0)
    beyond, zero, subnormal = ((spread.counts * part).sum(-1) / total for part in pieces.shares())
    noise = (spread.counts * pieces.noise()).sum(-1)
    clipped = (spread.counts * pieces.clipped()).sum(-1)
    noise += np.maximum(clipped, _at_the_ends(spread, fmt, shift[:, 0]))
    signal = (spread.counts * spread.moment(2, spread.lo, spread.hi)).sum()
    return [
        Fit(
            scale=math.ldexp(1.0, int(shift)),
            overflow=float(beyond[i]),
            underflow=float(zero[i]),
            subnormal=float(subnormal[i]),
            snr_db=_decibels(signal, noise[i]),
        )
        for i, shift in enumerate(shifts)
    ]


def _at_the_ends(spread: Spread, fmt: Format, shift: np.ndarray) -> np.ndarray:
    """The squares of what is clipped of the farthest values, the only ones known exactly."""
    limits = (float(max(-fmt.least, 0)), float(fmt.largest))
    beyond = [
        np.maximum(end - np.ldexp(limit, shift - spread.top), 0.0)
        for end, limit in zip(spread.ends, limits, strict=True)
    ]
    # Up to half a step it is rounding, which is counted as such.
    half = np.ldexp(_last_step(fmt), shift - spread.top) / 2
    return sum((np.where(part > half, part, 0.0) ** 2 for part in beyond), np.zeros(len(shift)))


def _last_step(fmt: Format) -> float:
    """Between the two largest numbers."""
    return fmt.step if fmt.uniform else math.ldexp(1.0, fmt.max_exponent - fmt.mantissa_bits)


def _decibels(signal: Any, noise: Any) -> float:
    return float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else math.inf


class _Pieces:
    """Each piece cut where the format changes: to zero, subnormal, normal, beyond its end."""

    def __init__(self, spread: Spread, fmt: Format, shift: np.ndarray):
        self._spread = spread
        unit = shift - spread.top  # the format's numbers times 2**unit are in units of the spread
        self._smallest = np.ldexp(fmt.smallest_subnormal, unit)
        self._normal = np.ldexp(fmt.smallest_normal, unit)
        ends = np.where(spread.negative, max(-fmt.least, 0.0), float(fmt.largest))
        self._end = np.ldexp(ends, unit)
        self._step = self._steps(fmt, shift)
        self._last = self._end + np.ldexp(_last_step(fmt), unit) / 2
        self._exact = self._step <= spread.own

    def _steps(self, fmt: Format, shift: np.ndarray) -> np.ndarray:
        """Between numbers of the format, in each binade."""
        top = self._spread.top
        if fmt.uniform:
            return np.broadcast_to(self._smallest, (len(shift), len(self._spread.lo)))
        exponent = np.maximum(self._spread.exponent, fmt.min_exponent + shift)
        return np.ldexp(1.0, exponent - fmt.mantissa_bits - top)

    def _cut(self, lo: Any, hi: Any) -> tuple[np.ndarray, np.ndarray]:
        """The ends of what of each piece lies between two ends; equal where nothing does."""
        spread = self._spread
        lo = np.clip(lo, spread.lo, spread.hi)
        return lo, np.clip(hi, lo, spread.hi)

    def _beyond(self) -> tuple[np.ndarray, np.ndarray]:
        return self._cut(self._last, np.inf)

    def _to_zero(self) -> tuple[np.ndarray, np.ndarray]:
        nowhere = np.where(self._exact, 0.0, self._smallest / 2)
        return self._cut(0.0, np.minimum(nowhere, self._last))

    def shares(self) -> list[np.ndarray]:
        """Of each piece: clipped, to zero, subnormal."""
        small = self._cut(0.0, np.minimum(self._normal, self._last))
        beyond, zero, small = (
            self._spread.moment(0, *ends) for ends in (self._beyond(), self._to_zero(), small)
        )
        return [beyond, zero, np.maximum(small - zero, 0.0)]

    def noise(self) -> np.ndarray:
        """The mean square of the error in each piece, but for what is clipped."""
        beyond, zero, _ = self.shares()
        own = self._spread.own
        lost = self._spread.moment(2, *self._to_zero())
        rounded = np.where(self._exact, 0.0, (self._step**2 + 2 * own**2) / 12)
        return lost + np.maximum(1 - beyond - zero, 0.0) * rounded

    def clipped(self) -> np.ndarray:
        """The mean square of the error of what is clipped in each piece."""
        one, first, second = (self._spread.moment(k, *self._beyond()) for k in range(3))
        return np.maximum(second - 2 * self._end * first + self._end**2 * one, 0.0)
