"""Measuring: how much longer does one function take than another, in one process.

Times of a shared machine mean little, ratios of times taken right after one another do: samples
of the two alternate, each pair gives one ratio, and the median of these is the result.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

Fun = Callable[..., Any]

# A sample is at least so long, by as many calls as that takes: what a clock and a scheduler do
# in a few microseconds is then less than a percent.
SAMPLE = 5e-3
FEWEST_PAIRS, MOST_PAIRS = 5, 400
BUILDS = 3


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = np.percentile(values, [25, 50, 75])
        return cls(float(median), float(low), float(high))


class Built(NamedTuple):
    """An executable and what it took to make it; `temporary` is in bytes, if it is known."""

    call: Fun
    trace: float
    compile: float
    temporary: int | None


@dataclass(frozen=True)
class Comparison:
    """Seconds of a plain function, and what another takes in proportion."""

    seconds: float
    run: Spread
    pairs: int
    trace: tuple[float, float]
    compile: tuple[float, float]
    builds: int
    temporary: tuple[int | None, int | None]


def compare(
    plain: Callable[[], Fun],
    other: Callable[[], Fun],
    args: Sequence[Any],
    seconds: float,
    finish: Fun | None = None,
) -> Comparison:
    """Measure `other()` against `plain()`, two functions of the same arguments.

    Both are made anew for each build, so that neither finds what an earlier trace left. Each of
    building and running takes about `seconds`, more only where once takes longer. `finish` ends
    a call of the other, where waiting for its result is not all (see `calls`).
    """
    # A cache on disk would answer instead of the compiler.
    jax.config.update("jax_enable_compilation_cache", False)
    builds = _built((plain, other), args, seconds)
    ratios, taken = pairs(
        calls(builds[-1][0].call, args), calls(builds[-1][1].call, args, finish), seconds
    )
    return Comparison(
        seconds=taken,
        run=Spread.of(ratios),
        pairs=len(ratios),
        trace=_medians(builds, "trace"),
        compile=_medians(builds, "compile"),
        builds=len(builds),
        temporary=(builds[-1][0].temporary, builds[-1][1].temporary),
    )


# -- building ---------------------------------------------------------------------------------


def build(fun: Fun, args: Sequence[Any]) -> Built:
    """Trace, lower and compile, with nothing in JAX's caches."""
    jax.clear_caches()
    gc.collect()  # or this trace would pay for what the last one left
    start = time.perf_counter()
    traced = jax.jit(fun).trace(*args)
    middle = time.perf_counter()
    compiled = traced.lower().compile()
    end = time.perf_counter()
    memory = compiled.memory_analysis()
    temporary = None if memory is None else int(memory.temp_size_in_bytes)
    return Built(compiled, middle - start, end - middle, temporary)


def _built(
    makes: Sequence[Callable[[], Fun]], args: Sequence[Any], seconds: float
) -> list[list[Built]]:
    """Alternately, until there are three of each or the time is over."""
    build(lambda x: x + 1, (np.float32(1),))  # the first compilation of a process takes longer
    builds: list[list[Built]] = []
    start = time.perf_counter()
    while len(builds) < BUILDS and (not builds or time.perf_counter() - start < seconds):
        builds.append([build(make(), args) for make in makes])
    return builds


def _medians(builds: Sequence[Sequence[Built]], field: str) -> tuple[float, float]:
    plain, other = (
        statistics.median(getattr(built, field) for built in column)
        for column in zip(*builds, strict=True)
    )
    return plain, other


# -- running ----------------------------------------------------------------------------------


def calls(fun: Fun, args: Sequence[Any], finish: Fun | None = None) -> Callable[[int], None]:
    """Calls a function so many times, and waits for what it returns.

    On the CPU for each result: XLA would run calls beside one another on different cores, as no
    program that needs the result can. A device with a queue of its own runs one after another;
    there only the last is waited for, since the host's part of a call is hidden in programs that
    keep it busy. `finish` is called with each result instead of waiting.
    """
    wait = finish or jax.block_until_ready
    each = finish is not None or jax.default_backend() == "cpu"

    def run(times: int) -> None:
        out = None
        for _ in range(times):
            out = fun(*args)
            if each:
                wait(out)
        if not each:
            wait(out)

    return run


def pairs(
    plain: Callable[[int], None], other: Callable[[int], None], seconds: float
) -> tuple[list[float], float]:
    """Ratios of alternating samples, and the median of the seconds of one plain call."""
    times = _times(plain)
    other(1)
    ratios, taken = [], []
    end = time.perf_counter() + seconds
    while len(ratios) < FEWEST_PAIRS or (len(ratios) < MOST_PAIRS and time.perf_counter() < end):
        first, second = timed(plain, times), timed(other, times)
        ratios.append(second / first)
        taken.append(first / times)
    return ratios, statistics.median(taken)


def _times(run: Callable[[int], None]) -> int:
    """How many calls make a sample."""
    run(1)
    times = 1
    while timed(run, times) < SAMPLE:
        times *= 2
    return times


def timed(run: Callable[[int], None], times: int) -> float:
    start = time.perf_counter()
    run(times)
    return time.perf_counter() - start
