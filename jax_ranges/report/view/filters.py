"""Filters: which sites are shown. Nothing here draws."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from jax_ranges.report.view.model import Model
from jax_ranges.report.view.scopes import Node

ONLY: Mapping[str, Callable[[Model, int, int], bool]] = {
    "NaN or inf": lambda model, i, fmt: model.rows[i].nan or model.rows[i].infinite,
    "beyond the format": lambda model, i, fmt: fmt in model.over[i],
    "beyond the scale": lambda model, i, fmt: (model.gauge.position(model.rows[i]) or 0) > 1,
    "not observed": lambda model, i, fmt: not model.rows[i].observed,
    "changed": lambda model, i, fmt: i in model.changed,
}
"""What a site can be: asked of its index, and of that of the format it is judged by."""

DIRECTIONS = ("", "forward", "backward")


@dataclass(frozen=True)
class Filters:
    """What a site must be to be shown. What is empty asks for nothing.

    Attributes:
      search: words that its name, primitive or source has, in any case; in a word `*` stands for
        any characters and `?` for one.
      scope: it is inside of it.
      only: of `ONLY`.
      primitive, dtype: as its row says.
      direction: of `DIRECTIONS`.
    """

    search: str = ""
    scope: Node | None = None
    only: str = ""
    primitive: str = ""
    dtype: str = ""
    direction: str = ""

    def passing(self, model: Model, fmt: int) -> list[int]:
        """The indices of the sites that pass, in program order; `fmt` is that of the format."""
        tests = list(self._tests(model, fmt))
        members = range(len(model.rows)) if self.scope is None else self.scope.members
        return [i for i in members if all(test(i) for test in tests)]

    def says(self, model: Model, fmt: int) -> list[str]:
        """The filters in words."""
        only = self.only.replace("the format", model.formats[fmt].name)
        scope = f"in {self.scope.path}" if self.scope else ""
        search = f"“{self.search.strip()}”" if self.search.strip() else ""
        found = (search, scope, only, self.primitive, self.dtype, self.direction)
        return [text for text in found if text]

    def _tests(self, model: Model, fmt: int) -> Iterator[Callable[[int], bool]]:
        rows = model.rows
        for word in self.search.split():
            yield _search(model, word)
        if self.only:
            fits = ONLY[self.only]
            yield lambda i: fits(model, i, fmt)
        if self.primitive:
            yield lambda i: rows[i].primitive == self.primitive
        if self.dtype:
            yield lambda i: rows[i].dtype == self.dtype
        if self.direction:
            yield lambda i: rows[i].backward == (self.direction == "backward")


def _search(model: Model, word: str) -> Callable[[int], bool]:
    part, texts = word.lower(), model.searched
    if "*" not in part and "?" not in part:
        return lambda i: part in texts[i]
    pattern = re.escape(part).replace(r"\*", ".*").replace(r"\?", ".")
    found = re.compile(pattern).search
    return lambda i: found(texts[i]) is not None
