"""The recorder: what a net has seen so far, since the last reset and in all.

While calls go on, what they see is in the pools of their programs, on the device: the window. A
reset takes it out of there, without waiting for the device, as a `Window` that is read later, by
whoever comes first: a reader, or the thread that writes it to a file. What could not be written
belongs to the next window again, so that nothing is lost.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence

import jax

from jax_ranges import compat
from jax_ranges.accumulate import Accumulator
from jax_ranges.births.birth import Birth, births_in, first_of
from jax_ranges.births.genealogy import Found, Genealogy
from jax_ranges.compiled import Program
from jax_ranges.packing import Layout
from jax_ranges.ranges import Ranges, from_states


class Tally:
    """Ranges on the host, those of each layout merged; programs of one function share names."""

    def __init__(self, ranges: Sequence[Ranges] = ()):
        self._ranges: dict[Layout, Ranges] = {}
        for each in ranges:
            self.add(each)

    def add(self, ranges: Ranges) -> None:
        layout = ranges.layout
        mine = self._ranges.get(layout)
        with compat.apart():
            self._ranges[layout] = ranges if mine is None else mine.merge(ranges)

    def parts(self) -> list[Ranges]:
        return list(self._ranges.values())

    def merged(self, view: Callable[[Ranges], Ranges]) -> Ranges:
        """What `view` shows of them by site name, in the order in which sites were first met."""
        with compat.apart():
            parts = [view(part) for part in self.parts()]
            if _lengths_differ(parts):
                parts = [part.reduce() for part in parts]
            total = functools.reduce(Ranges.merge, parts) if parts else from_states([], [])
            return jax.device_get(total)


def _lengths_differ(parts: Sequence[Ranges]) -> bool:
    """Whether a site is stacked over loops of different lengths."""
    leads: dict[str, tuple[int, ...]] = {}
    return any(
        leads.setdefault(name, lead) != lead for part in parts for name, lead in part.leads()
    )


class Window:
    """What was seen between two resets."""

    def __init__(self, taken: Sequence[tuple[Program, Accumulator]]):
        self._taken = list(taken)
        self._lock = threading.RLock()
        self._parts: list[Ranges] | None = None

    def parts(self) -> list[Ranges]:
        """Read from the device, once."""
        with self._lock:
            if self._parts is None:
                read = [(program, accumulator.read()) for program, accumulator in self._taken]
                self._parts = [program.ranges(a) for program, a in read if a is not None]
                self._taken = []
            return self._parts


class Recorder:
    """What the programs of one function have seen. It does not hold the function.

    Args:
      name: the function's.
    """

    def __init__(self, name: str):
        self.name = name
        self._programs: list[Program] = []
        self._program_of: dict[Layout, Program] = {}
        # Of what follows, and never held while anybody waits for the device or the disk.
        self._lock = threading.RLock()
        self._resets = 0  # told before anything is moved, so that a reader sees that it was
        self._totals = Tally()
        self._kept = Tally()
        self._unwritten: list[Window] = []

    def add(self, program: Program) -> None:
        """A program whose pool is to be read from now on."""
        self._program_of[program.layout] = program
        self._programs.append(program)

    def read(self, total: bool) -> Ranges:
        """What was seen since the last reset, or in all."""
        return self._tally(total).merged(self._view)

    def births(self) -> tuple[Birth, ...]:
        """What was born in all, escaped ones first."""
        parts = self._tally(total=True).parts()
        found = [Found(part, self._genealogy(part)) for part in parts]
        return first_of([birth for each in found for birth in births_in(each)])

    def _view(self, ranges: Ranges) -> Ranges:
        return self._program_of[ranges.layout].view(ranges)

    def _genealogy(self, ranges: Ranges) -> Genealogy:
        genealogy = self._program_of[ranges.layout].genealogy
        assert genealogy is not None
        return genealogy

    def _tally(self, total: bool) -> Tally:
        """All that was seen, each program by itself."""
        while True:
            with self._lock:
                resets = self._resets
                parts = self._totals.parts() if total else self._kept.parts()
                windows = list(self._unwritten) if total else []
            parts += [part for window in windows for part in window.parts()]
            for program in tuple(self._programs):
                parts += [program.ranges(arrays) for arrays in program.pool.read()]
            if resets == self._resets:
                return Tally(parts)

    def take(self) -> Window:
        """Reset; what was seen since the last reset is for `finish`."""
        with self._lock:
            self._resets += 1
            taken = [(program, a) for program in self._programs for a in program.pool.take()]
            window = Window(taken)
            self._unwritten.append(window)
        return window

    def finish(self, window: Window, write: Callable[[Ranges], None]) -> None:
        """Hand a window to `write`; if that raises, it belongs to the next one.

        A window in which nothing was observed is not written.
        """
        parts = window.parts()
        with self._lock:
            kept, self._kept = self._kept, Tally()
        tally = Tally([*kept.parts(), *parts])
        try:
            if tally.parts():
                write(tally.merged(self._view))
            tally = Tally()
        finally:
            with self._lock:
                self._resets += 1
                self._kept = Tally([*self._kept.parts(), *tally.parts()])
                self._unwritten.remove(window)
                for part in parts:
                    self._totals.add(part)
