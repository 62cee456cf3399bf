"""Dtypes and awkward values that the tests share."""

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

SMALL_FLOATS = [
    np.dtype(getattr(ml_dtypes, name))
    for name in (
        "float8_e3m4",
        "float8_e4m3",
        "float8_e4m3b11fnuz",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn",
    )
]
HALVES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
FLOATS = [*SMALL_FLOATS, *HALVES, np.dtype(np.float32)]
SMALL_INTS = [np.dtype(getattr(ml_dtypes, n)) for n in ("int2", "uint2", "int4", "uint4")]
INTS = [*SMALL_INTS, *map(np.dtype, ("int8", "uint8", "int16", "uint16", "int32", "uint32"))]
COMPLEX = [np.dtype(np.complex64)]
NARROW = [*FLOATS, *INTS, np.dtype(bool), *COMPLEX]
WIDE = [np.dtype(n) for n in ("float64", "int64", "uint64", "complex128")]


def is_float(dtype):
    return dtype in FLOATS or dtype == np.float64


def is_complex(dtype):
    return dtype.kind == "c"


def cast(array, dtype):
    """Quietly, what overflows included."""
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def random_array(dtype, shape, rng):
    """All bit patterns are equally likely: NaN, infinities and subnormals of every kind."""
    if is_complex(dtype):
        part = np.dtype(f"float{dtype.itemsize * 4}")
        return random_array(part, (*shape, 2), rng).view(dtype)[..., 0]
    if dtype == np.dtype(bool) or dtype in SMALL_INTS:
        return rng.integers(-2, 16, shape).astype(dtype)
    if dtype == np.dtype(ml_dtypes.float4_e2m1fn):  # 4 bits stored in 8
        return rng.integers(0, 16, shape).astype(np.uint8).view(dtype)
    return rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype)[..., 0]


def specials(dtype):
    """The awkward values of a float dtype, as an array."""
    info = ml_dtypes.finfo(dtype)
    numbers = [0.0, -0.0, 1.0, -1.0, 3.0, float(info.max), float(info.min)]
    numbers += [float(info.smallest_subnormal), -float(info.smallest_subnormal)]
    numbers += [float(info.tiny), float(info.tiny) / 2, np.inf, -np.inf, np.nan, 1e-3, -7.5]
    return cast(
        cast(np.array(numbers), np.float32) if dtype in SMALL_FLOATS else np.array(numbers), dtype
    )


def float_arrays(dtype):
    """A hypothesis strategy: arrays of a float dtype, specials likely."""
    pool = specials(dtype)
    anything = st.floats(width=32).map(lambda x: cast(np.array(x, np.float32), dtype)[()])
    elements = st.sampled_from(range(len(pool))).map(lambda i: pool[i]) | anything
    # Few shapes: each is compiled.
    shapes = st.sampled_from([(), (0,), (3,), (2, 5)])
    return shapes.flatmap(
        lambda shape: st.lists(
            elements, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))
        ).map(lambda xs: np.array(xs, dtype).reshape(shape))
    )


def numpy_range(array):
    """(min, max, nan, observed) by numpy alone: the oracle for one array."""
    x = np.asarray(array).ravel()
    if is_complex(x.dtype):
        x = np.concatenate([x.real, x.imag])
    if not is_float(x.dtype):
        return (x.min(), x.max(), False, True) if x.size else (None, None, False, False)
    x = cast(x, np.float64)
    kept = x[~np.isnan(x)]
    nan = kept.size < x.size
    if not kept.size:
        return None, None, nan, nan
    return kept.min(), kept.max(), nan, True
