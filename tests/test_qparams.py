"""Scales and zero points: every chooser against a slow one written from its publication.

The brute force versions here share nothing with the package: plain loops over bins and levels.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import jax_ranges as jr
from jax_ranges.choosers import CHOOSERS
from jax_ranges.choosers.base import Bins
from jax_ranges.formats import format_of
from jax_ranges.qparams import NonFiniteRangeWarning, NotObservedError, QParams, qparams

INF, NAN = math.inf, math.nan
INTS = ["int4", "uint4", "int8", "uint8", "int16"]
FLOAT8 = ["float8_e4m3fn", "float8_e5m2"]


@dataclass(frozen=True)
class Histogram:
    edges: np.ndarray
    counts: np.ndarray


def histogram(x, bins=2048, ends=None):
    counts, edges = np.histogram(x.astype(np.float64), bins, ends)
    return Histogram(edges, counts)


def mirrored(x, bins=2048):
    amax = float(np.abs(x).max())
    return histogram(x, bins, (-amax, amax))


def of_range(lo, hi, nan=False, dtype=np.float32):
    return jr.Range(dtype(lo), dtype(hi), np.bool_(nan))


def normal(n=19_997, seed=0):
    return np.random.default_rng(seed).normal(size=n).astype(np.float32)


def heavy(n=19_997, seed=0):
    return np.random.default_rng(seed).standard_t(3, size=n).astype(np.float32)


def relu(n=19_997, seed=0):
    return np.maximum(normal(n, seed), 0)


def positive(n=19_997, seed=0):
    return np.random.default_rng(seed).uniform(2, 3, n).astype(np.float32)


DATA = [normal, heavy, relu, positive]


# -- min and max: FBGEMM ----------------------------------------------------------------------


def fbgemm(lo, hi, qmin, qmax, preserve_sparsity=False, power_of_two=False):
    """ChooseQuantizationParams in Python, the zero point of its symmetric case in the middle."""
    if lo < 0 < hi and preserve_sparsity:
        below, above = -((qmax - qmin) // 2 + 1), (qmax - qmin) // 2
        most = max(abs(lo / below), abs(hi / above))
        lo, hi = most * below, most * above
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    scale = (hi - lo) / (qmax - qmin) or 0.1
    if power_of_two:
        scale = 2.0 ** math.ceil(math.log2(scale))
    from_lo, from_hi = qmin - lo / scale, qmax - hi / scale
    lo_error, hi_error = abs(qmin) + abs(lo / scale), abs(qmax) + abs(hi / scale)
    zero_point = from_lo if lo_error < hi_error else from_hi
    if lo < 0 < hi and preserve_sparsity:
        zero_point = (qmin + qmax) / 2
    return scale, min(max(round(zero_point), qmin), qmax)


ENDS = st.tuples(*[st.floats(-(2.0**99), 2.0**99, width=32)] * 2).map(sorted)


@pytest.mark.parametrize("name", INTS)
@given(ENDS)
def test_minmax_is_fbgemms(name, ends):
    lo, hi = ends
    assume(hi == lo == 0 or hi - lo > 1e-30)
    q = qparams(of_range(lo, hi), name)
    scale, zero_point = fbgemm(lo, hi, *format_of(name).codes)
    assert q.scale == np.float32(max(scale, np.finfo(np.float32).tiny))
    if scale > 1e-36:
        assert q.zero_point == zero_point


@pytest.mark.parametrize("name", INTS)
@given(ENDS)
def test_symmetric_minmax_is_fbgemms_where_zero_is_inside(name, ends):
    lo, hi = ends
    assume(lo < -1e-30 and hi > 1e-30)
    q = qparams(of_range(lo, hi), name, symmetric=True)
    scale, zero_point = fbgemm(lo, hi, *format_of(name).codes, preserve_sparsity=True)
    assert q.scale == pytest.approx(scale, rel=1e-6)
    assert q.zero_point == zero_point


@given(ENDS)
def test_powers_of_two_are_the_next_ones(ends):
    lo, hi = ends
    assume(hi - lo > 1e-30)
    q = qparams(of_range(lo, hi), "uint8", power_of_two=True)
    assert q.scale == np.float32(fbgemm(lo, hi, 0, 255, power_of_two=True)[0])
    exact = qparams(of_range(-128, 127), "int8", symmetric=True, power_of_two=True)
    assert exact.scale == 1


def test_narrow_is_tensorrts():
    q = qparams(of_range(-12.7, 3.0), "int8", symmetric=True, narrow=True)
    assert (q.qmin, q.qmax, q.zero_point) == (-127, 127, 0)
    assert q.scale == np.float32(np.float64(np.float32(12.7)) / 127)
    assert q.round(np.float32(-99)) == pytest.approx(-12.7)


def test_symmetric_puts_zero_in_the_middle_of_signed_codes_always():
    assert qparams(of_range(0, 10), "int8", symmetric=True).zero_point == 0
    assert qparams(of_range(0, 10), "int8", symmetric=True).scale == np.float32(10 / 127)
    assert qparams(of_range(-10, -5), "int8", symmetric=True).scale == np.float32(10 / 128)
    assert qparams(of_range(-1, 10), "uint8", symmetric=True).zero_point == 128
    assert qparams(of_range(0, 10), "uint8", symmetric=True).zero_point == 0
    assert qparams(of_range(0, 10), "uint8", symmetric=True).scale == np.float32(10 / 255)


@pytest.mark.parametrize("margin", [0, 1, 3])
@pytest.mark.parametrize("name", FLOAT8)
def test_floats_are_transformer_engines(name, margin):
    q = qparams(of_range(-3.5, 2), name, margin=margin)
    sf = format_of(name).largest / 3.5 / 2**margin
    assert q.scale == pytest.approx(1 / sf, rel=1e-6)
    assert (q.zero_point, q.qmax) == (0, format_of(name).largest)
    assert qparams(of_range(0, 0), name).scale == 1
    assert math.frexp(qparams(of_range(-3.5, 2), name, power_of_two=True).scale)[0] == 0.5


@pytest.mark.parametrize("name", ["q3.4", "mxfp4", "mxfp8_e4m3"])
def test_formats_that_carry_their_scale_get_one(name):
    q = qparams(of_range(-100, 3), name)
    assert (q.scale, q.zero_point) == (1, 0)
    x = normal(64)
    assert np.array_equal(q.round(x), format_of(name).round(x))


# -- what is awkward --------------------------------------------------------------------------

TINY, MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
AWKWARD = [
    *[(0, 0), (5, 5), (-5, -5), (-0.0, 0.0), (1e-45, 1e-45), (0, 1e-45), (-1e-45, 1e-45)],
    *[(TINY, TINY), (-MOST, MOST), (0, MOST), (MOST, MOST), (-INF, INF), (INF, INF), (-INF, -INF)],
    *[(-INF, 0), (1, INF), (1000, 1000.0001)],
]


@pytest.mark.filterwarnings("ignore::jax_ranges.qparams.NonFiniteRangeWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", [*INTS, *FLOAT8, "bfloat16", "float4_e2m1fn", "q3.4", "int32"])
@pytest.mark.parametrize(("lo", "hi"), AWKWARD)
def test_scales_are_finite_and_zero_is_exact(lo, hi, name, symmetric, dtype):
    for power_of_two in (False, True):
        q = qparams(of_range(lo, hi, dtype=dtype), name, symmetric, power_of_two=power_of_two)
        assert q.scale.dtype == dtype
        assert 0 < q.scale < INF
        assert np.isfinite(1 / q.scale)
        assert q.qmin <= q.zero_point <= q.qmax
        assert q.round(dtype(0)) == 0


@pytest.mark.parametrize("name", [*INTS, *FLOAT8])
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_what_was_seen_is_kept_within_a_step(name, numbers):
    x = np.array(numbers, np.float32)
    q = qparams(of_range(x.min(), x.max()), name)
    with np.errstate(over="ignore"):
        rounded = q.round(x).astype(np.float64)
    # The last code may be up to a step beyond the largest number, where floats have infinity.
    error = np.abs(np.clip(rounded, -MOST, MOST) - x)
    step = np.float64(q.scale) if q.format.uniform else np.abs(x) / 4 + q.scale
    # The zero point moves by half a step, and FBGEMM's end may by as much again.
    assert (error <= 1.01 * step + 1e-6 * np.abs(x)).all()


def test_infinities_and_nan_say_so():
    for lo, hi in [(-INF, 1), (0, INF)]:
        with pytest.warns(NonFiniteRangeWarning, match="the range has an infinity in it; the sca"):
            q = qparams(of_range(lo, hi), "int8")
        assert q.scale > 1e36
    nan_seen = "a NaN was seen; the scale is that of the oth"
    with pytest.warns(NonFiniteRangeWarning, match=nan_seen) as warned:
        q = qparams(of_range(-1, 1, nan=True), "int8")
    assert [w.filename for w in warned] == [__file__]  # it points to the caller
    assert q.scale == np.float32(2 / 255)


@dataclass(frozen=True)
class Counted(Histogram):
    """With what is in no bin, as `jr.Histogram` has it."""

    pos_inf: int = 0
    neg_inf: int = 0
    nan: int = 0


def test_histograms_say_what_they_leave_out():
    h = histogram(normal())
    left_out = "the histogram leaves out 3 NaN, 1,000 -inf; t"
    with pytest.warns(NonFiniteRangeWarning, match=left_out) as warned:
        q = qparams(Counted(h.edges, h.counts, neg_inf=1000, nan=3), "int8", method="kl")
    assert [w.filename for w in warned] == [__file__]  # it points to the caller
    assert q == qparams(Counted(h.edges, h.counts), "int8", method="kl")


@pytest.mark.parametrize("name", ["int8", "float8_e4m3fn", "q3.4", "mxfp4"])
def test_nothing_seen_is_an_error_and_no_scale(name):
    with pytest.raises(NotObservedError, match="nothing was observed, so there is no range to"):
        qparams(of_range(INF, -INF), name)
    with pytest.raises(NotObservedError, match="only NaN was seen, so there is no range to make"):
        qparams(of_range(INF, -INF, nan=True), name)
    ends = np.array([0, INF, INF], np.float32)
    some = jr.Range(ends, np.array([1, -INF, -INF], np.float32), np.zeros(3, bool))
    with pytest.raises(NotObservedError, match="nothing was observed in 2 of 3 elements"):
        qparams(some, name)
    with pytest.raises(NotObservedError, match="nothing was observed"):
        qparams(Histogram(np.linspace(0, 1, 5), np.zeros(4, int)), name)


def test_integer_sites_have_scales_too():
    q = qparams(jr.Range(np.int32(-200), np.int32(100), np.bool_(False)), "int8")
    assert q.scale == np.float32(300 / 255)
    assert qparams(jr.Range(np.bool_(False), np.bool_(True), np.bool_(False)), "uint8").qmax == 255


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: qparams(of_range(0, 1), "int9"), ValueError, "no format 'int9'; the nearest are"),
        (
            lambda: qparams(of_range(0, 1), "int8", method="max"),
            ValueError,
            "no method 'max'; there are 'minmax', 'percentile', 'mse', 'l1', 'l2'",
        ),
        (
            lambda: qparams(of_range(0, 1), "int8", method="kl"),
            ValueError,
            "method 'kl' needs a histogram, and a range has none: take jr.Histogram\\(\\) at the",
        ),
        (
            lambda: qparams(histogram(normal()), "int8", method="percentile", percent=1),
            TypeError,
            "method 'percentile' has no option 'percent'; it takes percentile",
        ),
        (
            lambda: qparams(of_range(0, 1), "int8", percentile=1),
            TypeError,
            "method 'minmax' has no option 'percentile'; it takes none",
        ),
        (
            lambda: qparams(histogram(normal()), "float8_e5m2", method="l2"),
            ValueError,
            "method 'l2' counts equal steps, which float8_e5m2 does not have; for floats there",
        ),
        (
            lambda: qparams(histogram(normal()), "int16", method="l1"),
            ValueError,
            "method 'l1' is for up to 1024 codes, and int16 has 65536",
        ),
        (
            lambda: qparams(of_range(0, 1), "float8_e8m0fnu"),
            ValueError,
            "float8_e8m0fnu has no zero: it is a format of scales, not of values",
        ),
        (
            lambda: qparams((0, 1), "int8"),
            TypeError,
            "a scale is made of a jr.Range or of a histogram with edges and counts; got tuple",
        ),
        (
            lambda: qparams(Histogram(np.zeros(3), np.zeros(3, int)), "int8"),
            ValueError,
            "a histogram has ascending finite edges, one more than counts; got edges of shape",
        ),
        (
            lambda: qparams(Histogram(np.arange(3.0), np.array([1, -1])), "int8"),
            ValueError,
            "a histogram's counts are not negative",
        ),
        (
            lambda: qparams(histogram(normal()), "int8", method="percentile", percentile=0.0),
            ValueError,
            "percentile is in per cent, above 0 and up to 100; got 0.0",
        ),
    ],
)
def test_errors_say_what_to_do(call, error, text):
    with pytest.raises(error, match=text):
        call()


# -- many scales ------------------------------------------------------------------------------


def test_each_element_has_its_own_scale():
    lo, hi = np.array([-1, 0, -3], np.float32), np.array([1, 5, 0], np.float32)
    q = qparams(jr.Range(lo, hi, np.zeros(3, bool)), "int8", axis=1)
    each = [qparams(of_range(a, b), "int8") for a, b in zip(lo, hi, strict=True)]
    assert q.scale.tolist() == [one.scale for one in each]
    assert q.zero_point.tolist() == [one.zero_point for one in each]
    x = np.random.default_rng(0).uniform(-1, 1, (4, 3, 2)).astype(np.float32)
    for c, one in enumerate(each):
        assert np.array_equal(q.round(x)[:, c], one.round(x[:, c]))


def test_without_an_axis_they_are_the_first_axes():
    _, ranges = jax.vmap(jr.ranges(jnp.sin))(jnp.array([[0.1, 0.2], [1.0, 1.5]]))
    q = qparams(ranges["sin"], "uint8")
    assert q.scale.shape == (2,)
    x = np.array([[0.1, 0.2], [0.5, 0.99]], np.float32)
    assert np.abs(q.round(x) - x).max() < 0.003
    assert q.round(x)[0, 0] == qparams(ranges["sin"], "uint8").along(q.scale, 2)[0, 0] * round(
        0.1 / float(q.scale[0])
    )


def test_histograms_have_leading_axes():
    both = [histogram(x, 64, (-8, 8)) for x in (normal(), heavy() / 4)]
    edges = both[0].edges
    stacked = Histogram(edges, np.stack([h.counts for h in both]))
    for method in CHOOSERS:
        q = qparams(stacked, "int8", method=method)
        assert q.scale.tolist() == [qparams(h, "int8", method=method).scale for h in both]


def test_they_are_pytrees_and_traced():
    def f(x):
        out, ranges = jr.ranges(jnp.sin)(x)
        q = qparams(ranges["sin"], "int8", symmetric=True)
        return q.round(out), q

    x = jnp.linspace(-1, 3, 50)
    y, q = jax.jit(f)(x)
    assert isinstance(q, QParams)
    expected = qparams(jr.ranges(jnp.sin)(x)[1]["sin"], "int8", symmetric=True)
    np.testing.assert_allclose(q.scale, expected.scale, rtol=1e-6)
    assert q.zero_point == expected.zero_point
    np.testing.assert_allclose(y, expected.round(np.sin(x)), atol=1e-6)


@pytest.mark.parametrize("name", [*INTS, *FLOAT8, "q3.4", "mxfp4"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_traced_scales_are_those_of_the_host(name, symmetric, power_of_two):
    def f(found):
        return qparams(found, name, symmetric, power_of_two=power_of_two)

    for lo, hi in [(-1.5, 3), (0, 0), (2, 7), (-9, -1e-3), (-MOST, MOST)]:  # XLA flushes subnormals
        found = of_range(lo, hi)
        a, b = f(found), jax.jit(f)(jax.tree.map(jnp.asarray, found))
        np.testing.assert_allclose(b.scale, a.scale, rtol=1e-6)
        assert abs(int(b.zero_point) - int(a.zero_point)) <= 1  # float32 there, float64 here


def test_traced_and_not_observed_is_nan():
    def f(x, ran):
        _, ranges = jr.ranges(lambda x: jax.lax.cond(ran, jnp.sin, lambda x: x, x))(x)
        return qparams(ranges["cond/branch_1/sin"], "int8").scale

    assert np.isnan(jax.jit(f)(jnp.ones(3), False))
    assert jax.jit(f)(jnp.ones(3), True) > 0


# -- choosers against brute force -------------------------------------------------------------


def test_minmax_of_a_histogram_leaves_empty_bins_out():
    h = Histogram(np.arange(-5.0, 6.0), np.array([0, 0, 1, 0, 2, 0, 0, 3, 0, 0]))
    q = qparams(h, "uint8")
    assert (q.scale, q.zero_point) == (np.float32(6 / 255), round(3 / (6 / 255)))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("percentile", [90, 99.9, 99.99, 100])
def test_percentile_is_the_share_of_sorted_values(data, percentile):
    x = data()
    h = mirrored(x)
    width = h.edges[1] - h.edges[0]
    amax = np.quantile(np.abs(x), percentile / 100, method="inverted_cdf")
    q = qparams(h, "int8", True, "percentile", percentile=percentile)
    known = q.scale * np.array([127, 128])  # the farther end may be the lower one
    assert np.abs(known - amax).min() <= 2 * width
    q = qparams(h, "int8", False, "percentile", percentile=percentile)
    cut = (100 - percentile) / 200
    lo, hi = (np.quantile(x, c, method="inverted_cdf") for c in (cut, 1 - cut))
    assert q.scale * 255 == pytest.approx(max(hi, 0) - min(lo, 0), abs=float(3 * width))


def slow_mse(centers, counts, levels, start):
    """_compute_amax_mse: the clipping threshold among the centers."""
    errors = []
    for amax in centers[start:]:
        step = amax / levels
        rounded = [min(round(c / step), levels) * step for c in centers]
        errors.append(
            sum(n * (a - b) ** 2 for n, a, b in zip(counts, rounded, centers, strict=True))
        )
    return centers[start + int(np.argmin(errors))]


@pytest.mark.parametrize("data", [normal, heavy, relu])
@pytest.mark.parametrize("name", ["int4", "int8"])
def test_mse_is_the_best_of_all_thresholds(data, name):
    x = np.abs(data())
    h = histogram(x, 200, (0, x.max()))
    centers = (h.edges[1:] + h.edges[:-1]) / 2
    levels = format_of(name).codes[1]
    amax = slow_mse(centers.tolist(), h.counts.tolist(), levels, 20)
    q = qparams(h, name, True, "mse", start_bin=20)
    assert q.scale == pytest.approx(amax / levels, rel=1e-6)


def test_asymmetric_mse_is_the_best_of_all_shares():
    x = heavy() + 1
    h = histogram(x, 100)
    centers = (h.edges[1:] + h.edges[:-1]) / 2
    best, least = None, INF
    for i in range(1, 101):
        scale, zero = fbgemm(h.edges[0] * i / 100, h.edges[-1] * i / 100, 0, 255)
        codes = [min(max(round(c / scale) + zero, 0), 255) for c in centers]
        parts = zip(h.counts, codes, centers, strict=True)
        error = sum(n * ((k - zero) * scale - c) ** 2 for n, k, c in parts)
        if error < least:
            best, least = (scale, zero), error
    q = qparams(h, "uint8", method="mse", start_bin=0)
    assert (q.scale, q.zero_point) == (pytest.approx(best[0], rel=1e-6), best[1])


@pytest.mark.parametrize("name", FLOAT8)
@pytest.mark.parametrize("data", DATA)
def test_mse_of_floats_is_no_worse_than_minmax(name, data):
    x = data()
    h = mirrored(x)
    errors = [
        np.mean((qparams(h, name, method=method).round(x) - x) ** 2) for method in ("mse", "minmax")
    ]
    assert errors[0] <= errors[1] * 1.05


def slow_kl(counts, edges, levels, start):
    """_compute_amax_entropy, in loops."""
    bins = counts.astype(float).copy()
    bins[0] = bins[1]
    best, least = None, INF
    for i in range(start, len(bins) + 1):
        space = np.linspace(0, i, levels + 1)
        digitized = [int(np.digitize(k, space)) - 1 if bins[k] else -1 for k in range(i)]
        sums = Counter()
        for k, level in enumerate(digitized):
            sums[level] += bins[k]
        members = Counter(digitized)
        q = np.array([sums[d] / members[d] if d >= 0 else 0 for d in digitized])
        p = bins[:i].copy()
        p[-1] += bins[i:].sum()
        p, q = p / p.sum(), q / q.sum()
        terms = [(a * math.log(a / b) if b else INF) for a, b in zip(p, q, strict=True) if a]
        if sum(terms) <= least:  # the last of equals
            best, least = i, sum(terms)
    return edges[best]


@pytest.mark.parametrize("data", [normal, heavy, relu])
@pytest.mark.parametrize(("name", "levels"), [("int8", 128), ("int4", 8)])
def test_kl_is_tensorrts_entropy(data, name, levels):
    x = np.abs(data())
    h = histogram(x, 300, (0, x.max()))
    amax = slow_kl(h.counts, h.edges, levels, 128)
    q = qparams(h, name, True, "kl")
    assert q.scale == pytest.approx(amax / (levels - 1), rel=1e-6)


def test_kl_of_2048_bins_and_of_fewer_than_it_begins_with():
    x = np.abs(heavy())
    h = histogram(x, 2048, (0, x.max()))
    q = qparams(h, "int8", True, "kl", stride=64)
    assert 0 < q.scale * 127 < x.max()
    few = histogram(x, 100, (0, x.max()))
    assert qparams(few, "int8", True, "kl").scale == np.float32(few.edges[-1] / 127)


def slow_norm(counts, first, count, levels, power):
    """The error of one interval: Simpson's rule on pieces too short to have a kink."""
    part, total = count / levels, 0.0
    cuts = [first + k * part for k in range(levels + 1)]
    points = sorted({*range(len(counts) + 1), *cuts, *(c + part / 2 for c in cuts[:-1])})
    points = [p for p in points if 0 <= p <= len(counts)]
    for a, b in itertools.pairwise(points):
        middle = (a + b) / 2
        level = min(max(math.floor((middle - first) / part), 0), levels - 1)
        center = first + (level + 0.5) * part
        e = [abs(t - center) ** power for t in (a, middle, b)]
        total += counts[min(int(middle), len(counts) - 1)] * (b - a) * (e[0] + 4 * e[1] + e[2]) / 6
    return total


