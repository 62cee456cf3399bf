"""JSON: scales and zero points by name, for programs that know none of the other formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from jax_ranges.files import File
from jax_ranges.formats import FormatLike
from jax_ranges.handover.sites import Names, Source, Unfit, handed, merged, written
from jax_ranges.qparams import QParams, qparams
from jax_ranges.ranges import Ranges
from jax_ranges.statistics.channels import PerChannel
from jax_ranges.stats import Statistic


def scales(
    ranges: Ranges,
    names: Names = None,
    *,
    format: FormatLike = "int8",  # noqa: A002
    stat: Statistic | None = None,
    unfit: Unfit = "error",
    file: File | None = None,
    **how: Any,
) -> dict[str, dict[str, Any]]:
    """What `jr.qparams` says of each site, as plain values.

    Args:
      ranges: what was seen.
      names: the names to use, by site; see `jax_ranges.handover`.
      format: a name (see `jax_ranges.formats`) or a dtype.
      stat: the statistic to make scales of: `jr.PerChannel(axis=-1)` for one a channel, a
        `jr.MinMax()` with the leading axes of stacked loops kept, for one a layer. By default
        what the method needs, leading axes merged.
      unfit: what to do about sites that no scale can be made of.
      file: where to write it as JSON, atomically.
      how: further arguments of `jr.qparams`: `symmetric=True`, `method="mse"`, ...

    Returns:
      By name: format, scale and zero_point (numbers, or nested lists of them: of leading axes,
      and of channels last), qmin, qmax, and axis, the axis of the value that channels lie along.

    Raises:
      UnfitSiteError, UnknownSiteError, ValueError: see `jax_ranges.handover`.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.negative)(jnp.array([-127.0, 1.0]))
      >>> scales(ranges, symmetric=True, narrow=True)
      {'neg': {'format': 'int8', 'scale': 1.0, 'zero_point': 0, 'qmin': -127, 'qmax': 127, \
'axis': None}}
    """
    read = _reader(ranges, stat, how.get("method", "minmax"))
    found = handed(ranges, names, unfit, read, largest=np.inf)
    axis = stat.axis if isinstance(stat, PerChannel) and stat.block is None else None
    table = {e.name: _plain(qparams(e.source, format, axis=axis, **how)) for e in found}
    written(json.dumps(table, indent=1, allow_nan=False) + "\n", file)
    return table


def _reader(ranges: Ranges, stat: Statistic | None, method: str) -> Callable[[str], Source]:
    if stat is None:
        return merged(ranges, method)
    return lambda name: ranges.of(name, stat)


def _plain(q: QParams) -> dict[str, Any]:
    return {
        "format": q.format.name,
        "scale": np.asarray(q.scale).tolist(),
        "zero_point": np.asarray(q.zero_point).tolist(),
        "qmin": q.qmin,
        "qmax": q.qmax,
        "axis": q.axis,
    }
