"""The keys, as a screen that says them; it is made of the bindings themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

MARKS = (
    ("↩", "of the backward pass"),
    ("×", "saw a NaN"),
    ("▲", "has values beyond the format that sites are judged by (f picks another)"),
    ("Δ", "changed; with a number: so many sites inside did"),
    ("∞ ▸", "at the end of a bar: infinite, or beyond the scale that all bars share"),
)
SHOWN = {"question_mark": "?", "slash": "/", "plus": "+", "minus": "-", "escape": "esc"}


class Keys(ModalScreen[None]):
    """What can be pressed where.

    Args:
      groups: what is above some bindings, and these.
    """

    BINDINGS: ClassVar = [Binding("escape,q,question_mark,enter", "leave", "back")]
    DEFAULT_CSS = """
    Keys {
        align: center middle;
        VerticalScroll {
            width: 84; max-width: 95%; height: auto; max-height: 90%;
            border: round $primary; background: $panel; padding: 0 1;
        }
        Static { width: 100%; }
    }
    """

    def __init__(self, groups: Sequence[tuple[str, Sequence[Any]]]):
        super().__init__()
        self._groups = groups

    def compose(self) -> ComposeResult:
        """One text that scrolls."""
        with VerticalScroll():
            yield Static(Text("\n").join(self._lines()))

    def action_leave(self) -> None:
        """Back; once, however many keys are on their way."""
        if self.is_current:
            self.dismiss()

    def _lines(self) -> Iterator[Text]:
        for title, bindings in self._groups:
            yield Text(title, "bold")
            for binding in bindings:
                if binding.description:
                    yield _line(key_text(binding.key), binding.tooltip or binding.description)
        yield Text("Marks", "bold")
        for mark, text in MARKS:
            yield _line(mark, text)
        yield Text("esc closes this", "dim")


def key_text(keys: str) -> str:
    """The keys of a binding as a person would say them.

    Example:
      >>> key_text("question_mark,ctrl+f")
      '? ctrl+f'
    """
    return " ".join(SHOWN.get(key, key) for key in keys.split(","))


def _line(key: str, text: str) -> Text:
    return Text.assemble((f"  {key:<18}", "cyan"), text)
