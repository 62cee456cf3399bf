"""What `jr.quantize` does at each site, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from jax_ranges.plan import Frame
from jax_ranges.quantization.executable import why_simulated
from jax_ranges.quantization.products import Convolution, Product, float_operands, product_of
from jax_ranges.quantization.resolved import Resolved, Treatment
from jax_ranges.quantization.weights import Weights


@dataclass(frozen=True)
class Execution:
    """How one site that the recipe has a rule for is executed.

    Attributes:
      site: its name.
      how: "codes": a product of codes. "weight-only": a product of floats, of which an operand is
        stored as codes and dequantized. "simulated": rounded as `jr.simulate` does.
      product: the types that are multiplied, "int8 x int8 -> int32"; "" if not on codes.
      stored: which operands are stored as codes, in which format.
      preparable: which would be, after `prepare`.
      why: why it is not executed on codes.
    """

    site: str
    how: str
    product: str = ""
    stored: tuple[tuple[int, str], ...] = ()
    preparable: tuple[int, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        stored = (f"operand {i} stored as {name}" for i, name in self.stored)
        others = (f"operand {i} not prepared" for i in self.preparable)
        return "; ".join(part for part in (self.product, self.why, *stored, *others) if part)


@dataclass(frozen=True)
class ExecutionPlan:
    """What `jr.quantize` does at each site that the recipe has a rule for; prints as a table."""

    rows: tuple[Execution, ...]
    products: int

    def __repr__(self) -> str:
        run = sum(row.how == "codes" for row in self.rows)
        count = f"{self.products} product{'s' * (self.products != 1)}, {run} on codes"
        site = max((len(row.site) for row in self.rows), default=0)
        how = max((len(row.how) for row in self.rows), default=0)
        lines = (f"  {row.site:{site}}  {row.how:{how}}  {row}" for row in self.rows)
        return "\n".join([f"ExecutionPlan: {count}", *lines])


def execution_plan(
    frame: Frame, resolved: Resolved, weights: Weights, stored: Collection[int]
) -> ExecutionPlan:
    """The plan of a program of whose inputs those at some positions are stored as codes."""
    found = _Rows(frame, resolved, weights, frozenset(stored))
    rows = tuple(found.inside(frame))
    return ExecutionPlan(rows, sum(1 for _ in _products(frame)))


def _products(frame: Frame) -> Iterator[Any]:
    for equation in frame.equations:
        if product_of(equation.eqn) is not None:
            yield equation
        for inner in equation.frames:
            yield from _products(inner)


@dataclass(frozen=True)
class _Rows:
    whole: Frame
    resolved: Resolved
    weights: Weights
    stored: frozenset[int]

    def inside(self, frame: Frame) -> Iterator[Execution]:
        for i, spec in self.resolved.arguments.get(frame, {}).items():
            if not self.is_stored((frame, i)):
                why = f"rounded to {spec.format}"
                yield Execution(frame.sites[i], "simulated", why=why)
        for equation in frame.equations:
            treatment = self.resolved.equations.get(equation)
            if treatment is not None:
                yield self.row(equation, treatment)
            for inner in equation.frames:
                yield from self.inside(inner)

    def row(self, equation: Any, treatment: Treatment) -> Execution:
        eqn = equation.eqn
        site, product = equation.sites[min(equation.sites)], product_of(eqn)
        if product is None:
            why = f"{eqn.primitive.name} is neither dot_general nor a convolution"
            return Execution(site, "simulated", why=why)
        why = why_simulated(eqn, product, treatment.operands)
        origins = {i: self.weights.operands.get((equation, i)) for i in treatment.operands}
        ahead = {i: self.is_stored(leaf) for i, leaf in origins.items() if leaf is not None}
        stored = tuple(
            (i, treatment.operands[i].format.name) for i, is_so in ahead.items() if is_so
        )
        return Execution(
            site=site,
            how=("weight-only" if stored else "simulated") if why else "codes",
            product="" if why else _types(product, treatment),
            stored=stored,
            preparable=tuple(i for i, is_so in ahead.items() if not is_so),
            why=why,
        )

    def is_stored(self, leaf: tuple[Frame, int]) -> bool:
        frame, i = leaf
        if i not in self.weights.coded.get(frame, {}):
            return False
        return i < len(frame.consts) or (frame is self.whole and i in self.stored)


def _types(product: Product, treatment: Treatment) -> str:
    formats = [treatment.operands[i].format for i in (0, 1)]
    if formats[0].uniform:
        return "int8 x int8 -> int32"
    lhs, rhs = float_operands(formats[0], formats[1], isinstance(product, Convolution))
    return f"{lhs} x {rhs} -> float32"
