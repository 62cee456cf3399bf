"""The statistics beside MinMax: exact, monoids, and right on every path through the package."""

import functools
import json
import math
from collections import Counter
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jax_ranges as jr
from jax_ranges.files import LossWarning
from jax_ranges.statistics import passes, pooled
from jax_ranges.statistics.counts import Count, as_integers, of_integers
from jax_ranges.statistics.histogram import LEAST, MOST
from jax_ranges.stats import SHARED
from values import NARROW, WIDE, float_arrays, is_complex, is_float, random_array, specials

FLOAT32 = np.dtype(np.float32)
INTEGER = [jr.Exponents(), jr.Histogram(16), jr.Health(), jr.AbsMax()]
ALL = [*INTEGER, jr.Moments(), jr.PerChannel(-1), jr.PerChannel(0, jr.Health(), block=2)]


# -- the slow way: one value after another, in Python's exact numbers -------------------------


def numbers(array):
    """Its values as Python numbers: exact integers, or floats; those of complex ones by parts."""
    x = np.asarray(array).ravel()
    if is_complex(x.dtype):
        x = np.concatenate([x.real, x.imag])
    if is_float(x.dtype):
        return [float(v) for v in x]
    return [int(v) for v in x]


def exponent_of(x):
    return abs(x).bit_length() - 1 if isinstance(x, int) else math.frexp(abs(x))[1] - 1


def split(array):
    """The finite values, and how many are +inf, -inf, NaN."""
    values = numbers(array)
    finite = [x for x in values if isinstance(x, int) or math.isfinite(x)]
    return finite, values.count(math.inf), values.count(-math.inf), sum(x != x for x in values)


def check_exponents(found, array):
    finite, pos_inf, neg_inf, nan = split(array)
    for sign, counts in ((1, found.positive), (-1, found.negative)):
        expected = Counter(exponent_of(x) for x in finite if x * sign > 0)
        pairs = zip(found.exponents.tolist(), counts.tolist(), strict=True)
        assert {e: n for e, n in pairs if n} == expected
    assert (found.zero, found.pos_inf, found.neg_inf, found.nan) == (
        *(finite.count(0), pos_inf, neg_inf, nan),
    )


