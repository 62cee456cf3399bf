"""Propagation: a program on intervals instead of numbers, equation by equation.

It follows the frames of a plan, as the interpreter does, and joins at each site what every visit
of it finds. Calls are entered, branches that can be taken are joined, and loops are run for as long
as it is known that they go on. From there on their carried values are joined over the iterations
until nothing is added, ends that keep growing being moved to the next of a few thresholds
(widening; Cousot and Cousot, "Abstract interpretation", 1977), and one more iteration takes back
what was too much.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jax_ranges import compat
from jax_ranges.bounds.interval import (
    NOTHING,
    Interval,
    everything,
    hull,
    kind_of,
    of_array,
)
from jax_ranges.bounds.movement import unknown
from jax_ranges.bounds.relations import related
from jax_ranges.bounds.rules import RULES
from jax_ranges.bounds.value import Operation, Value
from jax_ranges.computations import known_as
from jax_ranges.constants import folded, host_array, is_readable
from jax_ranges.derive import MOVEMENT
from jax_ranges.plan import Equation, Frame, is_measurable
from jax_ranges.rules import RULES as PROGRAMS
from jax_ranges.rules.base import Program
from jax_ranges.stats import is_known

UNROLLED = 1000
"""Iterations of one loop that are followed one by one, at most."""

BUDGET = 30_000
"""Equations that are visited in all, before loops are no longer followed one by one."""

JOINS = 4
"""Iterations after which what still grows is widened."""

FOLDED = 1 << 24
"""Elements of a constant that is moved on the host, at most."""


@dataclass
class Budget:
    """How many equations were visited."""

    visited: int = 0


@dataclass
class Propagation:
    """What was found, and where in the mesh the program is.

    Attributes:
      found: for each site, by name, what any visit of it found.
      recording: whether visits count; not while a loop's invariant is searched for.
      sizes: how many devices there are along the mesh axes that it is inside of.
    """

    found: dict[str, Interval] = field(default_factory=dict)
    recording: bool = True
    sizes: Mapping[Any, int] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)

    def run(self, frame: Frame, arguments: Sequence[Value]) -> list[Value]:
        """What the outputs of a frame's program can be."""
        jaxpr = frame.jaxpr
        consts = [constant(c, v.aval) for c, v in zip(frame.consts, jaxpr.constvars, strict=True)]
        env: dict[Any, Value] = dict(
            zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True)
        )
        for position, name in frame.sites.items():
            self.record(name, [*consts, *arguments][position])

        def read(atom: Any) -> Value:
            return constant(atom.val, atom.aval) if compat.is_literal(atom) else env[atom]

        for equation in frame.equations:
            operands = [read(atom) for atom in equation.eqn.invars]
            results = self.equation(equation, operands)
            for i, name in equation.sites.items():
                self.record(name, results[i])
            env.update(zip(equation.eqn.outvars, results, strict=True))
            for var in equation.dead:
                del env[var]
        return [read(atom) for atom in jaxpr.outvars]

    def record(self, name: str, value: Value) -> None:
        if self.recording and value.interval is not None:
            seen = value.interval if value.size else NOTHING
            self.found[name] = hull(self.found.get(name, NOTHING), seen)

    def equation(self, equation: Equation, operands: list[Value]) -> list[Value]:
        self.budget.visited += 1
        name = equation.eqn.primitive.name
        if equation.frames:
            return _INNER.get(name, _call)(self, equation, operands)
        return self.plain(equation.eqn, operands)

    def plain(self, eqn: Any, operands: list[Value]) -> list[Value]:
        """An equation without inner programs that are known."""
        avals = [var.aval for var in eqn.outvars]
        name = known_as(eqn)
        numeric = [x for x in operands if x.interval is not None]
        if not all(map(is_measurable, avals)) or any(x.dtype is None for x in operands):
            return [untouched(aval) for aval in avals]
        never = any(x.numbers.empty and not x.numbers.nan and x.size for x in numeric)
        if never or all(0 in aval.shape for aval in avals):
            return [replace(untouched(aval), interval=NOTHING) for aval in avals]
        if any(map(compat.is_partial, avals)) and not _moves(name):
            return [untouched(aval) for aval in avals]
        if not _moves(name):  # what is NaN only is rare, and rules need not know of it
            operands = [_with_numbers(x) for x in operands]
        op = Operation(
            name, eqn.params, operands, avals[0].shape, np.dtype(avals[0].dtype), avals, self.sizes
        )
        rule = RULES.get(name) if _follows_rules(op) else None
        found = (rule or unknown)(op)
        intervals = [found] if isinstance(found, Interval) else list(found)
        results = [
            Value(interval, tuple(aval.shape), np.dtype(aval.dtype))
            for interval, aval in zip(intervals, avals, strict=True)
        ]
        if len(results) == 1:
            results = [_with_array(op, related(op, results[0]))]
        return results

    # -- inner programs -------------------------------------------------------------------

    def inner(self, program: Program, frame: Frame, operands: Sequence[Value]) -> list[Value]:
        """Run one inner program of an equation on the operands that its inputs are."""
        arguments = [operands[link.outer] for link in program.operands if link.outer is not None]
        return self.run(frame, arguments)

    def quietly(self) -> Propagation:
        """The same, not recording."""
        return replace(self, recording=False)


