"""The recorder: what a net has seen so far, since the last reset and in all.

While calls go on, what they see is in the pools of their programs, on the device. A reset moves
it, without waiting for the device, into a window, which is read later, by whoever comes first: a
reader, or the thread that writes it to a file. A window that could not be written belongs to the
next one again. What was written is in the totals.

So all there was is in the totals, in the windows, and in the pools; it is never in two of them or
in none, wherever another thread, a Ctrl-C or a signal handler comes in between. For that, what is
not in the pools is one value that is never changed, only replaced, and computed anew if somebody
else was faster. The lock under which it is replaced is held for so few instructions that no signal
handler can come in between: none ever finds it held by the thread that it interrupted, and so it
may wait for any thread that needs it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax

from jax_ranges import compat
from jax_ranges.accumulate import Accumulator, Arrays, Slot
from jax_ranges.births.birth import Birth, births_in, first_of
from jax_ranges.births.genealogy import Found, Genealogy
from jax_ranges.compiled import Program
from jax_ranges.packing import Layout
from jax_ranges.ranges import Ranges, from_states

Read = Callable[[], Sequence[Ranges]]


class Tally:
    """Ranges on the host, those of each layout merged; programs of one function share names."""

    def __init__(self, ranges: Iterable[Ranges] = ()):
        self._ranges: dict[Layout, Ranges] = {}
        for each in ranges:
            self._add(each)

    def _add(self, ranges: Ranges) -> None:
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
    """Stands for what was seen between two resets."""


class _Taken:
    """Reads an accumulator that no call uses any more, once.

    Twice if two threads ask at the same time, which is as well: with a lock, a signal handler
    would wait for whom it interrupted.
    """

    def __init__(self, program: Program, accumulator: Accumulator):
        self._program = program
        self._accumulator: Accumulator | None = accumulator
        self._ranges: list[Ranges] = []

    def __call__(self) -> list[Ranges]:
        accumulator = self._accumulator
        if accumulator is not None:
            self._ranges = _ranges(self._program, accumulator.read)
            self._accumulator = None
        return self._ranges


def _ranges(program: Program, read: Callable[[], Arrays | None]) -> list[Ranges]:
    arrays = read()
    return [] if arrays is None else [program.ranges(arrays)]


class _State(NamedTuple):
    """What was taken from the pools.

    Attributes:
      totals: what was written.
      due: the windows that somebody is going to write.
      kept: what could not be written, and belongs to the next window.
    """

    totals: Tally
    due: Mapping[Window, tuple[Read, ...]]
    kept: tuple[Read, ...]

    def with_due(self, window: Window, *reads: Read) -> _State:
        """A window is due, with these besides what it has."""
        return self._replace(due={**self.due, window: (*self.due.get(window, ()), *reads)})

    def with_claimed(self, window: Window, mine: Window) -> _State:
        """A window, if it is due still, is due under another name, with all that was kept."""
        if window not in self.due:
            return self
        claimed = self.without(window).with_due(mine, *self.kept, *self.due[window])
        return claimed._replace(kept=())

    def with_kept(self, window: Window) -> _State:
        """What is in a window belongs to the next one."""
        return self.without(window)._replace(kept=(*self.kept, *self.due.get(window, ())))

    def with_written(self, window: Window, tally: Tally) -> _State:
        totals = Tally([*self.totals.parts(), *tally.parts()])
        return self.without(window)._replace(totals=totals)

    def without(self, window: Window) -> _State:
        """Nothing of a window is due."""
        return self._replace(due={w: reads for w, reads in self.due.items() if w is not window})


class Recorder:
    """What the programs of one function have seen. It does not hold the function.

    It belongs to the process that made it. A forked one has copies of what is in memory, but not
    the threads, JAX's among them, so what is on the device cannot be waited for there.

    Args:
      name: the function's.
    """

    def __init__(self, name: str):
        self.name = name
        self._process = os.getpid()
        self._programs: list[Program] = []
        self._program_of: dict[Layout, Program] = {}
        self._state = _State(Tally(), {}, ())
        self._lock = threading.RLock()

    def is_ours(self) -> bool:
        """Whether this process made it."""
        return os.getpid() == self._process

    def require_ours(self) -> None:
        """RuntimeError in a fork of the process that made it."""
        if not self.is_ours():
            raise RuntimeError(
                f"jr.Net({self.name}) belongs to process {self._process}, of which process "
                f"{os.getpid()} is a fork: it has no part in it, and JAX cannot run in it. Make "
                f"the net in the process that uses it, started with multiprocessing's 'spawn'"
            )

    def add(self, program: Program) -> None:
        """A program whose pool is to be read from now on."""
        self._program_of[program.layout] = program
        self._programs.append(program)

    def read(self, total: bool) -> Ranges:
        """What was seen since the last reset, or in all."""
        self.require_ours()
        return self._tally(total).merged(self._view)

    def births(self) -> tuple[Birth, ...]:
        """What was born in all, escaped ones first."""
        self.require_ours()
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
        return Tally(part for read in self._now(total) for part in read())

    def take(self, window: Window) -> None:
        """Reset: what was seen since the last time is in the window, which is due.

        So it is for `finish` or `keep`, also if something is raised here.
        """
        self.require_ours()
        self._change(lambda state: state.with_due(window))
        for program in tuple(self._programs):
            program.pool.take(partial(self._move, window, program))

    def keep(self, window: Window) -> None:
        """What is in a window belongs to the next one, unless somebody has begun to write it."""
        self._change(lambda state: state.with_kept(window))

    def finish(self, window: Window, write: Callable[[Ranges], None]) -> None:
        """Hand a window to `write`, together with those before it that could not be written.

        If `write` raises, they are kept. A window in which nothing was observed is not written,
        nor is one that was kept meanwhile.
        """
        mine, is_written = Window(), False
        try:
            self._change(lambda state: state.with_claimed(window, mine))
            tally = self._joined(mine)
            if tally.parts():
                write(tally.merged(self._view))
            is_written = True  # and is not kept, whatever comes now
            self._change(lambda state: state.with_written(mine, tally))
        finally:
            if not is_written:
                self.keep(mine)

    def _joined(self, window: Window) -> Tally:
        """What is in a window, merged there too: what cannot be written shall not pile up."""
        reads = self._state.due.get(window, ())
        tally = Tally(part for read in reads for part in read())
        if reads:
            self._change(lambda state: state.without(window).with_due(window, tally.parts))
        return tally

    def _now(self, total: bool) -> list[Read]:
        """What reads all there is now, whatever becomes of it later."""
        while True:
            state, programs = self._state, tuple(self._programs)
            pools = [(program, read) for program in programs for read in program.pool.reads()]
            with self._lock:
                is_now = self._state is state  # nothing was moved meanwhile
            if is_now:
                due = [read for reads in state.due.values() for read in reads]
                written = [state.totals.parts, *due] if total else []
                return [*written, *state.kept, *(partial(_ranges, *pool) for pool in pools)]

    def _change(self, how: Callable[[_State], _State]) -> None:
        while True:
            before = self._state
            after = how(before)
            with self._lock:  # no call in here, lest a signal handler comes
                if self._state is before:
                    self._state = after
                    return

    def _move(self, window: Window, program: Program, slot: Slot, new: Accumulator) -> None:
        """From the pool to the window."""
        while True:
            before = self._state
            after = before.with_due(window, _Taken(program, slot.accumulator))
            with self._lock:
                if self._state is before:  # and the slot's accumulator is the same, then
                    slot.accumulator = new
                    self._state = after
                    return
