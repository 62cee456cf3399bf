"""Advice: which format each site could have, judged from what was seen there.

The shares and the expected signal-to-noise ratio follow from counts of exponents
(`jr.Exponents()`) by the model of `jax_ranges.noise`; from a min and a max alone follow only
whether something overflows, and how many bits the integer part takes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np

from jax_ranges import keys
from jax_ranges.files.as_json import plain
from jax_ranges.files.records import Record, records_of
from jax_ranges.formats import Format, FormatLike, format_of
from jax_ranges.noise import ExponentCounts, Fit, constant_fits, fits, spread_of
from jax_ranges.ranges import Ranges
from jax_ranges.shown import Shown
from jax_ranges.statistics.exponents import ExponentCounts as OwnCounts
from jax_ranges.statistics.exponents import Exponents

DEFAULT_FORMATS = ("float8_e4m3fn", "bfloat16", "int8")

TRIED = 32
"""How many powers of two are tried as a scale."""

SHIFTS = (-126, 127)
"""The scales that are normal numbers of float32."""

NEGLIGIBLE_DB = 0.1
"""Scales whose signal-to-noise ratio is so close to the best are as good."""


@dataclass(frozen=True)
class AdviceRow:
    """How one site fits one format.

    Attributes:
      site, dtype: the site's name and dtype.
      format: the format's name.
      scale: the best power of two to divide by; blocks have scales of their own, and 1 here.
      overflow, underflow, subnormal, snr_db: with that scale; see `jax_ranges.noise.Fit`. None
        where exponents were not counted, and nothing follows from min and max.
      unscaled: the same with the scale 1.
      overflows: whether something seen is beyond the format's ends, unscaled.
      safe: with the scale, the ratio of signal to noise is at least that asked for (what is
        clipped is noise too), and nothing becomes NaN or inf; None if nothing says.
      smallest: of the formats asked about, the safe one of the fewest bits; None if there is
        none, or nothing says.
      integer_bits: the m of the smallest fixed point Qm.n that holds the range, besides the
        sign; less than zero if all is below one half. None where nothing finite was seen.
      risk: what the rows are ranked by: expected noise over signal with the scale, inf for what
        nothing can be said of (NaN, infinities), None where it was not observed.
      note: what to know in a few words, or what to do.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = jr.ranges(jnp.exp, stats=(jr.MinMax(), jr.Exponents()))
      >>> _, ranges = f(jnp.linspace(0.0, 20.0, 1000))
      >>> (row,) = jr.advise(ranges, "float8_e4m3fn")
      >>> row.site, row.overflows, row.scale, row.safe
      ('exp', True, 2097152.0, True)
    """

    site: str
    dtype: str
    format: str
    scale: float
    overflow: float | None
    underflow: float | None
    subnormal: float | None
    snr_db: float | None
    unscaled: Fit
    overflows: bool
    safe: bool | None
    smallest: str | None
    integer_bits: int | None
    risk: float | None
    note: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`: infinities are strings."""
        fields = {**vars(self), "unscaled": vars(self.unscaled)}
        return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return plain(value)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    unscaled = row.pop("unscaled")
    return row | {f"unscaled_{name}": v for name, v in unscaled.items() if name != "scale"}


