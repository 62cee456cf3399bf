"""`Bounds`: proven ranges by site name, beside the observed ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_ranges import keys
from jax_ranges.bounds.interval import Interval, everything, kind_of
from jax_ranges.files.as_json import plain
from jax_ranges.files.records import Record, records_of
from jax_ranges.formats import Format
from jax_ranges.ranges import Ranges, UnknownSiteError, nearest
from jax_ranges.shown import Shown
from jax_ranges.site import Site
from jax_ranges.stats import MinMax

Number = bool | int | float


@dataclass(frozen=True)
class Proven:
    """What a site can be, for all inputs within the bounds that were assumed.

    Attributes:
      lo, hi: no number is outside of them; lo > hi if there can be none.
      may_nan: NaN is not excluded.
      may_inf: an infinity is not excluded.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> proven = jr.bounds(jnp.tanh)(jax.ShapeDtypeStruct((3,), jnp.float32))
      >>> proven["tanh"]
      Proven(lo=-1.0, hi=1.0, may_nan=False, may_inf=False)
    """

    lo: Number
    hi: Number
    may_nan: bool
    may_inf: bool

    @classmethod
    def of(cls, interval: Interval, dtype: np.dtype) -> Proven:
        """An interval in the numbers of a dtype."""
        as_number = float if kind_of(dtype).is_float else int
        if keys.real_dtype(dtype) == np.dtype(bool):
            as_number = bool
        lo, hi = interval[:2]
        if not interval.empty:
            lo, hi = as_number(lo), as_number(hi)
        return cls(lo, hi, interval.nan, interval.infinite)

    @property
    def never(self) -> bool:
        """The site cannot have a value: it is in a branch that is never taken, or is empty."""
        return self.lo > self.hi and not self.may_nan

    @property
    def finite(self) -> bool:
        """Neither an infinity nor NaN is possible."""
        return not (self.may_inf or self.may_nan)

    def holds(self, lo: Any, hi: Any, nan: Any) -> bool:
        """Whether a range is within it."""
        inside = bool(lo > hi) or bool(self.lo <= lo and hi <= self.hi)
        return inside and (self.may_nan or not nan)

    def fits(self, found: Format) -> bool:
        """Whether all that it has is between the ends of a format."""
        if self.lo > self.hi:
            return not self.may_nan or found.has_nan
        ends = -math.inf < self.lo and self.hi < math.inf
        inside = found.least <= self.lo and self.hi <= found.largest
        return ends and inside and (found.has_nan or not self.may_nan)


@dataclass(frozen=True)
class BoundsRow:
    """One site: what was proven of it, what was observed, and what follows.

    Attributes:
      site: the site.
      proven: what it can be.
      observed: what it was, without leading axes; None where nothing was run.
      share: the largest magnitude that was observed, in parts of the largest finite number of
        the dtype; None where none was, or of integers.
      format: the first of the formats asked about that certainly holds it; None if none does.
      overflow: "excluded", "possible", or "" where the dtype has none to speak of.
      verdict: what all this says, as a sentence.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = lambda x: jnp.square(x.astype(jnp.float16))
      >>> (_, row) = jr.bounds(f, bounds={"x": (-3, 3)})(jnp.array([0.5, 1.0])).rows
      >>> row.site.name, row.proven.hi, row.overflow, row.format
      ('square', 9.0, 'excluded', 'float8_e4m3fn')
    """

    site: Site
    proven: Proven
    observed: Record | None
    share: float | None
    format: str | None
    overflow: str
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`: infinities are strings."""
        seen = self.observed
        return {
            "site": self.site.name,
            "dtype": str(self.site.dtype),
            "source": self.site.source,
            "lo": plain(self.proven.lo),
            "hi": plain(self.proven.hi),
            "may_nan": self.proven.may_nan,
            "may_inf": self.proven.may_inf,
            "observed_min": None if seen is None else plain(seen.min),
            "observed_max": None if seen is None else plain(seen.max),
            "format": self.format,
            "overflow": self.overflow,
            "verdict": self.verdict,
        }


