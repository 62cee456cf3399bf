"""Errors that operations introduce and inherit: against the slow way, laws, planted cases.

The golden table is made anew with `UPDATE_GOLDEN=1 pytest tests/test_shadow.py`.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jax_ranges as jr
from jax_ranges.pairs import ERRORS
from jax_ranges.report.tables import plain
from jax_ranges.statistics.errors import BEFORE, EXACT, INHERITED, LOCAL, TOTAL, Seen
from tests.programs import random_program
from tests.twins import to_dtype, twins

GOLDEN = Path(__file__).parent / "golden"
BF16 = np.dtype(ml_dtypes.bfloat16)


def rng():
    return np.random.default_rng(0)


X = jnp.asarray(rng().normal(size=(8, 4)), jnp.float32)
W = jnp.asarray(rng().normal(size=(4, 4)), jnp.float32)
C = np.asarray(rng().normal(size=4), np.float32)


# -- programs ---------------------------------------------------------------------------------


def mlp(x, w):
    h = jax.nn.gelu(x @ w + C)
    return h - h.mean(-1, keepdims=True), jnp.argmax(h)


def scanned(x, w):
    def step(carry, row):
        carry = jnp.tanh(carry @ w * 0.1 + row)
        return carry, carry.sum()

    return lax.scan(step, jnp.zeros(4), x)


def stacked_scans(x, w):
    def outer(carry, row):
        carry, ys = lax.scan(lambda c, y: (c * 0.7 + y, c - y), carry, row)
        return carry, ys * 1.3

    return lax.scan(outer, 0.3, x, reverse=True)


def halved(x, w):
    return lax.while_loop(lambda x: jnp.abs(x).max() > 0.1, lambda x: x * 0.7 - x**3 / 99, x) @ w


def counted(x, w):
    return lax.fori_loop(0, 4, lambda i, x: x * 1.1 + w[i], x)


def branched(x, w):
    return lax.cond(x.sum() > 0, lambda x: jnp.exp(x) @ w, lambda x: x @ w / 3, x)


def nested(x, w):
    @jax.jit
    def inner(x):
        return jax.jit(jnp.sin)(x * 3.0) + x

    return inner(x) @ inner(w)


def rematted(x, w):
    return jax.grad(lambda w: jax.checkpoint(lambda w: jnp.sin(jnp.sin(x @ w)))(w).sum())(w)


@jax.custom_jvp
def softplus(x):
    return jnp.log1p(jnp.exp(x))


softplus.defjvp(lambda p, t: (softplus(*p), t[0] * jax.nn.sigmoid(p[0]) * 0.9))


@jax.custom_vjp
def clipped(x):
    return jnp.exp(x) * 0.3


clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (jnp.clip(g, -0.3, 0.3) * jnp.cos(x),))


def custom(x, w):
    return softplus(x) @ clipped(w)


def gradients(x, w):
    return jax.grad(lambda x, w: jnp.sum(softplus(x) @ clipped(w)) ** 2, argnums=(0, 1))(x, w)


def mapped(x, w):
    return jax.vmap(lambda row: halved(row, w))(x)


PROGRAMS = [mlp, scanned, stacked_scans, halved, counted, branched, nested, rematted]
PROGRAMS += [custom, gradients, mapped]
every = pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)


def check(report, expected, loosely=False):
    """Each site's norms are those of the slow way; a last bit may decide on a rounding."""
    rows = [
        row for row in map(report.__getitem__, report) if row.primitive not in ("input", "const")
    ]
    assert len(rows) == len(expected)
    rel = 0.05 if loosely else 2e-3
    for row, norms in zip(rows, expected, strict=True):
        signal = max(norms.exact, norms.before, 1e-30)
        assert row.elements == norms.elements, row
        assert row.nonfinite == norms.lost, row
        if norms.lost or not norms.exact:
            continue
        close = functools.partial(pytest.approx, rel=rel, abs=1e-6 * signal / norms.exact)
        assert row.introduced * norms.before / norms.exact == close(
            norms.introduced / norms.exact
        ), row
        assert row.inherited == close(norms.inherited / norms.exact), (row, norms)
        assert row.total == close(norms.total / norms.exact), (row, norms)
        assert row.largest_total == pytest.approx(norms.largest, rel=rel, abs=1e-6 * signal), row


