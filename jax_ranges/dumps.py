"""The files that a net writes: windows, numbered, by a thread of its own, and at last the total."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jax_ranges.files import File, format_of, save
from jax_ranges.files.as_text import check_delimiter
from jax_ranges.files.states import is_built_in
from jax_ranges.ranges import Ranges, from_states, states_of
from jax_ranges.recorder import Recorder, Window
from jax_ranges.stats import MinMax, Statistic


def time_stamp() -> str:
    """Now, in UTC, in the basic form of ISO 8601: it may be part of a file's name."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


PATIENCE = 20.0
"""Seconds that closing waits for windows to be written."""


class Dumps:
    """Writes what a recorder has seen; `stats` are the statistics that it takes.

    Windows that are due go to another thread, so that calls wait neither for the device nor for
    the disk. If one cannot be written a warning says so, once until one succeeds again; what
    it held is in the next.

    Args:
      file: what `close` writes, and what numbered windows are named after; None for nothing.
    """

    def __init__(
        self,
        recorder: Recorder,
        file: File | None,
        delimiter: str,
        stats: Sequence[Statistic],
    ):
        check_delimiter(delimiter)
        if file is not None and not any(_holds(file, stat) for stat in stats):
            raise ValueError(
                f"dump_file={str(file)!r} holds ranges, and stats={stats} take "
                f"none: add jr.MinMax()"
            )
        self._recorder, self._delimiter = recorder, delimiter
        # Absolute: the folder that it is relative to is this one, whatever becomes the current one.
        self._file = None if file is None else Path(file).absolute()
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        self._failed = self._closed = False
        self._lock = threading.RLock()  # reentrant: a signal handler may close
        if self._file is not None:
            if self._file.is_dir() or not self._file.name:
                raise ValueError(f"dump_file={str(file)!r} is a folder; give the name of a file")
            with self._warning(self._file):  # now, not after an hour
                os.stat(self._file.parent)

    def next_window(self, number: int) -> None:
        """Reset, and write what was seen before to the file of that number, later."""
        assert self._file is not None
        file = self._file.with_name(f"{self._file.stem}_{number}{self._file.suffix}")
        with self._lock:  # numbers are written in their order
            if self._closed:  # by another thread, while this one's call ran
                return
            window = self._recorder.take()
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="jax_ranges")
            self._last = self._thread.submit(self._write_window, window, file, number)

    def window(self, file: File | None) -> None:
        """Reset, and write what was seen before, now."""
        target = self._target(file)
        self._flush()
        self._recorder.finish(self._recorder.take(), lambda ranges: self._save(ranges, target))

    def write(self, ranges: Ranges, file: File | None, **about: Any) -> None:
        """Write these ranges to a file, by default to the file of the total."""
        self._save(ranges, self._target(file), **about)

    def close(self) -> None:
        """Write the total, unless nothing was observed: an older file is worth more than that."""
        with self._lock:
            self._closed = True
        written = True
        try:
            self._flush(PATIENCE)
        except TimeoutError:
            # A signal handler closes, in the middle of what the writing thread waits for. That
            # goes on when the handler is over, and Python waits for it at exit.
            written = False
        finally:
            if self._thread is not None:
                self._thread.shutdown(wait=written)
            if self._file is not None:
                self._failed = False  # it is the last chance to say so
                with self._warning(self._file):
                    self._save_total(self._file)

    def _save_total(self, file: Path) -> None:
        total = self._recorder.read(total=True)
        if len(total):
            self._save(total, file, total=True)

    def _write_window(self, window: Window, file: Path, number: int) -> None:
        with self._warning(file):
            self._recorder.finish(window, lambda ranges: self._save(ranges, file, dump=number))

    def _save(self, ranges: Ranges, file: Path, **about: Any) -> None:
        about = {"time": time_stamp(), "function": self._recorder.name, **about}
        save(_held(ranges, file), file, self._delimiter, about)

    def _flush(self, seconds: float | None = None) -> None:
        """Wait for the windows that are due; TimeoutError if that takes longer than this."""
        if self._last is not None:
            self._last.result(seconds)

    def _target(self, file: File | None) -> Path:
        if file is not None:
            return Path(file)
        if self._file is None:
            raise ValueError("no file to write to: give one here, or jr.Net(f, dump_file=...)")
        return self._file

    @contextlib.contextmanager
    def _warning(self, file: Path) -> Iterator[None]:
        """Turn a failure to write into a warning, the first of several in a row only."""
        try:
            yield
            self._failed = False
        except Exception as error:  # reported, not raised: the run is worth more than the dump
            failed, self._failed = self._failed, True
            if not failed:
                warnings.warn(
                    f"jr.Net({self._recorder.name}) cannot write {file}: {error!s}. It goes "
                    f"on, and nothing is lost: what was seen will be in the next dump that "
                    f"succeeds; net.dump(file) writes it elsewhere",
                    RuntimeWarning,
                    stacklevel=2,
                )


def _holds(file: File, stat: Statistic) -> bool:
    """Whether a file holds this statistic: text and CSV ranges only, JSON all that are ours."""
    return isinstance(stat, MinMax) or (format_of(file) == "json" and is_built_in(stat))


def _held(ranges: Ranges, file: File) -> Ranges:
    """What the file holds of these."""
    if all(_holds(file, stat) for stat in ranges.stats):
        return ranges
    kept = [
        (site, {stat: state for stat, state in states.items() if _holds(file, stat)})
        for site, states in states_of(ranges).values()
    ]
    held = [(site, states) for site, states in kept if states]
    return from_states([site for site, _ in held], [states for _, states in held])
