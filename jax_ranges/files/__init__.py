"""Files of ranges: three formats, one `save`, one `load`.

| ending | format | holds |
|---|---|---|
| `.json` | `as_json` | everything, stacked and vmapped ranges and all statistics too |
| `.csv` | `as_csv` | a line a site for a spreadsheet or pandas: ranges only |
| `.txt`, `.minmax`, none | `as_text` | the lines of Caffe2's OutputMinMaxNetObserver |

JSON and CSV are exact: what `load` returns has the same min, max, nan and dtype, bit for bit, as
what was saved. Text has the ancestor's six words, in which all numbers are finite float32. What a
file does not hold of what was written to it is said, in a `LossWarning`.

Each format is a module with `write(records, ...) -> str` and `read(text) -> records`; `records`
goes between them and `Ranges`, `reading` finds what is damaged, and `atomic` brings a text to the
disk. Files are read and written by numpy alone, without a JAX backend; `Ranges.merge` takes one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jax_ranges.files import as_csv, as_json, as_text
from jax_ranges.files.atomic import write_atomically
from jax_ranges.files.losses import Loss, LossWarning, left_out, warn_of
from jax_ranges.files.reading import decoded
from jax_ranges.files.records import ForeignError, Record, ranges_of, records_of
from jax_ranges.files.states import is_built_in
from jax_ranges.ranges import Ranges, from_states, states_of
from jax_ranges.stats import MinMax, Statistic

__all__ = [
    "File",
    "Format",
    "LossWarning",
    "format_of",
    "held",
    "holds",
    "load",
    "parsed",
    "rendered",
    "rendering",
    "save",
]

Format = Literal["json", "csv", "text"]
File = str | os.PathLike[str]

ENDINGS: dict[str, Format] = {
    ".json": "json",
    ".csv": "csv",
    ".txt": "text",
    ".minmax": "text",  # as the ancestor called its global files
    "": "text",
}


def save(
    ranges: Ranges,
    file: File,
    delimiter: str = " ",
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write `ranges` to `file`; the file is whole at every moment, old or new.

    A file that there was keeps its permissions, and a link stays a link.

    Args:
      ranges: with values, so not inside jit. Text and CSV merge leading axes (see
        `Ranges.reduce`), JSON keeps them.
      file: its ending chooses the format, see `jax_ranges.files`.
      delimiter: between the fields of text. Nothing that occurs in them: no letters, digits or
        any of `+-._%/()[]`. Caffe2's own reader takes white space only.
      about: what else to say at the top of a JSON file: strings, numbers, booleans, None.

    Raises:
      ValueError: an ending that no format has, or there are no values, or no ranges for text or
        CSV, or user-defined statistics for JSON (it holds all others), or an unfit delimiter.
      OSError: the file cannot be written; nothing of an older one is lost.
      LossWarning: the file does not hold all of `ranges`. Text has no place for NaN flags, dtypes
        other than float32 and what float32 does not hold; text and CSV hold MinMax only.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(lambda x: jnp.abs(x) / 4)(jnp.array([0.5, -2.0]))
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "ranges.txt"
      >>> save(ranges, file)
      >>> print(file.read_text(), end="")
      0 abs 0 abs 0.5 2
      1 div 0 div 0.125 0.5
    """
    made = rendering(ranges, format_of(file), delimiter, about)
    write_atomically(Path(file), made.text)
    warn_of(file, made.losses)


def format_of(file: File) -> Format:
    """The format that a file's ending stands for; ValueError if it stands for none."""
    ending = Path(file).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(
            f"{os.fspath(file)!r}: no format of ranges has the ending {ending!r}. There are .json "
            f"(everything), .csv, and for Caffe2's text .txt, .minmax or no ending; pages are "
            f"written by ranges.to_html"
        )
    return ENDINGS[ending]


class Rendering(NamedTuple):
    """The text of a file, and what it does not hold."""

    text: str
    losses: tuple[Loss, ...]


def rendered(
    ranges: Ranges, as_: Format, delimiter: str = " ", about: Mapping[str, Any] | None = None
) -> str:
    """The text of a file of ranges. Arguments and errors are those of `save`."""
    return rendering(ranges, as_, delimiter, about).text


def rendering(
    ranges: Ranges, as_: Format, delimiter: str = " ", about: Mapping[str, Any] | None = None
) -> Rendering:
    """The text of a file of ranges, and what is lost. Arguments and errors are those of `save`."""
    kept, others = held(ranges, as_)
    if as_ == "json":
        if others:
            raise ValueError(
                f"files hold the statistics that come with jax_ranges, not {others}; save ranges "
                f"without them"
            )
        return Rendering(as_json.write(records_of(ranges, merged=False), about), ())
    if others and not kept.stats:
        raise ValueError(
            f"files of {as_} hold the ranges of MinMax, not {others}; save to a .json file"
        )
    records, lost = records_of(kept), left_out(others)
    if as_ == "csv":
        return Rendering(as_csv.write(records), lost)
    return Rendering(as_text.write(records, delimiter), (*lost, *as_text.losses(records)))


def holds(as_: Format, stat: Statistic) -> bool:
    """Whether a format holds a statistic: text and CSV ranges only, JSON all that are ours."""
    return isinstance(stat, MinMax) or (as_ == "json" and is_built_in(stat))


def held(ranges: Ranges, as_: Format) -> tuple[Ranges, list[Statistic]]:
    """What a format holds of these, and the statistics that it does not."""
    others = [stat for stat in ranges.stats if not holds(as_, stat)]
    if not others:
        return ranges, others
    kept = [
        (site, {stat: state for stat, state in states.items() if holds(as_, stat)})
        for site, states in states_of(ranges).values()
    ]
    pairs = [(site, states) for site, states in kept if states]
    return from_states([site for site, _ in pairs], [states for _, states in pairs]), others


def load(file: File, *others: File) -> Ranges:
    """Read a file that `Ranges.save` wrote; several files are merged by site name.

    The format is known by the content, and so is the delimiter of text. CSV and text do not hold
    all of a `Site`: what is missing (operands; in text the shape and the source too) is empty.
    Text is what Caffe2's observers write, or this package: sites of six words have dtype float32.

    Raises:
      ValueError: a file is damaged, is something else, or is of a newer version. It says which,
        and the line or the site.
      OSError: a file cannot be read.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(jnp.sin)(jnp.arange(3.0))
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "r.json"
      >>> ranges.save(file)
      >>> jr.load(file)["sin"] == ranges["sin"]
      True
    """
    return functools.reduce(Ranges.merge, [_load(Path(each)) for each in (file, *others)])


def parsed(text: str) -> Ranges:
    """The ranges of which `text` is the file, in any of the formats.

    Raises:
      ForeignError: it is no file of ranges, or a newer one.
      ValueError: it is damaged.
    """
    return ranges_of(_reader(text)(text))


def _load(file: Path) -> Ranges:
    data = file.read_bytes()
    try:
        return parsed(decoded(data))
    except ForeignError as error:
        raise ValueError(f"{file} is {error}") from error
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _reader(text: str) -> Callable[[str], list[Record]]:
    """By the content: files are renamed, and dumps have any ending."""
    if text.lstrip()[:1] in ("{", "["):
        return as_json.read
    if text.startswith(as_csv.HEADER[0] + ","):
        return as_csv.read
    return as_text.read
