"""What relates values to one another, where intervals alone say too little.

A softmax divides exp(x - max(x)) by its sum. An interval of x says nothing of the sum's being far
from zero; that the maximum is one of the elements does:

    m = max(x)          m is the `Peak` of x along some axes, also when it is broadcast back
    d = x - m           at most 0, and somewhere along these axes 0: `Reach`
    exp(d)              at most 1, and somewhere along them 1
    sum(exp(d))         at least 1

If the compiler computes x twice, into two fusions that round differently, x - m may be a little
above zero: by `noise`, which is followed through the operations from x's operands on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from jax_ranges.bounds.elementwise import OWN_ROUNDINGS, ULPS, exponent_of
from jax_ranges.bounds.interval import Interval, exactly, kind_of, outward
from jax_ranges.bounds.value import Operation, Peak, Reach, Value
from jax_ranges.derive import MOVEMENT

Relation = Callable[[Operation, Value], Value]


def related(op: Operation, result: Value) -> Value:
    """The (first) result of an operation, with what relates it to the operands."""
    found = replace(
        result,
        noise=_noise(op, result.numbers),
        frozen=all(x.frozen for x in op.operands),
        product=op.name in ("mul", "div"),
        quotient=(op.operands[0], op.operands[1]) if op.name == "div" else None,
        exponent=exponent_of(op),
    )
    relation = RELATIONS.get(op.name)
    return found if relation is None else relation(op, found)


# -- noise ------------------------------------------------------------------------------------

_STORES = frozenset((*MOVEMENT, "slice", "dynamic_slice", "gather", "concatenate", "pad", "iota"))
_CHOOSES = frozenset(("max", "min", "select_n", "clamp", "neg", "abs", "reduce_max", "reduce_min"))
_ONCE = frozenset(("dot_general", "conv_general_dilated", "reduce_sum", "cumsum", "sort"))


def _noise(op: Operation, found: Interval) -> float:
    """By how much two computations of a result may differ."""
    kind = kind_of(op.dtype)
    if not kind.is_float or all(x.frozen for x in op.operands):
        return 0.0
    own = 2 * kind.own_eps * found.magnitude
    if op.name in _ONCE:  # not computed twice, but perhaps kept in more bits
        return own
    noises = [x.noise for x in op.operands if x.interval is not None]
    if op.name in _STORES or op.name in _CHOOSES:
        return max(noises, default=0.0)
    if op.name == "convert_element_type":
        source = kind_of(op.operands[0].dtype)
        return noises[0] + (own if kind.own_eps > source.own_eps else 0.0)
    if op.name in ("add", "sub"):
        terms = max(x.numbers.magnitude for x in op.operands)
        return sum(noises) + own + 2 * kind.own_eps * terms
    if op.name in ("mul", "div"):
        return own + _scaled(op, noises)
    return math.inf


def _scaled(op: Operation, noises: list[float]) -> float:
    """Of a multiplication or division by what has no noise."""
    x, y = (operand.numbers for operand in op.operands)
    if op.name == "mul" and not any(map(math.isinf, (*noises, x.magnitude, y.magnitude))):
        return noises[0] * y.magnitude + noises[1] * x.magnitude
    if op.name == "div" and noises[1] == 0 and not y.holds(0) and not y.empty:
        return noises[0] / min(abs(y.lo), abs(y.hi))
    return math.inf


# -- peaks ------------------------------------------------------------------------------------


def _peak(op: Operation, result: Value) -> Value:
    axes = tuple(op.params["axes"])
    kept = tuple(n for n in range(len(op.operands[0].shape)) if n not in axes)
    return replace(result, peak=Peak(op.operands[0], axes, kept))


def _kept_by_max(op: Operation, result: Value) -> Value:
    """max(m, -inf) is m."""
    for x, other in (op.operands, op.operands[::-1]):
        if other.numbers == Interval(-math.inf, -math.inf) and x.shape == result.shape:
            return replace(result, peak=x.peak, reach=x.reach)
    return result


def _kept_by_select(op: Operation, result: Value) -> Value:
    """Where it is known which case is taken, the result is that case."""
    which, cases = op.operands[0].numbers, op.operands[1:]
    taken = [x for n, x in enumerate(cases) if which.holds(n)]
    if len(taken) != 1:
        return result
    return replace(result, peak=taken[0].peak, reach=taken[0].reach, noise=taken[0].noise)


def _kept(op: Operation, result: Value) -> Value:
    x = op.operands[0]
    return replace(result, peak=x.peak, reach=x.reach)


def _broadcast(op: Operation, result: Value) -> Value:
    x, places = op.operands[0], op.params["broadcast_dimensions"]
    if x.peak is None:
        return result
    dims: list[int | None] = [None] * len(result.shape)
    for n, place in enumerate(places):
        if x.shape[n] == result.shape[place]:
            dims[place] = x.peak.dims[n]
    return replace(result, peak=x.peak._replace(dims=tuple(dims)))


def _reshaped(op: Operation, result: Value) -> Value:
    """Where axes of length 1 come or go, and nothing else."""
    x = op.operands[0]
    if x.peak is None or op.params.get("dimensions") is not None:
        return result
    long = [n for n, length in enumerate(x.shape) if length != 1]
    to = [n for n, length in enumerate(result.shape) if length != 1]
    if [x.shape[n] for n in long] != [result.shape[n] for n in to]:
        return result
    dims: list[int | None] = [None] * len(result.shape)
    for n, place in zip(long, to, strict=True):
        dims[place] = x.peak.dims[n]
    return replace(result, peak=x.peak._replace(dims=tuple(dims)))


# -- below the peak ---------------------------------------------------------------------------


def _below_peak(op: Operation, result: Value) -> Value:
    x, m = op.operands
    if m.peak is None or m.peak.of is not x or not _aligned(m.peak, x.shape, m.shape):
        return result
    slack = 2 * max(x.noise, m.noise)
    found = result.numbers
    if not slack < math.inf or found.empty:
        return result
    hi = exactly(0.0, slack, op.dtype).hi
    return replace(
        result,
        interval=Interval(min(found.lo, 0.0), min(found.hi, hi), found.nan),
        reach=Reach(m.peak.axes, -hi),
    )


def _aligned(peak: Peak, shape: tuple[int, ...], own: tuple[int, ...]) -> bool:
    """Whether each element meets the peak of its own row."""
    if len(own) != len(shape) or len(peak.dims) != len(shape):
        return False
    return all(
        n in peak.axes or dim == n or length == 1
        for n, (dim, length) in enumerate(zip(peak.dims, shape, strict=True))
    )


def _exp_of_reach(op: Operation, result: Value) -> Value:
    reach = op.operands[0].reach
    if reach is None:
        return result
    least = float(np.exp(reach.least))
    slack = max(2 * ULPS, 2 * OWN_ROUNDINGS * kind_of(op.dtype).own_eps / kind_of(op.dtype).eps)
    least = outward(least, least, op.dtype, False, slack).lo
    return replace(result, reach=reach._replace(least=least))


def _converted(op: Operation, result: Value) -> Value:
    reach = op.operands[0].reach
    if reach is None or not kind_of(op.dtype).computed or not kind_of(op.dtype).is_float:
        return result
    return replace(
        result, reach=reach._replace(least=exactly(reach.least, reach.least, op.dtype).lo)
    )


def _sum_of_reach(op: Operation, result: Value) -> Value:
    """A sum of what is not negative, one of which is at least so large."""
    x = op.operands[0]
    if x.reach is None or x.numbers.lo < 0 or not set(x.reach.axes) <= set(op.params["axes"]):
        return result
    found = result.numbers
    return replace(result, interval=found._replace(lo=max(found.lo, x.reach.least)))


RELATIONS: dict[str, Relation] = {
    "reduce_max": _peak,
    "max": _kept_by_max,
    "select_n": _kept_by_select,
    "stop_gradient": _kept,
    "copy": _kept,
    "optimization_barrier": _kept,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "expand_dims": _reshaped,
    "sub": _below_peak,
    "exp": _exp_of_reach,
    "convert_element_type": _converted,
    "reduce_sum": _sum_of_reach,
}
