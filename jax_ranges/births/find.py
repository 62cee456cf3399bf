"""`jr.find_nonfinite`: where NaNs and infinities are born."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from jax_ranges import compat
from jax_ranges.births.planned import plan_births
from jax_ranges.births.report import Report
from jax_ranges.births.statistic import Births
from jax_ranges.births.watch import watches
from jax_ranges.call import Call
from jax_ranges.interpret import Interpreter, Jits, run_outermost
from jax_ranges.ranges import Ranges
from jax_ranges.site import Select
from jax_ranges.transform import check_callable, named_like


def find_nonfinite(
    fun: Callable[..., Any], watch: str | Iterable[str] = (), select: Select = None
) -> Callable[..., tuple[Any, Report]]:
    """Transform `fun` to return, next to its outputs, where NaNs and infinities were born.

    A birth is a NaN or an infinity in the output of an operation that none of its operands held
    (see `Birth`). What a `where` discards, or exp(-inf) = 0, is no alarm: `report.ok` says that
    nothing that was born reached an output. An infinity that the program contains (a literal, as
    in `where(mask, x, -inf)`, or a constant) is no birth; what arrays among the arguments hold is
    ("NaN in the data").

    The whole runs once, jitted, in forward and backward passes, loops, branches and on many
    devices. It costs about what `jr.ranges` costs.

    Args:
      fun: as for `jr.ranges`.
      watch: number formats to watch for: "float8_e4m3fn saturates" (values beyond the format that
        no operand was beyond), "float16 subnormals" (values too small for its full precision, and
        zeros that a product, a quotient or a conversion made of what was none).
      select: which sites may give birth, as in `jr.ranges`; by default all.

    Returns:
      A function with the arguments of `fun` that returns `(fun's output, Report)`. It composes
      with jit, grad, vmap, scan and shard_map; the report is read outside of them. To look into
      gradients transform these: `jr.find_nonfinite(jax.grad(loss))`.

    Raises:
      TypeError: `fun` is not callable.
      ValueError: `watch` is not of that form, or `select` selects nothing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def decay(x, rate):
      ...     return jax.lax.fori_loop(0, 50, lambda i, x: x * jnp.exp(rate * i), x)
      >>> out, report = jr.find_nonfinite(decay)(1.0, 0.25)
      >>> birth = report.births[0]
      >>> birth.site.name, birth.kind, birth.iteration
      ('scan/mul.1', '+inf', (27,))
      >>> birth.reason
      'the product overflows float32 (largest 3.4e+38); 1.29e+38 * 854.059'
    """
    check_callable(fun, "jr.find_nonfinite takes a function: out, report = jr.find_nonfinite(f)(x)")
    stat, jits = Births(watches(watch)), Jits()

    @named_like(fun, "find_nonfinite")
    def found(*args: Any, **kwargs: Any) -> tuple[Any, Report]:
        call = Call.trace(fun, args, kwargs)
        planned = plan_births(call, stat, select)
        interpreter = Interpreter(planned.stats, jits)

        def run(leaves: Sequence[Any]) -> tuple[list[Any], Ranges]:
            outs, block = run_outermost(interpreter, planned.frame, leaves)
            return call.returned.typed(outs), Ranges(block, planned.layout)

        outs, ranges = (run if compat.tracing() else jax.jit(run))(call.leaves)
        out = call.returned.output(outs, args, kwargs)
        return out, Report(ranges, planned.genealogy)

    return found
