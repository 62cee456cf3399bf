"""The plan: which sites a program has, and how the range of each is to be had.

Planning is static. It walks a jaxpr once, inner programs included, and gives every output of
every equation a name and an expression: either the value is a *source*, whose statistic is
taken in the graph, or its range follows from sources (see `derive`). Selection then keeps the
sources that the chosen sites need; the interpreter measures those and nothing else.

The result is a tree of `Frame`s that mirrors the tree of programs, which the interpreter
follows, and a `Layout`, which says where in the packed results each site's state lies.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util as siu

from jax_ranges import compat
from jax_ranges.computations import known_as
from jax_ranges.constants import folded, host_array, is_readable
from jax_ranges.derive import (
    MAX_CHAINS,
    MOVEMENT,
    PAIRWISE,
    Chain,
    Expr,
    Known,
    derived,
    origin_of,
)
from jax_ranges.memory_order import Order, order_of
from jax_ranges.packing import Block, Group, Layout, Slot, group_of
from jax_ranges.reads import Leaves
from jax_ranges.rules import RULES, Link, Loop, Program
from jax_ranges.site import Names, Select, Site, chosen
from jax_ranges.stats import Extrema, Form, MinMax, Statistic, extrema_of, is_known, part_size
from jax_ranges.taken import Taken


@dataclass(eq=False, slots=True)
class Source:
    """A value whose statistics can be taken while the program runs.

    Attributes:
      index: its place among all sources, by which chains refer to it.
      label: the names of what it is (one, or several for the result of a cond).
      dtype, shape: of the value.
      lead: the trip counts of the stacked loops around it, outermost first.
      nest: which loop's body it is in, 0 for none. Those of one nest run equally often.
      loops: how many loops are around it.
      known: makes the state of MinMax, where that is known when planning (constants, iota).
      frozen: it depends on constants only, so XLA would fold its reductions while compiling,
        at seconds each; the interpreter hides it from that.
      same: of what is an inner program's operand only: what is known of the outer value, if it
        is that value whenever the inner program runs.
      order: of its axes in memory (see `memory_order`).
      wide: whether the program has values of 64 bits.
      offloaded: it is in the host's memory, and has to be brought to the device.
      wanted: the indices of the statistics that are to be taken, in order.
    """

    index: int
    label: tuple[str, ...]
    dtype: np.dtype
    shape: tuple[int, ...]
    lead: tuple[int, ...]
    nest: int = 0
    loops: int = 0
    known: Callable[[], Extrema] | None = None
    frozen: bool = False
    same: Known | None = None
    order: Order = None
    wide: bool = False
    offloaded: bool = False
    wanted: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    def order_for(self, stat: Statistic) -> Order:
        """The order of its axes in which a statistic had better see it; None for as it looks.

        So are the operands that a contextual one sees beside it.
        """
        return None if stat.positional or stat.contextual else self.order

    def shape_for(self, stat: Statistic) -> tuple[int, ...]:
        """Its shape in that order."""
        order = self.order_for(stat)
        return self.shape if order is None else tuple([self.shape[axis] for axis in order])

    def want(self, k: int) -> None:
        """Statistic k is to be taken."""
        if k not in self.wanted:
            self.wanted = tuple(sorted((*self.wanted, k)))

    @property
    def form(self) -> Form:
        return Form(self.dtype, self.shape, self.loops, self.wide)

    def signature(self) -> tuple[Any, ...]:
        """What the interpreter does about it, as a hashable value."""
        known = None if self.known is None else tuple(np.asarray(x).tobytes() for x in self.known())
        return (str(self.dtype), self.loops, known, self.frozen, self.order, self.wanted)


@dataclass(eq=False, slots=True)
class Equation:
    """One equation, the outputs of it to measure, and the frames of its inner programs.

    `sites` are the names of its outputs' sites (by output), if it has any.
    """

    eqn: Any
    sites: dict[int, str] = field(default_factory=dict)
    outputs: list[tuple[int, Source]] = field(default_factory=list)
    frames: tuple[Frame, ...] = ()
    dead: tuple[Any, ...] = ()

    @property
    def measures(self) -> bool:
        """Whether anything is measured in its inner programs."""
        return any(frame.sources for frame in self.frames)


@dataclass(eq=False, slots=True)
class Frame:
    """One (inner) program: its equations, and the sources among its constants and inputs.

    `sites` are the names of the sites among its constants and inputs, by position, constants
    first. `sources` lists all that are wanted in it and in the frames inside, in the order in which
    the interpreter returns their states. `together` are those of its own that are measured in
    groups (see `Statistic.alike`); they come last.

    `nest` is that of its sources, `loops` how many loops are around it, `exits` the names of the
    sites that its outputs come from. `review`, if there is one, is what is done to the states of
    each run of it.
    """

    jaxpr: Any
    consts: tuple[Any, ...]
    lead: tuple[int, ...]
    stacks: bool = False
    nest: int = 0
    loops: int = 0
    exits: frozenset[str] = frozenset()
    review: Review | None = None
    sites: dict[int, str] = field(default_factory=dict)
    known: list[Source] = field(default_factory=list)
    inputs: list[tuple[int, Source]] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    sources: tuple[Source, ...] = ()
    together: tuple[tuple[Source, ...], ...] = ()

    def settle(self, stats: tuple[Statistic, ...]) -> tuple[Source, ...]:
        """Drop the sources that nobody wants; returns (and keeps) the others, in order."""
        self.known = [source for source in self.known if source.wanted]
        self.inputs = [(i, source) for i, source in self.inputs if source.wanted]
        found = [*self.known, *(source for _, source in self.inputs)]
        for equation in self.equations:
            for frame in equation.frames:
                found += frame.settle(stats)
            equation.outputs = [(i, source) for i, source in equation.outputs if source.wanted]
            found += [source for _, source in equation.outputs]
        own = [source for _, source in self.inputs]
        own += [source for equation in self.equations for _, source in equation.outputs]
        self.together = _together(own, stats)
        last = [source for group in self.together for source in group]
        late = set(last)
        self.sources = (*(source for source in found if source not in late), *last)
        return self.sources

    def signature(self) -> tuple[Any, ...]:
        """What the interpreter does about its sources, as a hashable value.

        Two frames of one jaxpr with the same signature run alike.
        """
        return (
            tuple(source.signature() for source in self.known),
            tuple((i, source.signature()) for i, source in self.inputs),
            None if self.review is None else self.review.signature(),
            tuple(
                (
                    n,
                    tuple((i, source.signature()) for i, source in equation.outputs),
                    tuple(frame.signature() for frame in equation.frames),
                )
                for n, equation in enumerate(self.equations)
                if equation.outputs or equation.measures
            ),
        )


def _together(
    sources: Sequence[Source], stats: tuple[Statistic, ...]
) -> tuple[tuple[Source, ...], ...]:
    groups: dict[Any, list[Source]] = {}
    kind_of = functools.cache(functools.partial(_kind, stats))
    for source in sources:
        if source.known is None and not source.frozen:
            shapes = tuple([source.shape_for(stats[k]) for k in source.wanted])
            kind = kind_of(source.form, shapes, source.nest > 0, source.wanted)
            if kind is not None:
                groups.setdefault(kind, []).append(source)
    return tuple(
        part
        for (kind, *_), group in groups.items()
        for part in _parts(group, min(stats[k].kept for k in group[0].wanted), kind)
    )


def _kind(
    stats: tuple[Statistic, ...],
    form: Form,
    shapes: tuple[tuple[int, ...], ...],
    repeats: bool,
    wanted: tuple[int, ...],
) -> tuple[Any, ...] | None:
    """What sources that are measured together have in common; None if this one is not."""
    alike = {stats[k].alike(shape, repeats) for k, shape in zip(wanted, shapes, strict=True)}
    if len(alike) != 1 or None in alike:
        return None
    return (*alike, form.dtype, *(group_of(stats, k, form) for k in wanted))


def _parts(group: Sequence[Source], kept: int, kind: Any) -> Iterator[tuple[Source, ...]]:
    size = part_size(len(group), group[0].elements, kept) if kind[0] == "value" else len(group)
    yield from (tuple(group[i : i + size]) for i in range(0, len(group), size))


@dataclass(slots=True)
class Value:
    """What is known of a variable while planning.

    Attributes:
      known: its range as far as it follows; None for what has no range (keys, tokens, refs).
      source: itself as a source, for the statistics that cannot be derived.
      feeds: the names of the sites, inputs or constants that it comes from.
      frozen: it depends on constants only.
      array: makes itself, of a captured constant and of slices of one.
      rearranged: the source of which it has the elements, in another order or shape.
      order: of its axes in memory (see `memory_order`).
    """

    known: Known | None
    source: Source | None
    feeds: tuple[str, ...] = ()
    frozen: bool = False
    array: Callable[[], np.ndarray] | None = None
    rearranged: Source | None = None
    order: Order = None

    @property
    def counted(self) -> Source | None:
        """The source in which what it holds may be counted, where order does not matter."""
        return self.rearranged or self.source

    def hold(self, array: Callable[[], np.ndarray]) -> None:
        """It is this array, of which the range is known before the program runs."""
        assert self.source is not None
        self.array = array
        self.source.known = functools.cache(lambda: extrema_of(array()))

    def lie(self, order: Order) -> None:
        """It lies in memory in that order."""
        self.order = order
        if self.source is not None:
            self.source.order = order


_SPLITS = frozenset({"split", "unstack"})
_CARRIED = "\0carried "  # no scope can be called that


class Review(Protocol):
    """What is decided, of states that were taken together, when all of them are there."""

    def __call__(self, block: Block) -> Block: ...

    def signature(self) -> Hashable:
        """Reviews of one jaxpr of which it says the same do the same."""
        ...


class Made(NamedTuple):
    """How the value at a site comes about.

    Attributes:
      eqn: its equation; None of what has none (inputs, constants).
      operands: what is known of its operands.
      nest: which loop's body it is in, 0 for none.
      loops: the loops around it, outermost first.
    """

    eqn: Any
    operands: tuple[Value, ...]
    nest: int
    loops: tuple[Loop, ...]


class Planner:
    """Walks programs; collects the sites, and for each of them the value it measures.

    stepwise: derive nothing across the border of a loop's body that does not hold of each
      iteration by itself.
    """

    def __init__(self, loops: str, inputs: bool, stepwise: bool = False):
        self.loops = loops
        self.stepwise = stepwise
        self.around: tuple[Loop, ...] = ()  # what is being planned
        self.line = ""  # where the user wrote the equation that it is a part of
        self.inputs = inputs
        self.names = Names()
        self.leaves = Leaves()
        self.sites: list[Site] = []
        self.values: list[Value] = []
        self.made: list[Made] = []
        self.sources: list[Source] = []
        self.stack = siu.new_name_stack()
        self.lead: tuple[int, ...] = ()
        self.nest = self.nests = 0  # which one, and how many there were
        self.outside: dict[int, int] = {}  # the nest that a nest is in
        self.captures = 0  # constants met so far
        self.parts: dict[int, list[Value]] = {}  # into which sources are split
        self.carried: dict[str, tuple[str, ...]] = {}  # see `entering`

    def fresh(self, aval: Any, feeds: tuple[str, ...], frozen: bool = False) -> Value:
        """A value of which nothing is known but its type: a source of its own."""
        if not is_measurable(aval):
            return Value(None, None, feeds, frozen)
        dtype = np.dtype(aval.dtype)
        place = self.lead, self.nest, len(self.around)
        source = Source(len(self.sources), feeds, dtype, aval.shape, *place, frozen=frozen)
        source.offloaded = compat.is_offloaded(aval)
        self.sources.append(source)
        return Value(Known((Chain(source.index),), dtype), source, feeds, frozen)

    def argument(self, frame: Frame, position: int, aval: Any, feeds: tuple[str, ...]) -> Value:
        """An input of a frame, to be measured there if anything needs its range."""
        value = self.fresh(aval, feeds)
        if value.source is not None:
            frame.inputs.append((position, value.source))
        return value

    def captured(self, frame: Frame, position: int, aval: Any, array: Any) -> Value:
        """A constant that the program captured (an input like others, if it is a tracer)."""
        name = f"const/{self.captures}"
        self.captures += 1
        self.leaves.add(name)
        value = self.argument(frame, position, aval, (name,))
        if value.source is not None and is_readable(array):
            value.hold(functools.cache(functools.partial(host_array, array, aval.dtype)))
            value.source.frozen = value.frozen = True
        if self.inputs and value.known is not None:
            self.add_site(Site(name, "const", 0, *_shape_dtype(aval)), value)
            frame.sites[position] = name
        return value

    def literal(self, frame: Frame, atom: Any) -> Value:
        value = self.fresh(atom.aval, (), frozen=True)
        if value.known is not None and value.source is not None:
            array = np.asarray(atom.val, value.known.dtype)
            value.source.known = functools.partial(extrema_of, array)
            value.known = value.known._replace(literal=array[()] if array.ndim == 0 else None)
            frame.known.append(value.source)
        return value

    def add_site(
        self, site: Site, value: Value, eqn: Any = None, operands: Sequence[Value] = ()
    ) -> None:
        if value.known is not None:
            self.sites.append(site)
            self.values.append(value)
            self.made.append(Made(eqn, tuple(operands), self.nest, self.around))

    # -- programs -------------------------------------------------------------------------

    def program(self, frame: Frame, arguments: Sequence[Value]) -> list[Value]:
        """Plan a frame's program; returns what is known of its outputs."""
        jaxpr = frame.jaxpr
        env: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
        for i, (var, const) in enumerate(zip(jaxpr.constvars, frame.consts, strict=True)):
            env[var] = self.captured(frame, i, var.aval, const)

        def read(atom: Any) -> Value:
            return self.literal(frame, atom) if compat.is_literal(atom) else env[atom]

        for eqn, dead in zip(jaxpr.eqns, _last_uses(jaxpr), strict=True):
            equation = Equation(eqn, dead=dead)
            frame.equations.append(equation)
            plan = self.inner if eqn.primitive.name in RULES else self.plain
            results = plan(equation, [read(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def plain(self, equation: Equation, operands: list[Value]) -> list[Value]:
        """An equation without inner programs, or with such as no rule knows: outputs are sites."""
        eqn = equation.eqn
        if not any(is_measurable(var.aval) for var in eqn.outvars):
            feeds = _feeds(operands)
            return [self.fresh(var.aval, feeds) for var in eqn.outvars]
        scope = str(self.stack + eqn.source_info.name_stack)
        primitive = eqn.primitive.name
        base = self.names.claim(f"{scope}/{primitive}" if scope else primitive)
        # Of what jax.numpy has jitted the equations know no line of the user's.
        line = compat.user_line(eqn) or self.line
        by_operand = tuple([operand.feeds for operand in operands])
        feeds = by_operand[0] if len(by_operand) == 1 else _united(by_operand)
        backward = "transpose(" in scope
        reads = self.leaves.read(feeds)
        kind = known_as(eqn)
        order = order_of(eqn, [operand.order for operand in operands])
        values = []
        for i, var in enumerate(eqn.outvars):
            name = f"{base}[{i}]" if i else base
            value = self.result(equation, kind, i, name, operands)
            if order is not None:
                value.lie(order)
            if value.known is not None:
                type_ = _shape_dtype(var.aval)
                site = Site(name, primitive, i, *type_, line, feeds, backward, by_operand, reads)
                if reads:
                    self.leaves.carry(name, kind, i, by_operand, reads)
                self.add_site(site, value, eqn, operands)
                equation.sites[i] = name
            values.append(value)
        if kind in _SPLITS:
            self.split(operands[0], values)
        return values

    def split(self, whole: Value, parts: list[Value]) -> None:
        """Note what has been split, for its range is that of all parts together."""
        source = whole.source
        if source is None or whole.known is None or source.known is not None:
            return
        here = (source.nest, source.lead) == (self.nest, self.lead)
        if here and whole.known.expr == (Chain(source.index),) and 0 not in source.shape:
            self.parts[source.index] = parts

    def result(
        self, equation: Equation, kind: str, i: int, name: str, operands: list[Value]
    ) -> Value:
        """Output `i` of a plain equation: measured, unless its range follows or is known.

        kind: what it is known as (see `known_as`).
        """
        eqn = equation.eqn
        aval = eqn.outvars[i].aval
        frozen = not eqn.effects and all(operand.frozen for operand in operands)
        value = self.fresh(aval, (name,), frozen)
        if value.known is None or value.source is None:
            return value
        equation.outputs.append((i, value.source))
        chosen_operands = [operands[i]] if kind in PAIRWISE else operands
        known = [operand.known for operand in chosen_operands if operand.known is not None]
        follows = None
        if 0 in aval.shape:
            value.source.known = functools.partial(MinMax().identity, value.source.dtype)
        elif kind == "iota" and is_known(aval.shape):
            value.source.known = iota_extrema(eqn.params)
        elif kind == "slice" and operands[0].array is not None and _is_known_slice(eqn.params):
            whole = operands[0].array
            value.hold(lambda: folded(kind, eqn.params, [whole()], aval))
        # Where each device has a part of a sum, rounding them is not rounding the sum.
        elif len(known) == len(chosen_operands) and (
            kind in MOVEMENT or not compat.is_partial(aval)
        ):
            follows = derived(kind, eqn.params, known, aval)
        if follows is not None and self.is_brought(follows, value.source):
            self.bring(follows.expr, value)
            follows = None
        value.known = follows or Known(value.known.expr, value.known.dtype, origin_of(kind))
        if kind in MOVEMENT:
            value.rearranged = self.rearrangement(value.source, chosen_operands)
        return value

    def is_brought(self, known: Known, source: Source) -> bool:
        """Whether what is known of a value on the device follows from one in the host's memory.

        It is measured then: the other may be larger than the device's memory, if it is taken
        from there slice by slice in a loop.
        """
        origins = [self.sources[chain.source] for chain in known.expr]
        return not source.offloaded and any(x.offloaded and x.known is None for x in origins)

    def bring(self, offloaded: Expr, brought: Value) -> None:
        """Note where a value, or in a loop all of its slices, can be measured on the device."""
        (first, *more) = offloaded
        if not more and not first.steps:
            self.parts[first.source] = [brought]

    def rearrangement(self, moved: Source, operands: Sequence[Value]) -> Source | None:
        """The source whose elements, each of them once, data movement has put elsewhere."""
        source = operands[0].counted
        if source is None or source.nest != self.nest or source.dtype != moved.dtype:
            return None
        if source.offloaded and not moved.offloaded:
            return None
        if not source.label:  # a literal: its range is known, and the rest cannot be measured
            return None
        return source if source.elements == moved.elements else None

    def inner(self, equation: Equation, operands: list[Value]) -> list[Value]:
        """An equation whose inner programs are traced: it is not itself a site."""
        eqn = equation.eqn
        returned: list[list[tuple[Value, bool]]] = [[] for _ in eqn.outvars]
        saved = self.stack, self.lead, self.nest
        around, line = self.around, self.line
        self.line = compat.user_line(eqn) or line
        frames = []
        for program in RULES[eqn.primitive.name].programs(eqn, self.loops):
            self.stack = saved[0] + eqn.source_info.name_stack
            for scope in program.scopes:
                self.stack = self.stack.extend(scope)
            self.nest = saved[2]
            self.around = around
            if program.loop is not None:
                self.nests += 1
                self.outside[self.nests] = saved[2]
                self.nest, self.around = self.nests, (*around, program.loop)
            stacks = program.trips is not None
            self.lead = saved[1] if program.trips is None else (*saved[1], program.trips)
            place = self.lead, stacks, self.nest, len(self.around)
            frame = Frame(*compat.opened(program.jaxpr), *place)
            frames.append(frame)
            arguments = self.entering(frame, program, operands)
            outs = self.program(frame, arguments)
            frame.exits = frozenset(_feeds(outs))
            for argument, link in zip(arguments, program.operands, strict=True):
                if link.back is not None:
                    self.carried[argument.feeds[-1]] = outs[link.back].feeds
            for value, link in zip(outs, program.results, strict=True):
                if link.outer is not None:
                    returned[link.outer].append((value, link.exact))
        self.stack, self.lead, self.nest = saved
        self.around, self.line = around, line
        equation.frames = tuple(frames)
        return [self.leaving(equation, i, found) for i, found in enumerate(returned)]

    def entering(self, frame: Frame, program: Program, operands: list[Value]) -> list[Value]:
        arguments = []
        for i, (var, link) in enumerate(zip(frame.jaxpr.invars, program.operands, strict=True)):
            assert link.outer is not None
            outer = operands[link.outer]
            known, feeds = outer.known, outer.feeds
            if not self.is_exact(program, link) or known is None:
                if link.back is not None:
                    # It also comes from the body's own output, whose sites have no names yet.
                    feeds = (*feeds, f"{_CARRIED}{len(self.carried)}/{i}")
                outer = self.argument(frame, len(frame.consts) + i, var.aval, feeds)
                if link.same and outer.source is not None:
                    outer.source.same = known
            arguments.append(outer)
        return arguments

    def is_inside(self, nest: int, outer: int) -> bool:
        """Whether a nest is this one, or in it."""
        while nest > outer:  # what is inside has a higher number
            nest = self.outside[nest]
        return nest == outer

    def is_exact(self, program: Program, link: Link) -> bool:
        """Whether what holds of the operand holds of the inner variable."""
        return link.exact and (link.same or not (self.stepwise and program.repeats))

    def linked(self) -> list[Site]:
        """The sites, with the operands that loops carry round named."""
        return [
            replace(
                site,
                operands=self.named(site.operands),
                by_operand=tuple(map(self.named, site.by_operand)),
            )
            if any(name.startswith(_CARRIED) for name in site.operands)
            else site
            for site in self.sites
        ]

    def named(self, names: Sequence[str]) -> tuple[str, ...]:
        """What values come from, with that which loops carry round named."""
        return tuple(dict.fromkeys(self.resolved(names)))

    def resolved(self, names: Sequence[str], seen: frozenset[str] = frozenset()) -> Iterator[str]:
        for name in names:
            if not name.startswith(_CARRIED):
                yield name
            elif name not in seen:  # a value may be carried round unchanged
                yield from self.resolved(self.carried[name], seen | {name})

    def leaving(self, equation: Equation, i: int, found: list[tuple[Value, bool]]) -> Value:
        if len(found) == 1 and found[0][1]:
            return found[0][0]
        value = self.fresh(equation.eqn.outvars[i].aval, _feeds([value for value, _ in found]))
        if value.source is not None:
            equation.outputs.append((i, value.source))
        return value


def _feeds(values: Sequence[Value]) -> tuple[str, ...]:
    return _united([value.feeds for value in values])


def _united(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(itertools.chain.from_iterable(names)))


def _shape_dtype(aval: Any) -> tuple[tuple[Any, ...], np.dtype]:
    """Of a symbolic size its name: an expression is bound to the program that it is of."""
    sizes = aval.shape
    shape = tuple(sizes) if is_known(sizes) else tuple([_named_size(size) for size in sizes])
    return shape, np.dtype(aval.dtype)


def _named_size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)


def _last_uses(jaxpr: Any) -> list[tuple[Any, ...]]:
    """For each equation the variables that nothing after it reads, its own results included."""
    used = {atom for atom in jaxpr.outvars if not compat.is_literal(atom)}
    last = []
    for eqn in reversed(jaxpr.eqns):
        here = {v for v in (*eqn.invars, *eqn.outvars) if not compat.is_literal(v)}
        last.append(tuple(here - used))
        used |= here
    return last[::-1]


def is_measurable(aval: Any) -> bool:
    """Arrays of numbers are; PRNG keys, tokens, refs and float0 are not."""
    return isinstance(aval, compat.ShapedArray) and _is_numeric(aval.dtype)


@functools.lru_cache(maxsize=256)
def _is_numeric(dtype: Any) -> bool:
    if jnp.issubdtype(dtype, jax.dtypes.extended) or dtype == jax.dtypes.float0:
        return False
    return dtype == np.dtype(bool) or bool(jnp.issubdtype(dtype, np.number))


def _is_known_slice(params: dict[str, Any]) -> bool:
    return is_known((*params["start_indices"], *params["limit_indices"]))


def iota_extrema(params: dict[str, Any]) -> Callable[[], Extrema]:
    last = params["shape"][params["dimension"]] - 1

    @functools.cache
    def known() -> Extrema:
        with np.errstate(over="ignore"):  # it ends in infinities then
            return extrema_of(np.array([0, last]).astype(params["dtype"]))

    return known


# -- the plan as a whole ----------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """How one site's range is had: `how` is "measured", "derived" or "constant".

    `why` says from what it is derived and by which operations; `elements` is the number of
    elements that a reduction reads for it, at each execution, 0 where it is free; in a program
    with symbolic shapes an expression of these, as a string.
    """

    site: Site
    how: str
    why: str
    elements: int | str


@dataclass(frozen=True, eq=False)
class Plan:
    """Which sites a program has, which of them cost a reduction and which are free, and why.

    Made by `jr.plan(f)(*args)`; `ranges` follows the same plan. Printing it shows the table.

    Attributes:
      sites: the sites selected, in program order.
      rows: one for each of them.
      reductions: how many values are reduced in the graph.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> plan = jr.plan(lambda x: -jnp.exp(x))(jnp.ones((2, 3)))
      >>> plan.reductions, [(row.site.name, row.how, row.elements) for row in plan.rows]
      (1, [('exp', 'measured', 6), ('neg', 'derived', 0)])
    """

    frame: Frame
    layout: Layout
    reductions: int
    _explain: Callable[[], tuple[Row, ...]]

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that were selected, in program order."""
        return self.layout.sites

    @functools.cached_property
    def rows(self) -> tuple[Row, ...]:
        return self._explain()

    def __rich__(self) -> Any:
        from jax_ranges.report.tables import plan_table

        return plan_table(self)

    def _repr_html_(self) -> str:
        from jax_ranges.report.notebook import console_html
        from jax_ranges.report.tables import plan_table

        return console_html(plan_table(self))

    def __repr__(self) -> str:
        from jax_ranges.report.tables import plain

        return plain(self)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without the garbage collector.

    A plan is many small objects that stay. Looking through them again and again while they are
    made takes the collector as long as making them.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@uncollected()
def make_plan(
    jaxpr: Any,
    inputs: Sequence[str],
    taken: Taken,
    select: Select,
    with_inputs: bool,
    loops: str,
) -> Plan:
    """Plan a closed jaxpr whose inputs have these names (`input/...`)."""
    planner = Planner(loops, with_inputs)
    frame = walk(planner, jaxpr, inputs)
    sites = planner.linked()
    picked = taken.of_interest(sites, chosen(sites, select))
    places = want(planner, taken, sites, picked)
    frame.settle(taken.stats)
    layout = lay_out(frame, taken.stats, tuple(sites[i] for i in picked), places)
    reductions = sum(source.known is None for source in frame.sources)

    def explain() -> tuple[Row, ...]:
        return tuple(_row(planner, sites[i], planner.values[i]) for i in picked)

    return Plan(frame, layout, reductions, explain)


def walk(planner: Planner, jaxpr: Any, inputs: Sequence[str], outputs: Sequence[str] = ()) -> Frame:
    """Plan a closed jaxpr; its outputs are sites too, if they have names."""
    opened, consts = compat.opened(jaxpr)
    frame = Frame(opened, consts, ())
    arguments = []
    for i, (var, name) in enumerate(zip(opened.invars, inputs, strict=True)):
        value = planner.argument(frame, len(consts) + i, var.aval, (name,))
        planner.leaves.add(name)
        if planner.inputs and value.known is not None:
            planner.add_site(Site(name, "input", 0, *_shape_dtype(var.aval)), value)
            frame.sites[len(consts) + i] = name
        arguments.append(value)
    outs = planner.program(frame, arguments)
    for name, value in zip(outputs, outs, strict=bool(outputs)):
        if value.known is not None and value.source is not None:
            kind, feeds = (value.source.shape, value.source.dtype), value.feeds
            reads = planner.leaves.read(feeds)
            site = Site(name, "output", 0, *kind, operands=feeds, by_operand=(feeds,), reads=reads)
            planner.add_site(site, value)
    return frame


Places = list[list[Expr]]


def want(planner: Planner, taken: Taken, sites: Sequence[Site], picked: Sequence[int]) -> Places:
    """For each statistic and each picked site, how its state is had; what that takes is wanted."""
    _put_together(planner, taken, sites, picked)
    places = [
        [_places(planner, i, stat) if taken.takes(k, sites[i]) else () for i in picked]
        for k, stat in enumerate(taken.stats)
    ]
    for k, of_stat in enumerate(places):
        for chain in (chain for chains in of_stat for chain in chains):
            planner.sources[chain.source].want(k)
    return places


def _put_together(
    planner: Planner, taken: Taken, sites: Sequence[Site], picked: Sequence[int]
) -> None:
    """Where all parts of a value have their ranges taken, derive that of the whole from them."""
    if not planner.parts:
        return
    ranges = [k for k, stat in enumerate(taken.stats) if isinstance(stat, MinMax)]
    measured = {
        id(planner.values[i]) for i in picked if any(taken.takes(k, sites[i]) for k in ranges)
    }
    wholes = {
        source: parts
        for source, parts in planner.parts.items()
        if all(id(part) in measured for part in parts)
    }
    for value in planner.values:
        if value.known is not None and any(chain.source in wholes for chain in value.known.expr):
            expr = tuple(dict.fromkeys(_chains(value.known.expr, wholes)))
            if len(expr) <= MAX_CHAINS:
                value.known = value.known._replace(expr=expr)


def _chains(expr: Expr, wholes: dict[int, list[Value]]) -> Iterator[Chain]:
    """The chains of an expression, with those of the parts in the place of those of wholes."""
    for chain in expr:
        parts = wholes.get(chain.source)
        if parts is None:
            yield chain
            continue
        for part in parts:
            assert part.known is not None
            for inner in _chains(part.known.expr, wholes):
                yield inner._replace(steps=(*inner.steps, *chain.steps))


def _places(planner: Planner, site: int, stat: Statistic) -> Expr:
    """How the state of a statistic at a site is had; only ranges can be derived."""
    value = planner.values[site]
    assert value.known is not None and value.source is not None and value.counted is not None
    if isinstance(stat, MinMax):
        return value.known.expr
    return (Chain((value.source if stat.positional else value.counted).index),)


def lay_out(
    frame: Frame, stats: tuple[Statistic, ...], sites: tuple[Site, ...], places: Places
) -> Layout:
    """Where the states of these sites are."""
    slots, groups = slots_of(frame, stats)
    placed = tuple(
        tuple(tuple(Chain(slots[k, c.source], c.steps) for c in chains) for chains in of_stat)
        for k, of_stat in enumerate(places)
    )
    return Layout(stats, sites, groups, placed)


def slots_of(
    frame: Frame, stats: tuple[Statistic, ...]
) -> tuple[dict[tuple[int, int], Slot], tuple[Group, ...]]:
    """For each statistic and source (their indices) where its state is; and all groups."""
    groups: dict[Group, int] = {}
    slots: dict[tuple[int, int], Slot] = {}
    filled: list[int] = []
    of_form = functools.cache(functools.partial(group_of, stats))
    for source in frame.sources:
        for k in source.wanted:
            group = of_form(k, source.form, source.lead)
            g = groups.setdefault(group, len(groups))
            filled += [0] * (g == len(filled))
            slots[k, source.index] = Slot(g, filled[g])
            filled[g] += 1
    return slots, tuple(groups)


def _row(planner: Planner, site: Site, value: Value) -> Row:
    assert value.known is not None and value.source is not None
    chains = value.known.expr
    origins = [planner.sources[chain.source] for chain in chains]
    if all(origin.known is not None for origin in origins):
        return Row(site, "constant", "known before the program runs", 0)
    if origins == [value.source] and not chains[0].steps:
        return Row(site, "measured", "", _named_size(value.source.elements))
    parts = []
    for chain, origin in zip(chains, origins, strict=True):
        label = " or ".join(dict.fromkeys(planner.resolved(origin.label))) or "a literal"
        parts.append(f"{label}: {', '.join(map(str, chain.steps)) or 'the same values'}")
    return Row(site, "derived", "; ".join(parts), 0)
