"""Text: the lines of Caffe2's OutputMinMaxNetObserver, and two fields more.

    op_index op_type output_idx tensor_name min max dtype mark

    0 dot_general 0 encoder/dot_general -1.5 0.1 float32 ok
    1 sort 0 encoder/sort -1.5 0.1 float32 ok
    1 sort 1 encoder/sort[1] 0 7 int32 ok
    2 log 0 encoder/log -inf 0.0 float32 nan
    3 exp 0 encoder/cond/branch_1/exp inf -inf float32 unobserved

There is no header, so what reads the ancestor's six fields reads these. `op_index` counts the
operations in program order, `output_idx` an operation's outputs. Min and max have the shortest
digits that give back the same number, and are `inf -inf` where no number was seen, of which
nobody can make a scale. The mark is `nan` if a NaN was seen.

A character of a name that would be taken for something else (the delimiter, white space, `%`) is
percent-encoded, as in a URL. The delimiter may be anything that occurs in no field; a reader
finds it after the first number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from jax_ranges.files.numbers import dtype_of, extremes, number_text
from jax_ranges.files.records import ForeignError, Record
from jax_ranges.site import Site

FIELDS = ("op_index", "op_type", "output_idx", "tensor_name", "min", "max", "dtype", "mark")
OCCURRING = "+-._%/()[]"
UNSEEN = ("inf", "-inf")


def write(records: Sequence[Record], delimiter: str = " ") -> str:
    """The text of a file; ValueError if the delimiter could not be told from the fields."""
    check_delimiter(delimiter)
    operations: dict[str, int] = {}
    lines = []
    for record in records:
        index = operations.setdefault(operation_of(record.site), len(operations))
        lines.append(delimiter.join([str(index), *_fields(record, delimiter)]) + "\n")
    return "".join(lines)


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


def operation_of(site: Site) -> str:
    """The same for all outputs of an equation: a further one is called `sort[1]`."""
    return site.name.removesuffix(f"[{site.output}]") if site.output else site.name


def _fields(record: Record, delimiter: str) -> tuple[str, ...]:
    site = record.site
    seen = record.min is not None
    lo, hi = (number_text(x, site.dtype) for x in (record.min, record.max)) if seen else UNSEEN
    name = _encoded(site.name, lambda c: c in delimiter)
    # Its first character ends the delimiter for a reader.
    kind = _encoded(site.primitive, lambda c: not (c.isalnum() or c in OCCURRING))
    return kind, str(site.output), name, lo, hi, str(site.dtype), _mark(record)


def _encoded(text: str, unfit: Callable[[str], bool]) -> str:
    def one(c: str) -> str:
        if c != "%" and c.isprintable() and not c.isspace() and not unfit(c):
            return c
        # Not urllib.parse.quote: it leaves "~", which may be the delimiter.
        return "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogatepass"))

    return "".join(map(one, text))


def _mark(record: Record) -> str:
    return "nan" if record.nan else "ok" if record.observed else "unobserved"


def read(text: str) -> list[Record]:
    """The records of a file's text; ValueError with the number of the line if it is damaged."""
    lines = text.splitlines()
    delimiter = _delimiter(lines[0] if lines else "")
    records = []
    for i, line in enumerate(lines, 1):
        try:
            records.append(_record(line.split(delimiter)))
        except ValueError as error:
            raise ValueError(f"line {i}: {error}") from error
    return records


def _delimiter(line: str) -> str:
    """What stands between the first number and the operation's type."""
    found = re.match(rf"[0-9]+([^\w{re.escape(OCCURRING)}]+)", line)
    if not found:
        raise ForeignError(
            f"damaged or no file of ranges: it is not JSON, it has no CSV header, and its first "
            f"line {line[:60]!r} does not begin with a number, a delimiter and an operation's type"
        )
    return found[1]


def _record(fields: Sequence[str]) -> Record:
    if len(fields) != len(FIELDS):
        raise ValueError(f"{len(fields)} fields instead of {len(FIELDS)}: {' '.join(FIELDS)}")
    index, kind, output, encoded, least, most, dtype_name, mark = fields
    int(index)
    dtype = dtype_of(dtype_name)
    name, primitive = (unquote(text, errors="surrogatepass") for text in (encoded, kind))
    backward = "transpose(" in name.rpartition("/")[0]
    site = Site(name, primitive, int(output), (), dtype, backward=backward)
    lo, hi = (None, None) if (least, most) == UNSEEN else extremes(least, most, dtype)
    record = Record(site, lo, hi, mark == "nan")
    if mark != _mark(record):
        raise ValueError(f"the mark {mark!r} does not go with min {least} and max {most}")
    return record
