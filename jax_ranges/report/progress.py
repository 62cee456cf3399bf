"""A progress bar over batches, on standard error: the output of a program stays clean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.3g} batches/s")


def progress(batches: Iterable[Any], what: str, console: Console | None = None) -> Iterator[Any]:
    """The batches, with a bar that shows how many are done, the rate, and the time left.

    Where their number is not known there is no time left; where there is no terminal, no bar.
    """
    console = console or Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        total = len(batches) if hasattr(batches, "__len__") else None  # type: ignore[arg-type]
        yield from bar.track(batches, total=total, description=what)
