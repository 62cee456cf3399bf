"""Comparing what the package finds with what the oracle finds, and its texts with golden ones."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from tests.oracle import SiteRange

GOLDEN = Path(__file__).parent / "golden"
ULPS = 4


def assert_golden(name: str, text: str) -> None:
    """The text is that of a file in `golden/`, which `UPDATE_GOLDEN=1` writes anew."""
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == file.read_text(encoding="utf-8")


def assert_same_ranges(
    ranges: Any, sites: Sequence[SiteRange], rtol: float = 0.0, sizes: Mapping[str, int] = {}
) -> None:
    """The sites are the same, in the same order, and so are their ranges.

    Positive and negative zero are equal. With `rtol`, floats may differ by so much of the
    largest magnitude of the site's expected range (XLA fuses differently than eager code), and
    those of a narrower dtype by a few of its units in the last place. `sizes` are those that the
    symbols in the shapes of an exported function stand for.
    """
    got = [
        (site.primitive, site.output, numbers_of(site.shape, sizes), np.dtype(site.dtype))
        for site in ranges.sites
    ]
    expected = [(site.primitive, site.output, site.shape, site.dtype) for site in sites]
    for n, (a, b) in enumerate(zip(got, expected, strict=False)):
        assert a == b, f"site {n} ({ranges.sites[n].name}): got {a}, expected {b}"
    assert len(got) == len(expected), f"got {len(got)} sites, expected {len(expected)}"
    found = list(zip(ranges.items(), sites, strict=True))
    wrong = [_difference(name, r, site, rtol) for (name, r), site in found]
    wrong = [line for line in wrong if line]
    assert not wrong, f"{len(wrong)} of {len(got)} sites differ:\n" + "\n".join(wrong[:20])


def numbers_of(shape: Sequence[Any], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """A shape with numbers in the place of symbols."""
    functions = {"max": max, "min": min, "floordiv": operator.floordiv, "mod": operator.mod}
    return tuple(eval(str(size), {**functions, **sizes}) for size in shape)


def _difference(name: str, got: Any, site: SiteRange, rtol: float) -> str:
    """What is wrong with one site's range, as a line for the message; empty if nothing is."""
    parts = []
    for field in ("min", "max", "nan", "observed"):
        a, b = np.asarray(getattr(got, field)), np.asarray(getattr(site, field))
        same = a.dtype == b.dtype and a.shape == b.shape
        if not same or not _equal(a, b, site, rtol if field in ("min", "max") else 0.0):
            parts.append(f"{field}: got {_text(a)}, expected {_text(b)}")
    return f"  {name} ({site.dtype}{list(site.shape)}): " + "; ".join(parts) if parts else ""


def _equal(a: np.ndarray, b: np.ndarray, site: SiteRange, rtol: float) -> bool:
    if not rtol or b.dtype.kind != "f":
        return np.array_equal(a, b)
    ends = np.abs(np.stack([site.min, site.max]))
    # At least 1: what is left where numbers of that size cancel is noise of the last bits too.
    scale = np.where(np.isfinite(ends), ends, 0).max(initial=1)
    rtol = max(rtol, ULPS * float(jnp.finfo(site.dtype).eps))
    with np.errstate(invalid="ignore"):
        return bool(np.all((a == b) | (np.abs(a - b) <= rtol * scale)))


def _text(x: np.ndarray) -> str:
    return f"{x!s} ({x.dtype}{list(x.shape) if x.ndim else ''})"