class Bounds(Shown, Mapping[str, Proven]):
    """Proven ranges of a program's sites, by name, in program order; made by `jr.bounds`.

    Attributes:
      sites: the sites.
      assumed: for each input what was assumed of it, by its path.
      observed: the ranges of a run beside; None if there was none.
      rows: one for each site.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def f(x):
      ...     return jnp.exp(x) / (1 + jnp.exp(x))
      >>> found = jr.bounds(f, bounds={"x": (-10, 10)})(jnp.arange(3.0))
      >>> for row in found.rows:
      ...     print(row.site.name, row.verdict)
      exp cannot overflow, proven: at most 6e-35 of float32
      exp.1 cannot overflow, proven: at most 6e-35 of float32
      add cannot overflow, proven: at most 6e-35 of float32
      div cannot overflow, proven: at most 6e-35 of float32
    """

    def __init__(
        self,
        sites: Sequence[Site],
        found: Mapping[str, Interval],
        assumed: Mapping[str, Interval],
        observed: Ranges | None,
        formats: Sequence[Format],
    ):
        self.sites = tuple(sites)
        self.observed = observed
        nothing = Interval(math.inf, -math.inf)
        self._proven = {
            site.name: Proven.of(found.get(site.name, nothing), site.dtype) for site in self.sites
        }
        self.assumed = {name: Proven.of(x, np.dtype(float)) for name, x in assumed.items()}
        seen = _records(observed)
        self.rows = tuple(
            _row(site, self._proven[site.name], seen.get(site.name), formats) for site in self.sites
        )

    def __getitem__(self, name: str) -> Proven:
        if name not in self._proven:
            near = nearest(name, list(self))
            hint = "; the nearest are " + ", ".join(map(repr, near)) if near else ""
            raise UnknownSiteError(f"no site {name!r}{hint}")
        return self._proven[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._proven)

    def __len__(self) -> int:
        return len(self._proven)

    @property
    def unproven(self) -> tuple[BoundsRow, ...]:
        """The rows of sites of which an overflow or a NaN is not excluded."""
        return tuple(row for row in self.rows if not row.proven.finite)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "assumed": {
                name: {"lo": plain(x.lo), "hi": plain(x.hi), "may_nan": x.may_nan}
                for name, x in self.assumed.items()
            },
            "sites": [row.to_json() for row in self.rows],
        }

    def __repr__(self) -> str:
        from jax_ranges.report.bounds_table import bounds_summary

        return bounds_summary(self)

    def _table(self, limit: int | None = None) -> Any:
        from jax_ranges.report.bounds_table import bounds_table

        return bounds_table(self, limit)


def _records(observed: Ranges | None) -> dict[str, Record]:
    if observed is None:
        return {}
    ranged = [site.name for site in observed.sites if observed.has(site.name, MinMax())]
    wanted = frozenset(ranged)
    if not wanted:
        return {}
    return {r.site.name: r for r in records_of(observed.select(lambda s: s.name in wanted))}


# -- verdicts ---------------------------------------------------------------------------------


def _row(site: Site, proven: Proven, seen: Record | None, formats: Sequence[Format]) -> BoundsRow:
    overflow = _overflow(site, proven)
    share = _share(site, seen)
    alike = [f for f in formats if (f.kind == "int") != kind_of(site.dtype).is_float]
    fits = next((found.name for found in alike if proven.fits(found)), None)
    verdict = _verdict(site, proven, seen, overflow, share)
    return BoundsRow(site, proven, seen, share, fits, overflow, verdict)


def _overflow(site: Site, proven: Proven) -> str:
    if not kind_of(site.dtype).is_float or np.dtype(site.dtype).kind == "c" or proven.never:
        return ""
    # Where there are no infinities, what is too large is NaN or the largest number.
    may = proven.may_inf if kind_of(site.dtype).infinities else proven.may_nan
    return "possible" if may else "excluded"


def _share(site: Site, seen: Record | None) -> float | None:
    if seen is None or seen.min is None or not kind_of(site.dtype).is_float:
        return None
    return float(max(abs(seen.min), abs(seen.max))) / float(kind_of(site.dtype).largest)


def _verdict(
    site: Site, proven: Proven, seen: Record | None, overflow: str, share: float | None
) -> str:
    if proven.never:
        return "never runs, proven"
    nan = "; NaN is not excluded" if proven.may_nan else ""
    if not overflow:
        return f"{_of_integers(site, proven)}{nan}"
    if overflow == "excluded":
        largest = float(kind_of(site.dtype).largest)
        most = max(abs(proven.lo), abs(proven.hi)) / largest if proven.lo <= proven.hi else 0.0
        return f"cannot overflow, proven: at most {_part(most)} of {site.dtype}{nan}"
    observed = "" if share is None else f"observed {_part(share)} of {site.dtype}, "
    return f"{observed}not provable{nan}" if observed else f"may overflow {site.dtype}{nan}"


def _of_integers(site: Site, proven: Proven) -> str:
    if Interval(proven.lo, proven.hi).within(everything(site.dtype)) and (
        (proven.lo, proven.hi) == everything(site.dtype)[:2]
    ):
        return f"may be any {site.dtype}"
    return f"stays between {proven.lo} and {proven.hi}, proven"


def _part(share: float) -> str:
    """A share as a percentage, or as a number where that would be a row of zeros."""
    if share >= 0.01 or not share:
        return f"{share:.0%}"
    return f"{share:.1%}" if share >= 0.001 else f"{share:.1g}"
