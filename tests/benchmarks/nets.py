"""What `jr.Net` adds to the calls of a function: host time, and time of a training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

import jax_ranges as jr
from tests.benchmarks import models
from tests.benchmarks.measure import Fun, Spread, pairs

EVERY = 100


@dataclass(frozen=True)
class NetRow:
    """One figure of `jr.Net`."""

    name: str
    unit: str
    value: Spread
    samples: int


def rows(seconds: float, quick: bool) -> dict[str, Callable[[], NetRow]]:
    """What can be measured, by name."""
    return {
        "Net, tiny net": lambda: host_cost("Net, tiny net", seconds),
        f"Net every={EVERY}": lambda: training_loop(f"Net every={EVERY}", EVERY, seconds, quick),
    }


# -- host cost --------------------------------------------------------------------------------


def host_cost(name: str, seconds: float) -> NetRow:
    """Microseconds of a net's call above the dispatch of the same program by `jax.jit`.

    The program is the one that somebody would write without `jr.Net`: it donates what was seen
    and returns it merged with what this call saw. A call is timed until it returns, and its
    result waited for before the next: calls that queue up would measure the program.
    """
    fun, args = models.tiny_net(layers=20, width=8, batch=8)
    step, seen = _step(fun, args)
    net = jr.Net(fun)
    jax.block_until_ready(net(*args))
    differences = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        direct, (_, seen) = _dispatch(step, seen, *args)
        through_net, _ = _dispatch(net, *args)
        differences.append(1e6 * (through_net - direct))
    return NetRow(name, "µs", Spread.of(differences), len(differences))


def _step(fun: Fun, args: Sequence[Any]) -> tuple[Fun, list[jax.Array]]:
    """The function with accumulation, compiled, and what it accumulates into."""
    measured = jr.ranges(fun)
    _, ranges = jax.jit(measured)(*args)
    seen, tree = jax.tree.flatten(ranges)

    def step(seen: list[jax.Array], *args: Any) -> tuple[Any, list[jax.Array]]:
        out, ranges = measured(*args)
        return out, jax.tree.leaves(jax.tree.unflatten(tree, seen) | ranges)

    jitted = jax.jit(step, donate_argnums=0)
    # What goes in is from then on what came out, of the same types and in the same place.
    for _ in range(2):
        _, seen = jitted(seen, *args)
    return jitted, seen


def _dispatch(fun: Fun, *args: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    out = fun(*args)
    end = time.perf_counter()
    return end - start, jax.block_until_ready(out)


# -- a training loop --------------------------------------------------------------------------


def training_loop(name: str, every: int, seconds: float, quick: bool) -> NetRow:
    """A loop that trains an MLP with every n-th step observed, against the loop that does not.

    A sample is n steps, so one of them is observed, and ends when the last one is done.
    """
    accelerator = jax.default_backend() != "cpu" and not quick
    width, batch = (4096, 4096) if accelerator else (256, 64)
    step, (params, moments, data) = models.mlp_training(layers=3, width=width, batch=batch)
    jitted = jax.jit(step)
    net = jr.Net(jitted, every=every)

    def loop(train: Fun) -> Callable[[int], None]:
        def run(times: int) -> None:
            state: Any = params, moments
            for _ in range(times * every):
                *state, loss = train(*state, data)
            jax.block_until_ready((state, loss))

        return run

    ratios, _ = pairs(loop(jitted), loop(net), seconds)
    return NetRow(name, "ratio", Spread.of(ratios), len(ratios))
