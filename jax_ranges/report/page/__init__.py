"""The page: ranges as one HTML file that opens offline, for people who would rather look.

    ranges.to_html("r.html")                        # what was seen
    ranges.to_html("d.html", before="older.json")   # and what moved

`document` says everything that the page shows as plain data, `families` finds which layer stands
out, and `template` puts that and the page itself together: `page.html`, `page.css` and the
JavaScript modules beside this file. The page asks for nothing on the network.
"""

from __future__ import annotations

from collections.abc import Sequence

from jax_ranges.files import File, load
from jax_ranges.formats import FormatLike, format_of
from jax_ranges.ranges import Ranges
from jax_ranges.report.page.document import document
from jax_ranges.report.page.template import filled

DEFAULT_FORMATS = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "int8")


def page(
    ranges: Ranges,
    before: Ranges | File | None = None,
    formats: Sequence[FormatLike] = DEFAULT_FORMATS,
    title: str = "Numeric ranges",
) -> str:
    """The text of the page.

    Args:
      ranges: what to show. With values, so not inside jit, and with MinMax among the statistics.
      before: ranges or a file of them; the page then shows what moved from these.
      formats: whose limits are drawn; the first is judged by until the reader picks another.
      title: of the page.

    Raises:
      ValueError: there are no values, no MinMax, no format or no such format.
    """
    if not formats:
        raise ValueError("a page shows the limits of at least one format; got none")
    older = before if before is None or isinstance(before, Ranges) else load(before)
    return filled(document(ranges, older, list(map(format_of, formats)), title))
