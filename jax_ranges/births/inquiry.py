"""What has to be known to tell a birth, found while planning.

The ranges of a birth's operands are those of sources (see `plan.Source`) that are measured
anyway, in the same iteration: from the state of MinMax at these the range of each operand
follows. So nothing is reduced twice, and a birth costs a few numbers when it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jax_ranges.births.checks import Check, check_of, has_specials
from jax_ranges.derive import Chain, Expr, Step
from jax_ranges.packing import Slot
from jax_ranges.plan import Made, Planner, Source, Value
from jax_ranges.stats import Extrema


@dataclass(frozen=True, eq=False)
class Part:
    """Where a state of MinMax is read, and what happens to its values on the way to the operand.

    Attributes:
      source: whose state it is.
      steps: what happens to the values.
      snapshot: its place among those that a birth keeps.
      slot: where it is in the packed arrays, if it was measured outside of the iteration.
    """

    source: Source
    steps: tuple[Step, ...]
    snapshot: int | None = None
    slot: Slot | None = None

    @property
    def known(self) -> Callable[[], Extrema] | None:
        """Makes the state of what is known without running anything."""
        return self.source.known


@dataclass(frozen=True, eq=False)
class Operand:
    """An operand of an equation at which something may be born.

    Attributes:
      dtype, shape: its type.
      literal: its value, if it is a literal.
      parts: from which states its range follows; None if that is not kept.
      names: the sites it comes from.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    literal: Any
    parts: tuple[Part, ...] | None
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Question:
    """A site at which something may be born.

    Attributes:
      check: how that is told.
      source: the value.
      made: how the value comes about.
      operands: of its equation, those that are arrays of numbers.
    """

    check: Check
    source: Source
    made: Made
    operands: tuple[Operand, ...]


def inquire(planner: Planner, births: Sequence[int], minmax: int, keep: int) -> dict[int, Question]:
    """For each of these sites what to ask; marks the sources whose MinMax that takes.

    minmax: the index of the statistic. keep: how many states a birth keeps.
    """
    return {i: _question(planner, i, minmax, keep) for i in births}


def _question(planner: Planner, i: int, minmax: int, keep: int) -> Question:
    made, site, value = planner.made[i], planner.sites[i], planner.values[i]
    assert value.source is not None
    if made.eqn is None:
        check = Check.ALL if site.primitive == "input" else Check.NEVER
        return Question(check, value.source, made, ())
    types = [operand.known for operand in made.operands]
    avals = [atom.aval for atom in made.eqn.invars]
    check = check_of(site.primitive, made.eqn.params, avals, made.eqn.outvars[site.output].aval)
    if check is Check.NEVER:
        return Question(check, value.source, made, ())
    pairs = zip(made.operands, avals, types, strict=True)
    found = [_operand(planner, x, aval, check, minmax) for x, aval, known in pairs if known]
    return Question(check, value.source, made, _placed(planner, found, made.nest, keep))


def _operand(planner: Planner, value: Value, aval: Any, check: Check, minmax: int) -> Operand:
    assert value.known is not None and value.source is not None
    expr = _outer(planner, value.known.expr, minmax)
    if check is Check.WHOLE and any(chain.steps for chain in expr):
        # Whether anything in it is NaN or infinite is asked in the graph, where steps are not
        # taken, so this one is measured itself.
        expr = (Chain(value.source.index),)
    parts = [Part(planner.sources[chain.source], chain.steps) for chain in expr]
    for part in parts:
        if part.known is None:
            part.source.want(minmax)
    names = planner.named(value.feeds)
    return Operand(np.dtype(aval.dtype), aval.shape, value.known.literal, tuple(parts), names)


def _outer(planner: Planner, expr: Expr, minmax: int) -> Expr:
    """The same by sources that are measured anyway, where an inner program's operand is the same
    as the outer one."""
    chains: list[Chain] = []
    for chain in expr:
        source = planner.sources[chain.source]
        if source.same is None or minmax in source.wanted:
            chains.append(chain)
        else:
            outer = _outer(planner, source.same.expr, minmax)
            chains += [c._replace(steps=(*c.steps, *chain.steps)) for c in outer]
    return tuple(dict.fromkeys(chains))


def _placed(
    planner: Planner, operands: Sequence[Operand], nest: int, keep: int
) -> tuple[Operand, ...]:
    """Each state that is to be kept of a birth has a place; there are so many."""
    places: dict[Source, int] = {}
    placed = []
    for operand in operands:
        assert operand.parts is not None
        new = [p.source for p in operand.parts if p.known is None]
        new = [s for s in dict.fromkeys(new) if planner.is_inside(s.nest, nest)]
        if len(places.keys() | set(new)) > keep:
            placed.append(replace(operand, parts=None))
            continue
        for source in new:
            places.setdefault(source, len(places))
        parts = tuple(replace(p, snapshot=places.get(p.source)) for p in operand.parts)
        placed.append(replace(operand, parts=parts))
    return tuple(placed)


def is_node(planner: Planner, i: int) -> bool:
    """Whether a NaN or an infinity can be at a site."""
    return has_specials(planner.sites[i].dtype)
