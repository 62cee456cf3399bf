"""Elementwise arithmetic on intervals: floats and integers.

Each rule bounds a function on the intervals of its operands, in float64 or in Python's integers,
and rounds outwards. Rules assume that no operand is empty.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_ranges.bounds.interval import (
    Interval,
    Number,
    everything,
    exactly,
    flushed,
    has_subnormals,
    hull,
    kind_of,
    outward,
    wrapped,
)
from jax_ranges.bounds.value import Operation, Value

Rule = Callable[[Operation], Interval]

ULPS = 16.0
"""By how many units in the last place a transcendental function may be off; those that grow
like exp by as many more as their argument is large, because compilers rewrite exp(a) * exp(b)."""

OWN_ROUNDINGS = 8
"""By how many units of its own dtype: some are expanded in float16 and bfloat16 themselves."""

QUOTIENT_ULPS = 2.0
"""A division may be a multiplication by the reciprocal."""


# -- plus and times ---------------------------------------------------------------------------


def plus(a: Number, b: Number, infinity: float) -> Number:
    """The sum of two ends, rounded to `infinity`, which opposite infinities make too."""
    if infinity in (a, b):
        return infinity
    return _directed(a + b, lambda: Fraction(a) + Fraction(b), infinity)


def times(a: Number, b: Number, infinity: float = math.inf) -> Number:
    """The product of two ends, likewise; 0 * inf is 0 (that it makes NaN is said apart)."""
    if a == 0 or b == 0:
        return 0
    return _directed(a * b, lambda: Fraction(a) * Fraction(b), infinity)


def _directed(found: Number, exact: Callable[[], Fraction], infinity: float) -> Number:
    """A float64 result, moved on if it was rounded the other way."""
    if isinstance(found, int):
        return found
    if math.isinf(found):
        try:
            exact()
        except OverflowError:  # an operand is infinite
            return found
        return found if found == infinity else math.nextafter(found, infinity)
    wrong = Fraction(found) < exact() if infinity > 0 else Fraction(found) > exact()
    return math.nextafter(found, infinity) if wrong else found


def sum_of(a: Interval, b: Interval) -> tuple[Number, Number]:
    return plus(a.lo, b.lo, -math.inf), plus(a.hi, b.hi, math.inf)


def product_of(a: Interval, b: Interval) -> tuple[Number, Number]:
    pairs = list(itertools.product(a[:2], b[:2]))
    return (
        min(times(x, y, -math.inf) for x, y in pairs),
        max(times(x, y, math.inf) for x, y in pairs),
    )


def negated(x: Interval) -> Interval:
    return Interval(-x.hi, -x.lo, x.nan)


def opposite_infinities(a: Interval, b: Interval) -> bool:
    return (a.hi == math.inf and b.lo == -math.inf) or (a.lo == -math.inf and b.hi == math.inf)


def _added(op: Operation, a: Interval, b: Interval) -> Interval:
    if not op.is_float:
        return wrapped(int(a.lo + b.lo), int(a.hi + b.hi), op.dtype)
    nan = a.nan or b.nan or opposite_infinities(a, b)
    return flushed(exactly(*sum_of(a, b), op.dtype, nan), op.dtype)


def add(op: Operation) -> Interval:
    return _added(op, op.first, op.second)


def sub(op: Operation) -> Interval:
    if op.same:
        return Interval(0, 0, op.first.nan or op.first.infinite)
    if not op.is_float:
        a, b = op.first, op.second
        return wrapped(int(a.lo - b.hi), int(a.hi - b.lo), op.dtype)
    return _added(op, op.first, negated(op.second))


def mul(op: Operation) -> Interval:
    if op.same:
        return square(op)
    a, b = op.first, op.second
    lo, hi = product_of(a, b)
    if not op.is_float:
        return wrapped(int(lo), int(hi), op.dtype)
    nan = a.nan or b.nan or (a.holds(0) and b.infinite) or (b.holds(0) and a.infinite)
    folds = any(x.product and y.frozen for x, y in (op.operands, op.operands[::-1]))
    if folds:
        return outward(lo, hi, op.dtype, nan, QUOTIENT_ULPS)
    found = flushed(exactly(lo, hi, op.dtype, nan), op.dtype)
    exponent = exponent_of(op)  # XLA rewrites exp(x) * exp(y) as exp(x + y)
    return found if exponent is None else hull(found, _exponential(exponent, op.dtype))


def square(op: Operation) -> Interval:
    return _power(op, 2)


def one_minus_square(op: Operation) -> Interval:
    """What is left where 1 and the square cancel is off by roundings of these."""
    squared = _power(op, 2)
    off = 4 * max(1.0, squared.hi) * kind_of(op.dtype).own_eps
    most = 1 - squared.lo + (off if squared.lo else 0.0)
    least = 1 - squared.hi - off if squared.hi > 1 else 0.0
    if squared.infinite:
        return everything(op.dtype)
    return outward(least, most, op.dtype, squared.nan)


def integer_pow(op: Operation) -> Interval:
    n = op.params["y"]
    if n >= 0:
        return _power(op, n)
    if not op.is_float or op.first.holds(0):
        return everything(op.dtype)
    # The reciprocal of the power, which may be zero, or infinite, long before that is.
    divisor = _power(op, -n)
    if op.first.hi < 0 and n % 2:
        return negated(_reciprocal(negated(divisor), op.dtype))
    return _reciprocal(divisor, op.dtype)


def _power(op: Operation, n: int) -> Interval:
    x = op.first
    if n == 2 and op.is_float:
        lo, hi = product_of(x, x)
        lo = 0.0 if x.holds(0) else min(times(end, end, -math.inf) for end in x[:2])
        return flushed(exactly(lo, hi, op.dtype, x.nan), op.dtype)
    ends = [_pow(end, n) for end in (x.lo, x.hi)]
    lo, hi = min(ends), max(ends)
    if n % 2 == 0 and n and x.holds(0):
        lo = 0
    if not op.is_float:
        return wrapped(int(lo), int(hi), op.dtype)
    return outward(lo, hi, op.dtype, x.nan and n > 0, _roundings(n, op))


def _roundings(count: float, op: Operation) -> float:
    """The error of so many multiplications, each rounded to the dtype itself, in `ulps`."""
    kind = kind_of(op.dtype)
    return count * kind.own_eps / kind.eps


def _pow(x: Number, n: int) -> Number:
    if isinstance(x, int) and n >= 0:
        return x**n
    with np.errstate(all="ignore"):
        return float(np.float64(x) ** n)


def neg(op: Operation) -> Interval:
    x = op.operands[0].numbers
    if op.is_float:
        return negated(x)
    return wrapped(-int(x.hi), -int(x.lo), op.dtype)


def absolute(op: Operation) -> Interval:
    x = op.operands[0].numbers
    lo, hi = max(0, x.lo, -x.hi), x.magnitude
    return Interval(lo, hi, x.nan) if op.is_float else wrapped(int(lo), int(hi), op.dtype)


# -- division ---------------------------------------------------------------------------------


def div(op: Operation) -> Interval:
    if not op.is_float:
        return _integer_quotient(op)
    (x, y), (a, b) = op.operands, (op.first, op.second)
    found = [_quotient(a, b, op.dtype)]
    # XLA rewrites (p / q) / y as p / (q * y), and x / (p / q) as (x * q) / p.
    if x.quotient is not None:
        p, q = (flushed(v.numbers, v.dtype) for v in x.quotient)
        found.append(_quotient(p, _product(q, b, op.dtype), op.dtype))
    if y.quotient is not None:
        p, q = (flushed(v.numbers, v.dtype) for v in y.quotient)
        found.append(_quotient(_product(a, q, op.dtype), p, op.dtype))
    # And x / exp(z) as x * exp(-z), or exp(y - z).
    if y.exponent is not None:
        found.append(_product(a, _exponential(negated(y.exponent), op.dtype), op.dtype))
    exponent = exponent_of(op)
    if exponent is not None:
        found.append(_exponential(exponent, op.dtype))
    return hull(*found)


def exponent_of(op: Operation) -> Interval | None:
    """Of what the result is the exponential, if it is one of something."""
    if op.name in ("exp", "exp2"):
        scale = math.log(2) if op.name == "exp2" else 1.0
        x = op.first
        return Interval(x.lo * scale, x.hi * scale, x.nan)
    if op.name not in ("mul", "div") or any(x.exponent is None for x in op.operands):
        return None
    a, b = (x.exponent for x in op.operands)
    assert a is not None and b is not None
    b = negated(b) if op.name == "div" else b
    nan = a.nan or b.nan or opposite_infinities(a, b)
    return flushed(exactly(*sum_of(a, b), op.dtype, nan), op.dtype)


def _exponential(x: Interval, dtype: np.dtype) -> Interval:
    value = Value(x, (), dtype)
    return exponential(Operation("exp", {}, [value], (), dtype))


def _product(a: Interval, b: Interval, dtype: np.dtype) -> Interval:
    nan = a.nan or b.nan or (a.holds(0) and b.infinite) or (b.holds(0) and a.infinite)
    return flushed(exactly(*product_of(a, b), dtype, nan), dtype)


def _quotient(a: Interval, b: Interval, dtype: np.dtype) -> Interval:
    nan = a.nan or b.nan or (a.infinite and b.infinite)
    if b.holds(0):  # a zero may be -0, so that no sign follows
        return Interval(-math.inf, math.inf, nan or a.holds(0))
    corners = [_ratio(x, y) for x in a[:2] for y in b[:2]]
    return outward(min(corners), max(corners), dtype, nan, QUOTIENT_ULPS)


def _reciprocal(x: Interval, dtype: np.dtype) -> Interval:
    """Of what is positive, or a zero that has become of it."""
    least, most = (1 / end if end else math.inf for end in (x.hi, x.lo))
    return outward(least, most, dtype, x.nan, QUOTIENT_ULPS)


def _ratio(x: Number, y: Number) -> float:
    """The quotient of two ends; that inf / inf is NaN is said apart."""
    with np.errstate(all="ignore"):
        return 0.0 if math.isinf(y) else float(np.float64(x) / np.float64(y))


def _integer_quotient(op: Operation) -> Interval:
    """Towards zero; by zero XLA gives -1 (all bits)."""
    a, b = op.first, op.second
    if b.holds(0):
        return everything(op.dtype)
    corners = [_truncated(int(x), int(y)) for x in a[:2] for y in b[:2]]
    return wrapped(min(corners), max(corners), op.dtype)


def _truncated(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def rem(op: Operation) -> Interval:
    """The sign is the dividend's, the magnitude less than the divisor's (and than its own)."""
    a, b = op.first, op.second
    if not op.is_float and b.holds(0):
        return everything(op.dtype)
    most = min(a.magnitude, b.magnitude)
    nan = a.nan or b.nan or a.infinite or b.holds(0)
    return Interval(-most if a.lo < 0 else 0, most if a.hi > 0 else 0, nan and op.is_float)


# -- order ------------------------------------------------------------------------------------


def _extremum(op: Operation, pick: Callable[..., Any]) -> Interval:
    a, b = op.first, op.second
    found = _tied(Interval(pick(a.lo, b.lo), pick(a.hi, b.hi), a.nan or b.nan), op)
    # A NaN is kept, but for backends that lose it: then the other operand is left.
    found = hull(found, b) if a.nan else found
    return hull(found, a) if b.nan else found


def _tied(found: Interval, op: Operation) -> Interval:
    """With all that the comparison may take as equal to what is chosen: zero, and subnormals."""
    kind = kind_of(op.dtype)
    tiny = kind.tiny
    if not kind.ties or found.lo >= tiny or found.hi <= -tiny:
        return found
    clipped = [(max(x.lo, -tiny), min(x.hi, tiny)) for x in (o.numbers for o in op.operands)]
    return hull(found, *(Interval(lo, hi) for lo, hi in clipped if lo <= hi))


def maximum(op: Operation) -> Interval:
    return _extremum(op, max)


def minimum(op: Operation) -> Interval:
    return _extremum(op, min)


def clamp(op: Operation) -> Interval:
    low, x, high = (op.nth(n) for n in range(3))
    lo = min(max(x.lo, low.lo), high.lo)
    hi = min(max(x.hi, low.hi), high.hi)
    found = _tied(Interval(lo, hi, low.nan or x.nan or high.nan), op)
    return hull(found, low, x, high) if found.nan else found


def sign(op: Operation) -> Interval:
    x = op.first
    lo, hi = ((end > 0) - (end < 0) for end in x[:2])
    return Interval(lo, hi, x.nan)


def floor(op: Operation) -> Interval:
    return _whole(op.first, math.floor, math.floor)


def ceil(op: Operation) -> Interval:
    return _whole(op.first, math.ceil, math.ceil)


def rounded(op: Operation) -> Interval:
    return _whole(op.first, math.floor, math.ceil)


def _whole(x: Interval, down: Callable[..., int], up: Callable[..., int]) -> Interval:
    lo, hi = (
        end if math.isinf(end) else float(to(end))
        for end, to in zip(x[:2], (down, up), strict=True)
    )
    return Interval(lo, hi, x.nan)


def nextafter(op: Operation) -> Interval:
    a, b = op.first, op.second
    kind = kind_of(op.dtype)
    step = max(a.magnitude * kind.own_eps, kind.tiny)
    lo, hi = plus(a.lo, -step, -math.inf), plus(a.hi, step, math.inf)
    return outward(lo, hi, op.dtype, a.nan or b.nan)


# -- functions --------------------------------------------------------------------------------


def increasing(
    fun: Callable[[float], float],
    least: float = -math.inf,
    most: float = math.inf,
    image: tuple[float, float] = (-math.inf, math.inf),
    grows: int = 0,
    ulps: float = ULPS,
    over: float = 0.0,
) -> Rule:
    """A function that increases from `least` to `most`, and is NaN outside.

    image: what its values never leave, however it is computed, but by `over` ulps. grows: its
    error grows with this power of the argument, which is in an exponent.
    """

    def slack(op: Operation, x: float) -> float:
        more = min(abs(x), 1024.0) ** grows if grows else 0.0
        return max(ulps + more, _roundings(OWN_ROUNDINGS + more, op))

    def rule(op: Operation) -> Interval:
        x = op.first
        nan = x.nan or x.lo < least or x.hi > most
        lo, hi = max(x.lo, least), min(x.hi, most)
        if lo > hi:
            return Interval(math.inf, -math.inf, nan)
        low, high = (outward(y, y, op.dtype, nan, slack(op, x)) for x, y in _ends(fun, lo, hi))
        lowest, highest = outward(*image, op.dtype, False, over)[:2] if over else image
        return Interval(max(low.lo, lowest), min(high.hi, highest), nan)

    return rule


exponential = increasing(np.exp, image=(0.0, math.inf), grows=1)


def _ends(fun: Callable[[float], float], lo: float, hi: float) -> list[tuple[float, float]]:
    with np.errstate(all="ignore"):
        return [(x, float(fun(np.float64(x)))) for x in (lo, hi)]


def angle(least: float, most: float) -> Rule:
    """asin and acos, of which no more is said: near 1 nearly all digits may be lost."""

    def rule(op: Operation) -> Interval:
        x = op.first
        nan = x.nan or x.lo < -1 or x.hi > 1
        return outward(least, most, op.dtype, nan, _roundings(OWN_ROUNDINGS, op))

    return rule


def decreasing(rule: Rule) -> Rule:
    """The function x -> f(-x) of an increasing f is what this makes of f's rule."""

    def mirrored(op: Operation) -> Interval:
        x = op.operands[0]
        return rule(replace(op, operands=[replace(x, interval=negated(x.numbers))]))

    return mirrored


