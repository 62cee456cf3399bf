"""The interpreter: replays a program's equations and measures what the plan says.

What an equation does to its operands is one method, `evaluate`. What computes other values
(`jr.simulate` rounds them) overrides it, and has loops, branches and custom derivatives with it.
"""

from __future__ import annotations

import contextlib
import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import numpy as np
from jax import lax

from jax_ranges import compat
from jax_ranges.memory_order import Order
from jax_ranges.packing import Block, Group, group_of, join, nothing
from jax_ranges.plan import Equation, Frame, Source
from jax_ranges.rules import RULES
from jax_ranges.stats import TOGETHER, Context, Form, MinMax, State, Statistic
from jax_ranges.stored import stored

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

    rewrites: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True

    def run(self, frame: Frame, values: Sequence[Any]) -> tuple[list[Any], Block]:
        values = [*frame.consts, *values]
        mesh = compat.mesh_of(values)
        jaxpr, values = frame.jaxpr, self.entering(frame, values)
        env = dict(zip((*jaxpr.constvars, *jaxpr.invars), values, strict=True))
        groups = _Groups(self, frame.together)
        with compat.own():
            blocks = [self.measure(None, source, _entered(source)) for source in frame.known]
            blocks += groups.measured([(values[i], s, _entered(s)) for i, s in frame.inputs])
        for equation in frame.equations:
            eqn = equation.eqn
            if self.silent and eqn.effects and not eqn.outvars:
                continue
            operands = [self._read(atom, env) for atom in eqn.invars]
            results, block = self._equation(equation, operands, groups)
            blocks += block
            env.update(zip(eqn.outvars, results, strict=True))
            del operands, results
            for var in equation.dead:
                del env[var]
        outs = [self._read(atom, env) for atom in jaxpr.outvars]
        return outs, self._joined(frame, [*blocks, *groups.finished()], mesh)

    def _joined(self, frame: Frame, blocks: Sequence[Block], mesh: Any) -> Block:
        """The states of a frame, of the types that they have outside of it."""
        with compat.own():
            with compat.automatic():
                block = join(compat.unplaced(blocks))
                if frame.review is not None:
                    block = compat.varying(frame.review(block), self.varying)
            return compat.placed(block, mesh)

    def _read(self, atom: Any, env: dict[Any, Any]) -> Any:
        return self.literal(atom) if compat.is_literal(atom) else env[atom]

    def _equation(
        self, equation: Equation, values: list[Any], groups: _Groups
    ) -> tuple[list[Any], list[Block]]:
        eqn, blocks = equation.eqn, []
        with compat.in_equation(eqn):
            if equation.frames and self.enters(equation):
                rule = RULES[eqn.primitive.name]
                results, block = rule.run(self, eqn, equation.frames, values)
                seen = results
                blocks.append(block)
            else:
                results, seen = self.evaluate(equation, values)
        keeps = all(groups.only_keeps(source) for _, source in equation.outputs)
        with contextlib.nullcontext() if keeps else compat.in_equation(eqn, SCOPE):
            blocks += groups.measured(
                [(seen[i], s, _context(eqn, values, s)) for i, s in equation.outputs]
            )
        return results, blocks

    # -- what interpreters that do more than measure override -----------------------------

    def entering(self, frame: Frame, values: list[Any]) -> list[Any]:
        """The values of a frame's constants and inputs."""
        del frame
        return values

    def literal(self, atom: Any) -> Any:
        """The value of a literal of the program."""
        return atom.val

    def enters(self, equation: Equation) -> bool:
        """Whether the inner programs of an equation are interpreted, or it is run as it is."""
        return equation.measures or (self.silent and bool(equation.eqn.effects))

    def evaluate(self, equation: Equation, values: list[Any]) -> tuple[list[Any], list[Any]]:
        """The results of an equation, and what is measured of each of them."""
        results = compat.bind(equation.eqn, values)
        if equation.outputs:
            results = stored(equation.eqn.primitive.name, results)
        return results, results

    def about(self, frame: Frame) -> Hashable:
        """Frames of one jaxpr of which it says the same are run alike."""
        return frame.signature()

    def choice(self, value: Any) -> Any:
        """The array by which a branch is chosen or a loop ended."""
        return value

    def finish(self, group: Sequence[Source], begun: Sequence[dict[int, Any]]) -> Block:
        """The states of a group of sources, of which these are the beginnings."""
        return join(
            Block({self._group(k, group[0]): compat.varying(rows, self.varying)})
            for k in group[0].wanted
            for rows in [_finish_of(self.stats[k], group[0].form)([each[k] for each in begun])]
        )

    def begin(self, value: Any, source: Source, context: Context) -> dict[int, Any]:
        """What is kept of a value until its group is finished, for each statistic."""
        value = compat.varying(compat.on_device(value), self.varying)
        context = self._seen_by_stats(source, context)
        return {
            k: stat.begin_in(value, context)
            if stat.contextual
            else stat.begin(_as_it_lies(value, source.order_for(stat)))
            for k in source.wanted
            for stat in [self.stats[k]]
        }

    def measure(self, value: Any, source: Source, context: Context) -> Block:
        value, context = compat.on_device(value), self._seen_by_stats(source, context)
        rows = {k: self._row(k, value, source, context) for k in source.wanted}
        return join(
            Block({self._group(k, source): compat.varying(row, self.varying)})
            for k, row in rows.items()
        )

    def _seen_by_stats(self, source: Source, context: Context) -> Context:
        """A context with its operands where the value is measured, if anybody looks at them."""
        if not any(self.stats[k].contextual for k in source.wanted):
            return context
        return context._replace(operands=[compat.on_device(x) for x in context.operands])

    def _group(self, k: int, source: Source) -> Group:
        return group_of(self.stats, k, source.form)

    def _row(self, k: int, value: Any, source: Source, context: Context) -> list[Any]:
        """The leaves of the state of statistic k, with an axis for sites."""
        stat = self.stats[k]
        if source.known is not None and isinstance(stat, MinMax):
            return [np.asarray(leaf)[None] for leaf in source.known()]
        value = lax.optimization_barrier(value) if source.frozen else value
        if stat.contextual:
            return [leaf[None] for leaf in jax.tree.leaves(stat.measure_in(value, context))]
        return _row_of(stat)(_as_it_lies(value, source.order_for(stat)))

    # -- what rules call ------------------------------------------------------------------

    def identity(self, frame: Frame) -> Block:
        """The states of the frame's sources before anything ran."""
        counts: dict[Group, int] = {}
        for source in frame.sources:
            lead = source.lead[len(frame.lead) :]
            for k in source.wanted:
                group = replace(self._group(k, source), lead=lead)
                counts[group] = counts.get(group, 0) + 1
        blocks = [nothing(group, count) for group, count in counts.items()]
        return compat.varying(join(blocks), self.varying)

    def merge(self, a: Block, b: Block) -> Block:
        return _automatically(lambda a, b: a.merge(b, self.stats), a, b)

    def counter(self) -> Any:
        """What a loop counts its iterations with, from 0; None where nobody wants to know."""
        return np.int32(0) if any(stat.contextual for stat in self.stats) else None

    def at(self, block: Block, frame: Frame, counter: Any) -> Block:
        """The states of one iteration of the loop whose body `frame` is, told which it was."""
        if counter is None:
            return block
        return self._changed(block, lambda stat, state: stat.at(state, frame.loops, counter))

    def everywhere(self, block: Block, axes: tuple[str, ...]) -> Block:
        """The states of all devices along mesh axes, merged; the same on each of them."""
        return self._changed(block, lambda stat, state: stat.all_reduce(state, axes))

    def merged(self, block: Block) -> Block:
        """The states that lie along a first axis, merged."""
        return self._changed(block, lambda stat, state: stat.reduce(state, 1))

    def _changed(self, block: Block, change: Callable[[Statistic, State], State]) -> Block:
        return _automatically(lambda states: states.map(change, self.stats), block)

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
        key = (frame.jaxpr, self.about(frame), self.silent, self.varying, *_jit_key(eqn))
        return self.jits.get(
            key, lambda: compat.jit_like(eqn, lambda *values: self.run(frame, values))
        )


