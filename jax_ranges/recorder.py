"""The recorder: what a net has seen so far, since the last reset and in all.

While calls go on, what they see is in the pools of their programs, on the device: the window. A
reset takes it out of there, without waiting for the device, as a `Window` that is read later, by
whoever comes first: a reader, or the thread that writes it to a file. What could not be written
belongs to the next window again, so that nothing is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from jax_ranges import compat
from jax_ranges.accumulate import Accumulator
from jax_ranges.call import Call
from jax_ranges.compiled import Program, compiled, kind_of_call
from jax_ranges.packing import Layout
from jax_ranges.ranges import Ranges, from_states
from jax_ranges.site import selector
from jax_ranges.transform import Options


class Tally:
    """Ranges on the host, those of each layout merged; programs of one function share names."""

    def __init__(self, ranges: Sequence[Ranges] = ()):
        self._ranges: dict[Layout, Ranges] = {}
        for each in ranges:
            self.add(each)

    def add(self, ranges: Ranges) -> None:
        layout = ranges.tree_flatten()[1]
        mine = self._ranges.get(layout)
        self._ranges[layout] = ranges if mine is None else mine.merge(ranges)

    def parts(self) -> list[Ranges]:
        return list(self._ranges.values())

    def merged(self) -> Ranges:
        """All of them by site name, in the order in which sites were first met."""
        parts = self.parts()
        if not parts:
            return from_states([], [])
        if len(set(map(_leads, parts))) > 1:  # stacked loops of different lengths
            parts = [part.reduce() for part in parts]
        total = parts[0]
        for part in parts[1:]:
            total = total.merge(part)
        return jax.device_get(total)


class Window:
    """What was seen between two resets."""

    def __init__(self, taken: Sequence[tuple[Program, Accumulator]]):
        self._taken = list(taken)
        self._lock = threading.Lock()
        self._parts: list[Ranges] | None = None

    def parts(self) -> list[Ranges]:
        """Read from the device, once."""
        with self._lock:
            if self._parts is None:
                self._parts = [program.ranges(a.read()) for program, a in self._taken]
                self._taken = []
            return self._parts


class Recorder:
    """Runs a function observed, and keeps what was seen.

    Args:
      fun: the function.
      options: what to observe of it.

    Attributes:
      excluded: the names of sites that are not observed for the time being.
    """

    def __init__(self, fun: Callable[..., Any], options: Options):
        self.options = options
        self.excluded: frozenset[str] = frozenset()
        self._fun, self._info = fun, compat.jit_arguments(fun)
        self._programs: dict[Hashable, Program | None] = {}
        self._compiling = threading.Lock()
        # Of what follows; never held while a function runs.
        self._lock = threading.Lock()
        self._totals = Tally()
        self._kept = Tally()
        self._unwritten: list[Window] = []

    # -- calls ----------------------------------------------------------------------------

    def call(self, args: Any, kwargs: Any) -> Any:
        """`fun(*args, **kwargs)`, observed."""
        leaves, tree = jax.tree.flatten((args, kwargs))
        kind = (self.excluded, kind_of_call(self._info, args, kwargs, leaves, tree))
        try:
            program = self._programs[kind]
        except KeyError:
            program = self._compiled(kind, args, kwargs)
        except TypeError as error:
            raise _unhashable(leaves, error) from error
        return self._fun(*args, **kwargs) if program is None else program.run(leaves, args, kwargs)

    def _compiled(self, kind: Hashable, args: Any, kwargs: Any) -> Program | None:
        with self._compiling:
            if kind not in self._programs:
                self._programs[kind] = self._compile(args, kwargs, self.excluded)
            return self._programs[kind]

    def _compile(self, args: Any, kwargs: Any, excluded: frozenset[str]) -> Program | None:
        """None if there is nothing to observe."""
        call = Call.trace(self._fun, args, kwargs, outermost=True)
        plan = self.options.plan(call)
        if excluded and excluded.issuperset(site.name for site in plan.sites):
            return None
        if excluded:
            wanted = selector(self.options.select)
            plan = self.options.plan(call, lambda s: wanted(s) and s.name not in excluded)
        return compiled(call, plan, self.options.stats, self.options.name)

    # -- reading --------------------------------------------------------------------------

    def read(self, total: bool) -> Ranges:
        """What was seen since the last reset, or in all."""
        with self._lock:
            parts = self._totals.parts() if total else self._kept.parts()
            if total:
                parts += [part for window in self._unwritten for part in window.parts()]
            for program in self._running():
                parts += [program.ranges(arrays) for arrays in program.pool.read()]
        return Tally(parts).merged()

    def take(self) -> Window:
        """Reset; what was seen since the last reset is for `finish`."""
        with self._lock:
            window = Window(
                [(program, a) for program in self._running() for a in program.pool.take()]
            )
            self._unwritten.append(window)
        return window

    def finish(self, window: Window, write: Callable[[Ranges], None]) -> None:
        """Hand a window to `write`; if that raises, it belongs to the next one."""
        parts = window.parts()
        with self._lock:
            tally = Tally([*self._kept.parts(), *parts])
            self._kept = Tally()
        try:
            write(tally.merged())
        except BaseException:
            with self._lock:
                self._kept = Tally([*self._kept.parts(), *tally.parts()])
            raise
        finally:
            with self._lock:
                self._unwritten.remove(window)
                for part in parts:
                    self._totals.add(part)

    def _running(self) -> list[Program]:
        return [program for program in tuple(self._programs.values()) if program is not None]


def _leads(ranges: Ranges) -> frozenset[tuple[int, ...]]:
    return frozenset(group.lead for group in ranges.tree_flatten()[1].groups if group.lead)


def _unhashable(leaves: Sequence[Any], error: TypeError) -> TypeError:
    """Says which argument it is that nobody can tell from another."""
    for leaf in leaves:
        try:
            hash(leaf if not isinstance(leaf, jax.Array) else None)
        except TypeError:
            return TypeError(
                f"arguments that are not arrays are static, so they must be hashable; got "
                f"{leaf!r} of type {type(leaf).__name__}. Pass an array, or close over it"
            )
    return error
