"""The alternatives, each measured on a function of the set in a process of its own.

    python -m tests.benchmarks.peers "MLP" naive --seconds 8

prints one line of JSON. In a process, since only that can be ended: a compilation that takes
minutes cannot be interrupted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from tests.benchmarks.cases import Case, named
from tests.benchmarks.measure import Fun, compare
from tests.benchmarks.naive import Unsupported, Walk

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Peer:
    """Another way to see the values of a function.

    Attributes:
      wrap: makes of a case and its function the one that is compiled.
      finish: what the host does with the result of each call; None if it only waits for it.
    """

    wrap: Callable[[Case, Fun, bool], Fun]
    finish: Fun | None = None


# -- min, max and isnan after every equation, all scalars returned ----------------------------

Extrema = tuple[jax.Array, jax.Array, jax.Array]


def extrema(value: jax.Array) -> Any:
    return (jnp.min(value), jnp.max(value), jnp.any(jnp.isnan(value))) if value.size else ()


def _folded(seen: list[Extrema]) -> list[Extrema]:
    return [(jnp.min(low), jnp.max(high), jnp.any(nan)) for low, high, nan in seen]


def _merged(mine: list[Extrema], other: list[Extrema]) -> list[Extrema]:
    return [
        (jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1]), a[2] | b[2])
        for a, b in zip(mine, other, strict=True)
    ]


def _unseen(shapes: list[Any]) -> list[Extrema]:
    return [
        (_limit(low, True), _limit(high, False), jnp.zeros(nan.shape, bool))
        for low, high, nan in shapes
    ]


def _limit(like: Any, highest: bool) -> jax.Array:
    if like.dtype == bool:
        return jnp.full(like.shape, highest)
    if jnp.issubdtype(like.dtype, jnp.floating):
        return jnp.full(like.shape, jnp.inf if highest else -jnp.inf, like.dtype)
    info = jnp.iinfo(like.dtype)
    return jnp.full(like.shape, info.max if highest else info.min, like.dtype)


def naive(case: Case, fun: Fun, quick: bool) -> Fun:
    del case, quick
    return Walk(extrema, _folded, _merged, _unseen)(fun)


# -- values brought to the host ---------------------------------------------------------------


def returned(case: Case, fun: Fun, quick: bool) -> Fun:
    """Every intermediate is an output."""
    del case, quick
    return Walk(lambda value: value)(fun)


def reduced_on_host(result: Any) -> list[tuple[Any, Any, Any]]:
    return [_host_extrema(x) for x in jax.device_get(result[1]) if x.size]


def _host_extrema(x: np.ndarray) -> tuple[Any, Any, Any]:
    return x.min(), x.max(), np.isnan(x).any()


def callbacks(case: Case, fun: Fun, quick: bool) -> Fun:
    """An equation's result is handed to the host while the program runs."""
    del case, quick

    def see(value: jax.Array) -> Any:
        jax.debug.callback(lambda x: _host_extrema(np.asarray(x)), value)
        return ()

    return Walk(see, merge=lambda mine, other: [], start=lambda shapes: [])(fun)


def finish_callbacks(result: Any) -> None:
    jax.block_until_ready(result)
    jax.effects_barrier()


# -- what else there is -----------------------------------------------------------------------


def checked(case: Case, fun: Fun, quick: bool) -> Fun:
    """Asks for NaN (and division by zero) only."""
    del case, quick
    return checkify.checkify(fun, errors=checkify.float_checks)


def captured(case: Case, fun: Fun, quick: bool) -> Fun:
    """Outputs of modules, which are far fewer than equations, reduced in the program."""
    del fun
    assert case.captured is not None
    capturing, _ = case.captured(**case.sized(quick))

    def reduced(*args: Any) -> Any:
        out, seen = capturing(*args)
        return out, [extrema(x) for x in jax.tree.leaves(seen)]

    return reduced


PEERS = {
    "naive": Peer(naive),
    "host": Peer(returned, reduced_on_host),
    "callback": Peer(callbacks, finish_callbacks),
    "checkify": Peer(checked),
    "capture": Peer(captured),
}
LEGEND = {
    "naive": "jnp.min, jnp.max, jnp.isnan after every equation",
    "host": "every intermediate returned, and reduced by numpy",
    "callback": "jax.debug.callback an equation, reduced by numpy",
    "checkify": "checkify.float_checks: NaN only",
    "capture": "flax's own capture of intermediates (outputs of modules), reduced in the program",
}


# -- one measurement --------------------------------------------------------------------------


def measured(case: Case, peer: str, seconds: float, quick: bool, limit: float) -> dict[str, Any]:
    """What `measure` finds; or {"short", "why"}, why there is nothing."""
    if peer == "capture" and case.captured is None:
        return {"short": "n/a", "why": "not a flax model"}
    command = [sys.executable, "-m", __name__, case.name, peer, "--seconds", str(seconds)]
    try:
        done = subprocess.run(
            command + ["--quick"] * quick, cwd=ROOT, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return {"short": "time", "why": f"took more than {limit:g} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"short": "error", "why": said[-1] if said else f"exit {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: Case, peer: Peer, seconds: float, quick: bool) -> dict[str, Any]:
    """Ratios to the plain function."""
    fun, args = case.made(quick)
    try:
        other = peer.wrap(case, fun, quick)
        found = compare(lambda: fun, lambda: other, args, seconds, peer.finish)
    except Unsupported as error:
        return {"short": "n/a", "why": str(error)}
    return {
        "run": list(found.run),
        "compile": found.compile[1] / found.compile[0],
        "trace": found.trace[1] / found.trace[0],
        "temporary": found.temporary,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """What `measured` runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("case")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(argv)
    peer = PEERS[options.peer]
    print(json.dumps(measure(named(options.case), peer, options.seconds, options.quick)))


if __name__ == "__main__":
    main()
