"""What was seen where an operand comes from: its range or histogram, and whether it is a weight."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jax_ranges.derive import MOVEMENT
from jax_ranges.ranges import Ranges
from jax_ranges.site import Select, Site, selector
from jax_ranges.statistics.histogram import Histogram

_SAME = frozenset((*MOVEMENT, "convert_element_type"))


def weights_among(sites: Sequence[Site], given: Select) -> Select:
    """What selects the inputs and constants of a program that are weights, unless it is given.

    What was captured, and what is in a container called params; in any container, if none is
    called that. (`model.apply` of flax linen has its input at `input/args/0`.)
    """
    if given is not None:
        return given
    names = (name for site in sites for name in (site.name, *site.operands))
    params = any(name.startswith("input/") and "params/" in name for name in names)
    return ("const/*", "input/*params/*" if params else "input/*/*")


@dataclass(frozen=True)
class Seen:
    """Ranges to make scales of."""

    ranges: Ranges
    selects_weights: Callable[[Site], bool]

    @classmethod
    def of(cls, ranges: Ranges, weights: Select = None) -> Seen:
        """With leading axes merged; `weights` selects the inputs and constants that are weights."""
        flat = ranges.reduce() if any(lead for _, lead in ranges.leads()) else ranges
        return cls(flat, selector(weights_among(flat.sites, weights)))

    def is_weight(self, names: Sequence[str]) -> bool:
        """Whether all of it is weights, perhaps moved or cast."""
        origins = [origin for name in names for origin in self.origins(name)]
        return bool(origins) and all(map(self._is_weight_input, origins))

    def _is_weight_input(self, name: str) -> bool:
        kind = name.partition("/")[0]
        site = Site(name, kind, 0, (), np.dtype(np.float32))
        return kind in ("input", "const") and self.selects_weights(site)

    def origins(self, name: str) -> Iterator[str]:
        """Where it comes from, but for moves and casts."""
        site = self.sites.get(name)
        if site is None or site.primitive not in _SAME:
            yield name
        else:
            yield from (found for operand in site.operands for found in self.origins(operand))

    @functools.cached_property
    def sites(self) -> dict[str, Site]:
        """By name."""
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
        return stat.read_state(functools.reduce(stat.merge, states), self.sites[names[0]].dtype)
