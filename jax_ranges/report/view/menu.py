"""A menu: one of several things is chosen, by its first letters or with the arrows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList
from textual.widgets.option_list import Option


class Menu(ModalScreen[int | None]):
    """Says the index of what was chosen, or None.

    Args:
      title: above.
      choices: the lines.
      chosen: the index of the one that is highlighted first.
    """

    BINDINGS: ClassVar = [
        Binding("escape,q", "leave", "leave as it is", show=False),
        Binding("j", "cursor(1)", show=False),
        Binding("k", "cursor(-1)", show=False),
    ]
    DEFAULT_CSS = """
    Menu {
        align: center middle;
        Vertical {
            width: auto; max-width: 90%; min-width: 40; height: auto; max-height: 80%;
            border: round $primary; background: $panel; padding: 0 1;
        }
        Label { text-style: bold; }
        OptionList { width: auto; min-width: 36; height: auto; border: none; background: $panel; }
    }
    """

    def __init__(self, title: str, choices: Sequence[str], chosen: int = 0):
        super().__init__()
        self._title, self._choices, self._chosen = title, choices, chosen

    def compose(self) -> ComposeResult:
        """A title and the choices."""
        with Vertical():
            yield Label(self._title)
            options = [Option(Text(text, no_wrap=True)) for text in self._choices]
            yield OptionList(*options, compact=True)

    def on_mount(self) -> None:
        """Start at what is chosen now."""
        self.query_one(OptionList).highlighted = self._chosen if self._choices else None

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Done."""
        self._say(event.option_index)

    def action_leave(self) -> None:
        """Nothing is chosen."""
        self._say(None)

    def _say(self, chosen: int | None) -> None:
        if self.is_current:  # over a slow line a second enter may be on its way already
            self.dismiss(chosen)

    def on_key(self, event: events.Key) -> None:
        """A letter goes to the next choice that begins with it."""
        if event.character is None or not event.character.isalnum() or event.key in "jkq":
            return
        options = self.query_one(OptionList)
        start = (options.highlighted or 0) + 1
        order = [*range(start, len(self._choices)), *range(start)]
        found = [i for i in order if i < len(self._choices) and self._begins(i, event.character)]
        if found:
            options.highlighted = found[0]

    def action_cursor(self, way: int) -> None:
        """Up or down."""
        options = self.query_one(OptionList)
        options.action_cursor_down() if way > 0 else options.action_cursor_up()

    def _begins(self, i: int, letter: str) -> bool:
        return self._choices[i].lower().startswith(letter.lower())
