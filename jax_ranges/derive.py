"""Derived ranges: what follows exactly from another range, and needs no reduction.

A site's range is derived when it is the image of a measured range under operations that keep
order (or turn it round) and round the way XLA does. Such an image commutes with merging, so it
is taken when somebody reads the range, on the host, never in the graph.

A `Chain` starts at a measured source and applies a few `Step`s; an `Expr` is the union of
chains (a concatenation has several). The table `DERIVATIONS` says for each primitive which of
its outputs follow; whatever it does not list is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_ranges.stats import carrier_dtype, limits

MAX_STEPS = 8
MAX_CHAINS = 8


@dataclass(frozen=True)
class Step:
    """One order-preserving (or order-reversing) operation on a value of `dtype`.

    `constant` is the literal operand, None where there is none. `out_dtype` is the result's.
    """

    op: str
    dtype: np.dtype
    out_dtype: np.dtype
    constant: Any = None

    def __str__(self) -> str:
        if self.op == "convert":
            return f"convert to {self.out_dtype}"
        return self.op if self.constant is None else f"{self.op} {self.constant}"


@dataclass(frozen=True)
class Chain:
    """A measured source (its index in the plan), and what happens to its values after."""

    source: int
    steps: tuple[Step, ...] = ()


Expr = tuple[Chain, ...]


@dataclass(frozen=True)
class Known:
    """What the planner knows of a value, as far as deriving from it needs it.

    Attributes:
      expr: how its range follows from what is measured.
      dtype: its dtype.
      literal: the value, where it is one scalar known when planning; else None.
      settled: no XLA backend fuses the operation that made it with an addition that follows.
        (A multiplication and an addition may become one fused multiply-add, which does not
        round in between, so the sum does not follow from the product's range.)
    """

    expr: Expr
    dtype: np.dtype
    literal: Any = None
    settled: bool = True


def derived(primitive: str, params: dict[str, Any], operands: list[Known], out: Any) -> Known | None:
    """What follows for an equation's outputs of aval `out`, or None: it must be measured.

    For equations with several outputs (sort, optimization_barrier) `operands` holds the one
    that the output belongs to.
    """
    rule = DERIVATIONS.get(primitive)
    known = None if rule is None else rule(params, operands, out)
    if known is None or len(known.expr) > MAX_CHAINS:
        return None
    return None if any(len(chain.steps) > MAX_STEPS for chain in known.expr) else known


def apply(chain: Chain, lo: Any, hi: Any, xp: Any = np) -> tuple[Any, Any]:
    """The image of [lo, hi] under a chain's steps; `xp` is numpy, or jax.numpy while tracing.

    Where nothing was seen (lo > hi) the result is the identity of the last step's dtype.
    """
    for step in chain.steps:
        empty = lo > hi
        op, flips = STEPS[step.op]
        with np.errstate(all="ignore"):
            ends = [_image(op, step, end, xp) for end in (lo, hi)]
        lo, hi = reversed(ends) if flips(step) else ends
        least, most = limits(lo.dtype)
        lo, hi = xp.where(empty, most, lo), xp.where(empty, least, hi)
    return lo, hi


def _image(op: Callable[..., Any], step: Step, end: Any, xp: Any) -> Any:
    image = op(xp, end.astype(step.dtype), step)
    return image.astype(step.out_dtype).astype(carrier_dtype(step.out_dtype))


# -- steps: how one end of a range moves ------------------------------------------------------


def _never(step: Step) -> bool:
    return False


def _always(step: Step) -> bool:
    return True


def _negative_constant(step: Step) -> bool:
    return bool(step.constant < 0)


STEPS: dict[str, tuple[Callable[..., Any], Callable[[Step], bool]]] = {
    "convert": (lambda xp, x, step: x.astype(step.out_dtype), _never),
    "neg": (lambda xp, x, step: -x, _always),
    "not": (lambda xp, x, step: ~x, _always),
    "max": (lambda xp, x, step: xp.maximum(x, step.constant), _never),
    "min": (lambda xp, x, step: xp.minimum(x, step.constant), _never),
    "add": (lambda xp, x, step: x + step.constant, _never),
    "mul": (lambda xp, x, step: x * step.constant, _negative_constant),
    "floor": (lambda xp, x, step: xp.floor(x), _never),
    "ceil": (lambda xp, x, step: xp.ceil(x), _never),
    "sign": (lambda xp, x, step: xp.sign(x), _never),
}


# -- the table: which equations' outputs follow -----------------------------------------------

Derivation = Callable[[dict[str, Any], list[Known], Any], Known | None]


def _same(params: dict[str, Any], operands: list[Known], out: Any) -> Known | None:
    """Data movement: every element of the operand is in the result, and nothing else is."""
    del params
    known = operands[0]
    return known if known.dtype == out.dtype else None


def _step(op: str, known: Known, out: Any, constant: Any = None, settled: bool = True) -> Known:
    step = Step(op, known.dtype, np.dtype(out.dtype), constant)
    expr = tuple(replace(chain, steps=(*chain.steps, step)) for chain in known.expr)
    return Known(expr, step.out_dtype, settled=settled)


def _union(params: dict[str, Any], operands: list[Known], out: Any) -> Known | None:
    """Concatenation: the union of the operands' ranges."""
    del params
    chains = dict.fromkeys(chain for known in operands for chain in known.expr)
    return Known(tuple(chains), np.dtype(out.dtype), settled=all(k.settled for k in operands))


def _is_float(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating))


