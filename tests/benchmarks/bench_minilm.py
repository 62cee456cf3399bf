"""What observing every operation of all-MiniLM-L6-v2 costs, against `jax.jit` of the plain encoder.

    python tests/benchmarks/bench_minilm.py

Ratios of medians of interleaved calls in one process; the absolute times of a shared machine
mean nothing. Needs the packages of examples/calibrate_minilm.py.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jax_ranges as jr

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import minilm
import sentences

CALLS = 15


def compiled(fun: Callable[..., Any], *args: Any) -> tuple[Any, float, float]:
    """The executable, and the seconds that tracing and compiling took."""
    start = time.perf_counter()
    lowered = jax.jit(fun).lower(*args)
    traced = time.perf_counter()
    executable = lowered.compile()
    return executable, traced - start, time.perf_counter() - traced


def medians(executables: list[Any], *args: Any) -> list[float]:
    times: list[list[float]] = [[] for _ in executables]
    for _ in range(CALLS):
        for executable, of_one in zip(executables, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(executable(*args))
            of_one.append(time.perf_counter() - start)
    return [float(np.median(of_one)) for of_one in times]


def compare(name: str, encode: Callable[..., Any], *args: Any) -> None:
    variants = {
        "plain": encode,
        "every operation": jr.ranges(encode),
        "dot_general": jr.ranges(encode, select="dot_general"),
    }
    made = [compiled(fun, *args) for fun in variants.values()]
    runs = medians([executable for executable, _, _ in made], *args)
    plan = jr.plan(encode)(*args)
    print(f"{name}: {len(plan.sites)} sites, {plan.reductions} reductions")
    memory = [executable.memory_analysis().temp_size_in_bytes for executable, _, _ in made]
    _, trace, build = made[0]
    for i, variant in enumerate(variants):
        print(
            f"  {variant:16} run {runs[i] / runs[0]:5.2f}  trace {made[i][1] / trace:5.1f}"
            f"  compile {made[i][2] / build:5.1f}  memory {memory[i] / memory[0]:5.2f}"
        )


def main() -> None:
    print(
        f"jax {jax.__version__}, Python {platform.python_version()}, {jax.devices()[0].device_kind}"
    )
    params = minilm.load()
    ids, mask = minilm.tokenize(sentences.sentences()[:32], length=48)
    compare("encode", minilm.encode, params, ids, mask)
    compare("encode_scan", minilm.encode_scan, minilm.stack_layers(params), ids, mask)


if __name__ == "__main__":
    main()
