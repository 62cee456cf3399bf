"""Tables for the terminal, and plain texts for `repr`."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from jax_ranges.plan import Plan
from jax_ranges.plan import Row as PlanRow
from jax_ranges.ranges import Ranges
from jax_ranges.report import rows as texts
from jax_ranges.report.grid import Cell, Column, Grid, Run, column
from jax_ranges.report.names import cut_cells, name_column, name_runs
from jax_ranges.report.order import Excerpt, excerpt
from jax_ranges.report.rows import Gauge, Row, cut_name, rows_of, unreadable
from jax_ranges.report.tree import Line, tree_lines

WIDEST = 160  # of a repr, however wide the terminal is
ALARM = "bold red"


def ranges_table(ranges: Ranges, limit: int | None = None) -> Any:
    """A rich renderable of all sites, or of the first and last of them, `limit` in total."""
    why = unreadable(ranges)
    if why:
        return head(len(ranges), why=why)
    rows = rows_of(ranges)
    return table(rows, excerpt(rows, limit=limit), caption(rows))


def plan_table(plan: Plan) -> Any:
    """A rich renderable: how the range of each site is had, why, and what it costs."""
    planned = plan.rows
    types = [texts.dtype_text(r.site.dtype) + texts.shape_text(r.site.shape) for r in planned]
    whys = [_nearby(row) for row in planned]
    elements = [_elements_text(row.elements) if row.elements else "" for row in planned]
    how = [row.how for row in planned]
    name = name_column([row.site.name for row in planned], 36)
    kind = column("type", types, lambda i, w: [(texts.cut_right(types[i], w), "cyan")], 12)
    read = column("elements", elements, lambda i, w: [(elements[i], "")], right=True)
    means = column("how", how, lambda i, w: [(how[i], HOW.get(how[i], ""))])
    why = column("why", whys, lambda i, w: [(texts.cut_right(whys[i], w), "dim")], 28)
    layouts = [
        (name, kind, means, read, why),
        (_least(name, 24), means, read, why),
        (_least(name, 16), means, read),
        (_least(name, 8), means),
    ]
    return Grid(layouts, range(len(planned)), lambda i: "", caption=_plan_caption(plan))


def _elements_text(elements: Any) -> str:
    return f"{elements:,}" if isinstance(elements, int) else str(elements)


def _nearby(row: PlanRow) -> str:
    """Why, with the names of sites in the row's own scope without the scope."""
    scope, slash, _ = row.site.name.rpartition("/")
    return texts.printable(row.why.replace(scope + slash, "") if scope else row.why)


HOW = {"measured": "yellow", "derived": "green", "constant": "blue"}


def summary(ranges: Ranges, limit: int = 20) -> str:
    """What `repr` shows: a line that counts, and the first and last rows. It never fails.

    Only the line where there are no numbers to read: inside jit, for example.
    """
    why = unreadable(ranges)
    rows = [] if why else rows_of(ranges)
    first = head(len(ranges), rows, why)
    return f"{first}\n{plain(table(rows, excerpt(rows, limit=limit)))}" if rows else first


def plain(renderable: Any, width: int | None = None) -> str:
    """The text of a renderable, without colours or trailing spaces.

    width: that of the terminal if None, 80 where there is none.
    """
    if width is None:
        width = min(shutil.get_terminal_size().columns, WIDEST)
    console = Console(
        file=io.StringIO(),
        width=width,
        height=100,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
        _environ={},
    )
    with console.capture() as captured:
        console.print(renderable, markup=False, highlight=False, soft_wrap=False)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))


def head(count: int, rows: Sequence[Row] = (), why: str = "") -> str:
    """How many sites there are, and how many of them out of the ordinary, or why none is shown."""
    parts = [texts.sites_text(count), *(f"{n:,} {what}" for what, n in texts.counts(rows).items())]
    return f"Ranges: {', '.join(parts)}" + (f" ({why})" if why else "")


# -- the table of ranges ----------------------------------------------------------------------


