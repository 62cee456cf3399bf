"""The slow way: the ranges of a program, by running it one equation at a time.

It shares no code with the package, on purpose, and does nothing in the graph. A program is
evaluated equation by equation, its inner programs in plain Python (a `scan` is a `for`), and
every result is reduced by numpy. Whatever the tracer, the plan, the packing or a derived range
gets wrong differs from what this finds.

    outs, sites = oracle(f, x)
    [(site.primitive, site.min, site.max) for site in sites]

Sites are in program order and without names: comparing is by order (see `compare`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

# Where the inner program is, of the equations that run theirs exactly once.
CALLS = {
    "jit": ("jaxpr",),
    "closed_call": ("call_jaxpr",),
    "core_call": ("call_jaxpr",),
    "core_closed_call": ("call_jaxpr",),
    "eval_jaxpr": ("call_jaxpr", "jaxpr"),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
    "remat2": ("jaxpr",),
    "checkpoint": ("jaxpr",),
    "composite": ("call_jaxpr", "jaxpr"),
}


@dataclass(frozen=True)
class SiteRange:
    """One output of one equation, and the values it had.

    `min`, `max`, `nan` and `observed` are numpy scalars, or arrays with one element an
    iteration inside stacked scans.
    """

    primitive: str
    output: int
    shape: tuple[int, ...]
    dtype: np.dtype
    min: Any
    max: Any
    nan: Any
    observed: Any


def oracle(
    fun: Callable[..., Any], *args: Any, loops: str = "merge", **kwargs: Any
) -> tuple[list[Any], list[SiteRange]]:
    """The leaves of what `fun` returns, and the range of each of its sites in program order.

    Leaves that are no arrays (ints, bools, strings, functions) are not traced, as in
    `jr.ranges`. Raises NotImplementedError for shard_map.
    """
    leaves, treedef = jax.tree.flatten((args, kwargs))
    arrays = [leaf for leaf in leaves if _is_traced(leaf)]

    def of_arrays(*traced: Any) -> Any:
        fill = iter(traced)
        args, kwargs = treedef.unflatten([next(fill) if _is_traced(x) else x for x in leaves])
        return fun(*args, **kwargs)

    program = jax.make_jaxpr(of_arrays)(*arrays)
    machine = _Machine(stack=loops == "stack")
    outs = machine.run(program, arrays, (), ())
    return outs, [machine.summary(*site) for site in _sites(program, (), (), machine.stack)]


def _is_traced(leaf: Any) -> bool:
    if isinstance(leaf, (np.ndarray, np.generic)):
        return leaf.dtype.kind not in "OSUMm" and leaf.dtype != jax.dtypes.float0
    return isinstance(leaf, (jax.Array, float, complex))


# -- which sites there are --------------------------------------------------------------------

# A site is known by its path: positions of equations and of inner programs, then the output.
Path = tuple[int, ...]


def _sites(
    program: Any, path: Path, lead: tuple[int, ...], stack: bool
) -> Iterator[tuple[Path, tuple[int, ...], str, Any]]:
    """Every site of a program in order, reached or not: path, trip counts, primitive, aval."""
    for n, eqn in enumerate(_open(program)[0].eqns):
        inner = inner_programs(eqn)
        if inner is None:
            for i, var in enumerate(eqn.outvars):
                if _is_numeric(var.aval):
                    yield (*path, n, i), lead, eqn.primitive.name, var.aval
            continue
        stacked = stack and eqn.primitive.name == "scan"
        deeper = (*lead, eqn.params["length"]) if stacked else lead
        for i, program_inside in enumerate(inner):
            yield from _sites(program_inside, (*path, n, i), deeper, stack)


def inner_programs(eqn: Any) -> list[Any] | None:
    """The programs that are run equation by equation; None for an equation that is run whole."""
    name, params = eqn.primitive.name, eqn.params
    if name == "shard_map":
        raise NotImplementedError("the oracle runs on one device")
    if name == "scan":
        return [params["jaxpr"]]
    if name == "while":
        return [params["cond_jaxpr"], params["body_jaxpr"]]
    if name == "cond":
        return list(params["branches"])
    if name in CALLS:
        return [next(params[key] for key in CALLS[name] if key in params)]
    return None


def _is_numeric(aval: Any) -> bool:
    if not isinstance(aval, jax.core.ShapedArray):
        return False
    if jnp.issubdtype(aval.dtype, jax.dtypes.extended) or aval.dtype == jax.dtypes.float0:
        return False
    return aval.dtype == bool or bool(jnp.issubdtype(aval.dtype, np.number))


def _open(program: Any) -> tuple[Any, Sequence[Any]]:
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


# -- running ----------------------------------------------------------------------------------


class _Machine:
    """Runs programs and keeps what it saw, by (path of the site, iterations of stacked scans)."""

    def __init__(self, stack: bool):
        self.stack = stack
        self.seen: dict[tuple[Path, tuple[int, ...]], list[tuple[Any, Any, bool]]] = {}

    def run(self, program: Any, values: Sequence[Any], path: Path, turn: tuple[int, ...]) -> list:
        jaxpr, consts = _open(program)
        env = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, values, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else env[atom]

        for n, eqn in enumerate(jaxpr.eqns):
            with eqn.ctx.manager:
                outs = self.equation(eqn, [read(v) for v in eqn.invars], (*path, n), turn)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def equation(self, eqn: Any, values: list[Any], path: Path, turn: tuple[int, ...]) -> list:
        inner = inner_programs(eqn)
        if inner is None:
            return self.whole(eqn, values, path, turn)
        if eqn.primitive.name == "scan":
            return self.scan(eqn, values, path, turn)
        if eqn.primitive.name == "while":
            return self.loop(eqn, values, path, turn)
        if eqn.primitive.name == "cond":
            index, *operands = values
            taken = int(np.clip(int(index), 0, len(inner) - 1))
            return self.run(inner[taken], operands, (*path, taken), turn)
        return self.run(inner[0], values, (*path, 0), turn)

    def whole(self, eqn: Any, values: list[Any], path: Path, turn: tuple[int, ...]) -> list[Any]:
        outs = _bind(eqn, values)
        for i, (var, out) in enumerate(zip(eqn.outvars, outs, strict=True)):
            if _is_numeric(var.aval):
                self.seen.setdefault(((*path, i), turn), []).append(_reduce(out))
        return outs

    def scan(self, eqn: Any, values: list[Any], path: Path, turn: tuple[int, ...]) -> list[Any]:
        params, length = eqn.params, eqn.params["length"]
        if not length:
            return _bind(eqn, values)
        num_consts, num_carry = _scan_counts(params)
        consts, carry = values[:num_consts], values[num_consts : num_consts + num_carry]
        xs = values[num_consts + num_carry :]
        ys: list[Any] = [None] * length
        for i in reversed(range(length)) if params["reverse"] else range(length):
            deeper = (*turn, i) if self.stack else turn
            slices = [x[i] for x in xs]
            outs = self.run(params["jaxpr"], [*consts, *carry, *slices], (*path, 0), deeper)
            carry, ys[i] = outs[:num_carry], outs[num_carry:]
        return [*carry, *(jnp.stack(y) for y in zip(*ys, strict=True))]

    def loop(self, eqn: Any, values: list[Any], path: Path, turn: tuple[int, ...]) -> list[Any]:
        params = eqn.params
        num_cond, num_body = params["cond_nconsts"], params["body_nconsts"]
        in_cond, in_body = values[:num_cond], values[num_cond : num_cond + num_body]
        state = values[num_cond + num_body :]
        while True:
            (go_on,) = self.run(params["cond_jaxpr"], [*in_cond, *state], (*path, 0), turn)
            if not np.any(go_on):
                return state
            new = self.run(params["body_jaxpr"], [*in_body, *state], (*path, 1), turn)
            state = [_where(go_on, a, b) for a, b in zip(new, state, strict=True)]

    def summary(self, path: Path, lead: tuple[int, ...], primitive: str, aval: Any) -> SiteRange:
        cells = [self.cell(path, turn, aval.dtype) for turn in np.ndindex(*lead)]
        least, most, nan, observed = (
            np.array([cell[k] for cell in cells], dtype).reshape(lead)[()]
            for k, dtype in enumerate((*[_kept_dtype(aval.dtype)] * 2, bool, bool))
        )
        shape, dtype = tuple(aval.shape), np.dtype(aval.dtype)
        return SiteRange(primitive, path[-1], shape, dtype, least, most, nan, observed)

    def cell(self, path: Path, turn: tuple[int, ...], dtype: Any) -> tuple[Any, Any, bool, bool]:
        lows, highs, nans = [], [], False
        for low, high, nan in self.seen.get((path, turn), []):
            lows += [] if low is None else [low]
            highs += [] if high is None else [high]
            nans = nans or nan
        least, most = _extremes(dtype)
        observed = bool(lows) or nans
        return min(lows, default=most), max(highs, default=least), nans, observed


def _bind(eqn: Any, values: list[Any]) -> list[Any]:
    outs = eqn.primitive.bind(*values, **eqn.primitive.get_bind_params(eqn.params))
    return list(outs) if eqn.primitive.multiple_results else [outs]


def _scan_counts(params: dict[str, Any]) -> tuple[int, int]:
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # since jax 0.12
    return len(consts), len(carry)


def _where(go_on: Any, new: Any, old: Any) -> Any:
    """Examples of a batch (leading axes) whose loop has ended keep what they carry."""
    go_on = jnp.asarray(go_on)
    if not go_on.ndim:
        return new
    missing = tuple(range(go_on.ndim, new.ndim))
    mask = jnp.broadcast_to(jnp.expand_dims(go_on, missing), new.shape)
    return jax.lax.select(mask, new, jnp.asarray(old))


# -- reducing ---------------------------------------------------------------------------------


def _kept_dtype(dtype: Any) -> np.dtype:
    """Floats narrower than 32 bits are kept in float32, all else as it is."""
    if not jnp.issubdtype(dtype, np.inexact):
        return np.dtype(dtype)
    return np.dtype(np.float64 if dtype in (np.float64, np.complex128) else np.float32)


def _extremes(dtype: Any) -> tuple[Any, Any]:
    """The least and the largest value, which are the maximum and the minimum of nothing."""
    if jnp.issubdtype(dtype, np.inexact):
        return -np.inf, np.inf
    if jnp.issubdtype(dtype, np.bool_):
        return False, True
    return int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max)


def _reduce(value: Any) -> tuple[Any, Any, bool]:
    """Least and largest element (None if there is none) and whether there is a NaN."""
    x = np.asarray(value).ravel()
    if jnp.issubdtype(x.dtype, np.complexfloating):
        x = np.concatenate([x.real, x.imag])
    if jnp.issubdtype(x.dtype, np.floating):
        x = x.astype(_kept_dtype(x.dtype))
        nans = np.isnan(x)
        x, nan = x[~nans], bool(nans.any())
        return (*((x.min(), x.max()) if x.size else (None, None)), nan)
    if x.dtype == bool or jnp.iinfo(x.dtype).bits < 32:
        x = x.astype(np.int64)  # numpy cannot order the 2- and 4-bit integers
    # Python integers, so that merging is exact whatever the dtype.
    return (*((int(x.min()), int(x.max())) if x.size else (None, None)), False)
