"""The model: the entries that are browsed, and what follows from them. Nothing here draws."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jax_ranges.formats import Format
from jax_ranges.ranges import Ranges
from jax_ranges.report.entries import Entry, entries_of
from jax_ranges.report.page.document import overflows
from jax_ranges.report.page.families import families
from jax_ranges.report.rows import Gauge, Row
from jax_ranges.report.view.scopes import Node, scopes_of


@dataclass(frozen=True, eq=False)
class Model:
    """What is browsed.

    Attributes:
      entries: the sites, in program order.
      formats: whose limits sites are judged by.
      title: what it is.
      compared: there are older ranges.
    """

    entries: Sequence[Entry]
    formats: Sequence[Format]
    title: str
    compared: bool

    @classmethod
    def of(
        cls, ranges: Ranges, before: Ranges | None, formats: Sequence[Format], title: str
    ) -> Model:
        """Of ranges, and what moved since `before` if that is given.

        Raises:
          ValueError: there are no values (inside jit), no sites, or MinMax was not taken.
        """
        found = entries_of(ranges, before)
        if not found:
            raise ValueError("there are no sites to look at")
        return cls(found, formats, title, before is not None)

    @functools.cached_property
    def rows(self) -> list[Row]:
        """One a site; one where nothing was seen for a site that is in the older ranges only."""
        return [_unseen(entry.row) if entry.gone else entry.row for entry in self.entries]

    @functools.cached_property
    def gauge(self) -> Gauge:
        """The scale that all bars share."""
        return Gauge.of(self.rows)

    @functools.cached_property
    def over(self) -> list[list[int]]:
        """For each site the indices of the formats that something seen there is beyond."""
        return [overflows(row, self.formats) for row in self.rows]

    @functools.cached_property
    def searched(self) -> list[str]:
        """The text of each site in which a search looks."""
        texts = (f"{e.row.name}\n{e.row.primitive}\n{e.row.source}" for e in self.entries)
        return [text.lower() for text in texts]

    @functools.cached_property
    def scopes(self) -> Node:
        """The tree of scopes."""
        return scopes_of(self.rows, self.over, len(self.formats), self.changed)

    @functools.cached_property
    def changed(self) -> frozenset[int]:
        """The sites to which something happened."""
        changes = enumerate(entry.change for entry in self.entries)
        return frozenset(i for i, change in changes if change and change.changes)

    @functools.cached_property
    def places(self) -> dict[str, int]:
        """The index of each site by its name."""
        return {entry.site.name: i for i, entry in enumerate(self.entries)}

    @functools.cached_property
    def users(self) -> dict[str, list[int]]:
        """By name the sites that something feeds."""
        found: dict[str, list[int]] = {}
        for i, entry in enumerate(self.entries):
            for name in dict.fromkeys(entry.site.operands):
                found.setdefault(name, []).append(i)
        return found

    @functools.cached_property
    def family(self) -> dict[int, list[int]]:
        """For each site that is in several layers those of all layers."""
        return {i: members for members in families(self.rows) for i in members}

    def tally(self, of: str) -> list[tuple[str, int]]:
        """The values of an attribute of rows, the frequent ones first, and how many have each."""
        return Counter(getattr(row, of) for row in self.rows).most_common()


def _unseen(row: Row) -> Row:
    nothing = replace(row, min=None, max=None, amax=None, lead=(), each=())
    return replace(nothing, nan=False, observed=False)