def _negate(params: dict[str, Any], operands: list[Known], out: Any) -> Known | None:
    """Of floats only: the negative of the least integer is itself."""
    del params
    (known,) = operands
    return _step("neg", known, out, settled=known.settled) if _is_float(out.dtype) else None


def _invert(params: dict[str, Any], operands: list[Known], out: Any) -> Known | None:
    del params
    return _step("not", operands[0], out)


def _with_literal(operands: list[Known]) -> tuple[Known, Any] | None:
    """The operand that varies and the literal one, either way round, if there is one of each."""
    for known, other in (operands, operands[::-1]):
        if known.literal is None and other.literal is not None and other.literal == other.literal:
            return known, other.literal
    return None


def _extremum(op: str) -> Derivation:
    def rule(params: dict[str, Any], operands: list[Known], out: Any) -> Known | None:
        del params
        pair = None if jnp.issubdtype(out.dtype, jnp.complexfloating) else _with_literal(operands)
        return None if pair is None else _step(op, pair[0], out, pair[1])

    return rule


def _clamp(params: dict[str, Any], operands: list[Known], out: Any) -> Known | None:
    """clamp(low, x, high) = min(max(x, low), high)"""
    low, known, high = operands
    raised = _extremum("max")(params, [low, known], out)
    return None if raised is None else _extremum("min")(params, [raised, high], out)


def _monotone(op: str) -> Derivation:
    def rule(params: dict[str, Any], operands: list[Known], out: Any) -> Known | None:
        del params
        return _step(op, operands[0], out) if _is_float(out.dtype) else None

    return rule


MOVEMENT = (
    "broadcast_in_dim",
    "copy",
    "copy_p",
    "device_put",
    "expand_dims",
    "layout_constraint",
    "mesh_cast",
    "name",
    "optimization_barrier",
    "pcast",
    "pvary",
    "reshape",
    "reshard",
    "rev",
    "sharding_constraint",
    "sort",
    "squeeze",
    "stop_gradient",
    "transpose",
)

DERIVATIONS: dict[str, Derivation] = {
    **dict.fromkeys(MOVEMENT, _same),
    "concatenate": _union,
    "neg": _negate,
    "not": _invert,
    "max": _extremum("max"),
    "min": _extremum("min"),
    "clamp": _clamp,
    "floor": _monotone("floor"),
    "ceil": _monotone("ceil"),
    "sign": _monotone("sign"),
}

# Equations whose n-th output is made of their n-th operand.
PAIRWISE = frozenset({"sort", "optimization_barrier", "copy", "device_put"})

# Primitives whose result no backend fuses with an addition that follows (see `Known.settled`).
SETTLED = frozenset({"max", "min", "select_n", "clamp"})
