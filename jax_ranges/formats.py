"""Number formats: what numbers each has, and rounding to them.

    format_of("float8_e4m3fn").largest        # 448.0
    format_of("q3.4").round(x)                # fixed point: sign, 3 integer bits, 4 fraction bits
    format_of("int8").round(x, scale, 10)     # values, not codes: what x becomes in int8

| name | what |
|---|---|
| `int4`, `uint4`, `int8`, `uint8`, `int16`, ... | integers |
| `q3.4`, `uq4.4` | fixed point Qm.n: m integer bits and n fraction bits, besides the sign if any |
| `fixed8.4`, `ufixed8.4` | fixed point of 8 bits in total (the sign included), 4 of them fraction |
| `float16`, `bfloat16`, `float8_e4m3fn`, `float6_e3m2fn`, `float4_e2m1fn`, ... | floats |
| `mxfp8_e4m3`, `mxfp8_e5m2`, `mxfp6_e3m2`, `mxfp6_e2m3`, `mxfp4`, `mxint8` | blocks of 32 |

A block is 32 elements along the last axis with a power of two (a float8_e8m0fnu) that scales all
of them: OCP Microscaling Formats (MX) Specification, version 1.0. Every limit is asked of
ml_dtypes or numpy, and whether a format has infinities, and whether a cast to it saturates, by
casting: a format that ml_dtypes adds is known here, and nothing is typed in.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from jax_ranges import rounding

FormatLike = Any
"""The name of a format, a dtype, or a `Format`."""


@dataclass(frozen=True)
class Format:
    """A number format.

    Attributes:
      name: as `format_of` takes it.
      kind: "int", "fixed", "float" or "block".
      bits: of one element, without the shared scale of a block.
      least, largest: the finite ends.
      smallest_normal: the smallest positive number with full precision; `step` for integers and
        fixed point, which have no others.
      smallest_subnormal: the smallest positive number.
      mantissa_bits: stored bits of the significand; for integers and fixed point the bits
        besides the sign.
      has_inf, has_nan: whether there are such codes.
      saturating: whether a cast gives the nearest end for what lies beyond, not inf or NaN.
        `round` always does.
      dtype: what ml_dtypes or numpy call it; None for fixed point and blocks.
      element, block: of blocks, what they consist of and of how many.

    Example:
      >>> import jax_ranges as jr
      >>> e4m3 = jr.format_of("float8_e4m3fn")
      >>> e4m3.largest, e4m3.smallest_normal, e4m3.smallest_subnormal, e4m3.has_inf
      (448.0, 0.015625, 0.001953125, False)
      >>> import numpy as np
      >>> jr.format_of("q3.4").round(np.array([0.1, -100.0]))
      array([ 0.125, -8.   ])
    """

    name: str
    kind: str
    bits: int
    least: int | float
    largest: int | float
    smallest_normal: float
    smallest_subnormal: float
    mantissa_bits: int
    has_inf: bool = False
    has_nan: bool = False
    saturating: bool = True
    dtype: np.dtype | None = None
    element: Format | None = None
    block: int | None = None

    @property
    def signed(self) -> bool:
        """Whether there are numbers below zero."""
        return self.least < 0

    @property
    def has_zero(self) -> bool:
        """All but float8_e8m0fnu, the format of scales."""
        return self.least <= 0

    @property
    def uniform(self) -> bool:
        """Whether all steps are equal, so that it can have a zero point: int and fixed."""
        return self.kind in ("int", "fixed")

    @property
    def step(self) -> float:
        """From zero to the next number; from any to the next if `uniform`."""
        return self.smallest_subnormal

    @property
    def codes(self) -> tuple[int, int]:
        """The least and the largest integer that stand for a number; of uniform formats."""
        if not self.uniform:
            raise ValueError(f"{self.name} has no integer codes")
        return int(self.least / self.step), int(self.largest / self.step)

    @property
    def min_exponent(self) -> int:
        """floor(log2) of the smallest normal number."""
        return rounding.exponent_of(self.smallest_normal)

    @property
    def max_exponent(self) -> int:
        """floor(log2) of the largest number."""
        return rounding.exponent_of(self.largest)

    def round(self, x: Any, scale: Any = 1.0, zero_point: Any = 0) -> Any:
        """What x becomes in this format: the nearest `scale * (number of the format)`.

        Ties go to even, what is beyond the ends (infinities too) becomes the end, NaN stays NaN
        or, in a format without one, becomes zero, as XLA's conversion to integers has it. For
        uniform formats `scale * (clip(rint(x / scale) + zero_point) - zero_point)`, as ONNX's
        QuantizeLinear and DequantizeLinear. Blocks lie along the last axis.

        Args:
          x: numpy or jax array (traced too).
          scale, zero_point: scalars, or arrays that broadcast against x.

        Returns:
          Values in the dtype of x (float64, or jax's default, if that is of integers), computed
          in float32, or float64 where x is: the same bits by numpy and by jax, except that XLA
          flushes subnormals of float32 in its division by the scale.

        Example:
          >>> import numpy as np
          >>> import jax_ranges as jr
          >>> x = np.array([0.24, 0.26, 99.0], np.float32)
          >>> jr.format_of("int8").round(x, scale=0.5)
          array([ 0. ,  0.5, 63.5], dtype=float32)
        """
        return rounding.round_to(self, x, scale, zero_point)

    def cast(self, x: Any) -> Any:
        """What x becomes when it is converted to this format and back.

        As `round`, but for what is beyond the ends: as ml_dtypes and XLA convert, it becomes an
        infinity, or NaN in a format that has none; in a format without NaN too (`saturating`)
        the end.

        Example:
          >>> import numpy as np
          >>> x = np.array([1e9, -np.inf, 0.1], np.float32)
          >>> format_of("float16").cast(x)
          array([       inf,       -inf, 0.09997559], dtype=float32)
          >>> format_of("float8_e4m3fn").cast(x)
          array([      nan,       nan, 0.1015625], dtype=float32)
        """
        return rounding.cast_to(self, x)

    def __str__(self) -> str:
        return self.name


def format_of(name: FormatLike) -> Format:
    """The format of a name, or of a dtype; a `Format` is returned as it is.

    Raises:
      ValueError: there is none of that name.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> jr.format_of(jnp.bfloat16).name, jr.format_of("mxfp4").element.name
      ('bfloat16', 'float4_e2m1fn')
      >>> jr.format_of("float8_e4m3nf")
      Traceback (most recent call last):
      ...
      ValueError: no format 'float8_e4m3nf'; the nearest are 'float8_e4m3fn', \
'float8_e4m3', 'float8_e4m3fnuz'
    """
    if isinstance(name, Format):
        return name
    return _named(name if isinstance(name, str) else np.dtype(name).name)


@functools.cache
def _named(name: str) -> Format:
    makers = (_of_dtype, _of_blocks, _of_fixed)
    found = next(filter(None, (make(name) for make in makers)), None)
    if found is None:
        near = difflib.get_close_matches(name, names(), n=3)
        hint = f"the nearest are {', '.join(map(repr, near))}" if near else "fixed point is 'q3.4'"
        raise ValueError(f"no format {name!r}; {hint}")
    return found


def names() -> tuple[str, ...]:
    """The names of all formats but fixed point, of which there are many."""
    return (*_dtypes(), *BLOCKS)


# -- formats that have a dtype ----------------------------------------------------------------


@functools.cache
def _dtypes() -> dict[str, np.dtype]:
    """All integer and float dtypes of numpy and of the installed ml_dtypes, by name."""
    pattern = re.compile(r"b?float\w+|u?int\d+")
    scalars = (found for name, found in vars(ml_dtypes).items() if pattern.fullmatch(name))
    ours = [np.dtype(found) for found in scalars if isinstance(found, type)]
    numpys = [np.dtype(f"{u}int{bits}") for u in ("", "u") for bits in (8, 16, 32, 64)]
    floats = [np.dtype(n) for n in ("float16", "float32", "float64")]
    return {dtype.name: dtype for dtype in (*numpys, *floats, *ours)}


def _of_dtype(name: str) -> Format | None:
    dtype = _dtypes().get(name)
    if dtype is None:
        return None
    return _of_floats(dtype) if "float" in name else _of_integers(dtype)


def _of_integers(dtype: np.dtype) -> Format:
    info = ml_dtypes.iinfo(dtype)
    least, largest = int(info.min), int(info.max)
    bits = largest.bit_length()
    return Format(dtype.name, "int", int(info.bits), least, largest, 1.0, 1.0, bits, dtype=dtype)


def _of_floats(dtype: np.dtype) -> Format:
    info = ml_dtypes.finfo(dtype)
    with np.errstate(all="ignore"):
        cast = np.array([np.inf, np.nan, np.finfo(np.float64).max]).astype(dtype)
        inf, nan, huge = cast.astype(np.float64)
    return Format(
        name=dtype.name,
        kind="float",
        bits=int(info.bits),
        least=float(info.min),
        largest=float(info.max),
        smallest_normal=float(info.smallest_normal),
        smallest_subnormal=float(info.smallest_subnormal),
        mantissa_bits=int(info.nmant),
        has_inf=bool(np.isinf(inf)),
        has_nan=bool(np.isnan(nan)),
        saturating=bool(huge == float(info.max) and not np.isinf(inf)),
        dtype=dtype,
    )


# -- fixed point ------------------------------------------------------------------------------


def _of_fixed(name: str) -> Format | None:
    found = re.fullmatch(r"(u?)(q|fixed)(\d+)\.(\d+)", name)
    if not found:
        return None
    unsigned, style, first, fraction = found[1] == "u", found[2], int(found[3]), int(found[4])
    sign = 0 if unsigned else 1
    total = first if style == "fixed" else sign + first + fraction
    if not sign < total <= 53 or fraction > 1000:
        raise ValueError(f"fixed point has up to 53 bits and at least one beside the sign: {name}")
    return fixed(name, total, fraction, not unsigned)


def fixed(name: str, total: int, fraction: int, signed: bool) -> Format:
    """Fixed point of so many bits in total, the sign included, of which so many are fraction."""
    step, bits = 2.0**-fraction, total - signed
    least = -step * 2**bits if signed else 0.0
    return Format(name, "fixed", total, least, step * (2**bits - 1), step, step, bits)


# -- blocks -----------------------------------------------------------------------------------

BLOCK = 32

# The six of the specification, by its names and the usual short one of the last float.
BLOCKS: dict[str, Callable[[], Format]] = {
    "mxfp8_e4m3": lambda: format_of("float8_e4m3fn"),
    "mxfp8_e5m2": lambda: format_of("float8_e5m2"),
    "mxfp6_e3m2": lambda: format_of("float6_e3m2fn"),
    "mxfp6_e2m3": lambda: format_of("float6_e2m3fn"),
    "mxfp4_e2m1": lambda: format_of("float4_e2m1fn"),
    "mxfp4": lambda: format_of("float4_e2m1fn"),
    "mxint8": lambda: format_of("q1.6"),  # "an implied scale of 2**-6"
}


def _of_blocks(name: str) -> Format | None:
    if name not in BLOCKS:
        return None
    element = BLOCKS[name]()
    shared = format_of("float8_e8m0fnu")
    return Format(
        name=name,
        kind="block",
        bits=element.bits,
        least=element.least * shared.largest,
        largest=element.largest * shared.largest,
        smallest_normal=element.smallest_normal * shared.least,
        smallest_subnormal=element.smallest_subnormal * shared.least,
        mantissa_bits=element.mantissa_bits,
        has_inf=element.has_inf,
        has_nan=True,  # the shared scale has one
        element=element,
        block=BLOCK,
    )
