"""A thread that does one job after the other, for those who cannot wait."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue

Job = Callable[[], object]


class Writer:
    """Not `concurrent.futures.ThreadPoolExecutor`, which a signal handler cannot use at any moment.

    A handler in the middle of its `submit` waits for a lock that the same thread holds, one in
    the middle of a future's `result` may take the notice that was meant for that, and a Ctrl-C
    can leave a thread that nobody ends. Here the thread is there from the beginning, and all who
    wait do so in one call of something written in C, for an answer of their own or for a lock.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._works = threading.Lock()
        self._works.acquire()
        self._ended = False
        # A daemon: Python waits for other threads before it calls what closes nets at its end.
        self._thread = threading.Thread(
            target=_work, args=(self._jobs, self._works), name="jax_ranges", daemon=True
        )
        self._thread.start()

    def is_here(self) -> bool:
        """Whether it is the thread that asks."""
        return threading.current_thread() is self._thread

    def put(self, job: Job) -> bool:
        """Do it later, after those that were put before; False if it is too late for that."""
        self._jobs.put(job)
        return not self._ended

    def wait(self) -> None:
        """Until the jobs are done that were put before."""
        done: SimpleQueue[None] = SimpleQueue()
        if self.put(functools.partial(done.put, None)):
            done.get()
        else:
            self.join()

    def end(self) -> None:
        """After the jobs that were put before; `join` waits for that."""
        self._ended = True
        self._jobs.put(None)

    def join(self) -> None:
        """Until it has ended."""
        # Not the thread's `join`: in Python 3.11 and 3.12 that takes a lock which is not
        # reentrant, and releases it some instructions later. Here is no instruction in between.
        with self._works:
            pass


def _work(jobs: SimpleQueue[Job | None], works: threading.Lock) -> None:
    # Nothing that leads to the writer: the thread would keep it alive.
    try:
        while (job := jobs.get()) is not None:
            try:
                job()
            except BaseException:  # shown as of a thread that it ended; the next job may do
                error = (*sys.exc_info(), threading.current_thread())
                threading.excepthook(threading.ExceptHookArgs(error))
                del error
            del job  # what it holds may go while this waits for the next one
    finally:
        works.release()
