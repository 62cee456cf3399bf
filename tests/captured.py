"""A program with its arguments captured, under every transformation and tool.

`lambda: fun(*args)` is another program than `fun` on `args`: what was unknown is known before it
runs, or belongs to a trace around it. Nothing may come out differently, and nothing that is known
may be computed by JAX (see `planning_binds_nothing`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive

import jax_ranges as jr
from jax_ranges.site import NothingSelectedError


class NotRunnable(Exception):
    """Plain JAX does not run it either."""


@dataclass(frozen=True)
class Case:
    """A program whose arguments are to be captured.

    Attributes:
      fun, args: the program.
      same: raises AssertionError unless outputs are those that were expected.
      exact: however it is compiled, the program computes the same bits.
      x64: it is run with 64-bit types.
    """

    fun: Callable[..., Any]
    args: tuple[Any, ...]
    same: Callable[[Any, Any], None]
    exact: bool = False
    x64: bool = False

    def captured(self) -> Any:
        """The program, its arguments captured."""
        return self.fun(*self.args)

    def expected(self, run: Callable[[], Any]) -> Any:
        """What plain JAX returns."""
        try:
            return jax.block_until_ready(run())
        except Exception as error:
            raise NotRunnable(f"{type(error).__name__} in plain JAX") from error

    def outputs(self) -> Any:
        return self.expected(self.captured)

    def jitted(self) -> Any:
        """The same under jit, where XLA may flush what it does not when it folds constants."""
        return self.expected(jax.jit(self.captured))


# -- under transformations --------------------------------------------------------------------


def observed(case: Case) -> Callable[[], Any]:
    """The program, measured."""
    return lambda: jr.ranges(case.captured)()[0]


def inside(case: Case) -> Callable[..., Any]:
    """The program on traced arguments, which what is measured captures."""
    return lambda *args: jr.ranges(lambda: case.fun(*args))()[0]


def eagerly(case: Case) -> None:
    expected = case.outputs()
    case.same(observed(case)(), expected)


def under_jit(case: Case) -> None:
    expected = case.jitted()
    case.same(jax.jit(observed(case))(), expected)


def inside_jit(case: Case) -> None:
    expected = case.expected(lambda: jax.jit(case.fun)(*case.args))
    case.same(jax.jit(inside(case))(*case.args), expected)


def under_vmap(case: Case) -> None:
    def mapped(fun: Callable[[], Any]) -> Any:
        return jax.jit(jax.vmap(lambda _: fun()))(np.zeros(2))

    expected = case.expected(lambda: mapped(case.captured))
    case.same(mapped(observed(case)), expected)


def inside_vmap(case: Case) -> None:
    if not case.args:
        raise NotRunnable("nothing to map over")
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), case.args)
    expected = case.expected(lambda: jax.jit(jax.vmap(case.fun))(*stacked))
    case.same(jax.jit(jax.vmap(inside(case)))(*stacked), expected)


def _loss(fun: Callable[..., Any], factor: Any, *args: Any) -> Any:
    """A number, whatever `fun` returns."""
    leaves = [x for x in jax.tree.leaves(fun(*args)) if jnp.issubdtype(x.dtype, jnp.floating)]
    return functools.reduce(jnp.add, [jnp.sum(x) for x in leaves], jnp.zeros(())) * factor


def under_grad(case: Case) -> None:
    def gradient(fun: Callable[[], Any]) -> Any:
        return jax.jit(jax.grad(functools.partial(_loss, fun)))(1.0)

    expected = case.expected(lambda: gradient(case.captured))
    case.same(gradient(observed(case)), expected)


def inside_grad(case: Case) -> None:
    floats = [i for i, x in enumerate(case.args) if jnp.issubdtype(jnp.result_type(x), np.floating)]

    def gradient(fun: Callable[..., Any]) -> Any:
        which = tuple(i + 1 for i in floats)
        return jax.jit(jax.grad(functools.partial(_loss, fun), (0, *which)))(1.0, *case.args)

    expected = case.expected(lambda: gradient(case.fun))
    case.same(gradient(inside(case)), expected)


# -- under tools ------------------------------------------------------------------------------


def under_net(case: Case) -> None:
    expected = case.outputs()
    with jr.Net(case.captured, births=True) as net:
        case.same(net(), expected)
        case.same(net(), expected)
        info = net.get_info()
        assert list(info) == [site.name for site in jr.plan(case.captured)().sites]


def under_find_nonfinite(case: Case) -> None:
    expected = case.jitted()
    out, report = jax.jit(jr.find_nonfinite(case.captured))()
    case.same(out, expected)
    if case.exact:
        _, given = jax.jit(jr.find_nonfinite(case.fun))(*case.args)
        found, expected = ([(b.site.name, b.kind) for b in r.births] for r in (report, given))
        assert found == expected


# To itself, or to more digits: so nothing is rounded.
NOTHING = {"*": "float64"}


def _with_recipe(tool: Any, recipe: Any, exact: bool, case: Case) -> None:
    expected = case.jitted()
    try:
        out = jax.jit(tool(case.captured, recipe))()
    except NothingSelectedError as error:
        raise NotRunnable("nothing that a recipe could round") from error
    if exact:
        case.same(out, expected)
    else:
        same_types(out, expected)


INT8 = {"*": "bfloat16", "dot_general": ("int8", jr.Dynamic("int8", channels=True))}


def under_guard(case: Case) -> None:
    expected = case.jitted()
    _, ranges = jr.ranges(case.captured, inputs=True)()
    if not ranges.sites:
        raise NotRunnable("nothing to guard")
    out, violations = jax.jit(jr.guard(case.captured, ranges))()
    case.same(out, expected)
    assert not case.exact or not violations.any


def under_shadow(case: Case) -> None:
    out, report = jax.jit(jr.shadow(case.captured, high="float32"))()
    same_types(out, case.outputs())
    assert report.rows is not None


def under_bounds(case: Case) -> None:
    """Inside jit too: nothing is run, so nothing is traced."""
    expected = case.outputs()
    found = []

    def traced(x: Any) -> Any:
        found.append(jr.bounds(case.captured, observed=False)())
        return x

    jax.jit(traced)(0.0)
    out, ranges = jr.ranges(case.captured)()
    case.same(out, expected)
    for name, seen in ranges.items():
        assert found[0][name].holds(seen.min, seen.max, seen.nan), name


def same_types(got: Any, expected: Any) -> None:
    """The same tree of arrays of the same types."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    assert list(map(jax.typeof, jax.tree.leaves(got))) == list(
        map(jax.typeof, jax.tree.leaves(expected))
    )


