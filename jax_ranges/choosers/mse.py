"""The least mean squared error, each value standing at the center of its bin.

Symmetric: `pytorch_quantization.calib.histogram._compute_amax_mse` (github.com/NVIDIA/TensorRT,
tools/pytorch-quantization): of the centers of the bins of magnitudes, from `start_bin` on, the
one that as the clipping threshold gives the least error. Otherwise both ends are drawn in by the
same share, as by `MovingAverageMSEObserver` of llm-compressor (github.com/vllm-project,
src/llmcompressor/observers/mse.py; there in 20 steps of a hundredth, stopping early, and for the
norm of power 2.4; here in steps of one bin). Works for floats too.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from jax_ranges.affine import Target, affine, stored
from jax_ranges.choosers.base import Bins, Interval, clipped
from jax_ranges.rounding import round_to


def mse(bins: Bins, target: Target, /, start_bin: int = 128, stride: int = 1) -> Interval:
    """The interval of the least mean squared error."""
    if target.symmetric or not target.format.uniform:
        values = bins.magnitudes()
        thresholds = _from(values.centers, start_bin, stride)
        return _best(values, target, (clipped(bins, float(t)) for t in thresholds))
    shares = _from(np.arange(1, len(bins.counts) + 1) / len(bins.counts), start_bin, stride)
    lo, hi = min(bins.lo, 0.0), max(bins.hi, 0.0)
    return _best(bins, target, (Interval(lo * share, hi * share) for share in shares))


def _from(candidates: np.ndarray, start_bin: int, stride: int) -> np.ndarray:
    """All of them where there are too few bins to begin later."""
    return candidates[start_bin if start_bin < len(candidates) else 0 :: stride]


def _best(values: Bins, target: Target, candidates: Iterable[Interval]) -> Interval:
    return min(candidates, key=lambda interval: _error(values, target, interval))


def _error(values: Bins, target: Target, interval: Interval) -> float:
    centers = values.centers
    scale, zero_point = affine(target, np.float64(interval.lo), np.float64(interval.hi))
    scale = stored(scale, np.dtype(np.float64))
    codes = (int(target.qmin), int(target.qmax)) if target.format.uniform else None
    rounded = round_to(target.format, centers, scale, zero_point, codes)
    # As a part of the largest, lest its square be infinite.
    error = (rounded - centers) / max(abs(values.lo), abs(values.hi), 1e-300)
    return float(np.sum(error**2 * values.counts))
