"""Lines: a widget of many lines with a cursor, of which only those in sight are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from jax_ranges.report.grid import Cell


class Lines(ScrollView, can_focus=True):
    """Lines with a cursor; below a heading that stays, if there is one.

    A subclass says how many lines there are, and what is in each; nothing but those in sight is
    ever asked for, so ten thousand are as quick as ten.
    """

    BINDINGS: ClassVar = [
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "a page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "a page down", show=False),
        Binding("home", "end(-1)", "to the first", show=False),
        Binding("end,G", "end(1)", "to the last", show=False),
        Binding("enter", "choose", "choose", show=False),
    ]
    COMPONENT_CLASSES: ClassVar = {"lines--cursor", "lines--heading"}
    DEFAULT_CSS = """
    Lines {
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        .lines--cursor { background: $surface-lighten-2; }
        .lines--heading { text-style: bold; color: $text-muted; }
        &:focus .lines--cursor { background: $primary-muted; }
    }
    """

    @dataclass
    class Told(Message):
        """Something happened in these lines."""

        lines: Lines

        @property
        def control(self) -> Lines:
            """The widget, by which textual chooses who is told."""
            return self.lines

    class Moved(Told):
        """The cursor is at another line, or at other contents."""

    class Chosen(Told):
        """Enter was pressed, or the line clicked that the cursor was at."""

    cursor = 0

    # -- what a subclass says -------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many lines there are."""
        raise NotImplementedError

    def line(self, i: int, width: int) -> tuple[str, Cell]:
        """The style and the contents of a line, in so many cells."""
        raise NotImplementedError

    def heading(self, width: int) -> Cell:
        """The line that stays above; none if it is empty."""
        del width
        return ()

    def knob(self, i: int, x: int) -> bool:
        """Whether a click at `x` in a line does what the line's own knob does; and do that."""
        del i, x
        return False

    # -- drawing --------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """The cells of a line, beside the scrollbar."""
        return max(self.scrollable_content_region.width, 1)

    @property
    def head(self) -> int:
        """How many lines the heading takes."""
        return 1 if self.heading(self.room) else 0

    def redraw(self, cursor: int | None = None) -> None:
        """Draw other contents, with the cursor at a line that there is."""
        self.virtual_size = Size(0, self.count + self.head)
        self.to(self.cursor if cursor is None else cursor)
        self.refresh()

    def on_resize(self) -> None:
        """The cursor stays in sight."""
        self.redraw()

    def render_line(self, y: int) -> Strip:
        """A line of the screen."""
        width, head = self.room, self.head
        if y < head:
            heading = self.get_component_rich_style("lines--heading")
            return self._strip(self.heading(width), heading)
        i = round(self.scroll_offset.y) + y - head
        if i >= self.count:
            return Strip.blank(width, self.rich_style)
        style, cell = self.line(i, width)
        at = i == self.cursor
        base = self.get_component_rich_style("lines--cursor") if at else self.rich_style
        return self._strip(cell, base + Style.parse(style))

    def _strip(self, cell: Cell, base: Style) -> Strip:
        segments = [Segment(text, base + Style.parse(style)) for text, style in cell]
        return Strip(segments).crop_extend(0, self.room, base)

    # -- moving ---------------------------------------------------------------------------------

    def to(self, i: int) -> None:
        """Put the cursor at a line, or at the last one if there are fewer."""
        self.cursor = max(min(i, self.count - 1), 0)
        self._show()
        self.refresh()
        self.post_message(self.Moved(self))

    @property
    def page(self) -> int:
        """How many lines are in sight."""
        return max(self.size.height - self.head, 1)

    def _show(self) -> None:
        top = round(self.scroll_offset.y)
        top = min(max(top, self.cursor - self.page + 1), self.cursor)
        if top != self.scroll_offset.y:
            self.scroll_to(y=top, animate=False, force=True)

    def action_move(self, by: int) -> None:
        """Some lines up or down."""
        self.to(self.cursor + by)

    def action_page(self, by: int) -> None:
        """Some pages up or down."""
        self.to(self.cursor + by * self.page)

    def action_end(self, way: int) -> None:
        """To the first line or the last one."""
        self.to(0 if way < 0 else self.count - 1)

    def action_choose(self) -> None:
        """Choose the line at the cursor."""
        if self.count:
            self.post_message(self.Chosen(self))

    def on_click(self, event: events.Click) -> None:
        """The first click moves the cursor, the second one chooses."""
        i = round(self.scroll_offset.y) + event.y - self.head
        if event.y < self.head or i >= self.count or self.knob(i, event.x):
            return
        again = i == self.cursor
        self.to(i)
        if again:
            self.action_choose()
