"""The table of advice: a line for each site and format, the riskiest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from jax_ranges.advice import Advice, AdviceRow
from jax_ranges.report import rows as texts
from jax_ranges.report.grid import Cell, Column, Grid, column
from jax_ranges.report.names import name_column
from jax_ranges.report.tables import ALARM, plain

UNKNOWN = "–"

Style = Callable[[AdviceRow], str]


def advice_table(advice: Advice, limit: int | None = None) -> Grid:
    """A rich renderable of all rows, or of the first `limit` of them.

    "raw" is without a scale, the columns after the scale are with it; what is not safe is yellow.
    """
    rows = advice.rows
    shown = rows if limit is None or len(rows) <= limit else rows[:limit]
    hidden = len(rows) - len(shown)
    styles = ["dim" if row.risk is None else "" for row in shown]
    order = [*range(len(shown)), *([None] if hidden else [])]
    return Grid(_layouts(shown), order, styles.__getitem__, f"… {hidden:,} more", _caption(advice))


def advice_summary(advice: Advice, limit: int = 20) -> str:
    """What `repr` shows: a line that counts, and the first rows."""
    table = advice_table(advice, limit)
    head = f"Advice: {''.join(text for text, _ in table.caption)}"
    if not table.rows:
        return head
    return f"{head}\n{plain(Grid(table.layouts, table.rows, table.styles, table.elided))}"


def _layouts(rows: Sequence[AdviceRow]) -> list[tuple[Column, ...]]:
    """From wide to narrow: subnormals go first, then notes, then what happens without a scale."""

    def some(title: str, text: Callable[[AdviceRow], str], style: Style = _plain) -> Column:
        cells = [text(row) for row in rows]
        return column(title, cells, lambda i, w: [(cells[i], style(rows[i]))], right=True)

    names = [row.site for row in rows]
    fmt = _left("format", [row.format for row in rows], ["cyan"] * len(rows))
    bits = some("int bits", lambda row: _count(row.integer_bits))
    over = some("raw overflow", lambda row: share_text(row.unscaled.overflow, row), _overflow)
    under = some("raw underflow", lambda row: share_text(row.unscaled.underflow), _underflow)
    snr = some("raw dB", lambda row: decibels_text(row.unscaled.snr_db))
    scale = some("scale", _scale_text)
    over_scaled = some("overflow", lambda row: share_text(row.overflow))
    under_scaled = some("underflow", lambda row: share_text(row.underflow))
    subnormal = some("subnormal", lambda row: share_text(row.subnormal))
    snr_scaled = some("dB", lambda row: decibels_text(row.snr_db), _safety)
    smallest = _left("smallest", [row.smallest or UNKNOWN for row in rows], ["green"] * len(rows))
    notes = [row.note for row in rows]
    note = column("note", notes, lambda i, w: [(texts.cut_right(notes[i], w), "dim")], 12)
    scaled = (scale, over_scaled, under_scaled)
    unscaled = (fmt, bits, over, under, snr)
    return [
        (name_column(names, 32), *unscaled, *scaled, subnormal, snr_scaled, smallest, note),
        (name_column(names, 24), *unscaled, *scaled, snr_scaled, smallest, note),
        (name_column(names, 24), *unscaled, *scaled, snr_scaled, smallest),
        (name_column(names, 16), fmt, bits, over, scale, under_scaled, snr_scaled, smallest),
        (name_column(names, 16), fmt, over, scale, snr_scaled, smallest),
        (name_column(names, 12), fmt, scale, snr_scaled),
        (name_column(names, 8), fmt, snr_scaled),
        (name_column(names, 8), snr_scaled),
    ]


def _left(title: str, cells: Sequence[str], styles: Sequence[str]) -> Column:
    return column(title, cells, lambda i, w: [(cells[i], styles[i])])


# -- texts and styles -------------------------------------------------------------------------


def share_text(share: float | None, row: AdviceRow | None = None) -> str:
    """A share in per cent; "yes" where of an overflow no more is known.

    Example:
      >>> share_text(0.0), share_text(1e-7), share_text(0.0123), share_text(1.0)
      ('0', '<0.01%', '1.23%', '100%')
    """
    if share is None:
        return "yes" if row is not None and row.overflows else UNKNOWN
    if share == 0:
        return "0"
    return "<0.01%" if share < 1e-4 else f"{100 * share:.3g}%"


def decibels_text(snr_db: float | None) -> str:
    """Decibels, or that nothing is lost."""
    if snr_db is None:
        return UNKNOWN
    return "exact" if math.isinf(snr_db) else f"{snr_db:.1f}"


def _scale_text(row: AdviceRow) -> str:
    if row.risk is None or row.integer_bits is None:
        return UNKNOWN
    exponent = math.frexp(row.scale)[1] - 1
    return "1" if exponent == 0 else texts.power_text(exponent)


def _count(bits: int | None) -> str:
    return UNKNOWN if bits is None else str(bits)


def _plain(row: AdviceRow) -> str:
    del row
    return ""


def _overflow(row: AdviceRow) -> str:
    return ALARM if row.overflows else ""


def _underflow(row: AdviceRow) -> str:
    return "yellow" if (row.unscaled.underflow or 0.0) > 0.01 else ""


def _safety(row: AdviceRow) -> str:
    return {True: "green", False: "yellow", None: ""}[row.safe]


def _caption(advice: Advice) -> Cell:
    sites = {row.site for row in advice.rows}
    runs = [(f"{texts.sites_text(len(sites))}, the riskiest first", "bold")]
    known = any(row.safe is not None for row in advice.rows)
    for name in advice.formats if known else ():
        safe = sum(row.safe is True for row in advice.rows if row.format == name)
        runs.append((f" · {name} is safe at {safe:,}", "green" if safe == len(sites) else ""))
    if any("Exponents" in row.note for row in advice.rows):
        runs.append((" · shares need jr.Exponents()", "yellow"))
    return runs
