"""Guards: does a run stay within the ranges that are expected?

A guarded function measures what `jr.ranges` measures, at the sites of which something is
expected, and returns `Violations` beside its output: the ranges seen (a handful of arrays) and,
static, how far each may go. Nothing is compared until somebody asks, and then on a few arrays:

    margin  = max(tolerance * (max - min), atol, 4 * eps * max(|min|, |max|))
    allowed = [min - margin, max + margin]

where min and max are the expected ones, eps is the distance from 1 to the next number of the
site's dtype (0 for integers and booleans: two compilations of one program may differ in the last
bits of floats), and the ends are rounded to the dtype. A finite end never becomes infinite. Where
one end is infinite, the magnitude of the other one stands for the width, and infinities of that
sign are well. A NaN is a violation unless there was one in the expected range, and any value is
where none was expected.

Seen ranges merge, so violations do: what is in violation in some step is in the merge of all.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat
from jax_ranges.call import Call, Returned, name_of
from jax_ranges.caller import Programs
from jax_ranges.expected import Allowed, Expectation
from jax_ranges.files import File, load
from jax_ranges.files.as_json import plain
from jax_ranges.files.records import Record, records_of
from jax_ranges.interpret import Interpreter, Jits
from jax_ranges.packing import Layout
from jax_ranges.ranges import Ranges, nearest
from jax_ranges.shown import Shown
from jax_ranges.site import NothingSelectedError, Select, Site, selector
from jax_ranges.stats import MinMax
from jax_ranges.transform import Options, check_callable, named_like, ranges
from jax_ranges.trees import native

KINDS = ("nan", "inf", "unexpected", "above", "below")
"""What can be wrong with a site. "unexpected": numbers where none were expected."""

SHOWN = 10
"""How many violations the message of an error names."""


@dataclass(frozen=True)
class Violation:
    """One site that left its expected range.

    Attributes:
      site: the site.
      what: what is wrong with it, of `KINDS`, the worst first.
      seen, expected: its ranges, without leading axes.
      allowed: how far it may go.
      excess: the way from the expected range to the farthest value seen beyond it, in widths of
        the expected range (in its magnitude, if all expected values are equal or one is
        infinite); inf for NaN, infinities, and where no finite numbers were expected.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, expected = jr.ranges(jnp.square)(jnp.array([1.0, 2.0]))
      >>> _, violations = jr.guard(jnp.square, expected, tolerance=0.1)(jnp.array([1.0, 3.0]))
      >>> (row,) = violations.rows
      >>> row.what, row.seen.max, row.expected.max, round(row.excess, 3)
      (('above',), 9.0, 4.0, 1.667)
    """

    site: Site
    what: tuple[str, ...]
    seen: Record
    expected: Record
    allowed: Allowed
    excess: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`: infinities are strings, None is what is not there."""
        return {
            "site": self.site.name,
            "source": self.site.source,
            "what": list(self.what),
            "excess": plain(self.excess),
            **{
                f"{when}_{end}": plain(getattr(range_, end))
                for when, range_ in (("seen", self.seen), ("expected", self.expected))
                for end in ("min", "max", "nan")
            },
            "allowed_min": plain(self.allowed.min),
            "allowed_max": plain(self.allowed.max),
        }

    def __str__(self) -> str:
        from jax_ranges.report.guard_table import sentence

        return sentence(self)


