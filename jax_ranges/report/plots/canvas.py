"""The canvas: what all plots have in common. A figure, a signed log scale, limits of formats."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from jax_ranges.formats import Format
from jax_ranges.report.order import by_amax, excerpt, order
from jax_ranges.report.rows import Gauge, Row, cut_name, number_text, power_text, sites_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "#8b8d98"
LIMITS = (
    ("#2b9a66", (0, (5, 1))),
    ("#8e4ec6", (0, (3, 1))),
    ("#c2298a", (0, (1, 1))),
    ("#8d6a1f", (0, (5, 1, 1, 1))),
    ("#60646c", (0, (8, 2))),
)
"""Colours and dashes of formats, so that lines close to each other are told apart."""
SMALL = 8  # points
REACH = 16
"""So many powers of two a scale may grow beyond what was seen, to show a format's limit."""


def figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches; ModuleNotFoundError without matplotlib."""
    return _figure_class()(figsize=(width, height), layout="constrained")


@functools.cache
def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "jr.plot needs matplotlib: pip install 'jax-ranges[plot]' (or matplotlib alone)"
        ) from error

    class Plot(Figure):
        """A figure that notebooks show, although pyplot does not know it."""

        def _repr_png_(self) -> bytes:
            image = io.BytesIO()
            self.savefig(image, format="png", dpi=100)
            return image.getvalue()

    return Plot


# -- which sites ------------------------------------------------------------------------------


def picked(rows: Sequence[Row], sort: str, limit: int) -> list[Row]:
    """At most `limit` rows: the first as sorted; in program order the most notable ones.

    Those are the ones with NaN or inf, and then the largest. Unlike a table, a picture of the
    first and the last would miss what one looks at it for.
    """
    if sort != "program" or len(rows) <= limit:
        return [rows[i] for i in excerpt(rows, sort, limit).head]
    notable = sorted(range(len(rows)), key=lambda i: (*trouble(rows[i]), by_amax(rows[i])))
    return [rows[i] for i in sorted(notable[:limit])]


def trouble(row: Row) -> tuple[bool, bool]:
    """A key by which NaN comes first, and inf next."""
    return not row.nan, not row.infinite


def title_text(shown: int, total: int, sort: str) -> str:
    """How many sites a plot shows, and which those are if not all."""
    says = order(sort).says
    if shown == total:
        return ", ".join(filter(None, (sites_text(total), says)))
    says = says or "those with NaN or inf, then the largest"
    return f"{shown:,} of {sites_text(total)} ({says}); {total - shown:,} not shown"


def name_text(name: str) -> str:
    """A name as long as there is room for. Dollar signs would be read as mathematics."""
    return cut_name(name, 52).replace("$", r"\$")


# -- scales -----------------------------------------------------------------------------------


def span_of(rows: Sequence[Row], formats: Iterable[Format]) -> tuple[int, int]:
    """The powers of two between which a scale is logarithmic: what was seen, and near limits."""
    gauge = Gauge.of(rows)
    ends = [fmt.max_exponent + 1 for fmt in formats]
    high = max([gauge.high, *(e for e in ends if e <= gauge.high + REACH)])
    # matplotlib computes the ends, and the ratio of one to the other, in floats: up to 2**1024.
    high = min(high, 1000)
    return max(gauge.low, high - 1000, -1000), high


def edge_of(high: int) -> float:
    """Where a scale that is logarithmic up to 2**high ends."""
    return 2.0**high * 1.5


def signed_log(axes: Any, which: str, low: int, high: int, signs: Sequence[int] = (-1, 1)) -> None:
    """Make an axis logarithmic on both sides of zero (or on one), with powers of two as ticks.

    Between -2**low and 2**low it is linear, as wide as one power of two.
    """
    getattr(axes, f"set_{which}scale")("symlog", base=2, linthresh=2.0**low, linscale=1)
    edge = edge_of(high)
    getattr(axes, f"set_{which}lim")(min(signs[0], 0) * edge, max(signs[-1], 0) * edge)
    step = max(1, -(-(high - low) * len(signs) // 14))
    # From the top down: the highest power is worth a label, next to zero there may be none.
    exponents = [e for e in range(high, low - 1, -step) if e - low >= step / 2 or e == high]
    ticks = {s * 2.0**e: "-" * (s < 0) + power_text(e) for s in signs for e in exponents}
    getattr(axes, f"set_{which}ticks")([0, *ticks], ["0", *ticks.values()], fontsize=SMALL)
    getattr(axes, f"set_{which}ticks")([], minor=True)


def draw_limits(axes: Any, which: str, formats: Sequence[Format], end: float) -> None:
    """The ends of formats as lines across an axis; in the legend those that are beyond `end`."""
    draw = axes.axvline if which == "x" else axes.axhline
    for i, fmt in enumerate(formats):
        label = f"{fmt.name} {_ends_text(fmt)}"
        near = [x for x in (fmt.largest, fmt.least) if x and abs(x) <= end]
        for x in near:
            draw(x, label=label if x == near[0] else None, **limit_style(i))
        if not near:
            axes.plot([], [], " ", label=f"{label}, off the scale")


def limit_style(index: int) -> dict[str, Any]:
    """How the lines of a format are drawn."""
    colour, dashes = LIMITS[index % len(LIMITS)]
    return {"color": colour, "linestyle": dashes, "linewidth": 1.2, "zorder": 2.5}


def _ends_text(fmt: Format) -> str:
    if fmt.least == -fmt.largest:
        return f"±{number_text(fmt.largest)}"
    return f"{number_text(fmt.least)} to {number_text(fmt.largest)}"


def exponents_in(fmt: Format) -> tuple[int, int]:
    """The exponents of a format's smallest and largest number."""
    return math.frexp(fmt.smallest_subnormal)[1] - 1, fmt.max_exponent
