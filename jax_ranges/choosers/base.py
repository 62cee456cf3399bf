"""What choosers are given: a histogram on the host, and the format to choose for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from jax_ranges.affine import Target


class HistogramLike(Protocol):
    """Counts of finite values in bins of equal width.

    Attributes:
      edges: float64, one more than there are bins, ascending; leading axes are allowed.
      counts: how many values were in each bin; the same leading axes.
    """

    @property
    def edges(self) -> np.ndarray: ...

    @property
    def counts(self) -> np.ndarray: ...


class Interval(NamedTuple):
    """The values that are not clipped."""

    lo: float
    hi: float


@dataclass(frozen=True)
class Bins:
    """A histogram without the empty bins at its ends, at least one bin with a positive count.

    Attributes:
      edges, counts: as those of `HistogramLike`; counts as float64, exact up to 2**53.
    """

    edges: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, edges: np.ndarray, counts: np.ndarray) -> Bins:
        """Of a histogram that is not empty, whose range may have grown beyond the values."""
        full = np.flatnonzero(counts)
        part = slice(full[0], full[-1] + 1)
        return cls(edges[part.start : part.stop + 1], counts[part].astype(np.float64))

    @property
    def lo(self) -> float:
        return float(self.edges[0])

    @property
    def hi(self) -> float:
        return float(self.edges[-1])

    @property
    def width(self) -> float:
        """Of one bin."""
        return (self.hi - self.lo) / len(self.counts)

    @property
    def centers(self) -> np.ndarray:
        return self.edges[:-1] / 2 + self.edges[1:] / 2  # the sum could be infinite

    def below(self, x: np.ndarray) -> np.ndarray:
        """How many values are below x, taken to be spread evenly within each bin."""
        return np.interp(x, self.edges, np.concatenate([[0.0], np.cumsum(self.counts)]))

    def magnitudes(self) -> Bins:
        """The histogram of absolute values, from zero on, in bins of about the same width.

        Exact if zero is one of the edges; otherwise bins are cut where they overlap.
        """
        zero = round(-self.lo / self.width) if self.width else -1
        if 0 <= zero <= len(self.counts) and abs(self.edges[zero]) < 1e-6 * self.width:
            return self._folded(zero)
        amax = max(self.hi, -self.lo)
        # Far from zero and narrow, it would take a million bins to get there.
        count = min(amax / self.width if self.width else 1.0, 4.0 * max(len(self.counts), 512))
        edges = np.linspace(0.0, amax, max(round(count), 1) + 1)
        counts = np.diff(self.below(edges) - self.below(-edges))
        # What is left where sums of counts cancel is no count.
        return Bins(edges, np.where(counts < 1e-9 * counts.sum(), 0.0, counts))

    def _folded(self, zero: int) -> Bins:
        """The side below that edge laid on the one above."""
        below, above = self.counts[:zero][::-1], self.counts[zero:]
        longer = self.edges[zero:] if len(above) >= len(below) else -self.edges[: zero + 1][::-1]
        counts = np.zeros(len(longer) - 1)
        for side in (below, above):
            counts[: len(side)] += side
        return Bins(np.concatenate([[0.0], longer[1:]]), counts)

    def with_zero(self) -> Bins:
        """Bins of the same width, down or up to one that has zero in it or at its end.

        As dnnlowp's `adjust_hist_to_include_zero`; evened out over as many bins as there are
        now where zero is so far away that it would take more than eight times as many.
        """
        if self.lo <= 0 <= self.hi:
            return self
        far, bins = min(abs(self.lo), abs(self.hi)), len(self.counts)
        more = np.ceil(far / self.width) if self.width else np.inf
        if more > 8 * bins:
            return self._evened()
        beyond, none = self.width * np.arange(1, more + 1), np.zeros(int(more))
        if self.lo > 0:
            edges = np.concatenate([self.lo - beyond[::-1], self.edges])
            return Bins(edges, np.concatenate([none, self.counts]))
        return Bins(
            np.concatenate([self.edges, self.hi + beyond]), np.concatenate([self.counts, none])
        )

    def _evened(self) -> Bins:
        edges = np.linspace(min(self.lo, 0.0), max(self.hi, 0.0), len(self.counts) + 1)
        return Bins(edges, np.diff(self.below(edges)))


def uniform_only(method: str, target: Target) -> None:
    """ValueError if the target is of floats, for which the method is not defined."""
    if not target.format.uniform:
        raise ValueError(
            f"method {method!r} counts equal steps, which {target.format.name} does not have; "
            f"for floats there are 'minmax', 'percentile' and 'mse'"
        )


def clipped(bins: Bins, amax: float) -> Interval:
    """The values whose magnitude is no larger, as far as there are any on either side."""
    return Interval(max(bins.lo, -amax), min(bins.hi, amax))


Chooser = Callable[..., Interval]
"""Which values a format should cover: of `(Bins, Target, /, **options)`."""