class RangeViolationError(ArithmeticError):
    """A guarded run left its expected ranges.

    Attributes:
      violations: which sites did.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, expected = jr.ranges(jnp.square)(jnp.array([1.0, 2.0]))
      >>> try:
      ...     jr.guard(jnp.square, expected, raises=True)(jnp.array([1.0, 3.0]))
      ... except jr.RangeViolationError as error:
      ...     print([row.site.name for row in error.violations.rows])
      ['square']
    """

    def __init__(self, violations: Violations):
        self.violations = violations
        rows = violations.rows
        more = [f"and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
        lines = [violations.headline(), *map(str, rows[:SHOWN]), *more]
        super().__init__("\n  ".join(lines))


@jax.tree_util.register_pytree_node_class
class Violations(Shown):
    """Which sites of a guarded run left their expected ranges; made by `jr.guard`.

    A pytree of a handful of arrays that goes through jit, scan, cond, vmap and device_put.
    `violated`, `any` and `count` are traced inside jit; `rows` and what prints are for the host.
    Violations of several steps merge with `|`.

    Attributes:
      seen: the ranges of the sites that were compared.
      unknown: the names of the program's sites of which nothing is expected.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def f(x):
      ...     return jnp.exp(x) + 1
      >>> _, expected = jr.ranges(f)(jnp.arange(3.0))
      >>> _, violations = jr.guard(f, expected)(jnp.arange(9.0))
      >>> int(violations.count), [row.what for row in violations.rows]
      (2, [('above',), ('above',)])
    """

    def __init__(self, seen: Ranges, expectation: Expectation, unknown: tuple[str, ...] = ()):
        self.seen, self.unknown = seen, unknown
        self._expectation = expectation

    # -- pytree ---------------------------------------------------------------------------

    def tree_flatten(self) -> tuple[Any, Any]:
        """For `jax.tree`: the ranges that were seen, and what is static."""
        return (self.seen,), (self._expectation, self.unknown)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> Violations:
        """For `jax.tree`: the inverse of `tree_flatten`."""
        return cls(*children, *aux)

    # -- in numbers, inside jit too -------------------------------------------------------

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that were compared, in program order."""
        return self.seen.sites

    @property
    def violated(self) -> Any:
        """Whether each of `sites` left its range: booleans `[*leading axes, sites]`."""
        limits = self._expectation.limits(self._layout)
        arrays = jax.tree.leaves(self.seen)
        traced = any(map(compat.is_traced, arrays))
        states = list(self.seen.block().states.values())
        flags = [
            part.violated([x if traced else np.asarray(x) for x in states[part.group]])
            for part in limits.parts
        ]
        xp = jnp if traced else np
        return xp.concatenate(flags, -1)[..., limits.sites].any(-1)

    @property
    def any(self) -> Any:
        """Whether any site did: a boolean, or one for each example of vmap."""
        return self.violated.any(-1)

    @property
    def count(self) -> Any:
        """How many sites did: an integer, or one for each example of vmap."""
        return self.violated.sum(-1)

    def __bool__(self) -> bool:
        return bool(self.any.any())

    def merge(self, other: Violations) -> Violations:
        """The violations of two runs under the same expectation."""
        if not isinstance(other, Violations):
            raise TypeError(f"violations merge with violations; got {type(other).__name__}")
        if self._expectation != other._expectation:
            raise ValueError("these violations are of guards with different expectations")
        unknown = tuple(dict.fromkeys((*self.unknown, *other.unknown)))
        return Violations(self.seen | other.seen, self._expectation, unknown)

    def __or__(self, other: Violations) -> Violations:
        return self.merge(other) if isinstance(other, Violations) else NotImplemented

    def reduce(self) -> Violations:
        """Merge the leading axes: the examples of vmap, the steps of a scan."""
        return Violations(self.seen.reduce(), self._expectation, self.unknown)

    @property
    def _layout(self) -> Layout:
        return self.seen.tree_flatten()[1]

    # -- on the host ----------------------------------------------------------------------

    @property
    def rows(self) -> tuple[Violation, ...]:
        """The sites that left their ranges, leading axes merged, the worst first.

        Raises:
          TypeError: inside jit, where there are no values.
        """
        seen = self._records()
        violated = self.violated.reshape(-1, len(self.sites)).any(0)
        rows = [self._row(record) for record, v in zip(seen, violated, strict=True) if v]
        return tuple(sorted(rows, key=lambda row: (-row.excess, KINDS.index(row.what[0]))))

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the expected sites that the program does not have."""
        return tuple(name for name in self._expectation.by_name if name not in self.seen)

    @property
    def not_run(self) -> tuple[str, ...]:
        """The names of the sites that were not observed, and had been in what is expected."""
        by_name = self._expectation.by_name
        unseen = [r.site.name for r in self._records() if not r.observed]
        return tuple(name for name in unseen if by_name[name].observed)

    def raise_if_any(self) -> None:
        """Raise RangeViolationError if any site left its range; its message names them.

        Waits for the run. Inside jit it is a TypeError: nothing can be raised there.
        """
        self._on_the_host("raise_if_any()")
        if self:
            raise RangeViolationError(self)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "sites": len(self.sites),
            "tolerance": plain(self._expectation.tolerance),
            "atol": plain(self._expectation.atol),
            "violations": [row.to_json() for row in self.rows],
            "unknown": list(self.unknown),
            "missing": list(self.missing),
            "not_run": list(self.not_run),
        }

    def headline(self) -> str:
        """How many of how many sites, and at which tolerance."""
        from jax_ranges.report.guard_table import headline

        return headline(self, self._expectation)

    def _records(self) -> list[Record]:
        self._on_the_host("rows")
        return records_of(self.seen)

    def _on_the_host(self, what: str) -> None:
        if any(map(compat.is_traced, jax.tree.leaves(self.seen))):
            raise TypeError(
                f"these violations are traced (inside jit, vmap or grad) and have no values yet: "
                f".any and .count work there; return the violations, and use .{what} outside"
            )

    def _row(self, seen: Record) -> Violation:
        expected = self._expectation.by_name[seen.site.name]
        allowed = self._expectation.allowed(seen.site.name, seen.site.dtype)
        what = _what(seen, allowed)
        return Violation(seen.site, what, seen, expected, allowed, _excess(seen, expected, what))

    def __repr__(self) -> str:
        from jax_ranges.report.guard_table import violations_summary

        return violations_summary(self)

    def _table(self, limit: int | None = None) -> Any:
        from jax_ranges.report.guard_table import violations_table

        return violations_table(self, limit)


