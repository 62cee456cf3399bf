"""Calls: equations that run their inner program exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from jax_ranges import compat
from jax_ranges.packing import Block
from jax_ranges.rules.base import Interpreter, Program, Rule, one_to_one


def called(eqn: Any, jaxpr: Any, *scopes: str) -> tuple[Program, ...]:
    """The single program of a call: its inputs are the operands, its outputs the results."""
    return (Program(scopes, jaxpr, one_to_one(len(eqn.invars)), one_to_one(len(eqn.outvars))),)


def _jit_programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    del loops
    return called(eqn, eqn.params["jaxpr"], f"jit({eqn.params['name']})")


def _jit_run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    return interpreter.jitted(eqn, frames[0])(*values)


def _call_programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    del loops
    return called(eqn, eqn.params["call_jaxpr"], "closed_call")


def _call_run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    """In line, as `jax.core.eval_jaxpr` and the compiler do."""
    del eqn
    return interpreter.run(frames[0], values)


def _checkpoint_programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    del loops
    return called(eqn, eqn.params["jaxpr"], "checkpoint")


def _checkpoint_run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    params = eqn.params

    def body(*values: Any) -> tuple[list[Any], Block]:
        if params["differentiated"]:
            # This is the recomputation in a backward pass. JAX lowers it behind a barrier, so
            # that the compiler does not merge it with the forward pass and keep all in memory.
            values = _behind_barrier(values, params["prevent_cse"])
        return interpreter.run(frames[0], values)

    rematted = jax.checkpoint(body, prevent_cse=params["prevent_cse"], policy=params["policy"])
    return rematted(*values)


def _behind_barrier(values: Sequence[Any], which: bool | Sequence[bool]) -> tuple[Any, ...]:
    chosen = [which] * len(values) if isinstance(which, bool) else list(which)
    held = iter(lax.optimization_barrier([v for v, c in zip(values, chosen, strict=True) if c]))
    return tuple(next(held) if c else v for v, c in zip(values, chosen, strict=True))


def _composite_programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    del loops
    name = f"composite({eqn.params['name']})"
    return called(eqn, compat.composite_program(eqn), name)


def _composite_run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    """A backend may have its own kernel for a composite, so the equation stays what it is.

    The ranges come from its decomposition beside it; where the compiler decomposes the
    composite too, it merges the two. Where values are rewritten, the decomposition is what is run.
    """
    if interpreter.rewrites:
        return interpreter.run(frames[0], values)
    _, block = interpreter.quiet().run(frames[0], compat.used_again(values))
    return compat.bind(eqn, values), block


JIT = Rule(_jit_programs, _jit_run)
CALL = Rule(_call_programs, _call_run)
CHECKPOINT = Rule(_checkpoint_programs, _checkpoint_run)
COMPOSITE = Rule(_composite_programs, _composite_run)