def slow_l(counts, lo, width, levels, power, symmetric):
    """NormMinimization::ChooseQuantizationParams: all intervals, the first of the best."""
    n, found = len(counts), []
    zero = round(-lo / width)
    for count in range(1, n + 1):
        firsts = range(n - count + 1)
        if symmetric:
            firsts = [0 if lo == 0 else zero - count // 2]
        found += [(slow_norm(counts, f, count, levels, power), count, f) for f in firsts]
    _, count, first = min(found)
    return lo + first * width, lo + (first + count) * width


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("method", "power"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("data", DATA)
def test_norms_are_the_least_of_all_intervals(data, method, power, symmetric):
    x = data(2000)
    h = histogram(x, 17)
    width, counts, lo = h.edges[1] - h.edges[0], list(h.counts), h.edges[0]
    if lo > 0:  # as adjust_hist_to_include_zero
        more = math.ceil(lo / width)
        counts, lo = [0] * more + counts, lo - more * width
    lo, hi = slow_l(counts, lo, width, 16, power, symmetric)
    q = qparams(h, "uint4", symmetric, method)
    scale, zero = fbgemm(lo, hi, 0, 15, symmetric)
    assert q.scale == pytest.approx(scale, rel=1e-5)
    assert q.zero_point == zero


@pytest.mark.parametrize("method", ["l1", "l2"])
def test_the_search_on_a_grid_finds_what_the_whole_search_does(method, monkeypatch):
    x = heavy()
    h = histogram(x, 300)
    fast = qparams(h, "uint4", method=method)
    monkeypatch.setattr("jax_ranges.choosers.norms.GRID", 300)
    assert fast == qparams(h, "uint4", method=method)


def slow_approx(counts, levels, power):
    """NonlinearQuantizationParamsSearch, or torch's _non_linear_param_search, in loops."""
    total, reached = sum(counts), np.cumsum(counts)
    alpha, beta, first, last, least = 0.0, 1.0, 0, len(counts) - 1, INF
    while alpha < beta:
        next_alpha, next_beta = alpha + 1e-5, beta - 1e-5
        i, j = first, last
        while i < last and reached[i] < next_alpha * total:
            i += 1
        while j > first and reached[j] > next_beta * total:
            j -= 1
        if i - first > last - j:
            moved, alpha = (i, last), next_alpha
        else:
            moved, beta = (first, j), next_beta
        if moved == (first, last):
            continue
        norm = slow_norm(counts, moved[0], moved[1] - moved[0] + 1, levels, power)
        if norm > least:
            break
        least, (first, last) = norm, moved
    return first, last + 1


@pytest.mark.parametrize(("method", "power"), [("l1_approx", 1), ("l2_approx", 2)])
@pytest.mark.parametrize("data", [normal, heavy, relu])
def test_the_descent_is_caffe2s(data, method, power):
    x = data()
    h = histogram(x, 80)
    width = h.edges[1] - h.edges[0]
    first, last = slow_approx(h.counts.tolist(), 16, power)
    scale, zero = fbgemm(h.edges[0] + first * width, h.edges[0] + last * width, 0, 15)
    q = qparams(h, "uint4", method=method)
    assert q.scale == pytest.approx(scale, rel=1e-5)
    assert q.zero_point == zero


@pytest.mark.parametrize("method", CHOOSERS)
@pytest.mark.parametrize("symmetric", [False, True])
@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=40),
    st.floats(-100, 100),
    st.floats(1e-6, 10),
)
@settings(max_examples=25)
def test_any_histogram_has_a_scale(method, symmetric, counts, lo, width):
    assume(sum(counts))
    h = Histogram(lo + width * np.arange(len(counts) + 1), np.array(counts))
    q = qparams(h, "int8", symmetric, method)
    assert 0 < q.scale < INF
    assert q.qmin <= q.zero_point <= q.qmax
    all_of_it = qparams(h, "int8", symmetric)
    assert q.scale <= all_of_it.scale * 1.01 + 2 * width / 255


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("method", CHOOSERS)
def test_choosers_do_not_depend_on_the_scale(method, scale):
    h = mirrored(heavy(), 300)
    large = Histogram(h.edges * scale, h.counts)
    a, b = (qparams(each, "int8", method=method) for each in (h, large))
    assert b.scale == pytest.approx(a.scale * scale, rel=1e-4)


