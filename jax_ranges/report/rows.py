"""Rows: what a report says of each site, as plain Python values and texts. Nothing here draws.

Every renderer starts from `rows_of(ranges)`. What is large and what is small is judged on one
`Gauge` for all rows, a scale of powers of two.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jax_ranges import compat
from jax_ranges.ranges import Range, Ranges
from jax_ranges.site import Site
from jax_ranges.stats import MinMax

Number = bool | int | float


@dataclass(frozen=True, slots=True)
class Row:
    """What a report says of one site. Leading axes (vmap, stacked loops) are merged.

    Attributes:
      name, primitive, backward: of the site; what cannot be printed is replaced in the name.
      scope: the name without its last part.
      shape, dtype: as texts, `[8,16]` and `f32`.
      min, max: Python numbers, exact; None where no number was seen (nothing, or only NaN).
      nan, observed: as those of the range.
      amax: the largest absolute value, inf included; None where no number was seen.
      source: `file:line`, shortened for reading.
      lead: the shape of the leading axes.
      each: for each index of the last leading axis the largest absolute value: NaN where a NaN
        was seen, None where nothing was.
      sites: how many sites it stands for; a scope in a tree has more than one.
      reads: the paths of the arguments that the operation reads (see `Site.reads`), and the names
        of constants, if they were asked for.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.negative)(jnp.array([1.0, 2.5]))
      >>> (row,) = rows_of(ranges)
      >>> row.name, row.dtype, row.shape, row.min, row.max, row.amax
      ('neg', 'f32', '[2]', -2.5, -1.0, 2.5)
    """

    name: str
    scope: str
    primitive: str
    shape: str
    dtype: str
    min: Number | None
    max: Number | None
    nan: bool
    observed: bool
    source: str
    amax: int | float | None
    backward: bool = False
    lead: tuple[int, ...] = ()
    each: tuple[float | None, ...] = ()
    sites: int = 1
    reads: tuple[str, ...] = ()

    @property
    def infinite(self) -> bool:
        """Whether an infinity was seen."""
        return self.amax == math.inf


def rows_of(ranges: Mapping[str, Range], reads: bool = False) -> list[Row]:
    """One row a site with a range, in program order. They must be readable (see `unreadable`)."""
    assert isinstance(ranges, Ranges)
    short = functools.cache(shortener())
    ranged = [site for site in ranges.sites if ranges.has(site.name, MinMax())]
    return [
        _row(site, ranges[site.name], short(site.source), reads_of(site) if reads else ())
        for site in ranged
    ]


def unreadable(ranges: Ranges) -> str:
    """Why the numbers cannot be shown, in a word or two; "" if they can.

    A pytree is now and then filled with something else than arrays on this host: tracers inside
    jit, shapes by `jax.eval_shape`, axes for `jax.vmap`. Its repr has to bear that.
    """
    if len(ranges) and not any(isinstance(stat, MinMax) for stat in ranges.stats):
        return "without MinMax()"
    return unreadable_leaves(ranges)


def unreadable_leaves(tree: Any) -> str:
    """The same of any pytree."""
    reasons = (_why_unreadable(leaf) for leaf in jax.tree.leaves(tree, is_leaf=_is_none))
    return next(filter(None, reasons), "")


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _why_unreadable(leaf: Any) -> str:
    if isinstance(leaf, np.ndarray):
        return ""
    if compat.is_traced(leaf):
        return "traced"
    if not isinstance(leaf, jax.Array):
        return "abstract" if isinstance(leaf, jax.ShapeDtypeStruct) else f"of {_kind(leaf)}"
    if leaf.is_deleted():
        return "deleted"
    here = leaf.is_fully_addressable or leaf.is_fully_replicated
    return "" if here else "on several hosts"


def _kind(leaf: Any) -> str:
    return type(leaf).__name__


# -- one row ----------------------------------------------------------------------------------


def reads_of(site: Site) -> tuple[str, ...]:
    """What an operation reads, as texts: `params/kernel` for the argument, `const/0`."""
    return tuple(printable(name.removeprefix("input/")) for name in site.reads)


def _row(site: Site, found: Range, source: str, reads: tuple[str, ...]) -> Row:
    lo, hi, nan = (_native(np.asarray(x)) for x in (found.min, found.max, found.nan))
    lead = lo.shape
    each = _each(lo, hi, nan) if lead else ()
    if lead:
        lo, hi, nan = _merged(lo, hi, nan)
    low, high, has_nan = lo.item(), hi.item(), nan.item()
    seen = low <= high
    name = printable(site.name)
    return Row(
        name,
        name.rpartition("/")[0],
        site.primitive,
        shape_text(site.shape),
        dtype_text(site.dtype),
        low if seen else None,
        high if seen else None,
        has_nan,
        seen or has_nan,
        source,
        max(abs(low), abs(high)) if seen else None,
        site.backward,
        lead,
        each,
        reads=reads,
    )


def _native(array: np.ndarray) -> np.ndarray:
    """int4 and the like as int64: numpy makes no Python numbers of the types of ml_dtypes."""
    return array.astype(np.int64) if array.dtype.kind == "V" else array


def _merged(lo: np.ndarray, hi: np.ndarray, nan: np.ndarray) -> tuple[np.ndarray, ...]:
    if not lo.size:  # vmap over no examples, a loop of no trips
        return np.asarray(1), np.asarray(0), np.asarray(False)
    return np.asarray(lo.min()), np.asarray(hi.max()), np.asarray(nan.any())


def _each(lo: np.ndarray, hi: np.ndarray, nan: np.ndarray) -> tuple[float | None, ...]:
    if not lo.size:
        return ()
    largest = np.maximum(np.abs(lo.astype(np.float64)), np.abs(hi.astype(np.float64)))
    largest = np.where(nan, np.nan, np.where(lo <= hi, largest, -1.0))
    largest = largest.max(axis=tuple(range(lo.ndim - 1)))
    return tuple(None if value < 0 else value for value in largest.tolist())


# -- texts ------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Scopes are named by users: a line break or an escape sequence must not reach a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


@functools.cache
def dtype_text(dtype: np.dtype) -> str:
    """The short name: f32, bf16, i8, u4, c64, f8_e4m3fn, bool.

    Example:
      >>> dtype_text(np.dtype("float32")), dtype_text(np.dtype("bool"))
      ('f32', 'bool')
    """
    return re.sub(r"float(?=\d)|uint|int|complex", lambda found: found[0][0], str(dtype))


def shape_text(shape: Sequence[int]) -> str:
    """As JAX writes it.

    Example:
      >>> shape_text((8, 16)), shape_text(())
      ('[8,16]', '[]')
    """
    return f"[{','.join(map(str, shape))}]"


def number_text(value: Number | None) -> str:
    """Four significant digits, as short as it goes; integers and booleans whole.

    Example:
      >>> [number_text(x) for x in (0.1 + 0.2, 65504.0, 2.0**-126, -float("inf"), 7, True)]
      ['0.3', '65504', '1.175e-38', '-inf', '7', 'True']
    """
    if value is None:
        return ""
    if isinstance(value, int) and abs(value) < 1e10:
        return str(value)
    if 1e4 <= abs(value) < 1e6:
        return f"{value:.0f}"
    digits, e, exponent = f"{value or 0.0:.4g}".partition("e")  # "or": no minus zero
    return f"{digits}e{int(exponent)}" if e else digits


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_text(exponent: int) -> str:
    """A power of two.

    Example:
      >>> power_text(-13)
      '2⁻¹³'
    """
    return "2" + str(exponent).translate(_RAISED)


def name_parts(name: str) -> list[str]:
    """The scopes of a name, and its last part. A slash in brackets parts nothing.

    A scope may itself be called `a/b`, which JAX's transformations wrap as a whole.

    Example:
      >>> name_parts("transpose(jvp(a/b))/attn/dot_general")
      ['transpose(jvp(a/b))', 'attn', 'dot_general']
    """
    pieces = name.split("/")
    if "(" not in name:
        return pieces
    parts: list[str] = []
    for piece in pieces:
        if parts and _is_open(parts[-1]):
            parts[-1] += f"/{piece}"
        else:
            parts.append(piece)
    return pieces if _is_open(parts[-1]) else parts  # a bracket of the user's that never closes


def _is_open(text: str) -> bool:
    return text.count("(") > text.count(")")


def cut_name(name: str, width: int) -> str:
    """A name in `width` characters: cut in the middle of its scopes, never in its last part.

    The first scope stays, in part if it is long, and as many of the last ones as there is room.

    Example:
      >>> cut_name("Encoder/layer_0/attn/jit(tril)/select_n", 31)
      'Encoder/…/jit(tril)/select_n'
      >>> cut_name("transpose(jvp(Encoder))/layer_0/attn/dot_general", 34)
      'transpos…/layer_0/attn/dot_general'
    """
    if len(name) <= width:
        return name
    *scopes, tail = name.split("/")
    head = scopes.pop(0) + "/" if scopes and len(scopes[0]) < width // 3 else ""
    room = width - len("…/") - len(head) - len(tail)
    spare = 0 if head else width // 4  # for a part of the first scope
    while scopes and room - spare > len(scopes[-1]):
        room -= len(scopes[-1]) + 1
        tail = f"{scopes.pop()}/{tail}"
    while scopes and head and room > len(scopes[0]):
        room -= len(scopes[0]) + 1
        head += f"{scopes.pop(0)}/"
    if room < 0 or not head:
        head = name[: max(room + len(head), 0)]
    return cut_left(f"{head}…/{tail}", width)


def cut_left(text: str, width: int) -> str:
    """The end of a text in `width` characters."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def cut_right(text: str, width: int) -> str:
    """The beginning of a text in `width` characters."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def shortener() -> Callable[[str], str]:
    """Shortens `file:line`: from the current folder, or from the package, or the last two parts."""
    try:
        here = os.path.join(os.getcwd(), "").replace("\\", "/")
    except OSError:  # the current folder was deleted
        here = "\0"

    def short(source: str) -> str:
        source = printable(source).replace("\\", "/")  # a file of ranges may come from Windows
        _, installed, inside = source.rpartition("-packages/")
        if installed:
            return inside
        if source.startswith(here):
            return source[len(here) :]
        return "/".join(source.split("/")[-2:])

    return short


# -- counting ---------------------------------------------------------------------------------


def counts(rows: Iterable[Row]) -> dict[str, int]:
    """How many rows are out of the ordinary, by what is: only what there is any of."""
    rows = list(rows)
    found = {
        "not observed": sum(not row.observed for row in rows),
        "with NaN": sum(row.nan for row in rows),
        "with inf": sum(row.infinite for row in rows),
    }
    return {what: count for what, count in found.items() if count}


def sites_text(count: int) -> str:
    return f"{count:,} site" + "s" * (count != 1)


def largest(rows: Iterable[Row]) -> Row | None:
    """The row with the largest finite value among those that the gauge is for."""
    rows = [row for row in gauged(rows) if not row.infinite]
    return max(rows, key=lambda row: row.amax or 0, default=None)


# -- large and small --------------------------------------------------------------------------


def gauged(rows: Iterable[Row]) -> list[Row]:
    """The rows whose magnitudes are compared: those of floats, or all if there is no float.

    Next to floats, the magnitudes of indices and random bits mean nothing.
    """
    seen = [row for row in rows if row.amax is not None]
    return [row for row in seen if isinstance(row.min, float)] or seen


@dataclass(frozen=True)
class Gauge:
    """A scale of powers of two, from 2**low to 2**high.

    Attributes:
      low, high: its ends.
      floats: only floats are on it.
    """

    low: int
    high: int
    floats: bool = True

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Gauge:
        """From the smallest to the largest finite magnitude.

        A few far outliers (the -1e30 of an attention mask, an epsilon) are left off the scale:
        they would squeeze all others into the same bar.
        """
        rows = gauged(rows)
        logs = sorted(math.log2(row.amax) for row in rows if row.amax and not row.infinite)
        floats = not rows or isinstance(rows[0].min, float)
        if not logs:
            return cls(0, 1, floats)
        first, third = logs[len(logs) // 4], logs[len(logs) * 3 // 4]
        reach = max(16.0, 3 * (third - first))
        near = [log for log in logs if first - reach <= log <= third + reach]
        low, high = math.floor(near[0]), math.ceil(near[-1])
        return cls(min(low, high - 1), high, floats)

    def position(self, row: Row) -> float | None:
        """Where a row's largest value is: 0 at the low end or below, 1 at the high end.

        More than 1 beyond it, inf for infinity, None where there is nothing to show.
        """
        if not row.amax or (self.floats and not isinstance(row.min, float)):
            return None
        if row.infinite:
            return math.inf
        return max((math.log2(row.amax) - self.low) / (self.high - self.low), 0.0)

    def labels(self) -> tuple[str, str]:
        """The two ends as texts: 2⁻³ and 2¹²."""
        return power_text(self.low), power_text(self.high)


def bar_text(position: float | None, width: int) -> str:
    """A bar in eighths of a character; one more at its end marks what is off the scale."""
    if position is None:
        return ""
    if position > 1:
        return "█" * width + ("∞" if position == math.inf else "▸")
    eighths = max(round(position * width * 8), 1)  # what is there is seen
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


OCTAVES = 4  # the least that a sparkline spans, lest noise look like growth


def spark_text(each: Sequence[float | None], width: int) -> str:
    """The course of a magnitude along an axis, on a log scale of its own.

    A long axis is shown in parts by their largest values. ∞ and × (NaN) win, · is not observed.
    """
    parts = [_peak(part) for part in _split(each, width)]
    logs = [math.log2(x) for x in parts if x and x < math.inf]
    top = max(logs, default=0.0)
    span = max(top - min(logs, default=0.0), OCTAVES)
    return "".join(_spark(value, top, span) for value in parts)


def _split(each: Sequence[float | None], width: int) -> list[Sequence[float | None]]:
    count = min(len(each), width)
    ends = [len(each) * i // count for i in range(count + 1)] if count else [0]
    return [each[a:b] for a, b in itertools.pairwise(ends)]


def _peak(values: Sequence[float | None]) -> float | None:
    seen = [value for value in values if value is not None]
    return next((v for v in seen if math.isnan(v)), max(seen, default=None))


def _spark(value: float | None, top: float, span: float) -> str:
    if value is None:
        return "·"
    if math.isnan(value):
        return "×"
    if value == math.inf:
        return "∞"
    level = 7 - round(7 * (top - math.log2(value)) / span) if value else 0
    return "▁▂▃▄▅▆▇█"[level]
