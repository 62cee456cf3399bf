"""Programs on meshes of every kind: explicit, automatic and manual axes, and mixtures.

Each is made for a mesh with axes "x" and "y" of any size, takes a float32 array `[8, 4]`, and is
called in the context of the mesh, or without (`context`), where its argument brings it.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, auto_axes, explicit_axes, reshard
from jax.sharding import PartitionSpec as P

import jax_ranges as jr
from tests.tools import STATS, TOOLS, with_tool

VALUES = np.cos(np.arange(32, dtype=np.float32)).reshape(8, 4) * 3
KEY = 7


def mesh_of(kinds: str, sizes: tuple[int, int]) -> Mesh:
    """A mesh whose axes are (e)xplicit or (a)utomatic, on the first devices."""
    types = {"e": AxisType.Explicit, "a": AxisType.Auto}
    devices = jax.devices()[: sizes[0] * sizes[1]]
    return jax.make_mesh(
        sizes, ("x", "y"), axis_types=tuple(types[k] for k in kinds), devices=devices
    )


class Program(NamedTuple):
    """A function, where its argument is, and on which kinds of meshes it runs."""

    fun: Callable[[Any], Any]
    spec: Any = P("x", "y")
    kinds: str = "ee"
    context: bool = True


PROGRAMS: dict[str, Program] = {}


def program(*args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    def add(fun: Any) -> Any:
        PROGRAMS[fun.__name__] = Program(fun, *args, **kwargs)
        return fun

    return add


# -- explicit axes ----------------------------------------------------------------------------


@program()
def elementwise(x):
    y = jnp.sin(x) * 2 + x
    small = (y * 3).astype(jnp.float16) + jnp.bfloat16(1)
    whole = (y * 3).astype(jnp.int8) % 5
    return y, small, whole, whole > 2, lax.complex(y, -y) * 2j, jnp.log(x)


@program()
def moved_about(x):
    both = jnp.concatenate([x * 2, jnp.exp(x)])
    turned = jnp.sin(x).T * 2
    flat = jnp.reshape(x * x, 32, out_sharding=P(("x", "y"))) + 1
    parts = jnp.stack([x, x - 1]) * 2
    return both * 3, turned, flat, parts, jnp.flip(x * 3) + jnp.arange(4.0)


@program()
def reduced(x):
    return (
        x.sum(0),
        x.max(1) * 2,
        jnp.cumsum(reshard(x * 2, P()), 0),
        jnp.max(x, 1),
        jnp.mean(x) * x,
    )


@program(P("x", None))
def ordered(x):
    return jnp.sort(x * 2, 1), lax.top_k(x * 3, 2), jnp.argsort(x, 1)


@program(P("x", None))
def indexed(x):
    some = x.at[jnp.array([1, 3])].get(out_sharding=P(None, None))
    return some * 2, x[:, 1:3] * 3, jnp.take_along_axis(x, jnp.zeros((8, 1), int), 1) * 2


@program(P("x", None))
def product(x):
    w = jnp.arange(24.0).reshape(4, 6) / 7
    y = jnp.tanh(x @ w) + x.sum(1, keepdims=True)
    return y, jnp.einsum("bi,bj->ij", x, y, out_sharding=P(None, None)) * 2


@program(P(None, "y"))
def unreduced_inside(x):
    w = reshard(jnp.arange(24.0).reshape(4, 6) / 7, P("y", None))
    y = jnp.einsum("bi,ij->bj", x, w, out_sharding=P(None, None, unreduced={"y"}))
    return jnp.sin(reshard(y, P(None, None)))


@program(P(None, "y"))
def unreduced_result(x):
    w = reshard(jnp.arange(24.0).reshape(4, 6) / 7, P("y", None))
    return jnp.einsum("bi,ij->bj", x, w, out_sharding=P(None, None, unreduced={"y"}))


@program(P("x", None))
def random_numbers(x):
    key = jax.random.key(KEY)
    keep = jax.random.bernoulli(key, 0.5, x.shape, out_sharding=P("x", None))
    noise = jax.random.normal(key, x.shape, out_sharding=P("x", None))
    return jnp.where(keep, x, 0) + noise * jax.random.uniform(jax.random.fold_in(key, 3), ())


@program(P("x", None))
def keys_along_an_axis(x):
    keys = reshard(jax.random.split(jax.random.key(KEY), 8), P("x"))
    return jax.vmap(lambda key, row: row * jax.random.uniform(key, (4,)))(keys, x)


# -- control flow, custom derivatives ---------------------------------------------------------


@program()
def scanned(x):
    def body(c, row):
        c = jnp.sin(c) + row
        return c, (c * 2, row.sum())

    rows = reshard(x, P(None, "y"))
    return lax.scan(body, 0 * rows[0], rows)


@program()
def scanned_twice(x):
    def body(c, row):
        inner = lax.scan(lambda c, _: (c * 0.5 + row, c.max()), c, None, length=2)
        return inner[0] + jax.random.uniform(jax.random.key(KEY), ()), inner[1]

    rows = reshard(x, P(None, "y"))
    return lax.scan(body, 0 * rows[0], rows)


@program()
def looped(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.exp(c[1] / 2)), (0, x))


@program()
def branched(x):
    def other(x):
        return auto_axes(lambda x: jnp.cos(x) * 2, out_sharding=P("x", "y"))(x)

    return lax.cond(x.sum() > 0, lambda x: jnp.sin(x) * 3, other, x)


@program()
def rematerialized(x):
    return jax.checkpoint(lambda x: jnp.sin(jnp.exp(x / 3)) * x)(x)


@jax.custom_jvp
def with_jvp(x):
    return jnp.sin(x) * 2


@jax.custom_vjp
def with_vjp(x):
    return jnp.cos(x) * 2


with_jvp.defjvp(lambda primals, tangents: (with_jvp(*primals), tangents[0] * 3))
with_vjp.defvjp(lambda x: (with_vjp(x), x), lambda x, g: (g * x,))


@program()
def custom_rules(x):
    return with_jvp(x) * with_vjp(x), jax.nn.relu(x) * 2, jax.nn.silu(x)


@program()
def jitted(x):
    inner = jax.jit(lambda x: jnp.sin(x) * 2, out_shardings=P("x", None))
    return inner(x) + jax.jit(jnp.exp)(x).sum()


@program()
def gradient(x):
    def loss(x, w):
        return (jnp.tanh(jnp.dot(x, w, out_sharding=P("x"))) ** 2).sum()

    return jax.grad(loss, (0, 1))(reshard(x, P("x", None)), jnp.ones(4) / 3)


@program(P("x", None))
def mapped(x):
    """The axis that is mapped is an explicit one."""
    return jax.vmap(lambda row: jnp.sin(row) * row.sum())(x)


@program(P("x", None))
def mapped_over_a_loop(x):
    def each(row):
        total = lax.scan(lambda c, v: (c + jnp.sin(v), c), row[0], row)[0]
        return jnp.where(total > 0, row * 2, -row)

    return jax.vmap(each)(x)


# -- automatic and explicit -------------------------------------------------------------------


@program()
def automatic_inside(x):
    @functools.partial(auto_axes, out_sharding=P("x", "y"))
    def inner(x):
        return jnp.sin(x.reshape(4, 8) * 2).reshape(8, 4) + 1

    return inner(x) * 2


@program()
def one_automatic_inside(x):
    @functools.partial(auto_axes, axes="y", out_sharding=P("x", "y"))
    def inner(x):
        return jnp.sin(x) * 2 + x.max()

    return inner(x) * 2


@program(kinds="ae")
def mixed(x):
    y = jnp.sin(x) * 2
    return y.sum(0), lax.scan(lambda c, v: (c + v, c * 2), 0 * x[0], y), jnp.sort(x * 2, 0)


@program(P(), kinds="aa")
def explicit_inside(x):
    @functools.partial(explicit_axes, in_sharding=P("x", "y"))
    def inner(x):
        rows = reshard(x, P(None, "y"))
        return jnp.sin(x) * 2 + lax.scan(lambda c, v: (c + v, None), 0 * rows[0], rows)[0]

    return inner(x) * 2


@program(P("x", "y"), kinds="aa")
def automatic(x):
    return jnp.sin(x) * 2 + x.reshape(-1).max(), lax.scan(lambda c, v: (c + v, c * 2), 0 * x[0], x)


@program(P("x", "y"), context=False)
def without_context(x):
    rows = reshard(x, NamedSharding(jax.typeof(x).sharding.mesh, P(None, "y")))
    return jnp.sin(x).sum(0), lax.scan(lambda c, v: (c + v.sum(), c * 2), 0.0, rows)


# -- manual -----------------------------------------------------------------------------------


def per_device(x):
    y = jnp.sin(x) * 2 + lax.psum(x, "x")
    z = lax.scan(lambda c, v: (c + v, c * 2), 0 * y[0], y)[1]
    return lax.cond(y.sum() > 0, lambda z: z * 2, lambda z: -z, z)


@program()
def manual(x):
    return jax.shard_map(per_device, in_specs=P("x", "y"), out_specs=P("x", "y"))(x) * 2


@program()
def manual_unchecked(x):
    specs = {"in_specs": P("x", "y"), "out_specs": P("x", "y")}
    return jax.shard_map(per_device, check_vma=False, **specs)(x) * 2


@program()
def partly_manual(x):
    return jax.shard_map(per_device, in_specs=P("x"), out_specs=P("x"), axis_names={"x"})(x) * 2


@program(kinds="aa")
def partly_manual_automatic(x):
    return jax.shard_map(per_device, in_specs=P("x"), out_specs=P("x"), axis_names={"x"})(x) * 2


@program()
def manual_in_manual(x):
    def inner(x):
        return jnp.exp(x) + lax.axis_index("y")

    def outer(x):
        y = jax.shard_map(inner, in_specs=P(None, "y"), out_specs=P(None, "y"), axis_names={"y"})(x)
        return jnp.sin(y) * 2

    return jax.shard_map(outer, in_specs=P("x"), out_specs=P("x"), axis_names={"x"})(x) * 2


@program()
def manual_in_a_loop(x):
    step = jax.shard_map(lambda x: jnp.sin(x) * 2, in_specs=P("x", "y"), out_specs=P("x", "y"))
    return lax.scan(lambda c, _: (step(c), c.max()), x, None, length=3)


@program()
def automatic_in_manual(x):
    """Jitted, for JAX runs it in no other way."""

    def outer(x):
        inner = auto_axes(lambda x: jnp.sort(x * 2, 1), axes="y", out_sharding=P(None, "y"))
        return inner(x) + 1

    partly = jax.shard_map(outer, in_specs=P("x"), out_specs=P("x"), axis_names={"x"})
    return jax.jit(partly)(x) * 2


@program()
def parts_of_sums(x):
    def inner(x):
        part = lax.pcast(jnp.sin(x), ("y",), to="unreduced")
        whole = lax.pcast(lax.psum(jnp.cos(x), "y"), ("y",), to="reduced")
        return lax.psum(part + part, "y") * 2, whole * x

    specs = P("x"), P("x", "y")
    return jax.shard_map(inner, in_specs=P("x", "y"), out_specs=specs)(x)


# -- running ----------------------------------------------------------------------------------


@contextlib.contextmanager
def placed(case: Program, sizes: tuple[int, int]):
    """In the context of the program's mesh, its argument."""
    mesh = mesh_of(case.kinds, sizes)
    x = jax.device_put(VALUES, NamedSharding(mesh, case.spec))
    with jax.set_mesh(mesh) if case.context else contextlib.nullcontext():
        yield x


