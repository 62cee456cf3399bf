"""What is known about births before the program runs, and reading what is known after."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from jax_ranges.births.checks import Check, has_specials
from jax_ranges.births.first import First
from jax_ranges.births.inquiry import Operand, Part, Question
from jax_ranges.births.statistic import Births
from jax_ranges.births.watch import Watch, key_ends
from jax_ranges.derive import Chain, apply
from jax_ranges.range import Range
from jax_ranges.ranges import Ranges
from jax_ranges.stats import Extrema, MinMax


@dataclass(frozen=True, eq=False)
class Genealogy:
    """What is asked at each site, by its name, for a statistic."""

    stat: Births
    questions: Mapping[str, Question]


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in a run, on the host: ranges, and births beside them."""

    ranges: Ranges
    genealogy: Genealogy
    _read: dict[str, Range] = field(default_factory=dict)

    @functools.cached_property
    def users(self) -> Mapping[str, tuple[str, ...]]:
        """For each site those that it feeds."""
        users: dict[str, dict[str, None]] = {}
        for site in self.ranges.sites:
            for name in site.operands:
                users.setdefault(name, {})[site.name] = None
        return {name: tuple(found) for name, found in users.items()}

    def state(self, name: str) -> First:
        """The births at a site, merged over leading axes (vmap, stacked loops)."""
        stat = self.genealogy.stat
        state = First(*self.ranges.state(name, stat))
        return First(*stat.reduce(state, state.count.ndim - 1))

    def range(self, name: str) -> Range:
        """The range of a site in the whole run."""
        if name not in self._read:
            found = self.ranges[name]
            self._read[name] = Range(np.min(found.min), np.max(found.max), np.any(found.nan))
        return self._read[name]

    def has(self, name: str, kind: str) -> bool:
        """Whether a site is ever NaN (if that is the kind), or not finite."""
        if name not in self.ranges or not has_specials(self.ranges.site(name).dtype):
            return False
        return _has(self.range(name), kind)

    def is_beyond(self, name: str, watch: Watch) -> bool:
        """Whether values at a site are ever beyond the format that is watched."""
        if name not in self.ranges or not has_specials(self.ranges.site(name).dtype):
            return False
        dtype, found = self.ranges.site(name).dtype, self.range(name)
        state = MinMax().state(found.min, found.max, found.nan, dtype, np)
        return bool(watch.is_beyond(state.min, state.max, key_ends(watch.limits, dtype)))

    def operand(self, operand: Operand, state: First, kind: int) -> Range | None:
        """The range of an operand when something of this kind was born; None if not kept."""
        if operand.literal is not None:
            return _of_literal(operand.literal)
        if operand.parts is None:
            return None
        return functools.reduce(Range.merge, [self._part(p, state, kind) for p in operand.parts])

    def _part(self, part: Part, state: First, kind: int) -> Range:
        dtype = part.steps[0].dtype if part.steps else part.source.dtype
        lo, hi, nan = MinMax().read(self._extrema(part, state, kind), dtype, np)
        lo, hi = apply(Chain(None, part.steps), lo, hi)
        return Range(np.asarray(lo)[()], np.asarray(hi)[()], np.asarray(nan)[()])

    def _extrema(self, part: Part, state: First, kind: int) -> Extrema:
        if part.source.known is not None:
            return part.source.known()
        if part.snapshot is not None:
            word = MinMax().identity(part.source.dtype).min.dtype
            return Extrema(*(leaf[kind, part.snapshot].astype(word) for leaf in state.seen))
        return self._outside(part)

    def _outside(self, part: Part) -> Extrema:
        """Of what was measured outside of the loop: in the whole run."""
        assert part.slot is not None
        extrema = Extrema(*self.ranges.state_at(part.slot))
        return MinMax().reduce(extrema, np.ndim(extrema.min))

    def inherits(self, question: Question, kind: str) -> bool:
        """Whether an operand from outside of the loop, asked as a whole, held such a thing."""
        if question.check is not Check.WHOLE or kind not in ("nan", "+inf", "-inf"):
            return False
        return any(_has(self._range_of(part), kind) for part in _from_outside(question))

    def _range_of(self, part: Part) -> Range:
        return Range(*MinMax().read(self._outside(part), part.source.dtype, np))


def _of_literal(literal: np.generic) -> Range:
    parts = np.array([literal.real, literal.imag] if np.iscomplexobj(literal) else [literal])
    return Range(parts.min(), parts.max(), np.isnan(parts).any())


def _has(found: Range, kind: str) -> bool:
    # The identity has infinite ends too, the other way round.
    infinite = found.min <= found.max and (np.isinf(found.min) or np.isinf(found.max))
    return bool(found.nan) or (kind != "nan" and bool(infinite))


def _from_outside(question: Question) -> Iterator[Part]:
    for operand in question.operands:
        yield from (part for part in operand.parts or () if part.slot is not None)
