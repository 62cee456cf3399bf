"""`jr.shadow`: a function in a low precision, beside itself in a high one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat, keys
from jax_ranges.call import Call
from jax_ranges.errors import ErrorReport
from jax_ranges.formats import Format, FormatLike, format_of
from jax_ranges.interpret import Jits
from jax_ranges.pairs import ERRORS, PairRun, plan_of_errors, run_pairs
from jax_ranges.plan import Equation, Frame, is_measurable
from jax_ranges.precision import bind_in
from jax_ranges.transform import check_callable, named_like

HIGH = ("float32", "float64")
ACCUMULATE = ("high", "low")

SUMS = frozenset(
    {
        *("dot_general", "conv_general_dilated", "reduce_sum", "reduce_prod", "reduce_window_sum"),
        *("cumsum", "cumprod", "cumlogsumexp"),
    }
)
"""The operations with an accumulator."""


def shadow(
    fun: Callable[..., Any],
    low: FormatLike | None = "bfloat16",
    high: str = "float32",
    *,
    accumulate: str = "high",
) -> Callable[..., tuple[Any, ErrorReport]]:
    """Run `fun` in a low precision and beside it in a high one, and say where they part.

    In the low run every input, captured constant, literal and result of floats is converted to
    `low`; each operation computes in `high` and keeps its types. For all but sums that is what
    XLA does for a program written in `low`, but where it fuses operations and keeps more digits
    between them than it was asked for. What a sum, a matrix product or a convolution
    accumulates in is `accumulate`: "high", as matrix units and `jnp.sum` do it, or "low", where
    these operations are executed in the low dtype itself, as XLA then does it. With low=None
    nothing is converted: the low run is `fun` as it is written, in its own dtypes, which is the
    way to look at a model that is itself in bfloat16, or of mixed precision.

    The high run computes in `high` whatever the dtypes of `fun` are, and takes the low run's
    branches and as many iterations; what has effects happens once, with the low run's values.
    Operations that hold a program of their own which no rule traces (scatters, custom kernels)
    compute in their own dtypes.

    Args:
      fun: as for `jr.ranges`.
      low: a float, block or fixed-point format (see `jax_ranges.formats`), or None.
      high: "float32" or "float64"; the latter needs JAX's 64-bit mode.
      accumulate: "high", or "low" where `low` is float16 or bfloat16.

    Returns:
      A function with the arguments of `fun` that returns `(the low run's output, ErrorReport)`.
      It composes with jit, vmap, scan and shard_map, and traces anew at each call: jit it. It is
      not differentiated: for the backward pass shadow the gradient, `jr.shadow(jax.grad(f))`.

    Raises:
      ValueError: there is no such format; it needs a scale (integers: use `jr.simulate`), or has
        more digits than `high`; or 64-bit mode is off.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def softmax(x):
      ...     e = jnp.exp(x)  # without subtracting the largest
      ...     return e / e.sum()
      >>> out, report = jr.shadow(softmax, low="float16")(jnp.array([1.0, 2.0, 12.0]))
      >>> [(row.site, row.introduced) for row in report.worst(1)]
      [('exp', inf)]
    """
    check_callable(fun, "jr.shadow takes a function: out, report = jr.shadow(f)(x)")
    fmt, real, jits = _low(low), _high(high), Jits()
    _check(fmt, real, accumulate)
    low_dtype = fmt.dtype if fmt is not None and accumulate == "low" else None

    @named_like(fun, "shadow")
    def shadowed(*args: Any, **kwargs: Any) -> tuple[Any, ErrorReport]:
        _check_mode(real)
        call = Call.trace(fun, args, kwargs)
        run = PairRun((ERRORS,), jits, rounds=Casts(fmt, low_dtype), high=real)
        return run_pairs(run, call, plan_of_errors(call), args, kwargs)

    return shadowed


@dataclass(frozen=True)
class Casts:
    """The low run: all floats are converted to a format.

    Attributes:
      format: which; None if they are only what they are in the program.
      sums: the dtype in which sums are executed; None for that of all else.
    """

    format: Format | None
    sums: np.dtype | None

    def arguments(self, frame: Frame, values: list[Any]) -> list[Any]:
        variables = (*frame.jaxpr.constvars, *frame.jaxpr.invars)
        return [
            self._cast(value, var.aval) if i in frame.sites else value
            for i, (value, var) in enumerate(zip(values, variables, strict=True))
        ]

    def constant(self, value: Any, aval: Any) -> Any:
        if self.format is None or not _is_real(aval):
            return value
        exact = np.asarray(value, aval.dtype)
        low = self.format.cast(exact)
        return value if np.array_equal(low, exact, equal_nan=True) else low

    def operands(self, equation: Equation, values: list[Any]) -> list[Any]:
        del equation
        return values

    def bind(self, eqn: Any, operands: list[Any]) -> list[Any] | None:
        if self.format is None:
            return compat.bind(eqn, operands)
        if self.sums is not None and eqn.primitive.name in SUMS:
            return bind_in(eqn, operands, self.sums)
        return None

    def results(self, equation: Equation, values: list[Any]) -> list[Any]:
        avals = [var.aval for var in equation.eqn.outvars]
        return [self._cast(x, aval) for x, aval in zip(values, avals, strict=True)]

    def about(self, frame: Frame) -> Hashable:
        del frame
        return self

    def _cast(self, value: Any, aval: Any) -> Any:
        """Complex numbers by their parts.

        Narrow dtypes are converted to as well: XLA may leave out the conversion between two
        operations, and keep more digits than the program asks for.
        """
        if not _is_float(aval):
            return value
        value = jnp.asarray(value, aval.dtype)
        return compat.retyped(compat.computed_in_place(self._cast_parts, value), aval)

    def _cast_parts(self, value: Any) -> Any:
        if jnp.issubdtype(value.dtype, jnp.complexfloating):
            parts = (self._cast_real(part) for part in (value.real, value.imag))
            return jax.lax.complex(*parts)
        return self._cast_real(value)

    def _cast_real(self, value: Any) -> Any:
        own = format_of(value.dtype)
        if own.bits < 32:
            value = _cast_by(own)(value)
        return value if self.format is None else _cast_by(self.format)(value)


@functools.cache
def _cast_by(fmt: Format) -> Callable[[Any], Any]:
    """`fmt.cast`, traced once for all values of a type."""
    return jax.jit(lambda value: fmt.cast(value))


def _is_float(aval: Any) -> bool:
    return is_measurable(aval) and bool(jnp.issubdtype(aval.dtype, jnp.inexact))


def _is_real(aval: Any) -> bool:
    return is_measurable(aval) and keys.is_float(aval.dtype)


# -- arguments --------------------------------------------------------------------------------


def _low(low: FormatLike | None) -> Format | None:
    fmt = None if low is None else format_of(low)
    if fmt is not None and fmt.kind == "int":
        raise ValueError(
            f"codes of {fmt.name} mean nothing without a scale; give it one in a recipe: "
            f"jr.simulate(f, recipe, report=True)"
        )
    return fmt


def _high(high: Any) -> np.dtype:
    name = high if isinstance(high, str) else np.dtype(high).name
    if name not in HIGH:
        raise ValueError(f"high must be one of {HIGH}, got {high!r}")
    return np.dtype(name)


def _check(fmt: Format | None, real: np.dtype, accumulate: str) -> None:
    if fmt is not None and fmt.mantissa_bits > format_of(real).mantissa_bits:
        raise ValueError(f"low={fmt.name} has more digits than high={real}")
    if accumulate not in ACCUMULATE:
        raise ValueError(f"accumulate must be one of {ACCUMULATE}, got {accumulate!r}")
    if accumulate == "low" and (fmt is None or fmt.name not in ("float16", "bfloat16")):
        raise ValueError(
            f"sums are executed in float16 or bfloat16; for low={fmt and fmt.name} leave "
            f"accumulate='low' away"
        )


def _check_mode(real: np.dtype) -> None:
    if real.itemsize == 8 and jnp.result_type(float) != real:
        raise ValueError(
            "high='float64' needs JAX's 64-bit mode, and it is off: "
            "jax.config.update('jax_enable_x64', True), or call inside `with jax.enable_x64(True):`"
        )
