"""`Recipe`: what is rounded to which format, at which site."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax_ranges.files import File
from jax_ranges.files.atomic import write_atomically
from jax_ranges.formats import FormatLike
from jax_ranges.quantization.specs import Spec, spec_of
from jax_ranges.ranges import Ranges, UnknownSiteError, nearest
from jax_ranges.site import Select, Site, selector


@dataclass(frozen=True, init=False, eq=False)
class QRule:
    """What is rounded at one operation.

    Attributes:
      operands: for each operand how it is rounded before the operation, None for one that is
        not; None if none is. Operands that are not of floats stay what they are.
      output: how the result is rounded.

    Example:
      >>> import jax_ranges as jr
      >>> jr.QRule(operands=("float8_e4m3fn", None), output="bfloat16").output.format.name
      'bfloat16'
    """

    operands: tuple[Spec | None, ...] | None
    output: Spec | None

    def __init__(
        self,
        operands: Sequence[Spec | FormatLike | None] | None = None,
        output: Spec | FormatLike | None = None,
    ):
        if isinstance(operands, str):
            raise TypeError(f"operands takes one entry an operand, got the string {operands!r}")
        given = None if operands is None else tuple(map(spec_of, operands))
        object.__setattr__(self, "operands", given)
        object.__setattr__(self, "output", spec_of(output))

    @property
    def specs(self) -> tuple[Spec, ...]:
        """All that it says."""
        return tuple(spec for spec in (*(self.operands or ()), self.output) if spec is not None)


@dataclass(frozen=True, eq=False)
class Entry:
    """A rule and the sites it is for: one by its name, or (`exact` is False) all that match."""

    sites: str
    rule: QRule
    exact: bool


class Recipe:
    """What is rounded where: rules by site, of which the first that matches a site holds for it.

    Rules come from ranges (`Recipe.from_ranges`), a file (`Recipe.load`), or by hand: a mapping
    from what selects sites (a primitive, or a glob of names, as in `jr.ranges`) to

    - None: nothing is rounded there;
    - a format, `jr.QParams` or `jr.Dynamic`: the result is;
    - several of those: the operands are;
    - a `jr.QRule`: what it says.

    `a + b` has the rules of both, those of `a` first: what exceptions are made with.

    Example:
      >>> import jax_ranges as jr
      >>> jr.Recipe({"softmax/*": None, "dot_general": ("int4", "int4"), "*": "bfloat16"})
      Recipe: 3 rules, the first that matches a site holds
        softmax/*    as it is
        dot_general  operands int4 scale made of each value, int4 scale made of each value
        *            output bfloat16
    """

    def __init__(self, rules: Mapping[str, Any] | Iterable[Entry] = ()):
        if isinstance(rules, Mapping):
            given = dict[Any, Any](rules).items()
            self.entries = tuple(Entry(_glob(k), _rule(k, v), False) for k, v in given)
        else:
            self.entries = tuple(rules)
        self._exact = {e.sites: {i} for i, e in reversed([*enumerate(self.entries)]) if e.exact}

    # -- where they come from -------------------------------------------------------------

    @classmethod
    def from_ranges(
        cls,
        ranges: Ranges | File,
        format: FormatLike | None = "int8",  # noqa: A002
        weights: FormatLike | Any | None = ...,
        output: FormatLike | None = None,
        *,
        select: Select = ("dot_general", "conv_general_dilated"),
        weight_inputs: Select = None,
        **qparams: Any,
    ) -> Recipe:
        """A recipe for every matrix product and convolution, with scales from their ranges.

        The scale of a weight is made of the weight itself, for each output channel, symmetric
        (`jr.Dynamic(weights, channels=True)`); that of any other operand, and of the result, by
        `jr.qparams` from the range of the site that it comes from.

        Args:
          ranges: what was seen, or a file of it, of all operands: take `inputs=True` if an
            argument is one. Leading axes (stacked loops, vmap) are merged first.
          format: of operands that are not weights; None leaves them as they are.
          weights: of weights, by default the same.
          output: of results; None leaves them as they are.
          select: at which sites. Those whose primitives are others than these two have no
            weights, and all their operands of floats are rounded.
          weight_inputs: what selects the inputs and constants that are weights: by default what
            the function captured, and arrays in a container that is called params, or in any if
            none is called that (`input/model/layers/0/weight`).
          qparams: arguments of `jr.qparams`, such as `symmetric=True` or `method="mse"`, which
            needs `stats=(jr.MinMax(), jr.Histogram())`.

        Raises:
          NotObservedError: nothing was seen at a site that a scale is needed of.
          ValueError: nothing is selected, or a range was not taken.

        Example:
          >>> import jax.numpy as jnp
          >>> import jax_ranges as jr
          >>> def model(params, x):
          ...     return jnp.tanh(x) @ params["kernel"]
          >>> params = {"kernel": jnp.array([[1.0, -0.5], [0.25, 2.0]])}
          >>> _, ranges = jr.ranges(model)(params, jnp.array([[-2.0, 0.5]]))
          >>> print(jr.Recipe.from_ranges(ranges))
          Recipe: 1 rule
            dot_general  operands int8 scale 0.005593 zero point 44, int8 scale made of each channel
        """
        from jax_ranges.quantization.calibrated import Calibration

        wanted = Calibration(format, format if weights is ... else weights, output, qparams)
        return cls(wanted.entries(ranges, select, weight_inputs))

    @classmethod
    def load(cls, file: File) -> Recipe:
        """Read a file that `save` wrote.

        Raises:
          OSError: it cannot be read. ValueError: it is no recipe, or a newer one.
        """
        from jax_ranges.quantization import recipe_file

        return cls(recipe_file.load(file))

    def save(self, file: File) -> None:
        """Write it as JSON for people to read and change; `load` reads it back exactly.

        Example:
          >>> import pathlib, tempfile
          >>> import jax_ranges as jr
          >>> file = pathlib.Path(tempfile.mkdtemp(), "recipe.json")
          >>> jr.Recipe({"dot_general": ("bfloat16", "bfloat16"), "exp": None}).save(file)
          >>> print(file.read_text(), end="")
          {"format": "jax_ranges.recipe", "version": 1, "rules": [
            {"sites": "dot_general", "operands": [{"format": "bfloat16"}, {"format": "bfloat16"}]},
            {"sites": "exp"}
          ]}
        """
        from jax_ranges.quantization import recipe_file

        write_atomically(Path(file), recipe_file.written(self.entries))

    # -- what it says ---------------------------------------------------------------------

    def rules_for(self, sites: Sequence[Site]) -> dict[str, QRule]:
        """The rule of each site that has one.

        Raises:
          UnknownSiteError: it names a site that is not there.

        Warns:
          UserWarning: a glob in it matches no site, though one of a misspelt name.
        """
        self._check_names({site.name for site in sites})
        globs = [(i, selector(e.sites)) for i, e in enumerate(self.entries) if not e.exact]
        found: dict[str, QRule] = {}
        matched: set[int] = set()
        for site in sites:
            here = {i for i, selects in globs if selects(site)}
            matched |= here
            first = min(here | self._exact.get(site.name, set()), default=None)
            if first is not None:
                found[site.name] = self.entries[first].rule
        _say_what_matches_nothing(self.entries[i].sites for i, _ in globs if i not in matched)
        return found

    def _check_names(self, names: set[str]) -> None:
        for name in self._exact:
            if name not in names:
                near = nearest(name, sorted(names))
                hint = f"; the nearest are {', '.join(map(repr, near))}" if near else ""
                raise UnknownSiteError(f"the recipe has a rule for {name!r}, no site here{hint}")

    def __add__(self, other: Recipe) -> Recipe:
        return (
            Recipe((*self.entries, *other.entries)) if isinstance(other, Recipe) else NotImplemented
        )

    def __len__(self) -> int:
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        from jax_ranges.quantization import recipe_file

        if not isinstance(other, Recipe):
            return NotImplemented
        return recipe_file.written(self.entries) == recipe_file.written(other.entries)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        from jax_ranges.report.recipe_text import recipe_text

        return recipe_text(self)


RecipeLike = Recipe | Mapping[str, Any] | File


def recipe_of(given: RecipeLike) -> Recipe:
    """A recipe, the rules of one, or the file of one."""
    if isinstance(given, Recipe):
        return given
    return Recipe(given) if isinstance(given, Mapping) else Recipe.load(given)


def _glob(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"rules are by primitive or glob, which are strings; got {key!r}")
    return key


def _rule(key: str, value: Any) -> QRule:
    try:
        if value is None or isinstance(value, QRule):
            return value or QRule()
        if isinstance(value, (tuple, list)):
            return QRule(operands=value)
        return QRule(output=value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the rule for {key!r}: {error}") from error


def _say_what_matches_nothing(patterns: Iterable[str]) -> None:
    # A primitive that a program lacks is nothing strange in a recipe for many programs.
    for pattern in patterns:
        if any(char in pattern for char in "*?/"):
            warnings.warn(f"the recipe's rule for {pattern!r} matches no site", stacklevel=4)
