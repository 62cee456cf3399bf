"""MovingAverage: what other tools' moving-average calibrators would have made of the same calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from jax_ranges.files import File, load
from jax_ranges.range import Range
from jax_ranges.ranges import Ranges


@dataclass(frozen=True)
class MovingAverage:
    """Exponential moving averages of the ends of ranges, over calls in their order.

    Order matters, so it is no statistic that merges over batches and devices: it is a view over
    the extrema of single calls, given as `Ranges` or as files (dumps of `jr.Net`, with
    `dump_every=1` one a call). Two conventions, `of` and `bounds`:

    - `of` is PyTorch's `MovingAverageMinMaxObserver` (torch/ao/quantization/observer.py): the
      first call sets min and max; later ones move them, `min += constant * (new - min)`.
    - `bounds` is AQT's `max_dev` (github.com/google/aqt, `WeightedStatsCalibration` of
      aqt/jax/v2/flax/aqt_flax_calibration.py): an average of the largest magnitude that starts
      at a prior, `bound = (1 - rate) * bound + rate * amax`, with rate = 1 / ema_update_count,
      which is `constant` here.

    Averages are float64, whereas these tools compute in float32. A call in which a site was not
    observed leaves its average as it is. NaN was left out of the extrema (the tools' own averages
    would be NaN from then on); `nan` says whether there was one.

    Args:
      constant: the share of a new call, above 0 and up to 1. PyTorch's default is 0.01.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> calls = [jr.ranges(jnp.square)(jnp.array([0.0, x]))[1] for x in (1.0, 2.0, 3.0)]
      >>> jr.MovingAverage(0.5).of(calls)["square"]
      Range(min=0.0, max=5.75, nan=False)
      >>> jr.MovingAverage(0.5).bounds(calls)["square"]
      5.625
    """

    constant: float = 0.01

    no_statistic: ClassVar[str] = (
        ": order matters to moving averages, so they do not merge over batches and devices; "
        "jr.MovingAverage(...).of(calls) averages the ranges of single calls"
    )

    def __post_init__(self) -> None:
        if not 0 < self.constant <= 1:
            raise ValueError(f"the share of a new call is above 0 and up to 1, not {self.constant}")

    def of(self, calls: Iterable[Ranges | File]) -> dict[str, Range]:
        """The averages as PyTorch takes them, of every site that was observed, in program order."""
        ends: dict[str, tuple[Any, Any, Any]] = {}
        for ranges in map(_ranges, calls):
            for name, found in ranges.items():
                if _is_seen(name, found):
                    new = _wide(found)
                    ends[name] = self._moved(ends[name], new) if name in ends else new
        return {name: Range(*each) for name, each in ends.items()}

    def _moved(self, old: tuple[Any, Any, Any], new: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        with np.errstate(invalid="ignore"):  # of infinite ends
            lo, hi = (a + self.constant * (b - a) for a, b in zip(old[:2], new[:2], strict=True))
        return lo, hi, old[2] | new[2]

    def bounds(self, calls: Iterable[Ranges | File], prior: float = 0.0) -> dict[str, float]:
        """The averages of the largest magnitude as AQT takes them; `prior`: its `max_dev_prior`."""
        bounds: dict[str, float] = {}
        for ranges in map(_ranges, calls):
            for name, found in ranges.items():
                if _is_seen(name, found):
                    lo, hi, _ = _wide(found)
                    old = bounds.get(name, prior)
                    bounds[name] = float((1 - self.constant) * old + self.constant * max(-lo, hi))
        return bounds


def _ranges(call: Ranges | File) -> Ranges:
    return call if isinstance(call, Ranges) else load(call)


def _is_seen(name: str, found: Range) -> bool:
    """Whether a call saw a number there; ValueError if the range is not that of one call."""
    if np.ndim(found.min):
        raise ValueError(
            f"site {name!r} has a range of shape {np.shape(found.min)} (stacked loops, or vmap); "
            f"average the .reduce() of each call"
        )
    return bool(found.min <= found.max)


def _wide(found: Range) -> tuple[Any, Any, Any]:
    """The ends in float64."""
    return np.float64(found.min), np.float64(found.max), np.bool_(found.nan)
