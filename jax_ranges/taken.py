"""Which statistics are taken at which sites: what the argument `stats` stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jax_ranges.site import NothingSelectedError, Site, selector
from jax_ranges.stats import MinMax, Statistic

Several = Statistic | Sequence[Statistic]
Stats = Several | Mapping[Any, Several]
"""One statistic, several, or several for each selection of sites (see `jr.ranges`)."""

RANGES_ONLY: Stats = (MinMax(),)
"""What is taken by default."""


@dataclass(frozen=True)
class Taken:
    """The statistics, each of them once, and for each the selections of the sites it is taken at.

    Attributes:
      where: for each statistic predicates, of which one must hold; None for every site.
    """

    stats: tuple[Statistic, ...]
    where: tuple[tuple[Callable[[Site], bool], ...], ...] | None = None

    def takes(self, k: int, site: Site) -> bool:
        """Whether statistic k is taken at this site."""
        return self.where is None or any(selects(site) for selects in self.where[k])

    def of_interest(self, sites: Sequence[Site], picked: Sequence[int]) -> list[int]:
        """Those picked at which anything is taken; NothingSelectedError if there are none."""
        if self.where is None:
            return list(picked)
        kinds = range(len(self.stats))
        found = [i for i in picked if any(self.takes(k, sites[i]) for k in kinds)]
        if picked and not found:
            raise NothingSelectedError(
                f"none of the {len(picked)} sites is selected by the keys of stats: "
                f"{', '.join(site.name for site in sites[:12])} ..."
            )
        return found


def taken(stats: Stats) -> Taken:
    """What `stats` stands for; TypeError if it is none of what it may be."""
    if not isinstance(stats, Mapping):
        return Taken(_several(stats))
    where: dict[Statistic, list[Callable[[Site], bool]]] = {}
    for select, several in stats.items():
        for stat in _several(several):
            where.setdefault(stat, []).append(selector(select))
    return Taken(tuple(where), tuple(map(tuple, where.values())))


def _several(stats: Any) -> tuple[Statistic, ...]:
    several = (stats,) if isinstance(stats, Statistic) or not _iterable(stats) else tuple(stats)
    for stat in several:
        if not isinstance(stat, Statistic):
            raise TypeError(
                f"stats takes jr.Statistic objects such as jr.MinMax(), got {stat!r}{_hint(stat)}"
            )
    return several


def _hint(stat: Any) -> str:
    if isinstance(stat, type) and issubclass(stat, Statistic):
        return f"; call it: jr.{stat.__name__}()"
    return str(getattr(stat, "no_statistic", ""))


def _iterable(stats: Any) -> bool:
    return isinstance(stats, Iterable)
