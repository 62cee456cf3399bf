"""Functions with derivative rules of their own, of every kind of JAX, that tell what they see.

Values are small dyadic numbers, so that results are exact however XLA fuses them, and a rule that
is left out gives another gradient: each is wrong by a factor of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap, sequential_vmap
from jax.custom_derivatives import CustomVJPPrimal, SymbolicZero, linear_call

Fun = Callable[..., Any]
Seen = list[Any]

X = np.float32([0.5, -1.0, 2.0])
Y = np.float32([1.0, 4.0, -0.25])


class Kind(NamedTuple):
    """How to make a function of some kind, and what it is called with.

    make: takes the list to which the rule adds what it sees.
    """

    make: Callable[[Seen], Fun]
    args: tuple[Any, ...] = (X, Y)


def told(x: Any) -> Any:
    """What a rule can tell of a value: whether it is a zero, whether it is perturbed, its type."""
    if isinstance(x, SymbolicZero):
        return "zero", str(x.aval)
    if isinstance(x, CustomVJPPrimal):
        return x.perturbed, told(x.value)
    if x is None or callable(x):
        return str(type(x))
    return str(jax.typeof(x)), bool(getattr(x, "weak_type", False))


def note(seen: Seen, rule: str, *values: Any) -> None:
    leaves, tree = jax.tree.flatten(values, is_leaf=lambda x: x is None)
    seen.append((rule, str(tree), [told(leaf) for leaf in leaves]))


def _is_zero(x: Any) -> bool:
    return isinstance(x, SymbolicZero)


# -- custom_jvp -------------------------------------------------------------------------------


def jvp_rule(seen: Seen, symbolic_zeros: bool = False) -> Fun:
    @jax.custom_jvp
    def f(x: Any, y: Any) -> Any:
        return x * y, y * 2

    @functools.partial(f.defjvp, symbolic_zeros=symbolic_zeros)
    def _(primals: Any, tangents: Any) -> Any:
        note(seen, "jvp", primals, tangents)
        (x, y), (dx, dy) = primals, tangents
        first = y * 8 if _is_zero(dx) else dx * y * 4
        return f(x, y), (first, dy if _is_zero(dy) else dy * 16)

    return f


def defjvps(seen: Seen) -> Fun:
    f = jax.custom_jvp(lambda x, y: x * y)
    f.defjvps(lambda t, out, x, y: (note(seen, "jvp", t, out), t * y * 4)[1], None)
    return f


def nondiff_jvp(seen: Seen) -> Fun:
    @functools.partial(jax.custom_jvp, nondiff_argnums=(0,), nondiff_argnames=("scale",))
    def f(inner: Fun, x: Any, scale: float) -> Any:
        return inner(x) * scale

    @f.defjvp
    def _(inner: Fun, scale: float, primals: Any, tangents: Any) -> Any:
        note(seen, "jvp", inner, scale, primals, tangents)
        return f(inner, *primals, scale), tangents[0] * 4

    return lambda x, y: f(jnp.negative, x, 2.0) * y


def jvp_of_integers(seen: Seen) -> Fun:
    @jax.custom_jvp
    def f(x: Any, n: Any) -> Any:
        return x * n, n + 1

    @f.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        note(seen, "jvp", primals, tangents)
        return f(*primals), (tangents[0] * 4, np.zeros(np.shape(primals[1]), jax.dtypes.float0))

    return f


# -- custom_vjp -------------------------------------------------------------------------------


def vjp_rule(seen: Seen, define: str = "defvjp", **options: bool) -> Fun:
    @jax.custom_vjp
    def f(x: Any, y: Any) -> Any:
        return x * y, y * 2

    def forward(x: Any, y: Any) -> Any:
        note(seen, "fwd", x, y)
        return f(x, y), (x, y * 4)

    def backward(kept: Any, cts: Any) -> Any:
        note(seen, "bwd", kept, cts)
        return cts[0] * kept[1], cts[1] * 8

    getattr(f, define)(forward, backward, **options)
    return f


def symbolic_vjp(seen: Seen) -> Fun:
    f = jax.custom_vjp(lambda x, y: (x * y, y * 2))

    def forward(x: Any, y: Any) -> Any:
        note(seen, "fwd", x, y)
        return f(x.value, y.value), (y.value * 4 if x.perturbed else None, x.value)

    def backward(kept: Any, cts: Any) -> Any:
        note(seen, "bwd", kept, cts)
        moved = kept[0] is not None and not _is_zero(cts[0])
        return cts[0] * kept[0] if moved else None, cts[1] if _is_zero(cts[1]) else cts[1] * 8

    f.defvjp(forward, backward, symbolic_zeros=True)
    return f


def vjp_of_trees(seen: Seen) -> Fun:
    @jax.custom_vjp
    def f(x: Any, both: Any) -> Any:
        return {"out": x * both["y"], "none": None, "n": both["n"] + 1}

    def forward(x: Any, both: Any) -> Any:
        note(seen, "fwd", x, both)
        return f(x, both), (both, x * 4)

    def backward(kept: Any, cts: Any) -> Any:
        note(seen, "bwd", kept, cts)
        return None, {"y": cts["out"] * kept[1], "n": None}

    f.defvjp(forward, backward)
    return lambda x, y: f(x, {"y": y, "n": np.int32(3)})["out"]


def nondiff_vjp(seen: Seen) -> Fun:
    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def f(inner: Fun, x: Any, y: Any) -> Any:
        return inner(x) * y

    def forward(inner: Fun, x: Any, y: Any) -> Any:
        note(seen, "fwd", inner, x, y)
        return f(inner, x, y), y * 4

    def backward(inner: Fun, kept: Any, ct: Any) -> Any:
        note(seen, "bwd", inner, kept, ct)
        return ct * kept, ct

    f.defvjp(forward, backward)
    return functools.partial(f, jnp.negative)


def vjp_of_integers(seen: Seen) -> Fun:
    f = jax.custom_vjp(lambda x, n: (x * n, n + 1))

    def forward(x: Any, n: Any) -> Any:
        note(seen, "fwd", x, n)
        return f(x, n), n * 4

    def backward(kept: Any, cts: Any) -> Any:
        note(seen, "bwd", kept, cts)
        return cts[0] * kept, np.zeros(np.shape(kept), jax.dtypes.float0)

    f.defvjp(forward, backward)
    return f


def vjp_in_jvp(seen: Seen) -> Fun:
    inner = vjp_rule(seen)

    @jax.custom_jvp
    def f(x: Any, y: Any) -> Any:
        return inner(x, y)[0]

    @f.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        note(seen, "jvp", primals, tangents)
        return inner(*primals)[0], tangents[0] * inner(*primals)[1]

    return f


def jvp_in_vjp(seen: Seen) -> Fun:
    inner = jvp_rule(seen)
    f = jax.custom_vjp(lambda x, y: inner(x, y)[0])

    def forward(x: Any, y: Any) -> Any:
        note(seen, "fwd", x, y)
        return jax.vjp(lambda x: inner(x, y)[0], x)

    def backward(kept: Any, ct: Any) -> Any:
        note(seen, "bwd", ct)
        return kept(ct)[0], None

    f.defvjp(forward, backward)
    return f


def vjp_with_constants(seen: Seen) -> Fun:
    rule, weights = vjp_rule(seen), jnp.asarray(Y)
    return lambda x, y: rule(x * weights, weights)[0] * y


def logging_vjp(seen: Seen) -> Fun:
    f = jax.custom_vjp(lambda x, y: x * y)

    def forward(x: Any, y: Any) -> Any:
        note(seen, "fwd", x, y)
        return x * y, (x, y)

    def backward(kept: Any, ct: Any) -> Any:
        note(seen, "bwd", kept, ct)
        return (ct * kept[1], ct * 4), {"logged": {"ct": ct, "x": kept[0]}}

    f.defvjp_with_logs(forward, backward)
    return f


def accumulating_vjp(seen: Seen) -> Fun:
    f = jax.custom_vjp(lambda x, y: x * y)

    def forward(x: Any, y: Any) -> Any:
        note(seen, "fwd", x, y)
        return x * y, y

    def backward(kept: Any, ct: Any, x: Any, y: Any) -> None:
        note(seen, "bwd", kept, ct)
        x.accum(ct * kept)
        x.accum(ct)
        y.accum(ct * 4)

    f.defvjp_with_accums(forward, backward)
    return f


# -- what is built on them, and what else has rules of its own --------------------------------


def custom_gradient(seen: Seen) -> Fun:
    @jax.custom_gradient
    def f(x: Any, y: Any) -> Any:
        def backward(ct: Any) -> Any:
            note(seen, "bwd", ct)
            return ct * y * 4, ct

        return x * y, backward

    return f


def converted_closure(seen: Seen) -> Fun:
    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def call(g: Fun, x: Any, *held: Any) -> Any:
        return g(x, *held)

    def forward(g: Fun, x: Any, *held: Any) -> Any:
        note(seen, "fwd", x, *held)
        return g(x, *held), (x, held)

    def backward(g: Fun, kept: Any, ct: Any) -> Any:
        note(seen, "bwd", kept, ct)
        _, vjp = jax.vjp(g, kept[0], *kept[1])
        return tuple(each * 4 for each in vjp(ct))

    call.defvjp(forward, backward)

    def f(x: Any, y: Any) -> Any:
        g, held = jax.closure_convert(lambda z: z * y, x)
        return call(g, x, *held)

    return f


def linear(seen: Seen) -> Fun:
    del seen
    return lambda x, y: linear_call(lambda r, v: v * r, lambda r, ct: ct * r * 4, y, x)


def root(seen: Seen) -> Fun:
    del seen
    return lambda x, y: (
        y
        * lax.custom_root(
            lambda z: z * 2 - x, x * 0, lambda g, z0: z0 - g(z0) / 2, lambda g, b: b * 4
        )
    )


def solve(seen: Seen) -> Fun:
    del seen
    return lambda x, y: lax.custom_linear_solve(
        lambda v: v * 2, x * y, lambda _, b: b / 2, lambda _, b: b * 4
    )


def batched(seen: Seen) -> Fun:
    @custom_vmap
    def f(x: Any, y: Any) -> Any:
        return x * y

    @f.def_vmap
    def _(size: int, are_batched: Any, x: Any, y: Any) -> Any:
        note(seen, "vmap", x, y)
        return x * y * 2, any(are_batched)

    return f


def sequential(seen: Seen) -> Fun:
    del seen
    return sequential_vmap(lambda x, y: x * y)


def recomputed(seen: Seen) -> Fun:
    rule = vjp_rule(seen)
    saves_nothing = jax.checkpoint_policies.nothing_saveable
    return jax.checkpoint(lambda x, y: rule(x * 2, y)[0] * y, policy=saves_nothing)


KINDS: dict[str, Kind] = {
    "jvp": Kind(jvp_rule),
    "jvp, symbolic zeros": Kind(functools.partial(jvp_rule, symbolic_zeros=True)),
    "jvp, one an argument": Kind(defjvps),
    "jvp, static arguments": Kind(nondiff_jvp),
    "jvp, integers": Kind(jvp_of_integers, (X, np.int32([1, 2, 3]))),
    "vjp": Kind(vjp_rule),
    "vjp, symbolic zeros": Kind(symbolic_vjp),
    "vjp, trees": Kind(vjp_of_trees),
    "vjp, static arguments": Kind(nondiff_vjp),
    "vjp, integers": Kind(vjp_of_integers, (X, np.int32([1, 2, 3]))),
    "vjp, weak types": Kind(vjp_rule, (0.5, 4.0)),
    "vjp, weak types and symbolic zeros": Kind(symbolic_vjp, (0.5, 4.0)),
    "vjp, bfloat16": Kind(vjp_rule, (jnp.asarray(X, jnp.bfloat16), jnp.asarray(Y, jnp.bfloat16))),
    "vjp, constants": Kind(vjp_with_constants),
    "vjp, optimized for remat": Kind(functools.partial(vjp_rule, optimize_remat=True)),
    "vjp in jvp": Kind(vjp_in_jvp),
    "jvp in vjp": Kind(jvp_in_vjp),
    "custom_gradient": Kind(custom_gradient),
    "closure_convert": Kind(converted_closure),
    "linear_call": Kind(linear),
    "custom_root": Kind(root),
    "custom_linear_solve": Kind(solve),
    "custom_vmap": Kind(batched),
    "sequential_vmap": Kind(sequential),
    "checkpoint": Kind(recomputed),
}
if hasattr(jax.custom_vjp, "defvjp_with_logs"):  # since 0.12
    KINDS["vjp, logs"] = Kind(logging_vjp)
    KINDS["vjp, accumulators"] = Kind(accumulating_vjp)
    KINDS["vjp, generic batching"] = Kind(functools.partial(vjp_rule, generic_batching=True))


# -- transformations --------------------------------------------------------------------------


def _total(outs: Any) -> Any:
    return sum(map(_first, jax.tree.leaves(outs)))


def _first(outs: Any) -> Any:
    """Squared, so that second derivatives contain the function's own value."""
    return jnp.sum(jnp.square(jax.tree.leaves(outs)[0].astype(jnp.float32)))