TOOLS: dict[str, Callable[[Case], None]] = {
    "eagerly": eagerly,
    "under jit": under_jit,
    "inside jit": inside_jit,
    "under vmap": under_vmap,
    "inside vmap": inside_vmap,
    "under grad": under_grad,
    "inside grad": inside_grad,
    "Net": under_net,
    "find_nonfinite": under_find_nonfinite,
    "simulate nothing": functools.partial(_with_recipe, jr.simulate, NOTHING, True),
    "simulate": functools.partial(_with_recipe, jr.simulate, INT8, False),
    "quantize nothing": functools.partial(_with_recipe, jr.quantize, NOTHING, True),
    "quantize": functools.partial(_with_recipe, jr.quantize, INT8, False),
    "guard": under_guard,
    "shadow": under_shadow,
    "bounds": under_bounds,
}


def check_all(cases: Iterable[tuple[str, str, Case]]) -> int:
    """Try programs with tools, given as (name, tool, case); how many of them plain JAX runs.

    Raises AssertionError when all were tried, if some went wrong.
    """
    ran, failed = 0, []
    for name, tool, case in cases:
        try:
            with jax.enable_x64(case.x64), planning_binds_nothing():
                TOOLS[tool](case)
            ran += 1
        except NotRunnable:
            continue
        except Exception as error:
            failed.append(f"{name}, {tool}: {type(error).__name__}: {error}")
    assert not failed, "\n".join(failed)
    return ran


# -- planning ---------------------------------------------------------------------------------

PACKAGE = Path(jr.__file__).parent

# By module and function, what runs or traces something that is not known: the user's function,
# its program and rules, what is accumulated or compared of it. All else plans, reads or reports.
RUNNING = frozenset(
    {
        ("call.py", "run"),
        ("call.py", "typed"),
        ("interpret.py", "run"),
        ("accumulate.py", "run"),
        ("pairs.py", "_at_outputs"),
        ("rules/derivatives.py", "backward"),
    }
)
# Modules that only plan. Their functions may be called, of an array that was not looked at so
# far, while a program runs.
PLANNING = (
    *("constants.py", "derive.py", "expected.py", "memory_order.py", "noise.py", "plan.py"),
    *("reads.py", "scopes.py", "site.py", "taken.py", "births/checks.py", "births/genealogy.py"),
    *("births/inquiry.py", "births/planned.py", "bounds/", "quantization/executable.py"),
    *("quantization/execution.py", "quantization/recipe.py", "quantization/resolved.py"),
)


class PlanningBindsError(AssertionError):
    """A JAX operation on what is known before the program runs."""


@contextlib.contextmanager
def planning_binds_nothing() -> Iterator[None]:
    """Whatever binds a primitive in here while it plans raises PlanningBindsError."""
    bind = Primitive.bind

    def checked(self: Any, *args: Any, **params: Any) -> Any:
        plans = _planning_frame(sys._getframe(1))
        if plans is not None:
            raise PlanningBindsError(f"{self} is bound while planning, in {plans}")
        return bind(self, *args, **params)

    with mock.patch.object(Primitive, "bind", checked):
        yield


def _planning_frame(frame: Any) -> str | None:
    """Where the package plans, if what is called from this frame is called in order to."""
    innermost = None
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(f"{PACKAGE}{os.sep}"):
            module = Path(code.co_filename).relative_to(PACKAGE).as_posix()
            innermost = innermost or f"{module}, {code.co_name}"
            if module.startswith(PLANNING):
                return f"{module}, {code.co_name}"
            if (module, code.co_name) in RUNNING:
                return None
        frame = frame.f_back
    return innermost
