"""`Birth`: one NaN, infinity, or value beyond a format, that nothing before it held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from jax_ranges.births.derivatives import Derivative, derivative_of
from jax_ranges.births.explain import Case, explanation
from jax_ranges.births.fate import fate_of
from jax_ranges.births.first import CALL
from jax_ranges.births.genealogy import Found
from jax_ranges.births.inquiry import Question
from jax_ranges.births.statistic import KINDS
from jax_ranges.births.watch import Watch
from jax_ranges.range import Range
from jax_ranges.rules import Loop
from jax_ranges.site import Site

FATES = ("escaped", "propagated", "masked")


@dataclass(frozen=True)
class Birth:
    """One NaN, infinity, or value beyond a format, that nothing before it held.

    Of several at one site the first is told that got farthest: one that left its iteration (or
    reached an output) comes before one that did not, and of those the earliest.

    Attributes:
      site: where.
      kind: "nan", "+inf", "-inf"; "saturated" and "flushed" are what `watch` asked for.
      fate: "escaped" (it reached an output), "propagated" (it reached other operations) or
        "masked" (nothing that used it was touched).
      iteration: of each loop around it, outermost first. In a scan it is the index into what is
        scanned over, also where that is done from the end.
      call: the number of the call, from 1.
      count: how many elements, in that iteration.
      inputs: the ranges of the operands at that moment; None of an operand whose range was not
        kept, or (in loops) of one that comes from outside that of the whole run.
      reason: what happened.
      path: the operations on the way to the output; if it reached none, those that it reached.
      outputs: the outputs that it reached.
      watch: the format that it is beyond, of what `watch` asked for.
      derivative: of what is born in a derivative, which operation's.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def shrinking(x):
      ...     return jax.lax.fori_loop(0, 5, lambda i, x: jnp.log(x), x)
      >>> _, report = jr.find_nonfinite(shrinking)(jnp.array([3.0, 20.0]))
      >>> for birth in report.births:
      ...     print(birth.site.name, birth.kind, birth.fate, birth.iteration, birth.count)
      scan/log nan escaped (3,) 1
    """

    site: Site
    kind: str
    fate: str
    iteration: tuple[int, ...]
    call: int
    count: int
    inputs: tuple[Range | None, ...]
    reason: str
    path: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    watch: str = ""
    derivative: Derivative | None = None

    def __str__(self) -> str:
        from jax_ranges.report.births_text import paragraph

        return paragraph(self)


def births_in(found: Found) -> Iterator[Birth]:
    """All births of a run, in program order."""
    watches = found.genealogy.stat.watches
    kinds = [(kind, None) for kind in KINDS] + [(watch.kind, watch) for watch in watches]
    for name, question in found.genealogy.questions.items():
        state = found.state(name)
        for k, (kind, watch) in enumerate(kinds):
            if state.count[k] and not found.inherits(question, kind):
                yield _birth(found, name, question, k, kind, watch)


def first_of(births: Iterable[Birth]) -> tuple[Birth, ...]:
    """Of those of one kind at one site that which got farthest, and of these the earliest.

    In the order of reports: escaped ones first, then program order, in which they come.
    """
    first: dict[tuple[str, str, str], Birth] = {}
    for birth in births:
        key = birth.site.name, birth.kind, birth.watch
        first[key] = min(first.get(key, birth), birth, key=_time)
    return tuple(sorted(first.values(), key=lambda birth: FATES.index(birth.fate)))


def _time(birth: Birth) -> tuple[int, int, tuple[int, ...]]:
    return FATES.index(birth.fate), birth.call, birth.iteration


def _birth(
    found: Found, name: str, question: Question, k: int, kind: str, watch: Watch | None
) -> Birth:
    site, state = found.ranges.site(name), found.state(name)
    inputs = tuple(found.operand(operand, state, k) for operand in question.operands)
    rank, call, *ticks = state.when[k].tolist()
    fate = fate_of(found, name, kind, rank, watch)
    watched = "" if watch is None else watch.format
    return Birth(
        site=site,
        kind=kind,
        fate=fate.name,
        iteration=_iterations(ticks, question.made.loops),
        call=max(call, CALL),
        count=int(state.count[k]),
        inputs=inputs,
        reason=explanation(_case(site, kind, question, inputs, watched)),
        path=fate.path,
        outputs=fate.outputs,
        watch=watched,
        derivative=None if watch else derivative_of(found, site),
    )


def _case(
    site: Site, kind: str, question: Question, inputs: tuple[Range | None, ...], watched: str
) -> Case:
    eqn, dtypes = question.made.eqn, [operand.dtype for operand in question.operands]
    params = {} if eqn is None else eqn.params
    return Case(site.primitive, params, kind, np.dtype(site.dtype), inputs, dtypes, watched)


def _iterations(ticks: list[int], loops: tuple[Loop, ...]) -> tuple[int, ...]:
    return tuple(
        loop.length - 1 - tick if loop.reverse and loop.length is not None else tick
        for tick, loop in zip(ticks, loops, strict=True)
    )
