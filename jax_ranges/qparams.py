"""`jr.qparams`: from a range or a histogram to scale and zero point.

Two steps: a *chooser* picks the interval of values that is not clipped (`jax_ranges.choosers`,
which has the published definitions), and the interval becomes a scale and a zero point in one
way for all of them (`jax_ranges.affine`).
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat, keys
from jax_ranges.affine import Target, affine, stored
from jax_ranges.choosers import CHOOSERS, HistogramLike
from jax_ranges.choosers.base import Bins
from jax_ranges.formats import Format, FormatLike, format_of
from jax_ranges.ranges import Range
from jax_ranges.rounding import round_to


class NonFiniteRangeWarning(UserWarning):
    """A scale was made from a range that has infinities or NaN in it.

    Example:
      >>> import warnings
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.log)(jnp.array([0.0, 1.0]))
      >>> with warnings.catch_warnings():
      ...     warnings.simplefilter("error", jr.NonFiniteRangeWarning)
      ...     jr.qparams(ranges["log"], "int8")  # doctest: +IGNORE_EXCEPTION_DETAIL
      Traceback (most recent call last):
      ...
      jax_ranges.qparams.NonFiniteRangeWarning: the range has an infinity in it; ...
    """


class NotObservedError(ValueError):
    """Nothing was seen from which a scale could be made.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.sin)(jnp.ones((0, 3)))  # an empty array
      >>> jr.qparams(ranges["sin"], "int8")
      Traceback (most recent call last):
      ...
      jax_ranges.qparams.NotObservedError: nothing was observed, so there is no range to make a \
