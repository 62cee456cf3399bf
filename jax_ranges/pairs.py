"""Pair runs: a program run twice at once, exactly and rounded, to compare the two everywhere.

A value of the program is a `Pair`, through loops, branches and calls. An equation is evaluated on
both sides, and once more without its rounding on the operands of the rounded run:

    introduced (local)  = rounded - before      the same operands, two precisions
    inherited           = before - exact        the same operation, operands of the two runs
    total               = rounded - exact

Both runs go the rounded run's way: where it branches and how often it loops is for it to say.
What has effects (refs, callbacks, printing) happens once, with the rounded run's values, and
both sides have the result.

Where nothing differs between the two sides an equation is evaluated once. In loops and jitted
programs that is not known, and XLA may fuse two equal computations in two ways, so that they
differ in a last bit: inherited errors of 1e-7 or so mean nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat
from jax_ranges.call import Call
from jax_ranges.errors import ErrorReport
from jax_ranges.interpret import Interpreter, run_outermost, spread
from jax_ranges.packing import Block
from jax_ranges.plan import Equation, Frame, Plan, Source, is_measurable, make_plan
from jax_ranges.precision import bind_in, in_dtype, in_own_dtype
from jax_ranges.ranges import Ranges, from_states
from jax_ranges.site import Site
from jax_ranges.statistics.errors import Errors, ErrorState, Seen
from jax_ranges.stats import Context
from jax_ranges.taken import Taken
from jax_ranges.trees import flat_tree

ERRORS = Errors()


class Pair(NamedTuple):
    """A value in both runs."""

    exact: Any
    rounded: Any


class Rounds(Protocol):
    """What a rounded run does beside computing."""

    def arguments(self, frame: Frame, values: list[Any]) -> list[Any]:
        """A frame's constants and inputs, rounded."""
        ...

    def constant(self, value: Any, aval: Any) -> Any:
        """A literal, rounded; itself if that changes nothing."""
        ...

    def operands(self, equation: Equation, values: list[Any]) -> list[Any]:
        """An equation's operands, rounded for it; the same objects where they are not."""
        ...

    def bind(self, eqn: Any, operands: list[Any]) -> list[Any] | None:
        """The equation on these; None if it is computed as it is in the exact run."""
        ...

    def results(self, equation: Equation, values: list[Any]) -> list[Any]:
        """An equation's results, rounded, of the program's types."""
        ...

    def about(self, frame: Frame) -> Hashable:
        """Frames of one jaxpr in which it is the same are rounded alike."""
        ...


@dataclass(frozen=True, kw_only=True)
class PairRun(Interpreter):
    """Evaluates pairs.

    Attributes:
      rounds: the rounded run.
      high: the dtype that the exact run computes in; None for the program's own.
    """

    rounds: Rounds
    high: np.dtype | None = None

    rewrites: ClassVar[bool] = True
    differentiable: ClassVar[bool] = False

    def entering(self, frame: Frame, values: list[Any]) -> list[Any]:
        variables = (*frame.jaxpr.constvars, *frame.jaxpr.invars)
        pairs = [
            value
            if isinstance(value, Pair)
            else self._pair(_undifferentiated(value, var.aval), var.aval)
            for value, var in zip(values, variables, strict=True)
        ]
        rounded = self.rounds.arguments(frame, [pair.rounded for pair in pairs])
        found = map(Pair, (pair.exact for pair in pairs), rounded)
        return [_in_common(x, var.aval) for x, var in zip(found, variables, strict=True)]

    def literal(self, atom: Any) -> Pair:
        exact, value = self._pair(atom.val, atom.aval)
        return Pair(exact, self.rounds.constant(value, atom.aval))

    def enters(self, equation: Equation) -> bool:
        return True

    def evaluate(self, equation: Equation, values: list[Any]) -> tuple[list[Any], list[Any]]:
        found = self._once if equation.eqn.effects else self._twice
        seen = found(equation, values)
        pairs = [Pair(each.exact, each.rounded) for each in seen]
        outs = equation.eqn.outvars
        return [_in_common(x, var.aval) for x, var in zip(pairs, outs, strict=True)], seen

    def _once(self, equation: Equation, values: list[Pair]) -> list[Seen]:
        operands = self.rounds.operands(equation, [value.rounded for value in values])
        outs = compat.bind(equation.eqn, operands)
        avals = [var.aval for var in equation.eqn.outvars]
        exact = [self._high(x, aval) for x, aval in zip(outs, avals, strict=True)]
        return list(map(Seen, exact, exact, self.rounds.results(equation, outs)))

    def _twice(self, equation: Equation, values: list[Pair]) -> list[Seen]:
        eqn, exacts = equation.eqn, [value.exact for value in values]
        # A literal belongs to the operation, so what its rounding does is not inherited.
        given = [
            value.exact if compat.is_literal(atom) else value.rounded
            for value, atom in zip(values, eqn.invars, strict=True)
        ]
        before = self._bind(eqn, given)
        same = all(a is b for a, b in zip(exacts, given, strict=True))
        exact = before if same else self._bind(eqn, compat.used_again(exacts))
        rounded = self.rounds.results(equation, self._low(equation, values, before))
        return list(map(Seen, exact, before, rounded))

    def _low(self, equation: Equation, values: list[Pair], before: list[Any]) -> list[Any]:
        """The results of the rounded run before they are rounded, of the program's types."""
        eqn, lows = equation.eqn, [value.rounded for value in values]
        operands = self.rounds.operands(equation, lows)
        outs = self.rounds.bind(eqn, compat.used_again(operands))
        if outs is None:
            unrounded = [
                atom.val if compat.is_literal(atom) else low
                for atom, low in zip(eqn.invars, lows, strict=True)
            ]
            same = all(a is b for a, b in zip(operands, unrounded, strict=True))
            outs = before if same else self._bind(eqn, compat.used_again(operands))
        return [in_own_dtype(x, var.aval) for x, var in zip(outs, eqn.outvars, strict=True)]

    def choice(self, value: Any) -> Any:
        return value.rounded

    def about(self, frame: Frame) -> Hashable:
        return super().about(frame), self.rounds.about(frame)

    def begin(self, value: Any, source: Source, context: Context) -> dict[int, Any]:
        return super().begin(_seen(value), source, context)

    def measure(self, value: Any, source: Source, context: Context) -> Block:
        return super().measure(_seen(value), source, context)

    def jitted(self, eqn: Any, frame: Frame) -> Callable[..., tuple[list[Any], Block]]:
        # One array may be both sides of a pair, and cannot be given away twice.
        return super().jitted(compat.undonated(eqn), frame)

    def _pair(self, value: Any, aval: Any) -> Pair:
        return Pair(self._high(value, aval), value)

    def _high(self, value: Any, aval: Any) -> Any:
        return value if self.high is None else in_dtype(value, aval, self.high)

    def _bind(self, eqn: Any, values: Sequence[Any]) -> list[Any]:
        return compat.bind(eqn, values) if self.high is None else bind_in(eqn, values, self.high)


