"""Sentences that explain births: one literal table from primitive to sentence.

Limits are computed from the dtype. Where the ranges of the operands rule a case out it is not
mentioned; where they leave several, it is the likeliest that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_ranges.computations import name_of
from jax_ranges.formats import format_of
from jax_ranges.keys import real_dtype
from jax_ranges.range import Range


@dataclass(frozen=True)
class Case:
    """What is known of one birth.

    Attributes:
      primitive, params: of its equation.
      kind: as `Birth.kind`.
      dtype: of the output.
      inputs: the ranges of the operands, None where that is not known.
      dtypes: of the operands.
      format: the format watched, if it is of a watch.
    """

    primitive: str
    params: Mapping[str, Any]
    kind: str
    dtype: np.dtype
    inputs: Sequence[Range | None]
    dtypes: Sequence[np.dtype]
    format: str = ""

    @property
    def is_nan(self) -> bool:
        return self.kind == "nan"

    @property
    def largest(self) -> float:
        """The largest finite number of the output's dtype."""
        return float(jnp.finfo(real_dtype(self.dtype)).max)

    @property
    def first(self) -> Range | None:
        return self.inputs[0] if self.inputs else None

    @property
    def second(self) -> Range | None:
        return self.inputs[1] if len(self.inputs) > 1 else None


Sentence = Callable[[Case], str]


def explanation(case: Case) -> str:
    """A sentence, without a full stop."""
    if case.format:
        return _watched(case)
    sentence = SENTENCES.get(name_of(case.primitive, case.params))
    return _default(case) if sentence is None else sentence(case)


def _watched(case: Case) -> str:
    limits = format_of(case.format)
    what = "the data" if case.primitive == "input" else case.primitive
    if case.kind == "saturated":
        ends = f"[{number(limits.least)}, {number(limits.largest)}]"
        return f"{what} goes beyond {case.format}, {ends}{given(case)}"
    normal = number(limits.smallest_normal)
    return f"{what} falls below the smallest normal number of {case.format}, {normal}{given(case)}"


def given(case: Case) -> str:
    """The ranges of the inputs, to be put behind a sentence."""
    known = [range_text(r) for r in case.inputs if r is not None]
    return f"; inputs {', '.join(known)}" if known else ""


def number(value: Any) -> str:
    """Six digits at most; integers in full."""
    return f"{float(value):.6g}" if np.abs(float(value)) < 1e16 else f"{float(value):.3g}"


def range_text(found: Range) -> str:
    """A range in brackets, with NaN behind it if there is any."""
    if not found.min <= found.max:
        return "NaN" if found.nan else "nothing"
    one = found.min == found.max
    ends = number(found.min) if one else f"[{number(found.min)}, {number(found.max)}]"
    return f"{ends} and NaN" if found.nan else ends


def _zero(found: Range | None) -> bool:
    return found is None or bool(found.min <= 0 <= found.max)


def _infinite(found: Range | None) -> bool:
    if found is None or not found.min <= found.max:
        return False
    return bool(np.isinf(found.min) or np.isinf(found.max))


def _top(found: Range | None) -> float:
    """The largest magnitude among finite ends, as far as it is known."""
    if found is None:
        return float("nan")
    ends = [abs(float(x)) for x in (found.min, found.max) if np.isfinite(float(x))]
    return max(ends, default=float("inf"))


def _default(case: Case) -> str:
    what = "NaN" if case.is_nan else "an infinity"
    return f"{case.primitive} made {what} of inputs that held none{given(case)}"


# -- growth: functions that overflow above a limit --------------------------------------------


def _grows(inverse: Callable[[Any], Any], two_sided: bool = False) -> Sentence:
    """Of a function, by the inverse at the largest number."""

    def sentence(case: Case) -> str:
        with np.errstate(all="ignore"):
            limit = number(inverse(np.float64(case.largest)))
        first = case.first
        reached = "" if first is None else f"; its input reached {number(_end(first, two_sided))}"
        return f"{case.primitive} overflows {case.dtype} above {limit}{reached}"

    return sentence


def _end(found: Range, two_sided: bool) -> float:
    return _top(found) if two_sided else float(found.max)


def _power(case: Case) -> str:
    exponent = case.params.get("y", 2)
    if exponent < 0 and _zero(case.first):
        return f"0 to the power {exponent}"
    limit = number(case.largest ** (1 / abs(exponent)))
    return (
        f"the power {exponent} overflows {case.dtype} above {limit}; "
        f"its input reached {number(_top(case.first))}"
    )


def _general_power(case: Case) -> str:
    base, exponent = case.first, case.second
    if case.is_nan and base is not None and base.min < 0:
        return f"a negative number to a power that is no integer{given(case)}"
    if _zero(base) and exponent is not None and exponent.min < 0:
        return f"0 to a negative power{given(case)}"
    return f"pow overflows {case.dtype}{given(case)}"


# -- domains: functions that are not defined everywhere ---------------------------------------


