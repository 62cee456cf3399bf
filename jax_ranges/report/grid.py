"""Grid: a table that fits the width it is given, and draws ten thousand rows at once.

`rich.table.Table` wraps cells and squeezes all columns alike; here each column knows what to
leave out of its own cells, and columns are dropped or merged in an order that makes sense. It
also renders every cell by itself, which takes long for ten thousand rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

Run = tuple[str, str]
"""A text and its style."""

Cell = Sequence[Run]
GAP = "  "


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
      title: its heading, given the width.
      natural, least: the width that shows everything, and the one that still makes sense.
      cell: the cell of a row (by its index) in some width.
      right: aligned to the right.
    """

    title: Callable[[int], str]
    natural: int
    least: int
    cell: Callable[[int, int], Cell]
    right: bool = False


def column(
    title: str,
    texts: Sequence[str],
    cell: Callable[[int, int], Cell],
    least: int | None = None,
    right: bool = False,
) -> Column:
    """A column as wide as its texts, or less if `least` says so."""
    natural = max([len(title), *map(_width, texts)])
    least = natural if least is None else min(natural, max(least, len(title)))
    return Column(lambda width: title, natural, least, cell, right)


@dataclass(frozen=True)
class Grid:
    """Columns, drawn in the first of several layouts that fits.

    Attributes:
      layouts: from the richest to the plainest. What room is left goes to the columns from
        left to right, until each has its natural width.
      rows: the indices of the rows; None stands for rows that are left out.
      styles: for each row (by index) the style of all of it.
      elided: the line in place of what is left out.
      caption: the lines below.
    """

    layouts: Sequence[Sequence[Column]]
    rows: Sequence[int | None]
    styles: Callable[[int], str]
    elided: str = ""
    caption: Cell = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Asked once, not for each of ten thousand cells.
        style_of, ascii_only = functools.cache(console.get_style), options.ascii_only
        for base, line in self._lines(options.max_width):
            for text, style in _merged(line):
                text = _ascii(text, options.encoding) if ascii_only else text
                full = f"{base} {style}".strip()
                yield Segment(text, style_of(full) if full else None)
            yield Segment.line()

    def _lines(self, room: int) -> Iterator[tuple[str, Cell]]:
        fitted = fit(self.layouts, room)
        if self.rows:
            yield "bold", fitted.heading()
            yield "dim", [("─" * min(fitted.width, room), "")]
        for i in self.rows:
            if i is None:
                yield "dim italic", [(self.elided, "")]
            else:
                yield self.styles(i), fitted.line(i)
        if self.caption:
            yield "", _wrapped(self.caption, room)


@dataclass(frozen=True)
class Fitted:
    """Columns, each with the width that it has."""

    sized: Sequence[tuple[Column, int]]

    @property
    def width(self) -> int:
        """Of a line."""
        return sum(width for _, width in self.sized) + len(GAP) * (len(self.sized) - 1)

    def heading(self) -> Cell:
        """The line of titles."""
        return _joined([_placed(c, ((c.title(w), ""),), w) for c, w in self.sized])

    def line(self, i: int) -> Cell:
        """The line of a row."""
        return _joined([_placed(c, c.cell(i, w), w) for c, w in self.sized])


def fit(layouts: Sequence[Sequence[Column]], room: int) -> Fitted:
    """The first of the layouts that fits; of the last one at least what is not its first column."""
    gaps = [len(GAP) * (len(columns) - 1) for columns in layouts]
    for columns, gap in zip(layouts, gaps, strict=True):
        spare = room - gap - sum(column.least for column in columns)
        if spare >= 0:
            return Fitted(list(zip(columns, _grown(columns, spare), strict=True)))
    rest = [column.least for column in layouts[-1][1:]]
    widths = [max(room - gaps[-1] - sum(rest), 1), *rest]
    return Fitted(list(zip(layouts[-1], widths, strict=True)))


def _grown(columns: Sequence[Column], spare: int) -> list[int]:
    widths = []
    for column in columns:
        more = min(spare, column.natural - column.least)
        widths.append(column.least + more)
        spare -= more
    return widths


def _placed(column: Column, cell: Cell, width: int) -> Cell:
    """A cell made exactly as wide as its column."""
    missing = width - sum(_width(text) for text, _ in cell)
    if missing < 0:
        return _cropped(cell, width)
    blank = (" " * missing, "")
    return (blank, *cell) if column.right else (*cell, blank)


def _cropped(cell: Cell, width: int) -> Cell:
    kept = []
    for text, style in cell:
        text = text if _width(text) <= width else set_cell_size(text, width)
        width -= _width(text)
        kept.append((text, style))
    return kept


def _joined(cells: Sequence[Cell]) -> Cell:
    runs: list[Run] = []
    for cell in cells:
        runs += [(GAP, ""), *cell] if runs else cell
    return runs


_ASCII = str.maketrans("…─█▉▊▋▌▍▎▏▸∞×·⁻⁰¹²³⁴⁵⁶⁷⁸⁹▁▂▃▄▅▆▇│├└", "~-######-->!x.-0123456789_..--==||`")


def _ascii(text: str, encoding: str) -> str:
    """For terminals and files that are not in Unicode, where printing would raise."""
    return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)


def _merged(cell: Cell) -> Cell:
    """Fewer runs: blanks look the same in any style, and each run costs a segment."""
    runs: list[Run] = []
    for text, style in cell:
        if runs and (style == runs[-1][1] or not text.strip(" ")):
            runs[-1] = (runs[-1][0] + text, runs[-1][1])
        else:
            runs.append((text, style))
    text, style = runs.pop() if runs else ("", "")
    return [*runs, (text.rstrip(" "), style)]  # no blanks at the end of a line


def _wrapped(caption: Cell, room: int) -> Cell:
    """Runs of a caption on as many lines as it takes; breaks go between runs."""
    runs, used = [], 0
    for text, style in caption:
        if used and used + _width(text) > room:
            runs.append(("\n", ""))
            used, text = 0, text.lstrip(" ·")
        runs.append((text, style))
        used += _width(text)
    return runs


def _width(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)
