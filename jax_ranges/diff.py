"""Diff: what moved between two sets of ranges, ranked by how far.

For a person who compares two models, and for a CI job that guards one: a *score* says how far the
new range of a site reaches beyond the old one,

    score = (the farther of the two ends' way beyond the old range) / (the largest old magnitude)

so [-2, 10] that became [-2, 10.1] scores 0.01, in any dtype and at any scale. Only growth counts:
what stays inside the old range was expected and scores 0, so narrowed ranges are listed and never
exceed a threshold; compare the other way round to guard against them. Special cases:

- a growth from zero (0 to [0, 1], 0 to 1e-9) has no old magnitude, and scores 1;
- a NaN or an infinity where there was none scores inf, and so do numbers where there were none
  (a site that was not observed, or saw only NaN or infinities), and sites that appeared or went:
  no threshold lets these pass, and a guard is not fooled by names that changed;
- a finite growth always has a finite score that is more than 0.

For given old ranges the score is monotone: a range that holds another one scores no less.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from jax_ranges.files import File, load
from jax_ranges.files.as_json import plain
from jax_ranges.files.records import Record, records_of
from jax_ranges.ranges import Ranges
from jax_ranges.shown import Shown
from jax_ranges.site import Site

KINDS = (
    *("nan appeared", "inf appeared", "appeared", "went", "now observed", "widened", "shifted"),
    *("narrowed", "no longer observed", "nan gone", "inf gone", "other dtype"),
)
"""What can have happened to a site, the worst first."""


@dataclass(frozen=True)
class DiffRow:
    """What happened at one site.

    Attributes:
      name: the site's.
      before, after: what was seen there, without leading axes; None where there is no such site.
      changes: what happened, of `KINDS`, the worst first; empty if nothing.
      score: how far the range reaches beyond the old one; see `jax_ranges.diff`.
    """

    name: str
    before: Record | None
    after: Record | None
    changes: tuple[str, ...]
    score: float

    @property
    def site(self) -> Site:
        """The site, as it is after if it is there."""
        found = self.after or self.before
        assert found is not None
        return found.site

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`: infinities are strings, None is what is not there."""
        return {
            "name": self.name,
            "changes": list(self.changes),
            "score": plain(self.score),
            "before": _json(self.before),
            "after": _json(self.after),
        }


