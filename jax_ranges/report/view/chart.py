"""A chart of columns in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

EIGHTHS = " ▁▂▃▄▅▆▇█"
WIDEST = 4  # of a column


@dataclass(frozen=True)
class Chart:
    """Columns side by side, in eighths of a line.

    Where there are more than there is room for, neighbours share one of the largest's height.

    Attributes:
      heights: of the columns, from 0 to 1.
      styles: of the columns.
      left, right: what is below the first column and the last one.
      lines: how many lines the highest column takes.
    """

    heights: Sequence[float]
    styles: Sequence[str]
    left: str = ""
    right: str = ""
    lines: int = 4

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(self._columns(options.max_width))
        wide = max(min(options.max_width // max(len(columns), 1), WIDEST), 1)
        for level in reversed(range(self.lines)):
            text = Text(no_wrap=True)
            for height, style in columns:
                text.append(_block(height * self.lines - level) * wide, style)
            yield text
        gap = wide * len(columns) - cell_len(self.left) - cell_len(self.right)
        yield Text(f"{self.left}{' ' * max(gap, 1)}{self.right}", "dim", no_wrap=True)

    def _columns(self, room: int) -> Iterator[tuple[float, str]]:
        pairs = list(zip(self.heights, self.styles, strict=True))
        several = -(-len(pairs) // max(room, 1)) or 1
        for k in range(0, len(pairs), several):
            yield max(pairs[k : k + several], key=lambda pair: pair[0])


def _block(height: float) -> str:
    """Of a line that a column reaches by `height`; what is there at all is seen."""
    eighths = min(max(height * 8, 0), 8)
    return EIGHTHS[max(round(eighths), 1) if eighths > 0 else 0]
