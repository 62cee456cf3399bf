"""`Report`: what `jr.find_nonfinite` found."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import jax

from jax_ranges.births.birth import Birth, births_in, first_of
from jax_ranges.births.genealogy import Found, Genealogy
from jax_ranges.ranges import Ranges
from jax_ranges.report.rows import unreadable


@jax.tree_util.register_pytree_node_class
class Report:
    """Where NaNs and infinities were born.

    A pytree, so a jitted function may return it; it is read on the host.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> out, report = jr.find_nonfinite(lambda x: jnp.log(x) * 2)(jnp.array([1.0, 0.0]))
      >>> report.ok
      False
      >>> [(birth.site.name, birth.kind, birth.fate) for birth in report.births]
      [('log', '-inf', 'escaped')]
    """

    def __init__(self, ranges: Ranges, genealogy: Genealogy):
        self._ranges, self._genealogy = ranges, genealogy

    def tree_flatten(self) -> tuple[Any, Any]:
        """For `jax.tree`: the ranges, and what is static."""
        return (self._ranges,), self._genealogy

    @classmethod
    def tree_unflatten(cls, genealogy: Genealogy, children: Any) -> Report:
        """For `jax.tree`: the inverse of `tree_flatten`."""
        (ranges,) = children
        return cls(ranges, genealogy)

    @functools.cached_property
    def births(self) -> tuple[Birth, ...]:
        """Those that escaped, then those that got anywhere, then the rest; in program order."""
        why = unreadable(self._ranges)
        if why:
            raise ValueError(
                f"this report cannot be read here ({why}): return it from the jitted function, "
                f"and read it outside"
            )
        return first_of(births_in(Found(jax.device_get(self._ranges), self._genealogy)))

    @property
    def ok(self) -> bool:
        """Whether nothing escaped: no output is touched by anything born on the way."""
        return not any(birth.fate == "escaped" for birth in self.births)

    def to_json(self) -> str:
        """All of it as JSON, with numbers as text where JSON has none."""
        return births_json(self.births)

    def __repr__(self) -> str:
        from jax_ranges.report.births_text import summary

        return summary(self)

    def __rich__(self) -> Any:
        from jax_ranges.report.births_text import births_view

        return births_view(self.births)

    def _repr_html_(self) -> str:
        from jax_ranges.report.births_text import summary
        from jax_ranges.report.notebook import console_html

        return console_html(summary(self) if unreadable(self._ranges) else self.__rich__())


def births_json(births: Sequence[Birth]) -> str:
    escaped = any(birth.fate == "escaped" for birth in births)
    return json.dumps({"ok": not escaped, "births": [_record(b) for b in births]}, indent=1)


def _record(birth: Birth) -> dict[str, Any]:
    derivative = birth.derivative
    return {
        "site": birth.site.name,
        "primitive": birth.site.primitive,
        "source": birth.site.source,
        "backward": birth.site.backward,
        "kind": birth.kind,
        "fate": birth.fate,
        "iteration": list(birth.iteration),
        "call": birth.call,
        "count": birth.count,
        "inputs": [
            r and {"min": str(r.min), "max": str(r.max), "nan": bool(r.nan)} for r in birth.inputs
        ],
        "reason": birth.reason,
        "path": list(birth.path),
        "outputs": list(birth.outputs),
        "watch": birth.watch,
        "derivative_of": derivative and derivative.of.name,
        "where": derivative and derivative.where and derivative.where.source,
    }