def guard(
    fun: Callable[..., Any],
    expected: Ranges | File,
    tolerance: float = 0.1,
    *,
    atol: float = 0.0,
    select: Select = None,
    strict: bool = False,
    raises: bool = False,
) -> Callable[..., tuple[Any, Violations]]:
    """Transform `fun` to return, next to its outputs, which sites left their expected ranges.

    Args:
      fun: any function that JAX can trace, jitted or not (see `jr.ranges`).
      expected: ranges, or a file of them; leading axes (vmap, stacked loops) are merged first.
        If inputs or captured constants are among its sites, they are guarded too.
      tolerance: how far beyond its expected range a site may go, in widths of that range; see
        `jax_ranges.guard` for the formula.
      atol: the same as a number, for sites whose range is narrow; the larger of the two counts.
      select: which of the expected sites to guard, as in `jr.ranges`.
      strict: the program must have the sites that are expected (those selected), and no others.
        If not, sites that are in one only are left alone: `unknown` and `missing` list them.
      raises: after each call wait for it, and raise if a site left its range.

    Returns:
      A function with the arguments of `fun` that returns `(fun's output, Violations)`. It
      composes with jit, grad, vmap, scan and shard_map; `jax.jit(jr.guard(f, expected))` is the
      way to use it in a loop, and so is calling it as it is, which compiles it once for each
      kind of call. The expected ranges are small constants of the program.

    Raises:
      TypeError: `fun` is not callable; or, when called inside jit or another transformation,
        `raises` is set: return the violations, and call `.raise_if_any()` outside.
      ValueError: a tolerance is negative or not finite, or a file is damaged; when called, the
        program has no expected site, or `strict` does not hold.
      RangeViolationError: as `raises` says; the message names sites and lines.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def f(x):
      ...     with jax.named_scope("layer"):
      ...         return jnp.sqrt(x) * 2
      >>> _, expected = jr.ranges(f)(jnp.array([1.0, 4.0]))
      >>> guarded = jax.jit(jr.guard(f, expected))
      >>> _, violations = guarded(jnp.array([1.0, 4.2]))
      >>> bool(violations.any)
      False
      >>> for x in (9.0, -1.0):
      ...     _, more = guarded(jnp.array([1.0, x]))
      ...     violations |= more
      >>> for row in violations.rows:
      ...     print(row.site.name, row.what, row.excess, (row.seen.min, row.seen.max))
      layer/sqrt ('nan', 'above') inf (1.0, 3.0)
      layer/mul ('nan', 'above') inf (2.0, 6.0)
    """
    check_callable(fun, "jr.guard takes a function and what is expected: jr.guard(f, expected)")
    given = expected if isinstance(expected, Ranges) else load(expected)
    if select is not None:
        given = given.select(select)
    expectation = Expectation.of(
        given, _tolerance("tolerance", tolerance), _tolerance("atol", atol)
    )
    compiled = _Compiled(fun, expectation, select, strict)

    @named_like(fun, "guard")
    def guarded(*args: Any, **kwargs: Any) -> tuple[Any, Violations]:
        if compat.tracing():
            if raises:
                raise TypeError(
                    f"jr.guard({name_of(fun)}, raises=True) was called inside jit, grad, vmap or "
                    f"another transformation, where nothing can be raised: leave raises out, "
                    f"return the violations, and call violations.raise_if_any() outside"
                )
            return _traced(fun, _Watch(expectation, select, strict), args, kwargs)
        out, violations = compiled(args, kwargs)
        if raises:
            violations.raise_if_any()
        return out, violations

    return guarded


