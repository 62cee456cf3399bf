"""The table of a diff: a line for each site to which something happened, the worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from jax_ranges.diff import KINDS, Diff, DiffRow
from jax_ranges.files.numbers import number_text as exact_text
from jax_ranges.files.records import Record
from jax_ranges.report import rows as texts
from jax_ranges.report.grid import Cell, Column, Grid, column
from jax_ranges.report.names import name_column
from jax_ranges.report.tables import ALARM, plain

STYLES: dict[str, str] = {
    **dict.fromkeys(("nan appeared", "inf appeared", "appeared", "went", "now observed"), ALARM),
    **dict.fromkeys(("widened", "shifted"), "yellow"),
}


def diff_table(diff: Diff, limit: int | None = None) -> Grid:
    """A rich renderable of the sites that changed, or of the first `limit` of them.

    What does not exceed the threshold is dim.
    """
    rows = diff.changed
    shown = rows if limit is None or len(rows) <= limit else rows[:limit]
    hidden = len(rows) - len(shown)
    styles = ["" if row.score > diff.threshold else "dim" for row in shown]
    order = [*range(len(shown)), *([None] if hidden else [])]
    elided = f"… {hidden:,} more"
    return Grid(layouts(shown), order, styles.__getitem__, elided, _caption(diff))


def diff_summary(diff: Diff, limit: int = 20) -> str:
    """What `repr` shows: a line that counts, and the first rows."""
    table = diff_table(diff, limit)
    head = f"Diff: {''.join(text for text, _ in table.caption)}"
    if not table.rows:
        return head
    return f"{head}\n{plain(Grid(table.layouts, table.rows, table.styles, table.elided))}"


def layouts(rows: Sequence[DiffRow]) -> list[tuple[Column, ...]]:
    """The columns of what moved, for widths from wide to narrow.

    Source and type go first, then all changes but the worst, then `before`.
    """
    names = [row.name for row in rows]
    pairs = [_pair(row) for row in rows]
    worst = [next(iter(row.changes), "") for row in rows]
    before = _texts("before", [pair[0] for pair in pairs], lambda i: "")
    after = _texts("after", [pair[1] for pair in pairs], lambda i: STYLES.get(worst[i], ""))
    score = _texts("score", [texts.number_text(row.score) for row in rows], lambda i: "", True)
    change = _texts("change", worst, lambda i: STYLES.get(worst[i], ""))
    changes = _texts(
        "change", [", ".join(row.changes) for row in rows], lambda i: STYLES.get(worst[i], "")
    )
    kind = _texts("type", [_type(row) for row in rows], lambda i: "cyan")
    return [
        (name_column(names, 40), kind, before, after, score, changes, _sources(rows)),
        (name_column(names, 32), before, after, score, changes),
        (name_column(names, 20), before, after, score, change),
        (name_column(names, 16), after, score, change),
        (name_column(names, 8), score, change),
        (name_column(names, 8), score),
    ]


def _sources(rows: Sequence[DiffRow]) -> Column:
    sources = [texts.printable(_source(row)) for row in rows]
    return column("source", sources, lambda i, w: [(texts.cut_left(sources[i], w), "dim")], 16)


def _texts(
    title: str, cells: Sequence[str], style: Callable[[int], str], right: bool = False
) -> Column:
    return column(title, cells, lambda i, width: [(cells[i], style(i))], right=right)


# -- texts ------------------------------------------------------------------------------------


def _source(row: DiffRow) -> str:
    """Where the site is in the newer program; files of text do not say."""
    found = [record.site.source for record in (row.after, row.before) if record]
    return next(filter(None, found), "")


def _type(row: DiffRow) -> str:
    """The dtype, both if it is another one."""
    found = [record.site.dtype for record in (row.before, row.after) if record]
    return "->".join(map(texts.dtype_text, dict.fromkeys(found)))


def _pair(row: DiffRow) -> tuple[str, str]:
    """Both ranges, in four digits unless more are needed to see a difference."""
    before, after = (_text(record, texts.number_text) for record in (row.before, row.after))
    if before == after:
        before, after = _exact(row.before), _exact(row.after)
    return before, after


def _exact(record: Record | None) -> str:
    return _text(record, lambda value: exact_text(value, record.site.dtype)) if record else ""


def _text(record: Record | None, number: Callable[[texts.Number], str]) -> str:
    if record is None:
        return "absent"
    if not record.observed:
        return "not observed"
    nan = "NaN" if record.nan else ""
    if record.min is None:
        return nan
    return f"[{number(record.min)}, {number(record.max)}] {nan}".rstrip()


def _caption(diff: Diff) -> Cell:
    beyond = len(diff.violations)
    runs = [
        (f"{len(diff.changed):,} of {texts.sites_text(len(diff.rows))} changed", "bold"),
        (f" · {beyond:,} beyond {texts.number_text(diff.threshold)}", ALARM if beyond else "green"),
    ]
    counts = Counter(change for row in diff.changed for change in row.changes)
    for kind in filter(counts.get, KINDS):
        runs.append((f" · {counts[kind]:,} {kind}", STYLES.get(kind, "")))
    return runs
