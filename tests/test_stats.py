"""MinMax: exact for every dtype and value, on every path; and a semilattice."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jax_ranges as jr
from jax_ranges import stats
from jax_ranges.stats import MinMax, extrema_of
from values import (
    FLOATS,
    NARROW,
    WIDE,
    float_arrays,
    numpy_range,
    random_array,
    specials,
)

MEASURE = jax.jit(MinMax().measure)
SHAPES = [(), (0,), (7,), (65, 33), (2, 3, 4)]


def read(state, dtype):
    lo, hi, nan = MinMax().read(jax.tree.map(np.asarray, state), dtype, np)
    observed = bool(nan | (lo <= hi))
    return (None, None, bool(nan), observed) if lo > hi else (lo, hi, bool(nan), observed)


def check(state, array):
    assert read(state, array.dtype) == numpy_range(array)


@pytest.fixture(params=[True, False], ids=["together", "apart"])
def measure(request, monkeypatch):
    """Both ways of reducing: all at once, as on one CPU device, and one by one."""
    monkeypatch.setattr(stats, "in_one_reduction", lambda: request.param)
    return jax.jit(MinMax().measure)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_every_dtype_and_shape_is_measured_exactly(measure, dtype):
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        array = random_array(dtype, shape, rng)
        check(measure(array), array)
        check(extrema_of(array), array)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_64_bit_dtypes_are_measured_exactly(measure, dtype):
    rng = np.random.default_rng(2)
    for shape in SHAPES:
        array = random_array(dtype, shape, rng)
        check(measure(array), array)
        check(extrema_of(array), array)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_values_measured_together_are_measured_as_each_alone(measure, dtype):
    del measure
    rng = np.random.default_rng(3)
    arrays = [random_array(dtype, shape, rng) for shape in [(2, 3, 4), (24,), (6, 4), (24,)]]
    states = jax.jit(lambda xs: MinMax().finish([MinMax().begin(x) for x in xs]))(arrays)
    for i, array in enumerate(arrays):
        check(jax.tree.map(lambda leaf, i=i: leaf[i], states), array)


@pytest.mark.parametrize("shape", [(6000,), (70, 90), (3, 5, 7, 80), (2, 1, 4, 800)], ids=str)
@pytest.mark.parametrize("shared", [stats.SHARED, 1], ids=["one row", "rows"])
def test_values_measured_by_their_rows_are_measured_as_each_alone(
    measure, shape, shared, monkeypatch
):
    del measure
    monkeypatch.setattr(stats, "SHARED", shared)
    stats._rows.clear_cache()
    assert (math.prod(stats.as_rows(shape)[0]) == 1) == (shared > 1)
    assert stats.together(shape, repeats=True) is not None
    rng = np.random.default_rng(4)
    for dtype in (np.float32, jnp.bfloat16, np.uint8, np.complex64):
        arrays = [random_array(np.dtype(dtype), shape, rng) for _ in range(3)]
        states = jax.jit(lambda xs: MinMax().finish([MinMax().begin(x) for x in xs]))(arrays)
        for i, array in enumerate(arrays):
            check(jax.tree.map(lambda leaf, i=i: leaf[i], states), array)


def test_few_small_values_are_measured_in_parts_that_one_thread_does():
    def parts(count):
        plan = jr.plan(lambda xs: [jnp.sin(x) for x in xs])([jnp.ones((8, 8))] * count)
        return [len(group) for group in plan.frame.together]

    assert parts(40) == [40]
    assert parts(100) == [48, 48, 4]
    assert parts(200) == [200]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_64_bit_values_are_measured_together_too(dtype):
    arrays = [random_array(dtype, (5,), np.random.default_rng(n)) for n in range(3)]
    states = jax.jit(lambda xs: MinMax().finish([MinMax().begin(x) for x in xs]))(arrays)
    for i, array in enumerate(arrays):
        check(jax.tree.map(lambda leaf, i=i: leaf[i], states), array)


@pytest.mark.usefixtures("x64")
def test_a_uint64_above_2_to_the_63_stays_exact():
    (_, ranges) = jr.ranges(lambda x: x + np.uint64(1))(np.array([2**63, 5], np.uint64))
    assert int(ranges["add"].max) == 2**63 + 1
    assert ranges["add"].max.dtype == np.uint64


def test_large_arrays_are_reduced_in_two_stages_with_the_same_result(measure, monkeypatch):
    monkeypatch.setattr(stats, "TWO_STAGES", 8)
    for shape in [(9, 5), (2, 3, 4), (40,)]:
        array = random_array(np.dtype(np.float32), shape, np.random.default_rng(3))
        check(measure(array), array)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_one_nan_anywhere_is_seen_and_harms_nothing(measure, dtype):
    if str(dtype) == "float4_e2m1fn":
        pytest.skip("this dtype has no NaN")
    for size in (1, 3, 64, 1000):
        for where in {0, size // 2, size - 1}:
            array = np.ones(size, dtype)
            array[where] = np.array(np.nan).astype(dtype)
            check(measure(array), array)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_each_special_value_alone_is_exact(measure, dtype):
    for value in specials(dtype):
        array = np.full((4, 3), value, dtype)
        check(measure(array), array)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32], ids=str)
@given(data=st.data())
def test_any_floats_are_measured_exactly(dtype, data):
    array = data.draw(float_arrays(np.dtype(dtype)))
    check(MEASURE(array), array)


# -- the laws of the semilattice --------------------------------------------------------------

STATES = st.lists(
    st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 1e-45, 2.0, np.inf, np.nan]), max_size=3
).map(lambda xs: extrema_of(np.array(xs, np.float32)))


def same(a, b):
    return read(a, np.dtype(np.float32)) == read(b, np.dtype(np.float32))


@given(STATES, STATES, STATES)
def test_merging_is_associative_commutative_idempotent_and_has_an_identity(a, b, c):
    merge, empty = MinMax().merge, MinMax().identity(np.dtype(np.float32))
    assert same(merge(a, merge(b, c)), merge(merge(a, b), c))
    assert same(merge(a, b), merge(b, a))
    assert same(merge(a, a), a)
    assert same(merge(a, empty), a)


@given(float_arrays(np.dtype(np.float32)), float_arrays(np.dtype(np.float32)))
def test_measuring_together_is_measuring_apart_and_merging(x, y):
    both = np.concatenate([x.ravel(), y.ravel()])
    check(MinMax().merge(extrema_of(x), extrema_of(y)), both)


@given(STATES)
def test_a_state_survives_reading_and_writing(state):
    dtype = np.dtype(np.float32)
    assert same(MinMax().state(*MinMax().read(state, dtype, np), dtype, np), state)


def test_the_identity_reads_as_the_laws_say():
    dtype = np.dtype(np.float32)
    assert MinMax().read(MinMax().identity(dtype), dtype, np) == (np.inf, -np.inf, False)
    dtype = np.dtype(np.int8)
    assert MinMax().read(MinMax().identity(dtype), dtype, np) == (127, -128, False)


# -- statistics of one's own ------------------------------------------------------------------


@dataclass(frozen=True)
class Count(jr.Statistic):
    """How many values were seen: not idempotent, so it shows what is measured twice."""

    def identity(self, dtype):
        return np.zeros((), np.int32)

    def measure(self, value):
        return jnp.int32(value.size)

    def merge(self, a, b):
        return a + b


@dataclass(frozen=True)
class Signs(jr.Statistic):
    """A state with an axis of its own: counts of negative, zero and positive values."""

    def identity(self, dtype):
        return {"signs": np.zeros(3, np.int32)}

    def measure(self, value):
        x = value.astype(jnp.float32)
        return {"signs": jnp.stack([(x < 0).sum(), (x == 0).sum(), (x > 0).sum()]).astype("int32")}

    def merge(self, a, b):
        return {"signs": a["signs"] + b["signs"]}


def test_statistics_of_ones_own_are_counted_once_for_each_execution():
    def f(x):
        y = jax.jit(jnp.sin)(x).reshape(2, 3)
        z, _ = jax.lax.scan(lambda c, row: (c + row.sum(), row * 2), 0.0, y)
        return jax.lax.cond(z > 1e9, lambda: y * 2, lambda: -y)

    for run in (jr.ranges(f, stats=(Count(), MinMax())), jax.jit(jr.ranges(f, stats=(Count(),)))):
        _, ranges = run(jnp.arange(6.0))
        counts = {name: int(ranges.state(name, Count())) for name in ranges}
        assert counts["jit(sin)/sin"] == 6
        assert counts["reshape"] == 6
        assert counts["scan/reduce_sum"] == 2
        assert counts["scan/mul"] == 6
        assert (counts["cond/branch_0/neg"], counts["cond/branch_1/mul"]) == (6, 0)


def test_states_with_axes_stack_merge_and_reduce():
    def f(xs):
        return jax.lax.scan(lambda c, x: (c, jnp.sin(x)), 0.0, xs)[1]

    x = jnp.array([[-1.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    _, ranges = jr.ranges(f, stats=Signs(), loops="stack")(x)
    expected = np.array([[1, 1, 0], [0, 0, 2], [0, 2, 0]])
    np.testing.assert_array_equal(ranges.state("scan/sin", Signs())["signs"], expected)
    total = ranges.reduce(mask=jnp.array([True, True, False])).state("scan/sin", Signs())
    np.testing.assert_array_equal(total["signs"], expected[:2].sum(0))
    merged = (ranges | ranges).state("scan/sin", Signs())
    np.testing.assert_array_equal(merged["signs"], 2 * expected)


def test_reading_ranges_that_were_not_taken_is_an_error():
    _, ranges = jr.ranges(jnp.sin, stats=Count())(1.0)
    with pytest.raises(ValueError, match=r"MinMax\(\) was not among the statistics taken"):
        ranges["sin"]