def table(rows: Sequence[Row], part: Excerpt, caption: Cell = ()) -> Grid:
    """A line a site."""
    shown = [rows[i] for i in part.shown]
    names = name_column([row.name for row in shown], 32)
    hidden = [rows[i] for i in part.hidden]
    return _grid(names, shown, len(part.head), hidden, Gauge.of(rows), caption)


def tree(rows: Sequence[Row], part: Excerpt, caption: Cell = ()) -> Grid:
    """A line a site, below the lines of its scopes."""
    lines = tree_lines(rows, part)
    labels = [line.guide + line.label for line in lines]
    names = column("site", labels, lambda i, w: _label(lines[i], w), 32)
    hidden = [rows[i] for i in part.hidden]
    shown = [line.row for line in lines]
    return _grid(names, shown, len(lines), hidden, Gauge.of(rows), caption)


def _grid(
    names: Column, rows: list[Row], before: int, hidden: list[Row], gauge: Gauge, caption: Cell
) -> Grid:
    """`before`: how many rows are above the line that stands for the hidden ones."""
    gap = [None] if hidden else []
    order = [*range(before), *gap, *range(before, len(rows))]
    dim = ["" if row.observed else "dim" for row in rows]
    return Grid(layouts(names, rows, gauge), order, dim.__getitem__, _elided(hidden), caption)


def _elided(hidden: Sequence[Row]) -> str:
    odd = "".join(f", {count:,} {what}" for what, count in texts.counts(hidden).items())
    return f"… {len(hidden):,} more{odd}"


def layouts(name: Column, rows: list[Row], gauge: Gauge) -> list[tuple[Column, ...]]:
    """The columns of ranges, for widths from wide to narrow.

    The source goes first, then type and shape are merged, and then bars.

    Where there are stacked loops, bars go before the courses along the loops: what a bar shows
    can be read from the numbers beside it, a course is nowhere else.
    """
    shape, dtype, merged = _types(rows)
    kinds = (merged,) if any(row.sites > 1 for row in rows) else (shape, dtype)
    least, nan, bar, source = _extremes(rows), _nan(rows), _bars(rows, gauge), _sources(rows)
    each = [_sparks(rows)] if any(row.lead for row in rows) else []
    reads = [_reads(rows)] if any(row.reads for row in rows) else []
    barless = [
        (_least(name, 20), merged, least, nan, *each),
        (_least(name, 16), least, nan, *each),
    ]
    return [
        (name, *kinds, least, nan, bar, *each, *reads, source),
        (name, *kinds, least, nan, bar, *each, *reads),
        (_least(name, 28), merged, least, nan, bar, *each, *reads),
        (_least(name, 24), merged, least, nan, _least(bar, 9), *each, *reads),
        *(barless if each else []),
        *([(_least(name, 16), least, nan, *reads)] if reads else []),
        (_least(name, 16), least, nan, _least(bar, 6)),
        (_least(name, 8), least),
    ]


def _least(column: Column, least: int) -> Column:
    return Column(column.title, column.natural, min(column.least, least), column.cell, column.right)


