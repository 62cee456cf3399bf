"""`ErrorReport`: which operations introduce error, and which only carry it on."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jax_ranges import compat
from jax_ranges.files.as_json import plain
from jax_ranges.quantization.recipe import Entry, QRule, Recipe
from jax_ranges.ranges import Ranges, UnknownSiteError, nearest
from jax_ranges.shown import Shown
from jax_ranges.site import Site
from jax_ranges.statistics.errors import BEFORE, EXACT, INHERITED, LOCAL, TOTAL, Errors, ErrorValues

KINDS = ("introduced", "inherited", "total")
"""What operations can be ranked by."""

NOT_OPERATIONS = ("input", "const", "output")
"""The primitives of sites that are none."""


@dataclass(frozen=True)
class ErrorRow:
    """The errors at one site: of all its elements, over all executions.

    An error is a norm over a norm: the root of the sum of squared errors, divided by that of the
    squared values that it is an error of. Its ratio of signal to noise in decibels is -20 times
    its logarithm to base 10.

    Attributes:
      site, primitive, dtype, source, backward: of the site; `source` is `file:line`.
      introduced: by the operation alone: it is given the rounded run's operands, and its result
        compared with what it gives for these unrounded. inf if something finite became NaN or
        infinite by it.
      inherited: with its operands: what it gives, unrounded, for the rounded run's operands
        compared with what it gives for the exact run's.
      total: the rounded run compared with the exact one; inf if something is finite in one only.
      largest_introduced, largest_inherited, largest_total: the largest absolute differences.
      nonfinite_introduced: how many elements became NaN or infinite by the operation alone.
      nonfinite: how many are finite in one of the two runs only.
      elements: how many were seen. Errors are of those that are finite in both runs.
    """

    site: str
    primitive: str
    dtype: str
    source: str
    backward: bool
    introduced: float
    inherited: float
    total: float
    largest_introduced: float
    largest_inherited: float
    largest_total: float
    nonfinite_introduced: int
    nonfinite: int
    elements: int

    @property
    def local_snr_db(self) -> float:
        """Signal to noise, in decibels, of what is introduced; inf where nothing is."""
        return decibels(self.introduced)

    @property
    def inherited_snr_db(self) -> float:
        """Of what is inherited."""
        return decibels(self.inherited)

    @property
    def total_snr_db(self) -> float:
        """Of both."""
        return decibels(self.total)

    @property
    def observed(self) -> bool:
        """Whether the site ever ran, on at least one element."""
        return self.elements > 0

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`: infinities are strings."""
        names = ("local_snr_db", "inherited_snr_db", "total_snr_db")
        fields = {**vars(self), **{name: getattr(self, name) for name in names}}
        return {name: plain(value) for name, value in fields.items()}


def decibels(error: float) -> float:
    """The ratio of signal to noise of a relative error.

    Example:
      >>> decibels(0.1), decibels(0.0), decibels(math.inf)
      (20.0, inf, -inf)
    """
    if error == 0:
        return math.inf
    return 0.0 - 20 * math.log10(error)


