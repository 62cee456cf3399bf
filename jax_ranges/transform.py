"""`ranges(f)` and `plan(f)`: from a Python function to its traced, planned, measured program."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jax_ranges import compat
from jax_ranges.interpret import Interpreter, Jits
from jax_ranges.plan import Plan, make_plan
from jax_ranges.ranges import Ranges
from jax_ranges.site import Select
from jax_ranges.stats import MinMax, Statistic

LOOPS = ("merge", "stack")


def ranges(
    fun: Callable[..., Any],
    stats: Sequence[Statistic] = (MinMax(),),
    select: Select = None,
    inputs: bool = False,
    loops: str = "merge",
) -> Callable[..., tuple[Any, Ranges]]:
    """Transform `fun` to return, next to its outputs, the range of every operation in it.

    Args:
      fun: any function that JAX can trace, jitted or not, with pytrees of arrays, Python floats
        and complex numbers as arguments. Other arguments (ints, bools, strings, functions,
        objects) are passed to it as they are.
      stats: the statistics to take, by default `MinMax()`.
      select: which sites to measure: a primitive ("dot_general"), a glob of site names
        ("Encoder/*"), several of those, or a callable Site -> bool. By default all.
      inputs: also one site for each argument leaf, `input/<path>`, and for each array that `fun`
        closes over, `const/<n>`.
      loops: "merge" gives a site inside a loop the range over all iterations; "stack" gives a
        site inside `scan` one range an iteration (leading axis; nested scans stack).

    Returns:
      A function with the arguments of `fun` that returns `(fun's output, Ranges)`. It composes
      with jit, grad, vmap, scan and shard_map, and like `jax.grad` it traces anew at each call:
      jit it to call it often. Gradients through it are those of `fun`; ranges have none.

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
    options = _Options(fun, stats, select, inputs, loops)
    interpreter = Interpreter(options.stats, Jits())

    @_named_like(fun, "ranges")
    def measured(*args: Any, **kwargs: Any) -> tuple[Any, Ranges]:
        call = Call.trace(fun, args, kwargs)
        planned = options.plan(call)
        axes = compat.manual_axes()
        inner = interpreter.inside(axes, compat.tracks_varying(axes)) if axes else interpreter
        outs, block = inner.run(planned.frame, call.leaves)
        if axes:
            block = inner.everywhere(block, axes)
        return call.output(outs), Ranges(block, planned.layout)

    return measured


