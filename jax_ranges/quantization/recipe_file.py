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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jax_ranges import compat
from jax_ranges.files import File
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
    """The entries of a file; ValueError if it is no recipe."""
    try:
        document = json.loads(Path(file).read_text(encoding="utf-8"))
        return _entries(document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no recipe that this release reads: {error}") from error


def _entries(document: Any) -> list[Entry]:
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise ValueError(f"it has no format {FORMAT!r}")
    version = document.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ValueError(f"its version is {version!r}; this release reads up to {VERSION}")
    rules = document.get("rules")
    if not isinstance(rules, list):
        raise ValueError("its rules are no list")
    return [_entry(rule, number) for number, rule in enumerate(rules, 1)]


def _entry(rule: Any, number: int) -> Entry:
    try:
        exact = "site" in rule
        fields = {"site" if exact else "sites", "operands", "output"}
        _only(rule, fields)
        sites = rule["site" if exact else "sites"]
        if not isinstance(sites, str):
            raise TypeError(f"the sites are {sites!r}, not a string")
        operands, output = rule.get("operands"), rule.get("output")
        if not isinstance(operands, list | None):
            raise TypeError(f"operands is {operands!r}, not a list")
        given = None if operands is None else [_spec(each) for each in operands]
        return Entry(sites, QRule(given, _spec(output)), exact)
    except (KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"in rule {number}: {what}") from error


def _only(given: Mapping[str, Any], fields: set[str]) -> None:
    unknown = sorted(set(given) - fields)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; there are {', '.join(sorted(fields))}")


_DYNAMIC = {"format", "scale", "asymmetric", "channels"}
_GIVEN = {"format", "scale", "zero_point", "codes", "axis", "float64"}


def _spec(given: Any) -> Spec | None:
    if given is None or isinstance(given, str):
        return spec_of(given)
    if not isinstance(given, Mapping):
        raise TypeError(f"a value's rule is a format or an object with one, not {given!r}")
    if given.get("scale") == "dynamic":
        _only(given, _DYNAMIC)
        return Dynamic(
            given["format"], not given.get("asymmetric", False), bool(given.get("channels"))
        )
    _only(given, _GIVEN)
    return _params(given)


def _params(given: Mapping[str, Any]) -> QParams:
    fmt = format_of(given["format"])
    if "scale" not in given and fmt.kind == "int":
        raise ValueError(f'{fmt.name} needs a scale: a number, a list, or "dynamic"')
    scale = np.array(given.get("scale", 1), np.float64 if given.get("float64") else np.float32)
    zero_point = np.array(given.get("zero_point", np.zeros(scale.shape)), np.int32)
    if not (np.isfinite(scale).all() and (scale > 0).all()) or zero_point.shape != scale.shape:
        raise ValueError(
            f"scales are positive numbers, each with its zero point; got {given.get('scale')!r} "
            f"and {given.get('zero_point')!r}"
        )
    qmin, qmax = _codes(given, fmt) if fmt.uniform else (fmt.least, fmt.largest)
    return QParams(scale[()], zero_point[()], qmin, qmax, fmt, given.get("axis"))


def _codes(given: Mapping[str, Any], fmt: Format) -> tuple[int, int]:
    codes = given.get("codes", list(fmt.codes))
    least, largest = fmt.codes
    whole = isinstance(codes, list) and [type(code) for code in codes] == [int, int]
    if not (whole and least <= codes[0] < codes[1] <= largest):
        raise ValueError(f"codes of {fmt} are two integers from {least} to {largest}: {codes!r}")
    return codes[0], codes[1]
