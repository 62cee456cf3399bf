"""The least L1 or L2 norm of the error, values spread evenly within each bin.

Caffe2's `dnnlowp::NormMinimization` (github.com/pytorch/pytorch at v1.13,
caffe2/quantization/server/norm_minimization.cc). The interval consists of whole bins; it is cut
in as many equal parts as the format has codes, the values in each part become its center, and
those outside the center of the nearest. `l1` and `l2` are its brute force search over all first
and last bins (symmetric: over intervals around zero), `l1_approx` and `l2_approx` its
`NonlinearQuantizationParamsSearch`, which cuts quantiles off while the error falls; torch.ao's
HistogramObserver does the latter. Symmetric it falls back to the former, as there.

The error of an interval is a sum of integrals of x**k times a density that is constant on each
bin, so it takes a look-up in running sums for each code, not a loop over bins. Beyond 128 bins
the brute force search is made on a grid of ends and then for all ends around the best.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Sequence

import numpy as np

from jax_ranges.affine import Target
from jax_ranges.choosers.base import Bins, Interval, uniform_only

GRID = 128
MOST_LEVELS = 1 << 10
STEP = 1e-5  # of quantiles

Norm = Callable[["Moments", np.ndarray, np.ndarray], np.ndarray]
Span = tuple[int, int]
"""A first bin and a number of bins."""


def l1(bins: Bins, target: Target, /) -> Interval:
    """The least sum of absolute errors."""
    return _minimal("l1", bins, target, _absolute)


def l2(bins: Bins, target: Target, /) -> Interval:
    """The least sum of squared errors."""
    return _minimal("l2", bins, target, _squared)


def l1_approx(bins: Bins, target: Target, /) -> Interval:
    """As l1, by cutting quantiles off."""
    return _approximate("l1_approx", bins, target, _absolute)


def l2_approx(bins: Bins, target: Target, /) -> Interval:
    """As l2, by cutting quantiles off."""
    return _approximate("l2_approx", bins, target, _squared)


def _minimal(method: str, bins: Bins, target: Target, norm: Norm) -> Interval:
    bins = _checked(method, bins, target)
    error = functools.partial(_errors, Moments.of(bins), norm, target.levels)
    spans = _symmetric if target.symmetric else _everywhere
    return _interval(bins, spans(bins, error))


def _checked(method: str, bins: Bins, target: Target) -> Bins:
    uniform_only(method, target)
    if target.levels > MOST_LEVELS:
        raise ValueError(
            f"method {method!r} is for up to {MOST_LEVELS} codes, and {target.format.name} has "
            f"{target.levels}: with so many, clipping gains nothing; take 'minmax'"
        )
    return bins.with_zero()


def _interval(bins: Bins, span: Span) -> Interval:
    first, count = span
    return Interval(bins.lo + bins.width * first, bins.lo + bins.width * (first + count))


# -- searching --------------------------------------------------------------------------------

Errors = Callable[[np.ndarray, int], np.ndarray]
"""The errors for several first bins and a number of bins."""


def _everywhere(bins: Bins, errors: Errors) -> Span:
    n = len(bins.counts)
    stride = -(-n // GRID)
    counts = [*range(stride, n, stride), n]
    best = _least(errors, [(range(0, n - count + 1, stride), count) for count in counts])
    if stride == 1:
        return best
    first, count = best
    near = [
        (range(max(first - stride, 0), min(first + stride, n - c) + 1), c)
        for c in range(max(count - stride, 1), min(count + stride, n) + 1)
    ]
    return _least(errors, [(firsts, c) for firsts, c in near if firsts])


def _symmetric(bins: Bins, errors: Errors) -> Span:
    n, zero = len(bins.counts), round(-bins.lo / bins.width) if bins.width else 0
    spans = ((0 if bins.lo == 0 else zero - count // 2, count) for count in range(1, n + 1))
    return _least(errors, [(range(first, first + 1), count) for first, count in spans])


def _least(errors: Errors, tried: Sequence[tuple[range, int]]) -> Span:
    """Of equal errors that of the fewest bins, and of these the first."""
    best, least = (0, 1), np.inf
    for firsts, count in tried:
        found = errors(np.array(firsts, np.float64), count)
        i = int(np.argmin(found))
        if found[i] < least:
            best, least = (firsts[i], count), found[i]
    return best


def _approximate(method: str, bins: Bins, target: Target, norm: Norm) -> Interval:
    if target.symmetric:
        return _minimal(method, bins, target, norm)
    bins = _checked(method, bins, target)
    error = functools.partial(_errors, Moments.of(bins), norm, target.levels)
    return _interval(bins, _descended(np.cumsum(bins.counts).tolist(), error))


def _descended(reached: list[float], errors: Errors) -> Span:
    """Cut a quantile off the end that then lies more bins further in, while the error falls."""
    total, least = reached[-1], np.inf
    alpha, beta, first, last = 0.0, 1.0, 0, len(reached) - 1
    while alpha < beta:
        i = min(bisect.bisect_left(reached, (alpha + STEP) * total, first), last)
        j = max(bisect.bisect_right(reached, (beta - STEP) * total, 0, last + 1) - 1, first)
        from_left = i - first > last - j
        alpha, beta = (alpha + STEP, beta) if from_left else (alpha, beta - STEP)
        moved = (i, last) if from_left else (first, j)
        if moved == (first, last):
            continue
        error = errors(np.array([moved[0]], np.float64), moved[1] - moved[0] + 1)[0]
        if error > least:
            break
        least, (first, last) = error, moved
    return first, last - first + 1


# -- the error of an interval -----------------------------------------------------------------


class Moments:
    """Integrals of 1, x and x**2 times the density, from the first bin to any x.

    In units of a bin, as all here: density, x, and the width of what codes stand for.
    """

    def __init__(self, counts: np.ndarray, running: np.ndarray):
        self._counts, self._running = counts, running

    @classmethod
    def of(cls, bins: Bins) -> Moments:
        at = np.arange(len(bins.counts) + 1.0)
        parts = [bins.counts * np.diff(at ** (k + 1)) / (k + 1) for k in range(3)]
        running = [np.concatenate([[0.0], np.cumsum(part)]) for part in parts]
        return cls(bins.counts, np.array(running))

    def upto(self, x: np.ndarray, powers: int) -> list[np.ndarray]:
        """The first so many of them."""
        x = np.clip(x, 0.0, len(self._counts))
        i = np.minimum(x.astype(np.int64), len(self._counts) - 1)
        density = self._counts[i]
        return [
            self._running[k][i] + density * (x ** (k + 1) - i ** (k + 1.0)) / (k + 1)
            for k in range(powers)
        ]


def _errors(
    moments: Moments, norm: Norm, levels: int, firsts: np.ndarray, count: int
) -> np.ndarray:
    """The norms for intervals of `count` bins from each of `firsts` on."""
    part = count / levels
    cuts = firsts[:, None] + part * np.arange(levels + 1)
    centers = cuts[:, :-1] + part / 2
    cuts[:, 0], cuts[:, -1] = -np.inf, np.inf  # what is outside goes to the nearest center
    return norm(moments, cuts, centers)


def _squared(moments: Moments, cuts: np.ndarray, centers: np.ndarray) -> np.ndarray:
    m0, m1, m2 = (np.diff(m) for m in moments.upto(cuts, 3))
    return np.sum(m2 - 2 * centers * m1 + centers**2 * m0, -1)


def _absolute(moments: Moments, cuts: np.ndarray, centers: np.ndarray) -> np.ndarray:
    (c0, c1), (at0, at1) = (moments.upto(x, 2) for x in (cuts, centers))
    left = centers * (at0 - c0[:, :-1]) - (at1 - c1[:, :-1])
    right = (c1[:, 1:] - at1) - centers * (c0[:, 1:] - at0)
    return np.sum(left + right, -1)
