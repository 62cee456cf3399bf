"""Sums, products and extrema over many elements, contractions among them.

A sum of n numbers, each of them at most m in magnitude, is computed in an order that nobody knows,
and rounded n - 1 times at most. Its error is at most ((1 + u)^(n - 1) - 1) * n * m, where u is half
the eps of the dtype that is added in (Higham, "Accuracy and Stability of Numerical Algorithms",
section 4.2, for any order). That dtype is taken to be the result's, which is the worst case.
Partial sums may overflow where the sum does not, and to both sides, which makes NaN.

Where one factor of a contraction is a known array (weights), the sum over the other's interval is
taken exactly, for each of its rows: sum(w+) * hi + sum(w-) * lo.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.core import max_dim

from jax_ranges.bounds.elementwise import product_of, times
from jax_ranges.bounds.interval import (
    Interval,
    everything,
    flushed,
    hull,
    kind_of,
    outward,
    wrapped,
)
from jax_ranges.bounds.value import Operation, Value
from jax_ranges.computations import windows_reach
from jax_ranges.stats import size_of

# By how much a factor may be rounded before it is multiplied, where matrix units take fewer bits
# than float32 has (bfloat16 on TPU, tf32 on GPU) unless the precision asks for more.
FACTOR_EPS = 2.0**-8


def total(x: Interval, count: float, dtype: np.dtype) -> Interval:
    """The sum of so many numbers out of an interval; of infinity, that is not known."""
    if count == math.inf:
        return everything(dtype)
    count = int(count)
    lo, hi = times(count, x.lo), times(count, x.hi)
    if not kind_of(dtype).is_float:
        return wrapped(int(lo), int(hi), dtype)
    return rounded_sum(float(lo), float(hi), times(count, x.magnitude), count, dtype, x)


def rounded_sum(
    lo: float, hi: float, weight: float, count: int, dtype: np.dtype, terms: Interval
) -> Interval:
    """A sum that is exactly from lo to hi, of so many terms whose magnitudes add up to `weight`.

    terms: what they are; only their signs, infinities and NaN matter.
    """
    kind = kind_of(dtype)
    error = weight * math.expm1(min((count - 1) * kind.own_eps / 2, 700)) if weight else 0.0
    least, most = lo - error, hi + error
    # Partial sums: of the positive terms only, or of the negative ones.
    up = terms.hi > 0 and weight + error > kind.largest
    down = terms.lo < 0 and weight + error > kind.largest
    nan = terms.nan or (terms.lo == -math.inf and terms.hi == math.inf) or (up and down)
    least = -math.inf if down or math.isnan(least) else least
    most = math.inf if up or math.isnan(most) else most
    found = outward(least, most, dtype, nan)
    return Interval(
        max(found.lo, 0.0) if terms.lo >= 0 else found.lo,
        min(found.hi, 0.0) if terms.hi <= 0 else found.hi,
        found.nan,
    )


# -- reductions -------------------------------------------------------------------------------


def _reduced(op: Operation) -> float:
    """How many elements each result is made of; infinity if that is not known."""
    return size_of([op.operands[0].shape[axis] for axis in op.params["axes"]])


def _has_elements(op: Operation) -> bool:
    """Whether each result is made of some element at least."""
    sizes = [op.operands[0].shape[axis] for axis in op.params["axes"]]
    return all(max_dim(size, 1) == size for size in sizes)


def reduce_sum(op: Operation) -> Interval:
    count = _reduced(op)
    return total(op.first, count, op.dtype) if count else Interval(0, 0)


def reduce_max(op: Operation) -> Interval:
    x = op.first
    # Of nothing, or of NaN that a backend loses, it is the least.
    if not _has_elements(op) or x.nan:
        return hull(x, Interval(everything(op.dtype).lo, everything(op.dtype).lo))
    return x


def reduce_min(op: Operation) -> Interval:
    x = op.first
    if not _has_elements(op) or x.nan:
        return hull(x, Interval(everything(op.dtype).hi, everything(op.dtype).hi))
    return x


def reduce_prod(op: Operation) -> Interval:
    count = _reduced(op)
    return _multiplied(op, count, count) if count else Interval(1, 1)


def _multiplied(op: Operation, least: float, most: float) -> Interval:
    """The product of so many numbers (from `least` to `most`), multiplied in any order."""
    x, kind = op.first, kind_of(op.dtype)
    if most == math.inf:
        return everything(op.dtype)
    try:
        ends = [x.magnitude ** min(count, 100_000) for count in (least, most, 1)]
    except OverflowError:
        return everything(op.dtype)
    if not op.is_float:
        return wrapped(-int(max(ends)), int(max(ends)), op.dtype)
    if max(ends) > kind.largest / 2 or x.nan:  # a partial product may overflow, and meet a zero
        return everything(op.dtype)
    size = max(ends[:2])
    growth = math.expm1(min(most * kind.own_eps, 700)) / kind.eps
    return outward(0.0 if x.lo >= 0 else -size, size, op.dtype, False, growth)


def reduce_logical(op: Operation) -> Interval:
    if not _has_elements(op) or op.dtype != np.dtype(bool):
        return everything(op.dtype)
    return op.first


def arg(op: Operation) -> Interval:
    """argmax and argmin."""
    return indices(_reduced(op), op.dtype)


def indices(length: float, dtype: np.dtype) -> Interval:
    """The indices into an axis, or into several at once."""
    return Interval(0, max(int(length) - 1, 0)) if length < math.inf else everything(dtype)


def cumulative_sum(op: Operation) -> Interval:
    x, count = op.first, _along_axis(op)
    return hull(total(x, 1, op.dtype), total(x, max(count, 1), op.dtype))


def cumulative_product(op: Operation) -> Interval:
    return _multiplied(op, 1, max(_along_axis(op), 1))


def _along_axis(op: Operation) -> float:
    """How many elements there are along the axis; infinity if that is not known."""
    return size_of([op.operands[0].shape[op.params["axis"]]])


def cumulative_extremum(op: Operation) -> Interval:
    return everything(op.dtype) if op.first.nan else op.first


def window_sum(op: Operation) -> Interval:
    x, count = op.first, math.prod(op.params["window_dimensions"])
    return total(hull(x, Interval(0, 0)), count, op.dtype)


def window_max(op: Operation) -> Interval:
    if windows_reach(op.params) and not op.first.nan:  # which a backend may lose
        return op.first
    return hull(op.first, Interval(everything(op.dtype).lo, everything(op.dtype).lo))


def window_min(op: Operation) -> Interval:
    if windows_reach(op.params) and not op.first.nan:  # which a backend may lose
        return op.first
    return hull(op.first, Interval(everything(op.dtype).hi, everything(op.dtype).hi))


def scatter_add(op: Operation) -> Interval:
    """Each element plus some of the updates, which may all go to one."""
    x, updates = op.operands[0], op.operands[2]
    both = hull(x.numbers, updates.numbers, Interval(0, 0))
    return total(flushed(both, op.dtype), updates.size + 1, op.dtype)


# -- across devices ---------------------------------------------------------------------------


def devices(op: Operation) -> int | None:
    """How many devices take part in a collective; None if that is not known."""
    axes = op.params.get("axes", op.params.get("axis_name"))
    axes = axes if isinstance(axes, (tuple, list)) else (axes,)
    if op.params.get("axis_index_groups") is not None or not all(a in op.sizes for a in axes):
        return None
    return math.prod(op.sizes[axis] for axis in axes)


def psum(op: Operation) -> list[Interval]:
    count = devices(op)
    if count is None:
        return [everything(x.dtype) for x in op.operands]
    return [total(flushed(x.numbers, x.dtype), count, x.dtype) for x in op.operands]


def axis_index(op: Operation) -> Interval:
    count = devices(op)
    return everything(op.dtype) if count is None else Interval(0, count - 1)


# -- contractions -----------------------------------------------------------------------------


def dot_general(op: Operation) -> Interval:
    contracted = op.params["dimension_numbers"][0]
    return _contraction(op, [tuple(axes) for axes in contracted], padded=False)


def convolution(op: Operation) -> Interval:
    """The kernel is contracted along all axes but that of output features."""
    numbers = op.params["dimension_numbers"]
    kernel = op.operands[1]
    axes = tuple(axis for axis in range(len(kernel.shape)) if axis != numbers.rhs_spec[0])
    return _contraction(op, [None, axes], padded=True)


def _contraction(op: Operation, axes: Sequence[tuple[int, ...] | None], padded: bool) -> Interval:
    """A sum of products of the operands' elements along `axes` of each.

    `None`: of this operand it is not known which elements; `padded`: some may be zeros.
    """
    zero = Interval(0, 0)
    x, y = (hull(z, zero) if padded and n == 0 else z for n, z in enumerate((op.first, op.second)))
    kernel = next(a for a in axes[::-1] if a is not None)
    count = size_of([op.operands[1].shape[axis] for axis in kernel])
    if count == math.inf:
        return everything(op.dtype)
    count = int(count)
    if not count:
        return Interval(0, 0)
    terms = _terms(op, x, y)
    for n, other in ((1, x), (0, y)):
        operand, over = op.operands[n], axes[n]
        if operand.array is not None and over is not None and not (other.infinite or other.nan):
            return _with_known(op, operand, over, other, count, terms)
    if not kind_of(op.dtype).is_float:
        return total(terms, count, op.dtype)
    factor = 1 + _factor_error(op)
    lo, hi = times(count, terms.lo), times(count, terms.hi)
    lo, hi = min(lo, lo * factor), max(hi, hi * factor)
    return rounded_sum(lo, hi, times(count, terms.magnitude) * factor, count, op.dtype, terms)


def _terms(op: Operation, x: Interval, y: Interval) -> Interval:
    if op.same and not kind_of(op.dtype).is_float:
        pass  # elements of one value, but not the same ones
    nan = x.nan or y.nan or (x.holds(0) and y.infinite) or (y.holds(0) and x.infinite)
    lo, hi = product_of(x, y)
    return Interval(lo, hi, nan)


def _with_known(
    op: Operation,
    operand: Value,
    axes: tuple[int, ...],
    other: Interval,
    count: int,
    terms: Interval,
) -> Interval:
    is_float = kind_of(op.dtype).is_float
    w: Any = np.asarray(operand.array)
    if not is_float:
        if count * max(abs(terms.lo), abs(terms.hi)) > kind_of(op.dtype).largest:
            return everything(op.dtype)
        w = w.astype(np.int64)
    else:
        w = w.astype(np.float64)
        if not np.isfinite(w).all():
            return everything(op.dtype)
    positive, negative = (np.sum(side, axes) for side in (np.maximum(w, 0), np.minimum(w, 0)))
    with np.errstate(over="ignore"):
        lo = (positive * other.lo + negative * other.hi).min()
        hi = (positive * other.hi + negative * other.lo).max()
        weight = ((positive - negative) * other.magnitude).max()
    if not is_float:
        return wrapped(int(lo), int(hi), op.dtype)
    # The sums above are of float64, and off by so much themselves.
    own = float(weight) * (count + 2) * 2.0**-52
    slack = float(weight) * _factor_error(op) + own
    return rounded_sum(
        float(lo) - slack, float(hi) + slack, float(weight) + slack, count, op.dtype, terms
    )


def _factor_error(op: Operation) -> float:
    precision = op.params.get("precision")
    highest = precision is not None and "HIGHEST" in str(precision)
    return 0.0 if highest or jax.default_backend() == "cpu" else 2 * FACTOR_EPS + FACTOR_EPS**2
