"""What is shown as a table: on consoles by rich, and in notebooks."""

from __future__ import annotations

from typing import Any


class Shown:
    """Gives a class with a table what rich and notebooks ask it for."""

    def _table(self, limit: int | None = None) -> Any:
        """The table, a rich renderable; of no more than so many rows."""
        raise NotImplementedError

    def __rich__(self) -> Any:
        return self._table()

    def _repr_html_(self) -> str:
        from jax_ranges.report.html import LIMIT
        from jax_ranges.report.notebook import console_html

        return console_html(self._table(LIMIT))
