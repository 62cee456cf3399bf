"""Every statistic and every tool, for tests that try a kind of program with all of them.

A tool is set up so that it changes no value (values are rounded to float32, which they are
already): whatever it is, it gives back what the function returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

import jax_ranges as jr

Fun = Callable[..., Any]

STATS = (
    *(jr.MinMax(), jr.AbsMax(), jr.Exponents(), jr.Health(), jr.Histogram(bins=32)),
    *(jr.Moments(), jr.PerChannel(-1)),
)
SAME = {"*": "float32"}


def _output(transform: Fun) -> Fun:
    """Of what makes functions that return (output, findings): the output."""
    return lambda f, *args: lambda *given: transform(f)(*given)[0]


def _net(f: Fun, *args: Any) -> Fun:
    """A net is not traced: what it gives is passed on."""
    return jr.Net(f, births=True)


def _guard(f: Fun, *args: Any) -> Fun:
    _, expected = jr.ranges(f, inputs=True)(*args)
    return lambda *given: jr.guard(f, expected)(*given)[0]


def _bounds(f: Fun, *args: Any) -> Fun:
    """Bounds run nothing but what they show beside; all that is seen is to be within them."""

    def proven(*given: Any) -> Any:
        for row in jr.bounds(f, inputs=True)(*given).rows:
            seen = row.observed
            if seen is not None and seen.observed:
                least, most = (0.0, -1.0) if seen.min is None else (seen.min, seen.max)
                assert row.proven.holds(least, most, seen.nan), row
        return f(*given)

    return proven


TRACED: dict[str, Fun] = {
    "ranges": _output(lambda f: jr.ranges(f, inputs=True)),
    "stacked": _output(lambda f: jr.ranges(f, inputs=True, loops="stack")),
    "find_nonfinite": _output(jr.find_nonfinite),
    "watched": _output(lambda f: jr.find_nonfinite(f, "float16 subnormals")),
    "shadow": _output(lambda f: jr.shadow(f, low="float32")),
    "simulate": lambda f, *args: jr.simulate(f, SAME),
    "reported": _output(lambda f: jr.simulate(f, SAME, report=True)),
    "quantize": lambda f, *args: jr.quantize(f, SAME),
    "guard": _guard,
}
"""Those that may be jitted, and exported."""

UNTRACED: dict[str, Fun] = {"Net": _net, "bounds": _bounds}

TOOLS = TRACED | UNTRACED


def with_tool(name: str, f: Fun, *args: Any) -> Fun:
    """The function with a tool on it, jitted where that may be; `args` are such as it takes."""
    made = TOOLS[name](f, *args)
    return jax.jit(made) if name in TRACED else made
