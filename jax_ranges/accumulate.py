"""Accumulators: states that grow on the device, call after call, and lose nothing.

A `Pool` belongs to one compiled program. Its accumulators are arrays that a call donates and
gets back merged with what it saw. Calls from several threads at once take an accumulator each,
so that they neither wait for one another (nor for somebody who reads) nor overwrite each other's
update; reading takes them all together.

Donation has a price: a call that fails on the device (a callback that raises, memory that does
not suffice) takes the accumulator with it. So each has copies, made on the device without
waiting, of what it was a few calls ago or a moment ago, and goes on from there.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_ranges import compat

# A copy is made when the number of calls is a power of two, then every so many calls or seconds.
COPY_CALLS, COPY_SECONDS = 256, 0.5

Arrays = list[Any]
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
            with self._held(slot) as is_idle:
                of_slot = slot.accumulator
                found.append(of_slot.read() if is_idle else of_slot.read_copy())
        return [arrays for arrays in found if arrays is not None]

    def take(self) -> list[Accumulator]:
        """The same, not read yet, and begin anew; waits for nothing on the device."""
        taken = []
        for slot in tuple(self._slots):
            with self._held(slot) as is_idle:
                if is_idle and slot.accumulator.calls:
                    taken.append(slot.accumulator)
                    slot.accumulator = self._new()
        return taken

    @contextlib.contextmanager
    def _held(self, slot: _Slot) -> Iterator[bool]:
        """No call uses it; or (False) a careful one does, which is not waited for."""
        acquired = slot.lock.acquire(blocking=not self._careful)
        try:
            yield acquired and not (self._careful and slot.accumulator.runs)
        finally:
            if acquired:
                slot.lock.release()

    def _borrowed(self) -> _Slot:
        """One that no call uses, its lock acquired."""
        for slot in self._slots:
            if slot.lock.acquire(blocking=False):
                if not slot.accumulator.runs:
                    return slot
                slot.lock.release()  # a call from inside a call, in a callback
        slot = _Slot(self._new())
        slot.lock.acquire()
        self._slots.append(slot)  # atomic
        return slot

    def _new(self) -> Accumulator:
        return Accumulator(self._empty, 1 if self._careful else COPY_CALLS)


class _Slot:
    def __init__(self, accumulator: Accumulator):
        # Reentrant: a signal handler, which runs in the middle of a call, may read or close.
        self.lock = threading.RLock()
        self.accumulator = accumulator


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

    def run(self, step: Step, values: Sequence[Any]) -> list[Any]:
        self.runs = True
        try:
            self._check()
            # In one go: a Ctrl-C between the call's return and an assignment would lose the
            # arrays, those that went in being donated. It comes between Python's instructions.
            done = self._done = []
            done.extend(map(step, (self._arrays,), *((value,) for value in values)))
        except BaseException:
            self._settle()
            self._check()
            raise
        finally:
            self.runs = False
        self._settle()
        if self._is_time_to_copy():
            self._keep_copy()
        return done[0][0]

    def read(self) -> Arrays | None:
        """The arrays on the host, as copies: the next call may donate what they are read from.

        None if there were no calls. Waits for those that are running.
        """
        self._settle()
        try:
            jax.block_until_ready(self._arrays)
        except Exception:  # of a call that failed; its caller was told
            self._recover()
        return _on_host(self._arrays) if self.calls else None

    def read_copy(self) -> Arrays | None:
        """The same, of the calls before the one that runs, for which this does not wait."""
        return _on_host(self._copies[-1][1]) if self._copies else None

    def _settle(self) -> None:
        """Take over what a call returned."""
        done, self._done = self._done, []
        if done:
            self._arrays, self.calls = done[0][1], self.calls + 1

    def _check(self) -> None:
        if not _is_whole(self._arrays):
            self._recover()

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


def _copied(arrays: Arrays) -> Arrays:
    with compat.apart(), compat.keeping_64_bits(arrays):
        return [jnp.copy(array) for array in arrays]


def _on_host(arrays: Arrays) -> Arrays:
    with compat.apart():
        return [np.array(array) for array in jax.device_get(arrays)]


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
