"""The same program with every measured value stored, and nothing reduced.

What XLA fuses it need not store, and most of what it does store it writes once and reads once. Who
wants to see each value breaks that up; this is what that alone costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax

from jax_ranges.call import Call
from jax_ranges.interpret import Interpreter, run_outermost
from jax_ranges.packing import Block, join, nothing
from jax_ranges.plan import Equation, Source
from jax_ranges.stats import Context
from jax_ranges.transform import RANGES_ONLY, Options
from tests.benchmarks.measure import Fun


@dataclass(frozen=True)
class Storing(Interpreter):
    """Puts a barrier after what would be measured."""

    def evaluate(self, equation: Equation, values: list[Any]) -> tuple[list[Any], list[Any]]:
        results, _ = super().evaluate(equation, values)
        if equation.outputs:
            results = lax.optimization_barrier(results)
        return results, results

    def begin(self, value: Any, source: Source, context: Context) -> dict[int, Any]:
        return {}

    def finish(self, group: Sequence[Source], begun: Sequence[dict[int, Any]]) -> Block:
        return join(
            self.measure(None, source, Context("", {}, (), source.form)) for source in group
        )

    def measure(self, value: Any, source: Source, context: Context) -> Block:
        return join(nothing(self._group(k, source), 1) for k in source.wanted)


def storing(fun: Fun, args: Sequence[Any], how: dict[str, Any]) -> Fun:
    """`fun` with each value that `jr.ranges(fun, **how)` measures stored."""
    del args
    options = Options(fun, RANGES_ONLY, how["select"], False, how["loops"])
    interpreter = Storing(options.stats)

    def stored(*args: Any) -> Any:
        call = Call.trace(fun, args, {})
        outs, _ = run_outermost(interpreter, options.plan(call).frame, call.leaves)
        return call.returned.output(call.returned.typed(outs), args, {})

    return jax.jit(stored)