def _at(fun: Callable[[float], float], x: float) -> float:
    with np.errstate(all="ignore"):
        return float(fun(np.float64(x)))


def logistic(x: float) -> float:
    e = np.exp(-abs(x))
    return 1 / (1 + e) if x >= 0 else e / (1 + e)


def inverse_erf(x: float) -> float:
    """The y of which erf(y) is x, by bisection; erfc near the ends, where erf has no digits."""
    if abs(x) == 1:
        return math.copysign(math.inf, x)
    if abs(x) < 1e-8:  # the next term of the series is x**3 / 4
        return float(x) * math.sqrt(math.pi) / 2
    lo, hi = 0.0, 6.0
    for _ in range(100):
        middle = (lo + hi) / 2
        too_low = math.erf(middle) < abs(x) if abs(x) < 0.5 else math.erfc(middle) > 1 - abs(x)
        lo, hi = (middle, hi) if too_low else (lo, middle)
    return math.copysign(lo, x)


def wave(op: Operation) -> Interval:
    """sin and cos."""
    x = op.first
    return Interval(-1.0, 1.0, x.nan or x.infinite)


def cosh(op: Operation) -> Interval:
    x = op.first
    lo, hi = max(0.0, x.lo, -x.hi), x.magnitude
    slack = _roundings(ULPS + min(hi, 1024), op)
    return outward(_at(np.cosh, lo), _at(np.cosh, hi), op.dtype, x.nan, slack)


