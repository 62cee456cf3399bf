"""Ranges without structure: flat records for data frames, flat numbers for loggers."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

from jax_ranges.files.records import records_of
from jax_ranges.ranges import Ranges
from jax_ranges.report.rows import reads_of
from jax_ranges.stats import MinMax

LIBRARIES = ("pandas", "polars")


def records(ranges: Ranges) -> list[dict[str, Any]]:
    """One dictionary a site, in program order; see `Ranges.to_dataframe` for what is in it."""
    merged = ranges.reduce() if any(lead for _, lead in ranges.leads()) else ranges
    ranged = [site for site in merged.sites if _is_ranged(merged, site.name)]
    found = {r.site.name: r for r in records_of(merged.select(_one_of(ranged)))} if ranged else {}
    return [
        {
            "name": site.name,
            "primitive": site.primitive,
            "output": site.output,
            "shape": str(tuple(site.shape)),
            "dtype": str(site.dtype),
            "source": site.source,
            "backward": site.backward,
            "reads": ", ".join(reads_of(site)),
            **_range(found.get(site.name)),
            **dict(_others(merged, site.name)),
        }
        for site in merged.sites
    ]


def _is_ranged(ranges: Ranges, name: str) -> bool:
    return any(ranges.has(name, stat) for stat in ranges.stats if isinstance(stat, MinMax))


def _one_of(sites: list[Any]) -> Any:
    names = {site.name for site in sites}
    return lambda site: site.name in names


def _range(record: Any) -> dict[str, Any]:
    if record is None:
        return {}
    return {"min": record.min, "max": record.max, "nan": record.nan, "observed": record.observed}


def _others(ranges: Ranges, name: str) -> Iterator[tuple[str, Any]]:
    """The numbers that other statistics say: `Moments.mean`. Arrays are left out."""
    for stat in ranges.stats:
        if isinstance(stat, MinMax) or not ranges.has(name, stat):
            continue
        said = ranges.of(name, stat)
        if dataclasses.is_dataclass(said):
            for field in dataclasses.fields(said):
                value = getattr(said, field.name)
                if np.ndim(value) == 0 and isinstance(value, (bool, int, float, np.generic)):
                    yield f"{type(stat).__name__}.{field.name}", np.asarray(value).item()


def scalars(ranges: Ranges, prefix: str = "") -> dict[str, float]:
    """See `Ranges.scalars`."""
    found = {}
    for record in records(ranges):
        numbers = {k: v for k, v in record.items() if k in ("min", "max", "nan") or "." in k}
        if record.get("observed", True):
            for key, value in numbers.items():
                if value is not None:
                    found[f"{prefix}{record['name']}/{key}"] = float(value)
    return found


def to_dataframe(ranges: Ranges, library: str | None = None) -> Any:
    """See `Ranges.to_dataframe`."""
    return _library(library).DataFrame(records(ranges))


def _library(name: str | None) -> Any:
    if name is not None and name not in LIBRARIES:
        raise ValueError(f"library is one of {', '.join(map(repr, LIBRARIES))}, not {name!r}")
    for each in LIBRARIES if name is None else (name,):
        if importlib.util.find_spec(each) is not None:
            return importlib.import_module(each)
    wanted = " or ".join(LIBRARIES) if name is None else name
    raise ModuleNotFoundError(f"a data frame needs {wanted}: pip install {(name or LIBRARIES[0])}")