@dataclass(frozen=True)
class Advice(Shown, Sequence[AdviceRow]):
    """Rows for each site and format, the riskiest first; made by `jr.advise`.

    Attributes:
      rows: the rows.
      formats: the names of the formats asked about.
      snr_db: what was asked of a safe format.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = jr.ranges(lambda x: jnp.exp(x) * 0.5, stats=(jr.MinMax(), jr.Exponents()))
      >>> _, ranges = f(jnp.linspace(0.0, 20.0, 1000))
      >>> advice = jr.advise(ranges, ["float8_e4m3fn", "bfloat16"])
      >>> [(row.format, row.overflows, row.safe) for row in advice.of("exp")]
      [('float8_e4m3fn', True, True), ('bfloat16', False, True)]
      >>> len(advice), [row.site for row in advice if not row.safe]
      (4, [])
    """

    rows: tuple[AdviceRow, ...]
    formats: tuple[str, ...]
    snr_db: float

    @overload
    def __getitem__(self, index: int) -> AdviceRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[AdviceRow]: ...

    def __getitem__(self, index: int | slice) -> AdviceRow | Sequence[AdviceRow]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, site: str) -> tuple[AdviceRow, ...]:
        """The rows of one site, in the order of the formats."""
        found = [row for row in self.rows if row.site == site]
        return tuple(sorted(found, key=lambda row: self.formats.index(row.format)))

    def records(self) -> list[dict[str, Any]]:
        """One flat dictionary a row, for tables of all kinds."""
        return [_flat(row.to_json()) for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "formats": list(self.formats),
            "snr_db": plain(self.snr_db),
            "rows": [row.to_json() for row in self.rows],
        }

    def __repr__(self) -> str:
        from jax_ranges.report.advice_table import advice_summary

        return advice_summary(self)

    def _table(self, limit: int | None = None) -> Any:
        from jax_ranges.report.advice_table import advice_table

        return advice_table(self, limit)


def advise(
    ranges: Ranges, formats: Sequence[FormatLike] = DEFAULT_FORMATS, *, snr_db: float = 20.0
) -> Advice:
    """How the values of each site would fare in each format, the riskiest first.

    Take `stats=(jr.MinMax(), jr.Exponents())`: without exponents it is known what overflows, and
    not how much of it, nor what underflows. Sites of integers and booleans are left out.

    Args:
      ranges: what was seen. Leading axes (vmap, stacked loops) are merged first.
      formats: names (see `jax_ranges.formats`) or dtypes.
      snr_db: the ratio of signal to noise, in decibels, below which a format is not safe. 20 is
        an error of a tenth; float8_e4m3fn has 31.5 at best, int8 of normal values about 40.

    Raises:
      ValueError: there is no such format, or none is given; MinMax was not taken; or the ranges
        are traced.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(lambda x: jnp.exp(x) * 1e-4)(jnp.array([0.0, 11.0]))
      >>> for row in jr.advise(ranges, ["float16", "float8_e5m2"]):
      ...     print(row.site, row.format, row.overflows, row.scale, row.integer_bits)
      exp float8_e5m2 True 2.0 16
      exp float16 False 1.0 16
      mul float16 False 1.0 3
      mul float8_e5m2 False 1.0 3
    """
    targets = _targets(formats)
    if not snr_db >= 0:
        raise ValueError(f"snr_db is in decibels, from 0 on; got {snr_db!r}")
    rows = [
        row
        for record in records_of(ranges)
        if keys.is_float(keys.real_dtype(record.site.dtype))
        for row in _of_site(record, _exponents(ranges, record.site.name), targets, snr_db)
    ]
    names = tuple(fmt.name for fmt in targets)
    return Advice(tuple(sorted(rows, key=_rank)), names, snr_db)


def _targets(formats: Sequence[FormatLike]) -> list[Format]:
    if isinstance(formats, str) or not isinstance(formats, Sequence):
        formats = [formats]
    found = list(dict.fromkeys(map(format_of, formats)))
    if not found:
        raise ValueError("there is no format to advise on")
    return found


def _exponents(ranges: Ranges, name: str) -> ExponentCounts | None:
    """What `jr.Exponents()` counted at a site; None if it was not taken."""
    for stat in ranges.stats:
        if isinstance(stat, Exponents) and ranges.has(name, stat):
            return _over_axes(ranges.of(name, stat))
    return None


