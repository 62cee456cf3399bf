"""`jr.simulate`: a function run with values rounded to number formats."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

from jax_ranges import compat
from jax_ranges.call import Call
from jax_ranges.interpret import Interpreter, Jits
from jax_ranges.plan import Equation, Frame, Plan, make_plan
from jax_ranges.quantization.recipe import RecipeLike, recipe_of
from jax_ranges.quantization.resolved import Resolved, Treatment, resolve
from jax_ranges.quantization.specs import Use, rounded, uses
from jax_ranges.taken import Taken
from jax_ranges.transform import check_callable, named_like


def simulate(
    fun: Callable[..., Any], recipe: RecipeLike, *, straight_through: bool = False
) -> Callable[..., Any]:
    """Run `fun` with values rounded to their formats at the recipe's sites.

    Values keep their dtypes; what changes is that they are among the numbers of the format (see
    `jr.Format.round`). A rule may also be for inputs and constants (`input/params/kernel`,
    `const/0`); "*" is for them too. Inside a custom kernel, or a program that no rule traces,
    nothing is rounded.

    Args:
      fun: as for `jr.ranges`.
      recipe: a `jr.Recipe`, the rules of one, or the file of one.
      straight_through: what gradients do at a rounding. False: they stop, as rounding is flat
        nearly everywhere. True: they pass where nothing is clipped (the straight-through
        estimator, Y. Bengio, N. Leonard, A. Courville, arXiv:1308.3432; with clipping, PACT,
        arXiv:1805.06085, and torch's `fake_quantize`). Scales made of values have none.

    Returns:
      A function with the arguments and the output of `fun`. It composes with jit, grad, vmap,
      scan and shard_map (where `jr.Dynamic` scales are those of a device's part), and traces anew
      at each call: jit it. To round in the backward pass, simulate the gradient:
      `jr.simulate(jax.grad(loss), recipe)`.

    Raises:
      UnknownSiteError: the recipe names a site that `fun` does not have.
      ValueError: the recipe rounds nothing in `fun`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> low = jr.simulate(lambda x: jnp.exp(x) * 3, {"exp": "bfloat16"})
      >>> float(jax.jit(low)(1.0))
      8.15625
    """
    check_callable(fun, "jr.simulate takes a function and a recipe: y = jr.simulate(f, recipe)(x)")
    recipe, jits = recipe_of(recipe), Jits()

    @named_like(fun, "simulate")
    def simulated(*args: Any, **kwargs: Any) -> Any:
        call = Call.trace(fun, args, kwargs)
        plan = plan_to_rewrite(call)
        simulator = Simulator(
            stats=(), jits=jits, resolved=resolve(recipe, plan), passes=straight_through
        )
        outs, _ = simulator.run(plan.frame, call.leaves)
        return call.returned.output(call.returned.typed(outs), args, kwargs)

    return simulated


def plan_to_rewrite(call: Call) -> Plan:
    """The sites of a call, inputs and constants included, and its frames; nothing is measured."""
    return make_plan(call.jaxpr, call.names, Taken(()), None, True, "merge")


@dataclass(frozen=True, kw_only=True)
class Simulator(Interpreter):
    """Rounds operands and results.

    Attributes:
      resolved: what is rounded where.
      passes: gradients pass through roundings.
    """

    resolved: Resolved
    passes: bool = False

    rewrites: ClassVar[bool] = True

    def entering(self, frame: Frame, values: list[Any]) -> list[Any]:
        specs = self.resolved.arguments.get(frame, {})
        return [self._rounded(specs.get(i), value, Use()) for i, value in enumerate(values)]

    def enters(self, equation: Equation) -> bool:
        return equation in self.resolved.around or super().enters(equation)

    def evaluate(self, equation: Equation, values: list[Any]) -> tuple[list[Any], list[Any]]:
        treatment = self.resolved.equations.get(equation)
        if treatment is None:
            return super().evaluate(equation, values)
        eqn = equation.eqn
        operands = [
            self._rounded(treatment.operands.get(i), value, use)
            for i, (value, use) in enumerate(zip(values, uses(eqn), strict=True))
        ]
        results = self._results(eqn, treatment, compat.bind(eqn, operands))
        return results, results

    def _results(self, eqn: Any, treatment: Treatment, values: list[Any]) -> list[Any]:
        """What becomes of an equation's results, of the types that it gives them."""
        rounded = (self._rounded(treatment.outputs.get(i), x, Use()) for i, x in enumerate(values))
        return [compat.retyped(x, v.aval) for x, v in zip(rounded, eqn.outvars, strict=True)]

    def about(self, frame: Frame) -> Hashable:
        return super().about(frame), self.resolved.about(frame)

    def _rounded(self, spec: Any, value: Any, use: Use) -> Any:
        return value if spec is None else rounded(spec, value, use, self.passes)
