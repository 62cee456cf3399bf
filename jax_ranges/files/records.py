"""Records: what a file says of each site, as plain Python values; between formats and `Ranges`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from jax_ranges import compat, keys
from jax_ranges.files.numbers import number
from jax_ranges.files.reading import quoted
from jax_ranges.ranges import Range, Ranges, from_states
from jax_ranges.site import Site
from jax_ranges.stats import Extrema, MinMax, State, Statistic


@dataclass(frozen=True)
class Record:
    """What a file says of one site.

    Attributes:
      site: the site.
      min, max: exact Python numbers, None where no number was seen; nested lists of these for
        ranges with leading axes.
      nan: a boolean, or nested lists of them.
      states: the states of other statistics than MinMax.
      ranged: whether a range was taken; if not, min and max are None, and nan is False.
    """

    site: Site
    min: Any
    max: Any
    nan: Any
    states: Mapping[Statistic, State] = field(default_factory=dict)
    ranged: bool = True

    @property
    def observed(self) -> bool:
        """Whether any value was seen; for records without leading axes."""
        return self.nan or self.min is not None


class ForeignError(ValueError):
    """It is no file of ranges, or none that this release reads; the message goes on from "is"."""


def records_of(ranges: Ranges, merged: bool = True) -> list[Record]:
    """One record a site, in program order; `merged`: without leading axes, and ranges only.

    Raises:
      ValueError: inside jit, where there are no values; or `merged`, and MinMax was not taken.
    """
    if any(compat.is_traced(leaf) for leaf in jax.tree.leaves(ranges)):
        raise ValueError(
            "these ranges are traced (inside jit, vmap or grad) and have no values yet: return "
            "them from the transformed function and compare or save them outside"
        )
    if merged:
        return [_record(site, ranges[site.name], merged) for site in ranges.sites]
    return [_full_record(site, ranges) for site in ranges.sites]


def _full_record(site: Site, ranges: Ranges) -> Record:
    taken = [stat for stat in ranges.stats if ranges.has(site.name, stat)]
    states = {s: ranges.state(site.name, s) for s in taken if not isinstance(s, MinMax)}
    if len(states) == len(taken):
        return Record(site, None, None, False, states, ranged=False)
    return replace(_record(site, ranges[site.name], merged=False), states=states)


def _record(site: Site, found: Range, merged: bool) -> Record:
    lo, hi, nan = (_native(np.asarray(x)) for x in (found.min, found.max, found.nan))
    if merged and not lo.size:  # vmap over no examples, a loop of no trips
        return Record(site, None, None, False)
    if merged:  # by keys: numpy takes the two zeros for the same
        least, most = keys.key_of(lo, np).min(), keys.key_of(hi, np).max()
        lo, hi, nan = keys.value_of(least, lo.dtype), keys.value_of(most, hi.dtype), nan.any()
    unseen = (lo > hi).tolist()
    return Record(site, _seen(lo.tolist(), unseen), _seen(hi.tolist(), unseen), nan.tolist())


def _native(array: np.ndarray) -> np.ndarray:
    """int4 and the like as int64: numpy makes no Python numbers of the types of ml_dtypes."""
    return array.astype(np.int64) if array.dtype.kind == "V" else array


def _seen(values: Any, unseen: Any) -> Any:
    if isinstance(values, list):
        return [_seen(v, u) for v, u in zip(values, unseen, strict=True)]
    return None if unseen else values


# -- back to ranges ---------------------------------------------------------------------------


def ranges_of(records: Iterable[Record]) -> Ranges:
    """The ranges that records tell of; ValueError if they cannot be ranges."""
    records = list(records)
    for name, count in Counter(record.site.name for record in records).items():
        if count > 1:
            raise ValueError(
                f"it has the site {quoted(name)} {count} times; if it is several files put "
                f"together, give them to jr.load one by one, which merges them"
            )
    return from_states([r.site for r in records], [_states(r) for r in records])


def _states(record: Record) -> dict[Statistic, State]:
    ranged: dict[Statistic, State] = {MinMax(): _state(record)} if record.ranged else {}
    return {**ranged, **record.states}


def _state(record: Record) -> Extrema:
    try:
        return MinMax().state(*_arrays(record), record.site.dtype, np)
    except ValueError as error:
        raise ValueError(f"site {quoted(record.site.name)}: {error}") from error


def _arrays(record: Record) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dtype = keys.real_dtype(record.site.dtype)
    carrier = keys.carrier_dtype(dtype)
    least, most = keys.limits(carrier)
    lo = _array(record.min, lambda x: most if x is None else number(x, dtype), carrier)
    hi = _array(record.max, lambda x: least if x is None else number(x, dtype), carrier)
    nan = _array(record.nan, bool, np.dtype(bool))
    unseen = [_array(x, lambda x: x is None, np.dtype(bool)) for x in (record.min, record.max)]
    if not lo.shape == hi.shape == nan.shape or np.any(unseen[0] != unseen[1]):
        raise ValueError("min, max and nan do not belong together")
    if np.any((lo > hi) & ~unseen[0]):
        raise ValueError("its min is above its max")
    return (*_with_zeros_in_order(lo, hi), nan)


def _with_zeros_in_order(lo: np.ndarray, hi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From 0.0 to -0.0, as of a program to which they are the same: both zeros were seen."""
    if lo.dtype.kind != "f":
        return lo, hi
    turned = (lo == 0) & (hi == 0) & ~np.signbit(lo) & np.signbit(hi)
    return np.where(turned, hi, lo), np.where(turned, lo, hi)


def _array(values: Any, each: Callable[[Any], Any], dtype: np.dtype) -> np.ndarray:
    def mapped(values: Any) -> Any:
        return [mapped(v) for v in values] if isinstance(values, list) else each(values)

    found = mapped(values)
    try:
        return np.array(found, dtype)
    except ValueError as error:  # numpy's words are about a "sequence"
        raise ValueError(f"lists of different lengths in {quoted(values)}") from error
