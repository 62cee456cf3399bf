"""A recipe laid on a program: what is rounded at which of its equations."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jax_ranges import keys
from jax_ranges.plan import Equation, Frame, Plan, is_measurable
from jax_ranges.quantization.recipe import QRule, Recipe
from jax_ranges.quantization.specs import Dynamic, Spec, uses
from jax_ranges.site import NothingSelectedError


@dataclass(frozen=True)
class Treatment:
    """What is rounded at one equation: operands and results, by position."""

    operands: Mapping[int, Spec] = field(default_factory=dict)
    outputs: Mapping[int, Spec] = field(default_factory=dict)

    def key(self) -> Hashable:
        """Treatments of which it is the same are the same."""
        parts = self.operands, self.outputs
        return tuple(tuple((i, id(spec)) for i, spec in part.items()) for part in parts)


@dataclass
class Resolved:
    """What a recipe says of a program.

    Attributes:
      rules: the rule of each site that has one.
      equations: what is rounded at each equation at which anything is.
      arguments: what is rounded of each frame's constants and inputs, by position.
      around: the equations in whose inner programs something is rounded.
    """

    rules: Mapping[str, QRule]
    equations: dict[Equation, Treatment] = field(default_factory=dict)
    arguments: dict[Frame, dict[int, Spec]] = field(default_factory=dict)
    around: set[Equation] = field(default_factory=set)

    def about(self, frame: Frame) -> Hashable:
        """What is done in a frame, and in the frames inside."""
        inner = [
            (n, self.equations.get(eqn, Treatment()).key(), *map(self.about, eqn.frames))
            for n, eqn in enumerate(frame.equations)
            if eqn in self.equations or eqn in self.around
        ]
        here = tuple((i, id(spec)) for i, spec in self.arguments.get(frame, {}).items())
        return here, tuple(inner)

    def walk(self, frame: Frame) -> bool:
        """Find what is done in a frame; whether anything is."""
        arguments = self._of_arguments(frame)
        if arguments:
            self.arguments[frame] = arguments
        for equation in frame.equations:
            treatment = self._of_equation(equation)
            if treatment.operands or treatment.outputs:
                self.equations[equation] = treatment
            inside = [self.walk(inner) for inner in equation.frames]
            if any(inside):
                self.around.add(equation)
        here = (eqn in self.equations or eqn in self.around for eqn in frame.equations)
        return bool(arguments) or any(here)

    def _of_arguments(self, frame: Frame) -> dict[int, Spec]:
        variables = (*frame.jaxpr.constvars, *frame.jaxpr.invars)
        found = {i: self._output(name, variables[i].aval) for i, name in frame.sites.items()}
        return {i: spec for i, spec in found.items() if spec is not None}

    def _of_equation(self, equation: Equation) -> Treatment:
        if not any(name in self.rules for name in equation.sites.values()):
            return Treatment()
        eqn = equation.eqn
        outputs = {i: self._output(name, eqn.outvars[i].aval) for i, name in equation.sites.items()}
        # The operands belong to the equation, which is called like its first output.
        first = equation.sites[min(equation.sites)]
        return Treatment(
            self._operands(eqn, first),
            {i: spec for i, spec in outputs.items() if spec is not None},
        )

    def _operands(self, eqn: Any, site: str) -> dict[int, Spec]:
        rule = self.rules.get(site, QRule())
        if rule.operands is None:
            return {}
        if len(rule.operands) != len(eqn.invars):
            raise ValueError(
                f"the recipe has a rule for {len(rule.operands)} operands of {site!r}, "
                f"a {eqn.primitive.name}, which has {len(eqn.invars)}"
            )
        found = {}
        for i, (spec, use, atom) in enumerate(
            zip(rule.operands, uses(eqn), eqn.invars, strict=True)
        ):
            if spec is None or not is_rounded(atom.aval):
                continue
            if use.over is None and isinstance(spec, Dynamic) and spec.channels:
                raise ValueError(_no_channels(site))
            found[i] = spec
        return found

    def _output(self, name: str, aval: Any) -> Spec | None:
        rule = self.rules.get(name)
        if rule is None or not is_rounded(aval):
            return None
        if isinstance(rule.output, Dynamic) and rule.output.channels:
            raise ValueError(_no_channels(name))
        return rule.output


def resolve(recipe: Recipe, plan: Plan) -> Resolved:
    """What a recipe says of a planned program.

    Raises:
      UnknownSiteError: it names a site that is not there.
      ValueError: it rounds nothing, or operands that there are not.
    """
    found = Resolved(recipe.rules_for(plan.sites))
    if not found.walk(plan.frame):
        raise NothingSelectedError(
            f"the recipe rounds nothing at any of the {len(plan.sites)} sites: {recipe!r}"
        )
    return found


def is_rounded(aval: Any) -> bool:
    """Real floats are; integers, booleans and complex numbers stay what they are."""
    return is_measurable(aval) and keys.is_float(np.dtype(aval.dtype))


def _no_channels(site: str) -> str:
    return (
        f"a scale for each channel is for operands of matrix products and convolutions, whose "
        f"channels are known; at {site!r} leave channels=True away"
    )