def _follows_rules(op: Operation) -> bool:
    """Rules are about floats from 16 bits on, and integers; movement about all."""
    if _moves(op.name):
        return True
    dtypes = [op.dtype, *(x.dtype for x in op.operands)]
    return all(kind_of(d).computed and np.dtype(d).kind != "c" for d in dtypes)


def _moves(name: str) -> bool:
    return name in MOVEMENT or name in _ANY_DTYPE


_ANY_DTYPE = frozenset(
    (
        *("concatenate", "pad", "slice", "dynamic_slice", "dynamic_update_slice", "gather"),
        *("select_n", "split", "scatter", "convert_element_type", "iota"),
    )
)


def _with_numbers(x: Value) -> Value:
    if x.interval is None or not (x.interval.empty and x.interval.nan):
        return x
    return replace(x, interval=everything(x.dtype))


def _with_array(op: Operation, result: Value) -> Value:
    """With its array, where it is a known one that was only moved or converted."""
    if any(x.array is None for x in op.operands) or result.size > FOLDED:
        return result
    arrays = [x.array for x in op.operands]
    return replace(result, array=folded(op.name, op.params, arrays, op.results[0]))


# -- values -----------------------------------------------------------------------------------


def constant(array: Any, aval: Any) -> Value:
    """A literal, or an array that the program captured."""
    if not is_measurable(aval) or not is_readable(array):
        return untouched(aval)
    known = host_array(array, aval.dtype)
    shape = tuple(aval.shape)
    return Value(of_array(known), shape, np.dtype(aval.dtype), known, frozen=True, noise=0.0)


def untouched(aval: Any) -> Value:
    """A value of which nothing is known but its type."""
    if not is_measurable(aval):
        return Value(None, tuple(getattr(aval, "shape", ())), None)
    dtype = np.dtype(aval.dtype)
    return Value(everything(dtype), tuple(aval.shape), dtype)


def given(interval: Interval, aval: Any, array: Any = None) -> Value:
    """An input of the program."""
    dtype = np.dtype(aval.dtype)
    return Value(interval, tuple(aval.shape), dtype, array, noise=0.0)


def stored(value: Value) -> Value:
    """A value as a loop or a device passes it on: related to no other."""
    if value.interval is None:
        return value
    kept = 2 * kind_of(value.dtype).own_eps * value.numbers.magnitude
    return Value(value.interval, value.shape, value.dtype, noise=kept)


def typed(value: Value, aval: Any) -> Value:
    """The same for one of a value's slices, or for all devices' parts of it."""
    return replace(stored(value), shape=tuple(getattr(aval, "shape", ())))


def joined(a: Value, b: Value) -> Value:
    if a.interval is None or b.interval is None:
        return a
    return replace(stored(a), interval=hull(a.interval, b.interval), noise=max(a.noise, b.noise))


# -- calls and branches -----------------------------------------------------------------------


def _programs(equation: Equation) -> Sequence[Program]:
    return PROGRAMS[equation.eqn.primitive.name].programs(equation.eqn, "merge")


def _call(self: Propagation, equation: Equation, operands: list[Value]) -> list[Value]:
    (program,), (frame,) = _programs(equation), equation.frames
    return self.inner(program, frame, operands)


def _cond(self: Propagation, equation: Equation, operands: list[Value]) -> list[Value]:
    programs, which = _programs(equation), operands[0].numbers
    last = len(programs) - 1
    taken = [
        self.inner(program, frame, operands)
        for n, (program, frame) in enumerate(zip(programs, equation.frames, strict=True))
        # An index that is out of bounds is clamped.
        if min(max(which.lo, 0), last) <= n <= max(min(which.hi, last), 0)
    ]
    if len(taken) == 1:
        return taken[0]
    return [functools.reduce(joined, outs) for outs in zip(*taken, strict=True)]


def _shard_map(self: Propagation, equation: Equation, operands: list[Value]) -> list[Value]:
    eqn, (frame,) = equation.eqn, equation.frames
    axes = eqn.params["newly_manual_axes"]
    sizes = {axis: eqn.params["mesh"].shape[axis] for axis in axes}
    inside = replace(self, sizes={**self.sizes, **sizes})

    def passed(values: Sequence[Value], atoms: Sequence[Any]) -> list[Value]:
        """Of a sum of which each device has a part the parts say nothing, nor it of them."""
        return [
            untouched(atom.aval) if compat.is_partial(atom.aval) else typed(x, atom.aval)
            for x, atom in zip(values, atoms, strict=True)
        ]

    return passed(inside.run(frame, passed(operands, frame.jaxpr.invars)), eqn.outvars)


# -- loops ------------------------------------------------------------------------------------

Body = Callable[[Propagation, list[Value]], tuple[list[Value], list[Value]]]
"""From what is carried into an iteration to what is carried out, and the other results."""