@every
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_a_shadow_is_two_runs_equation_by_equation(program, jitted):
    shadow = jr.shadow(program)
    out, report = (jax.jit(shadow) if jitted else shadow)(X, W)
    cast = to_dtype(BF16)
    outs, expected = twins(program, X, W, casts=lambda name: cast, everything=True)
    check(report, expected, loosely=True)
    for a, b in zip(jax.tree.leaves(out), outs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.02, atol=0.02)


ROUNDED = {"dot_general": "bfloat16", "mul": "float8_e5m2", "exp": "float16", "sin": "bfloat16"}


@every
def test_a_report_of_a_simulation_is_two_runs_too(program):
    recipe = jr.Recipe(ROUNDED | {"tanh": "bfloat16"})
    out, report = jr.simulate(program, recipe, report=True)(X, W)
    dtypes = {
        entry.sites: to_dtype(np.dtype(entry.rule.output.format.dtype)) for entry in recipe.entries
    }
    outs, expected = twins(program, X, W, casts=dtypes.get, everything=False)
    check(report, expected, loosely=True)
    for a, b in zip(jax.tree.leaves(out), outs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.05)


@every
def test_the_output_is_the_simulations_bit_for_bit(program):
    recipe = jr.Recipe(ROUNDED | {"tanh": "bfloat16"})
    out, _ = jr.simulate(program, recipe, report=True)(X, W)
    jax.tree.map(np.testing.assert_array_equal, out, jr.simulate(program, recipe)(X, W))


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 12))]
)
def test_random_programs(seed):
    program = random_program(seed, "smooth")
    with program.mode():
        shadow = jr.shadow(program.fun)
        out, report = shadow(*program.args)
        assert jax.tree.structure(out) == jax.tree.structure(program.fun(*program.args))
        cast = to_dtype(BF16)
        _, expected = twins(program.fun, *program.args, casts=lambda name: cast, everything=True)
        rows = [
            row
            for row in map(report.__getitem__, report)
            if row.primitive not in ("input", "const")
        ]
        assert [row.elements for row in rows] == [norms.elements for norms in expected]
        assert [row.nonfinite for row in rows] == [norms.lost for norms in expected]


# -- laws -------------------------------------------------------------------------------------


WITHOUT = {
    "float32": functools.partial(jr.shadow, low="float32"),
    "as it is": functools.partial(jr.shadow, low=None),
    "recipe": functools.partial(jr.simulate, recipe={"*": "float32"}, report=True),
}


@pytest.mark.parametrize("program", [mlp, branched, nested, rematted, custom, gradients])
@pytest.mark.parametrize("without", WITHOUT.values(), ids=WITHOUT)
def test_without_rounding_there_is_no_error(without, program):
    out, report = without(program)(X, W)
    assert [row for row in (*report.rows, *report.outputs) if row.introduced or row.total] == []
    assert report.worst() == ()
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), out, program(X, W))


@pytest.mark.parametrize("program", [mlp, scanned, halved, mapped])
def test_compiled_as_a_whole_two_equal_runs_may_differ_by_last_bits(program):
    """XLA fuses each in its own way. Even so nothing is introduced."""
    _, report = jax.jit(jr.shadow(program, low="float32"))(X, W)
    assert all(row.introduced == 0 and row.total < 1e-5 for row in (*report.rows, *report.outputs))


@pytest.mark.parametrize("site", ["dot_general", "mul", "tanh", "sub"])
def test_the_introduced_error_is_that_of_the_site_alone(site):
    """With the same inputs: rounding nowhere else gives the same inputs as no rounding at all."""
    alone = jr.Recipe({f"*{site}": "float8_e4m3fn"})
    _, report = jr.simulate(mlp, alone, report=True)(X, W)
    name = next(row.site for row in report.rows if row.introduced)
    assert report[name].inherited == 0
    assert report[name].introduced == report[name].total