@dataclass(frozen=True)
class Diff(Shown):
    """What moved between two sets of ranges; made by `jr.diff`.

    Attributes:
      rows: one for each site of either, the highest score first, then the worst change, then in
        program order.
      threshold: the score that `violations` exceed.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = jr.ranges(lambda x: jnp.tanh(x) * 3)
      >>> _, old = f(jnp.array([-1.0, 1.0]))
      >>> _, new = f(jnp.array([-1.0, 9.0]))
      >>> found = jr.diff(old, new, threshold=0.1)
      >>> [(row.name, round(row.score, 3)) for row in found.violations]
      [('mul', 0.313), ('tanh', 0.313)]
    """

    rows: tuple[DiffRow, ...]
    threshold: float = 0.0

    @property
    def changed(self) -> tuple[DiffRow, ...]:
        """The rows of sites to which something happened."""
        return tuple(row for row in self.rows if row.changes)

    @property
    def violations(self) -> tuple[DiffRow, ...]:
        """The rows whose score exceeds the threshold."""
        return self.exceeds(self.threshold)

    def exceeds(self, threshold: float) -> tuple[DiffRow, ...]:
        """The rows whose score is more than `threshold`."""
        return tuple(row for row in self.rows if row.score > threshold)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`, of the rows that changed."""
        return {
            "threshold": plain(self.threshold),
            "sites": len(self.rows),
            "violations": len(self.violations),
            "changed": [row.to_json() for row in self.changed],
        }

    def __repr__(self) -> str:
        from jax_ranges.report.diff_table import diff_summary

        return diff_summary(self)

    def _table(self, limit: int | None = None) -> Any:
        from jax_ranges.report.diff_table import diff_table

        return diff_table(self, limit)


def diff(
    a: Ranges | File,
    b: Ranges | File,
    threshold: float = 0.0,
) -> Diff:
    """What moved from the ranges `a` to the ranges `b`, site by site, matched by name.

    Args:
      a, b: ranges, or files of them. Leading axes (vmap, stacked loops) are merged first.
      threshold: the score from which a difference counts: `jr.diff(a, b, 0.1).violations` are the
        sites that left their range by more than a tenth of their largest old value.

    Raises:
      ValueError: the threshold is negative or NaN, or a file is damaged.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = jr.ranges(lambda x: jnp.log(x * 2))
      >>> _, expected = f(jnp.array([1.0, 5.0]))
      >>> _, found = f(jnp.array([0.0, 5.25]))
      >>> for row in jr.diff(expected, found).changed:
      ...     print(row.name, row.changes, row.score)
      log ('inf appeared', 'widened') inf
      mul ('widened',) 0.2
      >>> jr.diff(expected, expected).changed
      ()
    """
    if not threshold >= 0:
        raise ValueError(f"the threshold is a score: a number from 0 on; got {threshold!r}")
    before, after = (_by_name(a), _by_name(b))
    rows = [_row(name, before.get(name), after.get(name)) for name in {**before, **after}]
    return Diff(tuple(sorted(rows, key=_rank)), threshold)


def _by_name(ranges: Ranges | File) -> dict[str, Record]:
    given = ranges if isinstance(ranges, Ranges) else load(ranges)
    return {record.site.name: record for record in records_of(given)}


def _row(name: str, before: Record | None, after: Record | None) -> DiffRow:
    if before is None or after is None:
        return DiffRow(name, before, after, ("appeared" if before is None else "went",), math.inf)
    changes = sorted(set(_changes(before, after)), key=KINDS.index)
    return DiffRow(name, before, after, tuple(changes), _score(before, after))


def _rank(row: DiffRow) -> tuple[float, int]:
    return -row.score, KINDS.index(row.changes[0]) if row.changes else len(KINDS)


def _json(record: Record | None) -> dict[str, Any] | None:
    if record is None:
        return None
    return {
        "min": plain(record.min),
        "max": plain(record.max),
        "nan": record.nan,
        "observed": record.observed,
        "dtype": str(record.site.dtype),
    }


# -- what happened ----------------------------------------------------------------------------


def _changes(a: Record, b: Record) -> Iterator[str]:
    """Both of one site."""
    if a.site.dtype != b.site.dtype:
        yield "other dtype"
    if not b.observed:
        yield from ["no longer observed"] * a.observed
        return  # with NaN and infinities all else is gone
    if not a.observed:
        yield "now observed"
    if a.nan != b.nan:
        yield "nan appeared" if b.nan else "nan gone"
    for mine, other in zip(_infinities(a), _infinities(b), strict=True):
        if mine != other:
            yield "inf appeared" if other else "inf gone"
    if a.observed:
        yield from _moves(a, b)


def _infinities(record: Record) -> tuple[bool, bool]:
    return record.min == -math.inf, record.max == math.inf


def _moves(a: Record, b: Record) -> Iterator[str]:
    grown, shrunk = bool(_grown(a, b)), bool(_grown(b, a))
    if grown and shrunk:
        yield "shifted"
    elif grown or shrunk:
        yield "widened" if grown else "narrowed"


def _grown(a: Record, b: Record) -> list[tuple[Any, Any]]:
    """The ends of `b` that are beyond those of `a`: pairs (new, old), new above old.

    Where there are no numbers the ends are those of merging's identity, beyond which all are.
    """
    (a_least, a_most), (b_least, b_most) = _ends(a), _ends(b)
    ends = [(-b_least, -a_least), (b_most, a_most)]
    return [(new, old) for new, old in ends if new > old]


def _ends(record: Record) -> tuple[Any, Any]:
    return (math.inf, -math.inf) if record.min is None else (record.min, record.max)


def _score(a: Record, b: Record) -> float:
    grown = _grown(a, b)
    if (b.nan and not a.nan) or any(math.inf in (abs(new), abs(old)) for new, old in grown):
        return math.inf
    if not grown:
        return 0.0
    scale = max((abs(end) for end in _ends(a) if abs(end) < math.inf), default=0)
    if not scale:
        return 1.0
    # Exact, since an end moves by a last bit, by one in 2**63, from 1e-300 or beyond 1e308.
    farthest = max(Fraction(new) - Fraction(old) for new, old in grown)
    return _finite(farthest / Fraction(scale))


def _finite(ratio: Fraction) -> float:
    """The nearest float that is neither zero nor infinite."""
    try:
        return max(float(ratio), math.ulp(0.0))
    except OverflowError:
        return sys.float_info.max