def rsqrt(op: Operation) -> Interval:
    x = op.first
    if x.lo <= 0:  # of -0 it is -inf
        return Interval(-math.inf, math.inf, x.nan or x.lo < 0)
    slack = max(ULPS, _roundings(OWN_ROUNDINGS, op))
    return outward(1 / math.sqrt(x.hi), 1 / math.sqrt(x.lo), op.dtype, x.nan, slack)


def atan2(op: Operation) -> Interval:
    """Of subnormals XLA's CPU backend makes NaN: they are not zero, but their quotient is 0 / 0."""
    small = [has_subnormals(x, op.dtype) or x.holds(0) for x in (op.first, op.second)]
    zeros = op.first[:2] == op.second[:2] == (0, 0)
    nan = op.first.nan or op.second.nan or (all(small) and not zeros)
    slack = max(ULPS, _roundings(OWN_ROUNDINGS, op))
    return outward(-math.pi, math.pi, op.dtype, nan, slack)


def cbrt(op: Operation) -> Interval:
    """Of subnormals XLA's CPU backend makes small numbers of either sign."""
    found = increasing(np.cbrt)(op)
    if not has_subnormals(op.first, op.dtype):
        return found
    most = outward(0.0, _at(np.cbrt, kind_of(op.dtype).below), op.dtype, False, ULPS).hi
    return hull(found, Interval(-most, most))