def test_introduced_is_measured_on_the_rounded_runs_operands():
    """f(x) = x / 3 * 1.7, both rounded: the product's error is that of a run from the quotient."""
    x = jnp.asarray(rng().normal(size=1000), jnp.float32)
    _, report = jr.simulate(lambda x: (x / 3.0) * 1.7, {"*": "float8_e4m3fn"}, report=True)(x)
    rounded = jr.format_of("float8_e4m3fn").round
    quotient = rounded(rounded(np.asarray(x)) / np.float32(3))
    _, alone = jr.simulate(lambda q: q * 1.7, {"mul": "float8_e4m3fn"}, report=True)(quotient)
    assert alone["mul"].introduced == pytest.approx(report["mul"].introduced, rel=1e-6)
    assert alone["mul"].inherited == 0 < report["mul"].inherited


def test_batches_merge_to_one():
    f = jax.jit(jr.shadow(mlp))
    parts = [f(x, W)[1] for x in jnp.split(X, 4)]
    merged = functools.reduce(jr.ErrorReport.merge, parts)
    backwards = functools.reduce(jr.ErrorReport.merge, parts[::-1])
    _, whole = f(X, W)
    for name in ("dot_general", "add", "sub"):
        for field in ("introduced", "inherited", "total"):
            expected = pytest.approx(getattr(whole[name], field), rel=1e-5)
            assert getattr(merged[name], field) == expected
            assert getattr(backwards[name], field) == pytest.approx(getattr(merged[name], field))
        assert merged[name].elements == whole[name].elements
        # Products of fewer rows are summed up in another order.
        assert merged[name].largest_total == pytest.approx(whole[name].largest_total, rel=1e-4)
    assert merged.outputs[0].total == pytest.approx(whole.outputs[0].total, rel=1e-5)


def test_reports_of_other_programs_merge_by_name():
    _, a = jr.shadow(lambda x: jnp.exp(x))(X)
    _, b = jr.shadow(lambda x: jnp.exp(x) * 3.1)(X)
    assert set(a | b) == {"input/x", "exp", "mul"}
    assert (a | b)["exp"].elements == 2 * X.size
    with pytest.raises(TypeError, match="reports merge with reports; got int"):
        a.merge(3)


def test_reports_go_through_jit_scan_and_vmap():
    shadow = jr.shadow(lambda x: jnp.exp(x) * 3.1)

    @jax.jit
    def several(xs):
        first = shadow(xs[0])[1]
        return lax.scan(lambda seen, x: (seen | shadow(x)[1], None), first, xs[1:])[0]

    _, mapped = jax.vmap(shadow)(X)
    _, whole = shadow(X)
    for report in (several(X), mapped, mapped.reduce()):
        assert report["mul"].introduced == pytest.approx(whole["mul"].introduced, rel=1e-5)
        assert report["mul"].elements == X.size


# -- the statistic ----------------------------------------------------------------------------

NUMBERS = st.floats(width=32, allow_nan=True, allow_infinity=True)
TRIPLES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), max_size=7)


def measured(triples):
    arrays = np.array(triples, np.float32).reshape(-1, 3).T
    return ERRORS.measure(Seen(*map(jnp.asarray, arrays))), arrays.astype(np.float64)


