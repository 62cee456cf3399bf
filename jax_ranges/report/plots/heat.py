"""The heat map: for each site the share of its values in each power of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jax_ranges.formats import Format
from jax_ranges.ranges import Ranges
from jax_ranges.report.plots.canvas import (
    SMALL,
    exponents_in,
    figure,
    limit_style,
    name_text,
    title_text,
)
from jax_ranges.report.rows import power_text, printable
from jax_ranges.statistics.exponents import ExponentCounts, Exponents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OTHERS = ("0", "<", ">", "±∞", "NaN")
"""Zeros, what is below and above the powers of two that have columns, infinities, NaN."""

REACH = 16
"""So many powers of two have columns on either side of where most values are, at least."""


@dataclass(frozen=True)
class Shares:
    """What the values of one site are, in shares of all of them.

    Attributes:
      name: of the site.
      powers: the share of each exponent that any value has, zeros left out.
      zero, infinite, nan: the shares of these.
    """

    name: str
    powers: dict[int, float]
    zero: float
    infinite: float
    nan: float

    def others(self, low: int, high: int) -> list[float]:
        """What is not between two exponents: zeros, below and above them, infinities, NaN."""
        below = sum(share for e, share in self.powers.items() if e < low)
        above = sum(share for e, share in self.powers.items() if e > high)
        return [self.zero, below, above, self.infinite, self.nan]


def heat(ranges: Ranges, formats: Sequence[Format], sort: str, limit: int) -> Figure:
    """The figure: sites from top to bottom, powers of two from left to right, and the others."""
    found = shares_of(ranges)
    if sort not in ("program", "name"):
        raise ValueError(f"sort={sort!r} is an order of ranges; a heat map has 'program' or 'name'")
    shown = _picked(found, sort, limit)
    low, high = _span(shown)
    drawn = figure(11, 1.6 + 0.19 * len(shown))
    powers, others = drawn.subplots(1, 2, width_ratios=(5, 1), sharey=True)
    image = _draw_powers(powers, shown, low, high)
    _draw_others(others, shown, low, high)
    _draw_limits(powers, formats, low, high)
    powers.set_title(title_text(len(shown), len(found), sort), fontsize=10, loc="left")
    bar = drawn.colorbar(image, ax=others, label="share of the values", aspect=30)
    bar.ax.tick_params(labelsize=SMALL)
    if powers.get_legend_handles_labels()[0]:
        drawn.legend(loc="outside lower center", ncols=3, fontsize=SMALL, frameon=False)
    return drawn


def shares_of(ranges: Ranges) -> list[Shares]:
    """One for each site where `jr.Exponents()` was taken; ValueError if that is nowhere."""
    taken = [site.name for site in ranges.sites if ranges.has(site.name, Exponents())]
    if not taken:
        raise ValueError(
            "a heat map shows the counts of jr.Exponents(), which were taken at no site: "
            "jr.ranges(f, stats=(jr.MinMax(), jr.Exponents()))"
        )
    return [_shares(name, ranges.of(name, Exponents())) for name in taken]


def _shares(name: str, found: ExponentCounts) -> Shares:
    width = len(found.exponents)
    counts = (found.negative + found.positive).reshape(-1, width).sum(0)
    infinite = np.sum(found.pos_inf) + np.sum(found.neg_inf)
    others = [int(np.sum(x)) for x in (found.zero, infinite, found.nan)]
    total = max(int(counts.sum()) + sum(others), 1)  # not observed: all are 0
    seen = zip(found.exponents.tolist(), counts.tolist(), strict=True)
    zero, inf, nan = (count / total for count in others)
    return Shares(printable(name), {e: n / total for e, n in seen if n}, zero, inf, nan)


def _picked(found: list[Shares], sort: str, limit: int) -> list[Shares]:
    """In program order, if there are too many, those with NaN or inf, then the largest."""
    if sort == "name":
        return sorted(found, key=lambda share: share.name)[:limit]
    notable = sorted(range(len(found)), key=lambda i: _notable(found[i]))
    return [found[i] for i in sorted(notable[:limit])]


def _notable(share: Shares) -> tuple[bool, bool, float]:
    return not share.nan, not share.infinite, -max(share.powers, default=-np.inf)


def _span(shown: Sequence[Shares]) -> tuple[int, int]:
    """The exponents that have columns: all but far outliers, which would squeeze the others."""
    seen = sorted(e for share in shown for e in share.powers)
    if not seen:
        return 0, 0
    first, third = seen[len(seen) // 4], seen[len(seen) * 3 // 4]
    reach = max(REACH, 3 * (third - first))
    near = [e for e in seen if first - reach <= e <= third + reach]
    return near[0], near[-1]


def _draw_powers(axes: Any, shown: Sequence[Shares], low: int, high: int) -> Any:
    exponents = range(low, high + 1)
    table = [[share.powers.get(e, 0.0) for e in exponents] for share in shown]
    step = max(1, (high - low) // 14)
    ticks = [e for e in exponents if e % step == 0]
    axes.set_xticks([e + 0.5 for e in ticks], list(map(power_text, ticks)), fontsize=SMALL)
    places = np.arange(len(shown)) + 0.5
    axes.set_yticks(places, [name_text(share.name) for share in shown], fontsize=SMALL)
    return _mesh(axes, np.arange(low, high + 2), table)


def _draw_others(axes: Any, shown: Sequence[Shares], low: int, high: int) -> None:
    axes.set_xticks(np.arange(len(OTHERS)) + 0.5, OTHERS, fontsize=SMALL)
    _mesh(axes, np.arange(len(OTHERS) + 1), [share.others(low, high) for share in shown])


def _mesh(axes: Any, edges: np.ndarray, table: Sequence[Sequence[float]]) -> Any:
    """Cells coloured by the logarithm of their share; none where there is none."""
    shares = np.ma.masked_equal(np.array(table, float), 0.0)
    # An edge of its own colour keeps a cell visible where two thousand exponents have columns.
    style = {"norm": "log", "cmap": "viridis", "edgecolors": "face", "linewidth": 0.3}
    mesh = axes.pcolormesh(edges, np.arange(len(table) + 1), shares, **style)
    mesh.set_clim(1e-6, 1.0)
    axes.set_facecolor("0.96")
    axes.set_ylim(len(table), 0)
    axes.tick_params(axis="y", length=0)
    return mesh


def _draw_limits(axes: Any, formats: Sequence[Format], low: int, high: int) -> None:
    """Where formats end: above is lost as overflow, below as underflow."""
    for i, fmt in enumerate(formats):
        bottom, top = exponents_in(fmt)
        ends = [x for x in (bottom, top + 1) if low <= x <= high + 1]
        label = f"{fmt.name} {power_text(bottom)} to {power_text(top)}"
        for x in ends:
            axes.axvline(x, label=label if x == ends[0] else None, **limit_style(i))
