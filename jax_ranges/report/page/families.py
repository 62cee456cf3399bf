"""Families: the same operation in every layer, and the layer in which it stands out.

Operations whose names differ in the numbers of their scopes only are of one family:
`encoder/layer_0/mlp/add`, `encoder/layer_1/mlp/add`, ... . So are the iterations of a stacked loop.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jax_ranges.report.rows import Row, name_parts

FEWEST = 3
"""A layer stands out among no fewer: of two, nothing says which is the usual one."""

NOTABLE = 2.0
"""The ratio from which a layer stands out: it takes one more bit of exponent."""


@dataclass(frozen=True)
class Outlier:
    """The operation that is largest by the measure of its own family.

    Attributes:
      site: its index.
      iteration: of a stacked loop (the index in its last leading axis), or None.
      layer: the scopes up to the last one with a number; those above the operation in a loop.
      ratio: its largest magnitude over the median of the others'.
      others: how many others there are.
    """

    site: int
    iteration: int | None
    layer: str
    ratio: float
    others: int


def families(rows: Sequence[Row]) -> list[list[int]]:
    """The indices of the rows of each family of several, in program order.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> from jax_ranges.report.rows import rows_of
      >>> def net(x):
      ...     for i in range(2):
      ...         with jax.named_scope(f"layer_{i}"):
      ...             x = jnp.exp(-x)
      ...     return x
      >>> families(rows_of(jr.ranges(net)(jnp.ones(2))[1]))  # neg, exp, neg, exp
      [[0, 2], [1, 3]]
    """
    found: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault(_pattern(row), []).append(i)
    return [members for members in found.values() if len(members) > 1]


def outlier(rows: Sequence[Row]) -> Outlier | None:
    """The float operation that exceeds its family by most; None if none does by `NOTABLE`."""
    found = [each for each in _outliers(rows) if each.ratio >= NOTABLE]
    return max(found, key=lambda each: (each.ratio, -each.site), default=None)


def _pattern(row: Row) -> str:
    """The name with its scopes' numbers left open; names in no numbered scope are their own."""
    *scopes, last = name_parts(row.name)
    return "/".join([*(re.sub(r"\d+", "#", scope) for scope in scopes), last])


def _outliers(rows: Sequence[Row]) -> Iterator[Outlier]:
    for members in families(rows):
        sizes = [_size(rows[i]) for i in members]
        top = _exceeding(sizes)
        if top is not None:
            site = members[top[0]]
            yield Outlier(site, None, _layer(rows[site]), *top[1:])
    for site, row in enumerate(rows):
        top = _exceeding(row.each) if isinstance(row.min, float) else None
        if top is not None:
            yield Outlier(site, top[0], row.scope, *top[1:])


def _size(row: Row) -> float | None:
    """What families of floats are compared by; next to these, random bits mean nothing."""
    return row.amax if isinstance(row.min, float) else None


def _exceeding(sizes: Sequence[float | None]) -> tuple[int, float, int] | None:
    """Which is the largest, its ratio to the median of the others, and how many these are."""
    known = [i for i, size in enumerate(sizes) if size is not None and math.isfinite(size)]
    if len(known) < FEWEST:
        return None
    top = max(known, key=lambda i: (sizes[i], -i))
    usual = statistics.median(sizes[i] or 0.0 for i in known if i != top)
    return (top, (sizes[top] or 0.0) / usual, len(known) - 1) if usual else None


def _layer(row: Row) -> str:
    scopes = name_parts(row.name)[:-1]
    while scopes and not re.search(r"\d", scopes[-1]):
        scopes.pop()
    return "/".join(scopes)
