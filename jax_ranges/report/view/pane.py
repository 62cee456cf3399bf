"""The pane of details: what is known of the site at the cursor, once that rests."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.timer import Timer
from textual.widgets import Static

from jax_ranges.report.view.detail import detail
from jax_ranges.report.view.model import Model

SETTLED = 0.05  # seconds without a move, so that a key held down does not wait for details


class Details(VerticalScroll):
    """What is known of one site."""

    BINDINGS: ClassVar = [
        Binding("j", "scroll_down", "down", show=False),
        Binding("k", "scroll_up", "up", show=False),
    ]

    def __init__(self, model: Model):
        super().__init__(id="details")
        self.model = model
        self._content = Static(id="detail")
        self._wanted: tuple[int | None, int] = None, 0
        self._drawn: tuple[int | None, int] | None = None
        self._resting: Timer | None = None

    def compose(self) -> ComposeResult:
        """One text that scrolls."""
        yield self._content

    def show(self, site: int | None, fmt: int) -> None:
        """Show a site, judged by a format, if nothing else is asked for in the next moment."""
        self._wanted = site, fmt
        if self._resting is not None:
            self._resting.stop()
        self._resting = self.set_timer(SETTLED, self._draw)

    def _draw(self) -> None:
        if self._wanted == self._drawn:
            return
        self._drawn = site, fmt = self._wanted
        nothing = Text("no site passes the filters; esc shows all", "dim")
        self._content.update(nothing if site is None else detail(self.model, site, fmt))
        self.scroll_home(animate=False)
