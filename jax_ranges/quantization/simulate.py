"""`jr.simulate`: a function run with values rounded to number formats."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

from jax_ranges import compat
from jax_ranges.call import Call
from jax_ranges.errors import ErrorReport
from jax_ranges.interpret import Interpreter, Jits
from jax_ranges.pairs import ERRORS, PairRun, plan_of_errors, run_pairs
from jax_ranges.plan import Equation, Frame, Plan, make_plan
from jax_ranges.quantization.recipe import Recipe, RecipeLike, recipe_of
from jax_ranges.quantization.resolved import Resolved, Treatment, resolve
from jax_ranges.quantization.specs import Use, rounded, uses
from jax_ranges.taken import Taken
from jax_ranges.transform import check_callable, named_like


def simulate(
    fun: Callable[..., Any],
    recipe: RecipeLike,
    *,
    straight_through: bool = False,
    report: bool = False,
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
      report: return `(output, jr.ErrorReport)`: the error that each operation introduces alone
        (with the same inputs) and that it inherits. The function is run twice for it, and
        cannot be differentiated.

    Returns:
      A function with the arguments and the output of `fun`. It composes with jit, grad, vmap,
      scan and shard_map (where `jr.Dynamic` scales are those of a device's part), and traces anew
      at each call: jit it. To round in the backward pass, simulate the gradient:
      `jr.simulate(jax.grad(loss), recipe)`.

    Raises:
      UnknownSiteError: the recipe names a site that `fun` does not have.
      ValueError: the recipe rounds nothing in `fun`; or `report` and `straight_through` are given
        both, which is about gradients.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> low = jr.simulate(lambda x: jnp.exp(x) * 3, {"exp": "bfloat16"})
      >>> float(jax.jit(low)(1.0))
      8.15625
      >>> low = jr.simulate(lambda x: jnp.exp(x) * 3, {"exp": "bfloat16"}, report=True)
      >>> out, report = low(1.0)
      >>> [(row.site, row.introduced > 0, row.inherited > 0) for row in report.rows[:2]]
      [('exp', True, False), ('mul', False, True)]
    """
    check_callable(fun, "jr.simulate takes a function and a recipe: y = jr.simulate(f, recipe)(x)")
    recipe, jits = recipe_of(recipe), Jits()
    if report:
        return _with_report(fun, recipe, jits, straight_through)

    @named_like(fun, "simulate")
    def simulated(*args: Any, **kwargs: Any) -> Any:
        call = Call.trace(fun, args, kwargs)
        plan = plan_to_rewrite(call)
        simulator = Simulator(
            stats=(), jits=jits, resolved=resolve(recipe, plan), passes=straight_through
        )
        with compat.own():
            outs, _ = simulator.run(plan.frame, call.leaves)
        return call.returned.output(call.returned.typed(outs), args, kwargs)

    return simulated


def _with_report(
    fun: Callable[..., Any], recipe: Recipe, jits: Jits, straight_through: bool
) -> Callable[..., tuple[Any, ErrorReport]]:
    if straight_through:
        raise ValueError(
            "straight_through=True is about gradients, and a run with a report has none: report "
            "on a run of its own"
        )

    @named_like(fun, "simulate")
    def simulated(*args: Any, **kwargs: Any) -> tuple[Any, ErrorReport]:
        call = Call.trace(fun, args, kwargs)
        plan = plan_of_errors(call)
        rounds = Simulator(stats=(), resolved=resolve(recipe, plan))
        return run_pairs(PairRun((ERRORS,), jits, rounds=rounds), call, plan, args, kwargs)

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
        return self.arguments(frame, values)

    def enters(self, equation: Equation) -> bool:
        return equation in self.resolved.around or super().enters(equation)

    def evaluate(self, equation: Equation, values: list[Any]) -> tuple[list[Any], list[Any]]:
        if equation not in self.resolved.equations:
            return super().evaluate(equation, values)
        results = compat.bind(equation.eqn, self.operands(equation, values))
        results = self.results(equation, results)
        return results, results

    def about(self, frame: Frame) -> Hashable:
        return super().about(frame), self.resolved.about(frame)

    # -- as `jax_ranges.pairs.Rounds` -----------------------------------------------------

    def arguments(self, frame: Frame, values: list[Any]) -> list[Any]:
        """A frame's constants and inputs, rounded."""
        specs = self.resolved.arguments.get(frame, {})
        values, variables = list(values), (*frame.jaxpr.constvars, *frame.jaxpr.invars)
        for i, spec in specs.items():
            values[i] = compat.retyped(self._rounded(spec, values[i], Use()), variables[i].aval)
        return values

    def constant(self, value: Any, aval: Any) -> Any:
        """Literals are not rounded."""
        del aval
        return value

    def operands(self, equation: Equation, values: list[Any]) -> list[Any]:
        """An equation's operands, rounded."""
        specs = self._treatment(equation).operands
        return [
            self._rounded(specs.get(i), value, use)
            for i, (value, use) in enumerate(zip(values, uses(equation.eqn), strict=True))
        ]

    def bind(self, eqn: Any, operands: list[Any]) -> None:
        """An operation is computed as it always is."""
        del eqn, operands

    def results(self, equation: Equation, values: list[Any]) -> list[Any]:
        """An equation's results, rounded."""
        specs, outs = self._treatment(equation).outputs, equation.eqn.outvars
        rounded = [self._rounded(specs.get(i), value, Use()) for i, value in enumerate(values)]
        return [compat.retyped(x, var.aval) for x, var in zip(rounded, outs, strict=True)]

    def _treatment(self, equation: Equation) -> Treatment:
        return self.resolved.equations.get(equation, Treatment())

    def _rounded(self, spec: Any, value: Any, use: Use) -> Any:
        if spec is None:
            return value
        return compat.computed_in_place(lambda x: rounded(spec, x, use, self.passes), value)
