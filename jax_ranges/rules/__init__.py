"""Equations with inner programs: one literal table of how each is traced.

A primitive that is not in the table runs as it is, and its outputs are measured, whatever
programs its parameters hold: an inner program that no rule understands is never guessed at.
"""

from jax_ranges.rules.base import Link, Loop, Program, Rule
from jax_ranges.rules.branches import COND
from jax_ranges.rules.calls import CALL, CHECKPOINT, COMPOSITE, JIT
from jax_ranges.rules.derivatives import DERIVATIVE
from jax_ranges.rules.loops import SCAN, WHILE
from jax_ranges.rules.mesh import SHARD_MAP

RULES: dict[str, Rule] = {
    "jit": JIT,
    "call": CALL,
    "closed_call": CALL,
    "eval_jaxpr": CALL,  # what both have been since 0.12
    "remat2": CHECKPOINT,
    "composite": COMPOSITE,
    "custom_jvp_call": DERIVATIVE,
    "custom_vjp_call": DERIVATIVE,
    "scan": SCAN,
    "while": WHILE,
    "cond": COND,
    "shard_map": SHARD_MAP,
}

__all__ = ["RULES", "Link", "Loop", "Program", "Rule"]