def _scan(self: Propagation, equation: Equation, operands: list[Value]) -> list[Value]:
    eqn, (frame,) = equation.eqn, equation.frames
    consts, carry = compat.scan_counts(eqn)
    avals = [var.aval for var in frame.jaxpr.invars]
    fixed = operands[:consts]
    state = [stored(x) for x in operands[consts : consts + carry]]
    slices = [
        typed(x, aval)
        for x, aval in zip(operands[consts + carry :], avals[consts + carry :], strict=True)
    ]

    def body(run: Propagation, state: list[Value]) -> tuple[list[Value], list[Value]]:
        outs = run.run(frame, [*fixed, *state, *slices])
        return [stored(x) for x in outs[:carry]], outs[carry:]

    trips = eqn.params["length"]
    state, results = _iterated(self, body, state, trips)
    out_avals = [var.aval for var in eqn.outvars]
    ys = results or [replace(untouched(a), interval=NOTHING) for a in out_avals[carry:]]
    typed_ys = [typed(x, aval) for x, aval in zip(ys, out_avals[carry:], strict=True)]
    return [*state, *typed_ys]


def _iterated(
    self: Propagation, body: Body, state: list[Value], trips: int
) -> tuple[list[Value], list[Value] | None]:
    """So many iterations: one by one as far as that goes, then all that are left at once."""
    results: list[Value] | None = None
    known = is_known((trips,))
    for n in range(trips if known else 1):
        if not known or n >= UNROLLED or self.budget.visited > BUDGET:
            state = _invariant(self, body, state)
            after, more = body(self, state)
            return list(map(joined, state, after)), _joined_results(results, more)
        before = state
        state, more = body(self, state)
        results = _joined_results(results, more)
        if all(map(_same, before, state)):  # and so it goes on
            break
    return state, results


def _joined_results(results: list[Value] | None, more: list[Value]) -> list[Value]:
    return more if results is None else list(map(joined, results, more))


def _same(a: Value, b: Value) -> bool:
    return a.interval == b.interval


def _while(self: Propagation, equation: Equation, operands: list[Value]) -> list[Value]:
    params, (test_frame, body_frame) = equation.eqn.params, equation.frames
    in_test, in_body = params["cond_nconsts"], params["body_nconsts"]
    test_consts, body_consts = operands[:in_test], operands[in_test : in_test + in_body]
    state = [stored(x) for x in operands[in_test + in_body :]]

    def goes_on(run: Propagation, state: list[Value]) -> Interval:
        return run.run(test_frame, [*test_consts, *state])[0].numbers

    def body(run: Propagation, state: list[Value]) -> tuple[list[Value], list[Value]]:
        return [stored(x) for x in run.run(body_frame, [*body_consts, *state])], []

    for _ in range(UNROLLED):
        test = goes_on(self, state)
        if test.hi == 0:
            return state
        if test.lo == 0 or self.budget.visited > BUDGET:
            break
        state, _ = body(self, state)
    state = _invariant(self, body, state)
    goes_on(self, state)
    body(self, state)
    return state


def _invariant(self: Propagation, body: Body, state: list[Value]) -> list[Value]:
    """What is carried, in any iteration from here on."""
    run = self.quietly()
    start = state
    for n in range(10 * JOINS):
        after, _ = body(run, state)
        grown = list(map(joined, state, after))
        if all(map(_same, grown, state)):
            break
        state = grown if n < JOINS else list(map(_widened, state, grown))
    else:
        return [replace(x, interval=_all(x)) for x in state]
    # What one iteration makes of an invariant, joined with the start, is one too, if rules are
    # monotone; the budget is not, so it is checked.
    less = list(map(joined, start, body(run, state)[0]))
    again = list(map(joined, less, body(run, less)[0]))
    return less if all(map(_same, less, again)) else state


def _all(x: Value) -> Interval | None:
    return None if x.interval is None else everything(x.dtype)


def _widened(before: Value, after: Value) -> Value:
    """Ends that moved are moved to the next threshold."""
    if before.interval is None or after.interval is None or before.interval.empty:
        return after
    kind = kind_of(after.dtype)
    steps = (0, 1, 100, 10_000, kind.largest) if kind.is_float else (0, kind.largest)
    most = (math.inf,) if kind.infinities else ()
    rising = sorted({*steps, *most})
    falling = sorted({0, *(-x for x in rising), kind.least}, reverse=True)
    lo, hi, nan = after.interval
    if hi > before.interval.hi:
        hi = next((x for x in rising if x >= hi), hi)
    if lo < before.interval.lo:
        lo = next((x for x in falling if x <= lo and x >= everything(after.dtype).lo), lo)
    return replace(after, interval=Interval(_like(lo, kind), _like(hi, kind), nan))


def _like(end: Any, kind: Any) -> Any:
    return float(end) if kind.is_float else int(end)


_INNER: dict[str, Callable[[Propagation, Equation, list[Value]], list[Value]]] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
    "shard_map": _shard_map,
}