def power(op: Operation) -> Interval:
    """x ** y where x is not negative (and y is positive, if x may be zero)."""
    x, y = op.first, op.second
    if not op.is_float or not kind_of(op.operands[1].dtype).is_float:
        return everything(op.dtype)
    if x.lo < 0 or (x.lo == 0 and y.lo <= 0) or x.nan or y.nan or x.infinite or y.infinite:
        return everything(op.dtype)
    corners = [_raised(a, b) for a, b in itertools.product(x[:2], y[:2])]
    logs = [abs(b * math.log(a)) for a, b in itertools.product(x[:2], y[:2]) if a > 0]
    # exp(y * log(x)), in which the logarithm's error counts so often.
    more = min(max(logs, default=0.0), 1024)
    slack = _roundings(ULPS * (1 + more), op)
    found = outward(min(corners), max(corners), op.dtype, False, slack)
    return Interval(max(found.lo, 0.0), found.hi)


def _raised(a: Number, b: Number) -> float:
    with np.errstate(all="ignore"):
        return float(np.float64(a) ** np.float64(b))


# -- bits -------------------------------------------------------------------------------------


def bit_not(op: Operation) -> Interval:
    x = op.operands[0].numbers
    if op.dtype == np.dtype(bool):
        return Interval(1 - x.hi, 1 - x.lo)
    kind = kind_of(op.dtype)
    flip = -1 if kind.least < 0 else int(kind.largest)
    return Interval(flip - x.hi, flip - x.lo)


