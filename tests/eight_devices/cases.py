"""Ranges on many devices are those of one: jit with shardings, shard_map, pmap.

Not collected by a plain `pytest`: `tests/test_eight_devices.py` runs it with eight devices.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_ranges as jr
from tests import meshes
from tests.tools import STATS

assert jax.device_count() == 8, "run by tests/test_eight_devices.py"

MESH = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
X = jnp.arange(64.0).reshape(16, 4) / 7 - 3


def close(ranges, expected, rtol=1e-6):
    """Same sites, same ranges, up to what a sum over shards may round differently."""
    assert list(ranges) == list(expected)
    for name in ranges:
        got, want = ranges[name], expected[name]
        assert got.observed == want.observed, name
        assert got.nan == want.nan, name
        np.testing.assert_allclose(got.min, want.min, rtol=rtol, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(got.max, want.max, rtol=rtol, atol=1e-6, err_msg=name)


# -- jit over sharded arrays ------------------------------------------------------------------


def network(params, x):
    for w in params:
        x = jnp.tanh(x @ w) + jax.nn.relu(x)
        x = x - x.mean(-1, keepdims=True)
    y = lax.scan(lambda c, v: (c + v, jnp.sin(v)), x[0], x)[1]
    return jnp.log(y)  # NaN on some devices only


def params(depth):
    return [jnp.eye(4) * (i + 1) / 2 for i in range(depth)]


@pytest.mark.parametrize("spec", [P("a"), P(("a", "b")), P(None, "b"), P("a", "b"), P()], ids=str)
def test_sharded_inputs_give_the_ranges_of_one_device(spec):
    expected = jax.jit(jr.ranges(network, inputs=True))(params(3), X)[1]
    sharded = jax.device_put(X, NamedSharding(MESH, spec))
    weights = jax.device_put(params(3), NamedSharding(MESH, P()))
    out, ranges = jax.jit(jr.ranges(network, inputs=True))(weights, sharded)
    close(ranges, expected)
    plain = jax.jit(network)(weights, sharded)
    np.testing.assert_allclose(out, plain, rtol=1e-6)
    assert out.sharding.is_equivalent_to(plain.sharding, out.ndim)
    assert ranges["log"].nan


def test_shardings_of_inner_jits_survive():
    sharding = NamedSharding(MESH, P("a", "b"))
    inner = jax.jit(lambda x: x * 2.0, in_shardings=sharding, out_shardings=sharding)
    out, ranges = jax.jit(jr.ranges(lambda x: inner(x)))(X)
    assert out.sharding.is_equivalent_to(sharding, 2)
    assert ranges["jit(<lambda>)/mul"].max == 2 * X.max()


def collectives(fun, *args):
    text = jax.jit(fun).lower(*args).compile().as_text()
    return len(re.findall(r"= .*? (?:all-reduce|all-gather|all-to-all|collective-permute)\(", text))


def chain(params, x):
    for w in params:
        x = jnp.tanh(x @ w)
    return x


def test_observing_adds_a_few_collectives_however_many_sites_there_are():
    extra = []
    for depth in (4, 16):
        args = params(depth), jax.device_put(X, NamedSharding(MESH, P(("a", "b"))))
        extra.append(collectives(jr.ranges(chain), *args) - collectives(chain, *args))
    print("collectives added at 8 and at 32 sites:", extra)
    assert extra[0] == extra[1] <= 3


# -- shard_map --------------------------------------------------------------------------------


def shard_program(check, axes):
    """What the shards run: all kinds of control flow, and collectives of its own."""

    def inner(x):
        y = jnp.sin(x) * 2
        y = y + lax.psum(y, "a")
        start = lax.pcast(jnp.float32(0), tuple(axes), to="varying") if check else jnp.float32(0)
        z, _ = lax.scan(lambda c, t: (c + jnp.cos(t).sum(), c), start, y)
        w = lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (0, y))[1]
        w = lax.cond(z > 0, lambda w: w + 1, lambda w: w - 1, w)
        return jax.nn.relu(jax.jit(jnp.exp)(w))

    return inner


CASES = [(check, axes) for check in (True, False) for axes in ({"a", "b"}, {"a"})]


def spec_of(axes):
    return P("a", "b") if len(axes) == 2 else P("a")


@pytest.mark.parametrize(("check", "axes"), CASES, ids=str)
def test_ranges_of_shard_map_are_global(check, axes):
    inner = shard_program(check, axes)
    f = jax.shard_map(
        inner,
        mesh=MESH,
        in_specs=spec_of(axes),
        out_specs=spec_of(axes),
        check_vma=check,
        axis_names=axes,
    )
    out, ranges = jax.jit(jr.ranges(f))(X)
    np.testing.assert_allclose(out, jax.jit(f)(X), rtol=1e-6)
    np.testing.assert_allclose(ranges["shard_map/sin"].min, jnp.sin(X).min(), rtol=1e-6)
    np.testing.assert_allclose(ranges["shard_map/sin"].max, jnp.sin(X).max(), rtol=1e-6)
    np.testing.assert_allclose(ranges["shard_map/jit(exp)/exp"].max, out.max(), rtol=1e-6)
    assert {n: r.observed for n, r in ranges.items() if "while" in n} == {
        n: True for n in ranges if "while" in n
    }


@pytest.mark.parametrize(("check", "axes"), CASES, ids=str)
def test_ranges_inside_shard_map_are_global_and_the_same_on_every_device(check, axes):
    inner = shard_program(check, axes)
    options = {"mesh": MESH, "check_vma": check, "axis_names": axes, "in_specs": spec_of(axes)}
    outside = jr.ranges(jax.shard_map(inner, out_specs=spec_of(axes), **options))
    inside = jax.shard_map(jr.ranges(inner), out_specs=(spec_of(axes), P()), **options)
    expected = jax.jit(outside)(X)[1]
    ranges = jax.jit(inside)(X)[1]
    assert len(ranges) == len(expected)
    for name, found in ranges.items():
        assert found == expected[f"shard_map/{name}"]


def test_shard_map_adds_a_few_collectives_however_many_sites_there_are():
    def deep(depth):
        def inner(x):
            for _ in range(depth):
                x = jnp.sin(x)
            return x

        return jax.shard_map(inner, mesh=MESH, in_specs=P("a", "b"), out_specs=P("a", "b"))

    extra = [collectives(jr.ranges(deep(depth)), X) for depth in (3, 30)]
    print("collectives added in shard_map at 3 and at 30 sites:", extra)
    assert extra[0] == extra[1] <= 3


def test_gradients_through_shard_map_are_unchanged():
    inner = shard_program(True, {"a", "b"})
    f = jax.shard_map(
        lambda x: inner(lax.stop_gradient(x)) * jnp.tanh(x),
        mesh=MESH,
        in_specs=P("a", "b"),
        out_specs=P("a", "b"),
    )
    expected = jax.jit(jax.grad(lambda x: f(x).sum()))(X)
    measured = jax.jit(jax.grad(lambda x: jr.ranges(f)(x)[0].sum()))(X)
    np.testing.assert_allclose(measured, expected, rtol=1e-6)
    out, ranges = jax.jit(jr.ranges(jax.grad(lambda x: f(x).sum())))(X)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert any(site.backward for site in ranges.sites)


def test_statistics_of_ones_own_are_merged_over_devices():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Count(jr.Statistic):
        def identity(self, dtype):
            return np.zeros((), np.int32)

        def measure(self, value):
            return jnp.int32(value.size)

        def merge(self, a, b):
            return a + b

    f = jax.shard_map(jnp.sin, mesh=MESH, in_specs=P("a", "b"), out_specs=P("a", "b"))
    ranges = jax.jit(jr.ranges(f, stats=(Count(),)))(X)[1]
    assert ranges.state("shard_map/sin", Count()) == X.size


# -- pmap and explicit sharding ---------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_pmap_gives_the_ranges_of_one_device():
    def f(x):
        return jnp.sin(x) * lax.psum(x, "i")

    xs = X.reshape(8, 8)
    out, ranges = jr.ranges(jax.pmap(f, axis_name="i"))(xs)
    np.testing.assert_allclose(out, jax.pmap(f, axis_name="i")(xs), rtol=1e-6)
    expected = jr.ranges(jax.vmap(f, axis_name="i"))(xs)[1]
    for site in ranges.sites:
        if site.primitive in ("sin", "psum", "mul"):
            (want,) = [expected[s.name] for s in expected.sites if s.primitive == site.primitive]
            np.testing.assert_allclose(ranges[site.name].min, want.min, rtol=1e-6)
            np.testing.assert_allclose(ranges[site.name].max, want.max, rtol=1e-6)
    inside = jax.pmap(jr.ranges(f), axis_name="i")(xs)[1]
    np.testing.assert_allclose(inside["sin"].max, [jnp.sin(X).max()] * 8, rtol=1e-6)


def test_explicit_sharding_types_work():
    mesh = jax.make_mesh((8,), ("d",))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, P("d")))

        def f(x):
            return jnp.tanh(x @ jnp.ones((4, 4))).sum(1)

        out, ranges = jax.jit(jr.ranges(f, inputs=True))(x)
        np.testing.assert_allclose(out, jax.jit(f)(x), rtol=1e-6)
        assert jax.typeof(out).sharding == jax.typeof(jax.jit(f)(x)).sharding
        assert ranges["input/x"].max == X.max()
        np.testing.assert_allclose(
            ranges["tanh"].max, jnp.tanh(X @ jnp.ones((4, 4))).max(), rtol=1e-6
        )


# -- nets -------------------------------------------------------------------------------------


def compilations(net):
    return [program.step._cache_size() for program in net._recorder._programs]


W = jnp.ones((4, 6)) / 3
SHARDED = NamedSharding(MESH, P("a"))
CASES = {
    "sharded arguments": (lambda w, x: x @ w, (W, jax.device_put(X, SHARDED))),
    "one other device": (lambda w, x: x @ w, jax.device_put((W, X), jax.devices()[3])),
    "in_shardings": (
        jax.jit(lambda w, x: x @ w, in_shardings=(None, SHARDED)),
        (np.asarray(W), np.asarray(X)),
    ),
    "shard_map": (
        jax.shard_map(lambda x: lax.psum(x, "a"), mesh=MESH, in_specs=P("a"), out_specs=P()),
        (np.asarray(X),),
    ),
    "constraint": (
        lambda x: lax.with_sharding_constraint(x * x, SHARDED),
        (np.asarray(X),),
    ),
    "numpy": (lambda w, x: x @ w, (np.asarray(W), np.asarray(X))),
}


@pytest.mark.parametrize("case", CASES)
def test_a_net_compiles_once_and_places_outputs_as_the_function_does(case):
    function, args = CASES[case]
    net = jr.Net(function)
    plain = jax.jit(function)(*args)
    for _ in range(3):
        out = net(*args)
    assert compilations(net) == [1]
    np.testing.assert_allclose(out, plain, rtol=1e-6)
    assert out.sharding.is_equivalent_to(plain.sharding, out.ndim)
    close(net.get_info(), jr.ranges(function)(*args)[1])


def test_a_net_called_with_other_placements_accumulates_into_the_same_names():
    net = jr.Net(lambda x: x * x)
    for args in (X, jax.device_put(2 * X, SHARDED), jax.device_put(3 * X, jax.devices()[5])):
        net(args)
    assert net.get_info()["mul"].max == (9 * X * X).max()


def test_a_net_follows_its_arrays_to_and_fro():
    net = jr.Net(lambda x: x * x)
    here, there = jax.devices()[3], jax.devices()[5]
    for n, place in enumerate((here, there, here, here, SHARDED, there, SHARDED), 1):
        x = jax.device_put(n * X, place)
        assert net(x).sharding.is_equivalent_to(x.sharding, x.ndim)
        assert net.get_info()["mul"].max == (n * n * X * X).max()
    assert compilations(net) == [1, 1, 1]


# -- other statistics -------------------------------------------------------------------------

EVERY = (
    *(jr.MinMax(), jr.Exponents(), jr.Histogram(16), jr.Moments(), jr.Health(), jr.AbsMax()),
    *(jr.PerChannel(-1), jr.PerChannel(-1, jr.Histogram(8))),
)


def assert_same_statistics(ranges, name, expected, of):
    for stat in EVERY:
        got, want = ranges.of(name, stat), expected.of(of, stat)
        for field, value in vars(got).items():
            np.testing.assert_allclose(value, getattr(want, field), rtol=1e-5, err_msg=repr(stat))


def waves(x):
    y = jnp.sin(x) * 9 * x
    return lax.scan(lambda c, row: (c + row * 2, None), 0 * y[0], y)[0][None]


@pytest.mark.parametrize("check_vma", [True, False])
def test_statistics_of_shards_are_merged_over_devices(check_vma):
    sharded = jax.shard_map(
        waves, mesh=MESH, in_specs=P("a"), out_specs=P("a"), check_vma=check_vma, axis_names={"a"}
    )
    _, ranges = jax.jit(jr.ranges(sharded, stats=EVERY))(X)
    _, expected = jr.ranges(waves, stats=EVERY)(X)
    for name in ("sin", "mul.1", "scan/mul"):
        assert_same_statistics(ranges, f"shard_map/{name}", expected, name)


@pytest.mark.parametrize("stat", EVERY, ids=repr)
def test_statistics_of_sharded_arrays_gather_nothing(stat):
    x = jax.device_put(X, NamedSharding(MESH, P("a")))
    compiled = jax.jit(jr.ranges(jnp.sin, stats=stat)).lower(x).compile()
    assert "all-gather" not in compiled.as_text()
    _, expected = jr.ranges(jnp.sin, stats=EVERY)(X)
    got, want = compiled(x)[1].of("sin", stat), expected.of("sin", stat)
    for field, value in vars(got).items():
        np.testing.assert_allclose(value, getattr(want, field), rtol=1e-5)


# -- low precision ----------------------------------------------------------------------------

INT8 = jr.QParams(np.float32(0.05), np.int32(-3), -128, 127, jr.format_of("int8"))
LOW = {"dot_general": (INT8, jr.Dynamic("int8", channels=True))}


@pytest.mark.parametrize("spec", [P(), P("a", None), P(None, "b"), P("b", "a")], ids=str)
def test_prepared_weights_stay_where_they_were(spec):
    weights = [jnp.sin(jnp.arange(64.0)).reshape(8, 8) + i for i in range(2)]
    x = jnp.cos(jnp.arange(128.0)).reshape(16, 8)
    low = jr.quantize(chain, LOW)
    expected = jax.jit(low)(weights, x)
    placed = jax.device_put(weights, NamedSharding(MESH, spec))
    (codes, _), _ = low.prepare(placed, x)
    for leaf in codes:
        assert leaf.codes.sharding.is_equivalent_to(NamedSharding(MESH, spec), 2)
    batch = jax.device_put(x, NamedSharding(MESH, P("a")))
    got = jax.jit(low)(codes, batch)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    plain = jax.jit(chain)(placed, batch)
    assert got.sharding.is_equivalent_to(plain.sharding, 2)


@pytest.mark.parametrize("check_vma", [True, False])
def test_products_inside_shard_map_are_of_codes(check_vma):
    weights = [jnp.sin(jnp.arange(64.0)).reshape(8, 8) + i for i in range(2)]
    x = jnp.cos(jnp.arange(128.0)).reshape(16, 8)

    def mapped(fun):
        return jax.shard_map(
            fun, mesh=MESH, in_specs=(P(), P("a")), out_specs=P("a"), check_vma=check_vma
        )

    expected = jax.jit(jr.simulate(chain, LOW))(weights, x)
    low = jr.quantize(chain, LOW)
    (codes, _), _ = low.prepare(weights, x)
    for fun, params in [
        (jr.quantize(mapped(chain), LOW), weights),
        (mapped(low), weights),
        (mapped(low), codes),
        (mapped(jr.quantize(lambda _, x: chain(weights, x), LOW)), weights),
        (jr.quantize(mapped(lambda _, x: chain(weights, x)), LOW), weights),
    ]:
        np.testing.assert_allclose(jax.jit(fun)(params, x), expected, rtol=1e-5, atol=1e-6)
        assert "i8[8,8]" in str(jax.make_jaxpr(fun)(params, x))


# -- the host's memory ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stat", "kind"),
    [
        *((stat, AxisType.Auto) for stat in (jr.MinMax(), jr.Exponents(), jr.PerChannel())),
        (jr.MinMax(), AxisType.Explicit),
    ],
    ids=str,
)
def test_offloaded_parameters_are_measured_where_they_are_computed_with(stat, kind):
    mesh = jax.make_mesh((8,), ("a",), axis_types=(kind,))
    there = NamedSharding(mesh, P(None, "a"), memory_kind="pinned_host")
    here = there.with_memory_kind("device")

    def f(x, w):
        def body(c, w):
            return jnp.sin(c * jax.device_put(w, here.update(spec=P("a")))), None

        y, _ = lax.scan(body, x, w)
        return y, jax.device_put(jax.device_put(w, here) * 2, there), w + 1

    x = jax.device_put(X, NamedSharding(mesh, P("a")))
    weights = jnp.stack([X, X + 1])
    expected = jax.jit(jr.ranges(f, stats=stat, inputs=True))(x, jax.device_put(weights, here))[1]
    measured = jax.jit(jr.ranges(f, stats=stat, inputs=True))
    out, ranges = measured(x, jax.device_put(weights, there))
    plain = jax.jit(f)(x, jax.device_put(weights, there))
    assert [y.sharding for y in out] == [y.sharding for y in plain]
    assert list(ranges) == list(expected)
    for name in ranges:
        assert str(ranges.of(name, stat)) == str(expected.of(name, stat)), name
    net = jr.Net(f, stats=stat)
    for _ in range(2):
        out = net(x, jax.device_put(weights, there))
    assert [y.sharding for y in out] == [y.sharding for y in plain]


# -- meshes of every kind ---------------------------------------------------------------------

# Where the code runs once a device, what each sees depends on how many there are.
SHARED = [name for name in meshes.PROGRAMS if "manual" not in name]


@pytest.mark.parametrize(("name", "way"), meshes.in_turn())
def test_a_program_on_a_mesh_returns_what_it_does_unobserved(name, way):
    meshes.check(name, way, (2, 4))


@pytest.mark.parametrize("name", SHARED[::3])
def test_on_a_mesh_of_eight_devices_are_the_ranges_of_one(name):
    close(meshes.ranges_on(name, (2, 4)), meshes.ranges_on(name, (1, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["unreduced_inside", pytest.param("elementwise", marks=pytest.mark.slow)]
)
def test_on_a_mesh_of_eight_devices_is_every_statistic_what_it_is_on_one(name):
    got, want = (meshes.ranges_on(name, sizes, STATS) for sizes in ((2, 4), (1, 1)))
    for site in want.sites:
        for stat in STATS:
            ours, theirs = got.of(site.name, stat), want.of(site.name, stat)
            for field, value in getattr(theirs, "__dict__", {}).items():
                found = getattr(ours, field)
                np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-4, err_msg=site.name)


def test_the_range_of_parts_of_a_sum_is_that_of_the_sum():
    ranges = meshes.ranges_on("parts_of_sums", (2, 4))
    sums = 2 * np.sin(meshes.VALUES).reshape(8, 4, 1).sum(1)
    np.testing.assert_allclose(ranges["shard_map/add"].max, sums.max(), rtol=1e-5)
    np.testing.assert_allclose(ranges["shard_map/unreduced_psum"].min, sums.min(), rtol=1e-5)


@pytest.mark.parametrize("way", meshes.LOW)
def test_parts_of_sums_stay_parts_in_a_low_precision(way):
    meshes.check_low("unreduced_result", way, (2, 4))
    meshes.check_low("parts_of_sums", way, (2, 4))


@pytest.mark.slow
@pytest.mark.parametrize("way", meshes.WAYS)
@pytest.mark.parametrize("name", meshes.PROGRAMS)
def test_every_program_with_every_statistic_and_every_tool(name, way):
    meshes.check(name, way, (2, 4))
