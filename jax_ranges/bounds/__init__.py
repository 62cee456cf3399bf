"""Bounds: proven ranges of every operation, beside the observed ones.

    found = jr.bounds(f, bounds={"x": (-1, 1)})(params, x)

`bounds` runs a program on intervals: nothing is executed, and what comes out holds for every
input within what is assumed of the inputs. A range that was observed says what did happen on some
data; a proven one says what cannot happen on any.

What the proof is about: the program as JAX's jaxpr has it, in the floating-point arithmetic of its
dtypes, compiled by XLA or run equation by equation. Ends are rounded outwards, and slack is given
for what XLA is free to do: order of sums, fused multiply-adds, more bits for float16 and bfloat16,
division as a multiplication by the reciprocal, quotients of quotients, products of exponentials
as exponentials of sums, subnormals taken as zero (of which XLA's atan2 makes NaN, and its cbrt
small numbers of either sign), 16 units in the last place for transcendental functions (more where
they grow like exp).
Not covered: XLA options that trade accuracy for speed (fast-math), custom kernels, and rewrites
of sums of products within a factor of two of overflow (a*0.5 + b*0.5 as (a + b)*0.5).

A primitive without a rule, or with a computation inside that no rule follows (`x.at[i].apply(f)`),
may give anything that its type holds. So bounds are sound first, and
useful where programs are of the usual kind: see the table in `tests/test_bounds.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jax_ranges import compat
from jax_ranges.bounds.interval import (
    Interval,
    everything,
    exactly,
    kind_of,
    numbers,
    of_array,
)
from jax_ranges.bounds.propagate import Propagation, given, untouched
from jax_ranges.bounds.result import Bounds, BoundsRow, Proven
from jax_ranges.bounds.value import Value
from jax_ranges.call import Call
from jax_ranges.constants import host_array, is_readable
from jax_ranges.formats import FormatLike, format_of
from jax_ranges.plan import is_measurable
from jax_ranges.ranges import Ranges
from jax_ranges.site import Select, Site, selector
from jax_ranges.stats import MinMax
from jax_ranges.transform import Options, named_like, ranges
from jax_ranges.trees import flat_tree

__all__ = ["Bounds", "BoundsRow", "Proven", "bounds"]

FORMATS = (
    *("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64"),
)

InputBounds = Mapping[str, tuple[float, float]] | Ranges


def bounds(
    fun: Callable[..., Any],
    *,
    bounds: InputBounds | None = None,
    fixed: Select = (),
    observed: Ranges | bool = True,
    select: Select = None,
    inputs: bool = False,
    formats: Sequence[FormatLike] = FORMATS,
) -> Callable[..., Bounds]:
    """Transform `fun` to return the ranges that can be proven of every operation in it.

    Args:
      fun: any function that JAX can trace, jitted or not (see `jr.ranges`).
      bounds: what is known of the inputs: `(lo, hi)` for a glob of their paths (`{"x": (-1, 1),
        "params/*/kernel": (-2, 2)}`), the first that fits; or ranges whose `input/...` sites are
        taken. Of an input that is not among these: the range of the array that is given, or if
        shapes are (`jax.ShapeDtypeStruct`), all finite numbers of its dtype.
      fixed: globs of inputs that are known to be the arrays given: weights. Then bounds hold for
        these arrays only, and are much tighter. Arrays that `fun` closes over are known.
      observed: ranges to show beside; True runs `fun` if all its inputs are arrays.
      select, inputs: which sites, as in `jr.ranges`.
      formats: of the first of these that certainly holds a site, its row has the name. Integer
        formats are for sites of integers.

    Returns:
      A function with the arguments of `fun` that returns `Bounds`.

    Raises:
      TypeError: `fun` is not callable; a bound is no pair of numbers, or an argument is traced.
      ValueError: a glob fits no input, or a bound is the wrong way round or NaN.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> x = jax.ShapeDtypeStruct((8, 16), jnp.float32)
      >>> found = jr.bounds(jax.nn.softmax, bounds={"x": (-1e4, 1e4)})(x)
      >>> found["div"].lo, round(found["div"].hi, 2), found["div"].finite
      (0.0, 1.0, True)
    """
    usage = "jr.bounds takes a function: found = jr.bounds(f)(*args)"
    options = Options(fun, (MinMax(),), select, inputs, "merge", usage)
    known = [format_of(name) for name in formats]

    @named_like(fun, "bounds")
    def bounded(*args: Any, **kwargs: Any) -> Bounds:
        _refuse_traced((args, kwargs))
        call = Call.trace(fun, args, kwargs, abstract=True)
        plan = options.plan(call)
        values = _Inputs(bounds, fixed, call).values()
        propagation = Propagation()
        propagation.run(plan.frame, list(values.values()))
        assumed = {name: x.interval for name, x in values.items() if x.interval is not None}
        seen = _observed(observed, fun, select, inputs, call, (args, kwargs))
        return Bounds(plan.sites, propagation.found, assumed, seen, known)

    return bounded


def _refuse_traced(tree: Any) -> None:
    if any(map(compat.is_traced, jax.tree.leaves(flat_tree(tree)))):
        raise TypeError(
            "jr.bounds(f) was called inside jit, grad, vmap or another transformation. It runs "
            "nothing, so call it outside, with arrays or with jax.ShapeDtypeStruct"
        )


def _observed(
    observed: Ranges | bool,
    fun: Callable[..., Any],
    select: Select,
    inputs: bool,
    call: Call,
    arguments: tuple[Any, Any],
) -> Ranges | None:
    if isinstance(observed, Ranges):
        return observed
    if not observed or any(map(_is_abstract, call.leaves)):
        return None
    args, kwargs = arguments
    return ranges(fun, select=select, inputs=inputs)(*args, **kwargs)[1]


def _is_abstract(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


# -- what is assumed of the inputs ------------------------------------------------------------


class _Inputs:
    """The inputs of a traced call as values.

    Args:
      bounds, fixed: see `bounds`.
    """

    def __init__(self, bounds: InputBounds | None, fixed: Select, call: Call):
        self._call = call
        self._rules = _rules(bounds)
        self._fixed = _input_selector(fixed)

    def values(self) -> dict[str, Value]:
        avals = [v.aval for v in compat.opened(self._call.jaxpr)[0].invars]
        call = self._call
        used: set[str] = set()
        found = {}
        for name, leaf, aval in zip(call.names, call.leaves, avals, strict=True):
            found[name] = self._value(name, leaf, aval, used)
        unused = [glob for glob, _, _ in self._rules if glob not in used]
        if unused:
            names = ", ".join(name.removeprefix("input/") for name in call.names[:12])
            raise ValueError(f"bounds for {unused[0]!r} fit no input; the inputs are {names}")
        return found

    def _value(self, name: str, leaf: Any, aval: Any, used: set[str]) -> Value:
        if not is_measurable(aval):
            return untouched(aval)
        for glob, fits, interval in self._rules:
            if fits(name):
                used.add(glob)
                return given(_in_dtype(interval, np.dtype(aval.dtype)), aval)
        if _is_abstract(leaf):
            return given(numbers(np.dtype(aval.dtype)), aval)
        if not is_readable(leaf):
            return untouched(aval)
        array = host_array(leaf, aval.dtype)
        return given(of_array(array), aval, array if self._fixed(name) else None)


Rule = tuple[str, Callable[[str], bool], Interval]


def _rules(bounds: InputBounds | None) -> list[Rule]:
    if bounds is None:
        return []
    if isinstance(bounds, Ranges):
        inputs = [site.name for site in bounds.sites if site.name.startswith("input/")]
        if not inputs:
            raise ValueError(
                "bounds: these ranges have no inputs among their sites; take them with "
                "jr.ranges(f, inputs=True)"
            )
        return [(n, n.__eq__, _of_range(bounds[n])) for n in inputs if bounds[n].observed.any()]
    return [(glob, _input_selector((glob,)), _pair(glob, x)) for glob, x in bounds.items()]


def _of_range(found: Any) -> Interval:
    lo, hi = np.asarray(found.min).min().item(), np.asarray(found.max).max().item()
    return Interval(lo, hi, bool(np.any(found.nan)))


def _input_selector(select: Select) -> Callable[[str], bool]:
    """By the path of an input, with or without `input/` before it."""
    patterns = (select,) if isinstance(select, str) else select
    if patterns is None or callable(patterns):
        raise TypeError(f"inputs are selected by globs of their paths; got {select!r}")
    fits = selector([f"input/{p.removeprefix('input/')}" for p in patterns])

    def chosen(name: str) -> bool:
        return fits(Site(name, "input", 0, (), np.dtype(float)))

    return chosen


def _pair(glob: str, ends: Any) -> Interval:
    try:
        lo, hi = ends
        wrong = not lo <= hi
    except (TypeError, ValueError) as error:
        raise TypeError(f"bounds of {glob!r} are a pair (lo, hi); got {ends!r}") from error
    if wrong:
        raise ValueError(f"bounds of {glob!r}: lo is not below hi in {ends!r}")
    return Interval(lo, hi)


def _in_dtype(interval: Interval, dtype: np.dtype) -> Interval:
    """The numbers of a dtype that are within, and those next to the ends: 0.1 is no float32."""
    whole = everything(dtype)
    lo, hi = max(interval.lo, whole.lo), min(interval.hi, whole.hi)
    if kind_of(dtype).is_float:
        return exactly(float(lo), float(hi), dtype, interval.nan and whole.nan)
    return Interval(math.ceil(lo), math.floor(hi))
