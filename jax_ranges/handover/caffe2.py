"""Caffe2: lines of quantization parameters and of histograms, as its observers write them.

Both formats are those of github.com/pytorch/pytorch at v1.13,
caffe2/quantization/server/activation_distribution_observer.cc:

    op_index op_type output_idx tensor_name min max scale zero_point precision
    op_index op_type output_idx tensor_name min max nbins count_0 ... count_(nbins - 1)

The former is what RegisterQuantizationParamsNetObserver writes, min and max being what the least
and the largest code stand for (fbgemm's TensorQuantizationParams::Min and Max). The latter is what
HistogramNetObserver writes, and RegisterQuantizationParamsWithHistogramNetObserver and
AddScaleZeroOffsetArgumentsWithHistogram read. `op_index` counts the operations of the ranges, as
in the lines of `ranges.save("r.minmax")`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from jax_ranges.files import File
from jax_ranges.files.as_text import operation_indices
from jax_ranges.handover.sites import Handed, Names, Unfit, handed, merged, written
from jax_ranges.qparams import QParams, qparams
from jax_ranges.range import Range
from jax_ranges.ranges import Ranges


def caffe2_qparams(
    ranges: Ranges,
    names: Names = None,
    *,
    precision: int = 8,
    symmetric: bool = False,
    digits: int | None = None,
    unfit: Unfit = "error",
    file: File | None = None,
    **how: Any,
) -> str:
    """A line of quantization parameters for each site.

    Args:
      ranges: what was seen; leading axes (stacked loops, vmap) are merged.
      names: the tensors' names, by site; see `jax_ranges.handover`.
      precision: how many bits codes have, which begin at 0.
      symmetric: zero is the middle code (Caffe2's preserve_sparsity).
      digits: of numbers; 6 is what Caffe2 prints, which is close to the number; None prints up
        to 9, as many as bring back the same float32.
      unfit: what to do about sites that no scale can be made of.
      file: where to write the text, atomically.
      how: further arguments of `jr.qparams`: `method="l2_approx"`, ...

    Raises:
      UnfitSiteError, UnknownSiteError, ValueError: see `jax_ranges.handover`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(lambda x: jnp.exp(-x))(jnp.array([-1.0, 0.5]))
      >>> print(caffe2_qparams(ranges, {"neg": "Y", "exp": "Z"}, digits=6), end="")
      0 neg 0 Y -0.5 1 0.00588235 85 8
      1 exp 0 Z 0 2.71828 0.0106599 0 8
    """
    found = handed(ranges, names, unfit, merged(ranges, how.get("method", "minmax")))
    params = [qparams(e.source, f"uint{precision}", symmetric, **how) for e in found]
    pairs = zip(_starts(ranges, found), found, params, strict=True)
    lines = [start + _qparams_fields(each, q, digits) for start, each, q in pairs]
    return written(_lines(lines), file)


def caffe2_histograms(
    ranges: Ranges,
    names: Names = None,
    *,
    digits: int | None = None,
    unfit: Unfit = "error",
    file: File | None = None,
) -> str:
    """A line with the histogram of each site, of which Caffe2 chooses parameters itself.

    Args:
      ranges: with `jr.Histogram()` among their statistics. Empty bins at the ends are left out,
        since Caffe2's histograms reach from the least to the largest value.
      names, digits, unfit, file: as those of `caffe2_qparams`.

    Raises:
      UnfitSiteError, UnknownSiteError, ValueError: see `jax_ranges.handover`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.negative, stats=jr.Histogram(bins=8))(jnp.array([0.75, -2.0]))
      >>> print(caffe2_histograms(ranges), end="")
      0 neg 0 neg -1 2 6 1 0 0 0 0 1
    """
    found = handed(ranges, names, unfit, merged(ranges, "histogram"))
    pairs = zip(_starts(ranges, found), found, strict=True)
    return written(_lines(start + _histogram_fields(each, digits) for start, each in pairs), file)


def _starts(ranges: Ranges, found: Iterable[Handed]) -> list[list[str]]:
    """The fields that all lines begin with."""
    names = [site.name for site in ranges.sites]
    indices = dict(zip(names, operation_indices(ranges.sites), strict=True))
    starts = []
    for each in found:
        site, name = each.site, each.name
        if not name or any(map(str.isspace, name)):
            raise ValueError(
                f"Caffe2 splits lines at white space, which is in the name {name!r} (or it is "
                f"empty): give another one with names="
            )
        starts.append([str(indices[site.name]), site.primitive, str(site.output), name])
    return starts


def _qparams_fields(each: Handed, q: QParams, digits: int | None) -> list[str]:
    zero_point = int(q.zero_point)
    with np.errstate(over="ignore"):
        scale = np.float32(q.scale)
        ends = [scale * np.float32(code - zero_point) for code in (q.qmin, q.qmax)]
    numbers = [_number(x, each, digits) for x in (*ends, scale)]
    return [*numbers, str(zero_point), str(q.format.bits)]


def _histogram_fields(each: Handed, digits: int | None) -> list[str]:
    histogram = each.source
    assert not isinstance(histogram, Range)
    counts = np.asarray(histogram.counts)
    full = np.flatnonzero(counts)
    first, last = full[0], full[-1] + 1
    with np.errstate(over="ignore"):
        ends = [np.float32(histogram.edges[at]) for at in (first, last)]
    ends = [_number(end, each, digits) for end in ends]
    return [*ends, str(last - first), *map(str, counts[first:last].tolist())]


def _number(x: np.float32, each: Handed, digits: int | None) -> str:
    """As C++ prints a float, with the digits asked for, or with six or as many as it takes."""
    if not np.isfinite(x):
        raise ValueError(f"{each.site.name!r} has values beyond float32, which Caffe2 has")
    tried = (f"{x:.{count}g}" for count in ((digits,) if digits else range(6, 10)))
    texts = list(tried)
    return next((text for text in texts if np.float32(text) == x), texts[-1])


def _lines(lines: Iterable[list[str]]) -> str:
    return "".join(" ".join(fields) + "\n" for fields in lines)
