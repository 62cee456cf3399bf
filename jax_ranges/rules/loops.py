"""scan and while."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import max_dim

from jax_ranges import compat
from jax_ranges.packing import Block, join
from jax_ranges.rules.base import Interpreter, Link, Loop, Program, Rule, one_to_one
from jax_ranges.stats import is_known


def _scan_programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    consts, carry = compat.scan_counts(eqn)
    trips = eqn.params["length"]
    stack = loops == "stack"
    # Merged over at least one iteration, the slices of an array have the array's range. Of
    # what is carried, the operand and the result are only the first and the last value.
    some = max_dim(trips, 1) == trips  # as far as is known: the number may be symbolic
    exact = some and not stack
    operands = (
        *(Link(i, exact, same=True) for i in range(consts)),
        *(Link(consts + i, back=i) for i in range(carry)),
        *(Link(i, exact) for i in range(consts + carry, len(eqn.invars))),
    )
    results = tuple(Link(i, exact and i >= carry) for i in range(len(eqn.outvars)))
    stacked = trips if stack else None
    loop = Loop(trips, eqn.params["reverse"])
    return (Program(("scan",), eqn.params["jaxpr"], operands, results, stacked, loop),)


def _scan_run(
    interpreter: Interpreter,
    eqn: Any,
    frames: Sequence[Any],
    values: Sequence[Any],
) -> tuple[list[Any], Block]:
    (frame,) = frames
    num_consts, num_carry = compat.scan_counts(eqn)
    consts, init = values[:num_consts], values[num_consts : num_consts + num_carry]
    xs = values[num_consts + num_carry :]

    def body(carry: Any, given: Any) -> tuple[Any, Any]:
        (state, seen, counter), (x, _) = carry, given
        outs, block = interpreter.run(frame, [*consts, *state, *x])
        state, y = outs[:num_carry], outs[num_carry:]
        block = interpreter.at(block, frame, counter)
        if frame.stacks:
            return (state, seen, _next(counter)), (y, block)
        return (state, interpreter.merge(seen, block), _next(counter)), (y, None)

    seen = None if frame.stacks else interpreter.identity(frame)
    start = (list(init), seen, interpreter.counter())
    options, trips = {k: eqn.params[k] for k in ("reverse", "unroll")}, eqn.params["length"]
    # A symbolic length (`jax.export`) lax.scan only takes from arrays, of which there may be none.
    known = is_known((trips,))
    length, turns = (trips, None) if known else (None, jnp.zeros(trips, bool))
    (state, seen, _), (ys, blocks) = lax.scan(
        body, start, (list(xs), turns), length=length, **options
    )
    return [*state, *ys], blocks.stacked(trips) if frame.stacks else seen


def _while_programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    del loops
    params = eqn.params
    cond_consts, body_consts = params["cond_nconsts"], params["body_nconsts"]
    first = cond_consts + body_consts
    carry = tuple(Link(first + i, back=i) for i in range(len(eqn.outvars)))
    consts = tuple(Link(i, same=True) for i in range(first))
    in_cond = (*consts[:cond_consts], *(Link(link.outer) for link in carry))
    in_body = (*consts[cond_consts:], *carry)
    results = one_to_one(len(carry), False)
    return (
        Program(("while", "cond"), params["cond_jaxpr"], in_cond, (Link(None),), loop=Loop()),
        Program(("while", "body"), params["body_jaxpr"], in_body, results, loop=Loop()),
    )


def _while_run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    """Rotated: the condition on the next state is evaluated at the end of the body.

    A while loop's condition can return nothing but the predicate, so its sites can only be
    measured in the body. Evaluations, and effects with them, stay as many and in their order:
    cond, body, cond, ..., body, cond.
    """
    cond_frame, body_frame = frames
    split = eqn.params["cond_nconsts"], eqn.params["cond_nconsts"] + eqn.params["body_nconsts"]
    cond_consts, body_consts, init = (
        values[: split[0]],
        values[split[0] : split[1]],
        values[split[1] :],
    )

    def condition(state: Sequence[Any], counter: Any) -> tuple[Any, Block]:
        (go_on,), block = interpreter.run(cond_frame, [*cond_consts, *state])
        return interpreter.choice(go_on), interpreter.at(block, cond_frame, counter)

    def body(carry: Any) -> Any:
        go_on, state, in_cond, in_body, counter = carry
        new_state, block = interpreter.run(body_frame, [*body_consts, *state])
        block = interpreter.at(block, body_frame, counter)
        state = [
            _where_going_on(go_on, new, old) for new, old in zip(new_state, state, strict=True)
        ]
        in_body = interpreter.merge(in_body, block)
        go_on, block = condition(state, _next(counter))
        return go_on, state, interpreter.merge(in_cond, block), in_body, _next(counter)

    counter = interpreter.counter()
    go_on, in_cond = condition(init, counter)
    carry = (go_on, list(init), in_cond, interpreter.identity(body_frame), counter)
    _, state, in_cond, in_body, _ = lax.while_loop(lambda carry: jnp.any(carry[0]), body, carry)
    return state, join([in_cond, in_body])


def _next(counter: Any) -> Any:
    return None if counter is None else counter + 1


def _where_going_on(go_on: jax.Array, new: Any, old: Any) -> Any:
    """Under vmap the predicate has a batch axis: examples that are done keep their state."""
    if go_on.ndim == 0:
        return new

    def chosen(new: Any, old: Any) -> Any:
        return jnp.where(go_on.reshape(go_on.shape + (1,) * (new.ndim - go_on.ndim)), new, old)

    return jax.tree.map(chosen, new, old)


SCAN = Rule(_scan_programs, _scan_run)
WHILE = Rule(_while_programs, _while_run)
