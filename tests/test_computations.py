"""Equations with a computation inside: what is said of them holds, whatever it computes.

A scatter moves elements; `x.at[i].apply(f)` is a scatter that computes `f`. Each program below
makes a NaN, an infinity or a large number of small ones, inside of a primitive. Then the proven
interval has it, the birth is reported, and no range is derived as if nothing happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import mlir

import jax_ranges as jr
from jax_ranges.births.checks import Check, check_of
from jax_ranges.computations import UNKNOWN, holds_computation, known_as, name_of
from jax_ranges.derive import DERIVATIONS, MOVEMENT
from tests.compare import assert_same_ranges
from tests.oracle import oracle

X = jnp.array([1.5, -3.0, 2.0, 0.5])
WHERE = jnp.array([1, 3])

INSIDE: dict[str, Callable[[Any], Any]] = {
    "logarithm": jnp.log,
    "quotient": lambda t: t / 0,
    "large": lambda t: t * 100 + 7,
    "overflow": lambda t: jnp.exp(t * t * 1000),
}
"""What is computed: NaN of -3, infinities, numbers outside of the operand's range."""


def _like(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _custom_jvp(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    fun = jax.custom_jvp(f)
    fun.defjvp(lambda xs, ts: (f(xs[0]), ts[0]))
    return fun


def _custom_vjp(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    fun = jax.custom_vjp(f)
    fun.defvjp(lambda x: (f(x), None), lambda _, ct: (ct,))
    return fun


def _custom_vmap(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    fun = custom_vmap(f)
    fun.def_vmap(lambda size, batched, x: (f(x), batched[0]))
    return fun


def _custom_partitioning(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    fun = custom_partitioning(f)
    fun.def_partition(
        partition=lambda mesh, args, result: (mesh, f, result.sharding, (args[0].sharding,)),
        infer_sharding_from_operands=lambda mesh, args, result: args[0].sharding,
        sharding_rule="i -> i",
    )
    return fun


def _kernel(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def kernel(x_ref, out_ref):
        out_ref[...] = f(x_ref[...])

    return lambda x: pl.pallas_call(kernel, out_shape=_like(x), interpret=True)(x)


def _numpy(f: Callable[[Any], Any]) -> Callable[[Any], np.ndarray]:
    """The same by numpy, for what runs on the host."""
    exact = {id(INSIDE["logarithm"]): np.log, id(INSIDE["overflow"]): lambda t: np.exp(t * t * 1e3)}
    found = exact.get(id(f), f)

    def on_host(x: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(found(np.asarray(x, np.float32)), np.float32)

    return on_host


def _root(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: lax.custom_root(
        lambda y: y - x, x, lambda _, start: f(start), lambda g, y: y / g(jnp.ones_like(y))
    )


def _solve(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: lax.custom_linear_solve(lambda y: 2 * y, x, lambda _, b: f(b), symmetric=True)


def _reduced(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: lax.reduce(x, np.float32(1), lambda a, b: f(lax.min(a, b)), (0,))


def _windows(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: lax.reduce_window(
        x, np.float32(1), lambda a, b: f(lax.min(a, b)), (2,), (1,), "VALID"
    )


MAKERS: dict[str, Callable[[Callable[[Any], Any]], Callable[[Any], Any]]] = {
    "apply": lambda f: lambda x: x.at[WHERE].apply(f),
    "apply twice": lambda f: lambda x: x.at[jnp.array([1, 1])].apply(f),
    "apply in a batch": lambda f: lambda x: jax.vmap(lambda y: y.at[1].apply(f))(x.reshape(2, 2)),
    "apply in a scan": lambda f: lambda x: lax.scan(lambda c, i: (c.at[i].apply(f), i), x, WHERE),
    "apply in a branch": lambda f: (
        lambda x: lax.cond(x[0] > 0, lambda y: y.at[WHERE].apply(f), lambda y: y, x)
    ),
    "apply and move": lambda f: lambda x: -x.at[WHERE].apply(f)[::-1].reshape(2, 2),
    "reduce": _reduced,
    "reduce_window": _windows,
    "associative_scan": lambda f: lambda x: lax.associative_scan(lambda a, b: f(a) + f(b), x[:2]),
    "custom_jvp": _custom_jvp,
    "custom_vjp": _custom_vjp,
    "custom_vmap": _custom_vmap,
    "custom_partitioning": _custom_partitioning,
    "custom_root": _root,
    "custom_linear_solve": _solve,
    "pure_callback": lambda f: lambda x: jax.pure_callback(_numpy(f), _like(x), x),
    "io_callback": lambda f: lambda x: io_callback(_numpy(f), _like(x), x),
    "pallas": _kernel,
}


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        *((n, i) for n in MAKERS for i in ("logarithm", "large")),
        *(("apply", i) for i in ("quotient", "overflow")),
    ],
)
def test_what_is_computed_inside_is_proven_and_reported(name, inside):
    fun = MAKERS[name](INSIDE[inside])
    out, report = jr.find_nonfinite(fun)(X)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(out)]
    born = not all(np.isfinite(leaf).all() for leaf in leaves)
    assert report.ok != born
    assert not born or report.births[0].fate == "escaped"
    proven = jr.bounds(fun, bounds={"*": (-3, 3)}, observed=False)(X)
    seen = jr.ranges(fun)(X)[1]
    assert list(proven) == list(seen)
    outside = [n for n, r in seen.items() if not proven[n].holds(r.min, r.max, r.nan)]
    assert not outside
    assert_same_ranges(seen, oracle(fun, X)[1], rtol=1e-6)


def test_a_computation_that_the_name_says_is_known():
    def kinds(fun: Callable[..., Any]) -> list[str]:
        eqns = jax.make_jaxpr(fun)(X).eqns
        return [known_as(e) for e in eqns if e.primitive.name.startswith("scatter")]

    assert kinds(lambda x: x.at[WHERE].set(2.0)) == ["scatter"]
    assert kinds(lambda x: x.at[WHERE].add(2.0)) == ["scatter-add"]
    assert kinds(lambda x: x.at[WHERE].max(2.0)) == ["scatter-max"]
    assert kinds(lambda x: x.at[WHERE].apply(jnp.log)) == [UNKNOWN]
    assert kinds(lambda x: x.at[WHERE].apply(lambda t: t)) == [UNKNOWN]
    (add,) = [e for e in jax.make_jaxpr(lambda x: x.at[WHERE].add(2.0))(X).eqns if e.params][-1:]
    assert name_of("scatter-max", add.params) == name_of("scatter", add.params) == UNKNOWN


@pytest.mark.parametrize("value", [jnp.log, [{"f": jnp.log}], jax.make_jaxpr(jnp.log)(1.0)])
def test_whatever_holds_a_computation_is_in_no_table(value):
    assert holds_computation(value)
    assert {name_of(name, {"axis": 0, "how": value}) for name in DERIVATIONS} == {UNKNOWN}
    assert check_of("copy", {"how": value}, [X], X) is Check.WHOLE


@pytest.mark.parametrize("value", [None, "f", 3, (0, 1), np.float32, np.dtype(np.int8), X])
def test_what_is_no_computation_does_not_matter(value):
    assert not holds_computation(value)
    assert name_of("copy", {"how": value}) == "copy"


@pytest.mark.parametrize("name", [*MOVEMENT, "scatter", "concatenate", "neg", "max", "slice"])
def test_a_primitive_with_the_name_of_another_and_a_computation_is_measured(name):
    made = Primitive(name)
    made.def_impl(lambda *xs, fun: fun(xs[0]))
    mlir.register_lowering(
        made, mlir.lower_fun(lambda *xs, fun: fun(xs[0]), multiple_results=False)
    )
    made.def_abstract_eval(lambda *xs, fun: jax.core.ShapedArray(xs[0].shape, xs[0].dtype))

    def fun(x):
        return made.bind(x, x, fun=lambda t: jnp.log(t) * 1000)

    assert [row.how for row in jr.plan(fun)(X).rows] == ["measured"]
    proven = jr.bounds(fun, observed=False)(X)[name]
    assert proven.may_nan and proven.hi == np.inf
    if name in ("copy", "scatter"):
        assert not jr.find_nonfinite(fun)(X)[1].ok


# -- what is born of nothing, or where a dtype ends -------------------------------------------

BORN: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "complex magnitude": (jnp.abs, (jnp.array([3e38 + 3e38j]),)),
    "iota": (lambda: lax.iota(np.float16, 70_000), ()),
    "extremum of nothing": (lambda x: lax.reduce_max(x[:0], (0,)), (X,)),
    "windows of padding": (
        lambda x: lax.reduce_window(x, -np.inf, lax.max, (2,), (1,), [(3, 0)]),
        (X,),
    ),
    "ceil": (jnp.ceil, (jnp.array([15.5], ml_dtypes.float8_e3m4),)),
    "infinity without one": (
        lambda x: x.astype(ml_dtypes.float8_e4m3fnuz) * 1,
        (jnp.array([300.0], jnp.float16),),
    ),
    "no negative numbers": (
        lambda x: x.astype(ml_dtypes.float8_e8m0fnu).astype(jnp.float32),
        (jnp.array([-3.0], jnp.float16),),
    ),
}


@pytest.mark.parametrize("name", BORN)
def test_births_without_a_computation_that_could_make_them(name):
    fun, args = BORN[name]
    out, report = jr.find_nonfinite(fun)(*args)
    assert not np.isfinite(np.asarray(out).astype(np.complex64)).all()
    assert [birth.fate for birth in report.births[:1]] == ["escaped"]
