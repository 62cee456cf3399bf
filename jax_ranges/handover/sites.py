"""What is handed over, under which names; and what no scale can be made of, which is never silent.

A consumer gets a number for each of its tensors and believes it. So a site that was not observed,
or saw a NaN or an infinity, is an error, or is left out with a warning; never a scale.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import jax
import numpy as np

from jax_ranges import compat, keys
from jax_ranges.choosers import HistogramLike
from jax_ranges.files import File
from jax_ranges.files.atomic import write_atomically
from jax_ranges.quantization.seen import Seen
from jax_ranges.range import Range
from jax_ranges.ranges import Ranges, UnknownSiteError, nearest
from jax_ranges.site import Site

Names = Mapping[str, str] | Callable[[str], str | None] | None
"""The consumer's names of sites: a mapping, of exactly the sites that are handed over; or a
callable, of all sites of floats, with None for those to leave out; None: the sites' own."""

Unfit = Literal["error", "skip"]
"""What to do about sites no scale can be made of: raise UnfitSiteError, or leave them out with
an UnfitSiteWarning."""

Source = Range | HistogramLike
Content = TypeVar("Content", str, bytes)
T = TypeVar("T")


class UnfitSiteError(ValueError):
    """No scale can be made of what was seen at some sites."""


class UnfitSiteWarning(UserWarning):
    """Sites were left out, because no scale can be made of what was seen there."""


@dataclass(frozen=True)
class Handed:
    """A site that is handed over.

    Attributes:
      site: the site.
      name: what the consumer calls it.
      source: what was seen there, fit to make a scale of.
    """

    site: Site
    name: str
    source: Source


LARGEST = float(np.finfo(np.float32).max)


def handed(
    ranges: Ranges,
    names: Names,
    unfit: Unfit,
    read: Callable[[str], Source],
    largest: float = LARGEST,
) -> list[Handed]:
    """The sites to hand over, in program order; `read` says what was seen at one.

    Values beyond `largest` are not handed over: most consumers have float32.

    Raises:
      UnfitSiteError: no scale can be made of some, and `unfit` is "error".
      UnknownSiteError: `names` has a site that is not there.
      ValueError: ranges have no values yet, or two sites have one name.
    """
    require_values(ranges)
    found = [Handed(site, name, read(site.name)) for site, name in _named(ranges, names)]
    return fit([(e.site.name, problem(e.source, largest), e) for e in found], unfit)


def merged(ranges: Ranges, method: str = "minmax") -> Callable[[str], Source]:
    """Reads what a method of `jr.qparams` needs of a site, leading axes merged."""
    require_values(ranges)
    seen = Seen.of(ranges)
    return lambda name: seen.source([name], method)


def require_values(ranges: Ranges) -> None:
    """ValueError inside jit, where ranges have no values yet."""
    if any(map(compat.is_traced, jax.tree.leaves(ranges))):
        raise ValueError(
            "these ranges are traced (inside jit, vmap or grad) and have no values yet: return "
            "them from the transformed function and hand them over outside"
        )


# -- names ------------------------------------------------------------------------------------


def _named(ranges: Ranges, names: Names) -> list[tuple[Site, str]]:
    if isinstance(names, Mapping):
        require_known(names, ranges)
        found = [(site, names[site.name]) for site in ranges.sites if site.name in names]
    else:
        floats = [site for site in ranges.sites if keys.is_float(site.dtype)]
        renamed = [(site, site.name if names is None else names(site.name)) for site in floats]
        found = [(site, name) for site, name in renamed if name is not None]
    _require_one_each(found)
    return found


def require_known(names: Iterable[str], ranges: Ranges) -> None:
    """UnknownSiteError if `names` has a site that is not among those of the ranges."""
    for name in names:
        if name not in ranges:
            near = nearest(name, list(ranges))
            hint = f"; the nearest are {', '.join(map(repr, near))}" if near else ""
            raise UnknownSiteError(f"names= has {name!r}, which is no site{hint}")


def _require_one_each(found: list[tuple[Site, str]]) -> None:
    for site, name in found:
        if not isinstance(name, str):
            raise TypeError(f"names= gives {site.name!r} the name {name!r}, which is no string")
    for name, count in Counter(name for _, name in found).items():
        if count > 1:
            sites = ", ".join(repr(site.name) for site, other in found if other == name)
            raise ValueError(f"names= gives {count} sites the name {name!r}: {sites}")


# -- what cannot be handed over ---------------------------------------------------------------


def problem(source: Source, largest: float = LARGEST) -> str | None:
    """Why no scale can be made of it; None if one can."""
    return _in_range(source, largest) if isinstance(source, Range) else _in_bins(source, largest)


def _in_range(found: Range, largest: float) -> str | None:
    lo, hi, nan = (np.asarray(part) for part in (found.min, found.max, found.nan))
    if nan.any():
        return "a NaN was seen"
    if not lo.size or (lo > hi).any():
        return "nothing was observed"
    amax = max(abs(float(lo.min())), abs(float(hi.max())))
    return _too_large(amax, largest)


def _in_bins(found: HistogramLike, largest: float) -> str | None:
    counts, edges = np.asarray(found.counts), np.asarray(found.edges)
    if np.any(getattr(found, "nan", 0)):
        return "a NaN was seen"
    if any(np.any(getattr(found, end, 0)) for end in ("pos_inf", "neg_inf")):
        return "an infinity was seen"
    if not counts.size or (counts.sum(-1) == 0).any():
        return "nothing was observed"
    return _too_large(float(np.abs(edges).max()) / 2, largest)  # some values are in the outer half


def _too_large(amax: float, largest: float) -> str | None:
    if np.isinf(amax):
        return "an infinity was seen"
    return "values beyond float32 were seen" if amax > largest else None


def fit(found: Iterable[tuple[str, str | None, T]], unfit: Unfit) -> list[T]:
    """Of (what it is, why it cannot be handed over, itself) those that can.

    To be called by what the user's call calls, for the warning to point to that.
    """
    if unfit not in ("error", "skip"):
        raise ValueError(f"unfit is 'error' or 'skip', got {unfit!r}")
    found = list(found)
    bad = [f"{what!r} ({why})" for what, why, _ in found if why is not None]
    if bad:
        more = f" and {len(bad) - 12} more" if len(bad) > 12 else ""
        text = f"{len(bad)} of {len(found)} cannot be handed over: {', '.join(bad[:12])}{more}"
        if unfit == "error":
            raise UnfitSiteError(f"{text}. Leave them out with names=, or with unfit='skip'")
        warnings.warn(f"{text}; they are left out", UnfitSiteWarning, stacklevel=4)
    return [each for _, why, each in found if why is None]


def written(content: Content, file: File | None) -> Content:
    """The content, which is also written to the file, if there is one."""
    if file is not None:
        write_atomically(Path(file), content)
    return content