def bit_and(op: Operation) -> Interval:
    a, b = op.first, op.second
    if op.dtype == np.dtype(bool):
        return Interval(min(a.lo, b.lo), min(a.hi, b.hi))
    tops = [x.hi for x in (a, b) if x.lo >= 0]
    return Interval(0, min(tops)) if tops else everything(op.dtype)


def bit_or(op: Operation) -> Interval:
    a, b = op.first, op.second
    if a.lo < 0 or b.lo < 0:
        return everything(op.dtype)
    return Interval(max(a.lo, b.lo), min(a.hi + b.hi, _all_bits(a, b)))


def bit_xor(op: Operation) -> Interval:
    a, b = op.first, op.second
    if a.lo < 0 or b.lo < 0:
        return everything(op.dtype)
    return Interval(0, _all_bits(a, b))


def _all_bits(a: Interval, b: Interval) -> int:
    return (1 << int(max(a.hi, b.hi)).bit_length()) - 1


def shift_right_arithmetic(op: Operation) -> Interval:
    """Unsigned integers have a sign here too: their upper bit, which is shifted in."""
    if op.first.hi >= 1 << (jnp.iinfo(op.dtype).bits - 1):
        return everything(op.dtype)
    return shift_right(op)


def shift_right(op: Operation) -> Interval:
    """By a shift that is known; logical and arithmetic are the same where nothing is negative."""
    x, by = op.first, op.second
    bits = jnp.iinfo(op.dtype).bits
    if x.lo < 0 or by.lo < 0:
        return everything(op.dtype)
    low = 0 if by.hi >= bits else int(x.lo) >> int(by.hi)
    return Interval(low, int(x.hi) >> min(int(by.lo), bits))