def types(tree: Any) -> list[Any]:
    return [(jax.typeof(x), jax.typeof(x).sharding.spec) for x in jax.tree.leaves(tree)]


def assert_same(got: Any, want: Any) -> None:
    """The same values, of the same types, shardings included."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert types(got) == types(want)
    for a, b in zip(wholes(got), wholes(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def wholes(tree: Any) -> list[np.ndarray]:
    """The arrays on the host, what is unreduced added up."""
    leaves = jax.tree.leaves(tree)
    specs = [jax.typeof(leaf).sharding.spec for leaf in leaves]
    return [
        np.asarray(reshard(leaf, P(*spec.partitions)) if spec.unreduced else leaf)
        for leaf, spec in zip(leaves, specs, strict=True)
    ]


# -- with statistics and tools ----------------------------------------------------------------


def _measured(stat: Any, fun: Any, x: Any) -> Any:
    return jax.jit(lambda x: jr.ranges(fun, stats=(jr.MinMax(), stat), inputs=True)(x)[0])


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    **{name: functools.partial(with_tool, name) for name in TOOLS},
    **{type(stat).__name__: functools.partial(_measured, stat) for stat in STATS},
    "eagerly": lambda fun, x: lambda x: jr.ranges(fun, stats=jr.Health())(x)[0],
}
"""Every tool and every statistic: each makes of a function and its argument what is to give back
what the function returns."""


def in_turn() -> list[tuple[str, str]]:
    """Each program with one of the ways, and each of these with a program or more."""
    return [(name, list(WAYS)[i % len(WAYS)]) for i, name in enumerate(PROGRAMS)]


def check(name: str, way: str, sizes: tuple[int, int]) -> None:
    """What the program returns, and where it is, stays the same."""
    case = PROGRAMS[name]
    with placed(case, sizes) as x:
        assert_same(WAYS[way](case.fun, x)(x), jax.jit(case.fun)(x))


WITHOUT_GRADIENT = frozenset(
    (
        *("elementwise", "ordered", "unreduced_result", "looped", "gradient"),
        "manual_in_manual",  # an error of JAX's
    )
)
"""The programs that cannot be differentiated, or whose results are no floats."""


def check_gradient(name: str, sizes: tuple[int, int]) -> None:
    """Neither does its gradient change, nor does that of the gradient's measuring."""
    case = PROGRAMS[name]

    def gradient(fun: Any) -> Any:
        return jax.grad(lambda x: sum((leaf**2).sum() for leaf in jax.tree.leaves(fun(x))))

    with placed(case, sizes) as x:
        want = jax.jit(gradient(case.fun))(x)
        assert_same(jax.jit(gradient(lambda x: jr.ranges(case.fun)(x)[0]))(x), want)
        assert_same(jax.jit(jr.ranges(gradient(case.fun)))(x)[0], want)


