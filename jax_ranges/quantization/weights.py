"""Which inputs and constants of a program can be codes from the start.

An array can if all that is done with it, in whichever loop, branch or call, ends at operands of
products that are rounded alike. On the way there it may be cast, transposed and sliced by a scan.
What happens on the way is done ahead, too: the codes are those that the program would make.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from jax_ranges import compat, keys
from jax_ranges.computations import known_as
from jax_ranges.plan import Equation, Frame
from jax_ranges.qparams import QParams
from jax_ranges.quantization.array import QuantizedArray, quantized
from jax_ranges.quantization.executable import (
    has_zero_point,
    known_zero_points,
    why_no_codes,
)
from jax_ranges.quantization.products import product_of, sums_of
from jax_ranges.quantization.resolved import Resolved, Treatment
from jax_ranges.quantization.specs import Spec, Use, params_for, rounded
from jax_ranges.rules import RULES, Program
from jax_ranges.site import Site

Leaf = tuple[Frame, int]
"""A constant or an input of a frame, by position, constants first."""


# -- what is done to an array -----------------------------------------------------------------


@dataclass(frozen=True)
class Round:
    """It is rounded."""

    spec: Spec

    def key(self) -> Hashable:
        return key_of(self.spec)

    def then(self, x: Any, rest: Callable[[Any], QuantizedArray]) -> QuantizedArray:
        return rest(rounded(self.spec, x, Use()))


@dataclass(frozen=True)
class Cast:
    """It is cast."""

    dtype: np.dtype

    def key(self) -> Hashable:
        return self.dtype

    def then(self, x: Any, rest: Callable[[Any], QuantizedArray]) -> QuantizedArray:
        return rest(x.astype(self.dtype)).astype(x.dtype)

    def of_codes(self, x: QuantizedArray) -> QuantizedArray:
        return x.astype(self.dtype)


@dataclass(frozen=True)
class Transpose:
    """It is transposed."""

    axes: tuple[int, ...]

    def key(self) -> Hashable:
        return self.axes

    def then(self, x: Any, rest: Callable[[Any], QuantizedArray]) -> QuantizedArray:
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return rest(x.transpose(self.axes)).transpose(back)

    def of_codes(self, x: QuantizedArray) -> QuantizedArray:
        return x.transpose(self.axes)


@dataclass(frozen=True)
class Slice:
    """A scan takes it row by row."""

    def key(self) -> Hashable:
        return "slice"

    def then(self, x: Any, rest: Callable[[Any], QuantizedArray]) -> QuantizedArray:
        return jax.vmap(rest)(x)


Step = Round | Cast | Transpose | Slice


@dataclass(frozen=True, eq=False)
class Coded:
    """How an array becomes codes: some steps, then as this operand of a product.

    sums: whether the product needs the sums of its codes.
    """

    steps: tuple[Step, ...]
    spec: Spec
    over: tuple[int, ...]
    sums: bool

    def __call__(self, x: Any) -> QuantizedArray:
        """The codes of the array, in its own layout."""

        def after(x: Any, steps: tuple[Step, ...]) -> QuantizedArray:
            if steps:
                return steps[0].then(x, lambda x: after(x, steps[1:]))
            q = params_for(self.spec, x, Use(self.over))
            if known_zero_points(self.spec) == (0, 0):
                q = replace(q, zero_point=np.int32(0))
            found = quantized(q, x)
            sums = sums_of(found.codes, self.over) if self.sums else None
            return replace(found, sums=sums)

        return after(x, self.steps)

    def key(self) -> Hashable:
        """Those that have the same one make the same codes."""
        steps = tuple((type(step).__name__, step.key()) for step in self.steps)
        return steps, key_of(self.spec), self.over


def key_of(spec: Spec) -> Hashable:
    """Ways of rounding that have the same one are the same."""
    if not isinstance(spec, QParams):
        return spec
    if compat.is_traced(spec.scale) or compat.is_traced(spec.zero_point):
        return id(spec)
    parts = (np.asarray(part) for part in (spec.scale, spec.zero_point))
    arrays = tuple((part.dtype, part.shape, part.tobytes()) for part in parts)
    return arrays, spec.qmin, spec.qmax, spec.format, spec.axis


# -- following it through a program -----------------------------------------------------------


def carried(equation: Equation) -> frozenset[int]:
    """The operands of an equation with inner programs which have to stay plain arrays.

    Those that a loop carries round are one type all the way; shardings are given for one array;
    and derivatives that are given for one, too.
    """
    eqn = equation.eqn
    name = eqn.primitive.name
    if name in ("custom_jvp_call", "custom_vjp_call", "shard_map"):
        return frozenset(range(len(eqn.invars)))
    if name == "jit":
        return frozenset(compat.placed_operands(eqn))
    return frozenset(
        link.outer
        for program in RULES[name].programs(eqn, "merge")
        for link in program.operands
        if link.back is not None and link.outer is not None
    )


def moved(eqn: Any) -> Cast | Transpose | None:
    """What an equation does to its operand, if that can be done to codes; None if it cannot."""
    kind = known_as(eqn)
    if kind == "transpose":
        return Transpose(tuple(eqn.params["permutation"]))
    if kind != "convert_element_type" or eqn.params.get("sharding") is not None:
        return None
    before, after = (atom.aval.dtype for atom in (eqn.invars[0], eqn.outvars[0]))
    return Cast(np.dtype(after)) if keys.is_float(before) and keys.is_float(after) else None


@dataclass(frozen=True)
class _Origin:
    """Where a value comes from, and what was done to it since."""

    leaf: Leaf
    steps: tuple[Step, ...]


@dataclass
class _Finder:
    resolved: Resolved
    uses: dict[Leaf, list[Coded | None]] = field(default_factory=dict)
    operands: dict[tuple[Equation, int], Leaf] = field(default_factory=dict)

    def frame(self, frame: Frame, arguments: Sequence[_Origin | None]) -> None:
        """Follow what a frame does. None stands for values that come from no array alone."""
        jaxpr = frame.jaxpr
        consts = [
            None if compat.is_traced(const) else self.leaf(frame, i)
            for i, const in enumerate(frame.consts)
        ]
        env = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

        def read(atom: Any) -> _Origin | None:
            return None if compat.is_literal(atom) else env.get(atom)

        for equation in frame.equations:
            found = self.equation(equation, [read(atom) for atom in equation.eqn.invars])
            if found is not None:
                env[equation.eqn.outvars[0]] = found
        for atom in jaxpr.outvars:
            self.use(read(atom), None)

    def leaf(self, frame: Frame, position: int) -> _Origin:
        spec = self.resolved.arguments.get(frame, {}).get(position)
        return _Origin((frame, position), () if spec is None else (Round(spec),))

    def use(self, origin: _Origin | None, coded: Coded | None) -> None:
        if origin is not None:
            self.uses.setdefault(origin.leaf, []).append(coded)

    def equation(self, equation: Equation, operands: list[_Origin | None]) -> _Origin | None:
        """What is used by an equation; where its result comes from, if from one array alone."""
        if not any(operands):
            return None
        treatment = self.resolved.equations.get(equation, Treatment())
        step = moved(equation.eqn)
        if step is not None and operands[0] is not None:
            before, after = (
                [Round(spec) for spec in part.values()]
                for part in (treatment.operands, treatment.outputs)
            )
            return _Origin(operands[0].leaf, (*operands[0].steps, *before, step, *after))
        if equation in self.resolved.around:
            self.inside(equation, operands)
            return None
        for i, origin in enumerate(operands):
            if origin is not None:
                self.operands[equation, i] = origin.leaf
                self.use(origin, operand_codes(equation.eqn, treatment, i, origin.steps))
        return None

    def inside(self, equation: Equation, operands: list[_Origin | None]) -> None:
        plain = carried(equation)
        for i in plain:
            self.use(operands[i], None)
        passed = [None if i in plain else origin for i, origin in enumerate(operands)]
        programs = RULES[equation.eqn.primitive.name].programs(equation.eqn, "merge")
        for program, frame in zip(programs, equation.frames, strict=True):
            self.frame(frame, list(_entering(program, frame, equation.eqn, passed)))


def _entering(
    program: Program, frame: Frame, eqn: Any, operands: Sequence[_Origin | None]
) -> Iterator[_Origin | None]:
    for link, var in zip(program.operands, frame.jaxpr.invars, strict=True):
        origin = None if link.outer is None else operands[link.outer]
        if origin is None or link.outer is None:
            yield None
        else:
            sliced = len(var.aval.shape) < len(eqn.invars[link.outer].aval.shape)
            yield replace(origin, steps=(*origin.steps, Slice())) if sliced else origin


def operand_codes(eqn: Any, treatment: Treatment, i: int, steps: tuple[Step, ...]) -> Coded | None:
    """How an operand of a product becomes codes; None if it cannot, or it is no such operand."""
    spec, product = treatment.operands.get(i), product_of(eqn)
    if product is None or i > 1 or spec is None:
        return None
    over, shape = product.summed[i], eqn.invars[i].aval.shape
    if why_no_codes(spec, over, shape):
        return None
    return Coded(steps, spec, tuple(over), has_zero_point(treatment.operands.get(1 - i)))


@dataclass(frozen=True)
class Weights:
    """The constants and inputs of a program that can be codes.

    Attributes:
      coded: how each becomes codes, by frame and position.
      operands: where they come from, of the operands of equations that are one.
    """

    coded: Mapping[Frame, Mapping[int, Coded]]
    operands: Mapping[tuple[Equation, int], Leaf]

    @classmethod
    def find(cls, frame: Frame, resolved: Resolved, selects: Callable[[Site], bool]) -> Weights:
        """Those of a whole program; `selects`: what is a weight."""
        finder = _Finder(resolved)
        first = len(frame.consts)
        finder.frame(frame, [finder.leaf(frame, first + i) for i in range(len(frame.jaxpr.invars))])
        found: dict[Frame, dict[int, Coded]] = {}
        for (where, i), uses in finder.uses.items():
            coded = _common(uses)
            if coded is not None and selects(_site(where, i)):
                found.setdefault(where, {})[i] = coded
        operands = {use: (f, i) for use, (f, i) in finder.operands.items() if i in found.get(f, ())}
        return cls(found, operands)


def _site(frame: Frame, position: int) -> Site:
    name = frame.sites.get(position, "")
    return Site(name, name.partition("/")[0], 0, (), np.dtype(np.float32))


def _common(uses: Sequence[Coded | None]) -> Coded | None:
    """What all uses of an array have in common; None if they differ, or one is no product's."""
    known = [use for use in uses if use is not None]
    if len(known) < len(uses) or len({use.key() for use in known}) != 1:
        return None
    return replace(known[0], sums=any(use.sums for use in known))
