"""Ranges in a notebook: a table in HTML that needs nothing but itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from jax_ranges.ranges import Ranges
from jax_ranges.report import rows as texts
from jax_ranges.report.rows import Gauge, Row, rows_of, unreadable
from jax_ranges.report.tables import summary

LIMIT = 200

# Colours that are read on white and on black; the rest is the notebook's own, paler or not.
RED, BLUE, AMBER = "#e5484d", "#3e8fd0", "#d9912b"
LEFT, RIGHT = "text-align:left", "text-align:right;font-variant-numeric:tabular-nums"
EDGE = "1px solid rgba(128,128,128,.35)"


def ranges_html(ranges: Ranges, limit: int = LIMIT) -> str:
    """The first `limit` sites as a table that scrolls; one line where there are no numbers."""
    if unreadable(ranges):
        return f"<pre>{escape(summary(ranges))}</pre>"
    rows = rows_of(ranges)
    gauge = Gauge.of(rows)
    body = "".join(_line(row, gauge) for row in rows[:limit])
    return (
        f'<div style="max-height:36em;overflow:auto;max-width:100%">'
        f'<table style="border-collapse:collapse;font-size:12px;white-space:nowrap">'
        f"{_header(gauge)}<tbody>{body}</tbody></table></div>{_caption(rows, limit)}"
    )


def _header(gauge: Gauge) -> str:
    low, high = gauge.labels()
    titles = [
        ("site", LEFT),
        ("shape", LEFT),
        ("dtype", LEFT),
        ("min", RIGHT),
        ("max", RIGHT),
        ("nan", LEFT),
        (f"{low} … {high}", LEFT),
        ("source", LEFT),
    ]
    cells = "".join(
        f'<th style="{align};padding:2px 8px;border-bottom:{EDGE}">{title}</th>'
        for title, align in titles
    )
    return f"<thead><tr>{cells}</tr></thead>"


def _line(row: Row, gauge: Gauge) -> str:
    pale = "" if row.observed else ' style="opacity:.5"'
    name = f'<span style="opacity:.6">{escape(row.scope)}/</span>' if row.scope else ""
    last = row.name[len(row.scope) + 1 :] if row.scope else row.name
    cells = [
        _cell(f"{name}{escape(last)}", f"{LEFT};font-family:monospace"),
        _cell(escape(row.shape), LEFT),
        _cell(escape(row.dtype), LEFT),
        *_extremes(row),
        _cell(_red("NaN") if row.nan else "", LEFT),
        _cell(_bar(row, gauge) + _spark(row), LEFT),
        _cell(escape(row.source), f"{LEFT};opacity:.6"),
    ]
    return f"<tr{pale}>{''.join(cells)}</tr>"


def _cell(content: str, style: str, more: str = "") -> str:
    return f'<td{more} style="{style};padding:1px 8px">{content}</td>'


def _red(text: str) -> str:
    return f'<b style="color:{RED}">{text}</b>'


def _extremes(row: Row) -> Sequence[str]:
    if not row.observed:
        return [_cell("not observed", f"{RIGHT};font-style:italic", ' colspan="2"')]
    return [_cell(_number(value), RIGHT) for value in (row.min, row.max)]


def _number(value: texts.Number | None) -> str:
    if value is None:
        return _red("nan")
    text = texts.number_text(value)
    return _red(text) if math.isinf(value) else text


def _bar(row: Row, gauge: Gauge) -> str:
    position = gauge.position(row)
    if position is None:
        return ""
    colour = RED if row.infinite else AMBER if position > 1 else BLUE
    style = f"width:{max(round(120 * min(position, 1.0)), 1)}px;height:.8em;background:{colour}"
    return f'<div style="width:120px"><div style="{style}"></div></div>'


def _spark(row: Row) -> str:
    return f'<span style="font-family:monospace">{texts.spark_text(row.each, 16)}</span>'


def _caption(rows: Sequence[Row], limit: int) -> str:
    parts = [texts.sites_text(len(rows))]
    parts += [f"{count:,} {what}" for what, count in texts.counts(rows).items()]
    if len(rows) > limit:
        parts.append(f"{len(rows) - limit:,} more not shown; ranges.select(...) picks some")
    return f'<div style="font-size:12px;opacity:.8">{" · ".join(parts)}</div>'
