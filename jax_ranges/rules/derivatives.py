"""Functions with derivative rules of their own.

The types to have in mind: the equation maps primals to outputs, and brings a rule for their
derivatives. It is replaced by one that maps primals to (outputs, states), whose derivative rule
is the equation's own for the outputs, called as the equation calls it, and zero for the states
(law 5: ranges are not differentiated).

Not differentiated, the inner program runs once and is measured. Differentiated, the outputs
come from the user's rule, which need not run the inner program at all; the states then come
from a run of it beside, without its effects. So do the outputs, where values are rewritten: the
derivatives, of any order, are then those of the original equation at the rewritten operands.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from jax_ranges import compat
from jax_ranges.packing import Block
from jax_ranges.rules.base import Interpreter, Program, Rule
from jax_ranges.rules.calls import called


def _programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    del loops
    return called(eqn, eqn.params["call_jaxpr"], eqn.primitive.name)


def _run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    (frame,) = frames
    if not interpreter.differentiable:
        return interpreter.run(frame, values)
    structure: list[Any] = []

    def flat(outs: list[Any], block: Block) -> list[Any]:
        leaves, tree = jax.tree.flatten(block)
        structure[:] = [tree]
        return [*outs, *leaves]

    def run(*primals: Any) -> list[Any]:
        return flat(*interpreter.run(frame, primals))

    def beside(primals: Sequence[Any], results: list[Any]) -> list[Any]:
        again = lax.stop_gradient(compat.used_again(primals))
        outs, block = interpreter.quiet().run(frame, again)
        return flat(_with_derivatives(outs, results) if interpreter.rewrites else results, block)

    outs = compat.bind_with_rule(eqn, values, run, beside)
    count = len(eqn.outvars)
    return outs[:count], structure[0].unflatten(lax.stop_gradient(outs[count:]))


@jax.custom_jvp
def _with_derivatives(values: list[Any], results: list[Any]) -> list[Any]:
    """These values, with the derivatives that the results have."""
    del results
    return values


@functools.partial(_with_derivatives.defjvp, symbolic_zeros=True)
def _(primals: Any, tangents: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
    return primals[0], tangents[1]


DERIVATIVE = Rule(_programs, _run)