def _label(line: Line, width: int) -> list[Run]:
    """In a deep tree on a narrow terminal the guide gives way, so that names can be read."""
    guide = line.guide[: max(width // 2, width - 12)]
    room = width - len(guide)
    if line.row.sites == 1:
        return [(guide, "dim"), *name_runs(line.label, room)]
    return [(guide, "dim"), (cut_cells(line.label[:-1], room - 1) + "/", "bold")]


def _types(rows: list[Row]) -> tuple[Column, Column, Column]:
    merged = [row.dtype + row.shape for row in rows]
    return (
        _short("shape", [row.shape for row in rows], 12),
        _short("dtype", [row.dtype for row in rows], 12),
        _short("type", merged, 12),
    )


def _short(title: str, cells: list[str], least: int) -> Column:
    return column(title, cells, lambda i, w: [(texts.cut_right(cells[i], w), "cyan")], least)


def _extremes(rows: list[Row]) -> Column:
    """min and max as one column, so that "not observed" goes across both."""
    pairs = [_pair(row) for row in rows]
    left = max([3, *(len(low) for low, _ in pairs)])
    right = max([3, 10 - left, *(len(high) for _, high in pairs)])

    def cell(i: int, width: int) -> Cell:
        if not rows[i].observed:
            return [("not observed", "")]
        low, high = pairs[i]
        return [
            (low, _alarm(low)),
            (" " * (2 + right - len(high)), ""),
            (high, _alarm(high)),
        ]

    width = left + 2 + right
    return Column(lambda w: f"min{'max':>{2 + right}}", width, width, cell, right=True)


def _pair(row: Row) -> tuple[str, str]:
    """min and max as texts; of a scope, whose sites are of all kinds, the largest value."""
    if row.amax is None:
        return "nan" * row.nan, "nan" * row.nan
    if row.sites > 1:
        return "amax", texts.number_text(row.amax)
    return texts.number_text(row.min), texts.number_text(row.max)


def _alarm(text: str) -> str:
    return ALARM if text in ("inf", "-inf", "nan") else ""


def _nan(rows: list[Row]) -> Column:
    return column("nan", [], lambda i, w: [("NaN", ALARM)] if rows[i].nan else [])


def _bars(rows: list[Row], gauge: Gauge) -> Column:
    """Bars on one scale; its ends are the heading."""
    low, high = gauge.labels()
    places = [gauge.position(row) for row in rows]

    def title(width: int) -> str:
        room = width - 1 - len(low) - len(high)
        return f"{low}{' ' * room}{high}" if room > 0 else high.rjust(width - 1)

    def cell(i: int, width: int) -> Cell:
        style = ALARM if rows[i].infinite else "yellow" if (places[i] or 0) > 1 else "blue"
        return [(texts.bar_text(places[i], width - 1), style)]

    return Column(title, 25, 13, cell)


def _sparks(rows: list[Row]) -> Column:
    """What leading axes hold: their shape, and the course along the last of them."""
    leads = ["×".join(map(str, row.lead)) for row in rows]
    room = max([3, *map(len, leads)])

    def cell(i: int, width: int) -> Cell:
        spark = texts.spark_text(rows[i].each, width - room - 1)
        alarm = ALARM if {"∞", "×"} & set(spark) else "magenta"
        return [(f"{leads[i]:>{room}} ", ""), (spark, alarm)]

    longest = max([4, *(len(row.each) for row in rows)])
    return Column(lambda w: "each", room + 1 + min(longest, 24), room + 1 + min(longest, 8), cell)


def _reads(rows: list[Row]) -> Column:
    reads = [", ".join(row.reads) for row in rows]
    return column("reads", reads, lambda i, w: [(texts.cut_left(reads[i], w), "green")], 28)


def _sources(rows: list[Row]) -> Column:
    sources = [row.source for row in rows]
    return column("source", sources, lambda i, w: [(texts.cut_left(sources[i], w), "dim")], 16)


# -- captions ---------------------------------------------------------------------------------


def caption(rows: Sequence[Row], sorted_how: str = "") -> Cell:
    """Below a table: how many rows there are, in which order, and what stands out."""
    found = texts.counts(rows)
    styles = {"not observed": "dim", "with NaN": ALARM, "with inf": ALARM}
    order = f", {sorted_how}" if sorted_how else ""
    runs = [(texts.sites_text(len(rows)), "bold"), (order, "")]
    runs += [(f" · {count:,} {what}", styles[what]) for what, count in found.items()]
    top = texts.largest(rows)
    if top is not None:
        runs.append((f" · largest {texts.number_text(top.amax)} at {cut_name(top.name, 60)}", ""))
    return runs


def _plan_caption(plan: Plan) -> Cell:
    hows = Counter(row.how for row in plan.rows)
    runs = [(f"{texts.sites_text(len(plan.rows))}: ", "bold")]
    for how in HOW:
        runs.append((f"{hows[how]:,} {how}" + ("; " if how == "constant" else ", "), HOW[how]))
    read = sum(source.elements for source in plan.frame.sources if source.known is None)
    return [*runs, (f"{_elements_text(read)} elements read a run", "")]
