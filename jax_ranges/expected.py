"""Expected ranges: how far each site may go, as limits on what is measured.

A site may be derived from what is measured (see `derive`), by steps that keep the order or turn
it round. Then the values it may have come from one interval of the measured ones, which is
searched for here, once, on the host. So watching a program takes comparisons of the few arrays
that its measurements are packed in, whatever is derived from them.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_ranges import keys
from jax_ranges.derive import STEPS, Chain, Step, apply
from jax_ranges.files.records import Record, records_of
from jax_ranges.formats import format_of
from jax_ranges.packing import Layout
from jax_ranges.ranges import Ranges
from jax_ranges.stats import MinMax

ROUNDING = 4
"""Units in the last place by which two compilations of a program may differ."""

Number = bool | int | float


@dataclass(frozen=True)
class Allowed:
    """What a site may do without being in violation.

    Attributes:
      min, max: how far its values may go: numbers of the site's dtype, or infinities where those
        were expected; None where no number was.
      nan: NaN was expected.
    """

    min: Number | None
    max: Number | None
    nan: bool


@dataclass(frozen=True)
class Expectation:
    """Expected ranges, and how far beyond them is still well.

    Attributes:
      records: what is expected, one record a site, without leading axes.
      tolerance, atol: see `jr.guard`.
    """

    records: tuple[Record, ...]
    tolerance: float
    atol: float

    @classmethod
    def of(cls, ranges: Ranges, tolerance: float, atol: float) -> Expectation:
        ranged = [site.name for site in ranges.sites if ranges.has(site.name, MinMax())]
        wanted = frozenset(ranged)
        if not wanted:
            raise ValueError("no ranges are expected: `expected` has no sites with MinMax()")
        picked = ranges.select(lambda site: site.name in wanted)
        return cls(tuple(records_of(picked)), tolerance, atol)

    @functools.cached_property
    def by_name(self) -> dict[str, Record]:
        return {record.site.name: record for record in self.records}

    @property
    def inputs(self) -> bool:
        """Whether inputs or captured constants are among the sites."""
        return any(r.site.primitive in ("input", "const") for r in self.records)

    def allowed(self, name: str, dtype: np.dtype) -> Allowed:
        """What a site may do that has this dtype in the program."""
        record = self.by_name[name]
        lo, hi = _widened(record, keys.real_dtype(dtype), self.tolerance, self.atol)
        return Allowed(lo, hi, bool(record.nan))

    def limits(self, layout: Layout) -> Limits:
        """The same for all sites of a program, as limits on its packed states."""
        return _limits(self, layout)

    # The static part of a pytree, as a `Layout` is: identity first, and the hash only once.

    @functools.cached_property
    def _key(self) -> tuple[Any, ...]:
        said = ((r.site.name, r.site.dtype, r.min, r.max, r.nan) for r in self.records)
        return (tuple(said), self.tolerance, self.atol)

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Expectation) and self._key == other._key


# -- how far ----------------------------------------------------------------------------------


def _widened(
    record: Record, dtype: np.dtype, tolerance: float, atol: float
) -> tuple[Number | None, Number | None]:
    """The expected range with a margin on both sides, in numbers of `dtype`."""
    if record.min is None:
        return None, None
    margin = _margin(record, dtype, tolerance, atol)
    return _moved(record.min, -margin, dtype), _moved(record.max, margin, dtype)


def _margin(record: Record, dtype: np.dtype, tolerance: float, atol: float) -> Fraction:
    # Exact: ends may be 2**63 - 1, or 1e308 and -1e308, whose difference is no float.
    finite = [Fraction(end) for end in (record.min, record.max) if math.isfinite(end)]
    magnitude = max(map(abs, finite), default=Fraction())
    width = finite[1] - finite[0] if len(finite) == 2 else magnitude
    dtypes = (dtype, keys.real_dtype(record.site.dtype))
    eps = max(Fraction(float(jnp.finfo(d).eps)) if keys.is_float(d) else Fraction() for d in dtypes)
    return max(Fraction(tolerance) * width, Fraction(atol), ROUNDING * eps * magnitude)


def _moved(end: Number, by: Fraction, dtype: np.dtype) -> Number:
    """An end moved so far, but to no infinity."""
    if not math.isfinite(end):
        return end
    limits = format_of(dtype) if dtype != np.dtype(bool) else None
    least, most = (limits.least, limits.largest) if limits else (0, 1)
    moved = min(max(Fraction(end) + by, Fraction(least)), Fraction(most))
    if keys.is_float(dtype):
        carried = np.asarray(float(moved), keys.carrier_dtype(dtype)).astype(dtype)
        return carried.astype(keys.carrier_dtype(dtype)).item()
    whole = math.ceil(moved) if by < 0 else math.floor(moved)
    return bool(whole) if limits is None else whole


# -- limits on what is measured ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Part:
    """Limits on the states of one group: at `positions`, on the keys of the extrema, and on `top`.

    What is below `least`, above `most`, or has a magnitude above `top` is in violation. Where no
    number is allowed, `least` is the largest integer and `most` the smallest.
    """

    group: int
    positions: np.ndarray
    least: np.ndarray
    most: np.ndarray
    top: np.ndarray

    def violated(self, state: Any) -> Any:
        """Whether each is, of a group's state (of numpy or traced), along the last axis."""
        low, high, top = (leaf[..., self.positions] for leaf in state)
        beyond = (low < self.least) | (high > self.most)
        return (beyond & (low <= high)) | (top > self.top)


