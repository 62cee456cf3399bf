"""Number formats: their limits, and rounding to them against the casts of ml_dtypes."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_ranges.formats import BLOCKS, Format, format_of, names

FLOATS = [n for n in names() if format_of(n).kind == "float" and n not in ("float32", "float64")]
# float8_e8m0fnu has no zero; see its own test.
VALUES = [n for n in FLOATS if n != "float8_e8m0fnu"]
INTS = ["int4", "uint4", "int8", "uint8", "int16", "uint16"]
SPECIALS = [0.0, -0.0, 0.5, 1.0, 1.5, 2.5, 448.0, 464.0, 465.0, 1e-3, 1e-45, 3e38, math.inf]
INF = np.inf
NUMBERS = st.sampled_from([*SPECIALS, *(-x for x in SPECIALS), math.nan]) | st.floats(width=32)


def same(a, b):
    return np.array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64), equal_nan=True)


def cast(x, fmt):
    """What a cast makes of what is in range, and the ends of what is not."""
    with np.errstate(all="ignore"):
        inside = np.clip(x.astype(np.float64), fmt.least, fmt.largest)
        found = inside.astype(x.dtype).astype(fmt.dtype).astype(np.float64)
    return found if fmt.has_nan else np.where(np.isnan(x), 0.0, found)


def all_numbers(fmt):
    """Every number of a format of up to 8 bits, from its bit patterns."""
    codes = np.arange(1 << fmt.bits, dtype=np.uint8).view(fmt.dtype).astype(np.float64)
    return np.unique(codes[np.isfinite(codes)])


# -- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least", "largest", "normal", "subnormal", "mantissa", "inf", "nan"),
    [
        ("int4", -8, 7, 1, 1, 3, False, False),
        ("uint8", 0, 255, 1, 1, 8, False, False),
        ("int16", -32768, 32767, 1, 1, 15, False, False),
        ("q3.4", -8, 7.9375, 1 / 16, 1 / 16, 7, False, False),
        ("uq4.4", 0, 15.9375, 1 / 16, 1 / 16, 8, False, False),
        ("float16", -65504, 65504, 2**-14, 2**-24, 10, True, True),
        ("bfloat16", -(2**128 - 2**120), 2**128 - 2**120, 2**-126, 2**-133, 7, True, True),
        ("float8_e4m3fn", -448, 448, 2**-6, 2**-9, 3, False, True),
        ("float8_e4m3", -240, 240, 2**-6, 2**-9, 3, True, True),
        ("float8_e3m4", -15.5, 15.5, 2**-2, 2**-6, 4, True, True),
        ("float8_e5m2", -57344, 57344, 2**-14, 2**-16, 2, True, True),
        ("float8_e4m3fnuz", -240, 240, 2**-7, 2**-10, 3, False, True),
        ("float8_e5m2fnuz", -57344, 57344, 2**-15, 2**-17, 2, False, True),
        ("float8_e4m3b11fnuz", -30, 30, 2**-10, 2**-13, 3, False, True),
        ("float8_e8m0fnu", 2**-127, 2**127, 2**-127, 2**-127, 0, False, True),
        ("float6_e2m3fn", -7.5, 7.5, 1, 1 / 8, 3, False, False),
        ("float6_e3m2fn", -28, 28, 1 / 4, 1 / 16, 2, False, False),
        ("float4_e2m1fn", -6, 6, 1, 0.5, 1, False, False),
    ],
)
def test_limits_are_those_of_the_published_formats(
    name, least, largest, normal, subnormal, mantissa, inf, nan
):
    f = format_of(name)
    assert (f.least, f.largest) == (least, largest)
    assert (f.smallest_normal, f.smallest_subnormal) == (normal, subnormal)
    assert (f.mantissa_bits, f.has_inf, f.has_nan) == (mantissa, inf, nan)


@pytest.mark.parametrize("name", [n for n in FLOATS if format_of(n).bits <= 8])
def test_limits_are_those_of_all_bit_patterns(name):
    f = format_of(name)
    numbers = all_numbers(f)
    assert (numbers.min(), numbers.max()) == (f.least, f.largest)
    assert numbers[numbers > 0].min() == f.smallest_subnormal


def test_what_casts_saturate():
    saturating = {n for n in names() if format_of(n).kind == "float" and format_of(n).saturating}
    assert saturating == {"float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"}


def test_every_dtype_of_ml_dtypes_is_known():
    known = {n for n in dir(ml_dtypes) if n.startswith(("float", "int", "uint", "bfloat"))}
    assert known <= set(names())


def test_blocks_are_elements_and_a_scale():
    f = format_of("mxfp8_e4m3")
    assert (f.kind, f.block, f.bits) == ("block", 32, 8)
    assert f.element is format_of("float8_e4m3fn")
    assert f.largest == 448 * 2.0**127
    assert format_of("mxint8").element.largest == 2 - 2**-6
    assert {format_of(n).bits for n in BLOCKS} == {4, 6, 8}


def test_fixed_point_by_total_bits():
    for a, b in [("fixed8.4", "q3.4"), ("ufixed8.4", "uq4.4"), ("fixed8.0", "int8")]:
        assert format_of(a).codes == format_of(b).codes
        assert format_of(a).largest == format_of(b).largest


@pytest.mark.parametrize("given", [np.int8, "int8", np.dtype("int8"), jnp.int8])
def test_formats_are_known_by_name_and_dtype(given):
    assert format_of(given) is format_of("int8")
    assert format_of(format_of("int8")) is format_of("int8")
    assert str(format_of(jnp.float8_e5m2)) == "float8_e5m2"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bfloat61", "no format 'bfloat61'; the nearest are 'bfloat16'"),
        ("zzz", "no format 'zzz'; fixed point is 'q3.4'"),
        ("complex64", "no format 'complex64'"),
        ("q60.4", "fixed point has up to 53 bits"),
        ("fixed1.4", "and at least one beside the sign"),
    ],
)
def test_other_names_are_errors(name, text):
    with pytest.raises(ValueError, match=text):
        format_of(name)


# -- rounding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALUES)
@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_rounding_is_the_cast(name, numbers):
    f = format_of(name)
    x = np.array(numbers, np.float32)
    assert same(f.round(x), cast(x, f))
    wide = np.array(numbers, np.float64) * 1.000001
    assert same(f.round(wide), cast(wide, f))


@pytest.mark.parametrize("name", VALUES)
def test_what_is_beyond_the_ends_is_cast_as_ml_dtypes_casts_it(name):
    fmt = format_of(name)
    half = 2.0 ** (fmt.max_exponent - fmt.mantissa_bits) / 2
    ends = np.array([fmt.largest, fmt.largest + half, fmt.largest + 1.5 * half, 1e-40, 1e-45, INF])
    with np.errstate(over="ignore"):
        ends = ends.astype(np.float32)
    bits = np.random.default_rng(0).integers(0, 1 << 32, 5000, dtype=np.uint32)
    x = np.concatenate([ends, np.nextafter(ends, np.float32(INF)), bits.view(np.float32)])
    x = np.concatenate([x[~np.isnan(x)], [np.float32(math.nan)] * fmt.has_nan]).astype(np.float32)
    x = np.concatenate([x, -x])
    with np.errstate(all="ignore"):
        expected = x.astype(fmt.dtype).astype(np.float32)
    assert same(fmt.cast(x), expected)
    assert same(jax.jit(fmt.cast)(x), expected)


@pytest.mark.parametrize("name", [n for n in VALUES if format_of(n).bits <= 8])
def test_ties_go_to_even(name):
    f = format_of(name)
    numbers = all_numbers(f).astype(np.float32)
    middles = (numbers[1:] + numbers[:-1]) / 2
    ends = (np.float32(-np.inf), np.float32(np.inf))
    for x in (numbers, middles, *(np.nextafter(middles, end) for end in ends)):
        assert same(f.round(x), cast(x, f))
    assert same(f.round(numbers), numbers)


@pytest.mark.parametrize("name", [*VALUES, *INTS, "q3.4", *BLOCKS])
def test_jax_rounds_as_numpy_does(name):
    f = format_of(name)
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4, 100)) * 2.0 ** rng.integers(-20, 20, (4, 100))).astype(np.float32)
    x[0, :6] = [0, -0.0, np.inf, -np.inf, np.nan, 1e38]
    for round_ in (f.round, jax.jit(f.round)):
        found = round_(jnp.asarray(x))
        assert isinstance(found, jax.Array)
        assert same(found, f.round(x))


@pytest.mark.parametrize("name", [*VALUES, *INTS, "q3.4", "uq0.8"])
@given(st.lists(NUMBERS, min_size=1, max_size=8), st.sampled_from([1.0, 0.25, 0.3]))
def test_rounding_laws(name, numbers, scale):
    f = format_of(name)
    x = np.sort(np.array(numbers, np.float32))
    y = f.round(x, scale)
    kept = ~np.isnan(x)
    assert (np.isnan(y) == (~kept if f.has_nan else False)).all()
    assert (np.diff(y[kept]) >= 0).all()  # monotone
    assert (y[kept] >= np.float32(f.least) * np.float32(scale)).all()
    assert (y[kept] <= np.float32(f.largest) * np.float32(scale)).all()
    if scale != 0.3:
        assert same(f.round(y, scale), y)  # idempotent


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8),
    st.sampled_from([0.01, 0.5, 1.0, 7.0]),
    st.integers(0, 255),
)
def test_integers_are_the_formula(numbers, scale, zero_point):
    x = np.array(numbers, np.float32)
    expected = [
        (
            min(max(round(float(np.float32(v) / np.float32(scale))) + zero_point, 0), 255)
            - zero_point
        )
        * float(np.float32(scale))
        for v in x
    ]
    found = format_of("uint8").round(x, scale, zero_point)
    assert same(found, np.array(expected).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_the_dtype_stays(dtype):
    x = np.array([0.3, 1.7], dtype)
    assert format_of("int8").round(x).dtype == dtype
    assert format_of("float8_e4m3fn").round(x, np.float64(0.5)).dtype == dtype


def test_integers_become_floats():
    assert same(format_of("int4").round(np.array([3, 9, -12])), [3, 7, -8])
    assert format_of("int4").round(jnp.array([3, 9])).dtype == jnp.float32
    assert format_of("int4").round(2.6) == 3


def test_scales_of_channels_broadcast():
    x = np.array([[1.0, 1.0], [10.0, 10.0]], np.float32)
    y = format_of("int4").round(x, np.array([[0.3], [3.0]]), np.array([[0], [1]]))
    np.testing.assert_allclose(y, [[0.9, 0.9], [9, 9]], rtol=1e-6)


def test_the_format_of_scales_rounds_to_powers_of_two():
    f = format_of("float8_e8m0fnu")
    assert same(f.round(np.array([3.1, 2.9, 1e-9, 0.0, -1.0])), [4, 2, 2**-30, 2**-127, 2**-127])
    with np.errstate(all="ignore"):
        x = np.array([0.75, 0.375, 1.5, 3.0, 1.1])
        assert same(f.round(x), x.astype(f.dtype))


def block_by_hand(x, element):
    """One block, by the formula of the specification in plain Python."""
    amax = max((abs(v) for v in x if math.isfinite(v)), default=0.0)
    exponent = math.frexp(amax)[1] - 1 if amax else -127
    shared = 2.0 ** min(max(exponent - element.max_exponent, -126), 127)
    return [float(element.round(np.float64(v / shared))) * shared for v in x]


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_blocks_are_the_formula(name, length):
    f = format_of(name)
    rng = np.random.default_rng(length)
    x = (rng.normal(size=length) * 2.0 ** rng.integers(-9, 9, length)).astype(np.float32)
    blocks = [x[i : i + 32].tolist() for i in range(0, length, 32)]
    expected = [v for block in blocks for v in block_by_hand(block, f.element)]
    assert same(f.round(x), expected)
    assert same(f.round(np.stack([x, 3 * x]))[0], expected)


def test_blocks_of_nothing_and_of_specials():
    f = format_of("mxfp8_e4m3")
    assert same(f.round(np.zeros(40, np.float32)), np.zeros(40))
    assert f.round(np.zeros((3, 0), np.float32)).shape == (3, 0)
    assert f.round(np.float32(3.3)) == 3.25
    y = f.round(np.array([np.inf, -np.inf, np.nan, 1.0], np.float32))
    assert y[0] == -y[1] == 448 * 2.0**-8
    assert np.isnan(y[2]) and y[3] == 1


def test_only_uniform_formats_have_zero_points_and_codes():
    with pytest.raises(ValueError, match="only integers and fixed point have a zero point, not f"):
        format_of("float8_e4m3fn").round(np.ones(2), 1.0, 3)
    with pytest.raises(ValueError, match="bfloat16 has no integer codes"):
        _ = format_of("bfloat16").codes


def test_formats_are_values():
    assert isinstance(format_of("int8"), Format)
    assert len({format_of(n) for n in names()}) == len(names())
