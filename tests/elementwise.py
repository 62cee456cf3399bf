"""What an elementwise program can be on intervals, beside what XLA makes of their numbers.

A program is evaluated on many numbers at once, every number of the narrow dtypes among them, and
its proven intervals on blocks of these: single numbers, neighbours, small and large blocks. So no
wrong end hides in a wide interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.extend.core import Literal

from jax_ranges.births.checks import Check, check_of
from jax_ranges.bounds.interval import Interval
from jax_ranges.bounds.propagate import Propagation, given
from jax_ranges.call import Call
from jax_ranges.derive import apply
from jax_ranges.keys import carrier_dtype
from jax_ranges.stats import MinMax
from jax_ranges.transform import Options
from tests.values import is_complex, is_float

Box = tuple[slice, ...]
"""Which of the numbers of each operand."""


# -- numbers ----------------------------------------------------------------------------------


def numbers(dtype: np.dtype, count: int, near: int = 12) -> np.ndarray:
    """About so many numbers of a dtype, sorted, without NaN: all of them, if there are so few.

    near: of each awkward number this many neighbours on either side are among them.
    """
    if dtype == np.dtype(bool):
        return np.array([False, True])
    if not is_float(dtype):
        return _integers(dtype, count, near)
    bits = ml_dtypes.finfo(dtype).bits
    word = np.dtype(f"u{dtype.itemsize}")
    patterns = np.arange(0, 1 << bits, max(1, (1 << bits) // count), np.uint64).astype(word)
    if count < 1 << bits:
        near_all = [_neighbours(x, dtype, near) for x in _landmarks(dtype)]
        patterns = np.concatenate([patterns, *near_all])
    found = patterns.view(dtype)
    with np.errstate(invalid="ignore"):
        wide = found.astype(np.float64)
    kept = ~np.isnan(wide)
    found, wide = found[kept], wide[kept]
    order = np.lexsort((~np.signbit(wide), wide))
    return found[order]


def _landmarks(dtype: np.dtype) -> list[float]:
    info = ml_dtypes.finfo(dtype)
    found = [0.0, float(info.tiny), float(info.smallest_subnormal), 0.5, 1.0, 2.0, float(info.max)]
    found += [math.pi / 2, math.pi, 10.0, 88.7, 104.0, 709.7, 2.0**-12, float(info.eps), 2.0**24]
    return [sign * x for x in found for sign in (1, -1)]


def _neighbours(x: float, dtype: np.dtype, near: int) -> np.ndarray:
    word = np.dtype(f"u{dtype.itemsize}")
    with np.errstate(all="ignore"):
        middle = int(np.array(x).astype(dtype).view(word))
    around = np.arange(middle - near, middle + near + 1, dtype=object) % (1 << 8 * dtype.itemsize)
    return around.astype(np.uint64).astype(word)


def _integers(dtype: np.dtype, count: int, near: int) -> np.ndarray:
    info = ml_dtypes.iinfo(dtype)
    least, most = int(info.min), int(info.max)
    step = max(1, (most - least + 1) // count)
    found = set(range(least, most + 1, step))
    for x in (least, 0, most, most // 2):
        found |= set(range(max(least, x - near), min(most, x + near) + 1))
    return (
        np.array(sorted(found), object).astype(np.int64 if least < 0 else np.uint64).astype(dtype)
    )


# -- boxes ------------------------------------------------------------------------------------


def boxes(lengths: Sequence[int], count: int, rng: np.random.Generator) -> Iterator[Box]:
    """Blocks of all sizes, at random places, and all of it."""
    yield tuple(slice(0, length) for length in lengths)
    for _ in range(count):
        yield tuple(_block(length, rng) for length in lengths)


def _block(length: int, rng: np.random.Generator) -> slice:
    size = min(length, int(2 ** rng.uniform(0, math.log2(length) * rng.uniform(0, 1) + 1e-9)))
    start = int(rng.integers(0, length - size + 1))
    return slice(start, start + size)


def tiles(length: int, size: int) -> Iterator[Box]:
    """All of it in blocks of one size."""
    yield from ((slice(n, min(n + size, length)),) for n in range(0, length, size))


# -- programs ---------------------------------------------------------------------------------


def everything(fun: Callable[..., Any], avals: Sequence[Any]) -> Callable[..., list[Any]]:
    """The function that returns all results of all equations of `fun`, in their order."""
    closed = jax.make_jaxpr(fun)(*avals)
    jaxpr = closed.jaxpr

    def run(*args: Any) -> list[Any]:
        env: dict[Any, Any] = dict(zip(jaxpr.invars, args, strict=True))
        env |= zip(jaxpr.constvars, closed.consts, strict=True)
        results: list[Any] = []
        for eqn in jaxpr.eqns:
            values = [v.val if isinstance(v, Literal) else env[v] for v in eqn.invars]
            out = eqn.primitive.bind(*values, **eqn.params)
            outs = list(out) if eqn.primitive.multiple_results else [out]
            env |= zip(eqn.outvars, outs, strict=True)
            results += outs
        return results

    return run


@dataclass(frozen=True)
class Outside:
    """What left its proven interval."""

    site: str
    how: str
    operands: tuple[Interval, ...]
    seen: Interval
    proven: Interval

    def __str__(self) -> str:
        operands = ", ".join(_text(x) for x in self.operands)
        seen, proven = _text(self.seen), _text(self.proven)
        return f"{self.site} {self.how} of {operands}: saw {seen}, proven {proven}"


def _text(x: Interval) -> str:
    return f"[{x.lo!r}, {x.hi!r}{', nan' if x.nan else ''}]"


class Program:
    """An elementwise function of arrays of these numbers, each operand along an axis of its own."""

    def __init__(self, fun: Callable[..., Any], operands: Sequence[np.ndarray]):
        self.operands = list(operands)
        shape = tuple(len(x) for x in operands)
        self.args = [
            jnp.asarray(np.broadcast_to(_along(x, n, len(shape)), shape))
            for n, x in enumerate(operands)
        ]
        avals = [jax.ShapeDtypeStruct(shape, x.dtype) for x in operands]
        self.fun = everything(fun, avals)
        call = Call.trace(self.fun, avals, {}, abstract=True)
        self.plan = Options(self.fun, (MinMax(),), None, True, "merge", "").plan(call)
        self.avals = [var.aval for var in self.plan.frame.jaxpr.invars]
        self.sites = [site.name for site in self.plan.sites[len(operands) :]]

    def results(self, how: str) -> list[Any]:
        run = jax.jit(self.fun) if how == "jit" else self.fun
        return [np.asarray(out) for out in run(*self.args)]

    def born(self, results: Sequence[Any]) -> list[str]:
        """The equations of which it is said that nothing can be born there, and something was."""
        jaxpr = self.plan.frame.jaxpr
        made = iter(results)
        env: dict[Any, np.ndarray] = dict(
            zip(jaxpr.invars, map(np.asarray, self.args), strict=True)
        )
        found = []
        for eqn in jaxpr.eqns:
            operands = [np.asarray(v.val) if isinstance(v, Literal) else env[v] for v in eqn.invars]
            env |= {var: next(made) for var in eqn.outvars}
            (out,) = eqn.outvars
            avals = [v.aval for v in eqn.invars]
            if check_of(eqn.primitive.name, eqn.params, avals, out.aval) is Check.NEVER:
                found += [eqn.primitive.name] if _is_born(operands, env[out]) else []
        return found

    def misderived(self, results: Sequence[Any]) -> list[str]:
        """The sites whose derived range is not what they hold, number by number."""
        chains = self.plan.layout.places[0]
        values = dict(zip(self.plan.sites, (*self.args, *results), strict=True))
        sources: dict[Any, np.ndarray] = {}
        found = []
        for site, each in zip(self.plan.sites, chains, strict=True):
            (chain,) = each
            held = _carried(values[site], site.dtype)
            source = sources.setdefault(chain.source, held)
            known = ~np.isnan(source) if is_float(site.dtype) else np.ones(held.shape, bool)
            lo, hi = apply(chain, source[known], source[known])
            if not (_equal(lo, held[known], site.dtype) and _equal(hi, held[known], site.dtype)):
                found.append(f"{site.name}: {[str(step) for step in chain.steps]}")
        return found

    def proven(self, intervals: Sequence[Interval]) -> list[Interval]:
        values = [given(x, aval) for x, aval in zip(intervals, self.avals, strict=True)]
        return [value.numbers for value in Propagation().run(self.plan.frame, values)]

    def check(self, chosen: Sequence[Box], how: str) -> list[Outside]:
        """All that is outside of what is proven in one of these boxes."""
        return self.outside(chosen, how, self.results(how))

    def outside(self, chosen: Sequence[Box], how: str, outs: Sequence[Any]) -> list[Outside]:
        """The same of results that are there already."""
        results = [Parts(out) for out in outs]
        operands = [Parts(x) for x in self.operands]
        found = []
        for box in chosen:
            intervals = tuple(x.interval((part,)) for x, part in zip(operands, box, strict=True))
            pairs = zip(self.sites, results, self.proven(intervals), strict=True)
            for site, result, proven in pairs:
                seen = result.interval(box)
                if not seen.within(proven):
                    found.append(Outside(site, how, intervals, seen, proven))
        return found


def _along(x: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return x.reshape([-1 if n == axis else 1 for n in range(rank)])


class Parts:
    """The numbers of an array, of which intervals of parts are asked."""

    def __init__(self, array: np.ndarray):
        if is_complex(array.dtype):
            array = np.stack([array.real, array.imag], -1)
        self.real = is_float(array.dtype)
        if not self.real:
            self.low = self.high = array
            if array.dtype.kind == "V" or array.dtype == bool:
                self.low = self.high = array.astype(np.int64)
            return
        with np.errstate(invalid="ignore"):
            wide = array.astype(np.float64)
        self.nan = np.isnan(wide)
        self.low = np.where(self.nan, np.inf, wide)
        self.high = np.where(self.nan, -np.inf, wide)

    def interval(self, box: Box) -> Interval:
        low, high = self.low[box].min(), self.high[box].max()
        if not self.real:
            return Interval(int(low), int(high))
        return Interval(float(low), float(high), bool(self.nan[box].any()))


def _is_born(operands: Sequence[np.ndarray], result: np.ndarray) -> bool:
    """Whether a NaN or an infinity is where no operand has one of its kind."""
    nan, bad = (_any_of(test, operands, result.shape) for test in (np.isnan, _is_bad))
    return bool((np.isnan(result) & ~nan).any() or (_is_bad(result) & ~bad).any())


def _is_bad(x: np.ndarray) -> np.ndarray:
    return ~np.isfinite(x)


def _any_of(test: Callable[..., Any], operands: Sequence[np.ndarray], shape: Any) -> Any:
    found = np.zeros(shape, bool)
    for x in operands:
        found |= test(x) if jnp.issubdtype(x.dtype, jnp.inexact) else False
    return found


def _carried(x: Any, dtype: np.dtype) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(x).astype(carrier_dtype(dtype))


def _equal(derived: np.ndarray, held: np.ndarray, dtype: np.dtype) -> bool:
    """But for subnormals, and what they round up to: it differs whether arithmetic keeps them."""
    if not is_float(dtype):
        return bool((derived == held).all())
    tiny = float(ml_dtypes.finfo(dtype).tiny)
    a, b = (np.where(np.abs(x) <= tiny, 0, x) for x in (derived, held))
    return bool(((a == b) | np.isnan(b)).all())
