"""The tree of scopes: open or closed, a line says the worst of what is inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from rich.cells import cell_len
from textual.binding import Binding

from jax_ranges.report.grid import Cell, Run
from jax_ranges.report.names import cut_cells
from jax_ranges.report.rows import bar_text, number_text
from jax_ranges.report.tables import ALARM
from jax_ranges.report.view.lines import Lines
from jax_ranges.report.view.model import Model
from jax_ranges.report.view.scopes import Node

OPEN_AT_FIRST = 24  # lines
BAR = 4


class ScopeTree(Lines):
    """One line a scope."""

    BINDINGS: ClassVar = [
        Binding("right,l", "open(True)", "open", show=False),
        Binding("left,h", "open(False)", "close, or go to the scope above", show=False),
        Binding("space", "fold", "open or close", show=False),
        Binding("plus", "all(True)", "open all", show=False),
        Binding("minus", "all(False)", "close all", show=False),
    ]

    def __init__(self, model: Model):
        super().__init__(id="tree")
        self.model = model
        self.format = 0
        self.chosen: Node | None = None
        self._open = {model.scopes, *_levels(model.scopes)}
        self._lines = list(self._shown(model.scopes, 0))

    @property
    def count(self) -> int:
        """How many scopes are shown."""
        return len(self._lines)

    @property
    def node(self) -> Node:
        """The scope at the cursor."""
        return self._lines[self.cursor][0]

    def show(self, chosen: Node | None, fmt: int) -> None:
        """Mark the scope that is chosen, and judge by a format."""
        self.chosen, self.format = chosen, fmt
        self.refresh()

    # -- drawing --------------------------------------------------------------------------------

    def line(self, i: int, width: int) -> tuple[str, Cell]:
        """A knob, the label, and to the right what is worst inside."""
        node, depth = self._lines[i]
        knob = ("▾ " if node in self._open else "▸ ") if node.inside else "  "
        start = " " * min(depth, 8) + knob
        worst = [*self._worst(node), self._bar(node)]
        room = width - len(start) - 1
        if cell_len(node.label) + _width(worst) > room:
            worst.pop()  # a name matters more than a bar
        label = cut_cells(node.label, max(room - _width(worst), 8))
        blank = " " * (room + 1 - cell_len(label) - _width(worst))
        strong = "bold" if node is self.chosen else ""
        return "", [(start, "dim"), (label, strong), (blank, ""), *worst]

    def _worst(self, node: Node) -> list[Run]:
        row, over = node.row, node.over[self.format]
        return [
            ("NaN " if row.nan else "", ALARM),
            (f"Δ{node.changed:,} " if node.changed else "", "magenta"),
            (f"▲{over:,} " if over else "", "yellow"),
            (number_text(row.amax).replace("inf", "∞"), ALARM if row.infinite else ""),
        ]

    def _bar(self, node: Node) -> Run:
        bar = bar_text(self.model.gauge.position(node.row), BAR)
        return f" {bar:<{BAR + 1}}", ALARM if node.row.infinite else "blue"

    # -- opening and closing --------------------------------------------------------------------

    def action_open(self, wanted: bool) -> None:
        """Open a scope, or go into one that is; close it, or leave one that is."""
        is_open = self.node in self._open
        if wanted and is_open and self.node.inside:
            self.action_move(1)
        elif wanted == is_open or not self.node.inside:
            self.to(self.cursor if wanted else self._above(self.cursor))
        else:
            self.action_fold()

    def action_fold(self) -> None:
        """Open what is closed, and the other way round."""
        if self.node.inside:
            self._open ^= {self.node}
            self._arrange(self.node)

    def action_all(self, wanted: bool) -> None:
        """Open or close all."""
        above = self._lines[self.cursor] if wanted else self._lines[0]
        self._open = set(self.model.scopes.walk()) if wanted else {self.model.scopes}
        self._arrange(above[0])

    def knob(self, i: int, x: int) -> bool:
        """A click left of the label opens or closes."""
        node, depth = self._lines[i]
        if not node.inside or x > depth + 1:
            return False
        self.to(i)
        self.action_fold()
        return True

    def _arrange(self, node: Node) -> None:
        """Draw anew, with the cursor at this scope."""
        self._lines = list(self._shown(self.model.scopes, 0))
        self.redraw([each for each, _ in self._lines].index(node))

    def _shown(self, node: Node, depth: int) -> Iterator[tuple[Node, int]]:
        yield node, depth
        if node in self._open:
            for each in node.inside:
                yield from self._shown(each, depth + 1)

    def _above(self, i: int) -> int:
        depth = self._lines[i][1]
        return next((k for k in range(i, -1, -1) if self._lines[k][1] < depth), i)


def _levels(root: Node) -> Iterator[Node]:
    """Level after level, as long as all fits on a screen."""
    level, lines = [root], 1
    while level:
        below = [node for each in level for node in each.inside]
        lines += len(below)
        if lines > OPEN_AT_FIRST:
            return
        yield from (node for node in level if node.inside)
        level = below


def _width(cell: Cell) -> int:
    return sum(cell_len(text) for text, _ in cell)