def counted_bits(op: Operation) -> Interval:
    """XLA's CPU backend counts those of int4 as if they were 8, which does not fit into it."""
    return wrapped(0, 8 * op.dtype.itemsize, op.dtype)


# -- comparisons ------------------------------------------------------------------------------


def _truth(surely: bool, never: bool) -> Interval:
    return Interval(int(surely), int(not never))


def less(op: Operation) -> Interval:
    return _less(op.first, op.second)


def _less(a: Interval, b: Interval) -> Interval:
    return _truth(a.hi < b.lo and not (a.nan or b.nan), a.lo >= b.hi)


def less_equal(op: Operation) -> Interval:
    return _less_equal(op.first, op.second)


def _less_equal(a: Interval, b: Interval) -> Interval:
    return _truth(a.hi <= b.lo and not (a.nan or b.nan), a.lo > b.hi)


def greater(op: Operation) -> Interval:
    return _less(op.second, op.first)


def greater_equal(op: Operation) -> Interval:
    return _less_equal(op.second, op.first)


def equal(op: Operation) -> Interval:
    a, b = op.first, op.second
    known = a.lo == a.hi == b.lo == b.hi and not (a.nan or b.nan)
    return _truth(known, a.hi < b.lo or b.hi < a.lo)


def unequal(op: Operation) -> Interval:
    found = equal(op)
    return Interval(1 - found.hi, 1 - found.lo)


def is_finite(op: Operation) -> Interval:
    x = op.operands[0].numbers
    never = x.lo == math.inf or x.hi == -math.inf
    return _truth(not x.nan and not x.infinite, never)


# -- conversion -------------------------------------------------------------------------------


def convert(op: Operation) -> Interval:
    source, x = op.operands[0].dtype, op.operands[0].numbers
    if any(np.dtype(dtype).kind == "c" for dtype in (source, op.dtype)):
        return everything(op.dtype)
    if op.dtype == np.dtype(bool):
        x = op.first
        return _truth(not x.holds(0), x.lo == x.hi == 0 and not x.nan)
    to, of = kind_of(op.dtype), kind_of(source)
    if x.empty:  # NaN
        return x if to.infinities else everything(op.dtype)
    if to.is_float:
        # What is NaN in a small float may be a number that is too large for it, and is kept in
        # the dtype that it was computed in.
        if x.nan and of.is_float and not of.computed:
            return everything(op.dtype)
        x = op.first
        lo, hi = _as_float(x.lo, -math.inf), _as_float(x.hi, math.inf)
        found = flushed(exactly(lo, hi, op.dtype, x.nan), op.dtype)
        # Into formats without NaN it becomes a number, and some others saturate.
        return found if not x.nan or to.infinities else everything(op.dtype)
    if not of.is_float:
        return wrapped(int(x.lo), int(x.hi), op.dtype)
    inside = to.least <= x.lo and x.hi <= to.largest
    # The ends of formats without infinity are taken for that, and make the ends of the integers.
    inside = inside and (of.computed or (of.least < x.lo and x.hi < of.largest))
    found = Interval(math.trunc(x.lo), math.trunc(x.hi)) if inside else everything(op.dtype)
    return everything(op.dtype) if x.nan else found


def _as_float(x: Number, outside: float) -> float:
    """An integer as a float64 that is not inside of it."""
    if isinstance(x, float):
        return x
    near = float(x)
    wrong = int(near) > x if outside < 0 else int(near) < x
    return math.nextafter(near, outside) if wrong else near


def bitcast(op: Operation) -> Interval:
    """Of integers to floats of their width: the positive ones have the order of integers."""
    source, x = op.operands[0], op.operands[0].numbers
    if not kind_of(op.dtype).computed or kind_of(source.dtype).is_float or x.lo < 0:
        return everything(op.dtype)
    if source.dtype.itemsize != op.dtype.itemsize or not kind_of(op.dtype).is_float:
        return everything(op.dtype)
    word = np.dtype(f"u{op.dtype.itemsize}")
    lo, hi = (float(np.array(int(end), word).view(op.dtype)) for end in x[:2])
    first_negative = 1 << (8 * op.dtype.itemsize - 1)
    if x.hi >= first_negative or math.isnan(lo) or math.isnan(hi):
        return everything(op.dtype)
    return Interval(lo, hi)
