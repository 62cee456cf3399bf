"""JSON: one object a site, in program order, for programs that have nothing of ours.

    {"format": "jax_ranges", "version": 2, "about": {...}, "sites": [
        {"name": ..., "primitive": ..., "output": 0, "shape": [8, 16], "dtype": "float32",
         "source": "model.py:12", "operands": [...], "backward": false,
         "min": -1.5, "max": "inf", "nan": false}, ...]}

JSON has no infinities and no NaN, so these are strings; other floats are written with all the
digits that a float64 needs, of which a float32 is an exact case. Min and max are null where no
number was seen. Stacked and vmapped ranges are nested lists. `about` is there only if given.

"by_operand", the operands by position, is there where it is not one name each, and "reads" where
a site reads arguments or constants. Since version 2 a site may have "states" of other statistics,
or those alone (see `states`).
"""

from __future__ import annotations

import contextlib
import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax_ranges.files.numbers import dtype_of, symbol
from jax_ranges.files.reading import parsed_json, quoted
from jax_ranges.files.records import ForeignError, Record
from jax_ranges.files.states import plain_state, spec_of, state_of, statistic_of
from jax_ranges.site import Site
from jax_ranges.stats import Statistic

FORMAT = "jax_ranges"
VERSION = 2


def write(records: Sequence[Record], about: Mapping[str, Any] | None = None) -> str:
    """The text of a file; ValueError if `about` is not a flat mapping of JSON values."""
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if about is not None:
        document["about"] = _checked(about)
    stats = dict.fromkeys(stat for record in records for stat in record.states)
    if stats:
        document["statistics"] = {repr(stat): spec_of(stat) for stat in stats}
    document["sites"] = []
    # One by one, because states are long and belong on a line of their own.
    sites = ",\n".join(_text(record) for record in records)
    text = json.dumps(document, indent=1, allow_nan=False)
    return (text.removesuffix("[]\n}") + f"[\n{sites}\n ]\n}}" if sites else text) + "\n"


def _text(record: Record) -> str:
    """The lines of a site, indented as part of the document."""
    text = json.dumps(_object(record), indent=1, allow_nan=False)
    if record.states:
        states = {repr(stat): plain_state(state) for stat, state in record.states.items()}
        text = text.removesuffix("\n}")
        text += f',\n "states": {json.dumps(states, allow_nan=False)}\n}}'
    return textwrap.indent(text, "  ")