def _grad(f: Fun, loss: Fun = _total, argnums: Any = (0, 1)) -> Fun:
    return jax.grad(lambda *args: loss(f(*args)), argnums, allow_int=True)


def _one_stopped(f: Fun) -> Fun:
    def loss(*args: Any) -> Any:
        first, *rest = jax.tree.leaves(f(*args))
        return _total([first, *map(lax.stop_gradient, rest)])

    return jax.grad(loss, (0, 1), allow_int=True)


def _tangents(args: Any) -> Any:
    """Of the arguments, all that are floats moved."""
    return tuple(
        np.zeros(np.shape(x), jax.dtypes.float0)
        if jnp.result_type(x) == jnp.int32
        else jnp.full_like(x, 2)
        for x in args
    )


def _linearized(f: Fun) -> Fun:
    def both(*args: Any) -> Any:
        outs, linear = jax.linearize(f, *args)
        return outs, linear(*_tangents(args))

    return both


def _vjp_with_aux(f: Fun) -> Fun:
    def pull(*args: Any) -> Any:
        out, vjp, aux = jax.vjp(lambda *args: (_first(f(*args)), f(*args)), *args, has_aux=True)
        return vjp(jnp.ones_like(out)), aux

    return pull


def _logs(f: Fun) -> Fun:
    def pull(*args: Any) -> Any:
        out, vjp = jax.vjp(lambda *args: _total(f(*args)), *args)
        return vjp.with_logs(jnp.ones_like(out))

    return pull


