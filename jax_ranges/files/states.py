"""The states of statistics in JSON: what each consists of, by name, exactly.

    "statistics": {"Health()": {"name": "Health"}, "Histogram(bins=8)": {"name": "Histogram",
        "bins": 8}}

    "states": {"Health()": {"counts": [0, 1, 0, 2, 3, 4]},
               "Histogram(bins=8)": {"exponent": 2, "counts": [...]}}

A state is an object with the fields that the statistic's own has (see `jax_ranges.statistics`);
counts are integers of any size. There are those of the built-in statistics only: of others
nobody knows what their states are made of.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jax_ranges.files.reading import quoted, shortened
from jax_ranges.site import Site
from jax_ranges.statistics.absmax import AbsMax
from jax_ranges.statistics.channels import PerChannel
from jax_ranges.statistics.counts import Count, as_integers, of_integers
from jax_ranges.statistics.exponents import Exponents
from jax_ranges.statistics.health import Health
from jax_ranges.statistics.histogram import Histogram
from jax_ranges.statistics.moments import Moments
from jax_ranges.stats import MinMax, State, Statistic

BUILT_IN: dict[str, type[Statistic]] = {
    kind.__name__: kind
    for kind in (AbsMax, Exponents, Health, Histogram, MinMax, Moments, PerChannel)
}


def is_built_in(stat: Statistic) -> bool:
    """Whether files hold its states."""
    if type(stat) is PerChannel:
        return is_built_in(stat.of)
    return type(stat) in BUILT_IN.values()


def spec_of(stat: Statistic) -> dict[str, Any]:
    """A statistic as JSON: its name, and its arguments."""
    arguments = {field.name: getattr(stat, field.name) for field in dataclasses.fields(stat)}
    plain = {k: spec_of(v) if isinstance(v, Statistic) else v for k, v in arguments.items()}
    return {"name": type(stat).__name__, **plain}


def statistic_of(spec: Any) -> Statistic:
    """The statistic that a spec tells of; ValueError if there is none."""
    kind = BUILT_IN.get(str(spec.get("name"))) if isinstance(spec, dict) else None
    if kind is None:
        raise ValueError(f"{quoted(spec)} is no statistic that this release knows")
    arguments = {k: v for k, v in spec.items() if k != "name"}
    plain = {k: statistic_of(v) if isinstance(v, dict) else v for k, v in arguments.items()}
    try:
        return kind(**plain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{quoted(spec)} is no statistic: {shortened(str(error))}") from error


def plain_state(state: State) -> Any:
    """A state as JSON has it."""
    if isinstance(state, Count):
        return np.asarray(as_integers(state)).tolist()
    if isinstance(state, tuple):
        fields = zip(type(state)._fields, state, strict=True)  # type: ignore[attr-defined]
        return {name: plain_state(each) for name, each in fields}
    return _plain(np.asarray(state).tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def state_of(stat: Statistic, site: Site, plain: Any) -> State:
    """The state that was written as `plain`; ValueError if it cannot be one of this statistic."""
    try:
        empty = stat.identity_for(site.dtype, site.shape)
        state = _read(empty, plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{quoted(plain)} is no state of {stat!r}") from error
    kinds = (empty, stat.identity_for(site.dtype, ()))  # the latter: see `PerChannel`
    if not any(_fits(state, kind) for kind in kinds):
        raise ValueError(f"its state of {stat!r} has the wrong shape")
    return state


def _read(like: Any, plain: Any) -> Any:
    if isinstance(like, Count):
        _check(plain, lambda x: type(x) is int and 0 <= x < 1 << 63)
        return of_integers(plain)
    if isinstance(like, tuple):
        names = type(like)._fields  # type: ignore[attr-defined]
        if not isinstance(plain, Mapping) or set(plain) != set(names):
            raise TypeError
        parts = (_read(part, plain[name]) for name, part in zip(names, like, strict=True))
        return type(like)(*parts)
    if like.dtype.kind != "f":
        _check(plain, lambda x: type(x) is int)
        return np.array(plain, like.dtype)
    _check(plain, _is_plain_float)
    given = np.array(plain, np.float64)
    with np.errstate(over="ignore"):
        found = given.astype(like.dtype)
    if np.any(np.isinf(found) != np.isinf(given)):  # beyond this dtype
        raise ValueError
    return found


def _is_plain_float(x: Any) -> bool:
    return x in ("inf", "-inf", "nan") if isinstance(x, str) else _is_plain_number(x)


def _is_plain_number(x: Any) -> bool:
    return type(x) is int or (type(x) is float and math.isfinite(x))


def _check(plain: Any, is_right: Any) -> None:
    if isinstance(plain, list):
        for each in plain:
            _check(each, is_right)
    elif not is_right(plain):
        raise TypeError


def _fits(state: State, empty: State) -> bool:
    """Whether a state has the axes of the identity, all of it after the same leading ones."""
    leads = set()
    for leaf, own in zip(jax.tree.leaves(state), jax.tree.leaves(empty), strict=True):
        split = leaf.ndim - own.ndim
        if split < 0 or leaf.shape[split:] != own.shape:
            return False
        leads.add(leaf.shape[:split])
    return len(leads) == 1
