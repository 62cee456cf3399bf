"""The files that a net writes: windows, numbered, by a thread of its own, and at last the total."""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jax_ranges.files import File, format_of, held, holds, rendering
from jax_ranges.files.as_text import check_delimiter
from jax_ranges.files.atomic import write_atomically
from jax_ranges.files.losses import Loss, left_out, warn_of
from jax_ranges.ranges import Ranges
from jax_ranges.recorder import Recorder, Window
from jax_ranges.stats import Statistic
from jax_ranges.writer import Writer


def time_stamp() -> str:
    """Now, in UTC, in the basic form of ISO 8601: it may be part of a file's name."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


class Dumps:
    """Writes what a recorder has seen; `stats` are the statistics that it takes.

    Windows that are due go to another thread, so that calls wait neither for the device nor for
    the disk. If one cannot be written a warning says so, once until one succeeds again; what
    it held is in the next. What a file does not hold is said in a LossWarning at a line of the
    user's: of statistics here, of the rest when it is written, and of windows in a later call,
    each kind of loss once.

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
        lost = () if file is None else _lost_stats(file, stats)
        self._unsaid: deque[_Losses] = deque()
        self._told = frozenset(loss.kind for loss in lost)
        self._told_of_windows = set(self._told)
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
        if lost:
            warn_of(file, lost)

    def next_window(self, number: int) -> None:
        """Reset, and write what was seen before to the file of that number, later."""
        assert self._file is not None and self._writer is not None
        self._say_losses()  # of windows before: this one is not written yet
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
        self._say_losses()

    def write(self, ranges: Ranges, file: File | None, **about: Any) -> None:
        """Write these ranges to a file, by default to the file of the total."""
        self._save(ranges, self._target(file), **about)
        self._say_losses()

    def close(self) -> None:
        """Write the total, unless nothing was observed: an older file is worth more than that."""
        try:
            self._end_writer()
        finally:
            if self._file is not None:
                self._failed = False  # it is the last chance to say so
                with self._warning(self._file):
                    self._save_total(self._file)
        self._say_losses()

    def _save_total(self, file: Path) -> None:
        total = self._recorder.read(total=True)
        if len(total):
            self._save(total, file, total=True)

    def _write_window(self, window: Window, file: Path, number: int) -> None:
        with self._warning(file):
            self._recorder.finish(window, lambda ranges: self._save(ranges, file, dump=number))

    def _save(self, ranges: Ranges, file: Path, **about: Any) -> None:
        about = {"time": time_stamp(), "function": self._recorder.name, **about}
        kept, others = held(ranges, format_of(file))
        made = rendering(kept, format_of(file), self._delimiter, about)
        losses = _Losses(file, (*left_out(others), *made.losses), is_window="dump" in about)
        # Writing is the last step: a Ctrl-C after it would have what is written kept, too.
        self._unsaid.append(losses)
        try:
            write_atomically(file, made.text)
        except BaseException:
            with contextlib.suppress(ValueError):  # said by now, in another thread
                self._unsaid.remove(losses)
            raise

    def _say_losses(self) -> None:
        """What was lost since the last time, in the user's thread."""
        while self._unsaid:
            file, losses, is_window = self._unsaid.popleft()
            told = frozenset[str]()
            if is_window:
                told = frozenset(self._told_of_windows)
                self._told_of_windows.update(loss.kind for loss in losses)
            elif file.absolute() == self._file:
                told = self._told
            warn_of(file, tuple(loss for loss in losses if loss.kind not in told))

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


class _Losses(NamedTuple):
    """What a file does not hold, which is to be said."""

    file: Path
    losses: tuple[Loss, ...]
    is_window: bool


def _lost_stats(file: File, stats: Sequence[Statistic]) -> tuple[Loss, ...]:
    """What the file holds of none of these; ValueError if it has no format, or holds none."""
    others = [stat for stat in stats if not holds(format_of(file), stat)]
    if len(others) == len(stats):
        raise ValueError(
            f"dump_file={str(file)!r} holds ranges, and stats={stats} take none: add jr.MinMax()"
        )
    return left_out(others)
