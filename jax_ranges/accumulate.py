"""Accumulators: states that grow on the device, call after call, and lose nothing.

A `Pool` belongs to one compiled program. Its accumulators are arrays that a call donates and
gets back merged with what it saw. Calls from several threads at once take an accumulator each,
so that they neither wait for one another (nor for somebody who reads) nor overwrite each other's
update; reading takes them all together.

Donation has a price: a call that fails on the device (a callback that raises, memory that does
not suffice) takes the accumulator with it. So each has copies, made on the device without
waiting, of what it was a few calls ago or a moment ago, and goes on from there.

A Ctrl-C, or a signal handler that reads or closes, may come wherever CPython looks for signals:
where a function of Python begins, where one written in C has returned, and in loops. What must not
be torn apart is therefore done by one call of something written in C, or by assignments alone.
"""

from __future__ import annotations

import functools
import itertools
import operator
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat

# A copy is made when the number of calls is a power of two, then every so many calls or seconds.
COPY_CALLS, COPY_SECONDS = 256, 0.5

Arrays = list[Any]
Lock = Any  # a `threading.RLock`, which is no type
Step = Callable[..., tuple[list[Any], Arrays]]


class Pool:
    """The accumulators of one program.

    Args:
      empty: makes the arrays of an accumulator that has seen nothing.
      careful: copy at every call. For programs that call back into Python, where somebody may
        read the pool while a call of it runs, and cannot wait for its end.
    """

    def __init__(self, empty: Callable[[], Arrays], careful: bool = False):
        self._empty, self._careful = empty, careful
        self._slots: list[Slot] = []

    def run(self, step: Step, values: Sequence[Any]) -> list[Any]:
        """`step(arrays, *values)`; keeps the arrays that it returns beside its outputs."""
        held: list[Lock] = []
        accumulator = None
        try:
            accumulator = self._borrowed(held).accumulator
            accumulator.runs = True  # at once, lest a signal handler takes it
            return accumulator.run(step, values)
        finally:
            if accumulator is not None:
                accumulator.runs = False
            for lock in held:
                lock.release()

    def reads(self) -> list[Callable[[], Arrays | None]]:
        """For each accumulator what reads it, also after it was taken; None if it saw nothing."""
        return [
            functools.partial(self._read, slot, slot.accumulator) for slot in tuple(self._slots)
        ]

    def take(self, move: Callable[[Slot, Accumulator], None]) -> None:
        """Hand each slot that has seen anything to `move`, with an accumulator to begin anew with.

        Waits for calls to be dispatched, but for nothing on the device. What a call around this
        one uses, which a signal handler or a callback interrupted, stays for the next time.
        """
        for slot in tuple(self._slots):
            if slot.accumulator.has_seen:  # the others may take long to compile
                self._take(slot, move)

    def _read(self, slot: Slot, accumulator: Accumulator) -> Arrays | None:
        if not accumulator.has_seen:
            return None
        held: list[Lock] = []
        try:
            is_idle = self._hold(slot, held) or slot.accumulator is not accumulator
            return accumulator.read() if is_idle else accumulator.read_copy()
        finally:
            for lock in held:
                lock.release()

    def _take(self, slot: Slot, move: Callable[[Slot, Accumulator], None]) -> None:
        held: list[Lock] = []
        try:
            if self._hold(slot, held) and not slot.accumulator.runs:
                move(slot, self._new())
        finally:
            for lock in held:
                lock.release()

    def _hold(self, slot: Slot, held: list[Lock]) -> bool:
        """Hold a slot as soon as no other thread does; False if a careful call goes on there."""
        acquire = _ACQUIRE_IN_A_MOMENT if self._careful else _ACQUIRE
        while not held and not (self._careful and slot.accumulator.runs):
            held += filter(acquire, slot.locks)
        return bool(held)

    def _borrowed(self, held: list[Lock]) -> Slot:
        """A slot that no call uses, held."""
        for slot in self._slots:
            if not slot.accumulator.runs:  # by a call around this one, in a callback
                held += filter(_TRY_TO_ACQUIRE, slot.locks)
            if held:
                return slot
        slot = Slot(self._new())
        held += filter(_ACQUIRE, slot.locks)
        self._slots.append(slot)  # atomic
        return slot

    def _new(self) -> Accumulator:
        return Accumulator(self._empty, 1 if self._careful else COPY_CALLS)


class Slot:
    """The place of an accumulator, which one call at a time uses."""

    def __init__(self, accumulator: Accumulator):
        # Reentrant: a signal handler, which runs in the middle of a call, may read or close.
        self.locks = (threading.RLock(),)
        self.accumulator = accumulator


