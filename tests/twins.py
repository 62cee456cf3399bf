"""The slow way: a program run twice, equation by equation, and compared by numpy.

As `tests.oracle` it shares no code with the package: loops are Python's, rounding is ml_dtypes',
norms are numpy's in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from tests.oracle import _bind, _is_numeric, _open, _scan_counts, _sites, _where, inner_programs

Cast = Callable[[np.ndarray], np.ndarray]


class Twin(NamedTuple):
    """A value in the exact run and in the rounded one."""

    exact: Any
    low: Any


class Norms(NamedTuple):
    """Of one site over all its executions: two signals and three errors; elements lost."""

    exact: float
    before: float
    introduced: float
    inherited: float
    total: float
    largest: float
    lost: int
    elements: int


def to_dtype(dtype: Any) -> Cast:
    """Converts floats to a dtype and back."""

    def cast(x: Any) -> Any:
        x = np.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        with np.errstate(all="ignore"):
            return x.astype(dtype).astype(x.dtype)

    return cast


def twins(
    fun: Callable[..., Any], *args: Any, casts: Callable[[str], Cast | None], everything: bool
) -> tuple[list[Any], list[Norms]]:
    """The leaves of the rounded run's output, and the norms at each site in program order.

    `casts` says of a primitive how its results are rounded. `everything`: so are inputs,
    captured constants and literals, as those of the primitive "input".
    """
    leaves, tree = jax.tree.flatten(args)
    program = jax.make_jaxpr(lambda *leaves: fun(*tree.unflatten(leaves)))(*leaves)
    cast = casts("input") if everything else None
    machine = _Machine(casts, cast or (lambda x: x))
    outs = machine.run(program, [Twin(x, machine.cast(x)) for x in map(jnp.asarray, leaves)], ())
    paths = [path for path, *_ in _sites(program, (), (), False)]
    return [out.low for out in outs], [_norms(machine.seen.get(path, [])) for path in paths]


class _Machine:
    def __init__(self, casts: Callable[[str], Cast | None], cast: Cast):
        self.casts, self.cast = casts, cast
        self.seen: dict[tuple[int, ...], list[tuple[Any, Any, Any]]] = {}

    def run(self, program: Any, values: Sequence[Twin], path: tuple[int, ...]) -> list[Twin]:
        jaxpr, consts = _open(program)
        env = {v: Twin(c, self.cast(c)) for v, c in zip(jaxpr.constvars, consts, strict=True)}
        env.update(zip(jaxpr.invars, values, strict=True))

        def read(atom: Any) -> Twin:
            if not isinstance(atom, Literal):
                return env[atom]
            value = jnp.asarray(atom.val, atom.aval.dtype)
            return Twin(value, jnp.asarray(self.cast(value)))

        for n, eqn in enumerate(jaxpr.eqns):
            with eqn.ctx.manager:
                outs = self.equation(eqn, [read(v) for v in eqn.invars], (*path, n))
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def equation(self, eqn: Any, values: list[Twin], path: tuple[int, ...]) -> list[Twin]:
        inner = inner_programs(eqn)
        if inner is None:
            return self.whole(eqn, values, path)
        if eqn.primitive.name == "scan":
            return self.scan(eqn, values, path)
        if eqn.primitive.name == "while":
            return self.loop(eqn, values, path)
        if eqn.primitive.name == "cond":
            taken = int(np.clip(int(values[0].low), 0, len(inner) - 1))
            return self.run(inner[taken], values[1:], (*path, taken))
        return self.run(inner[0], values, (*path, 0))

    def whole(self, eqn: Any, values: list[Twin], path: tuple[int, ...]) -> list[Twin]:
        exact = _bind(eqn, [value.exact for value in values])
        literal = [isinstance(atom, Literal) for atom in eqn.invars]
        mixed = [v.exact if lit else v.low for v, lit in zip(values, literal, strict=True)]
        before = _bind(eqn, [jnp.asarray(x) if not _is_key(x) else x for x in mixed])
        low = _bind(eqn, [jnp.asarray(v.low) if not _is_key(v.low) else v.low for v in values])
        cast = self.casts(eqn.primitive.name)
        for i, var in enumerate(eqn.outvars):
            if _is_numeric(var.aval):
                low[i] = low[i] if cast is None else jnp.asarray(cast(low[i]), low[i].dtype)
                self.seen.setdefault((*path, i), []).append((exact[i], before[i], low[i]))
        return list(map(Twin, exact, low))

    def scan(self, eqn: Any, values: list[Twin], path: tuple[int, ...]) -> list[Twin]:
        params, length = eqn.params, eqn.params["length"]
        num_consts, num_carry = _scan_counts(params)
        consts, carry = values[:num_consts], values[num_consts : num_consts + num_carry]
        xs, ys = values[num_consts + num_carry :], [[]] * length
        for i in reversed(range(length)) if params["reverse"] else range(length):
            slices = [Twin(x.exact[i], x.low[i]) for x in xs]
            outs = self.run(params["jaxpr"], [*consts, *carry, *slices], (*path, 0))
            carry, ys[i] = outs[:num_carry], outs[num_carry:]
        return [
            *carry,
            *(Twin(*map(jnp.stack, zip(*y, strict=True))) for y in zip(*ys, strict=True)),
        ]

    def loop(self, eqn: Any, values: list[Twin], path: tuple[int, ...]) -> list[Twin]:
        params = eqn.params
        num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
        in_cond, in_body = values[:num_cond], values[num_cond : num_cond + num_body]
        state = values[num_cond + num_body :]
        while True:
            (go_on,) = self.run(params["cond_jaxpr"], [*in_cond, *state], (*path, 0))
            if not np.any(go_on.low):
                return state
            new = self.run(params["body_jaxpr"], [*in_body, *state], (*path, 1))
            state = [
                Twin(_where(go_on.low, a.exact, b.exact), _where(go_on.low, a.low, b.low))
                for a, b in zip(new, state, strict=True)
            ]


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.extended)


def _norms(seen: list[tuple[Any, Any, Any]]) -> Norms:
    if not seen:
        return Norms(*[0.0] * 6, 0, 0)
    sides = [np.concatenate([_numbers(x) for x in side]) for side in zip(*seen, strict=True)]
    finite = [np.isfinite(side) for side in sides]
    compared = finite[0] & finite[1] & finite[2]
    exact, before, low = (side[compared] for side in sides)
    errors = (low - before, before - exact, low - exact)
    return Norms(
        *(float(np.linalg.norm(x)) for x in (exact, before, *errors)),
        largest=float(np.abs(errors[2]).max(initial=0)),
        lost=int(np.sum(finite[0] ^ finite[2])),
        elements=sides[0].size,
    )


def _numbers(x: Any) -> np.ndarray:
    x = np.asarray(x).ravel()
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = np.concatenate([x.real, x.imag])
    return x.astype(np.float64)