def run_outermost(
    interpreter: Interpreter, frame: Frame, values: Sequence[Any]
) -> tuple[list[Any], Block]:
    """Run the outermost frame; if that is inside shard_map, states of all devices are merged."""
    manual = compat.manual_axes()
    if not manual:
        with compat.own() if interpreter.rewrites else jax.transfer_guard("allow"):
            return interpreter.run(frame, values)
    axes, tracked = spread(frame, values)

    def run(*values: Any) -> tuple[list[Any], Block]:
        outs, block = interpreter.inside(axes, tracked).run(frame, values)
        return outs, interpreter.everywhere(block, axes)

    return compat.at_once(run, compat.mesh_of(()), manual)(*values)


def spread(frame: Frame, values: Sequence[Any]) -> tuple[tuple[str, ...], bool]:
    """The manual axes along which values of the outermost frame may differ; do types say it?"""
    manual = compat.manual_axes()
    if not manual:
        return (), False
    tracked = compat.tracks_varying(manual)
    known = compat.input_axes([*frame.consts, *values]) if tracked else manual
    return compat.spread_axes(manual, frame.jaxpr, known), tracked


def _automatically(change: Callable[..., Block], *blocks: Block) -> Block:
    """What becomes of states of the types that they have outside of frames, of such a type."""
    mesh = compat.mesh_of(blocks)
    with compat.automatic():
        block = change(*compat.unplaced(blocks))
    return compat.placed(block, mesh)


