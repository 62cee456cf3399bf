"""The files that a net writes: windows, numbered, by a thread of its own, and at last the total."""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jax_ranges.files import File, format_of, save
from jax_ranges.files.as_text import check_delimiter
from jax_ranges.files.states import is_built_in
from jax_ranges.ranges import Ranges, from_states, states_of
from jax_ranges.recorder import Recorder, Window
from jax_ranges.stats import MinMax, Statistic
from jax_ranges.writer import Writer


def time_stamp() -> str:
    """Now, in UTC, in the basic form of ISO 8601: it may be part of a file's name."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


class Dumps:
    """Writes what a recorder has seen; `stats` are the statistics that it takes.

    Windows that are due go to another thread, so that calls wait neither for the device nor for
    the disk. If one cannot be written a warning says so, once until one succeeds again; what
    it held is in the next.

    Args:
      file: what `close` writes, and what numbered windows are named after; None for nothing.
      windows: whether there will be such.
    """

    def __init__(
        self,
        recorder: Recorder,
        file: File | None,
        delimiter: str,
        stats: Sequence[Statistic],
        windows: bool = False,
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
        self._failed = False
        if self._file is not None:
            if self._file.is_dir() or not self._file.name:
                raise ValueError(f"dump_file={str(file)!r} is a folder; give the name of a file")
            with self._warning(self._file):  # now, not after an hour
                os.stat(self._file.parent)
        self._writer = Writer() if windows else None

    def next_window(self, number: int) -> None:
        """Reset, and write what was seen before to the file of that number, later."""
        assert self._file is not None and self._writer is not None
        file = self._file.with_name(f"{self._file.stem}_{number}{self._file.suffix}")
        window = Window()
        is_due = False
        try:
            self._recorder.take(window)
            is_due = self._writer.put(partial(self._write_window, window, file, number))
        finally:
            if not is_due:
                self._recorder.keep(window)

    def window(self, file: File | None) -> None:
        """Reset, and write what was seen before, now."""
        target, window = self._target(file), Window()
        self._flush()
        try:
            self._recorder.take(window)
            self._recorder.finish(window, lambda ranges: self._save(ranges, target))
        finally:
            self._recorder.keep(window)

    def write(self, ranges: Ranges, file: File | None, **about: Any) -> None:
        """Write these ranges to a file, by default to the file of the total."""
        self._save(ranges, self._target(file), **about)

    def close(self) -> None:
        """Write the total, unless nothing was observed: an older file is worth more than that."""
        try:
            self._end_writer()
        finally:
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

    def _flush(self) -> None:
        """Wait for the windows that are due."""
        if self._writer is not None and not self._writer.is_here():
            self._writer.wait()

    def _end_writer(self) -> None:
        """After the windows that are due."""
        if self._writer is None:
            return
        self._writer.end()
        if self._writer.is_here():  # the garbage collector closes, in the middle of a job
            atexit.register(self._writer.join)  # Python itself does not wait for it
        else:
            self._writer.join()

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
