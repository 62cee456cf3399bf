"""All but the few farthest values.

Symmetric: of magnitudes, `pytorch_quantization.calib.histogram._compute_amax_percentile`
(github.com/NVIDIA/TensorRT, tools/pytorch-quantization): the lower edge of the bin at which the
share of values reaches the percentile. (onnxruntime's `PercentileCalibrater` takes the same for
symmetric ranges.) Otherwise half of what is cut is cut from either end, which is what
onnxruntime's does (onnxruntime/python/tools/quantization/calibrate.py, `compute_percentile`).
"""

from __future__ import annotations

import numpy as np

from jax_ranges.affine import Target
from jax_ranges.choosers.base import Bins, Interval, clipped


def percentile(bins: Bins, target: Target, /, percentile: float = 99.99) -> Interval:
    """The interval that holds `percentile` per cent of the values."""
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile is in per cent, above 0 and up to 100; got {percentile!r}")
    if target.symmetric:
        magnitudes = bins.magnitudes()
        return clipped(bins, _edge(magnitudes, percentile / 100))
    cut = (100 - percentile) / 200
    lo, hi = _edge(bins, cut), _edge(bins, 1 - cut)
    return Interval(lo, hi)


def _edge(bins: Bins, share: float) -> float:
    """The lower edge of the bin in which that share of the values is reached."""
    reached = np.cumsum(bins.counts / bins.counts.sum())
    # The sum may end a little below 1; then all are below the last edge.
    return float(bins.edges[min(np.searchsorted(reached, share), len(bins.counts))])
