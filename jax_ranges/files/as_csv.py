"""CSV: a header and a line a site, for spreadsheets, pandas and databases.

    name,primitive,output,shape,dtype,min,max,nan,observed,source,backward
    encoder/dot_general,dot_general,0,8x16,float32,-1.5,0.1,false,true,model.py:12,false

Min and max are empty where no number was seen, infinite as `inf` and `-inf`; other floats have
the shortest digits that give back the same number. Booleans' ranges are 0 and 1. The shape of a
scalar is empty. Half of a surrogate pair, which a name may have though UTF-8 has not, is written
as in Python, `\\udc80`, and a text that looks like it with one `u` more.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from jax_ranges.files.numbers import dtype_of, extremes, index_of, number_text, shape_of, size_text
from jax_ranges.files.reading import plainly, quoted
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
    name, primitive, source = map(_escaped_text, (site.name, site.primitive, site.source))
    return (
        *(name, primitive, str(site.output), "x".join(map(size_text, site.shape))),
        *(str(site.dtype), lo, hi, _flag_text(record.nan), _flag_text(record.observed)),
        *(source, _flag_text(site.backward)),
    )


def _escaped_text(text: str) -> str:
    text = _ESCAPE.sub(r"\\u\1\2", text)
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in text)


def _unescaped_text(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        more, code = found.groups()
        return f"\\{more[1:]}{code}" if len(more) > 1 else chr(int(code, 16))

    return _ESCAPE.sub(one, text)


_ESCAPE = re.compile(r"\\(u+)(d[89a-f][0-9a-f]{2})")


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
    given = dict(zip(HEADER, fields, strict=True))
    name, primitive, source = (
        _unescaped_text(given[key]) for key in ("name", "primitive", "source")
    )
    shape = shape_of(given["shape"])
    output, dtype = index_of(given["output"], "output"), dtype_of(given["dtype"])
    site = Site(name, primitive, output, shape, dtype, source, backward=_flag(given["backward"]))
    least, most = given["min"], given["max"]
    lo, hi = extremes(least, most, dtype) if least or most else (None, None)
    record = Record(site, lo, hi, _flag(given["nan"]))
    if record.observed != _flag(given["observed"]):
        raise ValueError(f"min, max and nan do not go with observed={plainly(given['observed'])}")
    return record


def _flag(text: str) -> bool:
    # Spreadsheet programs write them in capitals.
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{quoted(text)} is neither true nor false")
    return text.lower() == "true"