# A slot is acquired by `held += filter(_ACQUIRE, slot.locks)`, which puts its lock at once into the
# list of what is to be released: after a Ctrl-C between the two nobody would release it.
_ACQUIRE = operator.methodcaller("acquire")
_ACQUIRE_IN_A_MOMENT = operator.methodcaller("acquire", True, 0.01)
_TRY_TO_ACQUIRE = operator.methodcaller("acquire", False)


class Accumulator:
    """Arrays that calls merge into.

    Attributes:
      calls: how many they hold.
      runs: whether one is running.
    """

    def __init__(self, empty: Callable[[], Arrays], copy_calls: int):
        self.calls = 0
        self.runs = False
        self._empty, self._copy_calls = empty, copy_calls
        self._arrays = empty()
        self._done: list[tuple[list[Any], Arrays]] = []
        # With the numbers of their calls: a copy that may still be computed, and one before it.
        self._copies: list[tuple[int, Arrays]] = []
        self._copied_at = time.monotonic()

    @property
    def has_seen(self) -> bool:
        """Whether a call has merged anything."""
        return self.calls > 0 or bool(self._done)

    def run(self, step: Step, values: Sequence[Any]) -> list[Any]:
        try:
            if self._done:
                self._settle()  # what an interrupt left
            if not _is_whole(self._arrays):
                self._recover()
            # In one go: a Ctrl-C between the call's return and an assignment would lose the
            # arrays, those that went in being donated.
            done = self._done
            done += itertools.starmap(step, ((self._arrays, *values),))
            self._settle()
            if self._is_time_to_copy():
                self._keep_copy()
            return done[0][0]
        except BaseException:
            self._settle()
            if not _is_whole(self._arrays):
                self._recover()
            raise

    def read(self) -> Arrays | None:
        """The arrays on the host, as copies: the next call may donate what they are read from.

        None if there were no calls. Waits for those that are running.
        """
        self._settle()
        for _ in range(1 + len(self._copies)):  # a copy may turn out to have failed, too
            if any(map(_fails, self._arrays)):
                self._recover()
        return _on_host(self._arrays) if self.calls else None

    def read_copy(self) -> Arrays | None:
        """The same, of the calls before the one that runs, for which this does not wait."""
        return _on_host(self._copies[-1][1]) if self._copies else None

    def _settle(self) -> None:
        """Take over what a call returned."""
        done = self._done
        if done:  # if not, it is the list that the call which is going on fills
            self._arrays, self.calls, self._done = done[0][1], self.calls + 1, []

    def _is_time_to_copy(self) -> bool:
        if self.calls & (self.calls - 1) == 0 or self.calls % self._copy_calls == 0:
            return True
        return time.monotonic() > self._copied_at + COPY_SECONDS

    def _keep_copy(self) -> None:
        # An old copy goes only when the younger one is known to be whole.
        if len(self._copies) < 2 or _is_computed(self._copies[-1][1]):
            self._copies = [*self._copies[-1:], (self.calls, _copied(self._arrays))]
            self._copied_at = time.monotonic()

    def _recover(self) -> None:
        """Go on from the youngest copy that is whole."""
        calls, arrays = next(
            ((n, copy) for n, copy in reversed(self._copies) if _is_whole(copy)), (0, None)
        )
        lost, self.calls = self.calls - calls, calls
        self._arrays = self._empty() if arrays is None else _copied(arrays)
        warnings.warn(
            f"a call failed while it ran, and took the ranges of up to {lost} calls before it "
            f"along; those of the {calls} calls before these are kept",
            RuntimeWarning,
            stacklevel=2,
        )


@jax.jit
def _copied(arrays: Arrays) -> Arrays:
    """Jitted, so that a copy is one call of something written in C, also within JAX.

    What JAX itself does in Python, a Ctrl-C can tear apart: `jnp.copy` of one array after the other
    left JAX with no trace to go on with.
    """
    return [jnp.copy(array) for array in arrays]


def _on_host(arrays: Arrays) -> Arrays:
    with compat.apart():
        return [np.array(array) for array in jax.device_get(arrays)]


def _is_whole(arrays: Arrays) -> bool:
    """Whether nothing is known against them: neither donated, nor the result of a failure.

    They come from one execution, so the first speaks for all. One that is still being computed
    is not waited for. Costs about a microsecond.
    """
    if not arrays:
        return True
    first = arrays[0]
    return not (first.is_deleted() or (first.is_ready() and _fails(first)))


def _is_computed(arrays: Arrays) -> bool:
    return not arrays or (arrays[0].is_ready() and not _fails(arrays[0]))


def _fails(array: Any) -> bool:
    """Whether it turns out to be lost when it is waited for."""
    try:
        array.block_until_ready()
    except Exception:  # of a call that failed; its caller was told
        return True
    return False
