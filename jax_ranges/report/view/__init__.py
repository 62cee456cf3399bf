"""The viewer: ranges in a terminal, browsed with the keyboard, also over ssh.

    jax-ranges view r.json                       # what was seen
    jax-ranges view new.json --before old.json   # and what moved

`model` is what is browsed, `filters` and `sorts` choose and arrange, without drawing; `sites`,
`tree` and `detail` draw; `app` puts them on the screen and knows the keys. It needs textual,
which is imported by nothing but the modules of this folder that draw.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from jax_ranges.files import File, load
from jax_ranges.formats import FormatLike, format_of
from jax_ranges.ranges import Ranges
from jax_ranges.report.page import DEFAULT_FORMATS
from jax_ranges.report.view.model import Model


def view(
    ranges: Ranges | File,
    before: Ranges | File | None = None,
    formats: Sequence[FormatLike] = DEFAULT_FORMATS,
    title: str = "ranges",
) -> None:
    """Browse ranges in this terminal, until `q` is pressed.

    Args:
      ranges: what to show, or a file of it. With values, so not inside jit, and with MinMax among
        the statistics.
      before: older ranges or a file of them; the browser then shows what moved from these.
      formats: by which sites are judged; the first until the reader picks another.
      title: above.

    Raises:
      ModuleNotFoundError: textual is not installed.
      ValueError: there are no values, no MinMax, no sites, no format or no such format.
      RuntimeError: the browser itself failed; it has printed how.
    """
    check_installed()
    from jax_ranges.report.view.app import Browser

    browser = Browser(model_of(ranges, before, formats, title))
    browser.run()
    if browser.return_code:  # textual prints what went wrong itself, and raises nothing
        raise RuntimeError("the browser ended by the error that is printed above")


def model_of(
    ranges: Ranges | File,
    before: Ranges | File | None = None,
    formats: Sequence[FormatLike] = DEFAULT_FORMATS,
    title: str = "ranges",
) -> Model:
    """What `view` browses; arguments and errors are the same."""
    if not formats:
        raise ValueError("sites are judged by at least one format; got none")
    older = None if before is None else _ranges(before)
    found = list(dict.fromkeys(map(format_of, formats)))
    return Model.of(_ranges(ranges), older, found, title)


def check_installed() -> None:
    """ModuleNotFoundError, which says what to do, if textual is not installed."""
    if importlib.util.find_spec("textual") is None:
        raise ModuleNotFoundError(
            "to browse ranges in a terminal takes textual: pip install 'jax-ranges[view]'"
        )


def _ranges(given: Ranges | File) -> Ranges:
    return given if isinstance(given, Ranges) else load(given)