def _in_common(pair: Pair, aval: Any) -> Pair:
    """What is no number, such as a key, is the rounded run's on both sides."""
    return pair if is_measurable(aval) else Pair(pair.rounded, pair.rounded)


def _seen(value: Pair | Seen) -> Seen:
    """An input or a constant, of which there is a pair only, inherits nothing."""
    return value if isinstance(value, Seen) else Seen(value.exact, value.exact, value.rounded)


# -- whole programs ---------------------------------------------------------------------------


def plan_of_errors(call: Call) -> Plan:
    """The sites of a call, inputs and constants included; errors are measured at each."""
    return make_plan(call.jaxpr, call.names, Taken((ERRORS,)), None, True, "merge")


def run_pairs(
    run: PairRun, call: Call, plan: Plan, args: Any, kwargs: Any
) -> tuple[Any, ErrorReport]:
    """The output of the rounded run, and what the run was compared to the exact one."""
    outs, block = run_outermost(run, plan.frame, call.leaves)
    returned = call.returned.typed([pair.rounded for pair in outs])
    out = call.returned.output(returned, args, kwargs)
    flat, _ = jax.tree_util.tree_flatten_with_path(flat_tree(out))
    leaves = zip(flat, call.returned.others, strict=False)
    paths = [path for (path, _), other in leaves if other is None]
    with compat.own():
        at_outputs = _at_outputs(paths, outs, call, *spread(plan.frame, call.leaves))
    return out, ErrorReport(Ranges(block, plan.layout), at_outputs)


def _at_outputs(
    paths: Sequence[Any],
    outs: Sequence[Pair],
    call: Call,
    axes: tuple[str, ...],
    tracked: bool,
) -> Ranges:
    """The errors of what is returned. What is written into arguments comes after it in `outs`."""
    sites, states = [], []
    for path, pair, aval in zip(paths, outs, call.returned.avals, strict=False):
        if is_measurable(aval):
            sites.append(Site(_output_name(path), "output", 0, tuple(aval.shape), aval.dtype))
            states.append({ERRORS: _at_output(pair, axes, tracked)})
    return from_states(sites, states)


def _at_output(pair: Pair, axes: tuple[str, ...], tracked: bool) -> ErrorState:
    """On all devices, inside shard_map."""
    exact, rounded = compat.on_device(pair)
    mesh = compat.mesh_of((exact, rounded))
    with compat.automatic():
        state = ERRORS.measure(compat.unplaced(Seen(exact, rounded, rounded)))
        state = compat.varying(state, axes) if tracked else state
        state = ERRORS.all_reduce(state, axes) if axes else state
    return compat.placed(state, mesh)


def _output_name(path: Any) -> str:
    return "/".join(
        filter(None, ("output", jax.tree_util.keystr(path, simple=True, separator="/")))
    )


# -- no derivatives ---------------------------------------------------------------------------


@jax.custom_jvp
def _held(value: Any) -> Any:
    return value


@_held.defjvp
def _(primals: Any, tangents: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
    del primals, tangents
    raise TypeError(
        "a run with a report of errors cannot be differentiated. For the errors of the backward "
        "pass report on the gradient: jr.shadow(jax.grad(f)), jr.simulate(jax.grad(f), recipe, "
        "report=True)"
    )


def _undifferentiated(value: Any, aval: Any) -> Any:
    """The same value, of which derivatives are refused: they would skip custom rules."""
    numbers = compat.is_traced(value) and is_measurable(aval)
    return _held(value) if numbers and jnp.issubdtype(aval.dtype, jnp.inexact) else value