def _as_it_lies(value: Any, order: Order) -> Any:
    """A value with its axes from major to minor. Of what is there already that would be a copy."""
    return value if order is None or not compat.is_traced(value) else lax.transpose(value, order)


def _jit_key(eqn: Any) -> tuple[Any, ...]:
    params = {k: v for k, v in eqn.params.items() if k != "jaxpr"}
    return tuple(sorted(params.items()))


@functools.lru_cache(maxsize=64)
def _row_of(stat: Statistic) -> Callable[..., list[Any]]:
    """Its `measure`, traced once for all values of a type, and called in one dispatch."""

    def measure(value: Any) -> list[Any]:
        return [leaf[None] for leaf in jax.tree.leaves(stat.measure(lax.stop_gradient(value)))]

    return jax.jit(measure)


def _finish_of(stat: Statistic, form: Form) -> Callable[..., list[Any]]:
    """Its `finish`, likewise."""
    return _jitted_finish(stat, form if stat.contextual else None)


@functools.lru_cache(maxsize=64)
def _jitted_finish(stat: Statistic, form: Form | None) -> Callable[..., list[Any]]:
    def finish(begun: Any) -> list[Any]:
        begun = lax.stop_gradient(begun)
        state = stat.finish(begun) if form is None else stat.finish_in(begun, form)
        return jax.tree.leaves(state)

    return jax.jit(finish)


def _context(eqn: Any, operands: Sequence[Any], source: Source) -> Context:
    return Context(eqn.primitive.name, eqn.params, operands, source.form)


def _entered(source: Source) -> Context:
    """Of what no equation has made: an input of the program, a constant."""
    return Context("input", {}, (), source.form)


class _Groups:
    """Values of a frame that are measured together: begun one by one, finished group by group.

    Only while tracing: of arrays that are there, a later equation may donate the memory.
    """

    def __init__(self, interpreter: Interpreter, groups: Sequence[Sequence[Source]]):
        self._interpreter, self._groups = interpreter, groups
        self._group_of = {s: g for g, group in enumerate(groups) for s in group}
        self._keeps = all(isinstance(stat, MinMax) for stat in interpreter.stats)
        self._contextual = any(stat.contextual for stat in interpreter.stats)
        self._begun: dict[Source, Any] = {}
        self._missing = list(map(len, groups))
        self._blocks: list[Block | None] = [None] * len(groups)

    def only_keeps(self, source: Source) -> bool:
        """Whether to begin with its values takes no operation."""
        return self._keeps and source in self._group_of and source.elements <= TOGETHER

    def measured(self, found: Sequence[tuple[Any, Source, Context]]) -> list[Block]:
        """The states of those values that are measured alone; the others are begun."""
        blocks = []
        with compat.automatic():
            for value, source, context in found:
                value = compat.unplaced(value)
                if self._contextual:
                    context = context._replace(operands=compat.unplaced(list(context.operands)))
                if source not in self._group_of:
                    blocks.append(self._interpreter.measure(value, source, context))
                elif any(map(compat.is_traced, jax.tree.leaves(value))):
                    self._add(source, self._interpreter.begin(value, source, context))
                else:
                    self._add(source, self._interpreter.measure(value, source, context))
        return blocks

    def _add(self, source: Source, begun: Any) -> None:
        self._begun[source] = begun
        g = self._group_of[source]
        self._missing[g] -= 1
        if not self._missing[g]:
            self._blocks[g] = self._finish(self._groups[g])

    def _finish(self, group: Sequence[Source]) -> Block:
        begun = [self._begun.pop(source) for source in group]
        with jax.named_scope(SCOPE):
            if not any(isinstance(each, Block) for each in begun):
                return self._interpreter.finish(group, begun)
            # Measured at once, all or (where some are constants of the trace) a few of them.
            return join(
                each if isinstance(each, Block) else self._interpreter.finish([source], [each])
                for source, each in zip(group, begun, strict=True)
            )

    def finished(self) -> list[Block]:
        return [block for block in self._blocks if block is not None]
