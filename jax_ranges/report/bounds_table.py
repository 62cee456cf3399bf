"""The table of proven ranges: what each site can be, what it was, and what certainly holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jax_ranges.bounds.result import Bounds, BoundsRow
from jax_ranges.files.records import Record
from jax_ranges.report import rows as texts
from jax_ranges.report.grid import Cell, Column, Grid, Run, column
from jax_ranges.report.tables import plain


def bounds_table(bounds: Bounds, limit: int | None = None) -> Grid:
    """A rich renderable of all sites, or of the first `limit` of them."""
    rows = bounds.rows
    shown = rows if limit is None or len(rows) <= limit else rows[:limit]
    hidden = len(rows) - len(shown)
    order = [*range(len(shown)), *([None] if hidden else [])]
    return Grid(_layouts(shown), order, lambda i: "", f"… {hidden:,} more", _caption(bounds))


def bounds_summary(bounds: Bounds, limit: int = 20) -> str:
    """What `repr` shows: a line that counts, and the first rows."""
    table = bounds_table(bounds, limit)
    head = f"Bounds: {''.join(text for text, _ in table.caption)}"
    if not table.rows:
        return head
    return f"{head}\n{plain(Grid(table.layouts, table.rows, table.styles, table.elided))}"


def _layouts(rows: Sequence[BoundsRow]) -> list[tuple[Column, ...]]:
    """From wide to narrow: source goes, then the format and what was observed."""
    seen = _texts("observed", [_observed(row.observed) for row in rows], lambda i: "")
    proven = _texts("proven", [_proven(row) for row in rows], lambda i: _style(rows[i]))
    kind = _texts("type", [texts.dtype_text(row.site.dtype) for row in rows], lambda i: "cyan")
    fits = _texts("holds it", [row.format or "none" for row in rows], lambda i: "dim")
    verdicts = [row.verdict for row in rows]
    verdict = column(
        "verdict", verdicts, lambda i, w: [(texts.cut_right(verdicts[i], w), _style(rows[i]))], 24
    )
    sources = [texts.printable(row.site.source) for row in rows]
    source = column("source", sources, lambda i, w: [(texts.cut_left(sources[i], w), "dim")], 16)
    return [
        (_names(rows, 36), kind, seen, proven, fits, verdict, source),
        (_names(rows, 28), kind, seen, proven, fits, verdict),
        (_names(rows, 20), kind, proven, fits, verdict),
        (_names(rows, 16), proven, verdict),
        (_names(rows, 8), proven),
    ]


def _style(row: BoundsRow) -> str:
    return "green" if row.proven.finite else "yellow"


def _names(rows: Sequence[BoundsRow], least: int) -> Column:
    """The scopes stand back behind the operation."""
    names = [texts.printable(row.site.name) for row in rows]

    def cell(i: int, width: int) -> list[Run]:
        scope, slash, last = texts.cut_name(names[i], width).rpartition("/")
        return [(scope + slash, "dim"), (last, "")]

    return column("site", names, cell, least)


def _texts(title: str, cells: Sequence[str], style: Callable[[int], str]) -> Column:
    return column(title, cells, lambda i, width: [(cells[i], style(i))])


def _proven(row: BoundsRow) -> str:
    proven = row.proven
    if proven.never:
        return "never"
    nan = "NaN" if proven.may_nan else ""
    if proven.lo > proven.hi:
        return nan
    return f"[{texts.number_text(proven.lo)}, {texts.number_text(proven.hi)}] {nan}".rstrip()


def _observed(record: Record | None) -> str:
    if record is None or not record.observed:
        return "" if record is None else "not observed"
    nan = "NaN" if record.nan else ""
    if record.min is None:
        return nan
    return f"[{texts.number_text(record.min)}, {texts.number_text(record.max)}] {nan}".rstrip()


def _caption(bounds: Bounds) -> Cell:
    rows = bounds.rows
    proven = sum(row.proven.finite for row in rows)
    runs = [(f"{proven:,} of {texts.sites_text(len(rows))} finite, proven", "bold")]
    overflow = sum(row.overflow == "possible" for row in rows)
    nan = sum(row.proven.may_nan for row in rows)
    if overflow:
        runs.append((f" · {overflow:,} may overflow", "yellow"))
    if nan:
        runs.append((f" · {nan:,} may be NaN", "yellow"))
    return runs
