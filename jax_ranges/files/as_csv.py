"""CSV: a header and a line a site, for spreadsheets, pandas and databases.

    name,primitive,output,shape,dtype,min,max,nan,observed,source,backward
    encoder/dot_general,dot_general,0,8x16,float32,-1.5,0.1,false,true,model.py:12,false

Min and max are empty where no number was seen, infinite as `inf` and `-inf`; other floats have
the shortest digits that give back the same number. Booleans' ranges are 0 and 1. The shape of a
scalar is empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from jax_ranges.files.numbers import dtype_of, extremes, number_text
from jax_ranges.files.records import ForeignError, Record
from jax_ranges.site import Site

HEADER = (
    *("name", "primitive", "output", "shape", "dtype"),
    *("min", "max", "nan", "observed", "source", "backward"),
)


def write(records: Sequence[Record]) -> str:
    """The text of a file."""
    return "".join(map(_line, [HEADER, *map(_fields, records)]))


def _line(fields: Sequence[str]) -> str:
    # The module's own line end has "\r" in it, and so it quotes names that have one; with "\n" it
    # does not, and could not read them. But lines end in "\n" for the sake of Unix tools.
    stream = io.StringIO()
    csv.writer(stream).writerow(fields)
    return stream.getvalue().removesuffix("\r\n") + "\n"


def _fields(record: Record) -> tuple[str, ...]:
    site = record.site
    lo, hi = ("" if x is None else number_text(x, site.dtype) for x in (record.min, record.max))
    return (
        *(site.name, site.primitive, str(site.output), "x".join(map(str, site.shape))),
        *(str(site.dtype), lo, hi, _flag_text(record.nan), _flag_text(record.observed)),
        *(site.source, _flag_text(site.backward)),
    )


def _flag_text(value: bool) -> str:
    return "true" if value else "false"


def read(text: str) -> list[Record]:
    """The records of a file's text; ValueError with the number of the line if it is damaged."""
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if tuple(next(lines)) != HEADER:
            raise ForeignError(f"CSV, but not of ranges: its header is not {','.join(HEADER)}")
        return [_record(fields) for fields in lines if fields]  # none: an empty line
    except ForeignError:
        raise
    except (ValueError, csv.Error) as error:
        raise ValueError(f"line {lines.line_num}: {error}") from error


def _record(fields: Sequence[str]) -> Record:
    if len(fields) != len(HEADER):
        raise ValueError(f"{len(fields)} fields instead of {len(HEADER)}")
    name, primitive, output, shape, dtype_name, least, most, nan, observed, source, back = fields
    dtype = dtype_of(dtype_name)
    dimensions = tuple(map(int, shape.split("x"))) if shape else ()
    site = Site(name, primitive, int(output), dimensions, dtype, source, backward=_flag(back))
    lo, hi = extremes(least, most, dtype) if least or most else (None, None)
    record = Record(site, lo, hi, _flag(nan))
    if record.observed != _flag(observed):
        raise ValueError(f"min, max and nan do not go with observed={observed}")
    return record


def _flag(text: str) -> bool:
    # Spreadsheet programs write them in capitals.
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
