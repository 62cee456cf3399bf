"""jr.ranges as a JAX transformation: outputs untouched, composition, effects, names, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax._src.state.discharge import run_state
from jax.experimental import io_callback
from jax.extend.core.primitives import closed_call_p

import jax_ranges as jr
from tests.tools import TOOLS, with_tool

X = jnp.array([0.5, -1.5, 2.0])


def names(fun, *args, **options):
    return list(jr.ranges(fun, **options)(*args)[1])


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.map(jnp.result_type, a) == jax.tree.map(jnp.result_type, b)


# -- outputs ----------------------------------------------------------------------------------


def test_outputs_keep_their_tree_types_weak_types_and_everything_that_is_no_array():
    def f(x, scale, flag):
        return {"y": x * scale, "weak": scale * 2, "flag": flag, "none": None, "const": X, "s": "s"}

    out, _ = jr.ranges(f)(X, 3.0, True)
    expected = f(X, jnp.asarray(3.0), True)
    assert jax.tree.structure(out) == jax.tree.structure(expected)
    same(out["y"], expected["y"])
    assert out["weak"].weak_type
    assert not out["y"].weak_type
    assert (out["flag"], out["s"]) == (True, "s")
    assert out["const"] is X


def test_ints_flags_and_objects_reach_the_function_as_they_are():
    def f(x, axis, train, layer, *, names):
        assert (type(axis), type(train), names) == (int, bool, ["a", "b"])
        return layer(jnp.sum(x, axis)) if train else x

    out, _ = jr.ranges(f)(jnp.ones((2, 3)), 1, True, jnp.sin, names=["a", "b"])
    assert out.shape == (2,)


def test_static_arguments_of_a_jitted_function_stay_static():
    @functools.partial(jax.jit, static_argnums=(1,), static_argnames=("eps",))
    def f(x, power, eps=0.0):
        return x**power + (1.0 if eps > 0.5 else 0.0)

    for args, kwargs in (((X, 3), {}), ((X, 2.0), {"eps": 0.75})):
        same(jr.ranges(f)(*args, **kwargs)[0], f(*args, **kwargs))


def test_bound_methods_partials_and_callable_objects():
    class Scale:
        factor = 3.0

        def __call__(self, x):
            return x * self.factor

        method = __call__

    for f in (Scale(), Scale().method, functools.partial(lambda a, x: a * x, 3.0), np.sin, jnp.sin):
        if f is not np.sin:
            same(jr.ranges(f)(X)[0], f(X))


def test_the_function_keeps_its_name_and_doc():
    def f(x):
        """Doc."""
        return x

    assert jr.ranges(f).__name__ == "ranges(f)"
    assert jr.ranges(f).__doc__ == "Doc."


def test_a_jitted_function_is_traced_and_compiled_once_for_many_calls():
    traced = []

    @jax.jit
    def f(x):
        traced.append(1)
        return jnp.sin(x)

    measured = jr.ranges(f)
    for i in range(3):
        assert measured(X + i)[1]["jit(f)/sin"].observed
    assert len(traced) == 1


def test_a_function_that_changes_is_traced_again():
    factor = [2.0]
    measured = jr.ranges(lambda x: x * factor[0])
    assert measured(X)[0][0] == 1.0
    factor[0] = 4.0
    assert measured(X)[0][0] == 2.0


def test_donated_buffers_are_donated():
    f = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jnp.ones(4)
    out, ranges = jr.ranges(f)(x)
    assert x.is_deleted()
    assert (
        out[0],
        ranges["jit(f)/add" if "jit(f)/add" in ranges else "jit(<lambda>)/add"].max,
    ) == (2, 2)
    y = jnp.ones(4)
    jax.jit(jr.ranges(lambda x: x + 1), donate_argnums=0)(y)
    assert y.is_deleted()


# -- composition ------------------------------------------------------------------------------


@jax.custom_jvp
def cube(x):
    return x**3


cube.defjvp(lambda primals, tangents: (cube(*primals), 100.0 * tangents[0]))


@jax.custom_vjp
def square(x, n):
    return x**2 + 0 * n


square.defvjp(lambda x, n: (square(x, n), x), lambda x, ct: (1000.0 * ct, None))


def smooth(x):
    """Most of what a program can hold, but for what forbids forward-mode differentiation."""
    y = jnp.tanh(x) @ jnp.ones((3, 3)) + jax.nn.relu(x)
    y = jax.checkpoint(lambda y: jnp.sin(jnp.exp(-y)))(y)
    y = lax.scan(lambda c, v: (c * 0.5 + v, jnp.cos(c)), 0.0, y)[1]
    return jnp.sum(lax.cond(y[0] > 0, lambda y: cube(y), lambda y: y, y))


def network(x):
    return smooth(x) * jnp.sum(square(x, 2))


def test_gradients_are_those_of_the_function_custom_rules_included():
    expected = jax.grad(network)(X)
    for f in (jr.ranges(network), jax.jit(jr.ranges(network)), jr.ranges(jax.jit(network))):
        gradient, ranges = jax.grad(f, has_aux=True)(X)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)
        assert all(found.observed or "branch" in name for name, found in ranges.items())
    (value, _), gradient = jax.value_and_grad(jr.ranges(network), has_aux=True)(X)
    np.testing.assert_allclose((value, *gradient), (network(X), *expected), rtol=1e-6)
    assert jax.grad(lambda x: jr.ranges(cube)(x)[0])(2.0) == 100.0
    assert jax.grad(lambda x: jr.ranges(lambda x: square(x, 3))(x)[0])(2.0) == 1000.0
    assert jax.jvp(lambda x: jr.ranges(cube)(x)[0], (2.0,), (1.0,)) == (8.0, 100.0)


def test_ranges_have_no_gradient():
    def f(x):
        return jr.ranges(jnp.sin)(x)[1]["sin"].max

    np.testing.assert_array_equal(jax.grad(f)(X[0]), 0.0)


def test_it_composes_with_the_other_transformations():
    f, g = jr.ranges(smooth), smooth
    same_value = functools.partial(np.testing.assert_allclose, rtol=1e-6)
    same_value(jax.jit(f)(X)[0], g(X))
    same_value(jax.checkpoint(f)(X)[0], g(X))
    same_value(jax.vmap(f)(X[None] * jnp.ones((2, 1)))[0], [g(X)] * 2)
    same_value(jax.linearize(lambda x: f(x)[0], X)[1](X), jax.jvp(g, (X,), (X,))[1])
    same_value(jax.jvp(f, (X,), (X,))[1][0], jax.jvp(g, (X,), (X,))[1])
    same_value(lax.scan(lambda c, x: (c, f(x)[0]), 0.0, X[None])[1], [g(X)])
    assert jax.eval_shape(f, X)[0].shape == ()
    assert jax.make_jaxpr(f)(X).eqns
    compiled = jax.jit(f).lower(X).compile()
    same_value(compiled(X)[0], g(X))
    assert compiled(X)[1]["tanh"].observed


def test_ranges_of_transformed_functions():
    for f in (
        jax.grad(network),
        jax.jit(jax.value_and_grad(network)),
        jax.checkpoint(network),
        jax.vmap(jax.grad(lambda x: smooth(x * X))),
        lambda x: jax.jvp(smooth, (x,), (x,)),
        lambda x: jax.linearize(smooth, x)[1](x),
        lambda x: jax.jacfwd(smooth)(x),
        lambda x: jax.hessian(lambda x: jnp.sum(jnp.tanh(x) ** 2))(x),
    ):
        out, ranges = jr.ranges(f)(X)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), out, f(X))
        assert all(found.observed or "branch" in name for name, found in ranges.items())


def test_ranges_of_ranges():
    (out, inner), outer = jr.ranges(jr.ranges(jnp.sin))(X)
    same(out, jnp.sin(X))
    assert outer["sin"] == inner["sin"]


def test_vmap_gives_one_range_an_example_and_ranges_of_vmap_one_for_all():
    xs = jnp.array([1.0, 5.0, 30.0])

    def collatz(x):
        return lax.while_loop(lambda x: x < 40.0, lambda x: x * 2.0, x)

    each = jax.vmap(jr.ranges(collatz))(xs)[1]
    np.testing.assert_array_equal(each["while/body/mul"].min, [2.0, 10.0, 60.0])
    np.testing.assert_array_equal(each["while/body/mul"].max, [64.0, 40.0, 60.0])
    out, whole = jr.ranges(jax.vmap(collatz))(xs)
    same(out, jax.vmap(collatz)(xs))
    assert whole["vmap(while)/body/mul"].min == 2.0
    assert whole["vmap(while)/cond/lt"].observed


def test_vmap_with_axis_names_and_collectives():
    f = jr.ranges(lambda x: x / lax.psum(x, "batch"))
    out, ranges = jax.vmap(f, axis_name="batch")(X)
    np.testing.assert_allclose(out, X / X.sum())
    np.testing.assert_allclose(ranges["psum"].max, [1.0] * 3)


# -- loops ------------------------------------------------------------------------------------


def test_scan_iterations_merge_or_stack_nested_ones_too():
    def f(xs):
        def outer(c, x):
            return c + 1.0, lax.scan(lambda d, y: (d * y, d + y), c, x)[1]

        return lax.scan(outer, 0.0, xs)

    xs = jnp.arange(6.0).reshape(2, 3)
    _, merged = jr.ranges(f)(xs)
    _, stacked = jr.ranges(f, loops="stack")(xs)
    assert merged["scan/scan/add"].max.shape == ()
    assert stacked["scan/add"].max.shape == (2,)
    assert stacked["scan/scan/add"].max.shape == (2, 3)
    np.testing.assert_array_equal(stacked["scan/add"].max, [1.0, 2.0])
    np.testing.assert_array_equal(stacked["scan/scan/add"].max, [[0, 1, 2], [4, 7, 17]])
    assert {n: repr(r) for n, r in stacked.reduce().items()} == {
        n: repr(r) for n, r in merged.items()
    }


def test_loops_of_no_iterations_and_branches_not_taken_are_not_observed():
    def f(x):
        x = lax.scan(lambda c, v: (c + v, c * v), x[0], x[:0])[0]
        x = lax.while_loop(lambda x: x < -10.0, lambda x: x * 2.0, x)
        x = lax.fori_loop(0, 0, lambda i, x: x - 1.0, x)
        return lax.switch(1, [jnp.sin, jnp.cos, jnp.tanh], x)

    for run in (jr.ranges(f), jax.jit(jr.ranges(f))):
        _, ranges = run(X)
        seen = {name for name, found in ranges.items() if found.observed}
        assert {"while/cond/lt", "cond/branch_1/cos"} <= seen
        assert not seen & {"scan/add", "scan/mul", "while/body/mul", "cond/branch_0/sin"}
        assert repr(ranges["scan/add"]) == "Range(not observed)"
    assert jr.ranges(f, loops="stack")(X)[1]["scan/add"].min.shape == (0,)


def test_scan_goes_backwards_and_unrolled_as_before():
    def f(x):
        return lax.scan(lambda c, v: (c * 2 + v, c), 0.0, x, reverse=True, unroll=2)

    out, ranges = jr.ranges(f, loops="stack")(X)
    same(out, f(X))
    np.testing.assert_array_equal(ranges["scan/add"].max, jnp.array([5.5, 2.5, 2.0]))


# -- effects, refs, keys ----------------------------------------------------------------------


def effects_of(run):
    seen = []

    def f(x):
        jax.debug.callback(lambda v: seen.append(("debug", float(v))), x[0])
        y = jax.jit(
            lambda x: io_callback(note, jax.ShapeDtypeStruct((), x.dtype), x[0], ordered=True)
        )(x)

        def body(c, v):
            jax.debug.callback(lambda v: seen.append(("scan", float(v))), v, ordered=True)
            return c, v

        lax.scan(body, 0.0, x)
        lax.while_loop(lambda c: noted(c) < 2.0, lambda c: c + 1.0, 0.0)
        lax.cond(
            x[0] > 0, lambda: jax.debug.callback(lambda: seen.append(("taken", 0.0))), lambda: None
        )
        return cube_with_effect(x[0]) + y

    def note(v):
        seen.append(("io", float(v)))
        return np.float32(v)

    def noted(c):
        jax.debug.callback(lambda v: seen.append(("cond", float(v))), c, ordered=True)
        return c

    @jax.custom_jvp
    def cube_with_effect(x):
        jax.debug.callback(lambda v: seen.append(("rule", float(v))), x)
        return x**3

    cube_with_effect.defjvp(lambda p, t: (cube_with_effect(*p), t[0]))
    run(f)
    jax.effects_barrier()
    return sorted(seen), [s for s in seen if s[0] in ("io", "scan", "cond")]


def test_effects_happen_once_and_ordered_ones_in_order():
    expected = effects_of(lambda f: f(X))
    assert effects_of(lambda f: jr.ranges(f)(X)) == expected
    assert effects_of(lambda f: jax.jit(jr.ranges(f))(X)) == expected
    gradient = effects_of(lambda f: jax.grad(lambda x: cubed(f, x))(X))
    assert effects_of(lambda f: jax.grad(lambda x: cubed(jr.ranges(f), x))(X)) == gradient


def cubed(f, x):
    out = f(lax.stop_gradient(x))
    return (out[0] if isinstance(out, tuple) else out) * x[0]


def test_debug_print_prints(capfd):
    jr.ranges(lambda x: (jax.debug.print("x is {}", x[0]), jnp.sin(x))[1])(X)
    jax.effects_barrier()
    assert capfd.readouterr().out == "x is 0.5\n"


def test_refs_work_through_loops_and_branches():
    def f(x):
        ref = jax.new_ref(x)
        lax.fori_loop(0, 3, lambda i, c: (ref.__setitem__(i, ref[i] * 10.0), c)[1], 0)
        lax.cond(x[0] > 0, lambda: ref.__setitem__(0, -1.0), lambda: None)
        jax.jit(lambda r: r.__setitem__(1, 7.0))(ref)
        return ref[...]

    for run in (jr.ranges(f), jax.jit(jr.ranges(f))):
        out, ranges = run(X)
        same(out, f(X))
        assert (ranges["scan/mul"].min, ranges["scan/mul"].max) == (-15.0, 20.0)


def test_keys_are_not_sites_and_what_is_drawn_from_them_is():
    key = jax.random.key(0)
    out, ranges = jr.ranges(lambda key: jax.random.uniform(key, (5,)), inputs=True)(key)
    same(out, jax.random.uniform(key, (5,)))
    assert not any(jnp.issubdtype(site.dtype, jax.dtypes.extended) for site in ranges.sites)
    assert "input/key" not in ranges
    assert any(site.primitive == "random_bits" for site in ranges.sites)


# -- names ------------------------------------------------------------------------------------


def test_names_are_scopes_then_primitive_and_unique():
    def f(x):
        with jax.named_scope("block"):
            y = jax.jit(lambda x: jnp.sin(x), inline=False)(x)
            with jax.named_scope("inner"):
                y = jnp.sin(y) + jnp.sin(x)
        return lax.sort((y, x), num_keys=1)

    assert names(f, X) == [
        "block/jit(<lambda>)/sin",
        "block/inner/sin",
        "block/inner/sin.1",
        "block/inner/add",
        "sort",
        "sort[1]",
    ]


def test_a_scope_that_looks_like_a_numbered_name_gets_no_name_twice():
    def f(x):
        with jax.named_scope("a"):
            x = jnp.sin(jnp.sin(x))
        with jax.named_scope("a/sin.1"):
            x = jnp.cos(x)
        return jnp.sin(x)

    found = names(f, X)
    assert len(found) == len(set(found)) == 4


def test_backward_operations_are_marked_and_keep_their_scope():
    def loss(w):
        with jax.named_scope("layer"):
            return jnp.sum(jnp.tanh(w * X) ** 2)

    _, ranges = jr.ranges(jax.grad(loss))(X)
    backward = [site.name for site in ranges.sites if site.backward]
    assert backward
    assert all(name.startswith("transpose(jvp(layer))/") for name in backward)
    assert any(site.name == "jvp(layer)/tanh" and not site.backward for site in ranges.sites)


def test_names_do_not_depend_on_shapes_or_on_the_run():
    f = jax.grad(network)
    first = names(f, X)
    assert names(f, X) == first
    assert names(jax.vmap(network), jnp.ones((4, 3))) == names(jax.vmap(network), jnp.ones((2, 3)))


def test_sources_are_the_users_own_lines():
    _, ranges = jr.ranges(lambda x: jax.nn.softmax(x))(X)
    line = test_sources_are_the_users_own_lines.__code__.co_firstlineno + 1
    assert {site.source for site in ranges.sites} == {f"{__file__}:{line}"}


def test_operands_name_the_sites_inputs_and_constants_that_feed_a_site():
    const = jnp.arange(3.0)

    def f(params, x):
        y = jax.jit(lambda a: jnp.sin(a))(params["w"] * x)
        z = lax.scan(lambda c, v: (jnp.cos(c + v), c), x[0], y)[0]
        return lax.cond(z > 0, lambda: y + const, lambda: jnp.tanh(y))

    operands = {s.name: s.operands for s in jr.ranges(f)({"w": X}, X)[1].sites}
    assert operands["mul"] == ("input/params/w", "input/x")
    assert operands["jit(<lambda>)/sin"] == ("mul",)
    assert operands["scan/add"] == ("squeeze", "scan/cos", "jit(<lambda>)/sin")
    assert operands["scan/cos"] == ("scan/add",)
    assert operands["gt"] == ("scan/cos",)
    assert operands["cond/branch_1/add"] == ("jit(<lambda>)/sin", "const/0")


def test_inputs_and_captured_constants_on_request():
    const = jnp.array([[3.0, -4.0, np.nan]])

    def f(params, *rest, scale):
        return params["Dense_0"]["kernel"] * rest[1] * scale + const

    _, ranges = jr.ranges(f, inputs=True)({"Dense_0": {"kernel": X}}, X, 2 * X, scale=5.0)
    assert list(ranges)[:5] == [
        "input/params/Dense_0/kernel",
        "input/rest/0",
        "input/rest/1",
        "input/scale",
        "const/0",
    ]
    assert ranges["input/rest/1"].max == 4.0
    assert repr(ranges["const/0"]) == "Range(min=-4.0, max=3.0, nan=True)"
    assert [s.primitive for s in ranges.sites][3:5] == ["input", "const"]


@pytest.mark.parametrize("tool", TOOLS)
def test_captured_prng_keys_and_refs_are_no_sites(tool):
    key, ref = jax.random.key(0), jax.new_ref(X)

    def f(x):
        ref[...] = x
        return jax.random.uniform(key, x.shape) * ref[...]

    same(with_tool(tool, f, X)(X), f(X))


def test_constants_cost_nothing_in_the_program():
    weights = jnp.ones((512, 512))

    def f(x):
        return x @ weights.T[:, :3]

    plan = jr.plan(f, inputs=True)(jnp.ones((2, 512)))
    assert {row.site.name: row.how for row in plan.rows} == {
        "input/x": "measured",
        "const/0": "constant",
        "transpose": "constant",
        "slice": "measured",
        "dot_general": "measured",
    }
    assert jr.ranges(f, inputs=True)(jnp.ones((2, 512)))[1]["transpose"].max == 1.0


def test_constants_that_are_tracers_are_measured():
    @jax.jit
    def outer(w):
        return jr.ranges(lambda x: x * w.T, inputs=True)(X)[1]

    ranges = outer(3 * X)
    assert ranges["const/0"].max == 6.0


def test_closed_calls_run_in_line_under_one_name_in_every_release():
    program = jax.make_jaxpr(lambda x: jnp.sin(x) * 2.0)(X)

    def f(x):
        params = closed_call_p.get_bind_params({"call_jaxpr": program})
        return closed_call_p.bind(x, **params)[0]

    out, ranges = jr.ranges(f)(X)
    same(out, f(X))
    assert list(ranges) == ["closed_call/sin", "closed_call/mul"]


def test_run_state_runs_as_it_is():
    def f(x):
        def body(ref):
            ref[...] = jnp.sin(ref[...]) * 2.0

        return run_state(body)(x)

    out, ranges = jr.ranges(f)(X)
    same(out, f(X))
    assert list(ranges) == ["run_state"]


def test_composites_are_measured_inside():
    f = lax.composite(lambda x: jnp.sin(x) * 2.0, "my.sin")
    out, ranges = jr.ranges(f)(X)
    same(out, f(X))
    assert list(ranges) == ["composite(my.sin)/sin", "composite(my.sin)/mul"]
    assert ranges["composite(my.sin)/sin"].observed


def test_programs_inside_unknown_primitives_stay_closed_and_their_outputs_are_measured():
    def solve(b):
        def matvec(v):
            return 2.0 * v

        return lax.custom_linear_solve(matvec, b, lambda mv, b: b / 2.0, symmetric=True)

    out, ranges = jr.ranges(solve)(X)
    same(out, solve(X))
    assert list(ranges) == ["custom_linear_solve"]
    assert ranges["custom_linear_solve"].max == 1.0


# -- planning ---------------------------------------------------------------------------------


def test_a_plan_says_what_is_measured_what_follows_and_why():
    plan = jr.plan(lambda x: jnp.maximum(jnp.sin(x).T * 2.0, 0.0))(
        jax.ShapeDtypeStruct((2, 3), "float32")
    )
    rows = {row.site.name: (row.how, row.why, row.elements) for row in plan.rows}
    assert rows["sin"] == ("measured", "", 6)
    assert rows["transpose"] == ("derived", "sin: the same values", 0)
    assert rows["max"] == ("derived", "sin: mul 2.0, max 0.0", 0)
    assert plan.reductions == 1
    assert "4 sites: 1 measured, 3 derived" in repr(plan)


def test_only_what_the_selected_sites_need_is_reduced():
    def f(x):
        return jnp.cos(jnp.exp(x).reshape(3, 1))

    assert jr.plan(f)(X).reductions == 2
    assert jr.plan(f, select="reshape")(X).reductions == 1


def test_a_loop_in_which_nothing_is_measured_stays_as_it_is():
    def f(x):
        return jnp.sin(lax.scan(lambda c, v: (c * v, c), 1.0, x)[0])

    jaxpr = jax.make_jaxpr(jr.ranges(f, select="sin"))(X)
    (scan,) = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    assert len(scan.outvars) == 2


# -- errors -----------------------------------------------------------------------------------


def test_errors_say_what_was_given_and_what_to_do():
    with pytest.raises(
        TypeError, match=r"takes a function.*ranges\(f\)\(x\); got .* in the place of f"
    ):
        jr.ranges(X)
    with pytest.raises(
        ValueError, match=r"loops must be one of \('merge', 'stack'\), got 'unroll'"
    ):
        jr.ranges(jnp.sin, loops="unroll")
    with pytest.raises(TypeError, match=r"stats takes jr.Statistic objects such as jr.MinMax\(\)"):
        jr.ranges(jnp.sin, stats=["minmax"])
    with pytest.raises(TypeError, match=r"needs arrays; argument .* abstract.*jax.eval_shape"):
        jr.ranges(jnp.sin)(jax.ShapeDtypeStruct((3,), jnp.float32))


def test_errors_of_the_function_are_its_own():
    with pytest.raises(ZeroDivisionError, match="mine"):
        jr.ranges(lambda x: (_ for _ in ()).throw(ZeroDivisionError("mine")))(X)


def test_an_unsupported_jax_is_named():
    from jax_ranges import compat

    with pytest.raises(ImportError, match=r"needs jax >= 0.10.2, and jax 0.4.30 is installed"):
        compat.require_supported("0.4.30")
    for version in ("0.10.2", "0.12.0.1", "1.0.0", "0.13.0.dev20270101"):
        compat.require_supported(version)