def _tolerance(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number; got {value!r} of type {type(value).__name__}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is a finite number from 0 on; got {value!r}")
    return float(value)


# -- which sites ------------------------------------------------------------------------------


class _Watch:
    """Selects the sites of which something is expected, and remembers the others."""

    def __init__(self, expectation: Expectation, select: Select, strict: bool):
        self.expectation, self.strict = expectation, strict
        self._wanted = selector(select)
        self._met: list[str] = []

    def __call__(self, site: Site) -> bool:
        known = site.name in self.expectation.by_name
        if known or self._wanted(site):
            self._met.append(site.name)
        return known

    def unknown(self, sites: Sequence[Site]) -> tuple[str, ...]:
        """What of the program nothing is expected of; `sites` are those that are guarded."""
        expected = self.expectation.by_name
        unknown = tuple(name for name in self._met if name not in expected)
        if self.strict:
            _check_same(unknown, set(expected).difference(site.name for site in sites))
        return unknown

    def none_found(self) -> ValueError:
        names = list(self.expectation.by_name)
        return ValueError(
            f"none of the {len(names)} sites of which ranges are expected is in this program. "
            f"Expected: {_listing(names)}. In the program: {_listing(self._met)}"
        )


def _check_same(unknown: Sequence[str], missing: set[str]) -> None:
    parts = []
    if unknown:
        parts.append(f"of {_listing(unknown)} nothing is expected")
    if missing:
        near = nearest(min(missing), unknown)
        hint = f" (the nearest to the first: {', '.join(near)})" if near else ""
        parts.append(f"the program does not have {_listing(sorted(missing))}{hint}")
    if parts:
        raise ValueError(f"strict=True, but {', and '.join(parts)}")


def _listing(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


# -- running ----------------------------------------------------------------------------------


def _traced(
    fun: Callable[..., Any], watch: _Watch, args: Any, kwargs: Any
) -> tuple[Any, Violations]:
    """Inside a transformation: part of the program that is being traced."""
    measured = ranges(fun, select=watch, inputs=watch.expectation.inputs)
    try:
        out, seen = measured(*args, **kwargs)
    except NothingSelectedError as error:
        raise watch.none_found() from error
    return out, Violations(seen, watch.expectation, watch.unknown(seen.sites))


class _Program(NamedTuple):
    """A function compiled with its measurements, for one kind of call."""

    step: Callable[..., tuple[list[Any], Violations]]
    dynamic: tuple[int, ...]
    is_foreign: bool
    returned: Returned

    def run(self, leaves: Sequence[Any], args: Any, kwargs: Any) -> tuple[Any, Violations]:
        values = [leaves[i] for i in self.dynamic]
        if self.is_foreign:
            values = list(map(native, values))
        outs, violations = self.step(*values)
        return self.returned.output(outs, args, kwargs), violations


class _Compiled(Programs[_Program]):
    """Outside of transformations: compiled once for each kind of call."""

    def __init__(
        self, fun: Callable[..., Any], expectation: Expectation, select: Select, strict: bool
    ):
        name = name_of(fun)
        super().__init__(fun, f"jr.guard({name})")
        usage = "jr.guard takes a function"
        self._options = Options(fun, (MinMax(),), None, expectation.inputs, "merge", usage)
        self._watch = functools.partial(_Watch, expectation, select, strict)

    def __call__(self, args: Any, kwargs: Any) -> tuple[Any, Violations]:
        program, leaves, args = self.find(args, kwargs)
        return program.run(leaves, args, kwargs)

    def compile(self, args: Any, kwargs: Any, variant: Any) -> _Program:
        del variant
        call, watch = Call.trace(self._fun, args, kwargs, outermost=True), self._watch()
        try:
            plan = self._options.plan(call, watch)
        except NothingSelectedError as error:
            raise watch.none_found() from error
        unknown = watch.unknown(plan.sites)
        interpreter = Interpreter(self._options.stats, Jits())

        def step(*values: Any) -> tuple[list[Any], Violations]:
            outs, block = interpreter.run(plan.frame, values)
            seen = Ranges(block, plan.layout)
            return call.returned.typed(outs), Violations(seen, watch.expectation, unknown)

        step.__name__ = step.__qualname__ = self._options.name
        jitted = jax.jit(step, donate_argnums=call.donated, compiler_options=call.options or None)
        dynamic = tuple(i for i, is_dynamic in enumerate(call.dynamic) if is_dynamic)
        return _Program(jitted, dynamic, call.is_foreign, call.returned)


# -- what is wrong with a site ----------------------------------------------------------------


def _what(seen: Record, allowed: Allowed) -> tuple[str, ...]:
    found = []
    if seen.nan and not allowed.nan:
        found.append("nan")
    if seen.min is None:
        return tuple(found)
    if allowed.min is None or allowed.max is None:
        return (*found, "unexpected")
    below, above = seen.min < allowed.min, seen.max > allowed.max
    if (below and seen.min == -math.inf) or (above and seen.max == math.inf):
        found.append("inf")
    if above and seen.max < math.inf:
        found.append("above")
    if below and seen.min > -math.inf:
        found.append("below")
    return tuple(found)


def _excess(seen: Record, expected: Record, what: Sequence[str]) -> float:
    if {"nan", "inf", "unexpected"}.intersection(what):
        return math.inf
    ends = [Fraction(x) for x in (expected.min, expected.max) if math.isfinite(x)]
    pairs = ((expected.min, seen.min), (seen.max, expected.max))
    beyond = [Fraction(a) - Fraction(b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    if not beyond:  # nothing but infinities was expected
        return math.inf
    width = max(ends) - min(ends) or max(map(abs, ends)) or Fraction(1)
    try:
        return float(max(beyond) / width)
    except OverflowError:
        return sys.float_info.max
