"""Accumulators: states that grow on the device, call after call, and lose nothing.

A `Pool` belongs to one compiled program. Its accumulators are arrays that a call donates and
gets back merged with what it saw. Calls from several threads at once take an accumulator each,
so that they neither wait for one another (nor for somebody who reads) nor overwrite each other's
update; reading takes them all together.

Donation has a price: a call that fails on the device (a callback that raises, memory that does
not suffice) takes the accumulator with it. So each has a copy that is at most two times
`COPY_EVERY` calls old, made on the device without waiting, and goes on from it.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

COPY_EVERY = 256

Arrays = list[Any]
Step = Callable[..., tuple[list[Any], Arrays]]


class Pool:
    """The accumulators of one program.

    Args:
      empty: makes the arrays of an accumulator that has seen nothing.
    """

    def __init__(self, empty: Callable[[], Arrays]):
        self._empty = empty
        self._slots: list[_Slot] = []

    def run(self, step: Step, values: Sequence[Any]) -> list[Any]:
        """`step(arrays, *values)`; keeps the arrays that it returns beside its outputs."""
        slot = self._borrowed()
        try:
            return slot.accumulator.run(step, values)
        finally:
            slot.lock.release()

    def read(self) -> list[Arrays]:
        """What was seen since the last `take`, on the host, one set of arrays an accumulator."""
        found = []
        for slot in tuple(self._slots):
            with slot.lock:
                if slot.accumulator.calls:
                    found.append(slot.accumulator.read())
        return found

    def take(self) -> list[Accumulator]:
        """The same, not read yet, and begin anew; waits for nothing on the device."""
        taken = []
        for slot in tuple(self._slots):
            with slot.lock:
                if slot.accumulator.calls:
                    taken.append(slot.accumulator)
                    slot.accumulator = Accumulator(self._empty)
        return taken

    def _borrowed(self) -> _Slot:
        """One that no other thread uses, its lock acquired."""
        for slot in self._slots:
            if slot.lock.acquire(blocking=False):
                return slot
        slot = _Slot(Accumulator(self._empty))
        slot.lock.acquire()
        self._slots.append(slot)  # atomic
        return slot


class _Slot:
    def __init__(self, accumulator: Accumulator):
        self.lock = threading.Lock()
        self.accumulator = accumulator


class Accumulator:
    """Arrays that calls merge into. `calls`: how many they hold."""

    def __init__(self, empty: Callable[[], Arrays]):
        self.calls = 0
        self._empty = empty
        self._arrays = empty()
        # With the numbers of their calls: a copy that may still be computed, and one before it.
        self._copies: list[tuple[int, Arrays]] = []

    def run(self, step: Step, values: Sequence[Any]) -> list[Any]:
        if not _is_whole(self._arrays):
            self._recover()
        try:
            outs, self._arrays = step(self._arrays, *values)
        except BaseException:
            if not _is_whole(self._arrays):
                self._recover()
            raise
        self.calls += 1
        if self.calls % COPY_EVERY == 0:
            self._keep_copy()
        return outs

    def read(self) -> Arrays:
        """The arrays on the host, as copies: the next call may donate what they are read from."""
        try:
            jax.block_until_ready(self._arrays)
        except Exception:  # of a call that failed; its caller was told
            self._recover()
        return [np.array(array) for array in self._arrays]

    def _keep_copy(self) -> None:
        # An old copy goes only when the younger one is known to be whole.
        if len(self._copies) < 2 or _is_computed(self._copies[-1][1]):
            self._copies = [*self._copies[-1:], (self.calls, _copied(self._arrays))]

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


def _copied(arrays: Arrays) -> Arrays:
    return [jnp.copy(array) for array in arrays]


def _is_whole(arrays: Arrays) -> bool:
    """Whether nothing is known against them: neither donated, nor the result of a failure.

    They come from one execution, so the first speaks for all. One that is still being computed
    is not waited for. Costs about a microsecond.
    """
    return not arrays or (not arrays[0].is_deleted() and not _has_failed(arrays[0]))


def _is_computed(arrays: Arrays) -> bool:
    return not arrays or (arrays[0].is_ready() and not _has_failed(arrays[0]))


def _has_failed(array: Any) -> bool:
    if not array.is_ready():
        return False
    try:
        array.block_until_ready()
    except Exception:  # of a call that failed; its caller was told
        return True
    return False
