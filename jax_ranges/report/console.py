"""The report on a console: ranges sorted, cut to what matters, as a table or as a tree.

`report` prints what `report_view` makes, which has no width and no colours of its own: it takes
those of the console that draws it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jax_ranges.files import File, load
from jax_ranges.ranges import Ranges
from jax_ranges.report.order import excerpt, order
from jax_ranges.report.rows import rows_of, unreadable
from jax_ranges.site import Select

# rich is imported where something is drawn: `import jax_ranges` imports this module.
if TYPE_CHECKING:
    from rich.console import Console, RenderableType


def report(
    ranges: Ranges | File | Iterable[File],
    *,
    select: Select = None,
    sort: str = "program",
    tree: bool = False,
    limit: int | None = None,
    reads: bool = False,
    console: Console | None = None,
) -> None:
    """Print ranges as a table, or as a tree by scope.

    Bars are on one scale of powers of two, that of the heading. Colour goes to terminals only.

    Args:
      ranges: what `jr.ranges` or `jr.Net` found, or a file of it; several files are merged.
      select: only these sites, as in `jr.ranges`.
      sort: "program" order; "width" (max - min) or "amax" (of the absolute values), the largest
        first, floats before integers; "nan": sites with NaN, then those with inf, then the
        rest; "name": numbers in names count as numbers.
      tree: show sites below their scopes. A scope has a line with the number of its sites, the
        largest value in it, and NaN if there is any; it is sorted as the first of its sites.
      limit: show no more sites than this: the first ones as sorted; in program order the first
        and the last ones.
      reads: also show which arguments each operation reads (see `jr.Site`).
      console: where to print; standard output if None. That is as wide as the terminal, or as
        `COLUMNS` says, or 160 where there is neither: nobody scrolls a file or a log of CI
        sideways, but many search them for names, which a narrower table cuts.

    Raises:
      ValueError: there is no such order, `select` selects nothing, or a file is damaged.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> from rich.console import Console
      >>> def model(x):
      ...     with jax.named_scope("head"):
      ...         y = jnp.log(x) * 3.0
      ...     return y - x
      >>> _, ranges = jr.ranges(model)(jnp.array([0.5, 8.0]))
      >>> jr.report(ranges, sort="amax", tree=True, console=Console(width=56, color_system=None))
      site   type         min     max  nan  2¹             2³
      ────────────────────────────────────────────────────────
      head/  2 sites     amax   6.238       ██████████████
      ├ mul  f32[2]    -2.079   6.238       ██████████████
      └ log  f32[2]   -0.6931   2.079       ▌
      sub    f32[2]    -2.579  -1.762       ███▏
      3 sites, largest first · largest 6.238 at head/mul
    """
    view = report_view(ranges, select=select, sort=sort, tree=tree, limit=limit, reads=reads)
    (standard_output() if console is None else console).print(view)


def report_view(
    ranges: Ranges | File | Iterable[File],
    *,
    select: Select = None,
    sort: str = "program",
    tree: bool = False,
    limit: int | None = None,
    reads: bool = False,
) -> RenderableType:
    """What `report` prints, to be printed by any rich console, or redrawn by `rich.live`.

    Cheap enough for that: 1,000 sites are read and drawn in some 40 ms. Inside jit, where there
    are no numbers to read yet, it is a line that says so.
    """
    from jax_ranges.report import tables

    found = _given(ranges)
    chosen = found if select is None else found.select(select)
    says = order(sort).says
    why = unreadable(chosen)
    if why:
        return tables.head(len(chosen), why=why)
    rows = rows_of(chosen, reads)
    draw = tables.tree if tree else tables.table
    return draw(rows, excerpt(rows, sort, limit), tables.caption(rows, says))


def _given(ranges: Ranges | File | Iterable[File]) -> Ranges:
    if isinstance(ranges, Ranges):
        return ranges
    if isinstance(ranges, str | os.PathLike):
        return load(ranges)
    files = _items(ranges)
    if not files or not all(isinstance(file, str | os.PathLike) for file in files):
        raise TypeError(f"a report is of jr.Ranges, of a file or of several; got {_kind(ranges)}")
    return load(*files)


def _items(files: Any) -> list[Any]:
    """Of a sequence; of a mapping none, lest the keys of a dictionary pass for files."""
    return list(files) if isinstance(files, Iterable) and not isinstance(files, Mapping) else []


def _kind(given: Any) -> str:
    """What was given instead of ranges, and what to do in the likeliest case."""
    if isinstance(given, tuple) and given and isinstance(given[-1], Ranges):
        return "a tuple that ends in Ranges; jr.ranges(f)(...) returns a pair (out, ranges)"
    return f"{given!r} of type {type(given).__name__}"


def standard_output() -> Console:
    from rich.console import Console

    from jax_ranges.report.tables import WIDEST

    sized = os.environ.get("COLUMNS", "0") != "0" or any(
        map(os.isatty, range(3))
    )  # rich asks all three
    return Console() if sized else Console(width=WIDEST)
