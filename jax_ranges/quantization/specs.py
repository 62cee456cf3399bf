"""How one value is rounded: to a format by parameters that are given, or made of each value.

The axes that matter are those of the operation that uses the value. In a matrix product the
scale may differ along all axes but those that are summed over, because there it would not
factor out of the sum; and blocks lie along those that are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jax_ranges.affine import affine, stored
from jax_ranges.computations import known_as
from jax_ranges.formats import Format, FormatLike, format_of
from jax_ranges.qparams import QParams, target_of


@dataclass(frozen=True, init=False)
class Dynamic:
    """Scale and zero point made of each value, as it comes, from its least and largest element.

    For weights that is what their range gives, and there is no need to take it; for activations
    it costs two reductions at each execution, and is safe whatever comes. Infinities and NaN
    are left out of the extrema.

    Attributes:
      format: the format.
      symmetric: the zero point is in the middle, 0 for signed formats.
      channels: for operands of matrix products and convolutions, a scale for each index along
        the axes that are not summed over: the output channels of weights, the rows (tokens) of
        activations. If not, one for the whole value.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> f = jr.simulate(jnp.dot, {"dot_general": (None, jr.Dynamic("int4", channels=True))})
      >>> f(jnp.eye(2), jnp.array([[0.7, 100.0], [0.26, 7.0]]))
      Array([[  0.7, 100. ],
             [  0.3,   0. ]], dtype=float32)
    """

    format: Format
    symmetric: bool
    channels: bool

    def __init__(self, format: FormatLike, symmetric: bool = True, channels: bool = False):  # noqa: A002
        target_of(format_of(format), symmetric)  # says what formats cannot be scaled
        object.__setattr__(self, "format", format_of(format))
        object.__setattr__(self, "symmetric", bool(symmetric))
        object.__setattr__(self, "channels", bool(channels))

    def params(self, x: Any, over: Sequence[int] | None = None) -> QParams:
        """The parameters for one value, of arrays with its axes, those `over` of length one.

        over: the axes that share a scale; all of them if None. Fixed point and blocks, which carry
        their scale, get 1.
        """
        target = target_of(self.format, self.symmetric)
        codes = target.qmin, target.qmax
        if self.format.kind in ("fixed", "block"):
            return QParams(np.float32(1), np.int32(0), *codes, self.format)
        x = lax.stop_gradient(jnp.asarray(x))
        axes = tuple(range(x.ndim)) if over is None else tuple(over)
        dtype = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
        wide = x.astype(dtype)
        finite = jnp.where(jnp.isfinite(wide), wide, 0)
        lo, hi = (f(finite, axes, keepdims=True, initial=0) for f in (jnp.min, jnp.max))
        scale, zero_point = affine(target, lo, hi, jnp)
        return QParams(stored(scale, dtype, jnp), zero_point.astype(np.int32), *codes, self.format)


Spec = QParams | Dynamic


def spec_of(given: Any) -> Spec | None:
    """A way of rounding; of a format alone, the usual one.

    A float, fixed point or block format is cast to as it is; an integer format, whose codes mean
    nothing without a scale, is `Dynamic`.

    Raises:
      ValueError, TypeError: it is none.
    """
    if given is None or isinstance(given, Spec):
        return given
    fmt = format_of(given)
    if fmt.kind == "int":
        return Dynamic(fmt)
    target = target_of(fmt, symmetric=True)
    return QParams(np.float32(1), np.int32(0), target.qmin, target.qmax, fmt)


@dataclass(frozen=True)
class Use:
    """How an operation uses a value: `over` are the axes it sums over; None if it has no such."""

    over: tuple[int, ...] | None = None


def uses(eqn: Any) -> tuple[Use, ...]:
    """How an equation uses each of its operands."""
    find = _USES.get(known_as(eqn))
    return find(eqn) if find else (Use(),) * len(eqn.invars)


def _of_dot(eqn: Any) -> tuple[Use, ...]:
    (lhs, rhs), _ = eqn.params["dimension_numbers"]
    return Use(tuple(lhs)), Use(tuple(rhs)), *[Use()] * (len(eqn.invars) - 2)


def _of_conv(eqn: Any) -> tuple[Use, ...]:
    """The left side keeps its batch, the right side its output features."""
    numbers = eqn.params["dimension_numbers"]
    return Use(tuple(numbers.lhs_spec[1:])), Use(tuple(numbers.rhs_spec[1:]))


_USES: dict[str, Callable[[Any], tuple[Use, ...]]] = {
    "dot_general": _of_dot,
    "conv_general_dilated": _of_conv,
}


def params_for(spec: Spec, x: Any, use: Use) -> QParams:
    """The parameters by which a value is rounded."""
    if isinstance(spec, QParams):
        return spec
    return spec.params(x, use.over if spec.channels else None)


def rounded(spec: Spec, x: Any, use: Use, straight_through: bool = False) -> Any:
    """What becomes of a value. Its gradient is none, or that of clipping."""
    q = params_for(spec, x, use)
    if not straight_through:
        return _round(q, lax.stop_gradient(x), use)

    @jax.custom_jvp
    def fake_quantized(q: QParams, x: Any) -> Any:  # q may be traced, and is not closed over then
        return _round(q, x, use)

    @fake_quantized.defjvp
    def _(primals: Any, tangents: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
        (q, x), (_, t) = primals, tangents
        return fake_quantized(q, x), jnp.where(_inside(q, x), t, jnp.zeros_like(t))

    return fake_quantized(q, x)


def _round(q: QParams, x: Any, use: Use) -> Any:
    if q.format.element is None or not use.over:
        return q.round(x)
    # The axes that are summed over go last, where blocks lie.
    last = tuple(range(-len(use.over), 0))
    moved = jnp.moveaxis(jnp.asarray(x), use.over, last)
    flat = moved.reshape(*moved.shape[: last[0]], math.prod(moved.shape[last[0] :]))
    return jnp.moveaxis(q.round(flat).reshape(moved.shape), last, use.over)


def _inside(q: QParams, x: Any) -> Any:
    """Where a value is not clipped."""
    if q.format.element is not None:
        return jnp.ones(jnp.shape(x), bool)
    scale, zero_point = (q.along(part, jnp.ndim(x)) for part in (q.scale, q.zero_point))
    step = q.format.step if q.format.uniform else 1.0
    return ((q.qmin - zero_point) * step * scale <= x) & (x <= (q.qmax - zero_point) * step * scale)
