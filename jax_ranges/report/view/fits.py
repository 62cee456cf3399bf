"""Fits: what the number formats would do to the values of one site."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jax_ranges.advice import AdviceRow, advise
from jax_ranges.formats import Format
from jax_ranges.report.advice_table import decibels_text, share_text
from jax_ranges.report.entries import Entry
from jax_ranges.report.grid import Column, Grid, column
from jax_ranges.report.rows import Row, number_text, power_text
from jax_ranges.report.tables import ALARM


def fits_table(entry: Entry, formats: Sequence[Format], chosen: int) -> Grid:
    """A line for each format, that by which sites are judged in bold."""
    name = entry.site.name
    advice = advise(entry.ranges.select(lambda site: site.name == name), formats)
    rows = {row.format: row for row in advice.rows}
    found = [rows[fmt.name] for fmt in formats]
    unknown = any(row.unscaled.underflow is None for row in found)
    caption = [("how much of it: take jr.Exponents()", "dim")] if unknown else []
    return Grid(
        _layouts(entry.row, formats, found),
        range(len(formats)),
        lambda i: "bold" if i == chosen else "",
        caption=caption,
    )


def _layouts(
    row: Row, formats: Sequence[Format], found: Sequence[AdviceRow]
) -> list[tuple[Column, ...]]:
    """From wide to narrow: what is lost with a scale goes first, then what is without."""
    names = _column("format", [fmt.name for fmt in formats], ["cyan"] * len(formats))
    verdicts = [excess_text(row, fmt) for fmt in formats]
    styles = [ALARM if text else "green" for text in verdicts]
    verdict = _column("as it is", [text or "fits" for text in verdicts], styles)
    over = _numbers("overflow", [share_text(each.unscaled.overflow, each) for each in found])
    under = _numbers("underflow", [share_text(each.unscaled.underflow) for each in found])
    scale = _numbers("best scale", [_scale_text(each) for each in found])
    snr = _numbers("dB with it", [decibels_text(each.snr_db) for each in found])
    return [
        (names, verdict, over, under, scale, snr),
        (names, verdict, over, under),
        (names, verdict),
    ]


def excess_text(row: Row, fmt: Format) -> str:
    """By how much what was seen is beyond a format without a scale; "" if it is not.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> from jax_ranges.report.rows import rows_of
      >>> (row,) = rows_of(jr.ranges(jnp.negative)(jnp.array([-672.0]))[1])
      >>> excess_text(row, jr.format_of("float8_e4m3fn")), excess_text(row, jr.format_of("float16"))
      ('1.5× too large', '')
    """
    if row.min is None or row.max is None:
        return ""
    least = row.min / fmt.least if fmt.least else 0.0
    times = max(row.max / fmt.largest, least)
    if times <= 1:
        return "" if fmt.least <= row.min else "below zero"
    return "inf was seen" if row.infinite else f"{number_text(float(f'{times:.2g}'))}× too large"


def _scale_text(row: AdviceRow) -> str:
    return "1" if row.scale == 1 else power_text(math.frexp(row.scale)[1] - 1)


def _column(title: str, cells: Sequence[str], styles: Sequence[str]) -> Column:
    return column(title, cells, lambda i, w: [(cells[i], styles[i])])


def _numbers(title: str, cells: Sequence[str]) -> Column:
    return column(title, cells, lambda i, w: [(cells[i], "")], right=True)