def plan(
    fun: Callable[..., Any],
    stats: Sequence[Statistic] = (MinMax(),),
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
    options = _Options(fun, stats, select, inputs, loops)

    @_named_like(fun, "plan")
    def planned(*args: Any, **kwargs: Any) -> Plan:
        return options.plan(Call.trace(fun, args, kwargs, abstract=True))

    return planned


class _Options:
    """The checked arguments of the transformation."""

    def __init__(
        self, fun: Any, stats: Sequence[Statistic], select: Select, inputs: bool, loops: str
    ):
        if not callable(fun):
            raise TypeError(
                f"jr.ranges takes a function and returns one: out, ranges = jr.ranges(f)(x); got "
                f"{fun!r} of type {type(fun).__name__} in the place of f"
            )
        if loops not in LOOPS:
            raise ValueError(f"loops must be one of {LOOPS}, got {loops!r}")
        self.stats = (stats,) if isinstance(stats, Statistic) else tuple(stats)
        for stat in self.stats:
            if not isinstance(stat, Statistic):
                raise TypeError(
                    f"stats takes jr.Statistic objects such as jr.MinMax(), got {stat!r}"
                )
        self.select, self.inputs, self.loops = select, bool(inputs), loops

    def plan(self, call: Call) -> Plan:
        return make_plan(call.jaxpr, call.names, self.stats, self.select, self.inputs, self.loops)


def _named_like(fun: Any, transform: str) -> Callable[[Any], Any]:
    def name(wrapper: Any) -> Any:
        functools.update_wrapper(wrapper, fun, updated=())
        inner = getattr(fun, "__name__", type(fun).__name__)
        wrapper.__name__ = wrapper.__qualname__ = f"{transform}({inner})"
        return wrapper

    return name


# -- tracing one call -------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One call of a function, traced.

    Attributes:
      jaxpr: the program, closed.
      leaves: the arrays among the arguments, in the order of the program's inputs.
      names: for each of them `input/<path>`.
      output: puts the function's output together from the program's outputs.
    """

    jaxpr: Any
    leaves: list[Any]
    names: list[str]
    output: Callable[[Sequence[Any]], Any]

    @classmethod
    def trace(cls, fun: Any, args: Any, kwargs: Any, abstract: bool = False) -> Call:
        flat, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs))
        is_static = _static_paths(fun, args)
        dynamic = [not is_static(path) and _is_array(leaf, path, abstract) for path, leaf in flat]
        leaves = [leaf for (_, leaf), d in zip(flat, dynamic, strict=True) if d]
        parameters = _parameters(fun, len(args))
        names = [
            _input_name(path, parameters) for (path, _), d in zip(flat, dynamic, strict=True) if d
        ]
        outputs: list[Any] = []

        def flat_fun(*traced: Any) -> list[Any]:
            fill = iter(traced)
            filled = [next(fill) if d else x for (_, x), d in zip(flat, dynamic, strict=True)]
            args, kwargs = jax.tree.unflatten(treedef, filled)
            outs, out_tree = jax.tree.flatten(fun(*args, **kwargs))
            # Whatever is not an array (a flag, a function in a module) is returned as it is.
            outputs[:] = [out_tree, [None if isinstance(x, jax.Array) else (x,) for x in outs]]
            return [x for x in outs if isinstance(x, jax.Array)]

        jaxpr = jax.make_jaxpr(flat_fun)(*leaves)
        out_tree, others = outputs
        avals = [atom.aval for atom in compat.opened(jaxpr)[0].outvars]

        def output(values: Sequence[Any]) -> Any:
            typed = iter([compat.retyped(v, aval) for v, aval in zip(values, avals, strict=True)])
            return out_tree.unflatten([next(typed) if x is None else x[0] for x in others])

        return cls(jaxpr, leaves, names, output)


def _is_array(leaf: Any, path: Any, abstract: bool) -> bool:
    """Whether the leaf is to be traced; other leaves reach the function as they are."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        if abstract:
            return True
        raise TypeError(
            f"jr.ranges(f) runs f and needs arrays; argument {jax.tree_util.keystr(path)} is the "
            f"abstract {leaf}. For shapes only use jax.eval_shape(jr.ranges(f), ...) or jr.plan(f)"
        )
    if isinstance(leaf, (jax.Array, float, complex)):
        return True
    if not isinstance(leaf, (np.ndarray, np.generic)):
        return False
    return leaf.dtype != jax.dtypes.float0 and leaf.dtype.kind not in "OSUMm"


def _static_paths(fun: Any, args: Any) -> Callable[[Any], bool]:
    """Whether a leaf belongs to an argument that a jitted `fun` takes as static."""
    argnums, argnames = compat.static_arguments(fun)
    positions = {n % len(args) if args else n for n in argnums}

    def is_static(path: Any) -> bool:
        which, argument = path[0].idx, path[1]
        return argument.idx in positions if which == 0 else argument.key in argnames

    return is_static


def _parameters(fun: Any, count: int) -> list[str]:
    """The names of the positional parameters; `*args` gives args/0, args/1, ..."""
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):  # a builtin, or a callable that hides its signature
        parameters = []
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((f"{p.name}/" for p in parameters if p.kind is p.VAR_POSITIONAL), "")
    names = [p.name for p in named[:count]]
    return names + [f"{rest}{i}" for i in range(count - len(names))]


def _input_name(path: Any, parameters: list[str]) -> str:
    which, argument, *rest = path
    first = parameters[argument.idx] if which.idx == 0 else str(argument.key)
    tail = jax.tree_util.keystr(tuple(rest), simple=True, separator="/")
    return "/".join(part for part in ("input", first, tail) if part)