@pytest.mark.parametrize("method", CHOOSERS)
def test_constants_and_far_narrow_data_have_scales(method):
    for edges in ([5.0, 5.0], [1e6, 1e6 + 1e-3], [-1e6 - 1e-3, -1e6], [0.0, 0.0]):
        q = qparams(Histogram(np.linspace(*edges, 9), np.arange(8)), "int8", method=method)
        assert 0 < q.scale < INF


def test_magnitudes_are_exact_where_edges_mirror_each_other():
    x = heavy()
    h = mirrored(x, 100)
    found = Bins(h.edges, h.counts.astype(float)).magnitudes()
    counts, _ = np.histogram(np.abs(x), found.edges)
    assert np.array_equal(found.counts, counts)
    one_sided = Bins(np.arange(5.0), np.array([3.0, 0.0, 1.0, 2.0])).magnitudes()
    assert one_sided.counts.tolist() == [3, 0, 1, 2]


def test_magnitudes_keep_the_number_of_values():
    for edges in ([-1.0, 3.0], [2.0, 3.0], [-3.0, -2.9], [-7.0, 0.5]):
        bins = Bins(np.linspace(*edges, 33), np.arange(1.0, 33.0))
        assert bins.magnitudes().counts.sum() == pytest.approx(bins.counts.sum())


