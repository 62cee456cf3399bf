"""The column of names that every table begins with."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from jax_ranges.report.grid import Column, Run, column
from jax_ranges.report.rows import cut_name, printable


def name_column(names: Sequence[str], least: int) -> Column:
    """The names of sites, `least` cells wide or wider."""
    shown = [printable(name) for name in names]
    return column("site", shown, lambda i, width: name_runs(shown[i], width), least)


def name_runs(name: str, width: int) -> list[Run]:
    """The scopes stand back behind the operation.

    Example:
      >>> name_runs("Encoder/attn/dot_general", 30)
      [('Encoder/attn/', 'dim'), ('dot_general', '')]
    """
    scope, slash, last = cut_cells(name, width).rpartition("/")
    return [(scope + slash, "dim"), (last, "")]


def cut_cells(name: str, width: int) -> str:
    """A name in so many cells of the terminal, of which some characters take two."""
    wide = 0 if name.isascii() else cell_len(name) - len(name)
    return cut_name(name, max(width - wide, width // 2)) if wide else cut_name(name, width)
