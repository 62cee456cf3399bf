"""The interpreter: replays a program's equations and measures what the plan says."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jax import lax

from jax_ranges import compat
from jax_ranges.packing import Block, Group, group_of, join, nothing
from jax_ranges.plan import Equation, Frame, Source
from jax_ranges.rules import RULES
from jax_ranges.stats import MinMax, Statistic

# The scope that the reductions have in a profile, inside the scope of what they measure.
SCOPE = "jax_ranges"


class Jits:
    """Jitted frames, so that a program that is met again is neither traced nor compiled again.

    JAX hands out the same jaxpr whenever a jitted function is called with the same types: for
    each layer of a model, and again for each batch. The least recently used are dropped.
    """

    def __init__(self, size: int = 256):
        self._size = size
        self._made: OrderedDict[Any, Callable[..., Any]] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = make()
            if len(self._made) > self._size:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(key)
        return made


@dataclass(frozen=True)
class Interpreter:
    """Evaluates frames. Rules are handed it, and call back into it for inner programs.

    Attributes:
      stats: the statistics, by the index that sources and groups use.
      jits: where jitted inner programs are kept.
      silent: leave out the equations that have effects and no results.
      varying: the manual mesh axes over which JAX tracks what varies, if it does.
    """

    stats: tuple[Statistic, ...]
    jits: Jits = field(default_factory=Jits)
    silent: bool = False
    varying: tuple[str, ...] = ()

    def run(self, frame: Frame, values: Sequence[Any]) -> tuple[list[Any], Block]:
        jaxpr, values = frame.jaxpr, [*frame.consts, *values]
        env = dict(zip((*jaxpr.constvars, *jaxpr.invars), values, strict=True))
        held: dict[Source, Any] = {}
        late = {source for group in frame.together for source in group}
        blocks = [self._measure(None, source) for source in frame.known]
        blocks += self._measured([(values[i], source) for i, source in frame.inputs], late, held)
        for equation in frame.equations:
            eqn = equation.eqn
            if self.silent and eqn.effects and not eqn.outvars:
                continue
            operands = [atom.val if compat.is_literal(atom) else env[atom] for atom in eqn.invars]
            results, block = self._equation(equation, operands, late, held)
            blocks += block
            env.update(zip(eqn.outvars, results, strict=True))
            del operands, results
            for var in equation.dead:
                del env[var]
        outs = [atom.val if compat.is_literal(atom) else env[atom] for atom in jaxpr.outvars]
        blocks += [self._measure_together(group, held) for group in frame.together]
        return outs, join(blocks)

    def _equation(
        self, equation: Equation, values: list[Any], late: set[Source], held: dict[Source, Any]
    ) -> tuple[list[Any], list[Block]]:
        eqn, blocks = equation.eqn, []
        with compat.in_equation(eqn):
            if equation.frames and (equation.measures or (self.silent and eqn.effects)):
                rule = RULES[eqn.primitive.name]
                results, block = rule.run(self, eqn, equation.frames, values)
                blocks.append(block)
            else:
                results = compat.bind(eqn, values)
        if equation.outputs:
            with compat.in_equation(eqn, SCOPE):
                found = [(results[i], source) for i, source in equation.outputs]
                blocks += self._measured(found, late, held)
        return results, blocks

    def _measured(
        self, found: Sequence[tuple[Any, Source]], late: set[Source], held: dict[Source, Any]
    ) -> list[Block]:
        """The states of some values; those that are measured together later are held."""
        held.update((source, value) for value, source in found if source in late)
        return [self._measure(value, source) for value, source in found if source not in late]

    def _measure_together(self, group: Sequence[Source], held: dict[Source, Any]) -> Block:
        values = [lax.stop_gradient(held.pop(source)) for source in group]
        values = compat.varying(values, self.varying)
        with jax.named_scope(SCOPE):
            return join(
                Block({group_of(self.stats, k, group[0].dtype): _rows_of(self.stats[k])(values)})
                for k in sorted(group[0].wanted)
            )

    def _measure(self, value: Any, source: Source) -> Block:
        rows = {k: self._row(k, value, source) for k in sorted(source.wanted)}
        return join(
            Block({group_of(self.stats, k, source.dtype): compat.varying(row, self.varying)})
            for k, row in rows.items()
        )

    def _row(self, k: int, value: Any, source: Source) -> list[Any]:
        """The leaves of the state of statistic k, with an axis for sites."""
        stat = self.stats[k]
        if source.known is not None and isinstance(stat, MinMax):
            return [np.asarray(leaf)[None] for leaf in source.known()]
        value = lax.stop_gradient(value)
        return _row_of(stat)(lax.optimization_barrier(value) if source.frozen else value)

    # -- what rules call ------------------------------------------------------------------

    def identity(self, frame: Frame) -> Block:
        """The states of the frame's sources before anything ran."""
        counts: dict[Group, int] = {}
        for source in frame.sources:
            lead = source.lead[len(frame.lead) :]
            for k in source.wanted:
                group = replace(group_of(self.stats, k, source.dtype), lead=lead)
                counts[group] = counts.get(group, 0) + 1
        blocks = [nothing(group, count) for group, count in counts.items()]
        return compat.varying(join(blocks), self.varying)

    def merge(self, a: Block, b: Block) -> Block:
        return a.merge(b, self.stats)

    def everywhere(self, block: Block, axes: tuple[str, ...]) -> Block:
        """The states of all devices along mesh axes, merged; the same on each of them."""
        return block.map(lambda stat, state: stat.all_reduce(state, axes), self.stats)

    def inside(self, axes: tuple[str, ...], tracked: bool) -> Interpreter:
        """The same, for code that runs once a device along mesh axes (`tracked`: check_vma)."""
        return replace(
            self, varying=tuple(dict.fromkeys((*self.varying, *axes))) if tracked else ()
        )

    def quiet(self) -> Interpreter:
        """The same, leaving out equations that are there for their effects only."""
        return replace(self, silent=True)

    def jitted(self, eqn: Any, frame: Frame) -> Callable[..., tuple[list[Any], Block]]:
        """The frame as a jitted function, made once for all calls that look alike."""
        key = (frame.jaxpr, frame.signature(), self.silent, self.varying, *_jit_key(eqn))
        return self.jits.get(
            key, lambda: compat.jit_like(eqn, lambda *values: self.run(frame, values))
        )


def _jit_key(eqn: Any) -> tuple[Any, ...]:
    params = {k: v for k, v in eqn.params.items() if k != "jaxpr"}
    return tuple(sorted(params.items()))


@functools.lru_cache(maxsize=64)
def _row_of(stat: Statistic) -> Callable[..., list[Any]]:
    """Its `measure`, traced once for all values of a type, and called in one dispatch."""

    def measure(value: Any) -> list[Any]:
        return [leaf[None] for leaf in jax.tree.leaves(stat.measure(value))]

    return jax.jit(measure)


@functools.lru_cache(maxsize=64)
def _rows_of(stat: Statistic) -> Callable[..., list[Any]]:
    """Its `measure_all`, likewise."""
    return jax.jit(lambda values: jax.tree.leaves(stat.measure_all(values)))
