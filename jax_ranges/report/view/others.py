"""Others: the statistics of one site beside its range, in a line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jax_ranges.report.entries import Entry
from jax_ranges.report.rows import cut_right, number_text, printable
from jax_ranges.statistics.exponents import Exponents
from jax_ranges.statistics.histogram import Histogram
from jax_ranges.stats import MinMax

LONGEST = 200  # of what a user's own statistic says


def others(entry: Entry) -> Iterator[tuple[str, str]]:
    """The name of each statistic, and what it found; but for those that are drawn."""
    ranges, name = entry.ranges, entry.site.name
    for stat in ranges.stats:
        if not isinstance(stat, MinMax | Exponents | Histogram) and ranges.has(name, stat):
            yield repr(stat), _text(ranges.of(name, stat))


def _text(found: Any) -> str:
    if not dataclasses.is_dataclass(found):
        return cut_right(printable(str(found)), LONGEST)
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return ", ".join(f"{name} {_value_text(value)}" for name, value in fields.items())


def _value_text(value: Any) -> str:
    """A number, or of several how many there are and their ends."""
    array = np.asarray(value)
    if array.dtype.kind in "fV":  # V: bfloat16 and the like
        array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        return cut_right(printable(str(value)), LONGEST)
    if not array.size:
        return "none"
    least, most = (number_text(end.item()) for end in (array.min(), array.max()))
    several = f"{'×'.join(map(str, array.shape))} from " if array.ndim else ""
    return several + (least if least == most else f"{least} to {most}")