LOW: dict[str, Callable[[Any], Any]] = {
    "simulated": lambda f: jr.simulate(f, RECIPE),
    "reported": lambda f: lambda x: jr.simulate(f, RECIPE, report=True)(x)[0],
    "quantized": lambda f: jr.quantize(f, RECIPE),
    "shadowed": lambda f: lambda x: jr.shadow(f, "float16")(x)[0],
}
RECIPE = {
    "dot_general": (jr.Dynamic("int8"), jr.Dynamic("int8", channels=True)),
    "sin": "mxfp8_e4m3",
    "*": "bfloat16",
}


def check_low(name: str, way: str, sizes: tuple[int, int]) -> None:
    """In a low precision values change; their types, and so where they are, do not."""
    case = PROGRAMS[name]
    with placed(case, sizes) as x:
        got, want = jax.jit(LOW[way](case.fun))(x), jax.jit(case.fun)(x)
        assert types(got) == types(want)
        for a, b in zip(wholes(got), wholes(want), strict=True):
            assert np.isfinite(a).sum() >= np.isfinite(b).sum() // 2


def ranges_on(name: str, sizes: tuple[int, int], stats: Any = jr.MinMax()) -> jr.Ranges:  # noqa: B008
    """Its ranges on so many devices."""
    case = PROGRAMS[name]
    with placed(case, sizes) as x:
        return jax.device_get(jax.jit(jr.ranges(case.fun, stats, inputs=True))(x)[1])
