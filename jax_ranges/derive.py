"""Derived ranges: what follows exactly from another range, and needs no reduction.

A site's range is derived when it is the image of a measured range under operations that keep
order (or turn it round) and round as XLA does. Such an image commutes with merging, so it is
taken when somebody reads the range, on the host, never in the graph.

A `Chain` starts at a measured source and applies a few `Step`s; an `Expr` is the union of
chains (a concatenation has several). The table `DERIVATIONS` says for each primitive what
follows of its outputs; whatever it does not list is measured.

What XLA does to a program limits what may be derived. Each of these was found by experiment
(jax 0.10.2 and 0.12.0.1 on CPU), and `Origin` keeps the first three apart:

- it fuses a multiplication and an addition after it into one, which rounds once;
- it keeps float16 and bfloat16 arithmetic in float32 when a conversion to float32 follows;
- it folds constants together, (x * a) * b into x * (a * b);
- it turns a division by a constant into a multiplication by the reciprocal, inexact unless
  that is a power of two;
- conversions to dtypes without infinity make NaN of what is too large, or saturate;
- backends for CPU and TPU take subnormals as zero in arithmetic, but not in data movement. So
  does what is derived, for products: of a subnormal they are zero, and may be something on a
  backend that keeps these. Elsewhere a derived end may be a subnormal where the program has a
  zero (or the smallest normal number, if a subnormal product rounds up to that), or the other
  way round (of bfloat16, max(x, 0) keeps a negative subnormal). Nothing else may differ, so
  floor, ceil and sign, which make ones of subnormals, are measured.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_ranges.keys import carrier_dtype, is_float, limits

MAX_STEPS = 8
MAX_CHAINS = 8


class Origin(enum.Enum):
    """What a value comes from, as far as compilers treat the operations after it differently."""

    STORED = "an input, or an operation that does not round: it is what it looks like"
    COMPUTED = "arithmetic: it may be kept in more bits than its dtype has"
    PRODUCT = "a multiplication: an addition may be fused with it, a factor folded into it"


class Step(NamedTuple):
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


class Chain(NamedTuple):
    """A measured source (its index in the plan), and what happens to its values after."""

    source: Any
    steps: tuple[Step, ...] = ()


Expr = tuple[Chain, ...]


class Known(NamedTuple):
    """What the planner knows of a value, as far as deriving from it needs it.

    Attributes:
      expr: how its range follows from what is measured.
      dtype: its dtype.
      origin: what it comes from.
      literal: the value, where it is one scalar known when planning; else None.
    """

    expr: Expr
    dtype: np.dtype
    origin: Origin = Origin.STORED
    literal: Any = None


def derived(
    primitive: str, params: dict[str, Any], operands: Sequence[Known], out: Any
) -> Known | None:
    """What follows for an equation's output of aval `out`, or None: it must be measured.

    For equations whose n-th output comes from their n-th operand (see `PAIRWISE`), `operands`
    is that one.
    """
    rule = DERIVATIONS.get(primitive)
    known = None if rule is None else rule(params, operands, np.dtype(out.dtype))
    if known is None or len(known.expr) > MAX_CHAINS:
        return None
    return None if any(len(chain.steps) > MAX_STEPS for chain in known.expr) else known


def apply(chain: Chain, lo: Any, hi: Any, xp: Any = np) -> tuple[Any, Any]:
    """The image of [lo, hi] under a chain's steps, in the carrier dtype of the last one.

    `xp` is numpy, or jax.numpy while tracing. Where nothing was seen (lo > hi) nothing is.
    """
    for step in chain.steps:
        carrier = carrier_dtype(step.out_dtype)
        least, most = limits(carrier)
        unseen = lo > hi
        op, flips = STEPS[step.op]
        with np.errstate(all="ignore"):
            ends = [
                op(xp, end.astype(step.dtype), step).astype(step.out_dtype).astype(carrier)
                for end in (lo, hi)
            ]
        new_lo, new_hi = ends[::-1] if flips(step) else ends
        lo = xp.where(unseen, most, new_lo).astype(carrier)
        hi = xp.where(unseen, least, new_hi).astype(carrier)
    return lo, hi


# -- steps: how one end of a range moves ------------------------------------------------------


def _never(step: Step) -> bool:
    return False


def _always(step: Step) -> bool:
    return True


def _when_negative(step: Step) -> bool:
    return bool(step.constant < 0)


def _flushed(xp: Any, x: Any) -> Any:
    """Zero for what is subnormal in the dtype that it is computed in."""
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    small = abs(x.astype(dtype)) < np.finfo(dtype).tiny
    return xp.where(small, xp.copysign(x.dtype.type(0), x), x)


STEPS: dict[str, tuple[Callable[..., Any], Callable[[Step], bool]]] = {
    # By way of the carrier, which holds both exactly: numpy cannot convert between all of the
    # small floats.
    "convert": (lambda xp, x, step: x.astype(carrier_dtype(step.dtype)), _never),
    "neg": (lambda xp, x, step: -x, _always),
    "not": (lambda xp, x, step: ~x, _always),
    "max": (lambda xp, x, step: xp.maximum(x, step.constant), _never),
    "min": (lambda xp, x, step: xp.minimum(x, step.constant), _never),
    "add": (lambda xp, x, step: x + step.constant, _never),
    "mul": (lambda xp, x, step: _flushed(xp, x) * step.constant, _when_negative),
    "div": (lambda xp, x, step: _flushed(xp, x) / step.constant, _when_negative),
    "cube": (lambda xp, x, step: x * (x * x), _never),
}


# -- the table: which equations' outputs follow -----------------------------------------------

Derivation = Callable[[dict[str, Any], Sequence[Known], np.dtype], Known | None]

# Arithmetic is derived in these only; smaller floats are computed in various ways.
_WIDE = tuple(map(np.dtype, (np.float16, jnp.bfloat16, np.float32, np.float64)))
_HALF, _SINGLE = _WIDE[:2], _WIDE[2:]
_WITH_INFINITY = (*_WIDE, *map(np.dtype, (jnp.float8_e5m2, jnp.float8_e4m3, jnp.float8_e3m4)))


def _step(op: str, known: Known, out: np.dtype, constant: Any = None, origin: Any = None) -> Known:
    step = Step(op, known.dtype, out, constant)
    expr = tuple(chain._replace(steps=(*chain.steps, step)) for chain in known.expr)
    return Known(expr, out, origin or known.origin)


def _same(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    """Data movement: every element of the operand is in the result, and nothing else is."""
    del params
    return operands[0] if operands[0].dtype == out else None


def _union(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    """Concatenation, stacking: the union of the operands' ranges."""
    del params
    chains = dict.fromkeys(chain for known in operands for chain in known.expr)
    origins = {known.origin for known in operands}
    worst = next(o for o in (Origin.PRODUCT, Origin.COMPUTED, Origin.STORED) if o in origins)
    return Known(tuple(chains), out, worst)


