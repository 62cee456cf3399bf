"""The table of sites: the columns of `jax-ranges show`, or of `jax-ranges diff`, and marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.cells import cell_len

from jax_ranges.report import diff_table, tables
from jax_ranges.report.grid import Cell, Column, Fitted, column, fit
from jax_ranges.report.names import name_column
from jax_ranges.report.rows import cut_left
from jax_ranges.report.tables import ALARM
from jax_ranges.report.view.lines import Lines
from jax_ranges.report.view.model import Model

WIDE = 38
"""Of names, where there is room for it beside min and max."""


class SiteTable(Lines):
    """One line a site."""

    def __init__(self, model: Model):
        super().__init__(id="sites")
        self.model = model
        self.format = 0
        self.shown: Sequence[int] = range(len(model.rows))
        marks = self._marks()
        self._layouts = [(self._end(name), marks, *rest) for name, *rest in _layouts(model)]
        self._fitted: dict[int, Fitted] = {}

    def show(self, sites: Sequence[int], fmt: int) -> None:
        """Show these sites, judged by a format; the cursor stays at its site if that is shown."""
        site = self.site
        self.shown, self.format = sites, fmt
        self.redraw(sites.index(site) if site in sites else 0)

    @property
    def site(self) -> int | None:
        """The index of the site at the cursor."""
        return self.shown[self.cursor] if self.shown else None

    @property
    def count(self) -> int:
        """How many sites are shown."""
        return len(self.shown)

    def heading(self, width: int) -> Cell:
        """The titles of the columns."""
        return self._columns(width).heading()

    def line(self, i: int, width: int) -> tuple[str, Cell]:
        """What was not observed, or did not change, is dim."""
        site = self.shown[i]
        model = self.model
        dim = site not in model.changed if model.compared else not model.rows[site].observed
        return "dim" if dim else "", self._columns(width).line(site)

    def _columns(self, width: int) -> Fitted:
        if width not in self._fitted:
            self._fitted = {width: fit(self._layouts, width)}
        return self._fitted[width]

    def _end(self, names: Column) -> Column:
        """Of names that are cut the end, which tells layers apart; the tree has the beginning."""
        shown = [row.name for row in self.model.rows]

        def cell(i: int, width: int) -> Cell:
            wide = cell_len(shown[i]) - len(shown[i])
            scope, slash, last = cut_left(shown[i], max(width - wide, 1)).rpartition("/")
            return [(scope + slash, "dim"), (last, "")]

        return replace(names, cell=cell)

    def _marks(self) -> Column:
        """↩ of the backward pass, × a NaN, ▲ beyond the format."""
        rows, over = self.model.rows, self.model.over

        def cell(i: int, width: int) -> Cell:
            back, nan = "↩" if rows[i].backward else " ", "×" if rows[i].nan else " "
            return [
                (back, "cyan"),
                (nan, ALARM),
                ("▲" if self.format in over[i] else " ", "yellow"),
            ]

        return column("", ["   "], cell)


def _layouts(model: Model) -> Sequence[Sequence[Column]]:
    if model.compared:
        return diff_table.layouts([entry.change for entry in model.entries if entry.change])
    # Without the courses along loops, which details draw, and NaN, which has a mark; and types go
    # before names are cut, in which layers differ.
    rows = [replace(row, lead=(), each=()) for row in model.rows]
    names = name_column([row.name for row in rows], 32)
    found = [_without_nan(layout) for layout in tables.layouts(names, rows, model.gauge)]
    return [*((_wide(name), *rest) for name, *rest in found), found[-1]]


def _without_nan(layout: Sequence[Column]) -> Sequence[Column]:
    return [column for column in layout if column.title(column.natural) != "nan"]


def _wide(name: Column) -> Column:
    return replace(name, least=min(name.natural, WIDE))
