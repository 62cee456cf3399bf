"""Plots: ranges as matplotlib figures, which need no display and touch no global state.

    jr.plot(ranges).savefig("ranges.png")       # a bar a site, and the limits of formats
    jr.plot(["run_1.json", "run_2.json"])       # what moved between dumps

`plot` chooses; `bars`, `heat` and `lines` draw one kind each on a `canvas`. Like all reports they
begin with the rows of `report.rows`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jax_ranges.files import File, load
from jax_ranges.formats import Format, FormatLike, format_of
from jax_ranges.ranges import Ranges
from jax_ranges.report.order import order
from jax_ranges.report.plots.bars import bars
from jax_ranges.report.plots.heat import heat
from jax_ranges.report.plots.lines import over_dumps, over_iterations
from jax_ranges.report.rows import rows_of, unreadable, unreadable_leaves
from jax_ranges.site import Select
from jax_ranges.stats import MinMax

# matplotlib is an optional extra: it is imported where a figure is made.
if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("bars", "exponents", "iterations", "dumps")
FORMATS = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16")
ROWS, LINES = 50, 10
"""How many sites are shown as rows, and as lines with a name, if nothing else is asked for."""


def plot(
    ranges: Ranges | File | Sequence[Ranges | File],
    kind: str | None = None,
    *,
    select: Select = None,
    formats: Iterable[FormatLike] = FORMATS,
    sort: str = "program",
    limit: int | None = None,
) -> Figure:
    """Draw ranges with matplotlib: `pip install 'jax-ranges[plot]'`.

    | kind | shows | of |
    |---|---|---|
    | "bars" | a bar from min to max a site, on a signed log scale | ranges |
    | "exponents" | the share of the values in each power of two | ranges with `jr.Exponents()` |
    | "iterations" | the largest magnitude along stacked loops (or vmap) | leading axes |
    | "dumps" | the largest magnitude from dump to dump | several ranges or files, in order |

    The scale of bars is logarithmic on both sides of zero and linear in between, where it is
    narrow; a bar across zero says nothing about how small the values are, "exponents" does. What
    lies beyond the scale, infinities, NaN and sites that were not observed are said at the right.
    Where there are more sites than `limit`, the title says how many and which are left out.

    Args:
      ranges: what `jr.ranges` or `jr.Net` found, or a file of it; for "dumps" a sequence of these.
      kind: by default "dumps" for a sequence; else "bars", or "exponents" without `MinMax`.
      select: only these sites, as in `jr.ranges`.
      formats: whose limits are drawn as lines (see `jax_ranges.formats`); bars of floats that the
        first of them cannot hold have another colour.
      sort: of rows, as in `jr.report`.
      limit: show no more sites than this: as sorted, or in program order those with NaN or inf,
        then the largest; as lines with names those with NaN or inf, then those that moved most.

    Returns:
      A `matplotlib.figure.Figure` that pyplot knows nothing of; notebooks show it.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.
      ValueError: there is no such kind, format or order, nothing to draw of that kind, or there
        are no values (inside jit).
      TypeError: `ranges` is neither ranges nor files.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(lambda x: jnp.exp(x) - 8)(jnp.arange(9.0))
      >>> import importlib.util, io
      >>> if importlib.util.find_spec("matplotlib"):  # an optional extra
      ...     figure = jr.plot(ranges, formats=["float8_e4m3fn"])
      ...     figure.savefig(io.BytesIO())  # or a file: "ranges.png"
    """
    order(sort)
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit is a number of sites, at least 1, or None; got {limit!r}")
    several = _several(ranges)
    chosen = _kind(kind) or ("dumps" if several is not None else "")
    limits = [format_of(name) for name in formats]
    if (several is not None) != (chosen == "dumps"):
        raise ValueError(_miscounted(chosen))
    if several is None:
        return _single(_selected(_loaded(ranges), select), chosen, limits, sort, limit)
    found = [_selected(_loaded(each), select) for each in several]
    return _dumps(found, list(map(_label, several, range(len(found)))), limits, limit)


def _dumps(
    found: Sequence[Ranges], labels: Sequence[str], formats: Sequence[Format], limit: int | None
) -> Figure:
    if not found:
        raise ValueError("there are no dumps to plot: the sequence is empty")
    for each in found:
        _check_readable(each)
    return over_dumps([rows_of(each) for each in found], labels, formats, limit or LINES)


def _single(
    ranges: Ranges, kind: str, formats: Sequence[Format], sort: str, limit: int | None
) -> Figure:
    if kind == "exponents" or (not kind and not _is_ranged(ranges)):
        _check(unreadable_leaves(ranges))
        return heat(ranges, formats, sort, limit or ROWS)
    _check_readable(ranges)
    rows = rows_of(ranges)
    if kind == "iterations":
        return over_iterations(rows, formats, limit or LINES)
    return bars(rows, formats, sort, limit or ROWS)


def _is_ranged(ranges: Ranges) -> bool:
    return any(isinstance(stat, MinMax) for stat in ranges.stats) or not len(ranges)


def _check_readable(ranges: Ranges) -> None:
    _check(unreadable(ranges))
    if not len(ranges):
        raise ValueError("there are no sites to plot; a jr.Net has none before its first call")


def _check(why: str) -> None:
    if why:
        raise ValueError(
            f"a plot shows ranges that have values, on this host and with MinMax() among their "
            f"statistics; these are {why}"
        )


# -- what was given ---------------------------------------------------------------------------


def _several(given: Any) -> list[Any] | None:
    """The items of a sequence; None of what is to be one jr.Ranges or file."""
    if isinstance(given, Mapping | str | os.PathLike):
        return None
    return list(given) if isinstance(given, Iterable) else None


def _kind(kind: str | None) -> str:
    if kind is not None and kind not in list(KINDS):
        raise ValueError(f"kind={kind!r} is no kind of plot; there are {', '.join(KINDS)}")
    return kind or ""


def _miscounted(kind: str) -> str:
    if kind == "dumps":
        return "dumps are several: jr.plot([first, second, ...]), each of them ranges or a file"
    return f"kind={kind!r} shows one jr.Ranges or file, and got several; merge them first: a | b"


def _loaded(given: Any) -> Ranges:
    if isinstance(given, str | os.PathLike):
        return load(given)
    if not isinstance(given, Ranges):
        raise TypeError(
            f"a plot is of jr.Ranges, of a file of them, or of a sequence of these; got {given!r} "
            f"of type {type(given).__name__}"
        )
    return given


def _selected(ranges: Ranges, select: Select) -> Ranges:
    return ranges if select is None else ranges.select(select)


def _label(given: Any, index: int) -> str:
    return str(index) if isinstance(given, Ranges) else Path(given).stem
