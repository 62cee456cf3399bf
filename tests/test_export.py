"""Measured functions exported with symbolic shapes (`jax.export`), called with several sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import jax_ranges as jr
from tests.compare import assert_same_ranges
from tests.oracle import oracle
from tests.tools import STATS, TRACED, with_tool

(N,) = export.symbolic_shape("n")
SHAPE = jax.ShapeDtypeStruct((N, 4), jnp.float32)
BATCHES = [jax.random.normal(jax.random.key(size), (size, 4)) for size in (1, 5)]
WEIGHTS = jnp.linspace(-1.0, 1.0, 32).reshape(4, 8)
TABLE = jnp.arange(12.0).reshape(3, 4)


def layers(x):
    return jax.nn.softmax(jax.nn.relu(jnp.tanh(x @ WEIGHTS)) @ WEIGHTS.T)


def loops(x):
    def step(c, z):
        return jnp.sin(c + z), lax.cond(z[0] > 0, jnp.log, lambda z: 2 * z, z)

    c, ys = lax.scan(step, jnp.zeros(4), x, reverse=True)
    return ys, lax.while_loop(lambda c: c[0] < 9, lambda c: c + jnp.abs(x).sum(0) + 1, c)


def moved(x):
    n = x.shape[0]
    reshaped = x.T.reshape(-1), x.reshape(2 * n, 2), jnp.concatenate([x, x + 1])
    return reshaped, jnp.cumsum(x, 0), jnp.sort(x, 0), -x


def sized(x):
    """Programs that compute sizes, and take slices by them."""
    c = lax.fori_loop(0, x.shape[0], lambda i, c: jnp.sin(c + x[i]), x[0])
    return c, x.mean(), jnp.var(x, 0), TABLE[: x.shape[0]] * 2, x[1:] * 3, jnp.arange(x.shape[0])


def mapped(x):
    rows = jax.vmap(lambda r: lax.cond(r[0] > 0, jnp.sin, jnp.cos, r))(x)
    return rows, jax.vmap(lambda r: lax.while_loop(lambda r: r[0] < 1, lambda r: r + 1, r))(x)


def differentiated(x):
    def loss(x):
        return jnp.square(layers(x)).sum() + lax.scan(lambda c, z: (c * z.sum(), z), 1.0, x)[0]

    return jax.grad(loss)(x)


def other_types(x):
    i = (10 * x).astype(jnp.int32)
    return i.sum(), i > 0, x + 1j * x, x.astype(jnp.bfloat16).astype(jnp.float8_e4m3fn), i // 3


SAME_PROGRAM = (layers, loops, moved, mapped, other_types)
"""Those that are traced to the same operations whether or not sizes are known."""

FUNS = (*SAME_PROGRAM, sized, differentiated)


def exported(f):
    return export.export(jax.jit(f))(SHAPE)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a.astype(complex), b.astype(complex), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["merge", "stack"])
@pytest.mark.parametrize("f", SAME_PROGRAM)
def test_ranges_are_those_of_the_oracle_for_every_size(f, mode):
    measured = exported(jr.ranges(f, loops=mode))
    for x in BATCHES:
        out, ranges = measured.call(x)
        leaves, sites = oracle(f, x, loops=mode)
        assert_same(jax.tree.leaves(out), list(map(jnp.asarray, leaves)))
        assert_same_ranges(ranges, sites, rtol=1e-5, sizes={"n": len(x)})


@pytest.mark.parametrize(("f", "primitive"), [(sized, "sin"), (differentiated, "tanh")])
def test_sites_are_those_of_the_same_scopes_and_primitives(f, primitive):
    """Of a symbolic size a program computes what is known of a number: it has more sites."""
    x = BATCHES[1]
    measured = jr.ranges(f, select=primitive, inputs=True)
    (_, ranges), (_, expected) = exported(measured).call(x), jax.jit(measured)(x)
    assert [(r.observed, r.nan) for r in ranges.values()] == [
        (r.observed, r.nan) for r in expected.values()
    ]
    for a, b in zip(ranges.values(), expected.values(), strict=True):
        np.testing.assert_allclose([a.min, a.max], [b.min, b.max], rtol=1e-5)


def assert_same_state(a, b):
    for field in type(b).__dataclass_fields__ if hasattr(type(b), "__dataclass_fields__") else ():
        assert_same(*(jnp.asarray(getattr(each, field), float) for each in (a, b)))


@pytest.mark.parametrize("stat", STATS[:-1], ids=lambda stat: type(stat).__name__)
@pytest.mark.parametrize("mode", ["merge", pytest.param("stack", marks=pytest.mark.slow)])
def test_every_statistic(stat, mode):
    def f(x):
        return lax.scan(lambda c, z: (jnp.sin(c + z), jnp.log(z)), jnp.zeros(4), x)

    measured = jr.ranges(f, stats=stat, inputs=True, loops=mode)
    program = exported(measured)
    for x in BATCHES:
        _, found = program.call(x)
        _, expected = jax.jit(measured)(x)
        assert list(found) == list(expected)
        for name in found:
            assert_same_state(found.of(name, stat), expected.of(name, stat))


def test_channels_are_told_apart_where_their_number_is_known():
    for stat, name, count in (
        (jr.PerChannel(-1), "dot_general", 8),
        (jr.PerChannel(0), "dot_general", 1),
        (jr.PerChannel(-1, block=2), "dot_general", 1),
        (jr.PerChannel(-1), "mul", 1),
    ):
        _, ranges = exported(jr.ranges(lambda x: (x @ WEIGHTS, x.T * 2), stats=stat)).call(
            BATCHES[1]
        )
        assert np.shape(ranges.of(name, stat).min) == (count,)


@pytest.mark.parametrize("tool", TRACED)
@pytest.mark.parametrize(
    "f", [pytest.param(f, marks=() if f is sized else pytest.mark.slow) for f in FUNS]
)
def test_every_tool_returns_what_the_function_does(f, tool):
    plain, made = exported(f), exported(with_tool(tool, f, BATCHES[1]))
    for x in BATCHES:
        assert_same(made.call(x), plain.call(x))


def test_findings_are_returned():
    x = BATCHES[1]
    _, report = exported(jr.find_nonfinite(lambda x: jnp.log(x)[:, 0].sum())).call(x)
    assert [(birth.site.name, birth.kind) for birth in report.births] == [("log", "nan")]
    assert report.births[0].count == int((x < 0).sum())
    measured = jr.shadow(layers, low="float8_e5m2")
    (_, errors), (_, same) = exported(measured).call(x), measured(x)
    assert {row.site for row in errors.rows} == {row.site for row in same.rows}
    assert errors.worst(1)[0].introduced == pytest.approx(same.worst(1)[0].introduced, rel=1e-4)
    _, expected = jr.ranges(layers)(x)
    _, violations = exported(jr.guard(layers, expected)).call(3 * x)
    assert {row.site.name for row in violations.rows} >= {"dot_general"}


@pytest.mark.parametrize(
    "fmt", ["mxfp8_e4m3", *(pytest.param(f, marks=pytest.mark.slow) for f in ("int8", "int4"))]
)
def test_values_are_rounded_as_they_are_without_symbols(fmt):
    low = jr.simulate(lambda x: jnp.tanh(x @ WEIGHTS).T, {"*": fmt}, straight_through=True)
    for f in (low, jax.grad(lambda x: low(x).sum())):
        for x in BATCHES[:2]:
            assert_same(exported(f).call(x), jax.jit(f)(x))


def test_products_run_on_codes_where_it_is_known_that_their_sums_fit():
    def f(x):
        return x @ WEIGHTS, x.T @ x

    low = jr.quantize(f, {"dot_general": ("int8", "int8"), "dot_general.1": ("int8", "int8")})
    assert_same(exported(low).call(BATCHES[1]), jax.jit(low)(BATCHES[1]))
    text = str(low.plan(SHAPE))
    assert "2 products, 1 on codes" in text
    assert "how many products are in each sum is not known" in text


@pytest.mark.parametrize(
    "f", [pytest.param(f, marks=() if f in (layers, sized) else pytest.mark.slow) for f in FUNS]
)
def test_bounds_hold_for_every_size(f):
    found = jr.bounds(f, bounds={"x": (-4.0, 4.0)})(SHAPE)
    measured = exported(jr.ranges(f))
    for x in BATCHES:
        _, ranges = measured.call(jnp.clip(x, -4.0, 4.0))
        assert list(found) == list(ranges)
        for name, r in ranges.items():
            assert not r.observed or found[name].holds(r.min, r.max, r.nan), name


def test_reports_and_files_say_the_symbols(tmp_path):
    _, ranges = exported(jr.ranges(moved)).call(BATCHES[1])
    shapes = {site.name: site.shape for site in ranges.sites}
    assert shapes["reshape"] == ("4*n",)
    assert shapes["neg"] == ("n", 4)
    assert "[n,4]" in str(ranges)
    assert "4*n" in str(jr.plan(moved)(SHAPE))
    for ending in ("json", "csv"):
        ranges.save(tmp_path / f"r.{ending}")
        again = jr.load(tmp_path / f"r.{ending}")
        assert {site.name: site.shape for site in again.sites} == shapes
    assert again | ranges
    (tmp_path / "r.json").write_text((tmp_path / "r.json").read_text().replace('"n"', '"n;"'))
    with pytest.raises(ValueError, match=r"'n;' is no size of an axis"):
        jr.load(tmp_path / "r.json")


def test_transformed_outside():
    for f in (
        jax.vmap(jr.ranges(jnp.sin)),
        lambda x: lax.scan(lambda c, z: (c, jr.ranges(jnp.sin)(z)), 0, x)[1],
    ):
        for x in BATCHES:
            found = exported(f).call(x)
            ranges = found[1]
            np.testing.assert_allclose(ranges["sin"].max, np.sin(x).max(1), rtol=1e-6)