scale of
    """


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QParams:
    """How values are quantized: value = scale * (code - zero_point), code from qmin to qmax.

    A pytree of scale and zero_point.

    Attributes:
      scale, zero_point: scalars, or arrays with one element a channel, or with the leading axes
        (vmap, stacked loops) of the range. The zero point of floats is 0.
      qmin, qmax: the least and the largest code; of floats the finite ends.
      format: the format.
      axis: of a value, the axis along which the last axis of scale and zero_point lies; None:
        their axes are the value's first ones.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> x = jnp.array([-1.0, 0.3, 2.0])
      >>> _, ranges = jr.ranges(jnp.negative)(x)
      >>> q = jr.qparams(ranges["neg"], "uint4")
      >>> q.scale, q.zero_point, q.qmin, q.qmax, q.format.name
      (np.float32(0.2), np.int32(10), 0, 15, 'uint4')
      >>> q.round(-x)
      Array([ 1. , -0.4, -2. ], dtype=float32)
    """

    scale: Any
    zero_point: Any
    qmin: int | float = field(metadata={"static": True})
    qmax: int | float = field(metadata={"static": True})
    format: Format = field(metadata={"static": True})
    axis: int | None = field(default=None, metadata={"static": True})

    def round(self, x: Any) -> Any:
        """What x becomes when quantized and dequantized; see `Format.round`."""
        scale, zero_point = (self.along(part, np.ndim(x)) for part in (self.scale, self.zero_point))
        if not self.format.uniform:
            return round_to(self.format, x, scale)
        return round_to(self.format, x, scale, zero_point, (int(self.qmin), int(self.qmax)))

    def along(self, part: Any, ndim: int) -> Any:
        """A scale or zero point in a shape that broadcasts against values of so many axes."""
        lead = np.shape(part)
        if not lead:
            return part
        if self.axis is None:
            return part.reshape(*lead, *[1] * (ndim - len(lead)))
        shape = [*lead[:-1], *[1] * (ndim - len(lead) + 1)]
        shape[self.axis % ndim] = lead[-1]
        return part.reshape(shape)


def qparams(
    source: Range | HistogramLike,
    format: FormatLike,  # noqa: A002 - the contract's name for it
    symmetric: bool = False,
    method: str = "minmax",
    axis: int | None = None,
    *,
    power_of_two: bool = False,
    margin: int = 0,
    narrow: bool = False,
    **options: Any,
) -> QParams:
    """Scale and zero point of a format for what was seen.

    Zero is always representable. The scale is finite and positive whatever was seen, in float64
    if the range is, else in float32.

    Args:
      source: a range, or a histogram (anything with `edges` and `counts`, leading axes allowed),
        which all methods but "minmax" need.
      format: a name (see `jax_ranges.formats`) or a dtype. Fixed point and blocks carry their
        scale, and get 1.
      symmetric: the zero point is in the middle: 0 of signed formats.
      method: what is not clipped.
        "minmax": everything.
        "percentile": all but the farthest; `percentile=99.99` per cent (pytorch-quantization).
        "mse": least squared error; `start_bin=128`, `stride=1` (pytorch-quantization).
        "kl": least divergence; `start_bin=128`, `stride=1` (TensorRT's entropy calibration).
        "l1", "l2": least norm, searched everywhere (Caffe2's dnnlowp).
        "l1_approx", "l2_approx": least norm, by descent (dnnlowp; torch.ao's HistogramObserver).
      axis: the axis of the value along which the last axis of the source's arrays lies, kept for
        `QParams.round`. Every element of the source has a scale of its own in any case.
      power_of_two: the scale is rounded up to one.
      margin: of floats, so many powers of two are left free above (TransformerEngine).
      narrow: of signed integers, the least code is not used: -127 to 127 (TensorRT).

    Raises:
      NotObservedError: nothing (or only NaN) was seen. While tracing (jit, vmap), where nothing
        can be raised, the scale is NaN then. (There all is computed in the range's dtype, and
        the zero point may be another by one.)
      ValueError, TypeError: there is no such format, method or option, the method needs a
        histogram, or is not defined for the format.

    Warns:
      NonFiniteRangeWarning: NaN or infinities were seen. For an infinite end of a range the
        largest finite number is taken; a histogram's bins have only what is finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.negative)(jnp.array([-3.0, 1.0]))
      >>> q = jr.qparams(ranges["neg"], "uint8")
      >>> q.scale, q.zero_point, q.qmin, q.qmax
      (np.float32(0.015686275), np.int32(64), 0, 255)
      >>> jr.qparams(ranges["neg"], "float8_e4m3fn").scale
      np.float32(0.0066964286)
      >>> jr.qparams(ranges["neg"], "int8", method="kl")
      Traceback (most recent call last):
      ...
      ValueError: method 'kl' needs a histogram, and a range has none: take jr.Histogram() at \
the site and give that
    """
    target = target_of(format_of(format), symmetric, narrow)
    chooser_options = _checked(method, options)
    how = {"power_of_two": power_of_two, "margin": margin}
    _check_source(source, method)
    if isinstance(source, Range):
        found = _of_range(source, target, how)
    else:
        found = _of_histogram(source, target, method, chooser_options, how)
    return replace(found, axis=axis)


def _check_source(source: Any, method: str) -> None:
    if not isinstance(source, Range):
        if not (hasattr(source, "edges") and hasattr(source, "counts")):
            raise TypeError(
                f"a scale is made of a jr.Range or of a histogram with edges and counts; got "
                f"{type(source).__name__}"
            )
    elif method != "minmax":
        raise ValueError(
            f"method {method!r} needs a histogram, and a range has none: take jr.Histogram() at "
            f"the site and give that"
        )


def target_of(fmt: Format, symmetric: bool, narrow: bool = False) -> Target:
    """What parameters of a format are for; ValueError for formats that cannot be scaled."""
    if not fmt.has_zero:
        raise ValueError(f"{fmt.name} has no zero: it is a format of scales, not of values")
    qmin, qmax = fmt.codes if fmt.uniform else (fmt.least, fmt.largest)
    if qmax < 1:
        raise ValueError(f"{fmt.name} has no number above zero to scale by")
    return Target(fmt, symmetric, -qmax if narrow and qmin < 0 else qmin, qmax)


def _checked(method: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    if method not in CHOOSERS:
        raise ValueError(f"no method {method!r}; there are {', '.join(map(repr, CHOOSERS))}")
    known = list(inspect.signature(CHOOSERS[method]).parameters)[2:]
    wrong = [name for name in options if name not in known]
    if wrong:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise TypeError(f"method {method!r} has no option {wrong[0]!r}; {takes}")
    return options


def _result(target: Target, scale: Any, zero_point: Any, dtype: np.dtype, xp: Any) -> QParams:
    scale = stored(xp.asarray(scale), dtype, xp)
    zero_point = xp.asarray(zero_point).astype(np.int32)
    if xp is np:  # scalars, as ranges have them
        scale, zero_point = scale[()], zero_point[()]
    return QParams(scale, zero_point, target.qmin, target.qmax, target.format)


# -- of a range -------------------------------------------------------------------------------


def _of_range(found: Range, target: Target, how: Mapping[str, Any]) -> QParams:
    lo, hi = found.min, found.max
    if any(compat.is_traced(part) for part in (lo, hi, found.nan)):
        return _traced(found, target, how)
    lo, hi, nan = (np.asarray(part) for part in (lo, hi, found.nan))
    _require_seen(lo <= hi, nan)
    dtype = _scale_dtype(lo.dtype)
    carrier = lo.dtype if keys.is_float(lo.dtype) else np.dtype(np.float64)
    _say_what_is_not_finite(lo, hi, nan)
    most = np.finfo(carrier).max
    lo, hi = (np.clip(end.astype(np.float64), -most, most) for end in (lo, hi))
    with np.errstate(over="ignore"):
        return _result(target, *affine(target, lo, hi, **how), dtype, np)


def _scale_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _traced(found: Range, target: Target, how: Mapping[str, Any]) -> QParams:
    """The same, elementwise and with nothing to raise: NaN where there can be no scale."""
    dtype = _scale_dtype(np.dtype(found.min.dtype))
    most = np.finfo(dtype).max
    lo, hi = (
        jnp.clip(jnp.asarray(end).astype(dtype), -most, most) for end in (found.min, found.max)
    )
    scale, zero_point = affine(target, lo, hi, jnp, **how)
    seen = jnp.asarray(found.min) <= jnp.asarray(found.max)
    return _result(target, jnp.where(seen, scale, jnp.nan), zero_point, dtype, jnp)


def _require_seen(seen: np.ndarray, nan: np.ndarray) -> None:
    if seen.all():
        return
    what = "only NaN was seen" if nan[~seen].all() else "nothing was observed"
    where = f" in {int((~seen).sum()):,} of {seen.size:,} elements" if seen.size > 1 else ""
    raise NotObservedError(f"{what}{where}, so there is no range to make a scale of")


def _say_what_is_not_finite(lo: np.ndarray, hi: np.ndarray, nan: np.ndarray) -> None:
    if not keys.is_float(lo.dtype):
        return
    infinite = np.isinf(lo).any() or np.isinf(hi).any()
    if infinite:
        _warn(
            "the range has an infinity in it; the scale covers all finite numbers in its place, "
            "which leaves little precision: take a histogram, which counts what is finite"
        )
    if nan.any():
        _warn("a NaN was seen; the scale is that of the other values")


def _warn(text: str) -> None:
    warnings.warn(text, NonFiniteRangeWarning, stacklevel=5)


# -- of a histogram ---------------------------------------------------------------------------


def _of_histogram(
    source: HistogramLike,
    target: Target,
    method: str,
    options: Mapping[str, Any],
    how: Mapping[str, Any],
) -> QParams:
    edges, counts = np.asarray(source.edges, np.float64), np.asarray(source.counts)
    _check_shapes(edges, counts)
    lead = counts.shape[:-1]
    edges = np.broadcast_to(edges, (*lead, edges.shape[-1]))
    total = counts.sum(-1)
    _require_seen(total > 0, np.zeros(lead, bool))
    _say_what_was_left_out(source)
    ends = np.empty((*lead, 2))
    with np.errstate(over="ignore", invalid="ignore"):
        for at in np.ndindex(lead):
            ends[at] = CHOOSERS[method](Bins.of(edges[at], counts[at]), target, **options)
        lo, hi = ends[..., 0], ends[..., 1]
        return _result(target, *affine(target, lo, hi, **how), np.dtype(np.float32), np)


def _say_what_was_left_out(source: HistogramLike) -> None:
    """`jr.Histogram` counts what is in no bin, too; other histograms need not."""
    left_out = {
        what: int(np.sum(getattr(source, name, 0)))
        for name, what in (("nan", "NaN"), ("pos_inf", "inf"), ("neg_inf", "-inf"))
    }
    seen = [f"{count:,} {what}" for what, count in left_out.items() if count]
    if seen:
        _warn(f"the histogram leaves out {', '.join(seen)}; the scale is that of the other values")


def _check_shapes(edges: np.ndarray, counts: np.ndarray) -> None:
    ok = counts.ndim and edges.ndim and edges.shape[-1] == counts.shape[-1] + 1
    if not (ok and np.isfinite(edges).all() and (np.diff(edges) >= 0).all()):
        raise ValueError(
            f"a histogram has ascending finite edges, one more than counts; got edges of shape "
            f"{edges.shape} and counts of shape {counts.shape}"
        )
    if (counts < 0).any():
        raise ValueError("a histogram's counts are not negative")
