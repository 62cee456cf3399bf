"""Recipes from ranges: which operand is a weight, and where the others' scales come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jax_ranges import keys
from jax_ranges.files import File, load
from jax_ranges.formats import FormatLike
from jax_ranges.qparams import NotObservedError, QParams, qparams
from jax_ranges.quantization.recipe import Entry, QRule
from jax_ranges.quantization.seen import Seen
from jax_ranges.quantization.specs import Dynamic, Spec
from jax_ranges.ranges import Ranges
from jax_ranges.site import Select, Site, chosen

PRODUCTS = ("dot_general", "conv_general_dilated")


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
        seen = Seen.of(ranges, weights)
        sites = [seen.ranges.sites[i] for i in chosen(seen.ranges.sites, select)]
        floats = [site for site in sites if keys.is_float(site.dtype)]
        return [Entry(site.name, self._rule(site, seen), exact=True) for site in floats]

    def _rule(self, site: Site, seen: Seen) -> QRule:
        if not site.by_operand:
            raise ValueError(
                f"the operands of {site.name!r} are not known: files of text and CSV do not tell "
                f"them; take ranges from a run or a JSON file"
            )
        operands = [self._operand(site, i, seen) for i in range(len(site.by_operand))]
        output = None if self.output is None else self._scale(self.output, [site.name], site, seen)
        return QRule(operands if any(operands) else None, output)

    def _operand(self, site: Site, i: int, seen: Seen) -> Spec | None:
        names = site.by_operand[i]
        if site.primitive in PRODUCTS and seen.is_weight(names):
            return None if self.weights is None else Dynamic(self.weights, channels=True)
        if self.operands is None or not names:  # a literal
            return None
        return self._scale(self.operands, names, site, seen)

    def _scale(self, fmt: FormatLike, names: Sequence[str], site: Site, seen: Seen) -> QParams:
        try:
            return qparams(seen.source(names, self.how.get("method", "minmax")), fmt, **self.how)
        except NotObservedError as error:
            raise NotObservedError(
                f"no scale for {site.name!r}: {error}. Calibrate with data that reaches "
                f"{' and '.join(map(repr, names))}, or leave the site out with select="
            ) from error