@jax.tree_util.register_pytree_node_class
class ErrorReport(Shown, Mapping[str, ErrorRow]):
    """The error that each operation introduces alone, and that it inherits from its operands.

    Made by `jr.shadow` and by `jr.simulate(..., report=True)`. A mapping from site names to
    `ErrorRow`s in program order; `rows` has them ranked. A pytree of a few arrays, which goes
    through jit, scan and vmap; reports of several batches merge with `|`, by site name. Rows are
    read on the host, and leading axes (of vmap) are merged in them.

    Ranked is what an operation introduces relative to its own result. How far that reaches the
    outputs is another question, which `outputs` and trying out `keep(n)` answer.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def f(x):
      ...     return jnp.mean(x * x) - jnp.mean(x) ** 2
      >>> out, report = jr.shadow(f)(jnp.linspace(99, 101, 1000))
      >>> row = report["sub"]
      >>> row.introduced, row.inherited > 1
      (0.0, True)
    """

    def __init__(self, sites: Ranges, outputs: Ranges):
        self._sites, self._outputs = sites, outputs

    def tree_flatten(self) -> tuple[Any, None]:
        """For `jax.tree`: what was measured at the sites, and at the outputs."""
        return (self._sites, self._outputs), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: Any) -> ErrorReport:
        """For `jax.tree`: the inverse of `tree_flatten`."""
        del aux
        self = object.__new__(cls)
        self._sites, self._outputs = children
        return self

    # -- reading --------------------------------------------------------------------------

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, in program order, inputs (`input/...`) and constants (`const/...`) too."""
        return self._sites.sites

    @functools.cached_property
    def _rows(self) -> dict[str, ErrorRow]:
        return _read(self._sites)

    @functools.cached_property
    def rows(self) -> tuple[ErrorRow, ...]:
        """One for each site, what introduces the largest error first.

        Those that made something NaN or infinite come before all others, and last those that did
        not run. ValueError inside jit, where there are no numbers yet.
        """
        return tuple(sorted(self._rows.values(), key=_rank("introduced")))

    @functools.cached_property
    def outputs(self) -> tuple[ErrorRow, ...]:
        """One for each output of the function, `output/<path>`: all of its error is inherited."""
        return tuple(_read(self._outputs).values())

    def __getitem__(self, name: str) -> ErrorRow:
        rows = self._rows
        if name not in rows:
            near = nearest(name, list(rows))
            hint = f"; the nearest are {', '.join(map(repr, near))}" if near else ""
            raise UnknownSiteError(f"no site {name!r}{hint}")
        return rows[name]

    def __iter__(self) -> Any:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def worst(self, count: int = 5, by: str = "introduced") -> tuple[ErrorRow, ...]:
        """The operations with the largest error: which to keep in high precision.

        Inputs and constants are no operations, and what has no error is left out.

        Args:
          count: how many at most.
          by: "introduced", "inherited" or "total".

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> _, report = jr.shadow(lambda x: jnp.exp(x) + 1.0, low="float16")(jnp.array([12.0]))
          >>> [row.site for row in report.worst()]
          ['exp']
        """
        if by not in KINDS:
            raise ValueError(f"operations are ranked by one of {KINDS}, not by {by!r}")
        found = [
            row
            for row in self._rows.values()
            if row.primitive not in NOT_OPERATIONS and getattr(row, by) > 0
        ]
        return tuple(sorted(found, key=_rank(by))[:count])

    def keep(self, count: int = 5, by: str = "introduced") -> Recipe:
        """The exceptions of a recipe: the worst operations (see `worst`) are left as they are.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> f = lambda x: jnp.exp(-x) * 3.0
          >>> low = jr.Recipe({"*": "bfloat16"})
          >>> _, report = jr.simulate(f, low, report=True)(jnp.arange(1.0, 4.0))
          >>> report.keep(1) + low
          Recipe: 2 rules, the first that matches a site holds
            exp  as it is
            *    output bfloat16
        """
        return Recipe([Entry(row.site, QRule(), True) for row in self.worst(count, by)])

    # -- merging --------------------------------------------------------------------------

    def merge(self, other: ErrorReport) -> ErrorReport:
        """What was seen in either, by site name."""
        if not isinstance(other, ErrorReport):
            raise TypeError(f"reports merge with reports; got {type(other).__name__}")
        return ErrorReport(self._sites | other._sites, self._outputs | other._outputs)

    def __or__(self, other: ErrorReport) -> ErrorReport:
        return self.merge(other) if isinstance(other, ErrorReport) else NotImplemented

    def reduce(self) -> ErrorReport:
        """The same with leading axes (of vmap) merged."""
        return ErrorReport(self._sites.reduce(), self._outputs.reduce())

    # -- showing --------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "outputs": [row.to_json() for row in self.outputs],
            "rows": [row.to_json() for row in self.rows],
        }

    def __repr__(self) -> str:
        from jax_ranges.report.errors_table import errors_summary

        return errors_summary(self)

    def _table(self, limit: int | None = None) -> Any:
        from jax_ranges.report.errors_table import errors_table

        return errors_table(self, limit)


def _rank(by: str) -> Any:
    """Of equal errors the more elements that are lost, and then the larger total, goes first."""
    lost = "nonfinite_introduced" if by == "introduced" else "nonfinite"
    return lambda row: (not row.observed, -getattr(row, by), -getattr(row, lost), -row.total)


def _read(ranges: Ranges) -> dict[str, ErrorRow]:
    if any(map(compat.is_traced, jax.tree.leaves(ranges))):
        raise ValueError(
            "this report is traced (inside jit, vmap or grad) and has no numbers yet: return it "
            "from the function, and read it outside"
        )
    if not len(ranges):
        return {}
    merged = jax.device_get(ranges.reduce())
    return {site.name: _row(site, merged.of(site.name, Errors)) for site in ranges.sites}


def _row(site: Site, found: ErrorValues) -> ErrorRow:
    return ErrorRow(
        *(site.name, site.primitive, str(site.dtype), site.source, site.backward),
        introduced=_ratio(found, LOCAL, BEFORE, found.introduced),
        inherited=_ratio(found, INHERITED, EXACT, found.inherited),
        total=_ratio(found, TOTAL, EXACT, found.differing),
        **{
            f"largest_{kind}": float(found.largest[i])
            for kind, i in zip(KINDS, (LOCAL, INHERITED, TOTAL), strict=True)
        },
        nonfinite_introduced=int(found.introduced),
        nonfinite=int(found.differing),
        elements=int(found.elements),
    )


def _ratio(found: ErrorValues, error: int, signal: int, lost: Any) -> float:
    """A norm over a norm; an error of zeros, or beyond all numbers, is infinite."""
    norms = found.norms
    if lost > 0 or (norms[error] and not norms[signal]):
        return math.inf
    return float(np.divide(norms[error], norms[signal])) if norms[error] else 0.0