def _over_axes(found: ExponentCounts) -> ExponentCounts:
    """Without leading axes. On the host: to reduce all statistics takes programs of JAX's."""
    of_all = (-1, len(found.exponents))
    negative, positive = (side.reshape(of_all).sum(0) for side in (found.negative, found.positive))
    others = {k: int(np.sum(getattr(found, k))) for k in ("zero", "pos_inf", "neg_inf", "nan")}
    return OwnCounts(found.exponents, negative, positive, **others)


def _rank(row: AdviceRow) -> tuple[bool, float, bool]:
    """By risk, what was not observed last; of equal risks first what overflows unscaled."""
    return row.risk is None, -(row.risk or 0.0), not row.overflows


# -- one site ---------------------------------------------------------------------------------


def _of_site(
    record: Record, found: ExponentCounts | None, targets: list[Format], snr_db: float
) -> list[AdviceRow]:
    rows = [_row(record, found, fmt, snr_db) for fmt in targets]
    bits = {fmt.name: fmt.bits for fmt in targets}
    safe = [row.format for row in rows if row.safe]
    smallest = min(safe, key=bits.__getitem__, default=None)
    return [replace(row, smallest=smallest) for row in rows]


def _row(record: Record, found: ExponentCounts | None, fmt: Format, snr_db: float) -> AdviceRow:
    lo, hi = _finite_ends(record, found)
    infinite = math.inf in (-(record.min or 0.0), record.max or 0.0)
    overflows = infinite or (lo is not None and (lo < fmt.least or hi > fmt.largest))
    best, unscaled = _fit(record, found, fmt, lo, hi)
    return AdviceRow(
        site=record.site.name,
        dtype=str(record.site.dtype),
        format=fmt.name,
        **vars(best),
        unscaled=unscaled,
        overflows=bool(overflows),
        safe=_safe(record, best, infinite, snr_db),
        smallest=None,
        integer_bits=None if lo is None else integer_bits(lo, hi),
        risk=_risk(record, best, infinite),
        note=_note(record, found, infinite),
    )


def _finite_ends(record: Record, found: ExponentCounts | None) -> tuple[Any, Any]:
    """The least and the largest finite value, or bounds of them by the exponents; or None."""
    if record.min is None:
        return None, None
    lo, hi = float(record.min), float(record.max)
    if math.isfinite(lo) and math.isfinite(hi):
        return lo, hi
    if found is None:
        known = [end for end in (lo, hi) if math.isfinite(end)]
        return (min(known), max(known)) if known else (None, None)
    low, high = (_farthest(found.exponents, side) for side in (found.negative, found.positive))
    return lo if math.isfinite(lo) else -low, hi if math.isfinite(hi) else high


def _farthest(exponents: np.ndarray, counts: np.ndarray) -> float:
    seen = np.asarray(exponents)[np.asarray(counts) > 0]
    return float(np.nextafter(np.ldexp(1.0, int(seen.max()) + 1), 0)) if seen.size else 0.0


def integer_bits(lo: float, hi: float) -> int:
    """The least m for which -2**m <= lo and hi < 2**m; 0 for zero alone.

    Example:
      >>> integer_bits(-128.0, 127.5), integer_bits(0.0, 128.0), integer_bits(-0.1, 0.2)
      (7, 8, -2)
    """
    below, above = math.frexp(-min(lo, 0.0)), math.frexp(max(hi, 0.0))
    needed = [exponent for mantissa, exponent in [above] if mantissa]
    needed += [exponent - (mantissa == 0.5) for mantissa, exponent in [below] if mantissa]
    return max(needed, default=0)


def _safe(record: Record, best: Fit, infinite: bool, snr_db: float) -> bool | None:
    if record.nan or infinite:
        return False
    if not record.observed or best.snr_db is None:
        return None
    return best.snr_db >= snr_db


def _risk(record: Record, best: Fit, infinite: bool) -> float | None:
    if not record.observed:
        return None
    if record.nan or infinite:
        return math.inf
    if best.snr_db is None:
        return 0.0
    return 10 ** (-best.snr_db / 10)


