"""The details of one site: all that is known of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from jax_ranges.files.numbers import number_text as exact_text
from jax_ranges.report.entries import Entry
from jax_ranges.report.names import cut_cells
from jax_ranges.report.rows import Row, number_text, printable, sites_text
from jax_ranges.report.tables import ALARM
from jax_ranges.report.view.chart import Chart
from jax_ranges.report.view.counted import counted
from jax_ranges.report.view.fits import fits_table
from jax_ranges.report.view.model import Model
from jax_ranges.report.view.others import others

MOST_LINKS = 12


def detail(model: Model, site: int, fmt: int) -> RenderableType:
    """All that is known of a site, judged by the format with that index."""
    entry = model.entries[site]
    parts = [[_name(entry.row)], _facts(entry), _range(model, site), _change(entry)]
    if not entry.gone:
        parts += [_fits(model, entry, fmt), _each(entry.row), counted(entry, model.formats[fmt])]
        parts += [_others(entry), _family(model, site)]
    parts += [_operands(model, entry), _users(model, entry)]
    return Group(*(piece for part in parts for piece in part))


def _name(row: Row) -> Text:
    scope, slash, last = row.name.rpartition("/")
    return Text.assemble((scope + slash, "dim"), (last, "bold"), overflow="fold")


def _facts(entry: Entry) -> Iterator[RenderableType]:
    """In few lines: the pane may be low."""
    site, row = entry.site, entry.row
    way = "backward" if site.backward else "forward"
    lead = f", one range for each of {' × '.join(map(str, row.lead))}" if row.lead else ""
    facts = [(printable(site.primitive), "bold"), (f"  {row.dtype}{row.shape}", "cyan")]
    yield Text.assemble(*facts, f"  {way}{lead}", overflow="fold")
    yield Text(printable(site.source) or "source unknown", "dim", overflow="fold")


def _fact(name: str, text: str, style: str = "") -> Text:
    return Text.assemble((f"{name:<8}", "dim"), (text, style), overflow="fold")


def _title(text: str) -> Text:
    return Text(f"\n{text}", "bold")


# -- the range --------------------------------------------------------------------------------


def _range(model: Model, site: int) -> Iterator[RenderableType]:
    """Exact, since there is room."""
    entry = model.entries[site]
    if entry.gone:
        return
    row, dtype = entry.row, entry.site.dtype
    if row.min is None or row.max is None:
        unseen = "not observed: it never ran, or had no elements"
        yield Text("only NaN was seen" if row.nan else unseen, ALARM if row.nan else "italic")
        return
    least, most = (exact_text(end, dtype) for end in (row.min, row.max))
    yield Text.assemble(
        *(("min ", "dim"), (least, _alarm(row.min))),
        *(("   max ", "dim"), (most, _alarm(row.max))),
        ("   NaN was seen" if row.nan else "", ALARM),
    )
    if (model.gauge.position(row) or 0) > 1:
        yield Text(f"beyond the scale of the bars, which ends at {model.gauge.labels()[1]}", "dim")


def _alarm(value: float) -> str:
    return ALARM if math.isinf(value) else ""


def _change(entry: Entry) -> Iterator[RenderableType]:
    change = entry.change
    if change is None:
        return
    yield _title("What moved")
    yield _fact("change", ", ".join(change.changes) or "nothing", "magenta")
    yield _fact("score", number_text(change.score))
    for when, record in (("before", change.before), ("now", change.after)):
        if record is None:
            yield _fact(when, "there was no such operation" if when == "before" else "it is gone")
        else:
            yield _fact(when, _seen_text(record.min, record.max, record.nan))


def _seen_text(least: float | None, most: float | None, nan: bool) -> str:
    if least is None or most is None:
        return "only NaN" if nan else "not observed"
    return f"{number_text(least)} to {number_text(most)}{', and NaN' if nan else ''}"


def _fits(model: Model, entry: Entry, fmt: int) -> Iterator[RenderableType]:
    """Of floats only; what an integer stands for, no format decides."""
    if isinstance(entry.row.min, float):
        yield _title("What the number formats would do")
        yield fits_table(entry, model.formats, fmt)


# -- loops and layers -------------------------------------------------------------------------


def _each(row: Row) -> Iterator[RenderableType]:
    if not row.each:
        return
    yield _title("By iteration or example")
    ends = "0", str(len(row.each) - 1)
    yield Chart(_heights(row.each), [_style(size) for size in row.each], *ends)
    yield Text("largest magnitude, logarithmic; red: NaN or inf", "dim")


def _family(model: Model, site: int) -> Iterator[RenderableType]:
    """The same operation in other layers."""
    members = model.family.get(site)
    if not members:
        return
    sizes = [model.rows[i].amax for i in members]
    yield _title(f"The same operation in {len(members):,} layers")
    styles = ["bold green" if i == site else _style(model.rows[i].amax) for i in members]
    yield Chart(_heights(sizes), styles, lines=3)
    finite = [(size, i) for size, i in zip(sizes, members, strict=True) if _is_finite(size)]
    if len(finite) > 1:
        yield _largest(model, finite)


def _largest(model: Model, finite: Sequence[tuple[float | None, int]]) -> Text:
    size, i = max((size or 0.0, -i) for size, i in finite)
    usual = statistics.median(other or 0.0 for other, _ in finite)
    ratio = f", {number_text(float(f'{size / usual:.2g}'))}× the median" if usual else ""
    return Text.assemble(
        ("green: this one; largest: ", "dim"),
        (number_text(size), "bold"),
        (f"{ratio}, at {model.rows[-i].name}", "dim"),
    )


def _is_finite(size: float | None) -> bool:
    return size is not None and math.isfinite(size)


def _style(size: float | None) -> str:
    return "dim" if size is None else "blue" if math.isfinite(size) else "red"


def _heights(sizes: Sequence[float | None]) -> list[float]:
    """On a logarithmic scale of their own; what is NaN or infinite is highest."""
    logs = [math.log2(size) for size in sizes if size and math.isfinite(size)]
    low, high = min(logs, default=0.0), max(logs, default=0.0)
    span = max(high - low, 4.0)  # lest noise look like growth
    return [_height(size, high, span) for size in sizes]


def _height(size: float | None, high: float, span: float) -> float:
    if not size:  # zero, or nothing
        return 0.0
    return 1 - 0.9 * (high - math.log2(size)) / span if math.isfinite(size) else 1.0


# -- other statistics, and neighbours ---------------------------------------------------------


def _others(entry: Entry) -> Iterator[RenderableType]:
    found = list(others(entry))
    if found:
        yield _title("Other statistics")
    for name, text in found:
        yield Text.assemble((f"{name}  ", "cyan"), text, overflow="fold")


def _operands(model: Model, entry: Entry) -> Iterator[RenderableType]:
    names = list(dict.fromkeys(entry.site.operands))
    yield from _links(model, "Fed by", names)


def _users(model: Model, entry: Entry) -> Iterator[RenderableType]:
    users = model.users.get(entry.site.name, [])
    yield from _links(model, "Feeds", [model.entries[i].site.name for i in users])


def _links(model: Model, title: str, names: Sequence[str]) -> Iterator[RenderableType]:
    if not names:
        return
    yield _title(title)
    for name in names[:MOST_LINKS]:
        yield Text.assemble(
            f"{printable(name)}  ", (link_text(model, name), "dim"), overflow="fold"
        )
    if len(names) > MOST_LINKS:
        yield Text(f"and {sites_text(len(names) - MOST_LINKS)} more: g lists them", "dim")


def link_text(model: Model, name: str) -> str:
    """What was seen at a neighbour; "" if it is no site."""
    place = model.places.get(name)
    if place is None:
        return ""
    row = model.rows[place]
    return _seen_text(row.min, row.max, row.nan)


def neighbours(model: Model, site: int, width: int) -> list[tuple[int, str]]:
    """The sites that feed a site and that it feeds, each with a line that says so."""
    entry = model.entries[site]
    fed = [model.places[name] for name in entry.site.operands if name in model.places]
    feeds = model.users.get(entry.site.name, [])
    lines = [("from", i) for i in dict.fromkeys(fed)] + [("to", i) for i in feeds]
    return [(i, f"{way:<5}{_link_line(model, i, width - 5)}") for way, i in lines]


def _link_line(model: Model, i: int, width: int) -> str:
    text = link_text(model, model.entries[i].site.name)
    return f"{cut_cells(model.rows[i].name, max(width - len(text) - 2, 12))}  {text}"
