"""Computations that equations hold in their parameters, and what tables may then say of them.

Tables say by a primitive's name what its results are: a scatter puts elements elsewhere, a copy
holds what was copied. But `x.at[i].apply(f)` is a scatter too, one with `f` inside, and computes
whatever `f` does. So where a table is asked, it is asked for `known_as(eqn)`: an equation with a
computation that nobody understands has a name that is in no table, and is treated like a primitive
that nobody has heard of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from jax_ranges import compat

UNKNOWN = ""
"""What no table knows."""

_DATA = (str, bytes, int, float, complex, type(None), type, jax.sharding.Mesh)
"""Parameters that are no computations, though some can be called."""


def known_as(eqn: Any) -> str:
    """The name by which tables know an equation, `UNKNOWN` if they do not."""
    return name_of(eqn.primitive.name, eqn.params)


def name_of(primitive: str, params: Mapping[str, Any]) -> str:
    """The same of a primitive's name and an equation's parameters."""
    for value in params.values():
        if holds_computation(value) and not _is_named(primitive, value):
            return UNKNOWN
    return primitive


def holds_computation(value: Any) -> bool:
    """Whether a parameter is a program or a function, or a collection that has some."""
    if isinstance(value, _DATA):
        return False
    if isinstance(value, (tuple, list, frozenset)):
        return any(map(holds_computation, value))
    if isinstance(value, Mapping):
        return any(map(holds_computation, value.values()))
    return callable(value) or hasattr(compat.opened(value)[0], "eqns")


def _is_named(primitive: str, program: Any) -> bool:
    """Whether a program is the one operation that the primitive's name ends with: scatter-add."""
    jaxpr, consts = compat.opened(program)
    if consts or len(getattr(jaxpr, "eqns", ())) != 1:
        return False
    (eqn,) = jaxpr.eqns
    suffix = primitive.rpartition("-")[2]
    return (
        eqn.primitive.name == suffix
        and list(eqn.invars) == list(jaxpr.invars)
        and list(jaxpr.outvars) == list(eqn.outvars)
    )


def windows_reach(params: Mapping[str, Any]) -> bool:
    """Whether each window of a reduction over windows has an element that is no padding."""
    steps = (*params["base_dilation"], *params["window_dilation"])
    pairs = zip(params["window_dimensions"], params["padding"], strict=True)
    sizes = [(size, *pad) for size, pad in pairs]
    known = all(isinstance(size, int) for each in sizes for size in each)
    return known and set(steps) <= {1} and all(max(pad) < size for size, *pad in sizes)
