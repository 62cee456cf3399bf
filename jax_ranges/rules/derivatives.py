"""Functions with derivative rules of their own.

The types to have in mind: the equation maps primals to outputs, and brings a rule for their
derivatives. It is replaced by a function that maps primals to (outputs, states), whose
derivative rule is the equation's own for the outputs, obtained by differentiating the original
equation, and zero for the states (law 5: ranges are not differentiated).

Not differentiated, the inner program runs once and is measured. Differentiated, the outputs
come from the user's rule, which need not run the inner program at all; the states then come
from a run of it beside, without its effects. So do the outputs, where values are rewritten: the
derivatives are then those of the original equation at the rewritten operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero, zero_from_primal

from jax_ranges import compat
from jax_ranges.packing import Block
from jax_ranges.rules.base import Interpreter, Program, Rule
from jax_ranges.rules.calls import called


def _programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    del loops
    return called(eqn, eqn.params["call_jaxpr"], eqn.primitive.name)


def _merge(chosen: Sequence[bool], these: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    left, right = iter(these), iter(others)
    return [next(left) if c else next(right) for c in chosen]


def _jvp_run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    (frame,) = frames
    measured = jax.custom_jvp(lambda *primals: interpreter.run(frame, primals))

    def jvp(primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
        moving = [not isinstance(t, SymbolicZero) for t in tangents]
        held = [p for p, m in zip(primals, moving, strict=True) if not m]

        def original(*moved: Any) -> list[Any]:
            return compat.bind(eqn, _merge(moving, moved, held))

        outs, out_tangents = jax.jvp(
            original,
            [p for p, m in zip(primals, moving, strict=True) if m],
            [t for t, m in zip(tangents, moving, strict=True) if m],
        )
        rewritten, block = interpreter.quiet().run(frame, _beside(primals))
        outs = rewritten if interpreter.rewrites else outs
        still = jax.tree.map(lambda leaf: zero_from_primal(leaf, symbolic_zeros=True), block)
        return (outs, block), (out_tangents, still)

    measured.defjvp(jvp, symbolic_zeros=True)
    return measured(*values)


def _vjp_run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    (frame,) = frames
    measured = jax.custom_vjp(lambda *primals: interpreter.run(frame, primals))

    def forward(*primals: Any) -> Any:
        moving = [p.perturbed for p in primals]
        held = [p.value for p in primals if not p.perturbed]

        def original(*moved: Any) -> list[Any]:
            return compat.bind(eqn, _merge(moving, moved, held))

        outs, vjp = jax.vjp(original, *[p.value for p in primals if p.perturbed])
        rewritten, block = interpreter.quiet().run(frame, _beside([p.value for p in primals]))
        outs = rewritten if interpreter.rewrites else outs
        # Residuals are arrays; which primals move is static, so it is told by the structure.
        return (outs, block), (vjp, [() if m else None for m in moving])

    def backward(residuals: Any, cotangents: Any) -> tuple[Any, ...]:
        vjp, structure = residuals
        moving = [mark is not None for mark in structure]
        grads = vjp([_instantiated(ct) for ct in cotangents[0]])
        return tuple(_merge(moving, grads, [None] * moving.count(False)))

    measured.defvjp(forward, backward, symbolic_zeros=True)
    return measured(*values)


def _beside(primals: Sequence[Any]) -> list[Any]:
    """The primals for a run beside the one that gives the outputs."""
    return lax.stop_gradient(compat.used_again(primals))


def _instantiated(cotangent: Any) -> Any:
    if not isinstance(cotangent, SymbolicZero):
        return cotangent
    aval: Any = cotangent.aval
    if aval.dtype == jax.dtypes.float0:
        return np.zeros(aval.shape, jax.dtypes.float0)
    return jnp.zeros(aval.shape, aval.dtype)


CUSTOM_JVP = Rule(_programs, _jvp_run)
CUSTOM_VJP = Rule(_programs, _vjp_run)
