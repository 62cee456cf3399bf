"""Bars: one a site from its min to its max."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jax_ranges.formats import Format
from jax_ranges.report.html import AMBER, BLUE, RED
from jax_ranges.report.page.document import overflows
from jax_ranges.report.plots.canvas import (
    GREY,
    SMALL,
    draw_limits,
    edge_of,
    figure,
    name_text,
    picked,
    signed_log,
    span_of,
    title_text,
)
from jax_ranges.report.rows import Row, number_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bars(rows: Sequence[Row], formats: Sequence[Format], sort: str, limit: int) -> Figure:
    """The figure: rows from top to bottom, and beside them what no bar can say."""
    shown = picked(rows, sort, limit)
    low, high = span_of(rows, formats)
    found = figure(10, 1.6 + 0.19 * len(shown))
    axes = found.subplots()
    signed_log(axes, "x", low, high, _signs(shown))
    edge = edge_of(high)
    places = range(len(shown))
    axes.set_yticks(places, [name_text(row.name) for row in shown], fontsize=SMALL)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)
    draw_limits(axes, "x", formats, edge)
    for colour, label in _colours(formats).items():
        members = [i for i in places if _colour(shown[i], formats) == colour]
        _draw(axes, [(i, shown[i]) for i in members], edge, colour, label)
    for i, row in enumerate(shown):
        _note(axes, i, row, edge)
    axes.set_title(title_text(len(shown), len(rows), sort), fontsize=10, loc="left")
    found.legend(loc="outside lower center", ncols=3, fontsize=SMALL, frameon=False)
    return found


def _signs(rows: Sequence[Row]) -> tuple[int, ...]:
    below = any(row.min is not None and row.min < 0 for row in rows)
    above = any(row.max is not None and row.max > 0 for row in rows)
    return (-1, 1) if below and above else (-1,) if below else (1,)


def _colours(formats: Sequence[Format]) -> dict[str, str]:
    over = f"beyond {formats[0].name}" if formats else ""
    return {BLUE: "floats", AMBER: over, RED: "with NaN or inf", GREY: "integers, booleans"}


def _colour(row: Row, formats: Sequence[Format]) -> str:
    if row.nan or row.infinite:
        return RED
    if not isinstance(row.min, float):
        return GREY
    return AMBER if overflows(row, formats[:1]) else BLUE


def _draw(axes: Any, rows: Sequence[tuple[int, Row]], edge: float, colour: str, label: str) -> None:
    """Bars of one colour, with a stroke at either end, so that a single value is seen too."""
    spans = [(i, *_within(row, edge)) for i, row in rows if row.min is not None]
    if not spans:
        return
    places, least, most = zip(*spans, strict=True)
    axes.hlines(places, least, most, color=colour, linewidth=6, alpha=0.55, label=label)
    axes.plot([*least, *most], [*places, *places], "|", color=colour, markersize=7)
    for end, ends, marker in ((-edge, least, "<"), (edge, most, ">")):
        if at := [i for i, x in zip(places, ends, strict=True) if x == end]:
            axes.plot([end] * len(at), at, marker, color=colour, markersize=5, clip_on=False)


def _within(row: Row, edge: float) -> tuple[float, float]:
    """The ends of a bar; what is beyond the scale ends there."""
    assert row.min is not None and row.max is not None
    least, most = (min(max(float(x), -edge), edge) for x in (row.min, row.max))
    return least, most


def _note(axes: Any, place: int, row: Row, edge: float) -> None:
    text = note_text(row, edge)
    colour = RED if row.nan or row.infinite else GREY
    where = {"xycoords": axes.get_yaxis_transform(), "va": "center"}
    bold = "bold" if row.nan or row.infinite else "normal"
    style = {"fontsize": SMALL - 1, "color": colour, "fontweight": bold}
    axes.annotate(text, (1.01, place), annotation_clip=False, **where, **style)


def note_text(row: Row, edge: float) -> str:
    """What a row's bar cannot say: NaN, that nothing was observed, ends beyond the scale."""
    if not row.observed:
        return "not observed"
    if row.min is None or row.max is None:
        return "only NaN"
    ends = dict.fromkeys(number_text(x) for x in (row.min, row.max) if abs(x) > edge)
    return ", ".join([*["NaN"] * row.nan, *ends])
