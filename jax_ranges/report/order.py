"""Order: which rows of a report come first, and which of a long one are shown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jax_ranges.report.rows import Row, name_parts


@dataclass(frozen=True)
class Order:
    """One way to sort.

    Attributes:
      key: of a row; rows of equal keys stay in program order.
      says: what a caption says of it.
    """

    key: Callable[[Row], Any]
    says: str


@dataclass(frozen=True)
class Excerpt:
    """Indices of rows, in the order in which they are shown; `hidden` are left out.

    What is hidden comes between `head` and `tail`.
    """

    head: Sequence[int]
    hidden: Sequence[int] = ()
    tail: Sequence[int] = ()

    @property
    def shown(self) -> Sequence[int]:
        return [*self.head, *self.tail]


def excerpt(rows: Sequence[Row], sort: str = "program", limit: int | None = None) -> Excerpt:
    """The rows in order; the first `limit` of them, or in program order the first and the last.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> from jax_ranges.report.rows import rows_of
      >>> _, ranges = jr.ranges(lambda x: jnp.exp(-x) * 10)(jnp.array([1.0, 2.0]))
      >>> excerpt(rows_of(ranges), sort="amax", limit=2)  # of neg, exp, mul
      Excerpt(head=[2, 0], hidden=[1], tail=())
    """
    key = order(sort).key
    if limit is not None and (not isinstance(limit, int) or limit < 0):
        raise ValueError(f"limit is a number of sites, or None for all of them; got {limit!r}")
    indices = sorted(range(len(rows)), key=lambda i: key(rows[i]))
    if limit is None or len(rows) <= limit:
        return Excerpt(indices)
    if sort != "program":
        return Excerpt(indices[:limit], indices[limit:])
    if len(rows) == limit + 1:  # a line that says "1 more" saves none
        return Excerpt(indices)
    first, last = (limit + 1) // 2, len(rows) - limit // 2
    return Excerpt(indices[:first], indices[first:last], indices[last:])


def order(sort: str) -> Order:
    """The order of that name; ValueError if there is none."""
    if sort not in list(ORDERS):  # a list, so that what cannot be hashed is told the same
        raise ValueError(f"sort={sort!r} is no order of a report; there are {_names()}")
    return ORDERS[sort]


def _names() -> str:
    *names, last = map(repr, ORDERS)
    return f"{', '.join(names)} and {last}"


# -- the orders -------------------------------------------------------------------------------


def _in_program(row: Row) -> int:
    del row
    return 0


def _by_width(row: Row) -> tuple[int, float]:
    return _class(row), -_width(row)


def by_amax(row: Row) -> tuple[int, float]:
    """The key of the order "amax": the least key is that of the largest value."""
    return _class(row), -(row.amax or 0)


def _class(row: Row) -> int:
    """Floats before integers: next to floats, the magnitudes of random bits mean nothing.

    Then what has no numbers at all: only NaN, and last what was not observed.
    """
    if row.amax is None:
        return 2 if row.observed else 3
    return 0 if isinstance(row.min, float) else 1


def _width(row: Row) -> float:
    if row.min is None or row.max is None:
        return 0
    return math.inf if row.infinite else row.max - row.min  # inf - inf would be NaN


def _by_trouble(row: Row) -> int:
    return 0 if row.nan else 1 if row.infinite else 2


def _by_name(row: Row) -> list[list[Any]]:
    return [_natural(part) for part in name_parts(row.name)]


def _natural(text: str) -> list[Any]:
    """`layer_2` before `layer_10`: texts and numbers in turn, so that like meets like."""
    # At most 18 digits at a time: Python refuses to read numbers of thousands.
    return [int(s) if k % 2 else s for k, s in enumerate(re.split(r"(\d{1,18})", text))]


ORDERS: Mapping[str, Order] = {
    "program": Order(_in_program, ""),
    "width": Order(_by_width, "widest first"),
    "amax": Order(by_amax, "largest first"),
    "nan": Order(_by_trouble, "NaN and inf first"),
    "name": Order(_by_name, "by name"),
}
