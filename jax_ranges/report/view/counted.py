"""Counted: the values at one site, by power of two or by bin, as charts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from jax_ranges import rounding
from jax_ranges.formats import Format
from jax_ranges.report.entries import Entry
from jax_ranges.report.rows import number_text, power_text
from jax_ranges.report.view.chart import Chart
from jax_ranges.statistics.exponents import ExponentCounts, Exponents
from jax_ranges.statistics.histogram import Histogram, HistogramCounts

FITS, BEYOND, BELOW = "blue", "red", "yellow"


def counted(entry: Entry, fmt: Format) -> Iterator[RenderableType]:
    """Charts of the counts of exponents, and of histograms, that were taken at a site."""
    ranges, name = entry.ranges, entry.site.name
    for stat in ranges.stats:
        if isinstance(stat, Exponents) and ranges.has(name, stat):
            yield from _by_power(ranges.of(name, stat), fmt)
        if isinstance(stat, Histogram) and ranges.has(name, stat):
            yield from _by_bin(ranges.of(name, stat), fmt)


def _by_power(found: ExponentCounts, fmt: Format) -> Iterator[RenderableType]:
    exponents = np.asarray(found.exponents)
    sides = [_summed(side, len(exponents)) for side in (found.positive, found.negative)]
    (seen,) = np.nonzero(sides[0] + sides[1])
    yield _title("Values by power of two", found, ("zero", "nan", "pos_inf", "neg_inf"))
    if not seen.size:
        return
    part = slice(int(seen[0]), int(seen[-1]) + 1)
    styles = [_style_of(int(e), fmt) for e in exponents[part]]
    left, right = (power_text(int(exponents[k])) for k in (seen[0], seen[-1]))
    most = max(int(side.max()) for side in sides)
    for side, what in zip(sides, ("positive", "negative"), strict=True):
        if side.any():
            yield Text(f"{what}: {int(side.sum()):,}", "dim")
            yield Chart(_heights(side[part], most), styles, left, right)
    yield _legend(styles, fmt)


def _by_bin(found: HistogramCounts, fmt: Format) -> Iterator[RenderableType]:
    yield _title("Values by bin", found, ("nan", "pos_inf", "neg_inf"))
    if found.edges.ndim > 1:  # stacked histograms have bins of their own
        yield Text("one histogram an iteration or example: ranges.reduce() merges them", "dim")
        return
    (seen,) = np.nonzero(found.counts)
    if not seen.size:
        return
    part = slice(int(seen[0]), int(seen[-1]) + 1)
    counts, edges = found.counts[part], found.edges[seen[0] : seen[-1] + 2]
    lows, highs = edges[:-1], edges[1:]
    beyond = (lows >= fmt.largest) | (highs <= fmt.least)
    styles = [BEYOND if far else FITS for far in beyond.tolist()]
    left, right = (number_text(float(end)) for end in (edges[0], edges[-1]))
    yield Chart(_heights(counts, int(counts.max())), styles, left, right)
    yield _legend(styles, fmt)


def _summed(side: np.ndarray, width: int) -> np.ndarray:
    """Over the leading axes."""
    return np.asarray(side).reshape(-1, width).sum(0)


def _style_of(exponent: int, fmt: Format) -> str:
    if exponent > fmt.max_exponent:
        return BEYOND
    return BELOW if exponent < rounding.exponent_of(fmt.smallest_subnormal) else FITS


def _heights(counts: np.ndarray, most: int) -> list[float]:
    """Logarithmic, so that one value in a million is seen."""
    return [math.log2(n + 1) / math.log2(most + 1) for n in counts.tolist()]


def _title(what: str, found: ExponentCounts | HistogramCounts, others: Sequence[str]) -> Text:
    counts = {name: int(np.sum(getattr(found, name))) for name in others}
    names = {"pos_inf": "+inf", "neg_inf": "-inf", "nan": "NaN"}
    texts = [f"{n:,} {names.get(name, name)}" for name, n in counts.items() if n]
    several = int(np.sum(found.total))
    total = f"{several:,} value{'s' * (several != 1)}"
    return Text.assemble("\n", (what, "bold"), (f"  {', '.join([total, *texts])}", "dim"))


def _legend(styles: Sequence[str], fmt: Format) -> Text:
    says = {BEYOND: f"beyond {fmt.name}", BELOW: f"below the least of {fmt.name}"}
    parts = [(f"█ {text}  ", style) for style, text in says.items() if style in styles]
    return Text.assemble(*parts, ("heights are logarithmic", "dim"))
