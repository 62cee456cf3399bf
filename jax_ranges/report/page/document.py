"""The document: everything that the page shows, as plain values for JSON. Nothing here draws.

    {"title": ..., "formats": [{"name": ..., "least": "-448.0", "largest": "448.0",
                                "smallest": "0.001953125", "top": 8, "bottom": -9}, ...],
     "gauge": {"low": -10, "high": 16, "floats": true}, "compared": false,
     "outlier": {"site": 7, "index": null, "layer": ..., "ratio": 8.5, "sizes": [...], "top": 0},
     "families": [[3, 7, 11], ...],
     "scopes": [["encoder", -1], ["layer_0", 0], ...],          label and scope above
     "sites": [{"scope": 1, "label": "add", "primitive": "add", "dtype": "f32", "shape": "[8]",
                "source": "/home/me/model.py:12", "short": "model.py:12", "float": true,
                "operands": [4, "input/x"], "reads": ["params/kernel", "x"], "backward": true,
                "over": [0],
                "seen": {"min": "-1.5", "max": "inf", "nan": true}, ...}, ...]}

Numbers of sites are texts that hold them exactly, which a reader can see and JavaScript reads; it
has no integers beyond 2**53. What is false, empty or not known is left out of a site.

`top` and `bottom` are the exponents of a format's largest and smallest number, and `outlier` is
what `families.outlier` found, or null. `over` are the indices of the formats with an end that
something seen is beyond. `each` (stacked and vmapped sites) has such a `seen` for each index of
the leading axes, `exponents` the counts of `jr.Exponents()`; in a comparison `before` is what was
`seen` then, and `changes` and `score` are those of `jr.diff`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jax_ranges import rounding
from jax_ranges.diff import DiffRow
from jax_ranges.files.as_json import plain
from jax_ranges.files.numbers import number_text
from jax_ranges.formats import Format
from jax_ranges.ranges import Ranges
from jax_ranges.report.entries import Entry, entries_of
from jax_ranges.report.page.families import families, outlier
from jax_ranges.report.rows import Gauge, Number, Row, name_parts, printable, reads_of
from jax_ranges.statistics.exponents import ExponentCounts, Exponents

MOST_POINTS = 256
"""Of more iterations some are merged, as many at a time as it takes: a plot has so many pixels."""

Plain = dict[str, Any]


def document(ranges: Ranges, before: Ranges | None, formats: Sequence[Format], title: str) -> Plain:
    """What the page shows of `ranges`, and of what moved since `before` if that is given.

    Raises:
      ValueError: there are no values (inside jit), or MinMax was not taken.
    """
    found = entries_of(ranges, before)
    rows = [entry.row for entry in found]
    scopes = _Scopes()
    places = {entry.site.name: i for i, entry in enumerate(found)}
    top = outlier(rows)
    return {
        "title": printable(title),
        "formats": [_format(fmt) for fmt in formats],
        "gauge": dataclasses.asdict(Gauge.of(rows)),
        "compared": before is not None,
        "outlier": dataclasses.asdict(top) if top else None,
        "families": families(rows),
        "sites": [
            {**_site(entry, scopes, places, formats), **_change(entry.change)} for entry in found
        ],
        "scopes": scopes.found,
    }


def _format(fmt: Format) -> Plain:
    ends = {"least": fmt.least, "largest": fmt.largest, "smallest": fmt.smallest_subnormal}
    return {
        "name": fmt.name,
        **{name: repr(end) for name, end in ends.items()},
        "top": fmt.max_exponent,
        "bottom": rounding.exponent_of(fmt.smallest_subnormal),
    }


# -- scopes -----------------------------------------------------------------------------------


@dataclass
class _Scopes:
    """Numbers scopes, each after the one above it."""

    found: list[tuple[str, int]] = field(default_factory=list)
    _places: dict[tuple[str, int], int] = field(default_factory=dict)

    def of(self, parts: Sequence[str]) -> int:
        """The number of the scope with this path; -1 for no scope at all."""
        return functools.reduce(self._inside, parts, -1)

    def _inside(self, above: int, label: str) -> int:
        scope = (label, above)
        if scope not in self._places:
            self._places[scope] = len(self.found)
            self.found.append(scope)
        return self._places[scope]


# -- one site ---------------------------------------------------------------------------------


def _site(
    entry: Entry, scopes: _Scopes, places: Mapping[str, int], formats: Sequence[Format]
) -> Plain:
    site, row = entry.site, entry.row
    *scope, label = name_parts(row.name)
    told = {
        "primitive": printable(site.primitive),
        "dtype": row.dtype,
        "shape": row.shape,
        "source": printable(site.source),
        "short": row.source,
        "operands": [places.get(name, printable(name)) for name in site.operands],
        "reads": reads_of(site),
        "float": isinstance(row.min, float),
        "backward": row.backward,
        "over": overflows(row, formats),
        "seen": _seen(row.min, row.max, row.nan, site.dtype),
        "lead": row.lead,
        "each": list(_each(entry)) if row.lead else [],
        "exponents": _exponents(entry),
    }
    return {
        "scope": scopes.of(scope),
        "label": label,
        **{name: value for name, value in told.items() if value},
    }


def overflows(row: Row, formats: Sequence[Format]) -> list[int]:
    """The indices of the formats with an end that something seen is beyond; of floats only.

    Unscaled, and before rounding, which brings what is beyond by half a step back to the end.
    """
    if row.min is None or row.max is None or not isinstance(row.min, float):
        return []
    return [i for i, f in enumerate(formats) if row.min < f.least or row.max > f.largest]


def _seen(least: Number | None, most: Number | None, nan: bool, dtype: np.dtype) -> Plain:
    """Of what was not observed nothing."""
    told: Plain = {"nan": True} if nan else {}
    if least is not None and most is not None:
        told |= {"min": number_text(least, dtype), "max": number_text(most, dtype)}
    return told


def _each(entry: Entry) -> Iterator[Plain]:
    """One for each index of the leading axes, the last of these fastest."""
    found = entry.ranges[entry.site.name]
    lo, hi, nan = (np.asarray(x).reshape(-1) for x in (found.min, found.max, found.nan))
    if not lo.size:
        return
    starts = np.arange(0, lo.size, -(-lo.size // MOST_POINTS))
    lo, hi, nan = (
        how.reduceat(_native(part), starts)
        for how, part in ((np.minimum, lo), (np.maximum, hi), (np.logical_or, nan))
    )
    for least, most, has_nan in zip(lo.tolist(), hi.tolist(), nan.tolist(), strict=True):
        ends = (least, most) if least <= most else (None, None)
        yield _seen(*ends, has_nan, entry.site.dtype)


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int64) if array.dtype.kind == "V" else array  # int4 and the like


def _exponents(entry: Entry) -> Plain | None:
    """The counts from the first exponent that was seen to the last one."""
    name, ranges = entry.site.name, entry.ranges
    if not ranges.has(name, Exponents()):
        return None
    found: ExponentCounts = ranges.of(name, Exponents())
    width = len(found.exponents)
    negative, positive = (
        side.reshape(-1, width).sum(0) for side in (found.negative, found.positive)
    )
    others = {k: int(np.sum(getattr(found, k))) for k in ("zero", "neg_inf", "pos_inf", "nan")}
    (seen,) = np.nonzero(negative + positive)
    if not seen.size:
        return others if any(others.values()) else None
    part = slice(int(seen[0]), int(seen[-1]) + 1)
    return {
        "first": int(found.exponents[seen[0]]),
        "negative": negative[part].tolist(),
        "positive": positive[part].tolist(),
        **others,
    }


# -- what moved -------------------------------------------------------------------------------


def _change(row: DiffRow | None) -> Plain:
    """What a comparison adds to a site."""
    if row is None:
        return {}
    told: Plain = {"changes": row.changes, "score": plain(row.score)}
    if row.before is not None:
        old = row.before
        told["before"] = _seen(old.min, old.max, old.nan, old.site.dtype)
    if row.after is None:  # the site is that of before, and so would be what was seen there
        told |= {"seen": {}, "over": []}
    return told