@settings(max_examples=40)
@given(TRIPLES, TRIPLES)
def test_norms_of_any_numbers(first, second):
    states = [measured(first), measured(second)]
    merged = ERRORS.merge(*(state for state, _ in states))
    swapped = ERRORS.merge(*(state for state, _ in states[::-1]))
    jax.tree.map(np.testing.assert_array_equal, merged, swapped)
    found = ERRORS.read_state(merged, np.dtype(np.float32))
    exact, before, rounded = np.concatenate([arrays for _, arrays in states], 1)
    finite = [np.isfinite(x) for x in (exact, before, rounded)]
    ok = np.logical_and.reduce(finite)
    assert (found.elements, found.compared) == (exact.size, ok.sum())
    assert found.introduced == (finite[1] ^ finite[2]).sum()
    assert found.inherited == (finite[0] ^ finite[1]).sum()
    assert found.differing == (finite[0] ^ finite[2]).sum()
    e, b, r = (np.where(ok, x, 0) for x in (exact, before, rounded))
    for i, x in ((EXACT, e), (BEFORE, b), (LOCAL, r - b), (INHERITED, b - e), (TOTAL, r - e)):
        # Subnormals, and what is left of a difference below twice the smallest normal number.
        assert found.norms[i] == pytest.approx(np.linalg.norm(x), rel=1e-5, abs=1e-37)
        assert found.largest[i] == pytest.approx(np.abs(x).max(initial=0), rel=1e-6, abs=1e-37)


def test_nothing_is_the_identity():
    state, _ = measured([(1.0, 1.5, 1.25), (2.0, 2.0, math.inf)])
    for merged in (
        ERRORS.merge(state, ERRORS.identity(BF16)),
        ERRORS.merge(ERRORS.identity(BF16), state),
    ):
        jax.tree.map(np.testing.assert_array_equal, merged, state)


def test_many_merges_and_large_arrays_keep_the_promised_precision():
    x = rng().normal(size=1 << 17).astype(np.float32)
    low = x.astype(BF16).astype(np.float32)
    found = ERRORS.read_state(ERRORS.measure(Seen(x, x, low)), np.dtype(np.float32))
    expected = np.linalg.norm(low.astype(np.float64) - x)
    assert found.norms[LOCAL] == pytest.approx(expected, rel=(1024 + 128) * 2**-24)
    one = ERRORS.measure(Seen(jnp.ones(3), jnp.ones(3), jnp.full(3, 1.1)))
    total = lax.fori_loop(0, 100_000, lambda i, s: ERRORS.merge(s, one), one)
    read = ERRORS.read_state(total, np.dtype(np.float32))
    assert read.elements == 300_003
    error = 20 * math.log10(read.norms[LOCAL] / (math.sqrt(300_003) * (np.float32(1.1) - 1)))
    assert abs(error) < 0.03


def test_counts_go_beyond_32_bits():
    state = ERRORS.measure(Seen(*[jnp.ones(1 << 10)] * 3))
    for _ in range(23):
        state = ERRORS.merge(state, state)
    assert ERRORS.read_state(state, np.dtype(np.float32)).elements == 1 << 33


# -- planted cases ----------------------------------------------------------------------------


def test_a_variance_by_difference_of_squares_inherits_at_the_subtraction():
    def variance(x):
        return jnp.mean(x * x) - jnp.mean(x) ** 2

    x = 100 + jnp.asarray(rng().normal(size=1000), jnp.float32)
    _, report = jr.shadow(variance)(x)
    assert report.worst(1, by="inherited")[0].site == "sub"
    assert report["sub"].introduced < 0.004 < 0.9 < report["sub"].inherited
    assert report.outputs[0].total > 0.9


def test_softmax_without_subtracting_the_largest_overflows_at_exp():
    def softmax(x):
        e = jnp.exp(x)
        return e / e.sum()

    _, report = jr.shadow(softmax, low="float16")(jnp.array([1.0, 2.0, 12.0]))
    first = report.rows[0]
    assert (first.site, first.introduced, first.nonfinite_introduced) == ("exp", math.inf, 1)
    assert report["reduce_sum"].introduced == 0 and report["reduce_sum"].inherited == math.inf
    assert [row.site for row in report.worst()] == ["exp"]
    assert all(row.total < 0.01 for row in jr.shadow(jax.nn.softmax, low="float16")(X)[1].outputs)


def test_a_small_epsilon_is_nothing_in_float16():
    """A literal belongs to its operation."""
    _, report = jr.shadow(lambda x: x * 1e-8 * 1e3, low="float16")(jnp.ones(3))
    assert report["mul"].introduced == 1 and report["mul"].inherited == 0
    assert report["mul.1"].inherited == 1


