"""Text: the lines of Caffe2's OutputMinMaxNetObserver, six words each.

    op_index op_type output_idx tensor_name min max

    0 dot_general 0 encoder/dot_general -1.5 0.1
    1 sort 0 encoder/sort -1.5 0.1
    1 sort 1 encoder/sort[1] 0 7
    2 exp 0 encoder/cond/branch_1/exp 3.4028235e+38 -3.4028235e+38

There is no header. What reads the ancestor's files reads these, word by word (in C++ with `>>`),
if the delimiter is white space: `op_index` counts the operations in program order, `output_idx` an
operation's outputs, and the min and max of a site where no number was seen are FLT_MAX and its
negative. All numbers are finite float32, with the shortest digits that give back the same one.

So some things have no place, and are said in a `LossWarning` where they occur: that a NaN was
seen; a dtype other than float32, and digits that it has not; infinities and values beyond
float32, which become FLT_MAX or its negative. Read back, all sites have dtype float32.

A character of a name that would be taken for something else (the delimiter, white space, `%`) is
percent-encoded, as in a URL; a word that would be empty is `%`. The delimiter may be anything that
occurs in no field; a reader finds it after the first number.

Read are lines of six words, of five (without the type of the operation, as the ancestor once wrote
them, and writes its global files), and of eight, which this package used to write: with the dtype
and a mark, `ok`, `nan` or `unobserved`. The first line decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

import numpy as np

from jax_ranges.files.losses import Loss, at_sites
from jax_ranges.files.numbers import (
    FLT_MAX,
    dtype_of,
    extremes,
    float32_text,
    index_of,
    nearest_float32,
    number,
)
from jax_ranges.files.reading import plainly, quoted
from jax_ranges.files.records import ForeignError, Record
from jax_ranges.site import Site

FIELDS = {
    6: ("op_index", "op_type", "output_idx", "tensor_name", "min", "max"),
    5: ("op_index", "output_idx", "tensor_name", "min", "max"),
    8: ("op_index", "op_type", "output_idx", "tensor_name", "min", "max", "dtype", "mark"),
}
"""The fields of a line, by how many there are."""

OCCURRING = "+-._%/()[]"
NOTHING_SEEN = (FLT_MAX, -FLT_MAX)
FLOAT32 = np.dtype(np.float32)
SPACE = " \t\v\f\r"
"""What C++ skips between words."""


def write(records: Sequence[Record], delimiter: str = " ") -> str:
    """The text of a file; ValueError if the delimiter could not be told from the fields."""
    check_delimiter(delimiter)
    indices = operation_indices([record.site for record in records])
    lines = [
        delimiter.join([str(index), *_fields(record, delimiter)]) + "\n"
        for index, record in zip(indices, records, strict=True)
    ]
    return "".join(lines) or "\n"  # an empty file is one that was not written


def losses(records: Sequence[Record]) -> tuple[Loss, ...]:
    """What the text does not hold of them."""
    kinds: dict[str, tuple[str, Callable[[Record], bool]]] = {
        "nan": ("that a NaN was seen", lambda record: record.nan),
        "dtype": ("dtypes other than float32", lambda record: record.site.dtype != FLOAT32),
        "beyond": (
            f"infinities and what is beyond float32, which became ±{float32_text(FLT_MAX)}",
            lambda record: any(abs(end) > FLT_MAX for end in _record_ends(record)),
        ),
        "digits": (
            "all digits of what float32 rounds",
            lambda record: any(
                nearest_float32(end) != end for end in _record_ends(record) if abs(end) <= FLT_MAX
            ),
        ),
    }
    found = []
    for kind, (what, is_lost) in kinds.items():
        names = [record.site.name for record in records if is_lost(record)]
        if names:
            found.append(Loss(kind, at_sites(what, names)))
    return tuple(found)


def _record_ends(record: Record) -> tuple[bool | int | float, ...]:
    return () if record.min is None else (record.min, record.max)


def check_delimiter(delimiter: str) -> None:
    """ValueError if text with this delimiter could not be read back."""
    if not isinstance(delimiter, str):
        raise TypeError(f"the delimiter must be a string; got {delimiter!r}")
    if not delimiter or len((delimiter + ".").splitlines()) > 1:
        raise ValueError(
            f"the delimiter must be one character or more, on one line; got {delimiter!r}"
        )
    unfit = [c for c in delimiter if c.isalnum() or c in OCCURRING]
    if unfit:
        raise ValueError(
            f"the delimiter must not occur in the fields, so it has no letters, digits or any of "
            f"{OCCURRING}; got {delimiter!r}. Take ' ', '\\t', ',', ';' or '|'"
        )


def operation_indices(sites: Sequence[Site]) -> list[int]:
    """Of which operation each is an output, counted in program order.

    A further output is called `sort[1]`; of files of the ancestor, where it has a name of its own,
    it comes after the one before it.
    """
    indices: dict[str, int] = {}
    found: list[int] = []
    before = None
    for site in sites:
        name = site.name.removesuffix(f"[{site.output}]") if site.output else site.name
        if before == (site.primitive, site.output - 1) and name not in indices:
            found.append(found[-1])
        else:
            found.append(indices.setdefault(name, len(set(found))))
        before = (site.primitive, site.output)
    return found


def _fields(record: Record, delimiter: str) -> tuple[str, ...]:
    site = record.site
    lo, hi = (float32_text(end) for end in _record_ends(record) or NOTHING_SEEN)
    name = _encoded(site.name, lambda c: c in delimiter)
    # Its first character ends the delimiter for a reader.
    kind = _encoded(site.primitive, lambda c: not (c.isalnum() or c in OCCURRING))
    return kind, str(site.output), name, lo, hi


def _encoded(text: str, unfit: Callable[[str], bool]) -> str:
    def one(c: str) -> str:
        if c != "%" and c.isprintable() and not c.isspace() and not unfit(c):
            return c
        # Not urllib.parse.quote: it leaves "~", which may be the delimiter.
        return "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogatepass"))

    return "".join(map(one, text)) or "%"


def _plain_name(encoded: str) -> str:
    return "" if encoded == "%" else unquote(encoded, errors="surrogatepass")


# -- back -------------------------------------------------------------------------------------


def read(text: str) -> list[Record]:
    """The records of a file's text; ValueError with the number of the line if it is damaged."""
    # Not splitlines: C++ knows one end of a line, and names may hold others.
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip(SPACE)]
    if not lines and text:
        return []
    split = _line_splitter(lines[0][1] if lines else "")
    count = len(split(lines[0][1]))
    records = []
    for i, line in lines:
        try:
            records.append(_record(split(line), count))
        except ValueError as error:
            raise ValueError(f"line {i}: {error}") from error
    return records