def check_histogram(found, array, bins):
    finite, pos_inf, neg_inf, nan = split(array)
    most = max(map(abs, finite), default=0)
    k = LEAST
    while k < MOST and 2.0**k < most:
        k += 1
    assert found.edges.tolist() == [2.0**k * (i / (bins // 2) - 1) for i in range(bins + 1)]
    counts = Counter()
    for x in finite:
        # From outside in: the edge further from zero belongs to a bin.
        side = range(bins // 2) if x >= 0 else range(-1, -bins // 2 - 1, -1)
        outer = (lambda i: i + 1) if x >= 0 else (lambda i: i)
        held = (i for i in side if abs(x) <= abs(found.edges[outer(i) + bins // 2]))
        counts[next(held, side[-1])] += 1
    assert found.counts.tolist() == [counts[i] for i in range(-bins // 2, bins // 2)]
    assert (found.pos_inf, found.neg_inf, found.nan) == (pos_inf, neg_inf, nan)


def check_health(found, array):
    finite, pos_inf, neg_inf, nan = split(array)
    assert (found.nan, found.pos_inf, found.neg_inf) == (nan, pos_inf, neg_inf)
    signs = [(x > 0) - (x < 0) for x in finite]
    assert (found.zero, found.negative, found.positive) == tuple(map(signs.count, (0, -1, 1)))
    assert found.total == len(numbers(array))


def check_absmax(found, array):
    values = numbers(array)
    kept = [abs(x) for x in values if x == x]
    assert found.amax.item() == max(kept, default=0)
    assert (found.nan, found.observed) == (len(kept) < len(values), bool(values))


def check_moments(found, array):
    finite, pos_inf, neg_inf, nan = split(array)
    assert (found.count, found.nonfinite) == (len(finite), pos_inf + neg_inf + nan)
    if not finite:
        assert np.isnan(found.mean) and np.isnan(found.variance)
        return
    # Subnormals may be flushed, and squares in double precision must not overflow.
    scale = max(map(abs, finite)) or 1
    scaled = [x / scale for x in finite] if scale > 1e-37 else [0.0]
    scale = float(scale) if scale > 1e-37 else 0.0
    mean = math.fsum(scaled) / len(scaled)
    variance = math.fsum((x - mean) ** 2 for x in scaled) / len(scaled)
    assert found.mean == pytest.approx(mean * scale, rel=1e-5, abs=1e-6 * scale + 1e-37)
    if scale < 1e150:
        expected = variance * scale * scale
        assert found.variance == pytest.approx(expected, rel=1e-4, abs=1e-9 * scale**2)


CHECKS = {
    jr.Exponents(): check_exponents,
    jr.Histogram(16): functools.partial(check_histogram, bins=16),
    jr.Health(): check_health,
    jr.AbsMax(): check_absmax,
    jr.Moments(): check_moments,
}


@functools.cache
def measuring(stat):
    return jax.jit(stat.measure)


def host(state):
    return jax.tree.map(np.asarray, state)


def check(stat, state, array):
    CHECKS[stat](stat.read_state(host(state), array.dtype), array)


def same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


# -- measuring --------------------------------------------------------------------------------


@pytest.mark.parametrize("stat", CHECKS, ids=repr)
@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_every_dtype_is_measured_as_the_slow_way_does(stat, dtype):
    rng = np.random.default_rng(1)
    for shape in [(), (0,), (65, 3)]:
        array = random_array(dtype, shape, rng)
        check(stat, measuring(stat)(array), array)
    if is_float(dtype):
        array = specials(dtype)
        check(stat, measuring(stat)(array), array)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stat", CHECKS, ids=repr)
@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_64_bit_dtypes_are_measured_as_the_slow_way_does(stat, dtype):
    array = random_array(dtype, (65, 3), np.random.default_rng(2))
    check(stat, measuring(stat)(array), array)
    if dtype == np.float64:
        array = np.concatenate([specials(dtype), [5e-324, -1e-310, 1e300, 2.0**-1022]])
        check(stat, measuring(stat)(array), array)


@pytest.mark.parametrize("stat", CHECKS, ids=repr)
@given(array=float_arrays(FLOAT32))
def test_any_floats_are_measured_as_the_slow_way_does(stat, array):
    check(stat, measuring(stat)(array), array)


@pytest.mark.parametrize("stat", CHECKS, ids=repr)
def test_integers_at_their_limits_are_exact(stat):
    for dtype in (np.int8, np.uint8, np.int32, np.uint32):
        info = np.iinfo(dtype)
        ends = [info.min, info.max, info.max - 1, info.max // 2 + 1, 0, 1, 3]
        array = np.array(ends, dtype)
        check(stat, measuring(stat)(array), array)
        check(stat, measuring(stat)(array[1:2]), array[1:2])


@pytest.mark.parametrize("stat", INTEGER, ids=repr)
def test_what_other_backends_do_counts_the_same(stat, monkeypatch):
    """Several tables, and one reduction each."""
    monkeypatch.setattr(passes.jax, "default_backend", lambda: "gpu")
    array = random_array(FLOAT32, (65, 33), np.random.default_rng(3))
    check(stat, jax.jit(stat.measure)(array), array)


def test_values_up_to_a_power_of_two_use_all_bins():
    _, ranges = jr.ranges(jnp.negative, stats=jr.Histogram(4))(jnp.array([1.0, -0.5, 0.5, 0.6]))
    found = ranges.of("neg", jr.Histogram(4))
    assert found.edges.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert found.counts.tolist() == [2, 1, 1, 0]


@pytest.mark.parametrize("bins", [0, 1, 3, 1 << 17, 2.0])
def test_an_unfit_number_of_bins_is_an_error(bins):
    with pytest.raises(ValueError, match="bins must be a power of two from 2 to 65536"):
        jr.Histogram(bins)


def test_moments_neither_overflow_nor_lose_a_small_variance():
    for array in ([3e38, -3e38, 3e38], [1e-30, 3e-30], [10000.0, 10000.5, 10001.0] * 100):
        array = np.array(array, np.float32)
        found = jr.Moments().read_state(host(measuring(jr.Moments())(array)), FLOAT32)
        assert found.mean == pytest.approx(np.mean(array, dtype=np.float64), rel=1e-6)
        assert found.variance == pytest.approx(np.var(array.astype(np.float64)), rel=1e-5)
        assert found.std == pytest.approx(np.std(array.astype(np.float64)), rel=1e-5)


# Most of them are measured the short way; some underflow, some overflow, some have no variance.
@pytest.mark.parametrize("scale", [0, 1e-38, 1e-30, 3e-17, 1e-12, 1, 1e15, 1e19, 1e37])
@pytest.mark.parametrize("offset", [0, 1, 1e4])
def test_moments_of_many_values_are_right_to_six_digits(scale, offset):
    rng = np.random.default_rng(8)
    for shape in [(70, 100), (1 << 13,)]:
        exact = np.clip((rng.normal(size=shape) + offset) * scale, -3e38, 3e38)
        array = exact.astype(np.float32)
        for nonfinite in ([], [np.nan], [np.inf, -np.inf]):
            array.reshape(-1)[: len(nonfinite)] = nonfinite
            found = jr.Moments().read_state(host(measuring(jr.Moments())(array)), FLOAT32)
            values = array[np.isfinite(array)].astype(np.float64)
            values[abs(values) < 2.0**-126] = 0  # flushed
            most = abs(values).max()
            assert (found.count, found.nonfinite) == (values.size, len(nonfinite))
            assert found.mean == pytest.approx(values.mean(), rel=0, abs=1e-6 * most)
            error = (1e-7 * most) ** 2
            assert found.variance == pytest.approx(values.var(), rel=1e-5, abs=error)


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("stat", CHECKS, ids=repr)
def test_many_values_are_measured_inside_shard_map(stat, tracked):
    spec = jax.sharding.PartitionSpec("d")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("d",))
    f = jax.shard_map(jnp.negative, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=tracked)
    array = random_array(FLOAT32, (90, 90), np.random.default_rng(9))
    _, ranges = jax.jit(jr.ranges(f, stats=stat))(array)
    CHECKS[stat](ranges.of("shard_map/neg", stat), -array)


# -- the laws of a monoid ---------------------------------------------------------------------

ARRAYS = st.lists(
    st.sampled_from([-np.inf, -1e30, -1.5, -0.0, 0.0, 1e-45, 2.0, 2.5, 4.0, 7e20, np.inf, np.nan]),
    min_size=4,
    max_size=4,
).map(lambda xs: np.array(xs, np.float32))


@pytest.mark.parametrize("stat", INTEGER, ids=repr)
@settings(max_examples=40)
@given(x=ARRAYS, y=ARRAYS, z=ARRAYS)
def test_merging_is_exactly_associative_and_commutative_and_has_an_identity(stat, x, y, z):
    a, b, c = (host(measuring(stat)(array)) for array in (x, y, z))
    empty, merge = stat.identity(FLOAT32), stat.merge
    assert same(merge(a, merge(b, c)), merge(merge(a, b), c))
    assert same(merge(a, b), merge(b, a))
    assert same(merge(a, empty), a)
    check(stat, merge(a, b), np.concatenate([x, y]))
    assert same(jax.jit(merge)(a, b), merge(a, b))


@settings(max_examples=40)
@given(x=ARRAYS, y=ARRAYS, z=ARRAYS)
def test_merging_moments_is_that_but_for_rounding(x, y, z):
    stat = jr.Moments()
    a, b, c = (host(measuring(stat)(array)) for array in (x, y, z))
    check(stat, stat.merge(a, stat.merge(b, c)), np.concatenate([x, y, z]))
    check(stat, stat.merge(stat.merge(c, a), b), np.concatenate([x, y, z]))
    check(stat, stat.merge(a, stat.identity(FLOAT32)), x)
    check(stat, jax.jit(stat.merge)(a, b), np.concatenate([x, y]))


@pytest.mark.parametrize("stat", CHECKS, ids=repr)
def test_reducing_leading_axes_is_merging(stat, monkeypatch):
    rows = random_array(FLOAT32, (10, 6), np.random.default_rng(4))
    states = jax.vmap(stat.measure)(rows)
    check(stat, stat.reduce(states, 1), rows)
    two = jax.tree.map(lambda leaf: leaf.reshape(2, 5, *leaf.shape[1:]), states)
    check(stat, stat.reduce(two, 2), rows)
    assert same(stat.reduce(states, 0), states)
    monkeypatch.setattr(pooled, "MOST_TERMS", 4)  # more are added in parts
    check(stat, stat.reduce(states, 1), rows)


# -- large counts -----------------------------------------------------------------------------

HUGE = [2**24 + 1, 2**31, 2**32 - 1, 2**33 + 5, 2**62, 0]


@given(st.lists(st.integers(0, 2**61), min_size=3, max_size=3))
def test_counts_are_added_beyond_32_bits(integers):
    from jax_ranges.statistics.counts import add, total

    a, b, c = (of_integers([n]) for n in integers)
    assert as_integers(add(a, b)).tolist() == [integers[0] + integers[1]]
    assert as_integers(jax.jit(add)(a, b)).tolist() == [integers[0] + integers[1]]
    rows = Count(*(np.stack(limbs) for limbs in zip(a, b, c, strict=True)))
    summed = total(rows, lambda limb: limb.sum(0, dtype=np.uint32))
    assert as_integers(summed).tolist() == [sum(integers)]


@pytest.mark.parametrize("stat", [jr.Exponents(), jr.Histogram(4), jr.Health()], ids=repr)
def test_synthetic_states_of_huge_counts_merge_exactly(stat):
    empty = stat.identity(FLOAT32)
    size = empty.counts.low.shape[0]
    integers = [np.resize(np.roll(HUGE, i), size) // 8 for i in range(3)]
    states = [empty._replace(counts=of_integers(each)) for each in integers]
    for merge in (stat.merge, jax.jit(stat.merge)):
        merged = functools.reduce(merge, states)
        assert as_integers(merged.counts).tolist() == sum(integers).tolist()
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    assert as_integers(stat.reduce(stacked, 1).counts).tolist() == sum(integers).tolist()


@pytest.mark.parametrize("bins", [2, 1 << 15, 1 << 16])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_large_values_are_counted_as_small_ones_are(bins, dtype):
    """Their places are stored in 16 bits, where these suffice."""
    small = random_array(np.dtype(dtype), (1 << 10,), np.random.default_rng(bins))
    copies = SHARED // small.size
    for stat in (jr.Exponents(), jr.Histogram(bins)):
        once = stat.read_state(jax.jit(stat.measure)(small), small.dtype)
        often = stat.read_state(jax.jit(stat.measure)(np.tile(small, copies)), small.dtype)
        for name, counts in vars(once).items():
            factor = 1 if name in ("exponents", "edges") else copies
            np.testing.assert_array_equal(getattr(often, name), counts * factor)
    check_exponents(jr.Exponents().read_state(jr.Exponents().measure(small), small.dtype), small)


def test_histograms_of_huge_counts_and_different_ranges_merge_exactly():
    stat = jr.Histogram(4)
    fine = stat.identity(FLOAT32)._replace(
        exponent=np.array(1, np.int32), counts=of_integers([2**33 - 1, 2**33, 5, 2**40, 1, 2, 3])
    )
    coarse = fine._replace(exponent=np.array(2, np.int32))
    for merge in (stat.merge, jax.jit(stat.merge)):
        merged = merge(fine, coarse)
        expected = [2**34 + 2**33 - 2, 2**33, 2**40 + 10, 2**40, 2, 4, 6]
        assert as_integers(merged.counts).tolist() == expected
        assert merged.exponent == 2


def test_a_mean_of_very_many_values_stays_what_it_is():
    stat = jr.Moments()
    state = host(measuring(stat)(np.array([1.0, 3.0], np.float32)))
    for _ in range(40):
        state = stat.merge(state, state)
    found = stat.read_state(state, FLOAT32)
    assert (found.count, found.mean, found.variance) == (2**41, 2.0, 1.0)


# -- through programs -------------------------------------------------------------------------


def program(x):
    y = jnp.sin(x) * 3
    total, rows = jax.lax.scan(lambda c, row: (c + row.sum(), row * 2), 0.0, y)
    _, total = jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] / 1.5), (0, total))
    return jax.lax.cond(total > 1e9, lambda: rows * 5, lambda: jnp.abs(rows))


X = np.linspace(-4, 5, 12, dtype=np.float32).reshape(4, 3)


@functools.cache
def measured_program(loops="merge"):
    return jax.jit(jr.ranges(program, stats=ALL, loops=loops))(X)[1]


@pytest.mark.parametrize("stat", CHECKS, ids=repr)
def test_statistics_of_loops_and_branches_are_those_of_all_their_values(stat):
    y = jnp.sin(X) * 3
    values = {"sin": jnp.sin(X), "scan/mul": y * 2, "cond/branch_0/abs": abs(y * 2)}
    stacked = measured_program("stack")
    for name, array in values.items():
        CHECKS[stat](measured_program().of(name, stat), np.asarray(array))
        CHECKS[stat](stacked.reduce().of(name, stat), np.asarray(array))
    unseen = measured_program().of("cond/branch_1/mul", stat)
    CHECKS[stat](unseen, np.zeros(0, np.float32))


def test_stacked_loops_have_an_axis_of_iterations():
    stacked, rows = measured_program("stack"), np.asarray(jnp.sin(X) * 6)
    health = stacked.of("scan/mul", jr.Health)
    assert health.positive.tolist() == [int((row > 0).sum()) for row in rows]
    counts = stacked.of("scan/mul", jr.Exponents)
    assert counts.positive.shape == (4, len(counts.exponents))
    edges = stacked.of("scan/mul", jr.Histogram).edges
    assert edges.shape == (4, 17)
    np.testing.assert_allclose(stacked.of("scan/mul", jr.Moments).mean, rows.mean(1), rtol=1e-5)
    np.testing.assert_array_equal(stacked.of("scan/mul", jr.PerChannel(-1)).max, rows)


@pytest.mark.parametrize("stat", CHECKS, ids=repr)
def test_examples_of_vmap_are_apart_and_can_be_masked(stat):
    batch = np.stack([X, X * 100, -X])
    _, each = jax.vmap(jr.ranges(jnp.negative, stats=stat))(batch)
    CHECKS[stat](each.reduce().of("neg", stat), -batch)
    CHECKS[stat](each.reduce(mask=np.array([True, False, True])).of("neg", stat), -batch[::2])


@pytest.mark.parametrize("stat", CHECKS, ids=repr)
def test_nets_accumulate_over_calls_and_shapes(stat):
    net = jr.Net(jnp.negative, stats=(jr.MinMax(), stat))
    batches = [X, X * 1000, X[:2] / 1000]
    for batch in batches:
        net(batch)
    CHECKS[stat](net.get_info().of("neg", stat), -np.concatenate(batches))


def test_sites_of_different_dtypes_merge_by_name():
    def run(dtype):
        return jr.ranges(jnp.negative, stats=ALL)(X.astype(dtype))[1]

    with jax.enable_x64(True):
        wide = run(np.float64)
    for other in (run(np.float16), run(np.float32), run(np.int32)):
        merged = other | wide
        assert merged.of("neg", jr.Health).total == 24
        assert merged.of("neg", jr.Exponents).total == 24
        assert merged.of("neg", jr.Histogram).total == 24
        assert merged.of("neg", jr.Moments).count == 24
        assert merged.of("neg", jr.AbsMax).amax == 5
        assert merged.of("neg", jr.PerChannel(-1)).max.max() == 4


def test_gradients_go_by_statistics_untouched():
    def loss(x):
        return jr.ranges(lambda x: jnp.sum(jnp.sin(x)), stats=ALL)(x)[0]

    np.testing.assert_allclose(jax.grad(loss)(X), np.cos(X), rtol=1e-6)
    _, ranges = jr.ranges(jax.grad(lambda x: jnp.sum(jnp.sin(x))), stats=jr.Health())(X)
    assert ranges.of("jvp(cos)" if "jvp(cos)" in ranges else list(ranges)[-1], jr.Health).total


# -- channels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1, 5])
@pytest.mark.parametrize("stat", CHECKS, ids=repr)
def test_a_channel_has_the_statistic_of_its_values(stat, axis):
    array = random_array(FLOAT32, (3, 4, 5), np.random.default_rng(5))
    states = host(jax.jit(jr.PerChannel(axis, stat).measure)(array))
    channels = [array] if axis == 5 else np.moveaxis(array, axis, 0)
    for i, channel in enumerate(channels):
        check(stat, jax.tree.map(lambda leaf, i=i: leaf[i], states), channel)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("block", [2, 3, 32])
def test_blocks_lie_along_the_axis_at_every_index_of_the_others(axis, block):
    stat = jr.PerChannel(axis, jr.MinMax(), block)
    array = np.random.default_rng(6).normal(size=(4, 5, 6)).astype(np.float32)
    _, ranges = jr.ranges(jnp.negative, stats=stat)(array)
    last = np.moveaxis(-array, axis, -1)
    cut = [last[..., i : i + block].max(-1) for i in range(0, last.shape[-1], block)]
    expected = np.moveaxis(np.stack(cut, -1), -1, axis)
    assert stat.tiles(array.shape) == expected.shape
    np.testing.assert_array_equal(ranges.of("neg", stat).max.reshape(expected.shape), expected)


def test_channels_merge_over_batches_and_to_one_where_their_number_differs():
    rows, columns = jr.PerChannel(0), jr.PerChannel(1, jr.Health())
    net = jr.Net(jnp.negative, stats=(rows, columns))
    for n in (4, 2):
        net(X[:n])
    info = net.get_info()
    assert (info.of("neg", rows).min.tolist(), info.of("neg", rows).max.tolist()) == ([-5], [4])
    assert info.of("neg", columns).total.tolist() == [6, 6, 6]
    again = info | info
    assert again.of("neg", rows).max.tolist() == [4]


def test_channels_of_values_without_elements_or_axes_are_fine():
    stats = (jr.PerChannel(-1), jr.PerChannel(0, jr.Health(), block=2))
    for x in (np.zeros((0, 3), np.float32), np.zeros((3, 0), np.float32), np.float32(1)):
        _, ranges = jr.ranges(jnp.negative, stats=stats)(x)
        (ranges | ranges).of("neg", stats[0])
        assert ranges.of("neg", stats[1]).total.sum() == np.size(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"of": jr.PerChannel()}, "a statistic other than PerChannel"),
        ({"of": 3}, "of takes a statistic"),
        ({"axis": (0, 1)}, "axis is one integer"),
        ({"block": 0}, "block counts elements"),
    ],
)
def test_unfit_channels_are_an_error(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        jr.PerChannel(**arguments)


def test_values_of_equal_size_but_other_channels_are_not_packed_together():
    def f(x):
        return jnp.sin(x), jnp.cos(x.T), jnp.tan(x.reshape(2, 6))

    _, ranges = jax.jit(jr.ranges(f, stats=jr.PerChannel(-1)))(X)
    assert [ranges.of(n, jr.PerChannel).max.shape for n in ("sin", "cos", "tan")] == [
        (3,),
        (4,),
        (6,),
    ]


# -- what is not measured twice ---------------------------------------------------------------


def test_rearranged_values_are_counted_once():
    def f(x):
        y = jnp.sin(x)
        return y.T.reshape(-1)[::-1].copy(), jnp.sort(y.ravel()), jnp.broadcast_to(y, (2, 4, 3))

    plan = jr.plan(f, stats=jr.Health())(X)
    _, ranges = jax.jit(jr.ranges(f, stats=jr.Health()))(X)
    totals = {name: ranges.of(name, jr.Health).total for name in ranges}
    assert set(totals.values()) == {12, 24}
    assert plan.reductions == 2  # of sin, and of the broadcast
    # What depends on the order is taken of each.
    assert jr.plan(f, stats=jr.PerChannel(-1))(X).reductions == len(ranges)


def test_values_are_not_shared_with_what_runs_more_or_less_often():
    def f(x):
        def body(c, row):
            return c, (x.T, row[None], jnp.sin(row))

        _, (a, b, c) = jax.lax.scan(body, 0.0, x)
        return jax.lax.cond(x[0, 0] > 0, lambda: x.T, lambda: x.T * 2), a, b, c.reshape(-1)

    stat = jr.Health()
    _, ranges = jr.ranges(f, stats=stat, inputs=True)(X)
    totals = {name: ranges.of(name, stat).total for name in ranges}
    assert totals["input/x"] == 12
    inside = [n for name, n in totals.items() if name.startswith("scan/transpose")]
    assert inside == [48]
    assert totals["scan/sin"] == totals["reshape"] == 12
    assert sorted(n for name, n in totals.items() if "cond/" in name) == [0, 12, 12]


def test_a_literal_that_is_given_a_shape_is_counted():
    def f(x):
        return x + jax.lax.broadcast_in_dim(2.0, (1,), ())

    _, ranges = jr.ranges(f, stats=ALL)(X[0])
    assert {ranges.of(name, jr.Health).positive for name in ranges} >= {1}


# -- which statistics where -------------------------------------------------------------------


def test_statistics_by_selection():
    def f(x):
        return jnp.sum(jnp.sin(x @ x.T))

    stats = {"dot_general": (jr.MinMax(), jr.Histogram(8)), ("sin", "dot*"): jr.Health()}
    _, ranges = jr.ranges(f, stats=stats)(X)
    assert list(ranges) == ["dot_general", "sin"]
    assert [ranges.has("sin", s) for s in (jr.MinMax(), jr.Histogram(8), jr.Health())] == [
        *(False, False, True),
    ]
    assert ranges.of("dot_general", jr.Histogram).total == 16
    assert ranges["dot_general"].observed and ranges.of("dot_general", jr.Health).total == 16
    with pytest.raises(ValueError, match=r"MinMax\(\) was not taken at 'sin'"):
        ranges["sin"]
    both = ranges | jr.ranges(f, stats={"*": jr.Health()})(X)[1]
    assert both.of("sin", jr.Health).total == 32 and both.of("reduce_sum", jr.Health).total == 1
    assert (both | both).of("sin", jr.Health).total == 64
    assert "dot_general" in repr(ranges) and "sin" not in repr(ranges)
    with pytest.raises(ValueError, match="none of the 4 sites is selected by the keys of stats"):
        jr.ranges(f, stats={"exp": jr.MinMax()})(X)


def test_what_is_no_statistic_is_refused():
    for stats, hint in [
        ((jr.Health,), r"call it: jr.Health\(\)"),
        (jr.MovingAverage(0.01), "order matters to moving averages"),
        ({"*": "MinMax"}, "takes jr.Statistic objects"),
    ]:
        with pytest.raises(TypeError, match=hint):
            jr.ranges(jnp.sin, stats=stats)


def test_reading_what_was_not_taken_or_is_traced_is_an_error():
    _, ranges = jr.ranges(jnp.sin, stats=jr.Health())(1.0)
    with pytest.raises(ValueError, match=r"Histogram\(...\) was not among the statistics taken"):
        ranges.of("sin", jr.Histogram)
    with pytest.raises(ValueError, match=r"Histogram\(bins=2048\) was not among"):
        ranges.of("sin", jr.Histogram())

    def f(x):
        return jr.ranges(jnp.sin, stats=jr.Health())(x)[1].of("sin", jr.Health)

    with pytest.raises(ValueError, match="traced"):
        jax.jit(f)(1.0)


@dataclass(frozen=True)
class Longest(jr.Statistic):
    """A statistic with the simple protocol: identity, measure, merge."""

    def identity(self, dtype):
        return np.zeros((), np.int32)

    def measure(self, value):
        return jnp.int32(max(value.shape, default=0))

    def merge(self, a, b):
        return jnp.maximum(a, b)


def test_statistics_of_the_simple_protocol_work_beside_the_others():
    net = jr.Net(program, stats=(Longest(), jr.Exponents(), jr.PerChannel(0, Longest())))
    net(X)
    net(X[:2])
    info = net.get_info()
    assert info.of("sin", Longest()) == 4 and info.of("scan/mul", Longest) == 3
    assert info.of("sin", jr.PerChannel(0, Longest())).tolist() == [3]


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loops", ["merge", "stack"])
def test_json_holds_all_statistics_exactly(tmp_path, loops):
    ranges = measured_program(loops)
    ranges.save(tmp_path / "r.json")
    loaded = jr.load(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["version"] == 2
    assert loaded.stats == (jr.MinMax(), *ALL) or loaded.stats == tuple(ALL)
    for name in ranges:
        for stat in ALL:
            a, b = ranges.state(name, stat), loaded.state(name, stat)
            assert same(a, b), (name, stat)
            dtypes = [[np.asarray(leaf).dtype for leaf in jax.tree.leaves(s)] for s in (a, b)]
            assert dtypes[0] == dtypes[1]
    assert same(ranges.merge(loaded).state("sin", ALL[0]), (ranges | ranges).state("sin", ALL[0]))


def test_files_of_merged_channels_and_of_huge_counts_are_read_back(tmp_path):
    stats = (jr.MinMax(), jr.PerChannel(0), jr.Health())
    net = jr.Net(jnp.negative, dump_file=tmp_path / "net.json", stats=stats)
    net(X)
    net(X[:2])
    net.close()
    loaded = jr.load(tmp_path / "net.json")
    assert loaded.of("neg", stats[1]).max.tolist() == [4]
    for _ in range(40):
        loaded = loaded | loaded
    loaded.save(tmp_path / "huge.json")
    total = jr.load(tmp_path / "huge.json").of("neg", jr.Health).total
    assert total == 18 * 2**40


def test_text_and_csv_hold_ranges_only(tmp_path):
    _, ranges = jr.ranges(jnp.sin, stats=(jr.MinMax(), jr.Health()))(X)
    without = jr.ranges(jnp.sin, stats=jr.Health())(X)[1]
    for ending in ("txt", "csv"):
        with pytest.warns(LossWarning, match=r"not what Health\(\) took.*json"):
            ranges.save(tmp_path / f"r.{ending}")
        assert jr.load(tmp_path / f"r.{ending}")["sin"] == ranges["sin"]
        with pytest.raises(ValueError, match="hold the ranges of MinMax, not.*Health.*json"):
            without.save(tmp_path / f"r.{ending}")
        with pytest.warns(LossWarning, match=r"not what Health\(\) took.*json"):
            net = jr.Net(jnp.sin, dump_file=tmp_path / f"n.{ending}", stats=ranges.stats)
        net(X)
        net.close()
        assert jr.load(tmp_path / f"n.{ending}")["sin"] == ranges["sin"]


def test_files_of_version_1_are_read(tmp_path):
    _, ranges = jr.ranges(jnp.sin)(X)
    ranges.save(tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    (tmp_path / "old.json").write_text(text.replace('"version": 2', '"version": 1'))
    assert jr.load(tmp_path / "old.json")["sin"] == ranges["sin"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"counts": [0,', '"counts": [-1,'),
        ('"counts": [0,', '"counts": [1.5,'),
        ('"counts": [0,', '"counts": [0, 0,'),
        ('"counts"', '"count"'),
        ('"name": "Health"', '"name": "Wealth"'),
        ('"states": {"Health()"', '"states": {"Other()"'),
    ],
)
def test_a_damaged_state_is_an_error(tmp_path, old, new):
    _, ranges = jr.ranges(jnp.sin, stats=jr.Health())(X)
    ranges.save(tmp_path / "r.json")
    text = (tmp_path / "r.json").read_text()
    assert old in text
    (tmp_path / "r.json").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match="is damaged"):
        jr.load(tmp_path / "r.json")


def test_ranges_without_minmax_have_a_file_too(tmp_path):
    _, ranges = jr.ranges(lambda x: jnp.sin(x) * 2, stats={"sin": jr.Moments()})(X)
    ranges.save(tmp_path / "r.json")
    loaded = jr.load(tmp_path / "r.json")
    assert loaded.of("sin", jr.Moments).mean == ranges.of("sin", jr.Moments).mean
    assert jr.merge_processes(ranges).of("sin", jr.Moments).count == 12


# -- moving averages --------------------------------------------------------------------------


def test_moving_averages_follow_the_calls_in_order(tmp_path):
    rng = np.random.default_rng(7)
    batches = [rng.normal(size=5).astype(np.float32) for _ in range(4)]
    calls = [jr.ranges(jnp.negative)(batch)[1] for batch in batches]
    lo, hi, bound = None, None, 0.5
    for batch in batches:
        least, most = -batch.max().astype(float), -batch.min().astype(float)
        lo, hi = (least, most) if lo is None else (lo + 0.1 * (least - lo), hi + 0.1 * (most - hi))
        bound = 0.9 * bound + 0.1 * max(abs(least), abs(most))
    files = []
    for i, call in enumerate(calls):
        files.append(tmp_path / f"{i}.json")
        call.save(files[-1])
    for given_calls in (calls, files):
        found = jr.MovingAverage(0.1).of(given_calls)["neg"]
        assert (found.min, found.max) == (pytest.approx(lo), pytest.approx(hi))
        assert jr.MovingAverage(0.1).bounds(given_calls, prior=0.5)["neg"] == pytest.approx(bound)


def test_moving_averages_leave_out_calls_that_saw_nothing():
    calls = [jr.ranges(jnp.negative)(np.array(x, np.float32))[1] for x in ([1.0], [], [3.0])]
    assert jr.MovingAverage(0.5).of(calls)["neg"] == jr.Range(
        np.float64(-2), np.float64(-2), np.bool_(False)
    )
    assert jr.MovingAverage(0.5).of(calls[1:2]) == {}
    _, several = jax.vmap(jr.ranges(jnp.negative))(X)
    with pytest.raises(ValueError, match=r"average the .reduce\(\) of each call"):
        jr.MovingAverage().of([several])
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        jr.MovingAverage(0)
