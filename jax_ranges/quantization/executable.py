"""Whether a product can be computed on codes, and if not, why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jax_ranges import compat
from jax_ranges.formats import Format
from jax_ranges.qparams import QParams, target_of
from jax_ranges.quantization.array import is_all, storage
from jax_ranges.quantization.products import Product
from jax_ranges.quantization.specs import Dynamic, Spec

_LARGEST_INT32, _LARGEST_FLOAT32 = 2.0**31 - 1, float(np.finfo(np.float32).max)


def why_simulated(eqn: Any, product: Product, specs: Mapping[int, Spec]) -> str:
    """Why a product has to be simulated whose operands are rounded like this; "" if it has not."""
    if not specs:
        return "its operands are not quantized"
    missing = [i for i in (0, 1) if i not in specs]
    if missing:
        return f"operand {missing[0]} is not quantized"
    if compat.is_offloaded(eqn.outvars[0].aval):
        return "its operands are in the host's memory"
    for i in (0, 1):
        problem = why_no_codes(specs[i], product.summed[i], eqn.invars[i].aval.shape)
        if problem:
            return f"operand {i}: {problem}"
    return _why_not_together(product, specs[0], specs[1])


def why_no_codes(spec: Spec, summed: Sequence[int], shape: Sequence[int]) -> str:
    """Why an operand cannot become codes of which a product can be computed; "" if it can."""
    if storage(spec.format) is None:
        return _why_no_storage(spec.format)
    if isinstance(spec, Dynamic):
        return ""
    if spec.format.uniform and not _within(_codes(spec), spec.format.codes):
        return f"its codes are beyond those of {spec.format}"
    parts = [np.shape(spec.along(part, len(shape))) for part in (spec.scale, spec.zero_point)]
    if any(found and any(found[axis] > 1 for axis in summed) for found in parts):
        return "its scale differs along axes that are summed over"
    if not compat.is_traced(spec.zero_point):
        zero_point = np.asarray(spec.zero_point)
        if (zero_point < spec.qmin).any() or (zero_point > spec.qmax).any():
            return "its zero point is none of its codes"
    return ""


def _why_no_storage(fmt: Format) -> str:
    if fmt.element is not None:
        return f"each block of {fmt} has a scale, which does not factor out of the sum"
    return f"{fmt} has {fmt.bits} bits, more than {8 if fmt.uniform else 16}"


def _why_not_together(product: Product, lhs: Spec, rhs: Spec) -> str:
    if product.count == math.inf:
        return "how many products are in each sum is not known"
    integers = [spec.format.uniform for spec in (lhs, rhs)]
    if integers[0] != integers[1]:
        return f"there is no product of {lhs.format} and {rhs.format}"
    if all(integers):
        most = product.count * _reach(lhs) * _reach(rhs)
        if most > _LARGEST_INT32:
            return f"a sum of {product.count:,} products may be beyond int32"
    elif product.count * _largest(lhs) * _largest(rhs) > _LARGEST_FLOAT32:
        return f"the numbers of {lhs.format} and {rhs.format} have products beyond float32"
    return ""


def _reach(spec: Spec) -> int:
    """How large a code may be as int8, and less its zero point."""
    qmin, qmax = _codes(spec)
    known = known_zero_points(spec)
    least, most = (qmin, qmax) if known is None else known
    return max(abs(end) for end in (*_as_int8(spec.format, qmin, qmax), qmin - most, qmax - least))


def _within(codes: tuple[int, int], limits: tuple[int, int]) -> bool:
    return limits[0] <= codes[0] and codes[1] <= limits[1]


def _codes(spec: Spec) -> tuple[int, int]:
    if isinstance(spec, QParams):
        return int(spec.qmin), int(spec.qmax)
    target = target_of(spec.format, spec.symmetric)
    return int(target.qmin), int(target.qmax)


def _as_int8(fmt: Format, qmin: int, qmax: int) -> tuple[int, int]:
    shift = 128 if storage(fmt) == np.uint8 else 0
    return qmin - shift, qmax - shift


def known_zero_points(spec: Spec) -> tuple[int, int] | None:
    """The least and the largest zero point, if they are known."""
    if isinstance(spec, Dynamic):
        return (0, 0) if spec.symmetric and spec.format.signed else None
    if compat.is_traced(spec.zero_point):
        return None
    zero_point = np.asarray(spec.zero_point)
    return (int(zero_point.min()), int(zero_point.max())) if zero_point.size else (0, 0)


def _largest(spec: Spec) -> float:
    """The largest code. Without a scale the codes are the program's own numbers: no matter."""
    unscaled = isinstance(spec, QParams) and is_all(spec.scale, 1)
    return 1.0 if unscaled else spec.format.largest


def has_zero_point(spec: Spec | None) -> bool:
    """Whether codes of this kind may have one, as int8."""
    if spec is None or not spec.format.uniform:
        return False
    return known_zero_points(spec) != (0, 0) or storage(spec.format) == np.uint8
