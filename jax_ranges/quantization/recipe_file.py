"""Recipes as JSON: a line a rule, for people to read and change.

    {"format": "jax_ranges.recipe", "version": 1, "rules": [
      {"site": "Dense_0/dot_general", "operands": [
        {"format": "int8", "scale": 0.031, "zero_point": -4, "codes": [-128, 127]},
        {"format": "int8", "scale": "dynamic", "channels": true}]},
      {"sites": "*/softmax/*"},
      {"sites": "*", "output": {"format": "bfloat16"}}
    ]}

"site" is the name of one site, "sites" a primitive or a glob of names; of rules that match a site
the first holds. A value without a rule (null, or no such field) stays as it is. Scales are written
with all their digits; what a scale per channel has is a list, with "axis", the axis of the value
that it lies along.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_ranges import compat
from jax_ranges.files import File
from jax_ranges.files.reading import decoded, parsed_json, quoted
from jax_ranges.formats import Format, format_of
from jax_ranges.qparams import QParams
from jax_ranges.quantization.recipe import Entry, QRule
from jax_ranges.quantization.specs import Dynamic, Spec, spec_of

FORMAT = "jax_ranges.recipe"
VERSION = 1


def written(entries: Sequence[Entry]) -> str:
    """The text of a file; ValueError if parameters in it are traced."""
    lines = ",\n".join("  " + json.dumps(_object(entry), allow_nan=False) for entry in entries)
    rules = f"\n{lines}\n" if lines else ""
    return f'{{"format": "{FORMAT}", "version": {VERSION}, "rules": [{rules}]}}\n'


def _object(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {"site" if entry.exact else "sites": entry.sites}
    if entry.rule.operands is not None:
        found["operands"] = [_spec_object(spec) for spec in entry.rule.operands]
    if entry.rule.output is not None:
        found["output"] = _spec_object(entry.rule.output)
    return found


def _spec_object(spec: Spec | None) -> dict[str, Any] | None:
    if spec is None:
        return None
    if isinstance(spec, Dynamic):
        flags = {"asymmetric": not spec.symmetric, "channels": spec.channels}
        found = {"format": spec.format.name, "scale": "dynamic"}
        return found | {name: True for name, on in flags.items() if on}
    if compat.is_traced(spec.scale) or compat.is_traced(spec.zero_point):
        raise ValueError("parameters in the recipe are traced (inside jit): save it outside")
    return _params_object(spec)


def _params_object(q: QParams) -> dict[str, Any]:
    scale, zero_point = np.asarray(q.scale), np.asarray(q.zero_point)
    found: dict[str, Any] = {"format": q.format.name}
    if scale.ndim or scale != 1 or q.format.kind == "int":
        found["scale"] = scale.tolist()
    if scale.dtype == np.float64:
        found["float64"] = True
    if zero_point.any():
        found["zero_point"] = zero_point.tolist()
    if q.format.uniform:
        found["codes"] = [int(q.qmin), int(q.qmax)]
    return found if q.axis is None else {**found, "axis": q.axis}


# -- back -------------------------------------------------------------------------------------


def load(file: File) -> list[Entry]:
    """The entries of a file; ValueError if it is no recipe, with the rule that is wrong."""
    data = Path(file).read_bytes()
    try:
        return _entries(parsed_json(decoded(data)))
    except ValueError as error:
        raise ValueError(f"{file} is no recipe that this release reads: {error}") from error


def _entries(document: Any) -> list[Entry]:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"it has no format {FORMAT!r}")
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ValueError(f"its version is {quoted(version)}; this release reads up to {VERSION}")
    rules = document.get("rules")
    if not isinstance(rules, list):
        raise ValueError("its rules are no list")
    return [_entry(rule, number) for number, rule in enumerate(rules, 1)]


def _entry(rule: Any, number: int) -> Entry:
    try:
        if not isinstance(rule, dict):
            raise ValueError(f"it is {quoted(rule)}, not an object")
        exact = "site" in rule
        sites = _required_field(rule, "site" if exact else "sites")
        _only(rule, {"site" if exact else "sites", "operands", "output"})
        if not isinstance(sites, str):
            raise ValueError(f"the sites are {quoted(sites)}, not a string")
        operands, output = rule.get("operands"), rule.get("output")
        if not isinstance(operands, list | None):
            raise ValueError(f"operands is {quoted(operands)}, not a list")
        given = None if operands is None else [_spec(each) for each in operands]
        return Entry(sites, QRule(given, _spec(output)), exact)
    except ValueError as error:
        raise ValueError(f"in rule {number}: {error}") from error


def _required_field(given: dict[str, Any], field: str) -> Any:
    if field not in given:
        raise ValueError(f"no {field!r} in {quoted(given)}")
    return given[field]


def _only(given: dict[str, Any], fields: set[str]) -> None:
    unknown = sorted(set(given) - fields)
    if unknown:
        raise ValueError(
            f"unknown field {quoted(unknown[0])}; there are {', '.join(sorted(fields))}"
        )


_DYNAMIC = {"format", "scale", "asymmetric", "channels"}
_GIVEN = {"format", "scale", "zero_point", "codes", "axis", "float64"}


def _spec(given: Any) -> Spec | None:
    if given is None:
        return None
    if isinstance(given, str):
        return spec_of(_format_in({"format": given}))
    if not isinstance(given, dict):
        raise ValueError(f"a value's rule is a format or an object with one, not {quoted(given)}")
    if given.get("scale") == "dynamic":
        _only(given, _DYNAMIC)
        return Dynamic(
            _format_in(given), not _flag_in(given, "asymmetric"), _flag_in(given, "channels")
        )
    _only(given, _GIVEN)
    return _params(given)


def _format_in(given: dict[str, Any]) -> Format:
    name = _required_field(given, "format")
    if not isinstance(name, str) or len(name) > 40:
        raise ValueError(f"the format is {quoted(name)}, not the name of one")
    return format_of(name)


def _flag_in(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {quoted(value)}, neither true nor false")
    return value


def _params(given: dict[str, Any]) -> QParams:
    fmt = _format_in(given)
    if "scale" not in given and fmt.kind == "int":
        raise ValueError(f'{fmt.name} needs a scale: a number, a list, or "dynamic"')
    scale = _number_array(
        given.get("scale", 1), np.float64 if _flag_in(given, "float64") else np.float32
    )
    zero_point = _number_array(
        given.get("zero_point", np.zeros(scale.shape, int).tolist()), np.int32
    )
    if not (np.isfinite(scale).all() and (scale > 0).all()) or zero_point.shape != scale.shape:
        raise ValueError(
            f"scales are positive numbers, each with its zero point; got "
            f"{quoted(given.get('scale'))} and {quoted(given.get('zero_point'))}"
        )
    qmin, qmax = _codes(given, fmt) if fmt.uniform else (fmt.least, fmt.largest)
    return QParams(scale[()], zero_point[()], qmin, qmax, fmt, _axis_in(given))


def _number_array(value: Any, dtype: type) -> np.ndarray:
    """A number or nested lists of numbers, integers for an integer dtype."""
    kinds = (int,) if dtype is np.int32 else (int, float)

    def check(value: Any) -> None:
        if isinstance(value, list):
            for each in value:
                check(each)
        elif type(value) not in kinds:
            raise ValueError(f"{quoted(value)} is no {np.dtype(dtype)}")

    check(value)
    try:
        with np.errstate(over="ignore"):  # an infinity, which is no scale
            return np.array(value, dtype)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{quoted(value)} is no {np.dtype(dtype)}: {error}") from error


def _axis_in(given: dict[str, Any]) -> int | None:
    axis = given.get("axis")
    if axis is not None and (type(axis) is not int or abs(axis) > 64):
        raise ValueError(f"axis is {quoted(axis)}, not the number of an axis")
    return axis


def _codes(given: dict[str, Any], fmt: Format) -> tuple[int, int]:
    codes = given.get("codes", list(fmt.codes))
    least, largest = fmt.codes
    whole = isinstance(codes, list) and [type(code) for code in codes] == [int, int]
    if not (whole and least <= codes[0] < codes[1] <= largest):
        raise ValueError(
            f"codes of {fmt} are two integers from {least} to {largest}: {quoted(codes)}"
        )
    return codes[0], codes[1]
