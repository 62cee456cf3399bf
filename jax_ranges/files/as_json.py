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

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jax_ranges.files.numbers import dtype_of
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


def read(text: str) -> list[Record]:
    """The records of a file's text; ValueError if it is not one of ours, or is damaged."""
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ForeignError(f"damaged or no file of ranges: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ForeignError(f"JSON, but not a file of ranges: it has no format {FORMAT!r}")
    version = document.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ForeignError(
            f"of version {version!r} of the format, newer than version {VERSION}, which this "
            f"jax_ranges reads: upgrade jax_ranges, or save the file with this release"
        )
    try:
        specs = document.get("statistics", {})
        stats = {name: statistic_of(spec) for name, spec in specs.items()}
        return [_record(each, stats) for each in document["sites"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{error!r} in one of its sites") from error


def _record(each: dict[str, Any], stats: Mapping[str, Statistic]) -> Record:
    def field(name: str, kind: type) -> Any:
        if type(each[name]) is not kind:
            raise TypeError(f"{name} is {each[name]!r}, not of type {kind.__name__}")
        return each[name]

    def several(name: str, kind: type) -> tuple[Any, ...]:
        if any(type(item) is not kind for item in field(name, list)):
            raise TypeError(f"{name} is {each[name]!r}, not a list of {kind.__name__}")
        return tuple(each[name])

    site = Site(
        name=field("name", str),
        primitive=field("primitive", str),
        output=field("output", int),
        shape=several("shape", int),
        dtype=dtype_of(field("dtype", str)),
        source=field("source", str),
        operands=several("operands", str),
        backward=field("backward", bool),
        by_operand=_by_operand(each, several("operands", str)),
        reads=several("reads", str) if "reads" in each else (),
    )
    plain_states = each.get("states", {})
    states = {stats[name]: state_of(stats[name], site, s) for name, s in plain_states.items()}
    if states and not {"min", "max", "nan"} & each.keys():
        return Record(site, None, None, False, states, ranged=False)
    if not isinstance(each["nan"], bool | list):
        raise TypeError(f"nan is {each['nan']!r}, neither true nor false")
    return Record(site, each["min"], each["max"], each["nan"], states)


def _by_operand(each: dict[str, Any], operands: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    if "by_operand" not in each:
        return _one_each(operands)
    found = tuple(tuple(names) for names in each["by_operand"])
    if any(not isinstance(name, str) for names in found for name in names):
        raise TypeError(f"by_operand is {each['by_operand']!r}, not lists of names")
    return found
