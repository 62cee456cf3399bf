"""Ranges in TensorBoard: train, and log every few steps what was seen since the last time.

    python examples/log_to_tensorboard.py [FOLDER] [--steps 200] [--every 20]
    tensorboard --logdir FOLDER

`jr.Net` around the training step accumulates on the device. `net.get_info()` is the window since
the last reset, and `.scalars("ranges/")` makes a flat dictionary of it, `{name: float}`, which
any logger takes: wandb's `log`, clu's `write_scalars`, mlflow's `log_metrics`. Here all numbers of
a step go into one event, under the names of the sites, backward pass included:

    ranges/jvp(hidden)/dot_general/max
    ranges/transpose(jvp(hidden))/dot_general/max

`dump_and_reset` then keeps the window in a file and begins the next one; `jr.plot` draws these.

Needs tensorboardX, which writes event files without TensorFlow; TensorBoard shows them.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import tensorboardX
from tensorboardX.proto.summary_pb2 import Summary

import jax_ranges as jr

Params = dict[str, dict[str, jax.Array]]
RATE = 0.05


def init(key: jax.Array, width: int = 32) -> Params:
    """Random weights of two dense layers: from one number to one."""
    first, second = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(first, (1, width)), "bias": jnp.zeros(width)},
        "out": {"kernel": jax.random.normal(second, (width, 1)) / math.sqrt(width)},
    }


def loss(params: Params, x: jax.Array) -> jax.Array:
    """How far the model is from a sine: x of float32 [n, 1] -> []."""
    with jax.named_scope("hidden"):
        y = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    with jax.named_scope("out"):
        y = y @ params["out"]["kernel"]
    return jnp.mean((y - jnp.sin(x)) ** 2)


def step(params: Params, x: jax.Array) -> tuple[Params, jax.Array]:
    """One step of gradient descent; the new parameters, and the loss before it."""
    value, gradient = jax.value_and_grad(loss)(params, x)
    return jax.tree.map(lambda p, g: p - RATE * g, params, gradient), value


def write(writer: tensorboardX.FileWriter, number: int, scalars: Mapping[str, float]) -> None:
    """All scalars of a step as one event. Names stay as they are, brackets too."""
    values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
    writer.add_summary(Summary(value=values), number)


def train(folder: Path, steps: int, every: int) -> Params:
    """Train, with events and the windows `ranges_<step>.json` in `folder`; the parameters."""
    params = init(jax.random.key(0))
    net = jr.Net(step, select=("dot_general", "tanh"))
    with net, contextlib.closing(tensorboardX.FileWriter(folder)) as writer:
        for number in range(1, steps + 1):
            x = jax.random.uniform(jax.random.key(number), (64, 1), minval=-3, maxval=3)
            params, value = net(params, x)
            if number % every == 0:
                found = net.get_info().scalars("ranges/")
                write(writer, number, {"loss": float(value), **found})
                net.dump_and_reset(folder / f"ranges_{number}.json")
    return params


def main() -> None:
    parser = argparse.ArgumentParser(description="Train, and log ranges to TensorBoard.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/ranges"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="steps from one event to the next")
    options = parser.parse_args()
    train(options.folder, options.steps, options.every)
    print(f"tensorboard --logdir {options.folder}")


if __name__ == "__main__":
    main()
