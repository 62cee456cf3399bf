"""Recipes from ranges: which operand is a weight, and where the others' scales come from."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jax_ranges import keys
from jax_ranges.derive import MOVEMENT
from jax_ranges.files import File, load
from jax_ranges.formats import FormatLike
from jax_ranges.qparams import NotObservedError, QParams, qparams
from jax_ranges.quantization.recipe import Entry, QRule
from jax_ranges.quantization.specs import Dynamic, Spec
from jax_ranges.ranges import Ranges
from jax_ranges.site import Select, Site, chosen, selector
from jax_ranges.statistics.histogram import Histogram

PRODUCTS = ("dot_general", "conv_general_dilated")
_SAME = frozenset((*MOVEMENT, "convert_element_type"))


@dataclass(frozen=True)
class Calibration:
    """What is asked for: formats of operands, weights and results, and how scales are made."""

    operands: FormatLike | None
    weights: FormatLike | None
    output: FormatLike | None
    how: Mapping[str, Any] = field(default_factory=dict)

    def entries(self, ranges: Ranges | File, select: Select, weights: Select) -> list[Entry]:
        """A rule for each site selected, in program order."""
        ranges = ranges if isinstance(ranges, Ranges) else load(ranges)
        flat = ranges.reduce() if any(lead for _, lead in ranges.leads()) else ranges
        seen = _Seen(flat, selector(weights))
        sites = [flat.sites[i] for i in chosen(flat.sites, select)]
        floats = [site for site in sites if keys.is_float(site.dtype)]
        return [Entry(site.name, self._rule(site, seen), exact=True) for site in floats]

    def _rule(self, site: Site, seen: _Seen) -> QRule:
        if not site.by_operand:
            raise ValueError(
                f"the operands of {site.name!r} are not known: files of text and CSV do not tell "
                f"them; take ranges from a run or a JSON file"
            )
        operands = [self._operand(site, i, seen) for i in range(len(site.by_operand))]
        output = None if self.output is None else self._scale(self.output, [site.name], site, seen)
        return QRule(operands if any(operands) else None, output)

    def _operand(self, site: Site, i: int, seen: _Seen) -> Spec | None:
        names = site.by_operand[i]
        if site.primitive in PRODUCTS and seen.is_weight(names):
            return None if self.weights is None else Dynamic(self.weights, channels=True)
        if self.operands is None or not names:  # a literal
            return None
        return self._scale(self.operands, names, site, seen)

    def _scale(self, fmt: FormatLike, names: Sequence[str], site: Site, seen: _Seen) -> QParams:
        try:
            return qparams(seen.source(names, self.how.get("method", "minmax")), fmt, **self.how)
        except NotObservedError as error:
            raise NotObservedError(
                f"no scale for {site.name!r}: {error}. Calibrate with data that reaches "
                f"{' and '.join(map(repr, names))}, or leave the site out with select="
            ) from error


@dataclass(frozen=True)
class _Seen:
    """Ranges to make scales of."""

    ranges: Ranges
    selects_weights: Any

    def is_weight(self, names: Sequence[str]) -> bool:
        """Whether all of it is weights, perhaps moved or cast."""
        origins = [origin for name in names for origin in self._origins(name)]
        return bool(origins) and all(map(self._is_weight_input, origins))

    def _is_weight_input(self, name: str) -> bool:
        kind = name.partition("/")[0]
        site = Site(name, kind, 0, (), np.dtype(np.float32))
        return kind in ("input", "const") and self.selects_weights(site)

    def _origins(self, name: str) -> Iterator[str]:
        site = self._sites.get(name)
        if site is None or site.primitive not in _SAME:
            yield name
        else:
            yield from (found for operand in site.operands for found in self._origins(operand))

    @functools.cached_property
    def _sites(self) -> dict[str, Site]:
        return {site.name: site for site in self.ranges.sites}

    def source(self, names: Sequence[str], method: str) -> Any:
        """The range of what comes from these sites; their histogram if the method needs one."""
        missing = [name for name in names if name not in self.ranges]
        if missing:
            inputs = " with inputs=True" if missing[0].startswith(("input/", "const/")) else ""
            raise ValueError(
                f"an operand comes from {missing[0]!r}, which was not measured: take ranges of "
                f"all sites{inputs}, or give a rule by hand"
            )
        if method == "minmax":
            return functools.reduce(lambda a, b: a | b, (self.ranges[name] for name in names))
        return self._histogram(names)

    def _histogram(self, names: Sequence[str]) -> Any:
        stat = next((s for s in self.ranges.stats if isinstance(s, Histogram)), Histogram())
        states = [self.ranges.state(name, stat) for name in names]
        return stat.read_state(functools.reduce(stat.merge, states), self._sites[names[0]].dtype)
