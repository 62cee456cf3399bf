"""`jax.jit`, `jax.grad`, `jax.vmap` for foreign tests: the functions given to them are measured."""

from __future__ import annotations

import functools
import inspect
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import jax
from jax._src import api

import jax_ranges as jr
from jax_ranges import compat
from jax_ranges.call import Call

from .outputs import check_ranges
from .tools import NET, TRACED, Function, Tool, is_concrete, remember_plans

REAL = {name: getattr(jax, name) for name in ("jit", "grad", "value_and_grad", "vmap")}

# A function that is called often is checked at its first calls only: that takes longer than it.
CHECKED_CALLS = 4


@dataclass
class Current:
    """How the test that runs now is run.

    Attributes:
      tool: one of `tools.TOOLS`, or None: plainly.
      measured: how many functions were run through the tool.
      wrong: what the checks found.
    """

    tool: str | None = None
    measured: int = 0
    wrong: list[str] = field(default_factory=list)


CURRENT = Current()


class Nesting(threading.local):
    """Whether this thread runs a measured function: what that calls is not measured again."""

    inside = False


NESTING = Nesting()


@contextmanager
def _inside() -> Iterator[None]:
    NESTING.inside = True
    try:
        yield
    finally:
        NESTING.inside = False


class Jitted:
    """What `jax.jit(fun, **options)` is here: plainly that, but for calls when a tool is chosen."""

    def __init__(self, fun: Function, options: dict[str, Any]):
        self._fun, self._options = fun, options
        self._plain = REAL["jit"](fun, **options)
        self._by_tool: dict[str, Any] = {}
        for name in (*functools.WRAPPER_ASSIGNMENTS, "__wrapped__"):
            with suppress(AttributeError):
                setattr(self, name, getattr(self._plain, name))

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_plain" not in vars(self):
            raise AttributeError(name)
        return getattr(self._plain, name)

    def __repr__(self) -> str:
        return repr(self._plain)

    def __reduce__(self) -> Any:
        return Jitted, (self._fun, self._options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tool = CURRENT.tool
        if tool is None or NESTING.inside or (tool == NET and compat.tracing()):
            CURRENT.measured += tool is None
            return self._plain(*args, **kwargs)
        CURRENT.measured += 1
        if tool not in self._by_tool:
            make = _Net if tool == NET else _Traced
            self._by_tool[tool] = make(self._fun, self._options, self._plain, tool)
        return self._by_tool[tool](args, kwargs)


class _Traced:
    """A function jitted with a tool inside."""

    def __init__(self, fun: Function, options: dict[str, Any], plain: Function, name: str):
        self._tool, self._checks = TRACED[name](), CHECKED_CALLS
        static = {k: options[k] for k in ("static_argnums", "static_argnames") if k in options}
        # What is static is known of jitted functions.
        run = self._tool(REAL["jit"](fun, **static) if static else fun)

        def body(*args: Any, **kwargs: Any) -> Any:
            with _inside():
                return run(*args, **kwargs)

        with suppress(TypeError, ValueError):  # a builtin
            body.__signature__ = inspect.signature(fun)  # pyright: ignore[reportFunctionMemberAccess]
        body.__name__ = getattr(fun, "__name__", type(fun).__name__)
        self._jitted = REAL["jit"](body, **_with_ranges(options))

    def __call__(self, args: Any, kwargs: Any) -> Any:
        out, found = self._jitted(*args, **kwargs)
        if self._checks and is_concrete((out, found)):
            self._checks -= 1
            check(lambda: self._tool.check((args, kwargs), out, found))
        return out


def _with_ranges(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `jit` for a function that returns one thing more."""
    shardings = options.get("out_shardings")
    if shardings is None or isinstance(shardings, type(api.sharding_impls.UNSPECIFIED)):
        return options
    return options | {"out_shardings": (shardings, None)}


class _Net:
    """A jitted function in a `jr.Net`."""

    def __init__(self, fun: Function, options: dict[str, Any], plain: Function, name: str):
        self._net, self._checks = jr.Net(plain), CHECKED_CALLS

    def __call__(self, args: Any, kwargs: Any) -> Any:
        with _inside():
            out = self._net(*args, **kwargs)
        if self._checks:
            self._checks -= 1
            check(lambda: check_ranges(self._net.get_info()))
        return out


def check(run: Callable[[], None]) -> None:
    """Note what a check finds; it is told at the end of the test, which may expect errors."""
    try:
        with _inside(), jax.transfer_guard("allow"), warnings.catch_warnings(action="ignore"):
            run()
    except TimeoutError:
        raise
    except Exception as error:
        CURRENT.wrong.append(f"{type(error).__name__}: {error}")


def jit(fun: Function | None = None, /, **options: Any) -> Any:
    """In the place of `jax.jit`."""
    return functools.partial(jit, **options) if fun is None else Jitted(fun, options)


def measured(fun: Any) -> Any:
    """`fun`, which is about to be differentiated or vectorized, run through the tool."""
    if not callable(fun):
        return fun

    @functools.wraps(fun, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        if CURRENT.tool is None:
            CURRENT.measured += not NESTING.inside
        if CURRENT.tool in (None, NET) or NESTING.inside:
            return fun(*args, **kwargs)
        CURRENT.measured += 1
        tool: Tool = TRACED[CURRENT.tool]()
        with _inside():
            try:
                return tool(fun)(*args, **kwargs)[0]
            except jax.errors.JAXTypeError:
                if _can_be_traced(fun, args, kwargs):
                    raise
                return fun(*args, **kwargs)

    return run


def _can_be_traced(fun: Function, args: Any, kwargs: Any) -> bool:
    """Whether it could be jitted: values that do not depend on what `vmap` maps are concrete."""
    try:
        Call.trace(fun, args, kwargs)
    except jax.errors.JAXTypeError:
        return False
    return True


def _of_measured(real: Function) -> Function:
    """In the place of a transformation: the same of the measured function."""

    @functools.wraps(real)
    def transform(fun: Any = None, *args: Any, **kwargs: Any) -> Any:
        return real(fun if fun is None else measured(fun), *args, **kwargs)

    return transform


class _Api(types.ModuleType):
    """JAX's module of transformations, for its test helpers: with the `jit` from here."""

    jit = staticmethod(jit)

    def __getattr__(self, name: str) -> Any:
        return getattr(api, name)


def install() -> dict[int, Any]:
    """Put all of it into the place of JAX's functions; by the id of each what stands there now."""
    from jax._src import test_util  # it needs absl-py

    remember_plans()
    replaced = {name: _of_measured(real) for name, real in REAL.items()} | {"jit": jit}
    for name, replacement in replaced.items():
        setattr(jax, name, replacement)
    test_util.api = _Api("api")
    found = {id(REAL[name]): replacement for name, replacement in replaced.items()}
    return found | {id(api): test_util.api}
