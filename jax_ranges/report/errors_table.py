"""The table of errors: a line for each site, the largest introduced error first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from jax_ranges.errors import ErrorReport, ErrorRow, decibels
from jax_ranges.report import rows as texts
from jax_ranges.report.grid import Cell, Column, Grid, Run, column
from jax_ranges.report.tables import ALARM, plain

POOR_DB, BAD_DB = 30.0, 10.0
"""Signal to noise below which an error is yellow, and red: 3% and 30% of the signal."""

Style = Callable[[int], str]


def errors_table(report: ErrorReport, limit: int | None = None) -> Grid | str:
    """A rich renderable of all rows, or of the first `limit` of them.

    Sites without any error are counted only.
    """
    why = texts.unreadable_leaves(report)
    if why:
        return f"ErrorReport: {texts.sites_text(len(report))} ({why})"
    shown = [row for row in report.rows if row.observed and (row.introduced or row.total)]
    shown, hidden = shown[:limit], len(shown[limit:]) if limit is not None else 0
    order = [*range(len(shown)), *([None] if hidden else [])]
    return Grid(_layouts(shown), order, lambda i: "", f"… {hidden:,} more", _caption(report))


def errors_summary(report: ErrorReport, limit: int = 20) -> str:
    """What `repr` shows: a line that counts, and the first rows."""
    table = errors_table(report, limit)
    if isinstance(table, str):
        return table
    head = f"ErrorReport: {''.join(text for text, _ in table.caption)}"
    if not table.rows:
        return head
    return f"{head}\n{plain(Grid(table.layouts, table.rows, table.styles, table.elided))}"


def _layouts(rows: Sequence[ErrorRow]) -> list[tuple[Column, ...]]:
    """From wide to narrow: the source goes first, then the type, then absolute errors."""
    introduced = _errors("introduced", rows, "introduced")
    inherited = _errors("inherited", rows, "inherited")
    total = _errors("total", rows, "total")
    largest = _texts("largest", [texts.number_text(row.largest_total) for row in rows])
    local_db = _texts("dB", [decibels_text(row.introduced) for row in rows])
    total_db = _texts("total dB", [decibels_text(row.total) for row in rows])
    lost = _texts("NaN/inf", [_count(row.nonfinite) for row in rows], lambda i: ALARM)
    lost_too = [lost] if any(row.nonfinite for row in rows) else []
    kinds = [texts.dtype_text(np.dtype(row.dtype)) for row in rows]
    kind = column("type", kinds, lambda i, w: [(texts.cut_right(kinds[i], w), "cyan")])
    three = (introduced, inherited, total)
    most = (introduced, local_db, inherited, total, total_db, largest)
    return [
        (_names(rows, 36), kind, *most, *lost_too, _sources(rows)),
        (_names(rows, 28), *most, *lost_too, _sources(rows)),
        (_names(rows, 24), *three, *lost_too, _sources(rows)),
        (_names(rows, 16), *three, *lost_too),
        (_names(rows, 12), introduced, total),
        (_names(rows, 8), introduced),
    ]


def _names(rows: Sequence[ErrorRow], least: int) -> Column:
    """The scopes stand back behind the operation."""
    names = [texts.printable(row.site) for row in rows]

    def cell(i: int, width: int) -> list[Run]:
        scope, slash, last = texts.cut_name(names[i], width).rpartition("/")
        return [(scope + slash, "dim"), (last, "")]

    return column("site", names, cell, least)


def _sources(rows: Sequence[ErrorRow]) -> Column:
    short = texts.shortener()
    sources = [short(row.source) for row in rows]
    return column("source", sources, lambda i, w: [(texts.cut_left(sources[i], w), "dim")], 12)


def _errors(title: str, rows: Sequence[ErrorRow], kind: str) -> Column:
    errors = [getattr(row, kind) for row in rows]
    return _texts(title, [relative_text(error) for error in errors], lambda i: _style(errors[i]))


def _texts(title: str, cells: Sequence[str], style: Style = lambda i: "") -> Column:
    return column(title, cells, lambda i, width: [(cells[i], style(i))], right=True)


def _style(error: float) -> str:
    found = decibels(error)
    return ALARM if found < BAD_DB else "yellow" if found < POOR_DB else ""


# -- texts ------------------------------------------------------------------------------------


def relative_text(error: float) -> str:
    """A relative error in per cent, as long as that can be read.

    Example:
      >>> [relative_text(error) for error in (0.0, 1.2e-7, 0.00153, 0.5, 30.0, math.inf)]
      ['0', '1.2e-07', '0.153%', '50%', '30×', 'NaN/inf']
    """
    if error == 0 or math.isinf(error):
        return "NaN/inf" if error else "0"
    if error < 1e-5:
        return f"{error:.1e}"
    return f"{100 * error:.3g}%" if error < 10 else f"{error:.3g}×"


def decibels_text(error: float) -> str:
    """Signal to noise, of an error."""
    found = decibels(error)
    return "" if math.isinf(found) else f"{found:.1f}"


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _caption(report: ErrorReport) -> Cell:
    rows = report.rows
    makers = sum(row.introduced > 0 for row in rows)
    clean = sum(row.observed and not row.introduced and not row.total for row in rows)
    unseen = sum(not row.observed for row in rows)
    runs = [(f"{makers:,} of {texts.sites_text(len(rows))} introduce error", "bold")]
    runs += [(f" · {clean:,} exact", "green")] if clean else []
    runs += [(f" · {unseen:,} not observed", "dim")] if unseen else []
    for row in report.outputs:
        runs.append((f" · {row.site} {relative_text(row.total)}", _style(row.total)))
    return runs
