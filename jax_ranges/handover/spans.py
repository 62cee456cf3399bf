"""The values that the codes of a format stand for: what consumers take that want ranges.

For `method="minmax"` and symmetric codes that is the largest magnitude seen, exactly. For the
other methods it is where they clip. Without symmetry it is the range moved by less than a step, so
that zero has a code; from which a consumer computes the scale and zero point that `jr.qparams` has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jax_ranges.files.numbers import number_text
from jax_ranges.formats import FormatLike
from jax_ranges.handover.sites import LARGEST, Source
from jax_ranges.qparams import qparams
from jax_ranges.range import Range

FLOAT32 = np.dtype(np.float32)


def covered(source: Source, format: FormatLike, **how: Any) -> tuple[float, float]:  # noqa: A002
    """What the least and the largest code stand for, to the last bit of a float32."""
    # The scale of a float64 range is a float64, whose multiples round to the right float32.
    wide = _widened(source) if isinstance(source, Range) else source
    q = qparams(wide, format, **how)
    scale, zero_point = float(q.scale), int(q.zero_point)
    lo, hi = (scale * (code - zero_point) for code in (q.qmin, q.qmax))
    return _as_float32(lo), _as_float32(hi)


def amax(source: Source, format: FormatLike, **how: Any) -> float:  # noqa: A002
    """The largest magnitude covered, the same on both sides of zero."""
    return covered(source, format, symmetric=True, narrow=True, **how)[1]


def _as_float32(value: float) -> float:
    """Of what was seen; the range moved by less than a step may end beyond."""
    return float(np.float32(min(max(value, -LARGEST), LARGEST)))


def _widened(found: Range) -> Range:
    return Range(np.float64(found.min), np.float64(found.max), found.nan)


def text(value: float) -> str:
    """The shortest text that is read back as the same float32."""
    return number_text(value, FLOAT32)
