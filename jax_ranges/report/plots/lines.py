"""Lines: the largest magnitude of each site from dump to dump, or from iteration to iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jax_ranges.formats import Format
from jax_ranges.report.plots.canvas import (
    GREY,
    SMALL,
    draw_limits,
    edge_of,
    figure,
    name_text,
    signed_log,
    span_of,
)
from jax_ranges.report.rows import Row, gauged, sites_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Course:
    """The largest magnitude of a site along something, and of so many others the very same.

    It is NaN where one was seen, and None where nothing was.
    """

    name: str
    values: tuple[float | None, ...]
    sites: int = 1

    @property
    def finite(self) -> list[float]:
        return [x for x in self.values if x is not None and math.isfinite(x)]

    def where(self, test: Any) -> list[int]:
        return [i for i, x in enumerate(self.values) if x is not None and test(x)]

    @property
    def moved(self) -> float:
        """How many powers of two lie between its smallest and its largest value."""
        logs = [math.log2(x) for x in self.finite if x]
        return max(logs) - min(logs) if logs else 0.0


def over_dumps(
    dumps: Sequence[Sequence[Row]],
    labels: Sequence[str],
    formats: Sequence[Format],
    limit: int,
) -> Figure:
    """The figure for the rows of several dumps, in their order."""
    rows = [row for dump in dumps for row in dump]
    floats = dict.fromkeys(row.name for row in gauged(rows))
    found = [{row.name: _amax(row) for row in dump} for dump in dumps]
    courses = [Course(name, tuple(dump.get(name) for dump in found)) for name in floats]
    drawn, axes = _lines(courses, rows, formats, limit)
    step = -(-len(labels) // 12)
    axes.set_xticks(range(0, len(labels), step), labels[::step], fontsize=SMALL)
    if max(map(len, labels), default=0) > 6:
        axes.tick_params(axis="x", rotation=30)
    axes.set_xlabel("dump", fontsize=SMALL + 1)
    return drawn


def over_iterations(rows: Sequence[Row], formats: Sequence[Format], limit: int) -> Figure:
    """The figure for the rows with leading axes; ValueError if there are none."""
    courses = [Course(row.name, row.each) for row in gauged(rows) if len(row.each) > 0]
    if not courses:
        raise ValueError(
            'no site has a range for each iteration: take them with jr.ranges(f, loops="stack"), '
            "or one for each example with jax.vmap(jr.ranges(f))"
        )
    named = {course.name for course in courses}
    drawn, axes = _lines(courses, [row for row in rows if row.name in named], formats, limit)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.set_xlabel("iteration of the innermost loop (example, under vmap)", fontsize=SMALL + 1)
    return drawn


def _amax(row: Row) -> float | None:
    return math.nan if row.nan else row.amax


def _lines(
    courses: Sequence[Course], rows: Sequence[Row], formats: Sequence[Format], limit: int
) -> tuple[Figure, Any]:
    """Named lines for those that moved most, grey ones for the rest."""
    ranked = sorted(_told_apart(courses), key=_rank)
    named, rest = ranked[:limit], ranked[limit:]
    drawn = figure(10, 5)
    axes = drawn.subplots()
    low, high = span_of(rows, formats)
    signed_log(axes, "y", low, high, (1,))
    axes.grid(axis="y", alpha=0.25, linewidth=0.5)
    edge = edge_of(high)
    for course in rest:
        axes.plot(_heights(course, edge), color=GREY, linewidth=0.6, alpha=0.5, zorder=1)
    for i, course in enumerate(named):
        _draw(axes, course, f"C{i % 10}", edge)
    draw_limits(axes, "y", formats, edge)
    axes.set_ylabel("largest magnitude", fontsize=SMALL + 1)
    axes.set_title(_title(len(named), len(ranked), len(courses)), fontsize=10, loc="left")
    drawn.legend(loc="outside right upper", fontsize=SMALL - 1, frameon=False)
    return drawn, axes


def _rank(course: Course) -> tuple[bool, bool, float]:
    return not course.where(math.isnan), not course.where(math.isinf), -course.moved


def _title(named: int, lines: int, sites: int) -> str:
    if named == lines:
        return sites_text(sites)
    which = f"{named:,} lines named (NaN or inf, then what moved most)"
    return f"{sites_text(sites)}: {which}, the others grey"


def _told_apart(courses: Sequence[Course]) -> list[Course]:
    """One for all that are the same, which lie on one line: those of reshapes and the like."""
    alike: dict[str, list[Course]] = {}
    for course in courses:
        alike.setdefault(repr(course.values), []).append(course)  # NaN is not equal to itself
    return [replace(group[0], sites=len(group)) for group in alike.values()]


def _draw(axes: Any, course: Course, colour: str, edge: float) -> None:
    """A line with gaps where nothing was observed, and at the top ∞ and NaN."""
    more = f" + {course.sites - 1:,} alike" if course.sites > 1 else ""
    label = f"{name_text(course.name)}{more}{_note(course)}"
    axes.plot(_heights(course, edge), ".-", color=colour, label=label, linewidth=1.5)
    for test, marker in ((math.isinf, "^"), (math.isnan, "x")):
        if at := course.where(test):
            axes.plot(at, [edge] * len(at), marker, color=colour, clip_on=False, markersize=8)


def _heights(course: Course, edge: float) -> list[float]:
    """What a line is drawn through: nothing but numbers, no higher than the scale."""
    return [
        math.nan if x is None or not math.isfinite(x) else min(float(x), edge)
        for x in course.values
    ]


def _note(course: Course) -> str:
    """Where it was first NaN or infinite."""
    tests = (("NaN", math.isnan), ("inf", math.isinf))
    first = [f"{what} at {at[0]}" for what, test in tests if (at := course.where(test))]
    return f" ({', '.join(first)})" if first else ""
