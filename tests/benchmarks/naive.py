"""A small interpreter that shows every intermediate value to a function: what peers are made of.

It shares no strategy with the package: jitted programs, custom derivatives and checkpoints run
in line, a scan returns what was seen in each iteration, a while loop carries it along. Other
equations with programs inside (cond, ...) are shown by their results only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jax_ranges import compat

Seen = list[Any]
INLINE = {"jit": "jaxpr", "remat2": "jaxpr"} | dict.fromkeys(
    ("closed_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr"
)


class Unsupported(Exception):
    """This way of looking at values has no answer for this program."""


@dataclass(frozen=True)
class Walk:
    """Evaluates programs.

    Attributes:
      see: what is returned for one value, as a pytree; nothing for an empty tuple.
      fold: makes of what a scan stacked what is returned for the scan.
      merge: joins what two iterations of a while loop saw; None if that cannot be done.
      start: makes what none saw, of the types of what one sees.
    """

    see: Callable[[jax.Array], Any]
    fold: Callable[[Any], Any] = lambda seen: seen
    merge: Callable[[Any, Any], Any] | None = None
    start: Callable[[Any], Any] | None = None

    def __call__(self, fun: Callable[..., Any]) -> Callable[..., tuple[Any, Seen]]:
        """`fun`, returning what was seen beside its output."""

        def walked(*args: Any) -> tuple[Any, Seen]:
            jaxpr, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
            outs, seen = self.run(jaxpr, jax.tree.leaves(args))
            return jax.tree.unflatten(jax.tree.structure(shape), outs), seen

        return walked

    def run(self, jaxpr: Any, values: Sequence[Any]) -> tuple[list[Any], Seen]:
        opened, consts = compat.opened(jaxpr)
        variables = (*opened.constvars, *opened.invars)
        env = dict(zip(variables, (*consts, *values), strict=True))
        seen: Seen = []

        def read(atom: Any) -> Any:
            return atom.val if compat.is_literal(atom) else env[atom]

        for eqn in opened.eqns:
            outs, found = self._equation(eqn, [read(atom) for atom in eqn.invars])
            env.update(zip(eqn.outvars, outs, strict=True))
            seen += found
        return [read(atom) for atom in opened.outvars], seen

    def _equation(self, eqn: Any, values: list[Any]) -> tuple[list[Any], Seen]:
        name = eqn.primitive.name
        if name in INLINE:
            if eqn.params.get("differentiated"):
                # Or XLA would undo it: merge what is computed again with the first time.
                values = lax.optimization_barrier(values)
            return self.run(eqn.params[INLINE[name]], values)
        if name == "scan":
            return self._scan(eqn, values)
        if name == "while":
            return self._while(eqn, values)
        outs = compat.bind(eqn, values)
        seen = [self.see(out) for out in outs if _is_numeric(out)]
        return outs, [each for each in seen if not isinstance(each, tuple) or each]

    def _scan(self, eqn: Any, values: list[Any]) -> tuple[list[Any], Seen]:
        consts, carried = compat.scan_counts(eqn)
        first = consts + carried

        def body(carry: list[Any], xs: list[Any]) -> tuple[list[Any], Any]:
            outs, seen = self.run(eqn.params["jaxpr"], [*values[:consts], *carry, *xs])
            return outs[:carried], (outs[carried:], seen)

        options = {key: eqn.params[key] for key in ("length", "reverse", "unroll")}
        carry, (ys, seen) = lax.scan(body, values[consts:first], values[first:], **options)
        return [*carry, *ys], self.fold(seen)

    def _while(self, eqn: Any, values: list[Any]) -> tuple[list[Any], Seen]:
        """Of the body only: a condition can return nothing but its answer."""
        if self.merge is None or self.start is None:
            raise Unsupported("a while loop cannot return what it does not know the number of")
        merge, params = self.merge, eqn.params
        split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        in_cond, in_body, init = values[: split[0]], values[slice(*split)], values[split[1] :]

        def body(state: list[Any]) -> tuple[list[Any], Seen]:
            return self.run(params["body_jaxpr"], [*in_body, *state])

        def condition(carry: Any) -> Any:
            return self.run_blindly(params["cond_jaxpr"], [*in_cond, *carry[0]])[0]

        def step(carry: Any) -> Any:
            state, seen = body(carry[0])
            return state, merge(carry[1], seen)

        start = self.start(jax.eval_shape(body, init)[1])
        return lax.while_loop(condition, step, (init, start))

    def run_blindly(self, jaxpr: Any, values: Sequence[Any]) -> list[Any]:
        return jax.core.eval_jaxpr(*compat.opened(jaxpr), *values)


def _is_numeric(value: Any) -> bool:
    return jnp.issubdtype(value.dtype, jnp.number) or value.dtype == bool
