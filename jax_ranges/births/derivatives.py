"""Births in derivatives: which operation's derivative it is, and the trap of `where`.

A function that is undefined where `where` does not take it has an infinite derivative there,
and the gradient through that branch, 0, is multiplied by it: 0 * inf is NaN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jax_ranges.births.genealogy import Found
from jax_ranges.site import Site

# Operations with derivatives that are infinite or undefined somewhere.
_STEEP = frozenset(
    {
        *("acos", "acosh", "asin", "asinh", "atan2", "atanh", "cbrt", "exp", "exp2", "expm1"),
        *("integer_pow", "lgamma", "log", "log1p", "pow", "rsqrt", "sqrt", "square", "tan"),
        *("cholesky", "eigh", "svd", "div"),
    }
)
# What the derivative of such an operation is made of, in the forward half of a gradient.
_LINEAR = {
    "div": frozenset({"sqrt", "atan2", "acosh", "asinh", "cbrt", "log1p", "atanh"}),
    "rsqrt": frozenset({"acos", "asin", "acosh", "asinh"}),
    "pow": frozenset({"pow"}),
    "integer_pow": frozenset({"integer_pow", "rsqrt", "cbrt", "div"}),
    "mul": frozenset({"rsqrt", "pow", "cbrt"}),
}
_FAR = 6


@dataclass(frozen=True)
class Derivative:
    """What a birth in a derivative belongs to.

    Attributes:
      of: the operation of which it is the derivative.
      where: the select that does not take the branch which that operation is in; None if the
        trap of `where` is not what happened.
    """

    of: Site
    where: Site | None


def derivative_of(found: Found, site: Site) -> Derivative | None:
    """None of what is in no derivative, or of which it is not known in which."""
    of = _forward(found, site)
    if of is None:
        return None
    return Derivative(of, _trap(found, site, of) if site.backward else None)


def _forward(found: Found, site: Site) -> Site | None:
    """The operation of the same line and scopes whose derivative it is."""
    if not site.source or "jvp(" not in site.name:
        return None
    wanted = _STEEP if site.backward else _LINEAR.get(site.primitive, frozenset())
    near = [
        other
        for other in found.ranges.sites
        if other.primitive in wanted and not other.backward and _belongs(other, site)
    ]
    near = [other for other in near if other.name != site.name]
    if site.backward:  # what is itself a part of a derivative is not what was written
        near = [other for other in near if _forward(found, other) is None]
    if not near:
        return None
    # Its derivative reads what the operation reads, or what it gives.
    reads = set(site.operands) | {name for o in site.operands for name in _operands(found, o)}
    return max(near, key=lambda other: len(reads & {other.name, *other.operands}))


def _belongs(other: Site, site: Site) -> bool:
    return other.source == site.source and _scopes(other.name) == _scopes(site.name)


def _scopes(name: str) -> str:
    """The scopes without what transformations put around them."""
    scope = name.rpartition("/")[0]
    return re.sub(r"\b(?:transpose|jvp|vmap|checkpoint|rematted_computation)\b|[()/]", "", scope)


def _operands(found: Found, name: str) -> tuple[str, ...]:
    return found.ranges.site(name).operands if name in found.ranges else ()


def _trap(found: Found, site: Site, of: Site) -> Site | None:
    """The `where` behind `of`, if the gradient came through the transpose of one."""
    before = _sites(found, [site.name], lambda name: _operands(found, name))
    if not any(each.backward and each.primitive == "select_n" for each in before):
        return None
    after = _sites(found, [of.name], lambda name: found.users.get(name, ()))
    selects = (s for s in after if s.primitive == "select_n" and not s.backward)
    return next(selects, None)


def _sites(
    found: Found, start: list[str], step: Callable[[str], tuple[str, ...]]
) -> Iterator[Site]:
    """The sites within a few steps, nearest first."""
    seen, edge = set(start), start
    for _ in range(_FAR):
        edge = [n for name in edge for n in step(name) if n in found.ranges and n not in seen]
        seen.update(edge)
        yield from (found.ranges.site(name) for name in dict.fromkeys(edge))
