"""The least Kullback-Leibler divergence: TensorRT's "entropy calibration".

S. Migacz, 8-bit Inference with TensorRT, GTC 2017, in the form of
`pytorch_quantization.calib.histogram._compute_amax_entropy` (github.com/NVIDIA/TensorRT,
tools/pytorch-quantization). Of a histogram of magnitudes (TensorRT's has 2048 bins), the first i
bins, i from `start_bin` on, are merged into as many levels as the format has on one side of zero
(128 of int8); each level is spread again evenly over those of its bins that are not empty. The
divergence is that of this from the first i bins with all that is clipped added to the last. The
bin at zero counts as the one beside it does: many values are exactly zero, and these cost
nothing. Of equal divergences the farthest threshold is taken.
"""

from __future__ import annotations

import numpy as np

from jax_ranges.affine import Target
from jax_ranges.choosers.base import Bins, Interval, clipped, uniform_only


def kl(bins: Bins, target: Target, /, start_bin: int = 128, stride: int = 1) -> Interval:
    """The interval between minus and plus the threshold, as far as there are values."""
    uniform_only("kl", target)
    values = bins.magnitudes()
    counts = values.counts.copy()
    if len(counts) > 1:
        counts[0] = counts[1]
    one_sided = bins.lo >= 0 and (target.qmin == 0 or not target.symmetric)
    levels = target.levels if one_sided else (target.levels + 1) // 2
    ends = range(min(start_bin, len(counts)), len(counts) + 1, stride)
    divergences = np.array([_divergence(counts, end, levels) for end in ends])
    last = len(ends) - 1 - int(np.argmin(divergences[::-1]))
    return clipped(bins, float(values.edges[ends[last]]))


def _divergence(counts: np.ndarray, end: int, levels: int) -> float:
    kept = counts[:end]
    reference = kept.copy()
    reference[-1] += counts[end:].sum()
    return _entropy(reference, _merged(kept, levels))


def _merged(kept: np.ndarray, levels: int) -> np.ndarray:
    """The counts of each level, evenly over its bins that are not empty."""
    starts = np.linspace(0, len(kept), levels + 1)
    level = np.searchsorted(starts, np.arange(len(kept)), side="right") - 1
    total = np.bincount(level, kept, levels)
    bins = np.bincount(level, kept != 0, levels)
    return np.where(kept != 0, (total / np.maximum(bins, 1))[level], 0.0)


def _entropy(p: np.ndarray, q: np.ndarray) -> float:
    """Of p relative to q, both normalized; infinite where q is zero and p is not."""
    if not p.any() or not q.any():
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    if np.any((q == 0) & (p > 0)):
        return np.inf
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))
