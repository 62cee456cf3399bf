"""Equations with inner programs: every parameter is passed on; branches chosen by platform."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.experimental import pallas as pl
from jax.extend.core import Primitive, jaxprs_in_params
from jax.extend.core.primitives import call_p, closed_call_p
from jax.interpreters import ad, batching, mlir

import jax_ranges as jr
from jax_ranges.rules import RULES
from tests.tools import STATS, TOOLS, TRACED, with_tool

X = jnp.linspace(-1.0, 1.5, 8)

# -- parameters -------------------------------------------------------------------------------

# What each rule knows of, in any supported release. A parameter that is not here is one that a
# rule would drop: pass it on, or say beside the rule why not, and then list it.
KNOWN = {
    "jit": "jaxpr name in_shardings out_shardings in_layouts out_layouts donated_invars ctx_mesh "
    "keep_unused inline compiler_options_kvs",
    "call": "call_jaxpr",
    "closed_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
    "remat2": "jaxpr prevent_cse differentiated policy",
    "composite": "name version attributes jaxpr call_jaxpr",
    "custom_jvp_call": "call_jaxpr jvp_jaxpr_fun num_consts symbolic_zeros",
    "custom_vjp_call": "call_jaxpr fwd_jaxpr_thunk num_consts bwd out_trees symbolic_zeros",
    "scan": "jaxpr length reverse unroll num_consts num_carry ft_in ft_out",
    "while": "cond_jaxpr cond_nconsts body_jaxpr body_nconsts",
    "cond": "branches branches_platforms",
    "shard_map": "jaxpr mesh in_specs out_specs newly_manual_axes check_vma",
}


@jax.custom_jvp
def with_jvp(x):
    return jnp.sin(x)


@jax.custom_vjp
def with_vjp(x):
    return jnp.sin(x)


with_jvp.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), tangents[0]))
with_vjp.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * x,))


def every_kind(x):
    """A program with an equation of each primitive that has a rule and can be differentiated."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.shard_map(jnp.sin, mesh=mesh, in_specs=jax.P("d"), out_specs=jax.P("d"))
    x = jax.jit(lambda x: with_jvp(x) + with_vjp(x))(spread(x))
    x = jax.checkpoint(jnp.sin, policy=jax.checkpoint_policies.everything_saveable)(x)
    x = lax.scan(lambda c, z: (c * z, c), x, x, reverse=True, unroll=2, _split_transpose=True)[0]
    x = lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)
    return lax.platform_dependent(x, tpu=jnp.sin, default=jnp.cos)


def rare_kinds(x):
    """Those that reverse differentiation does not know."""
    program = jax.make_jaxpr(jnp.sin)(x)
    for primitive in dict.fromkeys((call_p, closed_call_p)):
        params = {"call_jaxpr": program if primitive is closed_call_p else program.jaxpr}
        (x,) = primitive.bind(x, **primitive.get_bind_params(params))
    x = lax.composite(jnp.sin, name="test.sin")(x)
    return lax.while_loop(lambda x: x[0] < 1, lambda x: x + 1, x)


def equations(jaxpr):
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)


def test_every_parameter_of_an_equation_with_inner_programs_is_known():
    programs = [
        jax.make_jaxpr(every_kind)(X),
        jax.make_jaxpr(jax.grad(lambda x: every_kind(x).sum()))(X),
        jax.make_jaxpr(rare_kinds)(X),
    ]
    found: dict[str, set[str]] = {}
    for program in programs:
        for eqn in equations(program):
            if eqn.primitive.name in RULES:
                found.setdefault(eqn.primitive.name, set()).update(eqn.params)
    assert KNOWN.keys() == RULES.keys()
    # `call` and `closed_call` are one primitive, `eval_jaxpr`, since 0.12.
    assert {"call", "closed_call"} <= found.keys() or "eval_jaxpr" in found
    assert found.keys() >= RULES.keys() - {"call", "closed_call", "eval_jaxpr"}
    new = {name: unknown for name in found if (unknown := found[name] - {*KNOWN[name].split()})}
    assert not new


# -- branches chosen by platform --------------------------------------------------------------

only_on_tpu = Primitive("only_on_tpu")
only_on_tpu.def_abstract_eval(lambda x: x)
mlir.register_lowering(only_on_tpu, mlir.lower_fun(jnp.exp, multiple_results=False), platform="tpu")
ad.defjvp(only_on_tpu, lambda g, x: g * only_on_tpu.bind(x))
batching.defvectorized(only_on_tpu)


