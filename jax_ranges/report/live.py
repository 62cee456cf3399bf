"""A report that redraws itself while something runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from jax_ranges.ranges import Ranges
from jax_ranges.report.console import report_view

MARGIN = 5  # the lines that a table has beside its rows, and one for the prompt


def live(
    read: Callable[[], Ranges],
    per_second: float,
    console: Console | None = None,
    limit: int | None = None,
    **how: Any,
) -> Live:
    """A context manager that draws `read()` as `report` would; where there is no terminal, once,
    at the end. `limit` is by default what the screen has room for.
    """
    return Live(
        _Screen(read, limit, how), console=console, refresh_per_second=per_second, transient=False
    )


class _Screen:
    """Reads anew whenever it is drawn."""

    def __init__(self, read: Callable[[], Ranges], limit: int | None, how: dict[str, Any]):
        self._read, self._limit, self._how = read, limit, how

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        room = max(console.height - MARGIN, 4) if console.is_terminal else None
        limit = room if self._limit is None else self._limit
        yield report_view(self._read(), limit=limit, **self._how)