def test_a_sum_in_bfloat16_stagnates():
    def added(x):
        return lax.fori_loop(0, x.size, lambda i, s: s + x[i], 0.0)

    x = jnp.full(10_000, 0.001)
    out, report = jax.jit(jr.shadow(added))(x)
    assert out == 0.25 or out == 0.5  # where half a step is more than what is added
    assert report.outputs[0].total > 0.9
    _, exactly = jr.shadow(jnp.sum)(x)
    assert exactly.outputs[0].total < 0.003


def test_sums_may_be_executed_in_the_low_dtype():
    x = jnp.full(10_000, 0.001)
    high, low = (
        jr.shadow(jnp.sum, accumulate=accumulate)(x)[1]["reduce_sum"].introduced
        for accumulate in ("high", "low")
    )
    assert high < 2**-8 < low
    low = lax.reduce_sum_p.bind(x.astype(BF16), axes=(0,), out_sharding=None)
    out, _ = jr.shadow(jnp.sum, accumulate="low")(x)
    assert out == low


def test_keeping_the_worst_operations_helps():
    def f(x):
        return jnp.exp(jnp.sin(x) * 9.1) / 7.3

    recipe = jr.Recipe({"mul": "float8_e4m3fn", "*": "bfloat16"})
    _, report = jr.simulate(f, recipe, report=True)(X)
    assert report.worst(1)[0].site == "mul"
    _, better = jr.simulate(f, report.keep(1) + recipe, report=True)(X)
    assert better["mul"].introduced == 0
    assert better.outputs[0].total < report.outputs[0].total / 4


# -- dtypes -----------------------------------------------------------------------------------


def test_a_program_in_bfloat16_beside_itself_in_float32():
    x = X.astype(BF16)
    for wrap in (lambda f: f, jax.jit):
        out, report = wrap(jr.shadow(lambda x: jnp.sin(x) * x, low=None))(x)
        assert out.dtype == BF16
        wide = np.asarray(x, np.float64)
        for row, factor in ((report["sin"], 1), (report["mul"], 1)):
            assert 2.0**-11 < row.introduced < 2.0**-8 * factor
        sin = np.sin(wide).astype(BF16).astype(np.float64)
        product = (sin * wide).astype(BF16).astype(np.float64)
        introduced = np.linalg.norm(product - sin * wide) / np.linalg.norm(sin * wide)
        assert report["mul"].introduced == pytest.approx(introduced, rel=0.02)


def test_mixed_precision_programs_and_their_casts():
    def f(x):
        return (x.astype(BF16) @ W.astype(BF16)).astype(jnp.float32) / 3

    _, report = jr.shadow(f, low=None)(X)
    casts = [row.site for row in report.rows if row.introduced > 1e-4]
    assert set(casts) == {"convert_element_type", "convert_element_type.1", "dot_general"}
    assert report["div"].introduced < 1e-7


def test_float64_beside_float32():
    with jax.enable_x64(True):
        x = jnp.linspace(0.1, 1, 50, dtype=jnp.float32)
        _, report = jr.shadow(lambda x: jnp.sum(jnp.exp(x) / 3), low=None, high="float64")(x)
        found = np.exp(np.asarray(x, np.float64))
        own = np.asarray(jnp.exp(x), np.float64)
        error = np.linalg.norm(own - found) / np.linalg.norm(found)
        assert report["exp"].introduced == pytest.approx(error, rel=1e-3)
        assert 0 < report["reduce_sum"].total < 1e-6
        _, loop = jr.shadow(scanned, high="float64")(X, W)
        assert 0 < loop["scan/tanh"].introduced < 2**-8


def test_scatters_custom_kernels_and_callbacks_compute_in_their_own_dtypes():
    def f(x):
        y = jnp.zeros(4, jnp.float32).at[jnp.array([0, 1, 0])].add(x[:3, 0])
        z = jax.pure_callback(np.sin, jax.ShapeDtypeStruct((4,), np.float32), y)
        return lax.bitcast_convert_type(z, jnp.int32), z

    with jax.enable_x64(True):
        (_, z), report = jr.shadow(f, high="float64")(X)
    assert z.dtype == np.float32
    assert 0 < report["pure_callback"].introduced < 2**-8


