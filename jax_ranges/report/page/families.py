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
      index: in the last of its leading axes if it stands out among iterations or examples, or
        None if among layers.
      layer: the scopes up to the last one with a number; "" among iterations or examples.
      ratio: its largest magnitude over the median of the others'.
      sizes: the largest magnitudes of all; None where none is known or finite.
      top: which of these is its own.
    """

    site: int
    index: int | None
    layer: str
    ratio: float
    sizes: tuple[float | None, ...]
    top: int


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
        sizes = _sizes([_size(rows[i]) for i in members])
        top, ratio = _exceeding(sizes)
        site = members[top]
        yield Outlier(site, None, _layer(rows[site]), ratio, sizes, top)
    for site, row in enumerate(rows):
        if isinstance(row.min, float) and row.each:
            sizes = _sizes(row.each)
            top, ratio = _exceeding(sizes)
            yield Outlier(site, top, "", ratio, sizes, top)


def _size(row: Row) -> float | None:
    """What families of floats are compared by; next to these, random bits mean nothing."""
    return row.amax if isinstance(row.min, float) else None


def _sizes(found: Sequence[float | None]) -> tuple[float | None, ...]:
    return tuple(size if size is not None and math.isfinite(size) else None for size in found)


def _exceeding(sizes: Sequence[float | None]) -> tuple[int, float]:
    """Which is the largest, and its ratio to the median of the others; 0 if nothing says."""
    known = [(size, -i) for i, size in enumerate(sizes) if size is not None]
    if len(known) < FEWEST:
        return 0, 0.0
    largest, place = max(known)
    usual = statistics.median(size for size, other in known if other != place)
    return -place, largest / usual if usual else 0.0


def _layer(row: Row) -> str:
    scopes = name_parts(row.name)[:-1]
    while scopes and not re.search(r"\d", scopes[-1]):
        scopes.pop()
    return "/".join(scopes)