def test_choosers_beat_minmax_where_there_are_outliers():
    x = heavy(200_000)
    h = mirrored(x)
    error = {
        method: np.mean((qparams(h, "int8", method=method).round(x) - x) ** 2)
        for method in CHOOSERS
    }
    assert error["mse"] < 0.8 * error["minmax"]
    assert error["l2"] < 0.8 * error["minmax"]
    assert error["l2"] <= min(error.values()) * 1.02


# -- development only: the real ones on the same data ----------------------------------------


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("symmetric", [False, True])
def test_minmax_is_onnxruntimes(data, symmetric):
    quant = pytest.importorskip("onnxruntime.quantization.quant_utils")
    x = data()
    zero, scale = quant.compute_scale_zp(
        x.min(), x.max(), np.array(-127 if symmetric else -128, np.int8), np.int8(127), symmetric
    )
    q = qparams(of_range(x.min(), x.max()), "int8", symmetric, narrow=symmetric)
    assert q.scale == pytest.approx(scale, rel=1e-6)
    assert q.zero_point == zero


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("percentile", [99.0, 99.99])
@pytest.mark.parametrize("symmetric", [False, True])
def test_percentile_is_onnxruntimes(data, percentile, symmetric):
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    x = data()
    source = np.abs(x) if symmetric else x
    collector = calibrate.HistogramCollector("percentile", symmetric, 2048, 128, percentile, "same")
    counts, edges = np.histogram(source, 2048)
    collector.histogram_dict = {"x": (counts, edges, source.min(), source.max(), None)}
    lo, hi, *_ = collector.compute_percentile()["x"]
    q = qparams(Histogram(edges, counts), "int8", symmetric, "percentile", percentile=percentile)
    ours = qparams(of_range(lo, hi, dtype=np.float64), "int8", symmetric)
    assert q.scale == pytest.approx(ours.scale, rel=1e-3)


