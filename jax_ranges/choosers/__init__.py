"""Choosers: which part of a range a format should cover. One family a file, one literal table.

A chooser takes a histogram and returns an *interval*, the values that are not clipped; how an
interval becomes a scale is another question, with one answer (`jax_ranges.qparams`). None needs
JAX: histograms are read on the host.
"""

from jax_ranges.choosers.base import Chooser, HistogramLike, Interval
from jax_ranges.choosers.entropy import kl
from jax_ranges.choosers.extremes import minmax
from jax_ranges.choosers.mse import mse
from jax_ranges.choosers.norms import l1, l1_approx, l2, l2_approx
from jax_ranges.choosers.percentiles import percentile

CHOOSERS: dict[str, Chooser] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "l1": l1,
    "l2": l2,
    "l1_approx": l1_approx,
    "l2_approx": l2_approx,
    "kl": kl,
}

__all__ = ["CHOOSERS", "Chooser", "HistogramLike", "Interval"]
