"""cond and switch: one of several programs runs; the others' sites are not observed.

What `lax.platform_dependent` chooses by the platform is a cond too, whose parameter
`branches_platforms` says which branch is for which platforms. It is chosen when the program is
lowered, and the other branches, which may be kernels that this platform cannot compile, are not.
"""

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
    index, *operands = interpreter.choice(values[0]), *values[1:]

    def branch(taken: int) -> tuple[list[Any], Block]:
        outs, block = interpreter.run(frames[taken], operands)
        blocks = [interpreter.identity(frame) for frame in frames]
        blocks[taken] = block
        return outs, join(blocks)

    # The operands are closed over, not passed: that way they may be refs.
    branches = [functools.partial(branch, i) for i in range(len(frames))]
    platforms = eqn.params.get("branches_platforms")
    if platforms is None:
        return lax.switch(index, branches)
    return _by_platform(platforms, branches)


def _by_platform(platforms: Sequence[Sequence[str] | None], branches: Sequence[Any]) -> Any:
    """The branch that is for the platform; those of None are for all that are not mentioned."""
    pairs = list(zip(platforms, branches, strict=True))
    default = next((branch for names, branch in pairs if names is None), None)
    named = {name: branch for names, branch in pairs for name in names or ()}
    return lax.platform_dependent(default=default, **named)


COND = Rule(_programs, _run)
