"""Operations that put elements elsewhere, choose among them, or make them of nothing."""

from __future__ import annotations

import numpy as np

from jax_ranges.bounds.interval import NOTHING, Interval, everything, hull, kind_of, of_array
from jax_ranges.bounds.reductions import indices
from jax_ranges.bounds.value import Operation
from jax_ranges.stats import size_of


def moved(op: Operation) -> Interval:
    """All that the first operand has, or some of it."""
    return op.operands[0].numbers


def pairwise(op: Operation) -> list[Interval]:
    """Each result is made of the operand of its place."""
    return [x.interval or NOTHING for x in op.operands]


def split(op: Operation) -> list[Interval]:
    return [op.operands[0].numbers for _ in op.results]


def joined(op: Operation) -> Interval:
    """Elements of all operands."""
    return hull(*(x.numbers for x in op.operands))


def updated(op: Operation) -> Interval:
    """Elements of the first two operands; others are indices."""
    return hull(op.operands[0].numbers, op.operands[1].numbers)


def scattered(op: Operation) -> Interval:
    """Elements of the first operand and of the updates, which are the third."""
    return hull(op.operands[0].numbers, op.operands[2].numbers)


def gather(op: Operation) -> Interval:
    x, mode = op.operands[0].numbers, str(op.params["mode"])
    if "FILL" not in mode.upper() and mode != "1":
        return x
    return hull(x, _fill(op))


def _fill(op: Operation) -> Interval:
    """What is taken where an index is out of bounds: NaN, the least integer, or as told."""
    value, kind = op.params["fill_value"], kind_of(op.dtype)
    if value is not None:
        return of_array(np.asarray(value).astype(op.dtype))
    if kind.is_float:
        return everything(op.dtype) if not kind.infinities else NOTHING._replace(nan=True)
    if op.dtype == np.dtype(bool):
        return Interval(1, 1)
    end = kind.least if kind.least < 0 else kind.largest
    return Interval(end, end)


def select(op: Operation) -> Interval:
    """What the predicate may choose."""
    which = op.operands[0].numbers
    cases = op.operands[1:]
    return hull(*(x.numbers for n, x in enumerate(cases) if which.holds(n)))


def top_k(op: Operation) -> list[Interval]:
    x = op.operands[0]
    length = size_of([x.shape[op.params.get("axis", -1)]])
    return [x.numbers, indices(length, np.dtype(op.results[1].dtype))]


def iota(op: Operation) -> Interval:
    last = size_of([op.params["shape"][op.params["dimension"]]]) - 1
    if last > kind_of(op.dtype).largest:
        return everything(op.dtype)
    return of_array(np.array([0, max(last, 0)]).astype(op.dtype))


def platform_index(op: Operation) -> Interval:
    """Which branch is for the platform is not known before the program is lowered for one."""
    return Interval(0, len(op.params["platforms"]) - 1)


def permuted(op: Operation) -> Interval:
    """ppermute: a device that nobody sends to has zeros."""
    return hull(op.operands[0].numbers, Interval(0, 0))


def unknown(op: Operation) -> list[Interval]:
    """Anything that the types of the results can hold."""
    return [everything(np.dtype(aval.dtype)) for aval in op.results]
