"""What is known of a value of a program: its interval, and how it relates to other values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from jax_ranges.bounds.interval import Interval, flushed, kind_of
from jax_ranges.stats import size_of


class Peak(NamedTuple):
    """The largest elements of a value along some of its axes.

    dims: for each axis of these the axis of `of` that it goes along, None if along none.
    """

    of: Value
    axes: tuple[int, ...]
    dims: tuple[int | None, ...]


class Reach(NamedTuple):
    """Along these axes, one element at least is not below `least` (or is NaN)."""

    axes: tuple[int, ...]
    least: float


@dataclass(frozen=True, eq=False)
class Value:
    """One variable, for all runs at once. Compared by identity: the same variable is the same.

    Attributes:
      interval: what its elements can be; None for what has no numbers (keys, tokens, refs).
      shape, dtype: its type; the dtype of what has no numbers is None.
      array: itself, where it is known.
      frozen: it depends on constants only, so the compiler may fold it.
      product: it was multiplied or divided by a constant last.
      quotient: what it is the quotient of.
      exponent: of what it is the exponential, also by way of products and quotients of such.
      noise: by how much two computations of it may differ, if the compiler fuses it into two
        places and rounds differently; 0 for an input, inf where no rule says.
      peak, reach: see those.
    """

    interval: Interval | None
    shape: tuple[int, ...]
    dtype: Any
    array: Any = None
    frozen: bool = False
    product: bool = False
    quotient: tuple[Value, Value] | None = None
    exponent: Interval | None = None
    noise: float = math.inf
    peak: Peak | None = None
    reach: Reach | None = None

    @property
    def numbers(self) -> Interval:
        """The interval, of what has one."""
        assert self.interval is not None
        return self.interval

    @property
    def size(self) -> float:
        return size_of(self.shape)

    def forgetting(self) -> Value:
        """The same without what relates it to other values: one of several runs of a program."""
        return replace(
            self, product=False, quotient=None, exponent=None, peak=None, reach=None, noise=math.inf
        )


@dataclass(frozen=True)
class Operation:
    """One equation and what is known of its operands, as rules are handed it.

    Attributes:
      name: what tables know it as (see `computations`).
      shape, dtype: of its first result.
      sizes: how many devices there are along each mesh axis that it is inside of.
    """

    name: str
    params: Mapping[str, Any]
    operands: Sequence[Value]
    shape: tuple[int, ...]
    dtype: np.dtype
    results: Sequence[Any] = ()
    sizes: Mapping[Any, int] = field(default_factory=dict)

    @property
    def first(self) -> Interval:
        """The interval of the first operand, as arithmetic sees it (see `flushed`)."""
        return self.nth(0)

    @property
    def second(self) -> Interval:
        return self.nth(1)

    def nth(self, n: int) -> Interval:
        operand = self.operands[n]
        return flushed(operand.numbers, operand.dtype)

    @property
    def same(self) -> bool:
        """Whether both operands are one and the same value."""
        return self.operands[0] is self.operands[1]

    @property
    def is_float(self) -> bool:
        """Whether it computes in floats."""
        return kind_of(self.operands[0].dtype).is_float
