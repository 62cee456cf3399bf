"""What else can be watched for: values that a number format would saturate, or flush to zero.

"float8_e4m3fn saturates": a value beyond the ends of the format, where no operand is beyond.
"float16 subnormals": a value too small for the full precision of the format, where no operand is;
or a zero that multiplying, dividing or converting made of what was none.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_ranges import keys
from jax_ranges.formats import Format, format_of
from jax_ranges.statistics.words import real_parts

KINDS = {"saturates": "saturated", "subnormals": "flushed"}
UNDERFLOWS = frozenset({"convert_element_type", "div", "mul"})


@dataclass(frozen=True)
class Watch:
    """What is watched for, by the name of a format."""

    format: str
    kind: str

    @property
    def limits(self) -> Format:
        return format_of(self.format)

    def marks(self, underflows: bool, value: Any, operands: Sequence[Any]) -> Any:
        """Where the value is what is watched for, and no operand is.

        underflows: it is the product, the quotient or the conversion of the operands.
        """
        is_one = _beyond if self.kind == "saturated" else _tiny
        mark = is_one(self.limits, value)
        for operand in operands:
            mark &= ~is_one(self.limits, operand)
        if self.kind == "flushed" and underflows and operands:
            mark |= _is_zero(value) & functools.reduce(jnp.logical_and, map(_is_some, operands))
        return mark

    def is_beyond(self, least: Any, most: Any, ends: Any) -> Any:
        """Whether extrema (as keys) are beyond these ends."""
        low, high = ends
        return (least <= most) & ((most > high) | (least < low))


def watches(given: str | Iterable[str]) -> tuple[Watch, ...]:
    """What is to be watched for.

    Raises:
      ValueError: one of them does not say "<format> saturates" or "<format> subnormals".
    """
    return tuple(map(_watch, (given,) if isinstance(given, str) else given))


def _watch(text: Any) -> Watch:
    words = text.split() if isinstance(text, str) else ()
    if len(words) != 2 or words[1] not in KINDS:
        raise ValueError(
            f"watch takes '<format> saturates' or '<format> subnormals', such as "
            f"'float8_e4m3fn saturates'; got {text!r}"
        )
    return Watch(format_of(words[0]).name, KINDS[words[1]])


def key_ends(fmt: Format, dtype: np.dtype) -> tuple[int, int]:
    """The keys, in this dtype, of the least and the largest number that the format reaches.

    Of a dtype that reaches no farther those of the infinities: nothing is beyond them.
    """
    carrier = keys.carrier_dtype(dtype) if keys.is_float(dtype) else np.dtype(np.float64)
    if not keys.is_float(dtype):
        info = np.iinfo(keys.key_dtype(dtype))
        return int(info.min), int(info.max)
    reach = float(jnp.finfo(dtype).max)
    least = -np.inf if fmt.least <= -reach else _towards_zero(fmt.least, dtype, carrier)
    most = np.inf if fmt.largest >= reach else _towards_zero(fmt.largest, dtype, carrier)
    low, high = (keys.key_of(np.asarray(x, dtype), np) for x in (least, most))
    return int(low), int(high)


def _towards_zero(limit: float, dtype: np.dtype, carrier: np.dtype) -> float:
    """The number of the dtype nearest to the limit that is not beyond it."""
    number = np.asarray(limit, np.float64).astype(dtype)
    if abs(float(number.astype(carrier))) <= abs(limit):
        return float(number.astype(carrier))
    bits = keys.float_bits(np.asarray(number), np)
    word = bits.dtype.type
    return float((bits - word(1)).view(keys.float_word(dtype)[0]).astype(np.float64))


def _beyond(fmt: Format, x: Any) -> Any:
    return functools.reduce(
        jnp.logical_or, [_part_beyond(fmt, part) for part in real_parts(jnp.asarray(x))]
    )


def _part_beyond(fmt: Format, x: Any) -> Any:
    low, high = key_ends(fmt, x.dtype)
    _, word = keys.float_word(x.dtype)
    bits = keys.float_bits(x)
    key = keys.flip(bits, word)
    nan = (bits & word.type(np.iinfo(word).max)) > word.type(keys.infinity(x.dtype))
    return ~nan & ((key > word.type(high)) | (key < word.type(low)))


def _tiny(fmt: Format, x: Any) -> Any:
    return functools.reduce(
        jnp.logical_or, [_part_tiny(fmt, part) for part in real_parts(jnp.asarray(x))]
    )


def _part_tiny(fmt: Format, x: Any) -> Any:
    carrier, word = keys.float_word(x.dtype)
    normal = np.asarray(fmt.smallest_normal, np.float64).astype(carrier).view(word)
    magnitude = keys.float_bits(x) & word.type(np.iinfo(word).max)
    return (magnitude > 0) & (magnitude < word.type(normal))


def _is_zero(x: Any) -> Any:
    return jnp.asarray(x) == 0


def _is_some(x: Any) -> Any:
    """Neither zero nor, as a divisor, infinite: its own subnormals are some, too."""
    x = jnp.asarray(x)
    return (x != 0) & jnp.isfinite(x)