def _twice(args: Any) -> Any:
    return [jnp.stack([jnp.asarray(x), jnp.asarray(x) * 2]) for x in args]


def _mapped(transform: Fun, in_axes: Any = 0) -> Fun:
    def mapped(f: Fun) -> Fun:
        def run(*args: Any) -> Any:
            many = _twice(args)
            if in_axes != 0:
                many = [m if a == 0 else x for m, x, a in zip(many, args, in_axes, strict=True)]
            return jax.vmap(transform(f), in_axes)(*many)

        return run

    return mapped


def _scanned(f: Fun) -> Fun:
    def loss(x: Any, y: Any) -> Any:
        def body(carry: Any, _: Any) -> Any:
            return carry + _first(f(x, y)), _total(f(x, y))

        total, each = lax.scan(body, jnp.float32(0), None, length=2)
        return total + jnp.sum(each)

    return jax.grad(loss, (0, 1), allow_int=True)


def _branched(f: Fun) -> Fun:
    def loss(x: Any, y: Any) -> Any:
        return lax.cond(_first(x) > 0, lambda: _total(f(x, y)), lambda: jnp.float32(0))

    return jax.grad(loss, (0, 1), allow_int=True)


TRANSFORMS: dict[str, Fun] = {
    "call": lambda f: f,
    "grad": _grad,
    "grad of the first output": lambda f: _grad(f, _first),
    "grad by the first argument": lambda f: _grad(f, argnums=(0,)),
    "grad, others stopped": _one_stopped,
    "value_and_grad": lambda f: jax.value_and_grad(lambda *a: _total(f(*a))),
    "vjp with aux": _vjp_with_aux,
    "jvp": lambda f: lambda *args: jax.jvp(f, args, _tangents(args)),
    "jvp by one": lambda f: lambda x, y: jax.jvp(lambda x: f(x, y), (x,), _tangents((x,))),
    "linearize": _linearized,
    "jacrev": lambda f: jax.jacrev(lambda x, y: f(x, y)),
    "jacfwd": lambda f: jax.jacfwd(lambda x, y: f(x, y)),
    "hessian": lambda f: jax.hessian(lambda *args: _total(f(*args))),
    "reverse over reverse": lambda f: _grad(_grad(f)),
    "reverse over forward": lambda f: _grad(lambda *a: jax.jvp(f, a, _tangents(a))[1]),
    "vmap": _mapped(lambda f: f),
    "vmap of one": _mapped(lambda f: f, (0, None)),
    "vmap of grad": _mapped(_grad),
    "vmap of grad of one": _mapped(_grad, (None, 0)),
    "grad of vmap": lambda f: _grad(_mapped(lambda f: f)(f)),
    "checkpoint": lambda f: _grad(jax.checkpoint(f)),
    "checkpoint of the first output": lambda f: _grad(jax.checkpoint(f), _first),
    "checkpoint with a policy": lambda f: _grad(
        jax.checkpoint(f, policy=jax.checkpoint_policies.dots_saveable)
    ),
    "scan": _scanned,
    "cond": _branched,
}
if hasattr(jax.custom_vjp, "defvjp_with_logs"):
    TRANSFORMS["logs"] = _logs
