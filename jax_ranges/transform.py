"""`ranges(f)` and `plan(f)`: the transformation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from jax_ranges.births.planned import BirthsPlan, plan_births
from jax_ranges.births.statistic import Births
from jax_ranges.call import Call, name_of
from jax_ranges.interpret import Interpreter, Jits, run_outermost
from jax_ranges.plan import Plan, make_plan
from jax_ranges.ranges import Ranges
from jax_ranges.site import Select
from jax_ranges.taken import RANGES_ONLY, Stats, taken

LOOPS = ("merge", "stack")


def ranges(
    fun: Callable[..., Any],
    stats: Stats = RANGES_ONLY,
    select: Select = None,
    inputs: bool = False,
    loops: str = "merge",
) -> Callable[..., tuple[Any, Ranges]]:
    """Transform `fun` to return, next to its outputs, the range of every operation in it.

    Args:
      fun: any function that JAX can trace, jitted or not, with pytrees of arrays, Python floats
        and complex numbers as arguments. Other arguments (strings, functions, objects; ints and
        bools unless `fun` is jitted, which traces them) are passed to it as they are.
      stats: the statistics to take, by default `MinMax()`: one, several, or a mapping from
        selections of sites (as in `select`) to these, such as
        `{"dot_general": jr.Histogram(), "*": jr.MinMax()}`. A site has the statistics of all
        selections that it is in, and a site that is in none is left out.
      select: which sites to measure: a primitive ("dot_general"), a glob of site names
        ("Encoder/*"), several of those, or a callable Site -> bool. By default all.
      inputs: also one site for each argument leaf, `input/<path>`, and for each array that `fun`
        closes over, `const/<n>`.
      loops: "merge" gives a site inside a loop the range over all iterations; "stack" gives a
        site inside `scan` one range an iteration (leading axis; nested scans stack).

    Returns:
      A function with the arguments of `fun` that returns `(fun's output, Ranges)`. It composes
      with jit, grad, vmap, scan and shard_map, and like `jax.grad` it traces anew at each call:
      jit it to call it often. Gradients through it are those of `fun`; ranges have none. Derivative
      rules of one's own (`jax.custom_jvp`, `jax.custom_vjp`) are called as they are under jit, and
      see the same: symbolic zeros, what is perturbed, what they log. Where one of them takes the
      place of the function that it is for, that function runs beside it, without its effects, to
      be measured. In a program that contains a gradient through a rule with `optimize_remat=True`,
      its forward rule runs and what it keeps is measured, also where nothing needs that.

    Raises:
      TypeError: `fun` is not callable, or an argument is abstract.
      ValueError: `loops` is neither of the two, or `select` selects nothing.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> def f(x):
      ...     with jax.named_scope("layer"):
      ...         return jnp.sum(jnp.square(x) * 3.0)
      >>> out, ranges = jax.jit(jr.ranges(f))(jnp.array([-1.0, 0.0, 2.0]))
      >>> ranges["layer/mul"]
      Range(min=0.0, max=12.0, nan=False)
    """
    options = Options(fun, stats, select, inputs, loops)
    interpreter = Interpreter(options.stats, Jits())

    @named_like(fun, "ranges")
    def measured(*args: Any, **kwargs: Any) -> tuple[Any, Ranges]:
        call = Call.trace(fun, args, kwargs)
        planned = options.plan(call)
        outs, block = run_outermost(interpreter, planned.frame, call.leaves)
        out = call.returned.output(call.returned.typed(outs), args, kwargs)
        return out, Ranges(block, planned.layout)

    return measured


def plan(
    fun: Callable[..., Any],
    stats: Stats = RANGES_ONLY,
    select: Select = None,
    inputs: bool = False,
    loops: str = "merge",
) -> Callable[..., Plan]:
    """What `ranges` with the same arguments would do: which sites cost a reduction, which none.

    The function returned takes the arguments of `fun` (shapes suffice: `jax.ShapeDtypeStruct`
    may stand for arrays), runs nothing, and returns a `Plan`, which prints as a table.

    Example:
      >>> import jax.numpy as jnp
      >>> import jax_ranges as jr
      >>> plan = jr.plan(lambda x: jnp.maximum(jnp.sin(x), 0).T)(jnp.ones((2, 3)))
      >>> [(row.site.name, row.how) for row in plan.rows]
      [('sin', 'measured'), ('max', 'derived'), ('transpose', 'derived')]
    """
    options = Options(fun, stats, select, inputs, loops)

    @named_like(fun, "plan")
    def planned(*args: Any, **kwargs: Any) -> Plan:
        return options.plan(Call.trace(fun, args, kwargs, abstract=True))

    return planned


class Options:
    """The checked arguments of the transformation.

    Attributes:
      name: that of the function.
      births: the statistic, if births are to be found too.
    """

    def __init__(
        self,
        fun: Any,
        stats: Stats,
        select: Select,
        inputs: bool,
        loops: str,
        usage: str = "jr.ranges takes a function and returns one: out, ranges = jr.ranges(f)(x)",
        births: Births | None = None,
    ):
        check_callable(fun, usage)
        self.name = name_of(fun)
        if loops not in LOOPS:
            raise ValueError(f"loops must be one of {LOOPS}, got {loops!r}")
        self.taken = taken(stats)
        self.stats = self.taken.stats
        self.select, self.inputs, self.loops = select, bool(inputs), loops
        self.births = births

    def plan(self, call: Call, select: Select = None) -> Plan:
        """The plan for a traced call, of other sites than `self.select` says if `select` does."""
        chosen = self.select if select is None else select
        return make_plan(call.jaxpr, call.names, self.taken, chosen, self.inputs, self.loops)

    def plan_births(self, call: Call, select: Select = None) -> BirthsPlan:
        """The same with births beside it."""
        assert self.births is not None
        chosen = self.select if select is None else select
        return plan_births(call, self.births, chosen, self.taken, self.inputs, self.loops)


def check_callable(fun: Any, usage: str) -> None:
    """TypeError if it is no function."""
    if not callable(fun):
        raise TypeError(f"{usage}; got {fun!r} of type {type(fun).__name__} in the place of f")


def named_like(fun: Any, transform: str) -> Callable[[Any], Any]:
    """A decorator that gives a wrapper the name of `fun`, and says what was done to it."""

    def name(wrapper: Any) -> Any:
        functools.update_wrapper(wrapper, fun, updated=())
        wrapper.__name__ = wrapper.__qualname__ = f"{transform}({name_of(fun)})"
        return wrapper

    return name