def test_integers_booleans_keys_and_complex_numbers():
    def f(x, key):
        noise = jax.random.normal(key, x.shape)
        z = lax.complex(x, noise) * 1.3
        return jnp.abs(z), x > 0, jnp.argmax(noise), jnp.fft.fft(x[:, 0])

    (out, *_), report = jr.shadow(f)(X, jax.random.key(0))
    assert out.dtype == np.float32
    assert report["gt"].total == 0 and report["gt"].elements == X.size
    assert 2**-11 < report["mul"].introduced < 2**-8
    assert report["complex"].elements == 2 * X.size
    assert [row.site for row in report.outputs] == [f"output/{i}" for i in range(4)]


def test_decisions_that_turn_out_otherwise_are_errors_of_what_decides():
    x = jnp.array([0.1, 0.1001])
    _, report = jr.shadow(lambda x: x[0] < x[1])(x)
    assert report["lt"].introduced == 0
    assert report["lt"].inherited == 1
    assert report.outputs[0].total == 1


# -- paths ------------------------------------------------------------------------------------


def test_both_runs_go_the_low_runs_way():
    x = jnp.float32(1.001)  # 1.0 in bfloat16
    out, report = jr.shadow(lambda x: lax.cond(x > 1, lambda x: x * 2, lambda x: x * 3, x))(x)
    assert out == 3
    assert not report["cond/branch_1/mul"].observed
    assert report["cond/branch_0/mul"].total == pytest.approx(0.001, rel=0.1)
    assert report.rows[-1].site == "cond/branch_1/mul"


def test_what_has_effects_happens_once(capfd):
    def f(x):
        jax.debug.print("saw {}", x[0, 0])
        y = jax.experimental.io_callback(np.sin, jax.ShapeDtypeStruct((), np.float32), x[0, 0])
        return x * y

    _, report = jax.jit(jr.shadow(f))(X)
    jax.effects_barrier()
    assert capfd.readouterr().out.count("saw") == 1
    assert report["io_callback"].inherited == 0


def test_references_hold_what_the_low_run_writes():
    def f(x):
        ref = jax.new_ref(x)
        ref[...] = ref[...] * 1.1
        return ref[...] * 3

    out, report = jax.jit(jr.shadow(f))(X)
    assert 0 < report["mul"].introduced < 2**-8
    np.testing.assert_allclose(out, X * 3.3, rtol=0.02)


def test_donated_arguments_and_jitted_functions():
    f = jax.jit(lambda x, n: x * n + 1.1, static_argnums=1, donate_argnums=0)
    x = jnp.array(X)
    out, report = jr.shadow(f)(x, 3)
    np.testing.assert_allclose(out, X * 3 + 1.1, rtol=0.02)
    assert "jit(<lambda>)/mul" in report


def test_a_report_is_not_differentiated():
    for wrapped in (jr.shadow(lambda x: softplus(x).sum()), jax.jit(jr.shadow(lambda x: x.sum()))):
        with pytest.raises(
            TypeError, match=r"cannot be differentiated.*jr.shadow\(jax.grad\(f\)\)"
        ):
            jax.grad(lambda x, wrapped=wrapped: wrapped(x)[0])(X)
    with pytest.raises(ValueError, match="straight_through=True is about gradients"):
        jr.simulate(mlp, {"*": "bfloat16"}, straight_through=True, report=True)


def test_the_backward_pass_is_marked():
    _, report = jr.shadow(jax.grad(lambda w: jnp.sum(jnp.sin(X @ w))))(W)
    assert {row.backward for row in report.rows} == {True, False}
    assert all(row.backward == ("transpose" in row.site) for row in report.rows)


