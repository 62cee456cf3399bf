"""What consoles show, in a notebook: the same tables as HTML, wider than its 80 columns of text."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from jax_ranges.report.html import AMBER, BLUE, RED
from jax_ranges.report.tables import WIDEST

GREEN, PURPLE, TEAL, GREY = "#2b9a66", "#8e4ec6", "#12909f", "#808080"
_FRAME = (
    '<pre style="max-height:36em;overflow:auto;white-space:pre;line-height:1.3;font-size:12px">'
    "{code}</pre>"
)


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


# The eight colours of terminals, read on white and on black alike, and grey for what is dim.
_COLOURS = [_rgb(colour) for colour in (GREY, RED, GREEN, AMBER, BLUE, PURPLE, TEAL, GREY)]
_THEME = TerminalTheme(_rgb(GREY), _rgb(GREY), _COLOURS, _COLOURS)


def console_html(shown: Any) -> str:
    """Anything that rich can print, as a block of HTML that scrolls; text keeps the page's colour.

    Example:
      >>> console_html("a < b").partition(">")[2]
      'a &lt; b\\n</pre>'
    """
    console = Console(
        file=io.StringIO(),
        record=True,
        width=WIDEST,
        height=100,
        color_system="standard",
        force_terminal=True,
        force_jupyter=False,
        legacy_windows=False,
        _environ={},
    )
    console.print(shown, markup=False, highlight=False, soft_wrap=False)
    return console.export_html(theme=_THEME, code_format=_FRAME, inline_styles=True)
