"""Entries: the sites of ranges, their rows, and what happened to each since older ranges.

What the HTML page and the terminal's viewer show starts from these.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jax_ranges.diff import DiffRow, diff
from jax_ranges.ranges import Ranges
from jax_ranges.report.rows import Row, rows_of, unreadable
from jax_ranges.site import Site
from jax_ranges.stats import MinMax


@dataclass(frozen=True, slots=True)
class Entry:
    """A site, where it was found, and its row there.

    Attributes:
      ranges: of a comparison the newer ones that have the site.
      site, row: of these ranges.
      change: what happened to the site; None if nothing is compared.
    """

    ranges: Ranges
    site: Site
    row: Row
    change: DiffRow | None = None

    @property
    def gone(self) -> bool:
        """Whether it is in the older ranges only."""
        return self.change is not None and self.change.after is None


def entries_of(ranges: Ranges, before: Ranges | None = None) -> list[Entry]:
    """The sites of `ranges` in program order, then those that only `before` has.

    Sites at which MinMax was not taken are left out.

    Raises:
      ValueError: there are no values (inside jit), or MinMax was not taken.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = jr.ranges(lambda x: jnp.exp(-x))
      >>> older, newer = f(jnp.array(1.0))[1], f(jnp.array(-2.0))[1]
      >>> [(entry.site.name, entry.change.changes) for entry in entries_of(newer, older)]
      [('neg', ('shifted',)), ('exp', ('shifted',))]
    """
    found = _found(ranges)
    if before is None:
        return found
    found += [entry for entry in _found(before) if entry.site.name not in ranges]
    changes = {row.name: row for row in diff(_ranged(before), _ranged(ranges)).rows}
    return [replace(entry, change=changes[entry.site.name]) for entry in found]


def _found(ranges: Ranges) -> list[Entry]:
    why = unreadable(ranges)
    if why:
        raise ValueError(
            f"what is shown are ranges that have values, on this host and with MinMax() among "
            f"their statistics; these are {why}"
        )
    sites = [site for site in ranges.sites if ranges.has(site.name, MinMax())]
    return [Entry(ranges, s, row) for s, row in zip(sites, rows_of(ranges), strict=True)]


def _ranged(ranges: Ranges) -> Ranges:
    """Without the sites at which MinMax was not taken, where there is nothing to compare."""
    return ranges.select(lambda site: ranges.has(site.name, MinMax()))