def _note(record: Record, found: ExponentCounts | None, infinite: bool) -> str:
    if not record.observed:
        return "not observed"
    seen = ["NaN"] * bool(record.nan) + ["inf"] * infinite
    missing = [] if found else ["shares need jr.Exponents()"]
    return ", ".join([*seen, *missing])


# -- scales -----------------------------------------------------------------------------------


def _fit(
    record: Record, found: ExponentCounts | None, fmt: Format, lo: Any, hi: Any
) -> tuple[Fit, Fit]:
    """With the best scale, and with none."""
    if lo is None:
        return Fit(1.0, *[None] * 4), Fit(1.0, *[None] * 4)
    if found is None:
        return _by_ends(lo, hi, fmt)
    fit = _fitting(record, found, lo, hi)
    if fmt.element is not None:
        # Each block has its own scale: as good as the best one for all, or better.
        best = replace(_best(fit(fmt.element, _shifts(fmt.element, lo, hi))), scale=1.0)
        return best, best
    (unscaled,) = fit(fmt, np.array([0]))
    shifts = _shifts(fmt, lo, hi)
    tried = fit(fmt, shifts)
    return _best([unscaled, *tried] if fmt.saturating or shifts[0] <= 0 else tried), unscaled


def _fitting(
    record: Record, found: ExponentCounts, lo: float, hi: float
) -> Callable[[Format, np.ndarray], list[Fit]]:
    """How the values fit a format with scales of these powers of two."""
    if lo == hi and record.min == record.max:
        return functools.partial(constant_fits, lo)
    return functools.partial(fits, spread_of(found, record.site.dtype, lo, hi))


def _by_ends(lo: float, hi: float, fmt: Format) -> tuple[Fit, Fit]:
    """Nothing overflows with the scale; without, nothing does or nobody knows how much."""
    least = _least_shift(lo, hi, fmt)
    inside = fmt.least <= lo and hi <= fmt.largest
    scale = 1.0 if fmt.element or (inside and not fmt.uniform) else math.ldexp(1.0, least)
    fits_scaled = inside or (fmt.element is None and (fmt.signed or lo >= 0))
    return (
        Fit(scale, 0.0 if fits_scaled else None, None, None, None),
        Fit(1.0, 0.0 if inside else None, None, None, None),
    )


def _least_shift(lo: float, hi: float, fmt: Format) -> int:
    """The least power of two that brings all into the format; below zero if there is room."""
    ends = [(hi, fmt.largest), (-lo, -fmt.least)]
    shifts = [_shift(end, float(limit)) for end, limit in ends if end > 0 and limit > 0]
    return int(np.clip(max(shifts, default=0), *SHIFTS))


def _shift(end: float, limit: float) -> int:
    (m, e), (limit_m, limit_e) = math.frexp(end), math.frexp(limit)
    return e - limit_e + (m > limit_m)


def _shifts(fmt: Format, lo: float, hi: float) -> np.ndarray:
    """Those worth trying, the one first with which all just fits.

    Where a cast saturates, clipping a few may be worth the finer steps for the rest; where it
    gives inf or NaN it is not, and there may be room to stay nearer to 1.
    """
    first = _least_shift(lo, hi, fmt)
    step = -1 if fmt.saturating else 1
    return np.clip(first + step * np.arange(TRIED), *SHIFTS)


def _best(found: Sequence[Fit]) -> Fit:
    """Of those with about the best ratio that which loses the least, and is nearest to 1."""
    top = max(_ratio(fit) for fit in found)
    good = [fit for fit in found if _ratio(fit) >= top - NEGLIGIBLE_DB]
    return min(good, key=_losses)


def _ratio(fit: Fit) -> float:
    return min(fit.snr_db if fit.snr_db is not None else 0.0, 1e3)


def _losses(fit: Fit) -> tuple[float, float]:
    lost = (fit.overflow or 0.0) + (fit.underflow or 0.0)
    return lost, abs(math.log2(fit.scale))
