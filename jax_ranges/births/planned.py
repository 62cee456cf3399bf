"""The plan of a call in which births are found: what is measured for it, and what is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jax_ranges.births.checks import Check, has_specials
from jax_ranges.births.first import OPERANDS
from jax_ranges.births.genealogy import Genealogy
from jax_ranges.births.inquiry import Operand, Question, inquire
from jax_ranges.births.review import attach
from jax_ranges.births.statistic import Births
from jax_ranges.call import Call
from jax_ranges.derive import Chain
from jax_ranges.packing import Layout, Slot
from jax_ranges.plan import Frame, Planner, lay_out, slots_of, uncollected, walk, want
from jax_ranges.site import Select, Site, chosen, selector
from jax_ranges.stats import MinMax, Statistic
from jax_ranges.taken import RANGES_ONLY, Taken, taken


@dataclass(frozen=True, eq=False)
class BirthsPlan:
    """How a call is run so that births are found.

    Attributes:
      frame: what is run.
      stats: those taken: what was asked for, MinMax if that is not among it, and `Births`.
      layout: where all states are. Its sites are all there are, arguments and outputs included.
      shown: where those are that were asked for.
      genealogy: what is asked about births.
    """

    frame: Frame
    stats: tuple[Statistic, ...]
    layout: Layout
    shown: Layout
    genealogy: Genealogy

    @property
    def sites(self) -> tuple[Site, ...]:
        """Those that were asked for."""
        return self.shown.sites


@uncollected()
def plan_births(
    call: Call,
    stat: Births,
    select: Select,
    asked: Taken | None = None,
    inputs: bool = False,
    loops: str = "merge",
) -> BirthsPlan:
    """Plan a traced call. The statistics `asked` are taken too, as `jr.ranges` would.

    Raises:
      NothingSelectedError: `select` selects nothing.
    """
    asked = taken(RANGES_ONLY) if asked is None else asked
    planner = Planner(loops, inputs=True, stepwise=True)
    frame = walk(planner, call.jaxpr, call.names, call.returned.names)
    _widen(planner)
    sites = planner.linked()
    picked = _picked(asked, sites, select, inputs)
    everything = _with_births(asked, stat, {sites[i].name for i in picked}, select)
    stats, every = everything.stats, range(len(sites))
    places = want(planner, everything, sites, every)
    births = [i for i in every if everything.takes(len(stats) - 1, sites[i])]
    minmax = next(k for k, each in enumerate(stats) if isinstance(each, MinMax))
    questions = inquire(planner, births, minmax, OPERANDS)
    frame.settle(stats)
    attach(frame, planner, stats, questions)
    layout = lay_out(frame, stats, tuple(sites), places)
    slots, _ = slots_of(frame, stats)
    read = {i: _slotted(question, slots, minmax) for i, question in questions.items()}
    known = {sites[i].name: q for i, q in read.items() if q.check is not Check.NEVER}
    return BirthsPlan(frame, stats, layout, _shown(layout, asked, picked), Genealogy(stat, known))


def _picked(asked: Taken, sites: Sequence[Site], select: Select, inputs: bool) -> list[int]:
    """The sites that were asked for."""
    hidden = {"output"} if inputs else {"output", "input", "const"}
    there = [i for i, site in enumerate(sites) if site.primitive not in hidden]
    picked = [there[n] for n in chosen([sites[i] for i in there], select)]
    return asked.of_interest(sites, picked)


def _with_births(asked: Taken, stat: Births, names: set[str], select: Select) -> Taken:
    """What was asked for where it was, ranges everywhere, births where they may be."""

    def where(k: int, each: Statistic) -> Callable[[Site], bool]:
        if isinstance(each, MinMax):
            return lambda site: True
        return lambda site: site.name in names and asked.takes(k, site)

    stats = asked.stats
    if not any(isinstance(each, MinMax) for each in stats):
        stats = (*stats, MinMax())
    each_where = [(where(k, each),) for k, each in enumerate(stats)]
    return Taken((*stats, stat), (*each_where, (_bears(select),)))


def _shown(layout: Layout, asked: Taken, picked: Sequence[int]) -> Layout:
    """The part of a layout that was asked for; the statistics asked for come first in it."""
    kept = [g for g, group in enumerate(layout.groups) if group.stat < len(asked.stats)]

    def moved(chain: Chain) -> Chain:
        return chain._replace(source=Slot(kept.index(chain.source.group), chain.source.position))

    sites = tuple(layout.sites[i] for i in picked)
    places = tuple(
        tuple(
            tuple(map(moved, of_stat[i])) if asked.takes(k, layout.sites[i]) else () for i in picked
        )
        for k, of_stat in enumerate(layout.places[: len(asked.stats)])
    )
    return Layout(asked.stats, sites, tuple(layout.groups[g] for g in kept), places)


def _bears(select: Select) -> Callable[[Site], bool]:
    selects = selector(select)
    return lambda s: s.primitive not in ("output", "const") and has_specials(s.dtype) and selects(s)


def _widen(planner: Planner) -> None:
    """Say it of all, if there are values of 64 bits: what is kept of births is of one type."""
    wide = any(MinMax().identity(s.dtype).min.dtype.itemsize == 8 for s in planner.sources)
    for source in planner.sources:
        source.wide = wide


def _slotted(question: Question, slots: dict[tuple[int, int], Slot], minmax: int) -> Question:
    """With the places in the packed arrays of what is not kept with a birth."""

    def placed(operand: Operand) -> Operand:
        if operand.parts is None:
            return operand
        parts = tuple(
            p
            if p.snapshot is not None or p.source.known is not None
            else replace(p, slot=slots[minmax, p.source.index])
            for p in operand.parts
        )
        return replace(operand, parts=parts)

    return replace(question, operands=tuple(map(placed, question.operands)))