def _negate(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    """Of floats only: the negative of the least integer is itself."""
    del params
    return _step("neg", operands[0], out) if out in _WIDE else None


def _invert(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    del params
    return _step("not", operands[0], out)


def _extremum(op: str) -> Derivation:
    def rule(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
        del params
        pair = _with_literal(operands)
        if pair is None or (is_float(out) and out not in _WIDE):
            return None
        known, constant = pair
        return None if np.isnan(constant) else _step(op, known, out, constant)

    return rule


def _clamp(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    """clamp(low, x, high) = min(max(x, low), high)"""
    low, known, high = operands
    raised = _extremum("max")(params, [low, known], out)
    return None if raised is None else _extremum("min")(params, [raised, high], out)


def _with_literal(operands: Sequence[Known]) -> tuple[Known, Any] | None:
    """The operand that varies and the literal one, if there is one of each."""
    first, second = operands
    if first.literal is None and second.literal is not None:
        return first, second.literal
    if first.literal is not None and second.literal is None:
        return second, first.literal
    return None


def _is_power_of_two(constant: Any) -> bool:
    mantissa, _ = math.frexp(float(constant))
    return abs(mantissa) == 0.5


def _is_normal(constant: Any, dtype: np.dtype) -> bool:
    return bool(np.isfinite(constant)) and abs(float(constant)) >= float(jnp.finfo(dtype).tiny)


def _multiply(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    """By a finite literal; after another product only by a power of two, which is exact."""
    del params
    pair = _with_literal(operands) if out in _WIDE else None
    if pair is None or not _is_normal(pair[1], out):
        return None
    known, constant = pair
    if known.origin is Origin.PRODUCT and not _is_power_of_two(constant):
        return None
    return _step("mul", known, out, constant, Origin.PRODUCT)


def _divide(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    """By a power of two."""
    del params
    known, constant = operands[0], operands[1].literal
    if out not in _WIDE or constant is None or known.literal is not None:
        return None
    if not (_is_normal(constant, out) and _is_power_of_two(constant)):
        return None
    return (
        _step("div", known, out, constant, Origin.PRODUCT)
        if _is_normal(1 / constant, out)
        else None
    )


def _power(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    """x**3 = x * (x * x), which rounds in order; of a product factors may be gathered first."""
    (known,) = operands
    if params["y"] != 3 or out not in _SINGLE or known.origin is Origin.PRODUCT:
        return None
    return _step("cube", known, out, origin=Origin.PRODUCT)


def _add(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    del params
    pair = _with_literal(operands) if out in _WIDE else None
    if pair is None or pair[0].origin is not Origin.STORED or not _is_normal(pair[1], out):
        return None
    return _step("add", pair[0], out, pair[1], Origin.COMPUTED)


def _subtract(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    """x - c = x + (-c), and c - x = (-x) + c"""
    first, second = operands
    if second.literal is not None and first.literal is None and out in _WIDE:
        return _add(params, [first, second._replace(literal=-second.literal)], out)
    negative = _negate(params, [second], out)
    return None if negative is None else _add(params, [first, negative], out)


def _convert(params: dict[str, Any], operands: Sequence[Known], out: np.dtype) -> Known | None:
    """Where every value is held exactly, or rounded to the nearest, and too large is infinite."""
    del params
    (known,) = operands
    if known.dtype == out:  # only the weak type changes
        return known
    converted = _step("convert", known, out, origin=Origin.STORED)
    if known.literal is not None and np.isfinite(known.literal):
        converted = converted._replace(literal=np.asarray(known.literal).astype(out)[()])
    return converted if converts_in_order(known.dtype, out, known.origin) else None


def converts_in_order(source: np.dtype, out: np.dtype, origin: Origin = Origin.STORED) -> bool:
    """Whether a value's conversion keeps order, and rounds to the nearest, as numpy does."""
    if out == np.dtype(bool) or jnp.issubdtype(source, jnp.complexfloating):
        return False
    if not is_float(source):
        return out in _WIDE or (not is_float(out) and _holds(out, source))
    if source not in _SINGLE and out in _WIDE and origin is not Origin.STORED:
        return False  # it may have been kept in the dtype in which it was computed
    # From float64 XLA rounds to half precision by way of float32.
    return out in _WITH_INFINITY and (source != np.dtype(np.float64) or out == np.dtype(np.float32))


def _holds(wide: np.dtype, narrow: np.dtype) -> bool:
    """Whether an integer dtype holds all values of another."""
    if jnp.issubdtype(wide, jnp.complexfloating):
        return False
    (least, most), (low, high) = limits(wide), limits(narrow)
    return bool(least <= low and high <= most)


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
    "add": _add,
    "clamp": _clamp,
    "concatenate": _union,
    "convert_element_type": _convert,
    "div": _divide,
    "integer_pow": _power,
    "max": _extremum("max"),
    "min": _extremum("min"),
    "mul": _multiply,
    "neg": _negate,
    "not": _invert,
    "stack": _union,
    "sub": _subtract,
}

# Equations whose n-th output is made of their n-th operand.
PAIRWISE = frozenset({"copy", "device_put", "optimization_barrier", "sort"})

_STORES = frozenset(
    {
        "convert_element_type",
        "dynamic_slice",
        "gather",
        "iota",
        "max",
        "min",
        "reduce_max",
        "reduce_min",
        "select_n",
        "slice",
        "clamp",
        "floor",
        "ceil",
        "round",
        "sign",
    }
)
_PRODUCTS = frozenset(
    {"mul", "div", "dot_general", "conv_general_dilated", "square", "integer_pow"}
)


def origin_of(primitive: str) -> Origin:
    """What the result of a primitive that is measured counts as for what follows it."""
    if primitive in _STORES:
        return Origin.STORED
    return Origin.PRODUCT if primitive in _PRODUCTS else Origin.COMPUTED
