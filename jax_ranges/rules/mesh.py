"""shard_map (and pmap, which JAX traces to it): code that runs once a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from jax_ranges import compat
from jax_ranges.packing import Block
from jax_ranges.rules.base import Interpreter, Link, Program, Rule, one_to_one


def _programs(eqn: Any, loops: str) -> tuple[Program, ...]:
    del loops
    operands = tuple(
        Link(i, same=not compat.is_partial(atom.aval)) for i, atom in enumerate(eqn.invars)
    )
    results = one_to_one(len(eqn.outvars), exact=False)
    return (Program(("shard_map",), eqn.params["jaxpr"], operands, results),)


def _run(
    interpreter: Interpreter, eqn: Any, frames: Sequence[Any], values: Sequence[Any]
) -> tuple[list[Any], Block]:
    """The states of all devices come out side by side, all sites at once, and are merged there.

    Not inside, by collectives: these name the axes, which may be `vmap`'s names too.
    """
    (frame,) = frames
    params = eqn.params
    manual = tuple(sorted(params["newly_manual_axes"], key=str))
    axes = compat.spread_axes(manual, frame.jaxpr, tuple(params["in_specs"]))
    inner = interpreter.inside(axes, params["check_vma"])

    def body(*values: Any) -> tuple[list[Any], Block]:
        outs, block = inner.run(frame, values)
        return outs, jax.tree.map(lambda leaf: leaf[None], block)

    mapped = jax.shard_map(
        body,
        mesh=params["mesh"],
        in_specs=tuple(params["in_specs"]),
        out_specs=(list(params["out_specs"]), PartitionSpec(axes)),
        axis_names=set(manual),
        check_vma=params["check_vma"],
    )
    outs, blocks = compat.at_once(mapped, params["mesh"], manual)(*values)
    return outs, interpreter.merged(blocks)


SHARD_MAP = Rule(_programs, _run)
