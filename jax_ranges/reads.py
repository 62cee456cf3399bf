"""Which arguments an operation reads: the leaves that reach it by movement and casts alone.

A product of `x` with `params["kernel"].T.astype(jnp.bfloat16)` reads both, although its operands
are `input/x` and a `convert_element_type`. What is computed, a sum or a scaled weight, is no
leaf's value any more.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from jax_ranges.derive import MOVEMENT, PAIRWISE

Names = tuple[str, ...]

CARRIERS: Mapping[str, slice] = {
    **dict.fromkeys(MOVEMENT, slice(None)),
    **dict.fromkeys(("convert_element_type", "reduce_precision"), slice(None)),
    **dict.fromkeys(("concatenate", "slice", "split"), slice(None)),
    # The other operands of these say where, or are padding.
    **dict.fromkeys(("dynamic_slice", "gather", "pad"), slice(1)),
}
"""The operations whose result holds the elements of operands, and of which."""


class Leaves:
    """Which leaves' elements are at which site, while a program is planned."""

    def __init__(self) -> None:
        self._held: dict[str, Names] = {}
        self._holds_none = self._held.keys().isdisjoint

    def add(self, name: str) -> None:
        """A leaf of this name."""
        self._held[name] = (name,)

    def read(self, names: Sequence[str]) -> Names:
        """The leaves that are read by what these sites and leaves feed."""
        if self._holds_none(names):  # the rule, and much faster than to look for each
            return ()
        found = [self._held[name] for name in names if name in self._held]
        return found[0] if len(found) == 1 else tuple(dict.fromkeys(itertools.chain(*found)))

    def carry(
        self, name: str, primitive: str, output: int, operands: Sequence[Names], read: Names
    ) -> None:
        """What the site `name` holds, of an operation that reads `read`, by operand `operands`."""
        if primitive not in CARRIERS:
            return
        if len(operands) > 1:
            pairs = primitive in PAIRWISE
            carried = [operands[output]] if pairs else operands[CARRIERS[primitive]]
            read = self.read([name for names in carried for name in names])
        if read:
            self._held[name] = read