@pytest.mark.parametrize("data", [normal, heavy, relu])
def test_kl_is_about_onnxruntimes(data):
    """Which merges bins otherwise and smooths: the same idea, another threshold."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    x = data()
    h = mirrored(x, 501)
    collector = calibrate.HistogramCollector("entropy", True, 501, 128, 99.99, "same")
    found = collector.get_entropy_threshold((h.counts, h.edges, x.min(), x.max()), 128)
    q = qparams(h, "int8", True, "kl", start_bin=64)
    amax = max(abs(found[0]), abs(found[1]))
    assert amax / 2 < q.scale * 127 < 2 * amax


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("symmetric", [False, True])
def test_minmax_is_torchs(data, symmetric):
    torch = pytest.importorskip("torch")
    observers = pytest.importorskip("torch.ao.quantization.observer")
    scheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    x = data()
    observer = observers.MinMaxObserver(torch.qint8, scheme)
    observer(torch.tensor(x))
    scale, zero = observer.calculate_qparams()
    q = qparams(of_range(x.min(), x.max()), "int8", symmetric)
    if symmetric:  # torch divides by 127.5: half a code on either side is clipped
        assert q.scale.item() == pytest.approx(scale.item(), rel=0.6 / 127)
    else:
        assert q.scale.item() == pytest.approx(scale.item(), rel=1e-6)
    assert q.zero_point == zero.item()


@pytest.mark.parametrize("data", DATA)
def test_l2_approx_is_torchs_histogram_observer(data):
    torch = pytest.importorskip("torch")
    observers = pytest.importorskip("torch.ao.quantization.observer")
    x = data()
    observer = observers.HistogramObserver(bins=2048, dtype=torch.quint8)
    observer(torch.tensor(x))
    scale, zero = observer.calculate_qparams()
    counts = observer.histogram.numpy().astype(np.int64)
    h = Histogram(np.linspace(x.min(), x.max(), 2049).astype(np.float64), counts)
    q = qparams(h, "uint8", method="l2_approx")
    # The error is summed in float32 there: it may stop a few bins earlier or later.
    assert q.scale.item() == pytest.approx(scale.item(), rel=0.01)
    assert abs(int(q.zero_point) - zero.item()) <= 1