def _checked(about: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in about.items():
        plain = value is None or isinstance(value, (str, bool, int, float))
        if not (isinstance(key, str) and plain) or value in (math.inf, -math.inf) or value != value:
            raise ValueError(
                f"about takes strings, finite numbers, booleans and None by name; got "
                f"{key!r}: {value!r} of type {type(value).__name__}"
            )
    return dict(about)


def _object(record: Record) -> dict[str, Any]:
    site = record.site
    about = {
        "name": site.name,
        "primitive": site.primitive,
        "output": site.output,
        "shape": list(site.shape),
        "dtype": str(site.dtype),
        "source": site.source,
        "operands": list(site.operands),
        "backward": site.backward,
    }
    if site.by_operand != _one_each(site.operands):
        about["by_operand"] = [list(names) for names in site.by_operand]
    if site.reads:
        about["reads"] = list(site.reads)
    if not record.ranged:
        return about
    return {**about, "min": plain(record.min), "max": plain(record.max), "nan": record.nan}


def _one_each(operands: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """What sites have as `by_operand` as a rule, which is not written."""
    return tuple((name,) for name in operands)


def plain(value: Any) -> Any:
    """A number as JSON has it, or nested lists of them."""
    if isinstance(value, list):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# -- back -------------------------------------------------------------------------------------


def read(text: str) -> list[Record]:
    """The records of a file's text; ValueError if it is not one of ours, or is damaged."""
    try:
        document = parsed_json(text)
    except ValueError as error:
        raise ForeignError(f"damaged or no file of ranges: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ForeignError(f"JSON, but not a file of ranges: it has no format {FORMAT!r}")
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ForeignError(
            f"of version {quoted(version)} of the format, and this jax_ranges reads 1 to "
            f"{VERSION}: if it is newer, upgrade jax_ranges, or save the file with this release"
        )
    specs = _typed_field(document, "statistics", dict) if "statistics" in document else {}
    with _naming_place("statistics"):
        stats = {name: statistic_of(spec) for name, spec in specs.items()}
        if len(set(stats.values())) < len(stats):
            raise ValueError("the same statistic occurs twice")
    return [_record(each, i, stats) for i, each in enumerate(_typed_field(document, "sites", list))]


@contextlib.contextmanager
def _naming_place(place: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _record(each: Any, index: int, stats: Mapping[str, Statistic]) -> Record:
    named = isinstance(each, dict) and isinstance(each.get("name"), str)
    with _naming_place(f"sites[{index}]" + (f", {quoted(each['name'])}" if named else "")):
        if not isinstance(each, dict):
            raise ValueError(f"it is {quoted(each)}, not an object")
        site = _site_of(each)
        plain_states = _typed_field(each, "states", dict) if "states" in each else {}
        states = {_known_stat(name, stats): state for name, state in plain_states.items()}
        states = {stat: state_of(stat, site, state) for stat, state in states.items()}
        if states and not {"min", "max", "nan"} & each.keys():
            return Record(site, None, None, False, states, ranged=False)
        lo, hi = (_plain_numbers(_typed_field(each, key, object), key) for key in ("min", "max"))
        return Record(site, lo, hi, _plain_flags(_typed_field(each, "nan", object)), states)


def _site_of(each: dict[str, Any]) -> Site:
    operands = _typed_list(each, "operands", str)
    return Site(
        name=_typed_field(each, "name", str),
        primitive=_typed_field(each, "primitive", str),
        output=_from_zero(_typed_field(each, "output", int), "output"),
        shape=tuple(map(_size, _typed_list(each, "shape", int, str))),
        dtype=dtype_of(_typed_field(each, "dtype", str)),
        source=_typed_field(each, "source", str),
        operands=operands,
        backward=_typed_field(each, "backward", bool),
        by_operand=_by_operand(each, operands),
        reads=_typed_list(each, "reads", str) if "reads" in each else (),
    )


def _typed_field(each: dict[str, Any], name: str, kind: type) -> Any:
    if name not in each:
        raise ValueError(f"there is no {name}")
    if kind is not object and type(each[name]) is not kind:
        raise ValueError(f"{name} is {quoted(each[name])}, not of type {kind.__name__}")
    return each[name]


def _typed_list(each: dict[str, Any], name: str, *kinds: type) -> tuple[Any, ...]:
    if any(type(item) not in kinds for item in _typed_field(each, name, list)):
        named = " and ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name} is {quoted(each[name])}, not a list of {named}")
    return tuple(each[name])


def _size(value: int | str) -> int | str:
    """That of an axis; a string is symbolic."""
    return symbol(value) if isinstance(value, str) else _from_zero(value, "shape")


def _from_zero(value: int, what: str) -> int:
    if not 0 <= value < 1 << 63:
        raise ValueError(f"{what} has {quoted(value)} in it, not a number from 0 on")
    return value


def _by_operand(each: dict[str, Any], operands: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    if "by_operand" not in each:
        return _one_each(operands)
    lists = _typed_list(each, "by_operand", list)
    return tuple(_typed_list({"by_operand": names}, "by_operand", str) for names in lists)


def _known_stat(name: str, stats: Mapping[str, Statistic]) -> Statistic:
    if name not in stats:
        raise ValueError(f"states has {quoted(name)}, which is not among the statistics")
    return stats[name]


def _plain_numbers(value: Any, what: str) -> Any:
    """What `plain` was given: numbers, or None, or nested lists of these."""
    if isinstance(value, list):
        return [_plain_numbers(each, what) for each in value]
    if isinstance(value, str) and value in ("inf", "-inf"):
        return float(value)
    if isinstance(value, str | dict) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f'{what} is {quoted(value)}, not a number, null, "inf" or "-inf"')
    return value


def _plain_flags(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain_flags(each) for each in value]
    if not isinstance(value, bool):
        raise ValueError(f"nan is {quoted(value)}, neither true nor false")
    return value