def portable(x):
    """As portable kernels are written: one for a platform, and something plain for the others."""
    return lax.platform_dependent(x * 2, tpu=lambda x: only_on_tpu.bind(x) @ x, default=fallback)


def fallback(x):
    return jnp.sin(x) @ x


def in_loops(x):
    def body(c, z):
        return jax.jit(lambda c: c * portable(c * z))(c), portable(c)

    carry, ys = lax.scan(body, x, X)
    carry = lax.fori_loop(0, 3, lambda i, c: jnp.tanh(c * portable(c)), carry)
    return carry, ys


NESTS = {
    "plain": portable,
    "switched": lambda x: lax.cond(x[0] > 0, portable, lambda x: -portable(x), x),
    "loops": in_loops,
    "vmapped": lambda x: jax.vmap(portable)(jnp.outer(x, x)),
    "gradient": jax.grad(lambda x: portable(jnp.sin(x))),
    "rematerialized": jax.grad(jax.checkpoint(lambda x: portable(jnp.sin(x)))),
}


def assert_same(f, tool):
    found = with_tool(tool, f, X)(X)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found, jax.jit(f)(X))


@pytest.mark.parametrize("tool", TOOLS)
def test_a_branch_for_another_platform_is_not_lowered(tool):
    assert_same(NESTS["switched"], tool)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("nest", NESTS)
def test_nor_is_it_inside_of_anything(nest, tool):
    assert_same(NESTS[nest], tool)


@pytest.mark.parametrize("stat", STATS, ids=lambda stat: type(stat).__name__)
def test_what_was_not_lowered_was_not_observed(stat):
    _, ranges = jax.jit(jr.ranges(NESTS["switched"], stats=(jr.MinMax(), stat)))(X)
    observed = [(site.primitive, bool(ranges[site.name].observed)) for site in ranges.sites]
    assert [seen for primitive, seen in observed if primitive == "only_on_tpu"] == [False, False]
    # One is in the branch that is not taken.
    assert sorted(seen for primitive, seen in observed if primitive == "sin") == [False, True]


@pytest.mark.parametrize(
    "transform",
    [
        *(jax.jit, jax.vmap, lambda g: lambda x: lax.scan(lambda c, z: (c, g(z)), 0, x)[1]),
        lambda g: jax.vmap(jax.grad(g, has_aux=True)),
    ],
    ids=["jit", "vmap", "scan", "grad"],
)
def test_measured_functions_are_transformed_with_their_branches(transform):
    rows = jnp.stack([X, 2 * X])
    for run in (lambda f: f, jax.jit):
        _, ranges = run(transform(jr.ranges(portable)))(rows if transform is not jax.jit else X)
        assert np.all(ranges["cond/branch_1/sin"].observed)
        assert not np.any(ranges["cond/branch_0/only_on_tpu"].observed)


@pytest.mark.parametrize("tool", TRACED)
def test_exported_for_a_platform_its_branch_is_lowered_and_only_that(tool):
    made = with_tool(tool, portable, X)
    for platform in ("tpu", "cpu"):
        text = export.export(made, platforms=[platform])(X).mlir_module()
        assert ("exponential" in text) == (platform == "tpu")
        assert ("sine" in text) == (platform == "cpu")


def test_exported_for_several_platforms_each_has_its_branch():
    def f(x):
        return lax.platform_dependent(x, tpu=jnp.exp, cpu=jnp.sin, default=jnp.cos)

    exported = export.export(jax.jit(jr.ranges(f)), platforms=("cpu", "tpu"))(X)
    assert "cosine" not in exported.mlir_module().replace("sine", "", 1)
    out, ranges = exported.call(X)
    np.testing.assert_allclose(out, jnp.sin(X), rtol=1e-6)
    assert [r.observed for r in ranges.values()] == [True, False, True, False]


def test_portable_pallas_kernels():
    def kernel(x_ref, out_ref):
        out_ref[...] = jnp.exp(x_ref[...])

    def f(x):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        fast = pl.pallas_call(kernel, out_shape=like)
        return lax.platform_dependent(x * 2, tpu=fast, default=jnp.exp)

    x = jnp.ones((8, 128))
    out, ranges = jax.jit(jr.ranges(f))(x)
    np.testing.assert_allclose(out, np.exp(2 * np.ones((8, 128))), rtol=1e-6)
    assert not ranges["cond/branch_0/pallas_call"].observed
    assert ranges["cond/branch_1/exp"].observed
    lowered = export.export(jax.jit(jr.ranges(f)), platforms=["tpu"])(x).mlir_module()
    assert "tpu_custom_call" in lowered