def _line_splitter(line: str) -> Callable[[str], list[str]]:
    """How lines are split: at what stands between the first number and what follows it."""
    found = re.match(rf"[{SPACE}]*[0-9]+([^\w{re.escape(OCCURRING)}]+)", line)
    if not found:
        raise ForeignError(
            f"damaged or no file of ranges: it is not JSON, it has no CSV header, and its first "
            f"line {quoted(line)} does not begin with a number and a delimiter"
        )
    delimiter = found[1]
    if not delimiter.strip(SPACE):
        return lambda line: [word for word in re.split(f"[{SPACE}]+", line) if word]
    return lambda line: line.rstrip("\r").split(delimiter)


def _record(fields: Sequence[str], count: int) -> Record:
    if count not in FIELDS:
        kinds = " or ".join(f"{n} ({' '.join(names)})" for n, names in FIELDS.items())
        raise ValueError(f"{len(fields)} fields instead of {kinds}")
    if len(fields) != count:
        raise ValueError(f"{len(fields)} fields instead of {count}: {' '.join(FIELDS[count])}")
    given = dict(zip(FIELDS[count], fields, strict=True))
    index_of(given["op_index"], "op_index")
    name, primitive = (_plain_name(given.get(key, "%")) for key in ("tensor_name", "op_type"))
    output = index_of(given["output_idx"], "output_idx")
    dtype = dtype_of(given.get("dtype", "float32"))
    backward = "transpose(" in name.rpartition("/")[0]
    site = Site(name, primitive, output, (), dtype, backward=backward)
    return (_marked_record if count == 8 else _unmarked_record)(site, given)


def _unmarked_record(site: Site, given: dict[str, str]) -> Record:
    least, most = given["min"], given["max"]
    # The ancestor prints six digits, and FLT_MAX as 3.40282e+38. With an infinity, which C++ prints
    # so though it does not read it, it is as unseen.
    lo, hi = number(least, FLOAT32), number(most, FLOAT32)
    if lo >= 3.40282e38 and hi <= -3.40282e38:
        return Record(site, None, None, False)
    return Record(site, *extremes(least, most, FLOAT32), False)


def _marked_record(site: Site, given: dict[str, str]) -> Record:
    """What this package used to write."""
    least, most, mark = (given[key] for key in ("min", "max", "mark"))
    is_unseen = (least, most) == ("inf", "-inf")
    lo, hi = (None, None) if is_unseen else extremes(least, most, site.dtype)
    record = Record(site, lo, hi, mark == "nan")
    if mark != ("nan" if record.nan else "ok" if record.observed else "unobserved"):
        ends = f"min {plainly(least)} and max {plainly(most)}"
        raise ValueError(f"the mark {quoted(mark)} does not go with {ends}")
    return record