def _domain(nan: str, infinite: str) -> Sentence:
    """What an input was that gives NaN, and one that gives an infinity."""

    def sentence(case: Case) -> str:
        name = case.primitive
        end = "" if case.first is None else f"; its input was in {range_text(case.first)}"
        return f"{name} of {nan}{end}" if case.is_nan else f"{name} of {infinite}"

    return sentence


def _of_infinity(case: Case) -> str:
    return f"{case.primitive} of an infinity"


# -- arithmetic -------------------------------------------------------------------------------


def _product(case: Case) -> str:
    if case.is_nan:
        return f"0 * inf{given(case)}"
    ends = " * ".join(number(_top(r)) for r in case.inputs)
    return f"the product overflows {case.dtype} (largest {number(case.largest)}); {ends}"


def _quotient(case: Case) -> str:
    numerator, divisor = case.first, case.second
    if case.is_nan:
        both = _infinite(numerator) and _infinite(divisor) and not _zero(divisor)
        return ("division of inf by inf" if both else "division of 0 by 0") + given(case)
    if _zero(divisor):
        return f"division by 0; the numerator was in {_text(numerator)}"
    return f"the quotient overflows {case.dtype}{given(case)}"


def _text(found: Range | None) -> str:
    return "an unknown range" if found is None else range_text(found)


def _sum(case: Case) -> str:
    if case.is_nan:
        return f"inf - inf{given(case)}"
    return f"{case.primitive} overflows {case.dtype} (largest {number(case.largest)}){given(case)}"


def _contraction(case: Case) -> str:
    if not case.is_nan:
        return _sum(case)
    held = any(_infinite(r) for r in case.inputs)
    why = "0 * inf or inf - inf" if held else "inf - inf, after an overflow"
    return f"{why} in {case.primitive}{given(case)}"


def _remainder(case: Case) -> str:
    return f"remainder of a division by 0{given(case)}" if _zero(case.second) else _default(case)


# -- conversions, indices, linear algebra, data -----------------------------------------------


def _cast(case: Case) -> str:
    source = case.dtypes[0] if case.dtypes else case.dtype
    lost = "" if format_of(case.dtype).has_inf else f", and {case.dtype} has no infinity"
    return (
        f"overflow in the cast {source} -> {case.dtype}{lost}; largest was "
        f"{number(_top(case.first))}, the limit is {number(case.largest)}"
    )


def _reduced(case: Case) -> str:
    bits = f"{case.params['exponent_bits']} exponent bits"
    return f"overflow in rounding to {bits}; largest was {number(_top(case.first))}"


def _bits(case: Case) -> str:
    return f"bits of {', '.join(map(str, case.dtypes))} read as {case.dtype} are not a number"


def _gathered(case: Case) -> str:
    return "an index is out of bounds, and this indexing fills in NaN"


def _says(text: str) -> Sentence:
    return lambda case: f"{text}{given(case)}"


def _data(case: Case) -> str:
    return "NaN in the data" if case.is_nan else f"{case.kind} in the data"


_BEYOND_ONE = _domain("a number outside [-1, 1]", "±1")

SENTENCES: dict[str, Sentence] = {
    "acos": _BEYOND_ONE,
    "acosh": _domain("a number below 1", "a number that is too large"),
    "add": _sum,
    "add_any": _sum,
    "asin": _BEYOND_ONE,
    "atanh": _BEYOND_ONE,
    "bitcast_convert_type": _bits,
    "cholesky": _says("cholesky of a matrix that is not positive definite"),
    "conv_general_dilated": _contraction,
    "convert_element_type": _cast,
    "cos": _of_infinity,
    "cosh": _grows(lambda x: np.log(x) + np.log(2.0), two_sided=True),
    "cumprod": _sum,
    "cumsum": _sum,
    "digamma": _domain("0 or a negative integer", "0"),
    "div": _quotient,
    "dot_general": _contraction,
    "eigh": _says("eigh did not converge"),
    "erf_inv": _BEYOND_ONE,
    "exp": _grows(np.log),
    "exp2": _grows(np.log2),
    "expm1": _grows(np.log1p),
    "fft": _contraction,
    "gather": _gathered,
    "input": _data,
    "integer_pow": _power,
    "lgamma": _domain("a number where it has none", "0 or a negative integer, or too large"),
    "log": _domain("a negative number", "0"),
    "log1p": _domain("a number below -1", "-1"),
    "lu": _says("LU decomposition of a singular matrix"),
    "mul": _product,
    "pow": _general_power,
    "psum": _sum,
    "reduce_precision": _reduced,
    "reduce_prod": _sum,
    "reduce_sum": _sum,
    "rem": _remainder,
    "rsqrt": _domain("a negative number", "0"),
    "scatter-add": _sum,
    "sin": _of_infinity,
    "sinh": _grows(lambda x: np.log(x) + np.log(2.0), two_sided=True),
    "sqrt": _domain("a negative number", "a number that is too large"),
    "square": _power,
    "sub": _sum,
    "svd": _says("svd did not converge"),
    "tan": _of_infinity,
    "triangular_solve": _says("triangular_solve with a zero on the diagonal"),
}
