"""All but the few farthest values.

Symmetric: of magnitudes, `pytorch_quantization.calib.histogram._compute_amax_percentile`
(github.com/NVIDIA/TensorRT, tools/pytorch-quantization): the lower edge of the bin at which the
share of values reaches the percentile. (onnxruntime's `PercentileCalibrater` takes the same for
symmetric ranges.) Otherwise half of what is cut is cut from either end, which is what
onnxruntime's does (onnxruntime/python/tools/quantization/calibrate.py, `compute_percentile`).
Where both would leave nothing, as that bin is the first one, it is kept.
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
        last = max(_reached(magnitudes, percentile / 100), 1)
        return clipped(bins, float(magnitudes.edges[last]))
    cut = (100 - percentile) / 200
    first = _reached(bins, cut)
    last = max(_reached(bins, 1 - cut), first + 1)
    return Interval(float(bins.edges[first]), float(bins.edges[min(last, len(bins.counts))]))


def _reached(bins: Bins, share: float) -> int:
    """The bin in which that share of the values is reached, if only within rounding."""
    reached = np.cumsum(bins.counts)
    return int(np.searchsorted(reached, share * (1 - 1e-12) * reached[-1]))
