"""The table of a guard: a line for each site that left its expected range, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from jax_ranges.expected import Expectation
from jax_ranges.files.numbers import number_text as exact_text
from jax_ranges.files.records import Record
from jax_ranges.guard import KINDS, Violation, Violations
from jax_ranges.report import rows as texts
from jax_ranges.report.grid import Cell, Column, Grid, Run, column
from jax_ranges.report.tables import ALARM, plain

STYLES: dict[str, str] = {
    **dict.fromkeys(("nan", "inf", "unexpected"), ALARM),
    **dict.fromkeys(("above", "below"), "yellow"),
}


def violations_table(violations: Violations, limit: int | None = None) -> Any:
    """A rich renderable of the sites in violation, or of the first `limit` of them."""
    why = texts.unreadable(violations.seen)
    if why:
        return f"{texts.sites_text(len(violations.sites))} guarded, {why}"
    rows = violations.rows
    shown = rows if limit is None or len(rows) <= limit else rows[:limit]
    hidden = len(rows) - len(shown)
    order = [*range(len(shown)), *([None] if hidden else [])]
    elided = f"… {hidden:,} more"
    return Grid(_layouts(shown), order, lambda i: "", elided, _caption(violations, rows))


def violations_summary(violations: Violations, limit: int = 20) -> str:
    """What `repr` shows: a line that counts, and the first rows."""
    table = violations_table(violations, limit)
    if isinstance(table, str):
        return f"Violations: {table}"
    head = f"Violations: {''.join(text for text, _ in table.caption)}"
    if not table.rows:
        return head
    return f"{head}\n{plain(Grid(table.layouts, table.rows, table.styles, table.elided))}"


def headline(violations: Violations, expectation: Expectation) -> str:
    """The first line of the error that a guard raises."""
    count = len(violations.rows)
    return (
        f"{count:,} of {texts.sites_text(len(violations.sites))} left what was expected "
        f"(tolerance={expectation.tolerance:g}, atol={expectation.atol:g}):"
    )


def sentence(row: Violation) -> str:
    """What is wrong with a site, and where it is."""
    where = f" ({row.site.source})" if row.site.source else ""
    return (
        f"{texts.printable(row.site.name)}{where}: {', '.join(row.what)}; "
        f"saw {_text(row.seen)}, expected {_text(row.expected)}"
    )


def _layouts(rows: Sequence[Violation]) -> list[tuple[Column, ...]]:
    """From wide to narrow: source and type go, then the expected range."""
    pairs = [_pair(row) for row in rows]
    seen = _texts("seen", [pair[0] for pair in pairs], lambda i: STYLES[rows[i].what[0]])
    expected = _texts("expected", [pair[1] for pair in pairs], lambda i: "")
    excess = _texts("excess", [texts.number_text(r.excess) for r in rows], lambda i: "", True)
    what = _texts("what", [", ".join(r.what) for r in rows], lambda i: STYLES[rows[i].what[0]])
    kind = _texts("type", [texts.dtype_text(row.site.dtype) for row in rows], lambda i: "cyan")
    return [
        (_names(rows, 40), kind, what, seen, expected, excess, _sources(rows)),
        (_names(rows, 32), what, seen, expected, excess, _sources(rows)),
        (_names(rows, 24), what, seen, expected, excess),
        (_names(rows, 16), what, seen, excess),
        (_names(rows, 8), what, excess),
        (_names(rows, 8), what),
    ]


def _names(rows: Sequence[Violation], least: int) -> Column:
    """The scopes stand back behind the operation."""
    names = [texts.printable(row.site.name) for row in rows]

    def cell(i: int, width: int) -> list[Run]:
        scope, slash, last = texts.cut_name(names[i], width).rpartition("/")
        return [(scope + slash, "dim"), (last, "")]

    return column("site", names, cell, least)


def _sources(rows: Sequence[Violation]) -> Column:
    sources = [texts.printable(row.site.source) for row in rows]
    return column("source", sources, lambda i, w: [(texts.cut_left(sources[i], w), "dim")], 16)


def _texts(
    title: str, cells: Sequence[str], style: Callable[[int], str], right: bool = False
) -> Column:
    return column(title, cells, lambda i, width: [(cells[i], style(i))], right=right)


def _pair(row: Violation) -> tuple[str, str]:
    """Both ranges, in four digits unless more are needed to see a difference."""
    seen, expected = _text(row.seen), _text(row.expected)
    return (seen, expected) if seen != expected else (_exact(row.seen), _exact(row.expected))


def _exact(record: Record) -> str:
    return _text(record, lambda value: exact_text(value, record.site.dtype))


def _text(record: Record, number: Callable[[texts.Number], str] = texts.number_text) -> str:
    if not record.observed:
        return "not observed"
    nan = "NaN" if record.nan else ""
    if record.min is None:
        return nan
    return f"[{number(record.min)}, {number(record.max)}] {nan}".rstrip()


def _caption(violations: Violations, rows: Sequence[Violation]) -> Cell:
    count = f"{len(rows):,} of {texts.sites_text(len(violations.sites))}"
    runs = [(f"{count} left what was expected", ALARM if rows else "green")]
    kinds = Counter(what for row in rows for what in row.what)
    runs += [(f" · {kinds[kind]:,} {kind}", STYLES[kind]) for kind in KINDS if kinds[kind]]
    apart = {
        "not run": violations.not_run,
        "unknown": violations.unknown,
        "missing": violations.missing,
    }
    return [
        *runs,
        *((f" · {len(names):,} {what}", "dim") for what, names in apart.items() if names),
    ]
