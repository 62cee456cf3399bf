"""cond and switch: one of several programs runs; the others' sites are not observed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from jax import lax

from jax_ranges.packing import Block, join
from jax_ranges.rules.base import Interpreter, Link, Program, Rule, one_to_one


def _programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    del loops
    operands = tuple(Link(i, same=True) for i in range(1, len(eqn.invars)))  # operand 0 chooses
    results = one_to_one(len(eqn.outvars), exact=False)
    return tuple(
        Program(("cond", f"branch_{i}"), branch, operands, results)
        for i, branch in enumerate(eqn.params["branches"])
    )


def _run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    del eqn
    index, *operands = interpreter.choice(values[0]), *values[1:]

    def branch(taken: int) -> tuple[list[Any], Block]:
        outs, block = interpreter.run(frames[taken], operands)
        blocks = [interpreter.identity(frame) for frame in frames]
        blocks[taken] = block
        return outs, join(blocks)

    # The operands are closed over, not passed: that way they may be refs.
    return lax.switch(index, [functools.partial(branch, i) for i in range(len(frames))])


COND = Rule(_programs, _run)
