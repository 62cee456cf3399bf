"""Elementwise operations on all numbers of the narrow dtypes, and on the awkward ones of all.

What XLA makes of them, eagerly and fused, is within what `jr.bounds` proves of blocks of them, of
single numbers too; what is derived is what was computed; and where it is said that nothing is
born, nothing is. See `elementwise.py` for how. `-m slow` takes every number of 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from tests.elementwise import Box, Program, boxes, numbers, tiles
from tests.values import HALVES, INTS, SMALL_FLOATS, is_float

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
BOOL = np.dtype(bool)
HALF, BRAIN = HALVES

UNARY: dict[str, Callable[[Any], Any]] = {
    **{
        name: getattr(lax, name)
        for name in (
            *("exp", "exp2", "expm1", "log", "log1p", "sqrt", "cbrt", "rsqrt", "tanh", "logistic"),
            *("erf", "erfc", "erf_inv", "sin", "cos", "tan", "asin", "acos", "atan", "sinh"),
            *("cosh", "asinh", "acosh", "atanh", "abs", "square", "sign", "floor", "ceil"),
            *("round", "is_finite", "lgamma", "digamma", "bessel_i0e", "bessel_i1e"),
        )
    },
    "to even": lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    "to 8 bits": lambda x: lax.reduce_precision(x, 4, 3),
    "powers": lambda x: [lax.integer_pow(x, n) for n in (0, 1, 2, 3, 4, 5, 7)],
    "roots": lambda x: [lax.integer_pow(x, n) for n in (-1, -2, -3, -4)],
    "literals": lambda x: [op(x, np.array(c, x.dtype)) for op in LITERAL for c in (0.3, 3, 1e-3)],
    "literals first": lambda x: [op(np.array(c, x.dtype), x) for op in LITERAL for c in (1, -7.1)],
    "clamped": lambda x: lax.clamp(np.array(0, x.dtype), x, np.array(6, x.dtype)),
    "same": lambda x: [x - x, x / x, x * x - x, lax.max(x, x), lax.pow(x, x)],
}
LITERAL = (lax.add, lax.sub, lax.mul, lax.div, lax.rem, lax.max, lax.min)

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "arithmetic": lambda a, b: [a + b, a - b, a * b, a / b, lax.rem(a, b)],
    "functions": lambda a, b: [lax.pow(a, b), lax.atan2(a, b), lax.nextafter(a, b)],
    "order": lambda a, b: [
        *(lax.max(a, b), lax.min(a, b), a < b, a <= b, a > b, a >= b, a == b, a != b),
        *(lax.clamp(a, b, a), lax.clamp(b, a, jnp.ones_like(a)), lax.select(a > b, a, b)),
    ],
    "fused": lambda a, b: [
        *(a * b + a, a - b * b, (a + b) * (a - b), a / (a / b), a / b / a, a * b / a, a - (a - b)),
        *(lax.rsqrt(a) * b, b / lax.sqrt(a)),
        *(lax.square(a - b), lax.sign(a - b), lax.max(-a, b) * np.array(3, a.dtype)),
    ],
}

BINARY["rewritten"] = lambda a, b: [
    *(lax.exp(a) * lax.exp(b), a / lax.exp(b), lax.exp(a) / lax.exp(b), lax.exp2(a) * lax.exp2(b)),
    *(lax.exp(a) * (lax.exp(b) * lax.exp(a)), lax.log(lax.exp(a)), lax.exp(lax.log(a))),
    *(lax.log(lax.pow(lax.abs(a), b)), lax.pow(lax.exp(a), b), a / lax.pow(lax.abs(b), a)),
    *(
        lax.sqrt(a * a),
        lax.rsqrt(a) * lax.rsqrt(a),
        lax.sqrt(a) * lax.sqrt(a),
        lax.abs(a) * lax.abs(a),
    ),
    *(-(a - b), a - (-b), a * -b, lax.sqrt(lax.square(a)), a / -b, (-a) * (-b), a / lax.rsqrt(b)),
    *(lax.square(lax.sqrt(a)), lax.tanh(lax.log(a)), lax.log(a * b), a * a * a, a * (b / a)),
]

WHOLE: dict[str, Callable[[Any, Any], Any]] = {
    "unary": lambda a, b: [
        *(lax.neg(a), lax.sign(a), lax.bitwise_not(a), lax.population_count(a), lax.clz(a)),
        *(lax.integer_pow(a, n) for n in (0, 1, 2, 3)),
        *((lax.abs(a),) if a.dtype.kind == "i" else ()),
    ],
    "binary": lambda a, b: [
        *(a + b, a - b, a * b, lax.div(a, b), lax.rem(a, b), lax.max(a, b), lax.min(a, b)),
        *(lax.bitwise_and(a, b), lax.bitwise_or(a, b), lax.bitwise_xor(a, b)),
        *(lax.shift_left(a, b), lax.shift_right_logical(a, b), lax.shift_right_arithmetic(a, b)),
        *(a < b, a <= b, a == b, a != b, lax.clamp(a, b, a), lax.select(a > b, a, b)),
    ],
}
LOGIC: Callable[[Any, Any], Any] = lambda a, b: [  # noqa: E731
    *(lax.bitwise_and(a, b), lax.bitwise_or(a, b), lax.bitwise_xor(a, b), lax.bitwise_not(a)),
    *(a < b, a == b, lax.max(a, b), lax.min(a, b), lax.select(a, b, a)),
]


def used(fun: Callable[..., Any]) -> Callable[..., list[Any]]:
    """With operations after it, with which XLA fuses it."""

    def run(*args: Any) -> list[Any]:
        outs = jax.tree.leaves(fun(*args))
        y = next((y for y in outs if jnp.issubdtype(y.dtype, jnp.floating)), None)
        if y is None:
            return outs
        wide = lax.convert_element_type(y, np.float32)
        return [*outs, -y, lax.abs(y), y + args[0], y * args[0], y * y + args[0], wide]

    return run


def chosen(program: Program, count: int) -> Iterator[Box]:
    """Boxes of all sizes; many about zero, where all are small."""
    rng = np.random.default_rng(len(program.sites))
    lengths = [len(x) for x in program.operands]
    yield from boxes(lengths, count, rng)
    with np.errstate(invalid="ignore"):
        zeros = [int(np.searchsorted(x.astype(np.float64), 0.0)) for x in program.operands]
    for _ in range(count // 2):
        near = zip(zeros, lengths, strict=True)
        starts = [min(max(0, zero + int(rng.integers(-6, 6))), n - 1) for zero, n in near]
        yield tuple(slice(n, n + int(rng.integers(1, 3))) for n in starts)


def check(
    fun: Callable[..., Any], operands: Sequence[Any], count: int, more: Sequence[Box] = ()
) -> None:
    program = Program(fun, operands)
    places = [*chosen(program, count), *more]
    for how in ("eager", "jit"):
        outs = program.results(how)
        outside = program.outside(places, how, outs)
        assert not outside, "\n".join(map(str, outside[:20]))
        assert not program.born(outs), how


# -- proven intervals -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [F32, BRAIN], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_functions(name, dtype):
    check(used(UNARY[name]), [numbers(dtype, 600)], 30)


@pytest.mark.parametrize("dtype", [F32, BRAIN], ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two(name, dtype):
    check(BINARY[name], [numbers(dtype, 60, near=2)] * 2, 60)


@pytest.mark.parametrize("dtype", [d for d in INTS if d.name in ("int4", "uint32")], ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_integers(name, dtype):
    check(WHOLE[name], [numbers(dtype, 60, near=2)] * 2, 50)


def test_booleans():
    check(LOGIC, [numbers(BOOL, 2)] * 2, 20)


DTYPES = [*SMALL_FLOATS, *HALVES, F32, *INTS, BOOL]


def casts(dtype: np.dtype, dtypes: Sequence[np.dtype]) -> Callable[[Any], Any]:
    """To all dtypes, of numbers that are given, and of numbers that are computed."""

    def run(x: Any) -> list[Any]:
        found = [lax.convert_element_type(x, to) for to in dtypes]
        if is_float(dtype):
            square = x * x
            found += [lax.convert_element_type(square, to) for to in dtypes if is_float(to)]
        return [*found, *(lax.bitcast_convert_type(x, to) for to in dtypes if _has_bits(dtype, to))]

    return run


def _bits_of(dtype: np.dtype) -> int:
    return (ml_dtypes.finfo if is_float(dtype) else ml_dtypes.iinfo)(dtype).bits


def _has_bits(dtype: np.dtype, to: np.dtype) -> bool:
    return BOOL not in (dtype, to) and jax.dtypes.itemsize_bits(dtype) == jax.dtypes.itemsize_bits(
        to
    )


def check_casts(dtype: np.dtype, dtypes: Sequence[np.dtype], count: int, how: str) -> None:
    program = Program(casts(dtype, dtypes), [numbers(dtype, 300)])
    outs = program.results(how)
    outside = program.outside([*chosen(program, count)], how, outs)
    assert not outside, "\n".join(map(str, outside[:20]))
    assert not program.born(outs)


SOME = ("float8_e4m3fn", "float4_e2m1fn", "float16", "float32", "int4", "uint8", "bool")
FEW = [dtype for dtype in DTYPES if dtype.name in SOME]


@pytest.mark.parametrize("dtype", FEW, ids=str)
def test_casts(dtype):
    check_casts(dtype, FEW, 60, "jit")


# -- derived ranges ---------------------------------------------------------------------------


def derivable(x: Any) -> list[Any]:
    """What follows without measuring: of the numbers themselves, and of what was computed."""
    c = x.dtype.type
    largest = float(ml_dtypes.finfo(x.dtype).max)
    y = lax.tanh(x)
    found = []
    for z in (x, y):
        found += [lax.neg(z), lax.neg(lax.max(z, c(0)))]
        found += [op(z, c(k)) for op in (lax.max, lax.min) for k in (0, -0.0, 1.5, -2, 1e-3)]
        found += [lax.mul(z, c(k)) for k in (0.1, -3, 1024, 1e-3, largest)]
        found += [lax.div(z, c(k)) for k in (8, -0.5)]
        found += [lax.convert_element_type(z, to) for to in (*SMALL_FLOATS, *HALVES, F32)]
        found += [lax.clamp(c(-1), z, c(6)), lax.integer_pow(z, 3), lax.neg(lax.mul(z, c(0.3)))]
    found += [op(x, c(k)) for op in (lax.add, lax.sub) for k in (0.1, -2.5, 1e-3, largest)]
    found += [lax.sub(c(k), x) for k in (1, -0.7)]
    relu = lax.max(x, c(0))
    half = lax.convert_element_type(x, ml_dtypes.bfloat16)
    return [
        *(*found, lax.mul(lax.add(relu, c(1e-3)), c(0.3)), lax.min(relu, c(6)), half),
        *(lax.neg(half), lax.convert_element_type(lax.max(half, half.dtype.type(0)), F32)),
    ]


def check_derived(dtype: np.dtype, count: int, hows: Sequence[str]) -> None:
    program = Program(derivable, [numbers(dtype, count)])
    assert sum(row.how == "derived" for row in program.plan.rows) > 65
    for how in hows:
        outs = program.results(how)
        assert not program.misderived(outs), how
        assert not program.born(outs), how


@pytest.mark.parametrize("dtype", [F32, BRAIN], ids=str)
def test_what_is_derived_is_what_was_computed(dtype):
    check_derived(dtype, 2000, ["jit"])


# -- every number of 16 bits ------------------------------------------------------------------


def everywhere(length: int) -> list[Box]:
    return [*tiles(length, 8), *tiles(length, 300)]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_all_halves(name, dtype):
    every = numbers(dtype, 1 << 16)
    check(used(UNARY[name]), [every], 1500, everywhere(len(every)))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_many_numbers(name, dtype):
    check(used(UNARY[name]), [numbers(dtype, 200_000, near=60)], 2000)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [F32, F64, *HALVES], ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_many_pairs(name, dtype):
    check(BINARY[name], [numbers(dtype, 500, near=4)] * 2, 2000)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [*INTS, np.dtype(np.int64), np.dtype(np.uint64)], ids=str)
@pytest.mark.parametrize("name", WHOLE)
def test_many_integers(name, dtype):
    check(WHOLE[name], [numbers(dtype, 300, near=5)] * 2, 2000)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("dtype", [*DTYPES, F64, np.dtype(np.int64), np.dtype(np.uint64)], ids=str)
def test_all_casts(dtype, how):
    check_casts(dtype, [*DTYPES, F64, np.dtype(np.int64), np.dtype(np.uint64)], 300, how)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [F32, *HALVES], ids=str)
def test_what_is_derived_of_all_numbers_is_what_was_computed(dtype):
    check_derived(dtype, 1 << 20, ["eager", "jit"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image"),
    [
        *((name, (-1.0, 1.0)) for name in ("tanh", "sin", "cos")),
        *(("logistic", (0.0, 1.0)), ("erfc", (0.0, 2.0)), ("erf", (-1 - 2.0**-22, 1 + 2.0**-22))),
    ],
)
def test_images_hold_every_float32_between_2_to_the_minus_12_and_2_to_the_17(name, image):
    fun = jax.jit(getattr(lax, name))
    ends = [int(np.float32(end).view(np.int32)) for end in (2.0**-12, 2.0**17)]
    for start in range(*ends, 1 << 24):
        x = np.arange(start, min(start + (1 << 24), ends[1]), dtype=np.int32).view(np.float32)
        for y in (np.asarray(fun(x)), np.asarray(fun(-x))):
            assert image[0] <= y.min() and y.max() <= image[1]
