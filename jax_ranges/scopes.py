"""Names for the modules of frameworks that set no scopes: flax nnx and equinox.

Flax linen and haiku run each module in a scope of its name; nnx has none, and equinox the class
of its own layers only. `jr.scopes` finds the attribute path of a module when it is called, and
runs the call in a scope of it. That takes a look at every call: for as long as the function
runs, and in the thread that runs it, the modules' classes have methods that do.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from jax_ranges.transform import check_callable, named_like

# The base class of the modules of each framework, by the name of what has to be imported first.
FRAMEWORKS = {"flax.nnx": "Module", "equinox": "Module"}
# Where classes are that derive from it and are no modules to a user: bound methods, vmaps.
MACHINERY = ("equinox._", "equinox.internal")


def scopes(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function that runs each nnx or equinox module in it in a scope of its attribute path.

    `jr.ranges(jr.scopes(f))` then has sites like `blocks/3/attn/q_proj/dot_general`, and so has a
    profile. Paths are those from the outermost module that is called, whose own name is not
    known. A module that a transformation made anew inside (`nnx.scan` over stacked layers) is
    called by its class.

    Args:
      fun: any function with modules as arguments or captured, or a module itself.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> import jax_ranges as jr
      >>> class Block(nnx.Module):
      ...     def __init__(self, rngs):
      ...         self.up, self.down = (nnx.Linear(2, 2, rngs=rngs) for _ in range(2))
      ...     def __call__(self, x):
      ...         return self.down(nnx.relu(self.up(x)))
      >>> block = Block(nnx.Rngs(0))
      >>> _, ranges = jr.ranges(jr.scopes(block))(jnp.ones((1, 2)))
      >>> [name for name in ranges if name.endswith("dot_general")]
      ['up/dot_general', 'down/dot_general']
    """
    check_callable(fun, "jr.scopes takes a function or a module: jr.ranges(jr.scopes(f))(x)")

    @named_like(fun, "scopes")
    def scoped(*args: Any, **kwargs: Any) -> Any:
        with _watching(), _active(_Calls()):
            return fun(*args, **kwargs)

    return scoped


# -- the path of a module ---------------------------------------------------------------------


class _Calls:
    """The modules that are being called, and the paths of those that can be."""

    def __init__(self) -> None:
        self.paths: dict[int, tuple[str, Any]] = {}  # with the module, lest its id be reused
        self.running: list[str] = []

    @contextlib.contextmanager
    def entered(self, module: Any) -> Iterator[None]:
        """In the scope of a module, unless one of its own methods calls this one."""
        if id(module) not in self.paths:
            name = type(module).__name__ if self.running else ""
            found = {id(m): (p, m) for p, m in _modules(module, name)}
            self.paths = {**found, **self.paths}
        path = self.paths[id(module)][0]
        name = self._relative(path)
        self.running.append(path)
        try:
            with jax.named_scope(name) if name else contextlib.nullcontext():
                yield
        finally:
            self.running.pop()

    def _relative(self, path: str) -> str:
        inside = self.running[-1] if self.running else ""
        if path == inside:
            return ""
        return path.removeprefix(f"{inside}/") if inside else path


def _modules(module: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A module and those in its attributes, lists and dictionaries, each once."""
    seen: set[int] = set()
    waiting = [(path, module)]
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, _bases()):
            yield path, value
        parts = [(f"{path}/{name}" if path else str(name), part) for name, part in _parts(value)]
        waiting += reversed(parts)


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield from enumerate(value)
    elif isinstance(value, _bases()):
        yield from vars(value).items()


# -- watching calls ---------------------------------------------------------------------------

_thread = threading.local()
_lock = threading.Lock()
_watchers = 0
_originals: list[tuple[type, str, Any]] = []


def _bases() -> tuple[type, ...]:
    loaded = ((sys.modules.get(name), base) for name, base in FRAMEWORKS.items())
    return tuple(getattr(module, base) for module, base in loaded if hasattr(module, base))


@contextlib.contextmanager
def _active(calls: _Calls | None) -> Iterator[None]:
    before = getattr(_thread, "calls", None)
    _thread.calls = calls
    try:
        yield
    finally:
        _thread.calls = before


@contextlib.contextmanager
def _watching() -> Iterator[None]:
    """The methods of all modules tell of their calls, for the first to come until the last goes."""
    global _watchers
    with _lock:
        _watchers += 1
        if _watchers == 1:
            _originals.extend(_methods())
            for cls, name, method in _originals:
                type.__setattr__(cls, name, _watched(method))
    try:
        yield
    finally:
        with _lock:
            _watchers -= 1
            if not _watchers:
                for cls, name, method in _originals:
                    type.__setattr__(cls, name, method)
                _originals.clear()


def _methods() -> Iterator[tuple[type, str, Any]]:
    """What users call of the classes of modules: `__call__` and the public methods."""
    for base in _bases():
        for cls in _subclasses(base):
            for name, method in tuple(vars(cls).items()):
                public = name == "__call__" or not name.startswith("_")
                if public and isinstance(_function(method), types.FunctionType):
                    yield cls, name, method


def _function(method: Any) -> Any:
    """The function of a method; equinox has its own kind of it."""
    if isinstance(method, staticmethod | classmethod | property | functools.cached_property):
        return None
    return getattr(method, "method", method)


def _subclasses(base: type) -> Iterator[type]:
    for cls in type.__subclasses__(base):
        if not cls.__module__.startswith(MACHINERY):
            yield cls
        yield from _subclasses(cls)


def _watched(method: Any) -> Any:
    @functools.wraps(_function(method))
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls = getattr(_thread, "calls", None)
        bound = method.__get__(self, type(self))
        if calls is None:
            return bound(*args, **kwargs)
        with calls.entered(self):
            return bound(*args, **kwargs)

    return call
