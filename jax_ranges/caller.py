"""Calls of a function, observed: which compiled program each of them needs."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax
from jax.sharding import Sharding

from jax_ranges import compat
from jax_ranges.births.planned import BirthsPlan
from jax_ranges.call import Call, is_variable, shared_variables, unbound
from jax_ranges.compiled import Program, compiled, kind_of_call
from jax_ranges.plan import Plan
from jax_ranges.recorder import Recorder
from jax_ranges.site import NothingSelectedError, Select, selector
from jax_ranges.transform import Options
from jax_ranges.trees import UNSORTED, flat_tree, hashable

MANY_PROGRAMS = 50
_UNKNOWN: Any = object()

Kind = tuple[Hashable, Any, Hashable]
"""What decides which program a call needs, but for places: variant, structure, `kind_of_call`."""

P = TypeVar("P")


@dataclass(slots=True)
class _Last(Generic[P]):
    """Where the arrays of the last call of some kind were, and its program."""

    places: list[Sharding]
    program: P


class Programs(Generic[P]):
    """The compiled programs of a function: one for each kind of call, made when it is first met.

    Attributes:
      owner: how the object that calls is written, for messages: `jr.Net(f)`.
    """

    def __init__(self, fun: Callable[..., Any], owner: str):
        self.owner = owner
        self._fun, self._bound = _with_bound(fun)
        self._info = compat.jit_arguments(self._fun)
        self._programs: dict[Hashable, P] = {}
        self._last: dict[Kind, _Last[P]] = {}
        self._compiling = threading.RLock()
        self._have_variables: dict[Any, bool] = {}

    def compile(self, args: Any, kwargs: Any, variant: Any) -> P:
        """The program of calls like this one."""
        raise NotImplementedError

    def variant(self) -> Hashable:
        """What else than the call decides which program it needs."""
        return None

    def find(self, args: Any, kwargs: Any) -> tuple[P, list[Any], Any]:
        """The program of a call, the leaves of its arguments, and the positional ones."""
        args = (*self._bound, *args)
        try:
            leaves, tree = jax.tree.flatten((args, kwargs))
        except UNSORTED:
            leaves, tree = jax.tree.flatten(flat_tree((args, kwargs)))
        variant = self.variant()  # which another thread may change at any moment
        kind = variant, tree, kind_of_call(self._info, args, kwargs, leaves)
        places = compat.places_of(leaves)
        try:
            last = self._last.get(kind)
        except (TypeError, ValueError):  # the latter of a memoryview
            kind = variant, hashable(tree), hashable(kind[2])
            last = self._last.get(kind)
        # Equal lists first: to hash places takes longer than all else.
        if last is not None and last.places == places:
            last.places = places  # next time they may be the same objects: quicker still
            return last.program, leaves, args
        return self._placed(kind, places, args, kwargs), leaves, args

    def _placed(self, kind: Kind, places: list[Sharding], args: Any, kwargs: Any) -> P:
        """The program of a call whose arrays are not where they were last time."""
        variant, tree, _ = kind
        has_variables = self._has_variables(tree, args, kwargs)
        shared = tuple(shared_variables(flat_tree((args, kwargs)))) if has_variables else ()
        distinct = {id(place): place for place in places}.values()
        key = kind, frozenset(distinct), shared
        program: Any = self._programs.get(key, _UNKNOWN)
        if program is _UNKNOWN:
            program = self._compiled(key, args, kwargs, variant)
        if not has_variables:  # of which others may be shared next time
            self._last[kind] = _Last(places, program)
        return program

    def _has_variables(self, tree: Any, args: Any, kwargs: Any) -> bool:
        """Whether there are any that could be given twice; looking takes long, so only once."""
        found = self._have_variables.get(tree)
        if found is None:
            leaves = jax.tree.leaves(flat_tree((args, kwargs)), is_leaf=is_variable)
            found = self._have_variables[tree] = any(map(is_variable, leaves))
        return found

    def _compiled(self, kind: Hashable, args: Any, kwargs: Any, variant: Any) -> P:
        with self._compiling:
            if kind not in self._programs:
                self._programs[kind] = self.compile(args, kwargs, variant)
                if len(self._programs) == MANY_PROGRAMS:
                    self._warn_of_many()
            return self._programs[kind]

    def _warn_of_many(self) -> None:
        warnings.warn(
            f"{self.owner} has compiled {MANY_PROGRAMS} programs, one for each "
            f"shape of its arrays and each value of its other arguments. If an argument counts "
            f"something, pass an array: jnp.asarray(step)",
            RuntimeWarning,
            stacklevel=7,  # the call of what the user called
        )


class Caller(Programs[Program | None]):
    """Runs a function observed; what it sees is in the pools of the programs of `recorder`.

    Attributes:
      excluded: the names of sites that are not observed for the time being.
    """

    def __init__(self, fun: Callable[..., Any], options: Options, recorder: Recorder):
        super().__init__(fun, f"jr.Net({options.name})")
        self.excluded: frozenset[str] = frozenset()
        self._options, self._recorder = options, recorder

    def variant(self) -> Hashable:
        return self.excluded

    def __call__(self, args: Any, kwargs: Any, number: int) -> Any:
        """The n-th call of all."""
        if compat.tracing():
            raise TypeError(
                f"jr.Net({self._options.name}) was called inside jit, grad, vmap or another "
                f"transformation, where nothing can accumulate between calls. Use "
                f"out, ranges = jr.ranges(f)(...) there, and return the ranges"
            )
        program, leaves, args = self.find(args, kwargs)
        if program is None:
            return self._fun(*args, **kwargs)
        return program.run(leaves, args, kwargs, number)

    def compile(self, args: Any, kwargs: Any, variant: frozenset[str]) -> Program | None:
        program = self._compile(args, kwargs, variant)
        if program is not None:
            self._recorder.add(program)  # before anybody can run it
        return program

    def _compile(self, args: Any, kwargs: Any, excluded: frozenset[str]) -> Program | None:
        """None if there is nothing to observe."""
        call = Call.trace(self._fun, args, kwargs, outermost=True)
        try:
            plan = self._plan(call)
        except NothingSelectedError:  # a mistake, unless calls of another kind have what is
            if any(self._programs.values()):
                return None
            raise
        if excluded and excluded.issuperset(site.name for site in plan.sites):
            return None
        if excluded:
            wanted = selector(self._options.select)
            plan = self._plan(call, lambda s: wanted(s) and s.name not in excluded)
        return compiled(call, plan, self._options.stats, self._options.name)

    def _plan(self, call: Call, select: Select = None) -> Plan | BirthsPlan:
        options = self._options
        return (options.plan if options.births is None else options.plan_births)(call, select)


def _with_bound(fun: Any) -> tuple[Any, tuple[Any, ...]]:
    """A function, and the arguments that come before the caller's.

    A module that is called, or whose method is, is an argument: as a constant its weights would
    stay what they were when it was compiled, and the compiler would fold them.
    """
    fun, bound = unbound(fun, ())
    if inspect.ismethod(fun) and _is_tree(fun.__self__):
        return fun.__func__, (fun.__self__,)
    if not bound and _is_tree(fun):
        return type(fun).__call__, (fun,)
    return fun, bound


def _is_tree(value: Any) -> bool:
    return not jax.tree_util.all_leaves([value])
