"""Files of ranges: three formats, one `save`, one `load`.

| ending | format | holds |
|---|---|---|
| `.json` | `as_json` | everything, stacked and vmapped ranges and all statistics too |
| `.csv` | `as_csv` | a line a site for a spreadsheet or pandas |
| any other | `as_text` | the lines of Caffe2's OutputMinMaxNetObserver |

All three are exact: what `load` returns has the same min, max, nan and dtype, bit for bit, as what
was saved. Each format is a module with `write(records, ...) -> str` and `read(text) -> records`;
`records` goes between them and `Ranges`, and `atomic` brings a text to the disk.

Files are read and written by numpy alone, without a JAX backend; `Ranges.merge` takes one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from jax_ranges.files import as_csv, as_json, as_text
from jax_ranges.files.atomic import write_atomically
from jax_ranges.files.records import ForeignError, Record, ranges_of, records_of
from jax_ranges.files.states import is_built_in
from jax_ranges.ranges import Ranges
from jax_ranges.stats import MinMax

Format = Literal["json", "csv", "text"]
File = str | os.PathLike[str]


def save(
    ranges: Ranges,
    file: File,
    delimiter: str = " ",
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write `ranges` to `file`; the file is whole at every moment, old or new.

    Args:
      ranges: with values, so not inside jit. Text and CSV merge leading axes (see
        `Ranges.reduce`), JSON keeps them.
      file: `.json` and `.csv` are what they say, any other ending is Caffe2's text.
      delimiter: between the fields of text. Nothing that occurs in them: no letters, digits or
        any of `+-._%/()[]`.
      about: what else to say at the top of a JSON file: strings, numbers, booleans, None.

    Raises:
      ValueError: there are no values, or statistics that the format does not hold (JSON holds
        all but user-defined ones, text and CSV only MinMax), or an unfit delimiter.
      OSError: the file cannot be written; nothing of an older one is lost.

    Example:
      >>> import pathlib, tempfile
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> _, ranges = jr.ranges(lambda x: jnp.abs(x).astype(int))(jnp.array([0.5, -2.0]))
      >>> file = pathlib.Path(tempfile.mkdtemp()) / "ranges.txt"
      >>> save(ranges, file)
      >>> print(file.read_text(), end="")
      0 abs 0 abs 0.5 2.0 float32 ok
      1 convert_element_type 0 convert_element_type 0 2 int32 ok
    """
    path = Path(file)
    write_atomically(path, rendered(ranges, format_of(path), delimiter, about))


def format_of(file: File) -> Format:
    """The format that a file's ending stands for."""
    endings: dict[str, Format] = {".json": "json", ".csv": "csv"}
    return endings.get(Path(file).suffix.lower(), "text")


def rendered(
    ranges: Ranges, as_: Format, delimiter: str = " ", about: Mapping[str, Any] | None = None
) -> str:
    """The text of a file of ranges. Arguments and errors are those of `save`."""
    _check_held(ranges, as_)
    if as_ == "json":
        return as_json.write(records_of(ranges, merged=False), about)
    if as_ == "csv":
        return as_csv.write(records_of(ranges))
    return as_text.write(records_of(ranges), delimiter)


def _check_held(ranges: Ranges, as_: Format) -> None:
    others = [stat for stat in ranges.stats if not isinstance(stat, MinMax)]
    unknown = [stat for stat in others if not is_built_in(stat)]
    if unknown:
        raise ValueError(
            f"files hold the statistics that come with jax_ranges, not {unknown}; save ranges "
            f"without them"
        )
    if others and as_ != "json":
        raise ValueError(
            f"files of {as_} hold the ranges of MinMax, not {others}; save to a .json file"
        )


def load(file: File, *others: File) -> Ranges:
    """Read a file that `Ranges.save` wrote; several files are merged by site name.

    The format is known by the content, and so is the delimiter of text. CSV and text do not hold
    all of a `Site`: what is missing (operands; in text the shape and the source too) is empty.

    Raises:
      ValueError: a file is damaged, is something else, or is of a newer version.
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
    try:
        # A spreadsheet program puts a byte order mark at the front; "\r" may be part of a name.
        with open(file, encoding="utf-8-sig", newline="") as stream:
            return parsed(stream.read())
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