@dataclass(frozen=True, eq=False)
class Limits:
    """Limits on the packed states of a program.

    `sites[i]` says which of the parts' entries, counted through, are about site i (the first
    one again where there are fewer than for others).
    """

    parts: tuple[Part, ...]
    sites: np.ndarray


@functools.lru_cache(maxsize=256)
def _limits(expectation: Expectation, layout: Layout) -> Limits:
    entries, sites = [], []
    for i, (site, chains) in enumerate(zip(layout.sites, layout.places[0], strict=True)):
        allowed = expectation.allowed(site.name, site.dtype)
        entries += [_entry(chain, site.dtype, allowed) for chain in chains]
        sites += [i] * len(chains)
    order = sorted(range(len(entries)), key=lambda n: entries[n].group)
    parts = [
        _part(group, list(of_group), layout.groups[group].leaves[0].dtype)
        for group, of_group in itertools.groupby(
            (entries[n] for n in order), key=lambda entry: entry.group
        )
    ]
    places: list[list[int]] = [[] for _ in layout.sites]
    for place, n in enumerate(order):
        places[sites[n]].append(place)
    most = max(map(len, places), default=1)
    padded = [row + row[:1] * (most - len(row)) for row in places]
    return Limits(tuple(parts), np.array(padded, np.int32).reshape(len(padded), most))


class Entry(NamedTuple):
    """Limits on one state."""

    group: int
    position: int
    least: int
    most: int
    top: int


def _part(group: int, entries: Sequence[Entry], word: np.dtype) -> Part:
    _, positions, *ends = zip(*entries, strict=True)
    return Part(group, np.array(positions, np.int32), *(np.array(end, word) for end in ends))


def _entry(chain: Chain, dtype: np.dtype, allowed: Allowed) -> Entry:
    """The limits on one state of which a site's range is made."""
    source = keys.real_dtype(chain.steps[0].dtype if chain.steps else dtype)
    info = np.iinfo(keys.key_dtype(source))
    least, most = _key_interval(chain.steps, source, allowed)
    watches_nan = keys.is_float(source) and not allowed.nan
    top = keys.infinity(source) if watches_nan else int(info.max)
    return Entry(chain.source.group, chain.source.position, least, most, top)


def _key_interval(steps: tuple[Step, ...], source: np.dtype, allowed: Allowed) -> tuple[int, int]:
    info = np.iinfo(keys.key_dtype(source))
    nothing = int(info.max), int(info.min)
    if allowed.min is None or allowed.max is None:
        return nothing
    if steps:
        least, most = _preimage(steps, source, allowed.min, allowed.max)
    else:
        least, most = _key(allowed.min, source, -0.0), _key(allowed.max, source, 0.0)
    return (least, most) if least <= most else nothing


def _key(value: Number, dtype: np.dtype, zero: float) -> int:
    """The key of a limit; the zero at which an interval ends is that which holds both."""
    carrier = keys.carrier_dtype(dtype)
    number = np.asarray(value or zero if keys.is_float(dtype) else value, carrier)
    return int(keys.key_of(number.astype(dtype), np))


def _preimage(steps: tuple[Step, ...], source: np.dtype, lo: Number, hi: Number) -> tuple[int, int]:
    """The keys of the source's values that become values from `lo` to `hi`: the ends."""
    chain = Chain(None, steps)
    first, last = _domain(source)
    falls = sum(STEPS[step.op][1](step) for step in steps) % 2

    def image(key: np.ndarray) -> np.ndarray:
        values = keys.value_of(key, source)
        return apply(chain, values, values)[0]

    def too_low(key: np.ndarray) -> np.ndarray:
        return image(key) < lo

    def too_high(key: np.ndarray) -> np.ndarray:
        return image(key) > hi

    before, after = (too_high, too_low) if falls else (too_low, too_high)
    word = keys.key_dtype(source)
    return (
        _first(lambda key: ~before(key), first, last, word),
        _first(after, first, last, word) - 1,
    )


def _domain(dtype: np.dtype) -> tuple[int, int]:
    """The keys of the least and the largest value of a dtype."""
    if dtype == np.dtype(bool):
        return 0, 1
    found = format_of(dtype)
    ends = (-math.inf, math.inf) if found.has_inf else (found.least, found.largest)
    first, last = (_key(end, dtype, 0.0) for end in ends)
    return first, last


GRID = 257


def _first(holds: Callable[[np.ndarray], np.ndarray], first: int, last: int, word: Any) -> int:
    """The first key for which something holds, which then holds for all after; last + 1 if none."""
    end = last + 1
    while first < end:
        step = max((end - first) // GRID, 1)
        grid = range(first, end, step)
        found = np.flatnonzero(holds(np.array(grid, word)))
        n = int(found[0]) if len(found) else len(grid)
        first, end = (grid[n - 1] + 1 if n else first), (grid[n] if n < len(grid) else end)
    return first