def test_inside_shard_map_errors_are_of_all_devices():
    mesh = jax.make_mesh((jax.device_count(),), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")

    def inner(x):
        out, report = jr.shadow(lambda x: jnp.sin(x) * 1.1)(x)
        return out, report

    specs = (spec, jax.sharding.PartitionSpec())
    _, report = jax.jit(jax.shard_map(inner, mesh=mesh, in_specs=spec, out_specs=specs))(X)
    _, outside = jax.jit(
        jr.shadow(
            jax.shard_map(lambda x: jnp.sin(x) * 1.1, mesh=mesh, in_specs=spec, out_specs=spec)
        )
    )(X)
    _, alone = jr.shadow(lambda x: jnp.sin(x) * 1.1)(X)
    for found in (report["mul"], outside["shard_map/mul"]):
        assert found.introduced == pytest.approx(alone["mul"].introduced, rel=0.1)
        assert found.elements == X.size
    assert report.outputs[0].total == pytest.approx(alone.outputs[0].total, rel=0.1)


# -- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": "int8"}, "codes of int8 mean nothing without a scale.*report=True"),
        ({"low": "bfloat17"}, "no format 'bfloat17'; the nearest are 'bfloat16'"),
        ({"high": "bfloat16"}, r"high must be one of \('float32', 'float64'\), got 'bfloat16'"),
        ({"low": "float64"}, "low=float64 has more digits than high=float32"),
        ({"accumulate": "float32"}, r"accumulate must be one of \('high', 'low'\)"),
        ({"low": "float8_e5m2", "accumulate": "low"}, "sums are executed in float16 or bfloat16"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        jr.shadow(mlp, **arguments)


def test_bad_calls():
    with pytest.raises(TypeError, match="jr.shadow takes a function"):
        jr.shadow(3)
    with pytest.raises(ValueError, match="high='float64' needs JAX's 64-bit mode, and it is off"):
        jr.shadow(mlp, high="float64")(X, W)
    _, report = jr.shadow(jnp.exp)(X)
    with pytest.raises(jr.UnknownSiteError, match="no site 'exb'; the nearest are 'exp'"):
        report["exb"]
    with pytest.raises(ValueError, match="ranked by one of"):
        report.worst(by="local")


def test_a_program_without_floats_has_no_error():
    out, report = jr.shadow(lambda n: n + 1)(np.arange(3))
    assert out.tolist() == [1, 2, 3]
    assert report["add"].total == 0


# -- showing ----------------------------------------------------------------------------------


def small():
    def model(x):
        with jax.named_scope("attention"):
            e = jnp.exp(x * 3.1)
        y = lax.cond(x.sum() > 1e9, jnp.sin, lambda x: x, e)
        return {"y": y / y.sum(), "peak": jnp.max(x)}

    return jr.shadow(model, low="float16")(jnp.array([0.25, 1.5, 3.9]))[1]


def test_the_table_is_as_it_was():
    texts = [plain(small(), width) for width in (40, 80, 140)]
    text = "\n\n".join(texts) + "\n"
    text = re.sub(r"\S*test_shadow.py:\d+", "LINE", text)
    text = re.sub("─+", "───", text)
    file = GOLDEN / "errors.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()
    assert all(len(line) <= 80 for line in texts[1].splitlines())


def test_what_repr_says():
    report = small()
    assert repr(report).startswith("ErrorReport: ")
    _, clean = jr.shadow(jnp.sin, low="float32")(X)
    assert repr(clean) == "ErrorReport: 0 of 2 sites introduce error · 2 exact · output 0"

    @jax.jit
    def inside(x):
        report = jr.shadow(jnp.sin)(x)[1]
        assert repr(report) == "ErrorReport: 2 sites (traced)"
        with pytest.raises(ValueError, match="this report is traced"):
            _ = report.rows
        return report

    assert inside(X)["sin"].observed
    abstract = jax.eval_shape(inside, X)
    assert repr(abstract) == "ErrorReport: 2 sites (abstract)"


def test_json_has_no_infinities():
    found = json.loads(json.dumps(small().to_json(), allow_nan=False))
    assert found["rows"][0]["introduced"] == "inf"
    assert {row["site"] for row in found["outputs"]} == {"output/y", "output/peak"}
